"""One real Open vSwitch whose bridges are hosts, over the dummy datapath: it takes flows as any other."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from labkit.ovs import SCHEMA
from labkit.run import run, wait_for

from .bare import flows_alone, write_all
from .sinks import HELLO, LEFT_OVER, message

_NOBODYS_PORT = 1
_AT_ONCE = 50  # bridges in a transaction
_FLOW_MOD, _DELETE = 14, 3  # 7.1, 7.3.4.2
_NO_MATCH = bytes.fromhex("0001000400000000")


@dataclass(frozen=True, slots=True)
class Vswitchd:
    """``pid`` is that of ovs-vswitchd."""

    folder: Path
    pid: int
    bridges: int

    def connect(self, port: int = _NOBODYS_PORT) -> None:
        """All bridges have a controller at that port of loopback from now on, with the settings that ours gives hosts.
        They have one all the time, for Open vSwitch drops a bridge's flows when it gets its first or loses its last."""
        self._each("set-controller", lambda name: [name, f"tcp:127.0.0.1:{port}"],
                   lambda name: ["set", "controller", name, "connection_mode=out-of-band", "inactivity_probe=5000",
                                 "max_backoff=1000"])  # fmt: skip

    @contextmanager
    def sockets(self) -> Iterator[list[socket.socket]]:
        """A connection to each bridge, past the greeting."""
        opened: list[socket.socket] = []
        try:
            for number in range(self.bridges):
                sock = socket.socket(socket.AF_UNIX)
                opened.append(sock)
                sock.connect(str(self.management(number)))
                sock.sendall(message(HELLO, xid=1))
            yield opened
        finally:
            for sock in opened:
                sock.close()

    def management(self, number: int) -> Path:
        return self.folder / f"{_name(number)}.mgmt"

    def empty(self, left_over: bool = False) -> None:
        """Take every flow away; leave one of the controller's, which it wants no more, if that is asked for."""
        told = _flow_mod(0, 0, _DELETE, table=255)
        if left_over:
            told += _flow_mod(LEFT_OVER, 1, 0, table=0)
        with self.sockets() as sockets:
            write_all([(sock, told + flows_alone(b"")) for sock in sockets])

    def _each(self, verb: str, *words: object) -> None:
        for first in range(0, self.bridges, _AT_ONCE):
            argv: list[str] = []
            for number in range(first, min(first + _AT_ONCE, self.bridges)):
                name = _name(number)
                argv += ["--", verb, *words[0](name)]  # type: ignore[operator]
                for more in words[1:]:
                    argv += ["--", *more(name)]  # type: ignore[operator]
            self.vsctl(*argv[1:])

    def vsctl(self, *argv: str) -> None:
        run(["ovs-vsctl", f"--db=unix:{self.folder}/db.sock", "--no-wait", *argv])


def _name(number: int) -> str:
    return f"b{number}"


def _flow_mod(cookie: int, priority: int, command: int, table: int) -> bytes:
    body = cookie.to_bytes(8, "big") + bytes(8) + bytes([table, command, 0, 0, 0, 0]) + priority.to_bytes(2, "big")
    return message(_FLOW_MOD, body + b"\xff" * 12 + bytes(4) + _NO_MATCH)


@contextmanager
def vswitchd(folder: Path, datapaths: Sequence[int]) -> Iterator[Vswitchd]:
    """With a bridge for each of these datapath ids. Raises LabError when it does not come up."""
    environment = {**os.environ, **{f"OVS_{what}DIR": str(folder) for what in ("RUN", "LOG", "DB", "SYSCONF")}}
    run(["ovsdb-tool", "create", str(folder / "conf.db"), str(SCHEMA)])
    quiet = ["-vconsole:off", "-vsyslog:off", "-vfile:off"]
    server = ["ovsdb-server", str(folder / "conf.db"), f"--remote=punix:{folder}/db.sock", *quiet]
    daemon = ["ovs-vswitchd", f"unix:{folder}/db.sock", "--enable-dummy=override", "--disable-system", *quiet]
    started: list[subprocess.Popen[bytes]] = []
    try:
        started.append(subprocess.Popen(server, stdin=subprocess.DEVNULL, env=environment))
        wait_for("ovsdb-server", (folder / "db.sock").exists, 10.0)
        started.append(subprocess.Popen(daemon, stdin=subprocess.DEVNULL, env=environment))
        made = Vswitchd(folder, started[-1].pid, len(datapaths))
        made.vsctl("init")
        for first in range(0, len(datapaths), _AT_ONCE):
            argv: list[str] = []
            for number, dpid in enumerate(datapaths[first : first + _AT_ONCE], first):
                argv += ["--", "add-br", _name(number), "--", "set", "bridge", _name(number), "datapath_type=dummy",
                         "fail_mode=secure", "protocols=OpenFlow10,OpenFlow15",
                         f"other_config:datapath-id={dpid:016x}"]  # fmt: skip
            made.vsctl(*argv[1:])
        made.connect()
        wait_for("the bridges", lambda: all(made.management(n).exists() for n in range(len(datapaths))), 60.0)
        yield made
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(30.0)
