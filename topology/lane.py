"""Blocking calls to one host, one after another, each in a thread of its own with a deadline.

libvirt's calls have no timeout: a stopped libvirtd holds an open for ever, and a black-holed one for minutes. Nothing
can end such a call, so its thread is left behind, the lane says that it is stuck, and starts no other thread until that
one has come back. So a host can hold one thread and no more, and never another host.

Of all lanes together so many calls are under way at once, that 400 hosts which are read together neither make 400
threads nor keep the loop from its work. Calls that only wait are soon not counted any more, nor those that never end.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakKeyDictionary

from controller.errors import LibvirtError

T = TypeVar("T")

AT_ONCE = 32
"""Calls of all lanes of a loop."""

WAITS = 1.0
"""Seconds without a beat after which a call is taken to wait for its libvirtd, rather than to work."""

LONGEST = 5.0
"""Seconds after which a call is not counted any more, whatever its libvirtd answers: it may do so without end."""

_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


class Beat:
    """Called by a call's thread, starts its deadline anew: one of the several calls that it makes has returned."""

    __slots__ = ("last",)

    def __init__(self) -> None:
        self.last = time.monotonic()

    def __call__(self) -> None:
        self.last = time.monotonic()


class Lane:
    """All methods on the loop's thread."""

    def __init__(
        self, where: str, loop: asyncio.AbstractEventLoop, on_stuck: Callable[[], None] = lambda: None
    ) -> None:
        self.where = where
        self._on_stuck = on_stuck
        self._loop = loop
        self._busy = False
        self._stuck = ""
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._freed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._turns = _turns.setdefault(loop, asyncio.Semaphore(AT_ONCE))
        self._is_counted = False  # the call is one of those that are under way
        self._waits: asyncio.TimerHandle | None = None

    @property
    def stuck(self) -> str:
        """What has not returned in time, and empty when the lane is free."""
        return self._stuck

    def refuse_if_stuck(self) -> None:
        """Raises LibvirtError while the lane is stuck."""
        if self._stuck:
            raise self._error()

    async def freed(self) -> None:
        """Returns when the lane is not stuck."""
        while self._stuck:
            self._freed.clear()
            await self._freed.wait()

    async def run(self, what: str, call: Callable[[Beat], T], deadline: float) -> T:
        """The result of ``call`` (or its exception), which has ``deadline`` seconds from its start and from each beat.

        Raises LibvirtError when it is late, and at once while the lane is stuck. A caller that is cancelled leaves its
        call to finish; the next one waits for it.
        """
        self.refuse_if_stuck()
        if self._busy:
            await self._turn()
        self._busy = True
        await self._counted_in()
        beat = Beat()
        done: asyncio.Future[T] = self._loop.create_future()
        thread = threading.Thread(
            target=self._in_thread, args=(call, beat, done), name=f"libvirt {self.where}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:
            self._count_out()
            self._next()
            raise LibvirtError(f"no thread for {what}: {error}", where=self.where) from None
        self._watch(what, beat, deadline, done)
        self._watch_counted(beat, time.monotonic() + LONGEST)
        return await done

    async def _counted_in(self) -> None:
        try:
            await self._turns.acquire()
        except asyncio.CancelledError:
            self._next()
            raise
        self._is_counted = True

    def _watch_counted(self, beat: Beat, until: float) -> None:
        left = min(beat.last + WAITS, until) - time.monotonic()
        if left > 0:
            self._waits = self._loop.call_later(left, self._watch_counted, beat, until)
        else:
            self._count_out()

    def _count_out(self) -> None:
        if self._waits is not None:
            self._waits.cancel()
            self._waits = None
        if self._is_counted:
            self._is_counted = False
            self._turns.release()

    def _watch(self, what: str, beat: Beat, deadline: float, done: asyncio.Future[T]) -> None:
        left = beat.last + deadline - time.monotonic()
        if left > 0:
            self._timer = self._loop.call_later(left, self._watch, what, beat, deadline, done)
            return
        self._stuck = f"{what} has not returned within {deadline:g} s"
        if not done.done():
            done.set_exception(self._error())
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(self._error())
        self._on_stuck()

    def _error(self) -> LibvirtError:
        return LibvirtError(
            f"libvirtd hangs: {self._stuck}",
            where=self.where,
            remedy="a hook that does not return, or a stopped process: systemctl status libvirtd there",
        )

    async def _turn(self) -> None:
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._next()  # the turn had come at the same time: hand it on
            raise

    def _in_thread(self, call: Callable[[Beat], T], beat: Beat, done: asyncio.Future[T]) -> None:
        try:
            result = call(beat)
        except BaseException as error:
            failure = error

            def settle() -> None:
                if not done.done():
                    done.set_exception(failure)
        else:

            def settle() -> None:
                if not done.done():
                    done.set_result(result)

        try:
            self._loop.call_soon_threadsafe(self._returned, settle)
        except RuntimeError:
            return  # the loop is closed: the program ends

    def _returned(self, settle: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._count_out()
        settle()
        self._stuck = ""
        self._freed.set()
        self._next()

    def _next(self) -> None:
        self._busy = False
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                self._busy = True
                waiter.set_result(None)
                return
