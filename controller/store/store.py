"""The store as the rest of the program knows it: rows to read, to watch and to write, on the asyncio loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from controller.errors import NotFound, StoreError
from controller.idl import ClientState, Database, IdlThread, Limits, OvsdbClient, RowChange, TlsFiles
from controller.store import schema
from controller.store.lease import Leadership
from controller.store.mirror import Lease, Mirror, Problem
from controller.store.plan import Operation, make_plan, release_operations, settle
from controller.store.rows import Change, NumberRequest, Row, Write

log = logging.getLogger(__name__)

Watcher = Callable[[Sequence[Change]], None]

# A cluster elects a leader in about a second (--election-timer): hear of a dead server, and try again, as fast.
LIMITS = Limits(probe=2.0, backoff=(0.1, 1.0))

_TRIES = 30


class Store:
    """``remotes``: where the database is, ``unix:/path`` or several as ``tcp:a:6641,tcp:b:6641``. All on one loop: what
    ``rows`` gives changes only between two turns of it. When the store is away, rows stay as they were."""

    def __init__(
        self, remotes: str, thread: IdlThread, *, tls: TlsFiles | None = None, limits: Limits = LIMITS
    ) -> None:
        self._remotes, self._thread, self._tls, self._limits = remotes, thread, tls, limits
        self._mirror = Mirror(schema.kinds())
        self._watchers: list[Watcher] = []
        self._leaderships: list[Leadership] = []
        self._client: OvsdbClient | None = None
        self._up = asyncio.Event()
        self._writing = asyncio.Lock()

    async def start(self, within: float = 10.0) -> None:
        """Connects, and returns when every row was read. Raises StoreError when that took longer than ``within``
        seconds; the store goes on trying, and start() may be called again."""
        if self._client is None:
            self._client = self._thread.connect(
                self._remotes, self._database(), self, limits=self._limits, tls=self._tls
            )
        try:
            async with asyncio.timeout(within):
                await self._up.wait()
        except TimeoutError:
            state = self._client.state
            raise StoreError(
                f"cannot be read: {state.error or state.doing}",
                where=f"store ({state.remote})",
                remedy="see that ovsdb-server runs there and serves the database Fleetswitch",
            ) from None
        if self._client.missing:
            raise StoreError(
                f"its schema is older than this program: it lacks {', '.join(self._client.missing)}",
                where=f"store ({self._client.state.remote})",
                remedy=f"ovsdb-client convert {self._client.state.remote} {schema.schema_path()}",
            )

    def close(self) -> None:
        """Ends the connection."""
        if self._client is not None:
            self._client.close()

    @property
    def state(self) -> ClientState | None:
        """How the connection stands; None before start()."""
        return self._client.state if self._client else None

    @property
    def is_up(self) -> bool:
        """Whether what rows() gives is what the database holds."""
        return self._up.is_set()

    def problems(self) -> Sequence[Problem]:
        """Rows of the database that are skipped because somebody wrote nonsense into them."""
        return list(self._mirror.problems.values())

    def kinds(self) -> Sequence[str]:
        """What rows() knows."""
        return schema.kinds()

    def rows(self, kind: str) -> Mapping[str, Row]:
        """The rows of a kind by name: live and read-only. Raises NotFound for an unknown kind."""
        if kind not in self._mirror.rows:
            raise NotFound(f"there is no kind {kind}", remedy=f"one of {', '.join(self.kinds())}")
        return self._mirror.view(kind)

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Calls ``watcher(changes)`` on the loop for every change from now on, in the order of the commits. Several
        commits may come as one list, which names each row once. Returns the call that ends it."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    async def commit(
        self, writes: Sequence[Write], *, numbers: Sequence[NumberRequest] = (), within: float = 10.0
    ) -> list[int]:
        """Writes all or nothing, and returns the numbers in the order of their requests. When it returns, rows() shows
        the writes and the watchers were called.

        Raises Conflict when a row has another generation than was expected, StoreError when the store refuses, is
        away for ``within`` seconds, or does not answer in that time: then the text says that the outcome is not known.
        A connection that is lost in the middle is waited for, and what came through is not written twice.
        """

        result: list[int] = []

        def plan(again: bool) -> list[Operation]:
            made = make_plan(self._mirror, settle(self._mirror, writes) if again else writes, numbers)
            result[:] = made.numbers
            return made.operations

        await self._write(plan, within)
        return result

    def check(self, writes: Sequence[Write], *, numbers: Sequence[NumberRequest] = ()) -> None:
        """Raises Conflict and StoreError as commit() would by what is known here; writes nothing."""
        make_plan(self._mirror, writes, numbers)

    async def execute(self, operations: Sequence[Operation], within: float) -> list[dict[str, Any]]:
        """One transaction on a table that is not mirrored; returns the results of its operations. Raises StoreError."""
        if self._client is None:
            raise StoreError("was not started", where="store")
        results = await self._client.execute(operations, within)
        if (failure := _first_error(results, len(operations))) is not None:
            raise StoreError(f"refused the transaction: {_told(failure)}", where="store")
        return list(results)

    async def number(self, pool: str, name: str, low: int, high: int, *, within: float = 10.0) -> int:
        """The number of ``name`` in ``pool``, allocated when it has none: the lowest that nobody in the fleet has,
        between ``low`` and ``high`` inclusive. Raises StoreError when none is left, and as commit() does."""
        return (await self.commit((), numbers=[NumberRequest(pool, name, low, high)], within=within))[0]

    def numbers(self, pool: str) -> Mapping[str, int]:
        """Every number of a pool by name, as it is now."""
        return MappingProxyType(dict(self._mirror.numbers.get(pool, {})))

    async def release(self, pool: str, name: str, *, within: float = 10.0) -> None:
        """Gives a number back. One that is not there is fine."""
        await self._write(lambda again: release_operations(self._mirror, pool, name), within)

    def lease(
        self,
        name: str,
        owner: str,
        seconds: float,
        on_won: Callable[[int], None],
        on_lost: Callable[[str], None],
        *,
        alone: bool = False,
    ) -> Leadership:
        """A lease that is tried for once its ``start()`` is called. ``owner`` names this controller and no other;
        ``alone`` says that no other can have this store, so that the lease of a dead one is not waited for."""

        async def write(plan: Callable[[], list[Operation]], within: float) -> None:
            await self._write(lambda again: plan(), within)

        leadership = Leadership(self._mirror, write, name, owner, seconds, on_won, on_lost, alone=alone)
        self._leaderships.append(leadership)
        return leadership

    def leases(self) -> Mapping[str, Lease]:
        """Every lease by name, held or not: live and read-only."""
        return MappingProxyType(self._mirror.leases)

    # What the client tells.

    def on_up(self) -> None:
        """The rows are there."""
        self._up.set()

    def on_down(self, reason: str) -> None:
        """They may be old from now on."""
        log.warning("store: %s", reason)
        self._up.clear()

    def on_change(self, changes: Sequence[RowChange]) -> None:
        """Rows of the database changed."""
        changed = self._mirror.apply(changes)
        if any(change.table == "Lease" for change in changes):
            for leadership in self._leaderships:
                leadership.moved()
        if not changed:
            return
        for watcher in list(self._watchers):
            try:
                watcher(changed)
            except Exception:
                log.exception("store: a watcher failed")

    # Inner.

    def _database(self) -> Database:
        columns: dict[str, tuple[str, ...]] = dict.fromkeys(schema.kinds(), schema.KIND_COLUMNS)
        columns |= {"Number": schema.NUMBER_COLUMNS, "Lease": schema.LEASE_COLUMNS}

        def reader(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
            return lambda row: tuple(getattr(row, name) for name in names)

        read = {table: reader(names) for table, names in columns.items()}
        return Database(schema.DATABASE, columns, "store", read, index=False, error=StoreError)

    async def _write(self, plan: Callable[[bool], list[Operation]], within: float) -> None:
        """Commits what ``plan(again)`` gives, planned anew when another writer was first; ``again``: after a try whose
        outcome is not known."""
        client = self._client
        if client is None:
            raise StoreError("was not started", where="store")
        deadline = asyncio.get_running_loop().time() + within
        try:
            # One at a time: each is planned on what the one before left.
            async with asyncio.timeout_at(deadline):
                await self._writing.acquire()
        except TimeoutError:
            state = client.state
            raise StoreError(
                f"is busy or away: {state.error or state.doing}", where=f"store ({state.remote})"
            ) from None
        try:
            await self._try_to_write(client, plan, deadline)
        finally:
            self._writing.release()

    async def _try_to_write(
        self, client: OvsdbClient, plan: Callable[[bool], list[Operation]], deadline: float
    ) -> None:
        again = False
        for attempt in range(_TRIES):
            operations = plan(again)
            if not operations:
                return
            left = deadline - asyncio.get_running_loop().time()
            try:
                results = await client.execute(operations, max(0.001, left), wait=True)
            except StoreError as error:
                if not isinstance(error.__cause__, ConnectionError):
                    raise
                again = True
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(deadline):
                        await self._up.wait()
                if not self.is_up:
                    raise
                continue
            failure = _first_error(results, len(operations))
            if failure is None:
                return
            if failure["error"] not in ("timed out", "constraint violation"):
                raise StoreError(f"refused the transaction: {_told(failure)}", where="store")
            # Another writer was first. What it wrote has been told before the refusal was: plan on that.
            await asyncio.sleep(0.002 * attempt)
        raise StoreError("others change it too often for this to be written", where="store")


def _first_error(results: Any, expected: int) -> dict[str, Any] | None:
    if not isinstance(results, list) or len(results) < expected:
        return {"error": "the reply has too few results"}
    for result in results:
        if isinstance(result, dict) and result.get("error"):
            return result
    return None


def _told(failure: Mapping[str, Any]) -> str:
    return ": ".join(str(failure[key]) for key in ("error", "details") if failure.get(key))
