"""What a client has to tell the asyncio loop: in order, and summed up where the loop is slower than the server."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from controller.idl.replica import sum_up

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RowChange:
    """A row that was created, updated or deleted (``event``). ``value`` is what the client's ``read`` made of the row;
    None when there is no reader for its table, and for a deleted row. ``uuid`` is a ``uuid.UUID``."""

    table: str
    uuid: Any
    event: str
    value: Any = None


class Listener(Protocol):
    """Who is told. Every method is called on the asyncio loop, in the order in which things happened."""

    def on_up(self) -> None:
        """The database is reachable and its contents were handed to on_change."""

    def on_down(self, reason: str) -> None:
        """It is not any more; what was read of it stays as it was."""

    def on_change(self, changes: Sequence[RowChange]) -> None:
        """Rows changed, each named once; a transaction's end is told after the changes that it made."""


class News:
    """Carries changes and calls from the thread to the loop that it was made on."""

    def __init__(self, listener: Listener, where: str) -> None:
        self._listener, self._where = listener, where
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._items: list[dict[tuple[str, Any], RowChange] | Callable[[], None]] = []

    def changed(self, changes: Sequence[RowChange]) -> None:
        """Rows changed. From the thread."""
        if not changes:
            return
        with self._lock:
            last = self._items[-1] if self._items else None
            if isinstance(last, dict):
                # The loop is slower than the server: what it has yet to hear is summed up, so this cannot grow.
                for change in changes:
                    key = (change.table, change.uuid)
                    before = last.pop(key, None)
                    last[key] = replace(change, event=sum_up(before.event if before else None, change.event))
                return
        self._put({(change.table, change.uuid): change for change in changes})

    def call(self, call: Callable[[], None]) -> None:
        """Something happened, after everything before it. From the thread."""
        self._put(call)

    def resolve(self, future: asyncio.Future[T], value: T) -> None:
        """A future of the loop has its value. From the thread."""
        self._put(lambda: None if future.done() else future.set_result(value))

    def fail(self, future: asyncio.Future[T], error: Exception) -> None:
        """A future of the loop fails. From the thread."""
        self._put(lambda: None if future.done() else future.set_exception(error))

    def _put(self, item: dict[tuple[str, Any], RowChange] | Callable[[], None]) -> None:
        with self._lock:
            self._items.append(item)
            if len(self._items) > 1:
                return
        try:
            self._loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:  # the loop was closed: nobody is left to be told
            with self._lock:
                self._items.clear()

    def _deliver(self) -> None:
        with self._lock:
            items, self._items = self._items, []
        for item in items:
            try:
                if isinstance(item, dict):
                    self._listener.on_change(list(item.values()))
                else:
                    item()
            except Exception:
                log.exception("%s: a listener failed", self._where)
