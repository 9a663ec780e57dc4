"""Packets that switches send to the controller: how many it answers, how soon, and what each costs.

First our OpenFlow transport in a process of its own, with a plain learning switch on it, beside the same on os-ken and
beside Debian's ovs-testcontroller: played switches, each with a window of packets that wait for their answer. Then the
whole program: packets of guests to machines outside, for which it first has to ask.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from labkit.run import LabError, say

from . import hops, population
from .controller import running
from .figures import Figure, Goal, p99
from .processes import cpu
from .punting import Punting, answered, play

ABOUT = "packets to the controller: answers a second, latency, processor time; and whether one switch starves others"
WINDOW = 32
MOST_WAIT = 0.050  # seconds that a switch waits while others are served
TIMES_OSKEN = 20.0
OURS, OSKEN, TESTCONTROLLER = "fleetswitch", "os-ken", "ovs-testcontroller"
_VERSION = {OURS: 6, OSKEN: 4, TESTCONTROLLER: 4}  # OpenFlow 1.5 and 1.3
_MOST_SWITCHES = {TESTCONTROLLER: 16}  # utilities/ovs-testcontroller.c
_PATIENCE = 20.0
_FAIR = "one floods: longest wait of the others while anybody is served"


@dataclass(frozen=True, slots=True)
class Side:
    """A controller that runs; ``pid`` is its process."""

    name: str
    port: int
    pid: int


@dataclass
class Taken:
    """What one side took, a number for each round. Seconds, and answers a second."""

    rate: list[float] = field(default_factory=list)
    cost: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    worst: list[float] = field(default_factory=list)
    unserved: list[float] = field(default_factory=list)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--switches", type=int, nargs="+", default=[1, 16, 100], metavar="N", help="default 1 16 100")
    parser.add_argument("--beside", nargs="+", choices=(OSKEN, TESTCONTROLLER), default=(OSKEN, TESTCONTROLLER),
                        help="default both")  # fmt: skip
    parser.add_argument("--hosts", type=int, default=400, metavar="N", help="of the whole program (default 400)")
    parser.add_argument("--seconds", type=float, default=1.5, metavar="S", help="of each measurement (default 1.5)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="of ours and theirs in turns (default 3)")


def measure(args: argparse.Namespace) -> list[Figure]:
    return [*_transport(args), *_neighbours(args)]


# -- the transport alone


def _transport(args: argparse.Namespace) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="fleetswitch-bench-") as folder, ExitStack() as stack:
        sides = [stack.enter_context(_side(name, Path(folder))) for name in (OURS, *args.beside)]
        for count in args.switches:
            say(f"transport: {count} switches")
            taken = {side.name: Taken() for side in sides if count <= _MOST_SWITCHES.get(side.name, count)}
            for _ in range(args.rounds):
                for side in sides:
                    if side.name in taken:
                        _round(side, count, args.seconds, taken[side.name])
            yield from _figures(taken, {"switches": count})


def _round(side: Side, count: int, seconds: float, taken: Taken) -> None:
    with _switches(side, count, WINDOW) as switches:
        before = cpu([side.pid])
        lasted = play(switches, seconds)
        answers = sum(switch.answered for switch in switches)
        taken.rate.append(answers / lasted)
        taken.cost.append(_each(cpu([side.pid]) - before, answers))
    with _switches(side, count, 1) as switches:
        if count == 1:
            play(switches, seconds)
            taken.waits += switches[0].waits
        else:
            hostile, *others = switches
            play(others, seconds, hostile)
            taken.worst.append(max(wait for switch in others for wait in switch.waits))
            taken.unserved.append(max(wait for switch in others for wait in switch.served))


def _each(seconds: float, answers: int) -> float:
    """Processor time of an answer; the kernel counts in hundredths of a second, and less than one of them is one."""
    return max(seconds, 0.01) / max(1, answers)


@contextmanager
def _switches(side: Side, count: int, window: int) -> Iterator[list[Punting]]:
    with ExitStack() as stack:
        switches = []
        for number in range(1, count + 1):
            switches.append(Punting(side.port, number, _VERSION[side.name], window))
            stack.callback(switches[-1].sock.close)
        answered(switches, _PATIENCE)
        yield switches


def _figures(taken: dict[str, Taken], size: dict[str, int]) -> Iterator[Figure]:
    """Beside each of the others."""
    ours = taken[OURS]
    for name, theirs in taken.items():
        if name == OURS:
            continue

        def figure(what: str, value: float, unit: str, baseline: float, goal: Goal | None = None,
                   beside: str = name) -> Figure:  # fmt: skip
            return Figure("packet-in", f"transport beside {beside}: {what}", value, unit, size, baseline, beside, goal)

        wanted = Goal(TIMES_OSKEN, at_least=True, of="ratio") if name == OSKEN else None
        cost, their_cost = statistics.median(ours.cost), statistics.median(theirs.cost)
        yield figure("answers", statistics.median(ours.rate), "1/s", statistics.median(theirs.rate))
        yield figure("answers of a second of CPU", 1 / cost, "1/s", 1 / their_cost, wanted)
        if ours.waits:
            yield figure("one by one", statistics.median(ours.waits), "s", statistics.median(theirs.waits))
            yield figure("one by one: p99", p99(ours.waits), "s", p99(theirs.waits))
        if ours.worst:
            fair = Goal(MOST_WAIT) if name == OSKEN else None
            yield figure(_FAIR, max(ours.unserved), "s", max(theirs.unserved), fair)
            yield figure("one floods: longest wait of the others", max(ours.worst), "s", max(theirs.worst))


@contextmanager
def _side(name: str, folder: Path) -> Iterator[Side]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = {
        OURS: [sys.executable, "-m", "benchkit.learning", str(port)],
        OSKEN: [sys.executable, "-m", "benchkit.learning_osken", str(port)],
        TESTCONTROLLER: ["ovs-testcontroller", "--noflow", "-O", "OpenFlow13", "--verbose=off",
                         f"--unixctl={folder / 'ctl'}", f"ptcp:{port}:127.0.0.1"],
    }[name]  # fmt: skip
    with (folder / f"{name}.log").open("w") as log:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
    try:
        _listens(name, port, process)
        yield Side(name, port, process.pid)
    finally:
        process.kill()  # os-ken does not end by itself
        process.wait(_PATIENCE)


def _listens(name: str, port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            return
        except OSError:
            time.sleep(0.05)
    raise LabError(f"{name} does not listen")


# -- the whole program


def _neighbours(args: argparse.Namespace) -> Iterator[Figure]:
    count = max(n for n in (1, 16) if n <= args.hosts)
    say(f"unknown neighbours: {count} switches of {args.hosts} hosts")
    with tempfile.TemporaryDirectory(prefix="fleetswitch-bench-") as folder, running(Path(folder)) as controller:
        controller.api.ask("POST", "/apply", hops.with_outside(population.hosts(args.hosts)))
        datapaths = population.datapaths(controller.api)[:count]
        pid, size = controller.process.pid, {"hosts": args.hosts, "switches": count}
        rate: list[float] = []
        cost: list[float] = []
        worst: list[float] = []
        with _unknowing(controller.port, datapaths, WINDOW) as switches:
            for _ in range(args.rounds):
                before = cpu([pid])
                lasted = play(switches, args.seconds)
                answers = sum(switch.answered for switch in switches)
                rate.append(answers / lasted)
                cost.append(_each(cpu([pid]) - before, answers))
                answered(switches, _PATIENCE)
        with _unknowing(controller.port, datapaths[:1], 1) as switches:
            play(switches, args.seconds)
            waits = switches[0].waits
        if count > 1:
            with _unknowing(controller.port, datapaths, 1) as switches:
                play(switches[1:], args.seconds, switches[0])
                worst.append(max(wait for switch in switches[1:] for wait in switch.served))

    def figure(what: str, value: float, unit: str = "s", goal: Goal | None = None) -> Figure:
        return Figure("packet-in", f"unknown neighbour: {what}", value, unit, size, goal=goal)

    yield figure("packets sent on", statistics.median(rate), "1/s")
    yield figure("CPU of a packet", statistics.median(cost))
    yield figure("one by one", statistics.median(waits))
    yield figure("one by one: p99", p99(waits))
    if worst:
        yield figure(_FAIR, max(worst), goal=Goal(MOST_WAIT))


@contextmanager
def _unknowing(port: int, datapaths: Sequence[int], window: int) -> Iterator[list[Punting]]:
    with ExitStack() as stack:
        switches: list[Punting] = []
        for datapath in datapaths:
            switches.append(hops.Unknowing(port, datapath, window))
            stack.callback(switches[-1].sock.close)
        answered(switches, _PATIENCE)
        yield switches
