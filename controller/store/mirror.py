"""The store's rows in memory, as of the last change that the server told of."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any
from uuid import UUID

from controller.idl import RowChange
from controller.store.rows import Change, Row, load

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Problem:
    """A row of the database that is skipped, and why."""

    table: str
    name: str
    what: str
    generation: int


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease row: ``beat`` moves at every renewal, ``epoch`` at every change of owner. ``seen`` is when this process
    saw it move last (``time.monotonic``, which is also the loop's time)."""

    name: str
    owner: str
    epoch: int
    beat: int
    seen: float = field(default=0.0, compare=False)


class Mirror:
    """Rows by kind and name, numbers by pool and name, leases by name; and the UUID of each, for the transactions."""

    def __init__(self, kinds: Iterable[str]) -> None:
        self.rows: dict[str, dict[str, Row]] = {kind: {} for kind in kinds}
        self.numbers: dict[str, dict[str, int]] = {}
        self.leases: dict[str, Lease] = {}
        self.problems: dict[UUID, Problem] = {}
        self._uuids: dict[tuple[str, ...], UUID] = {}
        self._keys: dict[UUID, tuple[str, ...]] = {}
        self._texts: dict[UUID, tuple[str, str]] = {}

    def view(self, kind: str) -> Mapping[str, Row]:
        """The rows of a kind, read-only, live."""
        return MappingProxyType(self.rows[kind])

    def uuid(self, *key: str) -> UUID | None:
        """Of ``(kind, name)``, ``("Number", pool, name)`` or ``("Lease", name)``. Skipped rows have one too."""
        return self._uuids.get(key)

    def apply(self, changes: Iterable[RowChange]) -> list[Change]:
        """Takes over what the server told, and returns what is different for a reader of rows."""
        # A name that moved to another row of the database is a delete and a create, in any order.
        ordered = sorted(changes, key=lambda change: change.value is not None)
        before: dict[tuple[str, str], Row | None] = {}
        for change in ordered:
            old = self._keys.get(change.uuid)
            key = _key(change)
            for each in (old, key):
                if each is not None and each[0] in self.rows:
                    kind, name = each
                    before.setdefault((kind, name), self.rows[kind].get(name))
            if old is not None and old != key:
                self._drop(change.uuid, old)
            if key is not None:
                self._take(change, key)
        result = []
        for (kind, name), was in before.items():
            now = self.rows[kind].get(name)
            if was != now:
                result.append(Change(kind, name, was, now))
        return result

    def _drop(self, uuid: UUID, key: tuple[str, ...]) -> None:
        del self._keys[uuid]
        self._texts.pop(uuid, None)
        self.problems.pop(uuid, None)
        if self._uuids.get(key) != uuid:
            return
        del self._uuids[key]
        match key:
            case ("Number", pool, name):
                del self.numbers[pool][name]
            case ("Lease", name):
                self.leases.pop(name, None)
            case (kind, name):
                self.rows[kind].pop(name, None)

    def _take(self, change: RowChange, key: tuple[str, ...]) -> None:
        self._keys[change.uuid] = key
        self._uuids[key] = change.uuid
        match key:
            case ("Number", pool, name):
                self.numbers.setdefault(pool, {})[name] = change.value[2]
            case ("Lease", name):
                _, owner, epoch, beat = change.value
                lease = Lease(name, owner, epoch, beat, time.monotonic())
                if self.leases.get(name) != lease:
                    self.leases[name] = lease
            case (kind, name):
                self._take_row(change, kind, name)

    def _take_row(self, change: RowChange, kind: str, name: str) -> None:
        _, spec, status, generation, deleting = change.value
        old = self.rows[kind].get(name)
        texts = self._texts.get(change.uuid)
        try:
            if not name:
                raise ValueError("it has no name")
            if generation < 0:
                raise ValueError(f"its generation is {generation}")
            row = Row(
                kind,
                name,
                old.spec if old and texts and texts[0] == spec else load(spec),
                old.status if old and texts and texts[1] == status else load(status),
                generation,
                deleting,
            )
        except ValueError as error:
            # Somebody edited the database by hand. What was known of the object stays in force.
            problem = Problem(kind, name, str(error), max(generation, 0))
            if self.problems.get(change.uuid) != problem:
                log.warning("%s %s: the row in the store is skipped: %s", kind, name, error)
            self.problems[change.uuid] = problem
            if old is not None:
                self.rows[kind][name] = replace(old, generation=problem.generation, deleting=deleting)
            return
        self.problems.pop(change.uuid, None)
        self._texts[change.uuid] = (spec, status)
        self.rows[kind][name] = row


def _key(change: RowChange) -> tuple[str, ...] | None:
    value: tuple[Any, ...] | None = change.value
    if value is None:
        return None
    if change.table == "Number":
        return ("Number", value[0], value[1])
    return (change.table, value[0])
