"""The store on a RAFT cluster of three, whose leader is killed."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

from ovsdb_servers import Server, cluster, idl_thread, leader, run, until

from controller.store import Put, Store


def test_commits_and_numbers_outlive_the_leader(tmp_path: Path) -> None:
    async def main(servers: list[Server]) -> None:
        remotes = ",".join(server.remote for server in servers)
        with idl_thread() as thread:
            stores = [Store(remotes, thread) for _ in range(2)]
            for store in stores:
                await store.start()
            numbers: list[int] = []
            longest = 0.0

            async def write(number: int, store: Store) -> None:
                nonlocal longest
                for each in range(60):
                    begin = time.monotonic()
                    await store.commit([Put("Network", f"{number}-{each}", {"n": each}, 0)], within=30)
                    numbers.append(await store.number("segment", f"{number}-{each}", 1, 1000, within=30))
                    longest = max(longest, time.monotonic() - begin)
                    await asyncio.sleep(0.02)

            writing = asyncio.gather(*(write(n, store) for n, store in enumerate(stores)))
            await until(lambda: len(numbers) > 20, "they write", 30)
            dead = leader(servers)
            dead.kill()
            await writing
            assert sorted(numbers) == list(range(1, 121))
            expected = {f"{n}-{each}": {"n": each} for n in range(2) for each in range(60)}
            for store in stores:
                await until(lambda store=store: len(store.rows("Network")) == 120, "every row is there")
                assert {name: row.spec for name, row in store.rows("Network").items()} == expected
                assert {row.generation for row in store.rows("Network").values()} == {1}
            # An election takes 1 to 2 seconds (ovsdb(5), election timer); the rest is ours.
            assert longest < 8
            dead.start()
            await stores[0].commit([Put("Network", "after", {})], within=20)
            for store in stores:
                store.close()

    with cluster(tmp_path) as servers:
        run(main(servers), 90)


def test_a_member_that_stalls_is_left_for_another(tmp_path: Path) -> None:
    async def main(servers: list[Server]) -> None:
        remotes = ",".join(server.remote for server in servers)
        with idl_thread() as thread:
            store = Store(remotes, thread)
            await store.start()
            await store.commit([Put("Host", "a", {})])
            assert store.state is not None
            mine = next(server for server in servers if store.state and server.remote == store.state.remote)
            mine.signal(signal.SIGSTOP)
            begin = time.monotonic()
            await store.commit([Put("Host", "a", {"v": 2}, 1)], within=30)
            assert time.monotonic() - begin < 12
            assert store.rows("Host")["a"].spec == {"v": 2}
            assert store.rows("Host")["a"].generation == 2
            mine.signal(signal.SIGCONT)
            store.close()

    with cluster(tmp_path) as servers:
        run(main(servers), 90)
