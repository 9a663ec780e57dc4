"""Measure how long reads take in a large fleet: the real controller, a store full of rows, and hosts of which only the
switches answer, played ones. Every answer is judged, and the memory."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .bench import print_table
from .bench_switches import COOKIE, switches
from .controller import PROGRAM
from .run import LabError, run, say, wait_for

LIMIT, DRAWING = 0.3, 2.0  # seconds that a read may take, and one of the whole graph
MEMORY, GROWTH = 1024, 128  # MiB: at most, and by which reading all of it a second time may add to it
NETWORKS = 20
_REST = 0.2  # seconds of CPU time in two of the clock, in which a controller counts as at rest
_BATCH = 150  # rows in a transaction: it is one argument, of 128 KiB at most
_OTHER_PORTS = 4  # of a switch: an uplink and three tunnels
_PATIENCE = 180.0
_ABOVE = ("/openapi.json", "/healthz", "/metrics")


@dataclass(frozen=True, slots=True)
class Read:
    """One request, below /api/v1 where it says no other place; ``limit`` in seconds."""

    path: str
    limit: float = LIMIT


def reads(hosts: int, guests: int) -> list[Read]:
    """What people and programs ask, of the whole fleet and of one thing in the middle of it, the switches included."""
    host, guest = f"kvm{hosts // 2:03}", f"vm{guests // 2:04}"
    first, last = "vm0000", f"vm{guests - 1:04}"
    port = _name(guests // 2, 0)
    graph = [Read(f"/topology?format={form}", DRAWING) for form in ("json", "graphml", "gexf", "dot", "svg")]
    asked = (
        "/hosts?limit=5000", f"/hosts/{host}", "/networks", "/networks/net00", "/ports?limit=5000",
        f"/ports?host={host}", f"/ports?vm={guest}", "/ports?state=active&network=net00", f"/ports/{port}",
        "/events?last=100", f"/events?host={host}", "/unknown-switches", "/doctor?limit=5000", f"/doctor?host={host}",
        f"/topology?host={host}", "/topology?network=net00", f"/topology/neighbours/{host}",
        f"/topology/path?from={first}&to={last}", f"/topology/shares/{guest}", f"/topology/fails/{host}",
        "/topology/fails/physnet1", "/topology?network=lan", f"/topology/path?from=kvm000&to=kvm{hosts - 1:03}",
        f"/hosts/{host}/flows", f"/hosts/{host}/walk", f"/flows/{COOKIE:#x}", "/networks/net00/fdb",
        "/networks/lan/fdb", "/counters", f"/counters?host={host}", "/openapi.json", "/healthz", "/metrics",
    )  # fmt: skip
    return [*(Read(path) for path in asked), *graph]


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 1 when any answer took longer than it may, or the memory is more or has grown more than it may."""
    args = _parser().parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="fleetswitch-bench-") as folder, _controller(Path(folder)) as started:
        process, port = started
        api = _Api(Path(folder) / "api.sock")
        say(f"{args.hosts} hosts of which the switches answer, {args.guests} guests of two vNICs each")
        empty, begun = _memory(process.pid), time.monotonic()
        api.ask("POST", "/apply", [*_hosts(args.hosts), *_networks()])
        _fill(Path(folder), _vnics(args.hosts, args.guests))
        with switches(port, _datapaths(api), 2 * -(-args.guests // args.hosts) + _OTHER_PORTS):
            _settle(api, process.pid, 2 * args.guests)
            full = _memory(process.pid)
            say(f"filled and computed after {time.monotonic() - begun:.0f} s")
            asked = reads(args.hosts, args.guests)
            taken: list[list[float]] = [[] for _ in asked]
            sizes, after = [0] * len(asked), []
            for _ in range(2):  # what the first needs, the second finds
                for number, read in enumerate(asked):
                    seconds, sizes[number] = _measure(api, read, -(-args.rounds // 2))
                    taken[number] += seconds
                after.append(_memory(process.pid))
        most = _memory(process.pid, "VmHWM")
    limits = [read.limit * args.slack for read in asked]
    lines = [
        [_short(read.path), f"{size / 1024:.0f} KiB", *map(_ms, (statistics.median(each), max(each), limit))]
        for read, size, each, limit in zip(asked, sizes, taken, limits, strict=True)
    ]
    print_table(["read", "size", "median", "worst", "limit"], lines)
    print(f"memory of the controller: {empty} MiB empty, {full} MiB filled, {after[0]} MiB after all reads, "
          f"{after[1]} MiB after all of them again, {most} MiB at most")  # fmt: skip
    late = sum(max(each) > limit for each, limit in zip(taken, limits, strict=True))
    heavy = most > MEMORY or after[1] - after[0] > GROWTH
    print(f"beyond their limit: {late} of {len(asked)} reads, {'the' if heavy else 'not the'} memory ({MEMORY} MiB, "
          f"{GROWTH} MiB more by the second time)")  # fmt: skip
    return int(late > 0 or heavy)


class _Api:
    """The controller's API at its unix socket, a connection for each request as the command line has it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def ask(self, method: str, path: str, body: object = None) -> bytes:
        """The answer to a request. Raises LabError when it is refused."""
        connection = http.client.HTTPConnection("localhost", timeout=60.0)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(60.0)
            sock.connect(str(self._path))
            connection.sock = sock
            data = None if body is None else json.dumps(body)
            whole = path if path in _ABOVE else f"/api/v1{path}"
            connection.request(method, whole, data, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            said = answer.read()
        if answer.status >= 400:
            raise LabError(f"{method} {path}: {answer.status}: {said[:500].decode(errors='replace')}")
        return said


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench reads", description=__doc__)
    parser.add_argument("--hosts", type=int, default=400, metavar="N", help="hosts (default 400)")
    parser.add_argument("--guests", type=int, default=2000, metavar="N", help="guests (default 2000)")
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="how often each is read (default 10)")
    parser.add_argument("--slack", type=float, default=1.0, metavar="X", help="limits of time are X times as much")
    return parser


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _short(path: str) -> str:
    return path if len(path) <= 60 else f"{path[:57]}..."


@contextmanager
def _controller(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The program with its state in the folder, and its OpenFlow port on loopback, which nobody had."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    paths = ["--state-dir", str(folder / "state"), "--api-socket", str(folder / "api.sock"), "--api-tcp", "none"]
    with (folder / "log").open("w") as log:
        argv = [str(PROGRAM), "up", *paths, "--listen", f"tcp:127.0.0.1:{port}", "--log-level", "error"]
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        wait_for("the controller's API", lambda: (folder / "api.sock").exists() or process.poll(), 30.0)
        yield process, port
    finally:
        process.terminate()
        process.wait(30.0)


def _hosts(count: int) -> list[dict[str, Any]]:
    """Hosts whose OVSDB refuses at once, and that have no libvirt."""
    return [
        {"kind": "Host", "name": f"kvm{n:03}", "ovsdb": f"unix:/nonexistent/fleetswitch-bench/{n}",
         "tunnel_ip": f"198.18.{n // 250}.{n % 250 + 1}", "uplinks": {"physnet1": {"interface": "ens224"}}}
        for n in range(count)
    ]  # fmt: skip


def _networks() -> list[dict[str, Any]]:
    own = [{"kind": "Network", "name": f"net{n:02}", "mode": "isolated"} for n in range(NETWORKS)]
    groups = {f"vlan{n}": {"vlan": n} for n in range(1, NETWORKS + 1)}
    lan = {"kind": "Network", "name": "lan", "mode": "bridge", "physical_network": "physnet1", "portgroups": groups}
    return [*own, lan]


def _datapaths(api: _Api) -> list[int]:
    """The datapath id of each host."""
    return [int(host["status"]["datapath_id"], 16) for host in json.loads(api.ask("GET", "/hosts?limit=5000"))["items"]]


def _uuid(guest: int) -> str:
    return f"00000000-0000-4000-8000-{guest:012}"


def _mac(guest: int, nic: int) -> str:
    return f"52:54:00:{nic:02x}:{guest >> 8:02x}:{guest & 255:02x}"


def _name(guest: int, nic: int) -> str:
    return f"{_uuid(guest)}.{_mac(guest, nic).replace(':', '')}"


def _vnics(hosts: int, guests: int) -> list[dict[str, Any]]:
    """Rows of two vNICs of each guest, in tunnels and in a VLAN, as they were when its host went down."""
    found = []
    for guest in range(guests):
        number = guest % NETWORKS
        for nic, (network, group) in enumerate(((f"net{number:02}", "default"), ("lan", f"vlan{number + 1}"))):
            nth = 2 * (guest // hosts) + nic  # of its host
            status = {
                "vm_uuid": _uuid(guest), "vm": f"vm{guest:04}", "mac": _mac(guest, nic),
                "host": f"kvm{guest % hosts:03}", "tap": f"vnet{nth}", "ofport": nth + 1,
                "network": network, "portgroup": group, "mtu": 1450, "state": "active",
            }  # fmt: skip
            found.append({"name": _name(guest, nic), "spec": "{}", "status": json.dumps(status)})
    return found


def _fill(folder: Path, vnics: Sequence[dict[str, Any]]) -> None:
    """Write the vNICs into the controller's store, as it would itself."""
    server = next((folder / "state/store").glob("*.sock"))
    for first in range(0, len(vnics), _BATCH):
        inserts = [{"op": "insert", "table": "Port", "row": row} for row in vnics[first : first + _BATCH]]
        answer = run(["ovsdb-client", "transact", f"unix:{server}", json.dumps(["Fleetswitch", *inserts])]).stdout
        if "error" in answer:
            raise LabError(f"the store refused rows: {answer[:500]}")


def _settle(api: _Api, pid: int, vnics: int) -> None:
    """Return when the controller shows every vNIC as active, and computes next to nothing any more."""

    def ready() -> bool:
        total = json.loads(api.ask("GET", "/ports?state=active&limit=1"))["total"]
        before = _cpu(pid)
        time.sleep(2.0)  # over which its CPU time is taken
        return total == vnics and _cpu(pid) - before < _REST

    wait_for(f"{vnics} active vNICs in a controller at rest", ready, _PATIENCE)


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int, what: str = "VmRSS") -> int:
    """MiB, see proc(5)."""
    found = re.search(rf"^{what}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    if found is None:
        raise LabError(f"process {pid} tells no {what}")
    return int(found[1]) // 1024


def _measure(api: _Api, read: Read, rounds: int) -> tuple[list[float], int]:
    """Seconds of each request from the socket's connect to the last byte, and how many bytes the answer has."""
    taken, size = [], 0
    for _ in range(rounds):
        begun = time.monotonic()
        size = len(api.ask("GET", read.path))
        taken.append(time.monotonic() - begun)
    return taken, size


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except LabError as error:
        raise SystemExit(f"bench: {error}") from None
