"""The history in the store: read at the start, written in batches, and cut to the same length.

Events are no rows that anything is derived from, so they are not mirrored: who reads asks the process, and the table
``Event`` is for the controller that comes next.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from controller.errors import StoreError
from controller.history import Event, History
from controller.store.schema import schema_path
from controller.store.store import Store

log = logging.getLogger(__name__)

_TABLE = "Event"
_BATCH = 200
_BATCH_SECONDS = 1.0
_RETRY_SECONDS = 10.0
_WITHIN = 10.0
_LAST_SECONDS = 2.0

_TEXTS = ("kind", "name", "event", "message")
_LINKS = ("host", "network", "vm")


class Chronicle:
    """On the loop: nothing waits for it, and a store that is away keeps only the history waiting."""

    def __init__(self, store: Store, history: History) -> None:
        self._store = store
        self._history = history
        self._complained = False

    async def load(self) -> None:
        """Read what happened before. A store that cannot tell is no reason not to start."""
        select = {"op": "select", "table": _TABLE, "where": [], "columns": ["sequence", "event"]}
        try:
            [result] = await self._store.execute([select], _WITHIN)
        except StoreError as error:
            log.warning("what happened before is not known, where the store is of an older program convert it: "
                        "ovsdb-client convert REMOTE %s: %s", schema_path(), error)  # fmt: skip
            return
        self._history.load(event for row in result["rows"] if (event := _read(row)) is not None)

    async def run(self) -> None:
        """Write what happens, a second's worth at once, until cancelled."""
        while True:
            await asyncio.sleep(_BATCH_SECONDS)
            self._history.catch_up()
            if not await self._write(_WITHIN):
                await asyncio.sleep(_RETRY_SECONDS)

    async def finish(self) -> None:
        """Write the rest, if that is quick."""
        while self._history.unwritten(1) and await self._write(_LAST_SECONDS):
            pass

    async def _write(self, within: float) -> bool:
        events = self._history.unwritten(_BATCH)
        if not events:
            return True
        try:
            await self._store.execute(_operations(events, self._history.oldest), within)
        except StoreError as error:
            if not self._complained:
                log.warning("what happens is not written down: %s", error)
            self._complained = True
            return False
        self._complained = False
        self._history.written(events[-1].id)
        return True


def _operations(events: Sequence[Event], oldest: int) -> list[dict[str, Any]]:
    """One transaction that may be tried again when nobody knows whether it came through."""
    first, last = events[0].id, events[-1].id
    return [
        {"op": "delete", "table": _TABLE, "where": [["sequence", "<", oldest]]},
        {"op": "delete", "table": _TABLE, "where": [["sequence", ">=", first], ["sequence", "<=", last]]},
        *({"op": "insert", "table": _TABLE, "row": {"sequence": event.id, "event": _text(event)}} for event in events),
    ]


def _text(event: Event) -> str:
    return json.dumps({name: value for name, value in asdict(event).items() if name != "id" and value is not None})


def _read(row: Mapping[str, Any]) -> Event | None:
    """The event of a row; None where somebody wrote nonsense into it."""
    try:
        value = json.loads(row["event"])
        known = {field.name for field in fields(Event)}
        found = Event(id=row["sequence"], **{name: each for name, each in value.items() if name in known})
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return None
    generation = found.generation
    is_right = (
        isinstance(found.time, (int, float))
        and 0 <= found.time < 1e11
        and (generation is None or isinstance(generation, int))
        and all(isinstance(getattr(found, name), str) for name in _TEXTS)
        and all(isinstance(getattr(found, name), (str, type(None))) for name in _LINKS)
    )
    return found if is_right else None
