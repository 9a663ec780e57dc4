"""Hosts of which the databases are real and the rest is played: an ``ovsdb-server`` each, a part that numbers its ports
as ``ovs-vswitchd`` does, and its guests in libvirt's test driver, behind one real ``libvirtd`` for all of them."""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import shutil
import signal
import subprocess
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, overload
from xml.sax.saxutils import quoteattr

from labkit.run import run, wait_for

from .jsonrpc import Peer, named

T = TypeVar("T")

_SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
_BRIDGE = "br-int"
_WATCHED = {"Interface": ("name", "ofport", "ofport_request"), "Bridge": ("name", "ports")}
_FREE = 1000  # OpenFlow ports for what asks for no number
_PATIENCE = 120.0


@dataclass(frozen=True, slots=True)
class Vnic:
    """One guest's one vNIC."""

    guest: str
    uuid: str
    mac: str
    tap: str
    ofport: int
    network: str

    @property
    def iface_id(self) -> str:
        return f"1{self.uuid[1:]}"


@dataclass(frozen=True, slots=True)
class Machine:
    """One host, in a folder of its own."""

    name: str
    folder: Path
    vnics: tuple[Vnic, ...]

    @property
    def socket(self) -> Path:
        return self.folder / "db.sock"

    @property
    def libvirt(self) -> str:
        return f"test+unix://{self.folder}/node.xml?socket={self.folder.parent}/libvirt/libvirt-sock"


def _node(machine: Machine) -> str:
    """What libvirt's test driver reads: running domains with a vNIC each."""
    domains = []
    for vnic in machine.vnics:
        port = f"<parameters profileid={quoteattr(vnic.network + ':default')} interfaceid={quoteattr(vnic.iface_id)}/>"
        domains.append(
            f"<domain type='test'><name>{vnic.guest}</name><uuid>{vnic.uuid}</uuid><memory>65536</memory><vcpu>1</vcpu>"
            f"<os><type>hvm</type></os><devices><interface type='network'><mac address='{vnic.mac}'/>"
            f"<source network={quoteattr(vnic.network)} portgroup='default'/><target dev='{vnic.tap}'/>"
            f"<virtualport type='openvswitch'>{port}</virtualport></interface></devices></domain>"
        )
    return f"<node>{''.join(domains)}</node>"


class Machines(Sequence[Machine]):
    """The hosts of these names, with their servers while inside. Raises LabError when one does not start."""

    def __init__(self, folder: Path, vnics: Mapping[str, Sequence[Vnic]]) -> None:
        self._folder = folder
        self._found = [Machine(name, folder / name, tuple(theirs)) for name, theirs in vnics.items()]
        self.servers: dict[str, subprocess.Popen[bytes]] = {}
        self.loop = Loop()
        self._players: list[_Player] = []
        self._stack = ExitStack()

    def __enter__(self) -> Machines:
        with ExitStack() as stack:
            stack.callback(self._end)
            self._start()
            stack.enter_context(self.loop)
            stack.callback(lambda: self.loop.run(each(self._players, _Player.stop)))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @overload
    def __getitem__(self, index: int) -> Machine: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Machine]: ...

    def __getitem__(self, index: int | slice) -> Machine | Sequence[Machine]:
        return self._found[index]

    def __len__(self) -> int:
        return len(self._found)

    def play(self) -> None:
        """Ports get their numbers from now on."""
        self._players = self.loop.run(each(self._found, _Player.start))

    def plug(self) -> None:
        """All guests start; returns when their ports have numbers."""
        self.loop.run(each(self._players, _Player.plug))

    def renumber(self, index: int, tap: str, ofport: int) -> None:
        """An interface of that host has another OpenFlow port now."""
        step = {"op": "update", "table": "Interface", "where": [["name", "==", tap]], "row": {"ofport": ofport}}
        self.loop.run(self._players[index].peer.transact(step))

    def _start(self) -> None:
        blank = self._folder / "blank.db"
        run(["ovsdb-tool", "create", str(blank), str(_SCHEMA)])
        row = '["Open_vSwitch",{"op":"insert","table":"Open_vSwitch","row":{"ovs_version":"3.1.0"}}]'
        run(["ovsdb-tool", "transact", str(blank), row])
        self._folder.chmod(0o755)  # for libvirtd, which is nobody
        for machine in self._found:
            machine.folder.mkdir()
            shutil.copy(blank, machine.folder / "conf.db")
            (machine.folder / "node.xml").write_text(_node(machine))
            self.servers[machine.name] = _server(machine)
        self.servers["libvirtd"] = _libvirtd(self._folder / "libvirt")
        for machine in self._found:
            wait_for(f"the database of {machine.name}", machine.socket.exists, _PATIENCE)

    def _end(self) -> None:
        for server in self.servers.values():
            server.send_signal(signal.SIGCONT)
            server.terminate()
        for server in self.servers.values():
            server.wait(30.0)


def _server(machine: Machine) -> subprocess.Popen[bytes]:
    argv = ["ovsdb-server", "--no-chdir", "-vconsole:off", "-vsyslog:off", f"--remote=punix:{machine.socket}",
            f"--unixctl={machine.folder}/ctl", str(machine.folder / "conf.db")]  # fmt: skip
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


_SETTINGS = """unix_sock_dir = "{folder}"
auth_unix_ro = "none"
auth_unix_rw = "none"
max_clients = 10000
max_queued_clients = 10000
max_anonymous_clients = 0
log_outputs = "4:file:/dev/null"
"""


def _libvirtd(folder: Path) -> subprocess.Popen[bytes]:
    """One that is nobody's, so that it has nothing of this machine."""
    folder.mkdir()
    shutil.chown(folder, "nobody")
    settings = folder / "libvirtd.conf"
    settings.write_text(_SETTINGS.format(folder=folder))
    argv = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "libvirtd",
            "--config", str(settings), "--pid-file", str(folder / "pid")]  # fmt: skip
    homes = dict.fromkeys(("HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"), str(folder))
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               env={**os.environ, **homes})  # fmt: skip
    try:
        wait_for("libvirtd", (folder / "libvirt-sock").exists, _PATIENCE)
    except BaseException:
        process.terminate()
        raise
    return process


class Loop:
    """An asyncio loop in a thread of its own, while inside."""

    def __enter__(self) -> Loop:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="bench loop")
        self._thread.start()
        return self

    def run(self, work: Coroutine[Any, Any, T], timeout: float = _PATIENCE) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout)

    def __exit__(self, *_: object) -> None:
        self.run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30.0)
        self._loop.close()

    async def _end(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


S = TypeVar("S")


async def each(found: Sequence[S], work: Callable[[S], Awaitable[T]], at_once: int = 50) -> list[T]:
    """The results of all, so many at a time."""
    turn = asyncio.Semaphore(at_once)

    async def one(item: S) -> T:
        async with turn:
            return await work(item)

    return list(await asyncio.gather(*map(one, found)))


class _Player:
    """What ovs-vswitchd does of one host's database."""

    def __init__(self, machine: Machine, peer: Peer) -> None:
        self.machine, self.peer = machine, peer
        self._task = asyncio.create_task(self._number())

    @classmethod
    async def start(cls, machine: Machine) -> _Player:
        peer = await Peer.open(machine.socket)
        await peer.monitor(_WATCHED)
        return cls(machine, peer)

    async def plug(self) -> None:
        """The guests start, once there is a bridge."""
        async with asyncio.timeout(_PATIENCE):
            while (bridge := self._bridge()) is None:
                await self.peer.wait()
        await self.peer.transact(*(step for vnic in self.machine.vnics for step in _plugged(vnic, bridge)))

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.peer.close()

    def _bridge(self) -> str | None:
        return next((u for u, row in self.peer.rows.get("Bridge", {}).items() if row["name"] == _BRIDGE), None)

    async def _number(self) -> None:
        while True:
            rows = self.peer.rows.get("Interface", {})
            if steps := [step for uuid, row in rows.items() if (step := _numbered(uuid, row))]:
                await self.peer.transact(*steps)
            await self.peer.wait()


def _numbered(uuid: str, row: Mapping[str, Any]) -> dict[str, Any] | None:
    """The number that a new interface asks for, as ovs-vswitchd gives it (ovs-vswitchd.conf.db(5), "ofport")."""
    if row["ofport"] != ["set", []]:
        return None
    asked = row["ofport_request"]
    number = asked if isinstance(asked, int) else 65534 if row["name"] == _BRIDGE else _FREE
    told = {"ofport": number, "ifindex": 100, "link_state": "up", "admin_state": "up"}
    return {"op": "update", "table": "Interface", "where": [["_uuid", "==", ["uuid", uuid]]], "row": told}


def _plugged(vnic: Vnic, bridge: str) -> list[dict[str, Any]]:
    ids = {"attached-mac": vnic.mac, "iface-id": vnic.iface_id, "vm-id": vnic.uuid, "iface-status": "active",
           "port-profile": f"{vnic.network}:default"}  # fmt: skip
    interface, port = f"i{vnic.tap}", f"p{vnic.tap}"
    row = {"name": vnic.tap, "external_ids": named(ids), "ofport_request": vnic.ofport}
    return [
        {"op": "insert", "table": "Interface", "uuid-name": interface, "row": row},
        {"op": "insert", "table": "Port", "uuid-name": port,
         "row": {"name": vnic.tap, "interfaces": ["named-uuid", interface]}},
        {"op": "mutate", "table": "Bridge", "where": [["_uuid", "==", ["uuid", bridge]]],
         "mutations": [["ports", "insert", ["set", [["named-uuid", port]]]]]},
    ]  # fmt: skip


def lift_limit() -> None:
    """Of descriptors: a machine takes three here; the usual soft limit is 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def sizes(parser: argparse.ArgumentParser) -> None:
    """The options that say how many there are of what."""
    parser.add_argument("--hosts", type=int, default=400, metavar="N", help="hosts (default 400)")
    parser.add_argument("--guests", type=int, default=2000, metavar="N", help="guests (default 2000)")
    parser.add_argument("--networks", type=int, default=20, metavar="N",
                        help="networks, each in every host's libvirt (default 20)")  # fmt: skip
