"""Hosts without a network: an ovsdb-server and an ovs-vswitchd each, in which every interface is a dummy.

Flows, tables and the OpenFlow and OVSDB connections are real; no frame leaves a host. Hundreds of vNICs cost nothing,
so that what is measured is what controllers make of them.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from labkit import procs
from labkit.ovs import DAEMONS, SCHEMA
from labkit.procs import Process, from_pidfile
from labkit.run import LabError, run

from .tenants import Guest

BRIDGE = "br-int"
_DAEMON = ("--detach", "--no-chdir", "-vconsole:off", "-vsyslog:off")


class Daemons:
    """Programs of Open vSwitch and OVN that share a folder for their sockets, pid files and logs."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.running: dict[str, Process] = {}

    @property
    def _env(self) -> dict[str, str]:
        here = str(self.folder)
        return {**os.environ, **{f"{which}_{what}": here for which in ("OVS", "OVN")
                                 for what in ("RUNDIR", "LOGDIR", "DBDIR", "SYSCONFDIR")}}  # fmt: skip

    def start(self, program: str, *args: str, name: str = "") -> None:
        """Start a daemon; returns when it serves. ``name`` tells two of one program apart."""
        name = name or program
        pidfile = self.folder / f"{name}.pid"
        own = (f"--pidfile={pidfile}", f"--log-file={self.folder}/{name}.log")
        run([program, *args, *_DAEMON, *own], env=self._env)
        self.running[name] = from_pidfile(f"{self.folder.name} {name}", pidfile)

    def database(self, name: str, schema: Path) -> str:
        """Make a database and start its server; where that serves."""
        file, where = self.folder / f"{name}.db", f"unix:{self.folder}/{name}.sock"
        run(["ovsdb-tool", "create", str(file), str(schema)])
        self.start("ovsdb-server", str(file), f"--remote=p{where}", name="ovsdb-server" if name == "db" else name)
        return where

    def pids(self, *names: str) -> list[int]:
        """Of all, or of those with these names."""
        return [process.pid for name, process in self.running.items() if not names or name in names]


class DummyHost(Daemons):
    """One host. ``name`` is its folder's."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.name = folder.name
        self.db = self.database("db", SCHEMA)
        self.vsctl("--no-wait", "init", "--", "set", "Open_vSwitch", ".", f"external_ids:system-id={self.name}")
        self.start("ovs-vswitchd", self.db, "--enable-dummy=override", "--disable-system")

    @property
    def switch(self) -> list[int]:
        """Processes of Open vSwitch itself."""
        return self.pids(*DAEMONS)

    def vsctl(self, *args: str) -> str:
        return run(["ovs-vsctl", f"--db={self.db}", *args]).stdout.strip()

    def plug(self, guests: Sequence[Guest]) -> None:
        """The integration bridge with a port for each guest, as libvirt makes them; returns when they are there."""
        words = ["--may-exist", "add-br", BRIDGE, "--", "set", "Bridge", BRIDGE, "datapath_type=netdev",
                 "fail_mode=secure"]  # fmt: skip
        for guest in guests:
            words += ["--", "add-port", BRIDGE, guest.tap, "--", "set", "Interface", guest.tap, _device(guest)]
            words += [f'external_ids:{key}="{value}"' for key, value in guest.external_ids.items()]
        self.vsctl(*words)

    def flows(self) -> int:
        """How many there are in the integration bridge."""
        said = run(["ovs-ofctl", "dump-aggregate", self.management]).stdout
        found = re.search(r"flow_count=(\d+)", said)
        if found is None:
            raise LabError(f"{self.name}: ovs-ofctl dump-aggregate says {said!r}")
        return int(found[1])

    @property
    def management(self) -> str:
        """The integration bridge's socket for ovs-ofctl(8)."""
        return f"unix:{self.folder}/{BRIDGE}.mgmt"

    def trace(self, sender: Guest, receiver: Guest, source: str | None = None) -> str:
        """What becomes of an IPv4 packet between two guests, as ovs-appctl ofproto/trace tells it."""
        addresses = f"nw_src={source or sender.address},nw_dst={receiver.address}"
        flow = (f'in_port="{sender.tap}",udp,dl_src={sender.mac},dl_dst={receiver.mac},{addresses},nw_ttl=64,'
                "udp_src=7,udp_dst=7")  # fmt: skip
        control = self.folder / f"ovs-vswitchd.{self.running['ovs-vswitchd'].pid}.ctl"
        return run(["ovs-appctl", "-t", str(control), "ofproto/trace", BRIDGE, flow]).stdout

    def boot(self, guest: Guest) -> None:
        """Plug one guest in by one message to the host's OVSDB, and return when that has it."""
        row = {"name": guest.tap, "external_ids": ["map", [list(pair) for pair in guest.external_ids.items()]],
               "options": ["map", [_device(guest).removeprefix("options:").split("=")]]}  # fmt: skip
        port = {"name": guest.tap, "interfaces": ["named-uuid", "i"]}
        at = [["name", "==", BRIDGE]]
        insert: list[dict[str, object]] = [
            {"op": "insert", "table": "Interface", "row": row, "uuid-name": "i"},
            {"op": "insert", "table": "Port", "row": port, "uuid-name": "p"},
            {"op": "mutate", "table": "Bridge", "where": at, "mutations": [["ports", "insert", ["named-uuid", "p"]]]},
            {"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["next_cfg", "+=", 1]]},
        ]
        self._transact(insert)

    def _transact(self, operations: Sequence[Mapping[str, object]]) -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10.0)
            connection.connect(self.db.removeprefix("unix:"))
            connection.sendall(json.dumps({"method": "transact", "params": ["Open_vSwitch", *operations],
                                           "id": 0}).encode())  # fmt: skip
            said = connection.recv(65536).decode()
        if '"error":null' not in said or '"details"' in said:
            raise LabError(f"{self.name}: OVSDB says {said[:500]}")


def _device(guest: Guest) -> str:
    """The dummy's ifindex; one that has 0 counts as a device that is gone."""
    return f"options:ifindex={guest.number + 1}"


@contextmanager
def dummy_hosts(folder: Path, count: int) -> Iterator[list[DummyHost]]:
    """So many, h1 and up, that run while inside."""
    hosts: list[DummyHost] = []
    try:
        for number in range(1, count + 1):
            hosts.append(DummyHost(folder / f"h{number}"))
        yield hosts
    finally:
        procs.end(process for host in hosts for process in host.running.values())
