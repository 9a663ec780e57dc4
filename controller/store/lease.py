"""Leadership: a row that one controller holds for as long as it renews it.

Clocks of two machines are never compared. The holder counts from the moment before it sent its last renewal, the
others from the moment when they saw the row change, which is later: when they may take the lease, the holder has given
it up. Every change of owner raises the epoch, and whatever is done under a lease carries its epoch. OVSDB's own
``lock`` is not used: on a cluster each server grants its own, and two clients hold it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from controller.errors import StoreError
from controller.store.mirror import Lease, Mirror
from controller.store.plan import Operation, is_uuid, still

log = logging.getLogger(__name__)

Commit = Callable[[Callable[[], list[Operation]], float], Awaitable[None]]


class Leadership:
    """Tries to hold the lease ``name`` from ``start()`` to ``stop()``. ``owner`` names this controller and no other,
    also none that ran before it. ``alone``: nobody else can have the store, so whoever holds the lease is dead.
    ``on_won(epoch)`` and ``on_lost(reason)`` are called on the loop, in turn."""

    def __init__(
        self,
        mirror: Mirror,
        commit: Commit,
        name: str,
        owner: str,
        seconds: float,
        on_won: Callable[[int], None],
        on_lost: Callable[[str], None],
        *,
        alone: bool = False,
    ) -> None:
        self.name, self.owner = name, owner
        self.epoch = 0  # while it is held, else 0
        self._mirror, self._commit = mirror, commit
        self._seconds, self._alone = seconds, alone
        self._on_won, self._on_lost = on_won, on_lost
        self._task: asyncio.Task[None] | None = None
        self._end: asyncio.TimerHandle | None = None
        self._moved = asyncio.Event()

    @property
    def is_held(self) -> bool:
        """Whether this controller holds the lease at this moment."""
        return self.epoch > 0

    def start(self) -> None:
        """Begins to try."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Gives the lease up, so that another takes it at once; when the store is away, it runs out by itself."""
        if self._task is None:
            return
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._task = None
        if not self.epoch:
            return
        epoch = self.epoch
        self._lose("given up")
        with contextlib.suppress(StoreError):
            await self._commit(lambda: self._write(epoch, owner="", epoch=epoch), self._seconds)

    def moved(self) -> None:
        """The store's word that a lease row changed."""
        lease = self._mirror.leases.get(self.name)
        if not self.epoch:
            self._moved.set()
        elif lease is None or (lease.owner, lease.epoch) != (self.owner, self.epoch):
            self._lose(f"{lease.owner if lease and lease.owner else 'nobody'} holds it now")
            self._moved.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._moved.clear()
            lease = self._mirror.leases.get(self.name)
            pause = self._seconds / 3
            try:
                if self.epoch:
                    await self._renew(loop.time())
                elif (left := self._left(lease, loop.time())) > 0:
                    pause = left
                else:
                    await self._take(lease, loop.time())
            except StoreError as error:
                log.debug("lease %s: %s", self.name, error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._moved.wait()

    def _left(self, lease: Lease | None, now: float) -> float:
        """Seconds until the lease may be taken."""
        if lease is None or self._alone or lease.owner in ("", self.owner):
            return 0.0
        return lease.seen + self._seconds * 1.1 - now

    async def _take(self, lease: Lease | None, sent: float) -> None:
        epoch = lease.epoch + 1 if lease else 1

        def write() -> list[Operation]:
            if self._mirror.leases.get(self.name) != lease:
                raise StoreError("another controller was first", where=f"lease {self.name}")
            return self._write(lease.epoch if lease else None, owner=self.owner, epoch=epoch)

        await self._commit(write, self._seconds / 3)
        self._extend(sent)
        if self._end is not None and not self.epoch:
            self.epoch = epoch
            log.info("lease %s: taken, epoch %d", self.name, epoch)
            self._on_won(epoch)

    async def _renew(self, sent: float) -> None:
        epoch = self.epoch

        def write() -> list[Operation]:
            if self.epoch != epoch:
                raise StoreError("was lost meanwhile", where=f"lease {self.name}")
            return self._write(epoch, owner=self.owner, epoch=epoch)

        await self._commit(write, self._seconds / 3)
        if self.epoch == epoch:
            self._extend(sent)

    def _write(self, seen: int | None, *, owner: str, epoch: int) -> list[Operation]:
        """The row, provided that it still has the epoch ``seen`` and the beat of the mirror; None: that there is none,
        which the index on the name sees to."""
        if seen is None:
            row: dict[str, Any] = {"name": self.name, "owner": owner, "epoch": epoch, "beat": 0}
            return [{"op": "insert", "table": "Lease", "row": row}]
        lease, uuid = self._mirror.leases.get(self.name), self._mirror.uuid("Lease", self.name)
        if lease is None or uuid is None:
            raise StoreError("the row is gone", where=f"lease {self.name}")
        row = {"owner": owner, "epoch": epoch, "beat": lease.beat + 1}
        return [
            still("Lease", uuid, {"owner": lease.owner, "epoch": seen, "beat": lease.beat}),
            {"op": "update", "table": "Lease", "where": is_uuid(uuid), "row": row},
        ]

    def _extend(self, sent: float) -> None:
        loop = asyncio.get_running_loop()
        if self._end is not None:
            self._end.cancel()
            self._end = None
        if sent + self._seconds > loop.time():
            self._end = loop.call_at(sent + self._seconds, self._lose, "it could not be renewed in time")
        elif self.epoch:
            self._lose("it could not be renewed in time")

    def _lose(self, reason: str) -> None:
        if self._end is not None:
            self._end.cancel()
            self._end = None
        if not self.epoch:
            return
        self.epoch = 0
        log.warning("lease %s: lost: %s", self.name, reason)
        self._on_lost(reason)
