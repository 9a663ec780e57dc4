"""Real ovsdb-servers for tests, each in a folder of its own and ended by its own pid."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from controller.idl import ClientState, Database, IdlThread, RowChange
from controller.store.schema import schema_path

T = TypeVar("T")

VSWITCH = Path("/usr/share/openvswitch/vswitch.ovsschema")
COLUMNS = {
    "Open_vSwitch": ["bridges", "next_cfg", "external_ids"],
    "Bridge": ["name", "ports", "external_ids", "fail_mode"],
    "Port": ["name", "interfaces", "tag"],
    "Interface": ["name", "type", "options", "external_ids", "ofport"],
}


def run(main: Coroutine[Any, Any, T], within: float = 60.0) -> T:
    """A coroutine, with a deadline, and with every exception that nobody saw."""

    async def whole() -> T:
        unseen: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
        result = await asyncio.wait_for(main, within)
        assert not unseen
        return result

    return asyncio.run(whole())


async def until(condition: Callable[[], Any], what: str | Callable[[], str], within: float = 20.0) -> None:
    """Polls until ``condition()`` holds."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"not in {within} seconds: {what() if callable(what) else what}"
        await asyncio.sleep(0.005)


class Server:
    """One ovsdb-server, on ``unix:`` and as many more remotes as are given."""

    def __init__(self, folder: Path, schema: Path = VSWITCH, *remotes: str, database: Path | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.remotes = folder, remotes
        self.database = database or folder / "db"
        self.remote = f"unix:{folder}/sock"
        if not self.database.exists():
            subprocess.run(["ovsdb-tool", "create", self.database, schema], check=True)
        self.extra: tuple[str, ...] = ()
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        (self.folder / "sock").unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [
                "ovsdb-server",
                str(self.database),
                f"--remote=punix:{self.folder}/sock",
                f"--unixctl={self.folder}/ctl",
                f"--log-file={self.folder}/log",
                "-vconsole:off",
                "-vsyslog:off",
                "--no-chdir",
                *(f"--remote={remote}" for remote in self.remotes),
                *self.extra,
            ]
        )
        deadline = time.monotonic() + 30
        while not self._listens():
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(f"{self.folder}/sock") == 0

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    def transact(self, *operations: str, database: str = "Open_vSwitch") -> str:
        text = f'["{database}",{",".join(operations)}]'
        done = subprocess.run(
            ["ovsdb-client", "transact", self.remote, text], check=True, capture_output=True, text=True
        )
        assert '"error"' not in done.stdout, done.stdout
        return done.stdout


@contextlib.contextmanager
def server(folder: Path, schema: Path = VSWITCH, *remotes: str) -> Iterator[Server]:
    one = Server(folder, schema, *remotes)
    try:
        yield one
    finally:
        one.kill()


@contextlib.contextmanager
def vswitch(folder: Path, *remotes: str) -> Iterator[Server]:
    """A host's database, without a switch behind it."""
    with server(folder, VSWITCH, *remotes) as one:
        one.transact('{"op":"insert","table":"Open_vSwitch","row":{}}')
        yield one


@contextlib.contextmanager
def cluster(folder: Path, size: int = 3, ports: Sequence[int] = ()) -> Iterator[list[Server]]:
    """A RAFT cluster of our own database, its members connected by sockets in the folder; clients may come to these
    ports of this machine as well."""
    servers: list[Server] = []
    try:
        for number in range(size):
            home = folder / f"n{number}"
            home.mkdir(parents=True)
            raft = [f"unix:{folder}/n{each}/raft" for each in range(size)]
            if number == 0:
                command = ["ovsdb-tool", "create-cluster", home / "db", schema_path(), raft[0]]
            else:
                command = ["ovsdb-tool", "join-cluster", home / "db", "Fleetswitch", raft[number], raft[0]]
            subprocess.run(command, check=True)
            servers.append(Server(home, VSWITCH, *(f"ptcp:{port}:127.0.0.1" for port in ports[number : number + 1])))
        for one in servers:
            subprocess.run(["ovsdb-client", "-t", "20", "wait", one.remote, "Fleetswitch", "connected"], check=True)
        yield servers
    finally:
        for one in servers:
            one.kill()


def leader(servers: list[Server]) -> Server:
    """The member that leads now."""
    for one in servers:
        done = subprocess.run(
            ["ovs-appctl", "-t", f"{one.folder}/ctl", "cluster/status", "Fleetswitch"],
            capture_output=True,
            text=True,
            check=True,
        )
        if "\nRole: leader" in done.stdout:
            return one
    raise AssertionError("the cluster has no leader")


class Heard:
    """A listener that writes down what it hears."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.ups = 0
        self.downs: list[str] = []
        self.rows: dict[tuple[str, Any], RowChange] = {}

    def on_up(self) -> None:
        self.ups += 1

    def on_down(self, reason: str) -> None:
        self.downs.append(reason)

    def on_change(self, changes: Any) -> None:
        for change in changes:
            self.log.append((change.event, change.table, change.value))
            if change.event == "delete":
                self.rows.pop((change.table, change.uuid), None)
            else:
                self.rows[change.table, change.uuid] = change

    def names(self, table: str) -> set[str]:
        return {change.value for change in self.rows.values() if change.table == table}


def host_database(where: str = "kvm01", **changes: Any) -> Database:
    from ovsdbapp.schema.open_vswitch.impl_idl import OvsdbIdl

    options: dict[str, Any] = {
        "read": {table: lambda row: row.name for table in ("Bridge", "Port", "Interface")},
        "backend": OvsdbIdl,
        **changes,
    }
    return Database("Open_vSwitch", options.pop("columns", COLUMNS), where, **options)


@contextlib.contextmanager
def idl_thread() -> Iterator[IdlThread]:
    thread = IdlThread("test")
    thread.start()
    try:
        yield thread
    finally:
        thread.stop()


def connected(state: ClientState) -> bool:
    return state.connected


async def raises(kind: type[Exception], awaitable: Awaitable[Any]) -> str:
    """The text of the error that ``awaitable`` must raise."""
    try:
        await awaitable
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__}")
