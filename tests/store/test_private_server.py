"""The private ovsdb-server survives kills of itself and of the controller, and converts its database."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from ovsdb_servers import idl_thread, raises, run, until

from controller.errors import StoreError
from controller.idl import IdlThread
from controller.store import PrivateServer, Put, Store, schema


@contextlib.asynccontextmanager
async def running(folder: Path) -> AsyncIterator[PrivateServer]:
    server = PrivateServer(folder)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def put(server: PrivateServer, thread: IdlThread, name: str) -> set[str]:
    """Writes a row, and returns the names of all."""
    store = Store(server.remote, thread)
    await store.start()
    await store.commit([Put("Network", name, {})])
    names = set(store.rows("Network"))
    store.close()
    return names


def die(server: PrivateServer) -> None:
    """What a kill -9 of the controller does."""
    assert server._watcher is not None
    server._watcher.cancel()
    server._unclaim()


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_nobody_else_can_read_it_and_it_keeps_what_it_was_given(tmp_path: Path) -> None:
    async def main(thread: IdlThread) -> None:
        folder = tmp_path / "a" / "state"
        async with running(folder) as server:
            assert await put(server, thread, "one") == {"one"}
            pid = server.pid
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            for each in folder.iterdir():
                assert not stat.S_IMODE(each.stat().st_mode) & 0o077, each
        assert not exists(pid)
        async with running(folder) as server:
            assert await put(server, thread, "two") == {"one", "two"}

    with idl_thread() as thread:
        run(main(thread))


def test_a_long_path_is_no_obstacle(tmp_path: Path) -> None:
    async def main(thread: IdlThread) -> None:
        async with running(tmp_path / ("x" * 120)) as server:
            assert await put(server, thread, "one") == {"one"}

    with idl_thread() as thread:
        run(main(thread))


def test_a_killed_server_is_started_again_with_everything_that_was_committed(tmp_path: Path) -> None:
    async def main(thread: IdlThread) -> None:
        async with running(tmp_path) as server:
            store = Store(server.remote, thread)
            await store.start()
            written = 0

            async def write() -> None:
                nonlocal written
                while written < 400:
                    await store.commit([Put("Network", f"n{written}", {"n": written}, 0)], within=20)
                    written += 1

            writing = asyncio.create_task(write())
            for mark in (50, 150, 250):
                await until(lambda mark=mark: written >= mark, "it writes")
                before = server.pid
                os.kill(before, signal.SIGKILL)
                await until(lambda before=before: server.pid not in (0, before), "another runs")
            await writing
            assert {name: row.spec for name, row in store.rows("Network").items()} == {
                f"n{n}": {"n": n} for n in range(400)
            }
            assert {row.generation for row in store.rows("Network").values()} == {1}
            store.close()

    with idl_thread() as thread:
        run(main(thread))


def test_a_server_that_dies_again_and_again_is_started_less_and_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.store.server._LASTS", 1.0)

    async def main() -> None:
        async with running(tmp_path) as server:
            loop = asyncio.get_running_loop()

            async def restart() -> float:
                """Seconds until there is another process."""
                dead, begin = server.pid, loop.time()
                os.kill(dead, signal.SIGKILL)
                await until(lambda: server.pid not in (0, dead), "it is started again", 30)
                return loop.time() - begin

            took = [await restart() for _ in range(6)]
            assert took[-1] >= 1.6, took  # 50 ms, and twice as long each time
            await asyncio.sleep(1.1)
            assert await restart() < 1.6, "one that has lasted is followed at once"

    run(main())


def test_a_server_that_a_killed_controller_left_is_taken_over(tmp_path: Path) -> None:
    async def main(thread: IdlThread) -> None:
        left = PrivateServer(tmp_path)
        await left.start()
        await put(left, thread, "one")
        die(left)
        async with running(tmp_path) as server:
            assert server.pid == left.pid
            assert await put(server, thread, "two") == {"one", "two"}
            os.kill(left.pid, signal.SIGKILL)
            left._reap()
            await until(lambda: server.pid not in (0, left.pid), "one that was taken over is watched too")
            assert await put(server, thread, "three") == {"one", "two", "three"}

    with idl_thread() as thread:
        run(main(thread))


def test_a_server_that_was_left_stopped_is_ended_and_replaced(tmp_path: Path) -> None:
    async def main(thread: IdlThread) -> None:
        left = PrivateServer(tmp_path)
        await left.start()
        await put(left, thread, "one")
        die(left)
        os.kill(left.pid, signal.SIGSTOP)
        async with running(tmp_path) as server:
            assert server.pid != left.pid
            left._reap()
            assert await put(server, thread, "two") == {"one", "two"}

    with idl_thread() as thread:
        run(main(thread))


def test_a_second_controller_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    async def main(thread: IdlThread) -> None:
        async with running(tmp_path) as server:
            text = await raises(StoreError, PrivateServer(tmp_path).start())
            assert "another controller runs with this folder" in text
            assert await put(server, thread, "one") == {"one"}

    with idl_thread() as thread:
        run(main(thread))


def test_a_pidfile_of_somebody_else_is_not_believed(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "ovsdb-server.pid").write_text(f"{os.getpid()}\n")
        async with running(tmp_path) as server:
            assert server.pid != os.getpid()

    run(main())


def older_schema(monkeypatch: pytest.MonkeyPatch, folder: Path, version: str) -> None:
    old = json.loads(schema.schema_path().read_text())
    old["version"] = version
    del old["tables"]["Lease"]
    path = folder / "other.ovsschema"
    path.write_text(json.dumps(old))
    monkeypatch.setattr(schema, "schema_path", lambda: path)


def test_an_older_database_is_converted_and_a_backup_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def old() -> None:
        async with running(tmp_path / "state"):
            pass

    async def new(thread: IdlThread) -> None:
        async with running(tmp_path / "state") as server:
            assert await put(server, thread, "one") == {"one"}

    with monkeypatch.context() as patch:
        older_schema(patch, tmp_path, "0.9.0")
        run(old())
    with idl_thread() as thread:
        run(new(thread))
    assert (tmp_path / "state" / "fleetswitch.0.9.0.backup").exists()


def test_a_newer_database_is_refused_rather_than_cut_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def newer() -> None:
        async with running(tmp_path / "state"):
            pass

    with monkeypatch.context() as patch:
        older_schema(patch, tmp_path, "99.0.0")
        run(newer())
    text = run(raises(StoreError, PrivateServer(tmp_path / "state").start()))
    assert "99.0.0, which is newer than" in text


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "fleetswitch.db").write_text("not a database\n")
    text = run(raises(StoreError, PrivateServer(tmp_path).start()))
    assert "fleetswitch.db" in text
    assert (tmp_path / "fleetswitch.db").read_text() == "not a database\n"


def test_a_torn_last_record_costs_that_record_alone(tmp_path: Path) -> None:
    """What a power cut leaves: ovsdb-server goes on from the last whole transaction."""

    async def main(thread: IdlThread) -> None:
        async with running(tmp_path) as server:
            await put(server, thread, "one")
            await put(server, thread, "two")
        database = tmp_path / "fleetswitch.db"
        database.write_bytes(database.read_bytes()[:-20])
        async with running(tmp_path) as server:
            assert await put(server, thread, "three") == {"one", "three"}

    with idl_thread() as thread:
        run(main(thread))
