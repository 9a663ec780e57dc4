"""Rows, watches, guarded writes and numbers on a real ovsdb-server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from ovsdb_servers import idl_thread, raises, run, server, until

from controller.errors import Conflict, NotFound, StoreError
from controller.store import (
    Change,
    MarkDeleting,
    NumberRequest,
    PrivateServer,
    Put,
    PutStatus,
    Remove,
    Row,
    Store,
    Write,
)
from controller.store.schema import schema_path


@contextlib.asynccontextmanager
async def stores(folder: Path, count: int = 1) -> AsyncIterator[tuple[PrivateServer, list[Store]]]:
    private = PrivateServer(folder)
    await private.start()
    try:
        with idl_thread() as thread:
            opened = [Store(private.remote, thread) for _ in range(count)]
            for store in opened:
                await store.start()
            yield private, opened
            for store in opened:
                store.close()
    finally:
        await private.stop()


def test_a_row_is_created_replaced_marked_and_removed(tmp_path: Path) -> None:
    async def main() -> None:
        async with stores(tmp_path) as (_, [store]):
            seen: list[Change] = []
            store.watch(seen.extend)
            await store.commit([Put("Network", "web", {"mode": "nat", "note": "ü \x00"}, 0)])
            web = store.rows("Network")["web"]
            assert web == Row("Network", "web", {"mode": "nat", "note": "ü \x00"}, {}, 1, False)
            assert seen == [Change("Network", "web", None, web)]

            await store.commit([Put("Network", "web", {"note": "ü \x00", "mode": "nat"}, 1)])
            assert len(seen) == 1, "an equal spec writes nothing"

            await store.commit([Put("Network", "web", {"mode": "route"}, 1), PutStatus("Network", "web", {"up": True})])
            new = store.rows("Network")["web"]
            assert new == Row("Network", "web", {"mode": "route"}, {"up": True}, 2, False)
            assert seen[1:] == [Change("Network", "web", web, new)]

            await store.commit([MarkDeleting("Network", "web"), MarkDeleting("Network", "none")])
            marked = store.rows("Network")["web"]
            assert (marked.deleting, marked.generation) == (True, 3)
            assert "read again" in await raises(Conflict, store.commit([Put("Network", "web", {}, 2)]))
            await store.commit([Put("Network", "web", {"mode": "route"}, 3)])
            assert not store.rows("Network")["web"].deleting

            await store.commit([Remove("Network", "web", 4), Remove("Network", "none")])
            assert dict(store.rows("Network")) == {}
            assert seen[-1].new is None
            with pytest.raises(NotFound):
                store.rows("Nonsense")

    run(main())


def test_an_observed_row_has_generation_0_until_it_is_wanted(tmp_path: Path) -> None:
    async def main() -> None:
        async with stores(tmp_path) as (_, [store]):
            await store.commit([PutStatus("Port", "gone", {"ofport": 1})])
            assert "gone" not in store.rows("Port")
            await store.commit([PutStatus("Port", "p", {"ofport": 1}, create=True)])
            assert store.rows("Port")["p"] == Row("Port", "p", {}, {"ofport": 1}, 0)
            await store.commit([Put("Port", "p", {}, 0)])
            assert store.rows("Port")["p"] == Row("Port", "p", {}, {"ofport": 1}, 1)

    run(main())


def test_all_or_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with stores(tmp_path) as (_, [store]):
            await store.commit([Put("Host", "a", {})])
            wrong: Sequence[tuple[type[Exception], Write, str]] = [
                (Conflict, MarkDeleting("Host", "a", 7), "Host a: generation 7 was read, but it has generation 1 now"),
                (Conflict, Put("Host", "a", {"x": 1}, 7), "Host a: generation 7 was read, but it has generation 1 now"),
                (Conflict, Put("Host", "c", {}, 7), "Host c: generation 7 was read, but it is gone"),
                (Conflict, Put("Host", "a", {}, 0), "it was not there when it was read"),
                (StoreError, Put("Nonsense", "a", {}), "no table for this kind"),
                (StoreError, Put("Host", "", {}), "must not be empty"),
                (StoreError, Put("Host", "d", {"x": float("nan")}), "cannot be stored as JSON"),
                (StoreError, Put("Host", "d", {"x": object()}), "cannot be stored as JSON"),
            ]
            for kind, write, reason in wrong:
                assert reason in await raises(kind, store.commit([Put("Host", "b", {}), write]))
            assert set(store.rows("Host")) == {"a"}

    run(main())


def test_of_two_clients_that_read_the_same_generation_one_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with stores(tmp_path, 2) as (_, pair):
            for name in (f"n{n}" for n in range(30)):
                await pair[0].commit([Put("Network", name, {"by": "nobody"})])
                await until(lambda name=name: name in pair[1].rows("Network"), "the other reads it")
                done = await asyncio.gather(
                    *(store.commit([Put("Network", name, {"by": n}, 1)]) for n, store in enumerate(pair)),
                    return_exceptions=True,
                )
                assert sorted(isinstance(each, Conflict) for each in done) == [False, True]
                winner = [isinstance(each, Conflict) for each in done].index(False)
                for store in pair:
                    await until(lambda store=store, name=name: store.rows("Network")[name].generation == 2, "told")
                    assert store.rows("Network")[name].spec == {"by": winner}

    run(main())


def test_writers_that_do_not_care_lose_no_generation(tmp_path: Path) -> None:
    async def main() -> None:
        async with stores(tmp_path, 3) as (_, three):
            await asyncio.gather(
                *(store.commit([Put("Host", "h", {"n": (n, i)})]) for n, store in enumerate(three) for i in range(20))
            )
            for store in three:
                await until(lambda store=store: store.rows("Host")["h"].generation == 60, "each write counted")

    run(main())


def test_watchers_see_every_state_in_the_order_of_the_commits(tmp_path: Path) -> None:
    async def main() -> None:
        async with stores(tmp_path, 2) as (_, [writer, reader]):
            mirror: dict[str, Row] = {}

            def follow(changes: Sequence[Change]) -> None:
                for change in changes:
                    assert mirror.get(change.name) == change.old
                    if change.new is None:
                        del mirror[change.name]
                    else:
                        mirror[change.name] = change.new
                # Both rows are written together, so nobody ever sees them differ.
                assert mirror["a"].spec == mirror["b"].spec

            def fail(changes: Sequence[Change]) -> None:
                raise RuntimeError("a watcher's own fault")

            end = reader.watch(fail)
            reader.watch(follow)
            for number in range(200):
                await writer.commit([Put("Network", name, {"n": number}) for name in ("a", "b")])
            await until(lambda: mirror and mirror["a"].generation == 200, "the last one arrived")
            assert mirror == dict(reader.rows("Network"))
            end()

    run(main())


def test_numbers_are_unique_lowest_first_and_come_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with stores(tmp_path, 2) as (_, pair):
            wanted = [(store, f"{n}-{i}") for i in range(40) for n, store in enumerate(pair)]
            got = await asyncio.gather(*(store.number("segment", name, 10, 500, within=30) for store, name in wanted))
            assert sorted(got) == list(range(10, 90))
            # Asked again, of the other: the same.
            again = await asyncio.gather(*(pair[0].number("segment", name, 10, 500) for _, name in wanted))
            assert again == got
            await pair[0].release("segment", wanted[5][1])
            await pair[0].release("segment", "never allocated")
            assert await pair[0].number("segment", "new", 10, 500) == got[5]
            assert await pair[0].number("host", "new", 1, 1) == 1
            assert "no number between 1 and 1 is free" in await raises(StoreError, pair[0].number("host", "b", 1, 1))
            assert dict(pair[0].numbers("host")) == {"new": 1}

            numbers = [NumberRequest("host", "kvm02", 1, 9), NumberRequest("host", "new", 1, 9)]
            assert await pair[0].commit([Put("Host", "kvm02", {}, 0)], numbers=numbers) == [2, 1]
            more = [NumberRequest("host", "kvm03", 1, 9)]
            await raises(Conflict, pair[0].commit([Put("Host", "kvm02", {}, 0)], numbers=more))
            assert "kvm03" not in pair[0].numbers("host")

    run(main())


def test_rows_that_somebody_spoiled_are_reported_and_can_be_repaired(tmp_path: Path) -> None:
    def edit(private: PrivateServer, *operations: str) -> None:
        text = f'["Fleetswitch",{",".join(operations)}]'
        subprocess.run(["ovsdb-client", "transact", private.remote, text], check=True, capture_output=True)

    async def main() -> None:
        async with stores(tmp_path) as (private, [store]):
            await store.commit([Put("Host", "good", {"v": 1}), Put("Host", "spoiled", {"v": 1})])
            await store.commit([PutStatus("Host", "spoiled", {"up": True})])
            insert = '{"op":"insert","table":"Host","row":{"name":"%s","spec":"%s"}}'
            edit(private, insert % ("bad", "{"), insert % ("list", "[1]"), insert % ("deep", "[" * 100_000))
            edit(private, insert % ("", "{}"))
            edit(private, '{"op":"update","table":"Host","where":[["name","==","spoiled"]],"row":{"spec":"oops"}}')
            await until(lambda: len(store.problems()) == 5, "all are reported")
            assert set(store.rows("Host")) == {"good", "spoiled"}
            assert store.rows("Host")["spoiled"].spec == {"v": 1}, "what was known stays in force"
            await store.commit([Put("Host", "good", {"v": 2})])
            # A status says nothing about a spec that cannot be read.
            await store.commit([PutStatus("Host", "bad", {"up": False})])
            assert "bad" not in store.rows("Host")
            await store.commit([Put("Host", "bad", {"v": 3}), Put("Host", "spoiled", {"v": 1})])
            assert store.rows("Host")["bad"].spec == {"v": 3}
            assert store.rows("Host")["spoiled"] == Row("Host", "spoiled", {"v": 1}, {"up": True}, 2)
            await store.commit([Remove("Host", "list")])
            assert {problem.name for problem in store.problems()} == {"", "deep"}

    run(main())


def test_while_the_store_is_away_rows_stay_and_commits_fail_with_the_reason(tmp_path: Path) -> None:
    async def main() -> None:
        async with stores(tmp_path) as (private, [store]):
            await store.commit([Put("Host", "a", {})])
            await private.stop()
            await until(lambda: not store.is_up, "the loss is told")
            assert set(store.rows("Host")) == {"a"}
            begin = time.monotonic()
            text = await raises(StoreError, store.commit([Put("Host", "b", {})], within=0.3))
            assert "is not connected: No such file or directory" in text
            assert 0.2 < time.monotonic() - begin < 3
            await private.start()
            await store.commit([Put("Host", "b", {})])
            assert set(store.rows("Host")) == {"a", "b"}

    run(main())


def test_a_schema_that_is_converted_under_way_disturbs_nobody(tmp_path: Path) -> None:
    newer = json.loads(schema_path().read_text())
    newer["version"] = "1.0.1"
    newer["tables"]["Gateway"] = newer["tables"]["Host"]
    path = tmp_path / "newer.ovsschema"
    path.write_text(json.dumps(newer))

    async def main() -> None:
        async with stores(tmp_path / "state") as (private, [store]):
            written = 0

            async def write() -> None:
                nonlocal written
                while written < 150:
                    await store.commit([Put("Network", f"n{written}", {}, 0)])
                    written += 1

            writing = asyncio.create_task(write())
            await until(lambda: written > 30, "it writes")
            convert = await asyncio.create_subprocess_exec("ovsdb-client", "convert", private.remote, str(path))
            assert await convert.wait() == 0
            await writing
            assert len(store.rows("Network")) == 150
            assert {row.generation for row in store.rows("Network").values()} == {1}

    run(main())


def test_a_store_with_an_older_schema_is_refused_with_the_remedy(tmp_path: Path) -> None:
    older = json.loads(schema_path().read_text())
    del older["tables"]["Host"]["columns"]["deleting"]
    path = tmp_path / "older.ovsschema"
    path.write_text(json.dumps(older))

    async def main(remote: str) -> None:
        with idl_thread() as thread:
            store = Store(remote, thread)
            text = await raises(StoreError, store.start())
            assert "it lacks Host.deleting" in text
            assert "ovsdb-client convert unix:" in text
            store.close()

    with server(tmp_path / "s", path) as old:
        run(main(old.remote))


def test_a_start_without_a_store_says_why_and_may_be_tried_again(tmp_path: Path) -> None:
    async def main() -> None:
        with idl_thread() as thread:
            store = Store(f"unix:{tmp_path}/sock", thread)
            text = await raises(StoreError, store.start(0.3))
            assert "No such file or directory" in text
            assert "serves the database Fleetswitch" in text
            with server(tmp_path, schema_path()):
                await store.start()
                await store.commit([Put("Host", "a", {})])
            store.close()

    run(main())
