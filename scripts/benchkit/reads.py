"""How long reads take in a large fleet: the real controller, a store full of rows, and hosts of which only the switches
answer, played ones. Every answer is judged, and the memory."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from labkit.run import say

from . import population
from .controller import Api, running
from .figures import Figure, Goal
from .processes import memory
from .switches import COOKIE, switches

ABOUT = "how long each read of the API takes in a large fleet, and how much memory the controller has then"
LIMIT, DRAWING = 0.3, 2.0  # seconds that a read may take, and one of the whole graph
MEMORY, GROWTH = 1024 << 20, 128 << 20  # bytes: at most, and by which reading all of it a second time may add to it
_OTHER_PORTS = 4  # of a switch: an uplink and three tunnels


@dataclass(frozen=True, slots=True)
class Read:
    """One request, below /api/v1 where it says no other place; ``limit`` in seconds."""

    path: str
    limit: float = LIMIT


def reads(hosts: int, guests: int) -> list[Read]:
    """What people and programs ask, of the whole fleet and of one thing in the middle of it, the switches included."""
    host, guest = f"kvm{hosts // 2:03}", f"vm{guests // 2:04}"
    first, last = "vm0000", f"vm{guests - 1:04}"
    port = population.port_name(guests // 2, 0)
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


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--hosts", type=int, default=400, metavar="N", help="hosts (default 400)")
    parser.add_argument("--guests", type=int, default=2000, metavar="N", help="guests (default 2000)")
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="how often each is read (default 10)")
    parser.add_argument("--slack", type=float, default=1.0, metavar="X", help="limits of time are X times as much")


def measure(args: argparse.Namespace) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="fleetswitch-bench-") as folder, running(Path(folder)) as controller:
        pid = controller.process.pid
        say(f"{args.hosts} hosts of which the switches answer, {args.guests} guests of two vNICs each")
        said, begun = {"empty": memory(pid)}, time.monotonic()
        controller.api.ask("POST", "/apply", [*population.hosts(args.hosts), *population.networks()])
        population.fill(controller, population.vnics(args.hosts, args.guests))
        ports = 2 * -(-args.guests // args.hosts) + _OTHER_PORTS
        with switches(controller.port, population.datapaths(controller.api), ports):
            population.settle(controller, 2 * args.guests)
            said["filled"] = memory(pid)
            say(f"filled and computed after {time.monotonic() - begun:.0f} s")
            asked = reads(args.hosts, args.guests)
            taken: list[list[float]] = [[] for _ in asked]
            for after in ("after all reads", "after all of them again"):  # what the first needs, the second finds
                for read, seconds in zip(asked, taken, strict=True):
                    seconds += _measure(controller.api, read, -(-args.rounds // 2))
                said[after] = memory(pid)
        most = memory(pid, "VmHWM")
    size = {"hosts": args.hosts, "guests": args.guests}
    return [*_times(asked, taken, size, args.slack), *_memory(said, most, size)]


def _times(
    asked: Sequence[Read], taken: Sequence[Sequence[float]], size: dict[str, int], slack: float
) -> Iterator[Figure]:
    for read, seconds in zip(asked, taken, strict=True):
        goal = Goal(read.limit * slack)
        yield Figure("reads", f"{_short(read.path)}: worst of {len(seconds)}", max(seconds), "s", size, goal=goal)


def _memory(said: dict[str, int], most: int, size: dict[str, int]) -> Iterator[Figure]:
    for when, count in said.items():
        yield Figure("reads", f"memory, {when}", count, "B", size)
    yield Figure("reads", "memory, at most", most, "B", size, goal=Goal(MEMORY))
    grown = max(0, said["after all of them again"] - said["after all reads"])
    yield Figure("reads", "memory, more by the second time", grown, "B", size, goal=Goal(GROWTH))


def _short(path: str) -> str:
    return path if len(path) <= 60 else f"{path[:57]}..."


def _measure(api: Api, read: Read, rounds: int) -> list[float]:
    """Seconds of each request from the socket's connect to the last byte."""
    taken = []
    for _ in range(rounds):
        begun = time.monotonic()
        api.ask("GET", read.path)
        taken.append(time.monotonic() - begun)
    return taken
