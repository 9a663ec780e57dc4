"""The controller starts again over a fleet that is right: how long until it knows that, and what the fleet notices.

One real ovs-vswitchd has a bridge for each host, and a stream of frames goes between two guests of one of them. Beside
it the same restart with every flow deleted meanwhile: they are installed anew.
"""

from __future__ import annotations

import argparse
import json
import socket
import struct
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from labkit.run import LabError, say, wait_for

from . import population
from .cold import PATIENCE, asked, sizes
from .controller import Controller, running
from .figures import Figure, Goal
from .processes import cpu
from .sinks import BARRIER, MULTIPART, message
from .stream import End, plug_in, stream
from .tenants import Tenants, network_name, row
from .vswitchd import Vswitchd, vswitchd

ABOUT = "the controller starts again: until it knows that all is right, flow-mods that it sends, frames that are lost"
_EVERY = 0.25
_GUEST = 2_000_000  # the number of the first guest of the stream
_MONITOR = 16  # a multipart type (7.3.5.18): flow monitors
_ERROR = 1  # a type of message (7.1)
_CHANGES = 2 | 4 | 8  # of flows: added, removed, modified
_NONE, _CPU = Goal(0), Goal(10.0)


def options(parser: argparse.ArgumentParser) -> None:
    sizes(parser, [(400, 2000)])


def measure(args: argparse.Namespace) -> list[Figure]:
    return [figure for tenants in asked(args) for figure in _measured(tenants)]


@dataclass(frozen=True, slots=True)
class _Restart:
    wall: float
    cpu: float
    changes: int
    lost: int


def _measured(tenants: Tenants) -> Iterator[Figure]:
    say(f"{tenants.hosts} hosts, {tenants.guests} guests")
    ends = _end(0), _end(1)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleetswitch-bench-")))
        (folder / "ovs").mkdir()
        with running(folder) as controller:
            controller.api.ask("POST", "/apply", tenants.documents())
            population.fill(controller, [*tenants.vnics(), *map(_row, range(2))])
            population.settle(controller, tenants.guests + 2)
            switch = stack.enter_context(vswitchd(folder / "ovs", population.datapaths(controller.api)))
            plug_in(switch, ends)
            switch.empty(left_over=True)
            switch.connect(controller.port)
            flows = _right(controller, tenants.hosts, None)
        again = _restarted(tenants, switch, folder, controller.port, flows, ends)
        switch.empty(left_over=True)
        anew = _restarted(tenants, switch, folder, controller.port, flows, ends)
    size = tenants.size
    yield Figure(
        "restart", "started → all is known to be right", again.wall, "s", size, anew.wall, "all installed anew"
    )
    yield Figure("restart", "the same: processor time", again.cpu, "s", size, anew.cpu, "all installed anew", _CPU)
    yield Figure("restart", "flows that changed", again.changes, "", size, anew.changes, "all installed anew", _NONE)
    yield Figure("restart", "frames lost", again.lost, "", size, anew.lost, "all installed anew", _NONE)


def _row(number: int) -> dict[str, str]:
    end = _end(number)
    return row(_GUEST + number, 0, end.ofport - 1, network=network_name(0), mac=end.mac, addresses=[end.address])


def _end(number: int) -> End:
    mac = json.loads(row(_GUEST + number, 0, 0)["status"])["mac"]
    return End(f"stream{number}", 5000 + number, mac, f"10.0.0.{90 + number}")


def _restarted(
    tenants: Tenants, switch: Vswitchd, folder: Path, port: int, flows: int, ends: tuple[End, End]
) -> _Restart:
    (folder / "api.sock").unlink(missing_ok=True)
    with _monitored(switch) as monitors, stream(switch, ends) as frames:
        begun = time.monotonic()
        with running(folder, port) as controller:
            _right(controller, tenants.hosts, flows)
            wall, spent = time.monotonic() - begun, cpu([controller.process.pid])
            changes = sum(map(_changes, monitors))
    return _Restart(wall, spent, changes, frames.lost or 0)


def _right(controller: Controller, hosts: int, flows: int | None) -> int:
    """Return when the controller knows every switch to be right; how many flows they have. Raises LabError."""

    def look() -> int | None:
        items = json.loads(controller.api.ask("GET", "/hosts?limit=5000"))["items"]
        found = sum(int(host["status"]["flows"]) for host in items if host["status"]["openflow"]["state"] == "up")
        up = len(items) == hosts and all(host["status"]["openflow"]["state"] == "up" for host in items)
        return found if up and found > hosts * 2 and flows in {None, found} else None

    if flows is not None:
        return int(wait_for("a controller that knows the fleet to be right", look, PATIENCE, every=_EVERY) or 0)
    before, found = 0, 0
    deadline = time.monotonic() + PATIENCE
    while not found or found != before:  # until no more come
        if time.monotonic() > deadline:
            raise LabError("the fleet does not get right")
        time.sleep(2.0)  # in which more would have come, were there more to come
        before, found = found, look() or 0
    return found


@contextmanager
def _monitored(switch: Vswitchd) -> Iterator[Sequence[socket.socket]]:
    """Connections to all bridges, each told of every change of a flow."""
    everything = struct.pack("!IIIHBB", 1, 0xFFFFFFFF, 0xFFFFFFFF, _CHANGES, 255, 0) + bytes.fromhex("0001000400000000")
    with switch.sockets() as sockets:
        for sock in sockets:
            sock.sendall(message(MULTIPART, struct.pack("!HH4x", _MONITOR, 0) + everything, xid=2))
            sock.sendall(message(BARRIER, xid=3))
        for sock in sockets:
            _taken(sock)
        yield sockets


def _taken(sock: socket.socket) -> None:
    """Return when the switch has answered the barrier. Raises LabError when it refuses what came before."""
    sock.settimeout(PATIENCE)
    kind = None
    while kind != BARRIER + 1:
        _, kind, size, _ = struct.unpack("!BBHI", sock.recv(8, socket.MSG_WAITALL))
        body = sock.recv(size - 8, socket.MSG_WAITALL) if size > 8 else b""
        if kind == _ERROR:
            raise LabError(f"a switch refuses a flow monitor: {body[:4].hex()}")


def _changes(sock: socket.socket) -> int:
    """Changes of flows that this connection was told of."""
    sock.setblocking(False)
    data, found = b"", 0
    try:
        while more := sock.recv(1 << 20):
            data += more
    except BlockingIOError:
        pass
    at = 0
    while len(data) - at >= 8:
        end = at + (data[at + 2] << 8 | data[at + 3])
        if data[at + 1] == MULTIPART + 1 and data[at + 9] == _MONITOR:
            update = at + 16
            while update < end:
                found, update = found + 1, update + (data[update] << 8 | data[update + 1])
        at = end
    return found
