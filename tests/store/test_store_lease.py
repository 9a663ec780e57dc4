"""A lease has one holder, whoever dies."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from pathlib import Path

from ovsdb_servers import idl_thread, run, until

from controller.store import Leadership, PrivateServer, Store

SECONDS = 0.6


class Controller:
    """One store and one lease; writes down when it held it, and under which epoch."""

    def __init__(self, store: Store, name: str, held: list[tuple[str, int, float, float]]) -> None:
        self.store, self.name, self.held = store, name, held
        self.reasons: list[str] = []
        self._since = (0, 0.0)
        self.lease: Leadership = store.lease("leader", name, SECONDS, self.won, self.lost)

    def won(self, epoch: int) -> None:
        self._since = (epoch, time.monotonic())

    def lost(self, reason: str) -> None:
        self.held.append((self.name, *self._since, time.monotonic()))
        self.reasons.append(reason)


def check(held: list[tuple[str, int, float, float]]) -> None:
    """No two at once, and every tenure has an epoch of its own, in order."""
    held.sort(key=lambda each: each[2])
    for before, after in itertools.pairwise(held):
        assert before[3] <= after[2]
        assert before[1] < after[1]


def test_a_lease_given_up_passes_on_at_once_and_a_dead_holders_after_it_ran_out(tmp_path: Path) -> None:
    async def main() -> None:
        server = PrivateServer(tmp_path)
        await server.start()
        held: list[tuple[str, int, float, float]] = []
        with idl_thread() as thread:
            stores = [Store(server.remote, thread) for _ in range(3)]
            controllers = [Controller(store, f"c{n}", held) for n, store in enumerate(stores)]
            for one in controllers:
                await one.store.start()
                one.lease.start()

            def holder() -> Controller | None:
                holders = [one for one in controllers if one.lease.is_held]
                assert len(holders) <= 1
                return holders[0] if holders else None

            await until(holder, "one holds it")
            first = holder()
            assert first is not None
            await asyncio.sleep(3 * SECONDS)
            assert holder() is first, "renewed for as long as it lives"
            assert stores[0].leases()["leader"].owner == first.name

            begin = time.monotonic()
            await first.lease.stop()
            await until(holder, "the next holds it")
            assert time.monotonic() - begin < SECONDS / 2
            second = holder()
            assert second is not None
            assert second.lease.epoch > 1

            # The connection of the holder is gone: it gives up by its own clock, then another takes over.
            second.store.close()
            await until(lambda: not second.lease.is_held, "it gave up", 2 * SECONDS)
            assert "could not be renewed" in second.reasons[-1]
            await until(holder, "the third holds it", 5 * SECONDS)
            third = holder()
            assert third not in (first, second)
            for one in controllers:
                await one.lease.stop()
            check(held)
            assert len(held) == 3
        await server.stop()

    run(main())


def test_who_is_alone_takes_a_dead_holders_lease_at_once_and_nobody_else_does(tmp_path: Path) -> None:
    async def main() -> None:
        server = PrivateServer(tmp_path)
        await server.start()
        with idl_thread() as thread:
            stores = [Store(server.remote, thread) for _ in range(3)]
            for store in stores:
                await store.start()

            def lease(store: Store, owner: str, *, alone: bool) -> Leadership:
                return store.lease("leader", owner, 30.0, lambda epoch: None, lambda reason: None, alone=alone)

            dead, other, next_one = (lease(store, f"host {n}", alone=n == 2) for n, store in enumerate(stores))
            dead.start()
            await until(lambda: dead.is_held, "it is held")
            stores[0].close()  # as kill -9 would
            other.start()
            await asyncio.sleep(0.5)
            assert not other.is_held
            await other.stop()
            next_one.start()
            await until(lambda: next_one.is_held, "it is taken, long before it ran out")
            assert next_one.epoch == 2
            for one in (dead, next_one):
                await one.stop()
        await server.stop()

    run(main())


def test_a_stopped_store_makes_the_holder_give_up_and_somebody_take_over_later(tmp_path: Path) -> None:
    async def main() -> None:
        server = PrivateServer(tmp_path)
        await server.start()
        held: list[tuple[str, int, float, float]] = []
        with idl_thread() as thread:
            stores = [Store(server.remote, thread) for _ in range(2)]
            controllers = [Controller(store, f"c{n}", held) for n, store in enumerate(stores)]
            for one in controllers:
                await one.store.start()
                one.lease.start()
            await until(lambda: any(one.lease.is_held for one in controllers), "one holds it")
            os.kill(server.pid, signal.SIGSTOP)
            await until(lambda: not any(one.lease.is_held for one in controllers), "nobody holds it", 3 * SECONDS)
            os.kill(server.pid, signal.SIGCONT)
            await until(lambda: any(one.lease.is_held for one in controllers), "one holds it again", 20)
            for one in controllers:
                await one.lease.stop()
            check(held)
            assert len(held) >= 2
        await server.stop()

    run(main())
