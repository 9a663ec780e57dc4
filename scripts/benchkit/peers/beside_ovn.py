"""The same tenants in fleetswitch and in OVN, over switches of their own: cold start, memory, flows, boots."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from labkit.run import LabError, say

from ..figures import Figure, Goal
from ..processes import cpu, memory
from .arrivals import monitors
from .fleet import fleetswitch
from .hosts import DummyHost, dummy_hosts
from .ovn import ovn
from .tenants import SIZE, Guest, guests, newcomers

_REST = 0.05  # seconds of CPU time of all processes in one of the clock, in which they count as at rest
_PATIENCE = 120.0
_THIRD, _FIFTH, _HALF = 0.333, 0.2, 0.5


class Control(Protocol):
    """What makes flows of tenants: fleetswitch, or OVN."""

    @property
    def pids(self) -> Sequence[int]:
        """Its own processes; those of Open vSwitch are not among them."""

    def start(self) -> None:
        """From nothing to processes that know the hosts."""

    def configure(self, guests: Sequence[Guest]) -> None:
        """Say which guests there are to be."""

    def confirmed(self, count: int) -> None:
        """Return when it says that so many guests have their flows everywhere."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What one took: CPU time in seconds and memory in bytes, of its own processes and of the switches'.

    ``flows`` are of a host; ``ready`` and ``boots`` in seconds; ``idle`` the CPU seconds of its own before any tenant.
    """

    own_cpu: float
    switch_cpu: float
    idle: float
    ready: float
    own_memory: int
    switch_memory: int
    flows: float
    boots: Sequence[float]
    boot_cpu: float


def measure(hosts: int, ports: int, boots: int) -> list[Figure]:
    """Raises LabError when either cannot be measured, or does not switch what it should."""
    ours = taken("fleetswitch", fleetswitch, hosts, ports, boots)
    theirs = taken("OVN", ovn, hosts, ports, boots)
    return list(figures(hosts, ports, ours, theirs))


def figures(hosts: int, ports: int, ours: Taken, theirs: Taken) -> Iterator[Figure]:
    """Both beside each other, with the goals."""
    size = {"hosts": hosts, "ports": ports}

    def figure(what: str, of: Callable[[Taken], float], unit: str = "s", goal: float | None = None) -> Figure:
        bound = None if goal is None else Goal(goal, of="ratio")
        return Figure("peers", what, of(ours), unit, size, of(theirs), "OVN", bound)

    yield figure("cold start: CPU of all processes", lambda t: t.own_cpu + t.switch_cpu, goal=_THIRD)
    yield figure("cold start: CPU without the switches", lambda t: t.own_cpu)
    yield figure("cold start: CPU of that before any tenant", lambda t: t.idle)
    yield figure("cold start: until all is confirmed", lambda t: t.ready)
    yield figure("memory of all processes", lambda t: t.own_memory + t.switch_memory, "B", _FIFTH)
    yield figure("memory without the switches", lambda t: t.own_memory, "B")
    yield figure("flows a host", lambda t: t.flows, "", _THIRD)
    yield figure("a guest boots: last flow in, median", lambda t: statistics.median(t.boots), goal=_HALF)
    yield figure("a guest boots: last flow in, worst", lambda t: max(t.boots))
    yield figure("a guest boots: CPU of all processes", lambda t: t.boot_cpu)


def taken(
    name: str, control: Callable[[Path, Sequence[DummyHost]], AbstractContextManager[Control]], hosts: int, ports: int,
    boots: int,
) -> Taken:  # fmt: skip
    """Measure one. Raises LabError when it cannot be, or does not switch what it should."""
    say(f"{name}: {ports} ports on {hosts} hosts")
    there, later = guests(hosts, ports), newcomers(hosts, ports, boots)
    with tempfile.TemporaryDirectory(prefix="fleetswitch-bench-") as name, dummy_hosts(Path(name), hosts) as machines:
        for number, host in enumerate(machines):
            host.plug([guest for guest in there if guest.host == number])
        switches = [pid for host in machines for pid in host.switch]
        _at_rest(switches)
        before, begun = cpu(switches), time.monotonic()
        with control(Path(name) / "control", machines) as side:
            side.start()
            idle = cpu(side.pids)
            side.configure(there)
            side.confirmed(ports)
            ready = time.monotonic() - begun
            _at_rest([*side.pids, *switches])
            own_cpu, switch_cpu = cpu(side.pids), cpu(switches) - before
            _proven(machines, there)
            flows = statistics.mean(host.flows() for host in machines)
            used = sum(map(memory, side.pids)), sum(map(memory, switches))
            side.configure(later)
            seconds, boot_cpu = _boots(machines, later, [*side.pids, *switches])
            side.confirmed(ports + boots)
    return Taken(own_cpu, switch_cpu, idle, ready, *used, flows, seconds, boot_cpu)


def _boots(machines: Sequence[DummyHost], later: Sequence[Guest], pids: Sequence[int]) -> tuple[list[float], float]:
    """Seconds of each, and CPU seconds of one."""
    _at_rest(pids)
    with monitors(machines) as watching:
        before = cpu(pids)
        seconds = [watching.boot(guest) for guest in later]
        return seconds, (cpu(pids) - before) / len(later)


def _at_rest(pids: Sequence[int]) -> None:
    """Return when next to nothing is computed any more."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        before = cpu(pids)
        time.sleep(1.0)  # over which CPU time is taken
        if cpu(pids) - before <= _REST + 0.01 * len(pids):
            return
        if time.monotonic() > deadline:
            raise LabError(f"not at rest after {_PATIENCE:.0f} s")


def _proven(machines: Sequence[DummyHost], there: Sequence[Guest]) -> None:
    """A guest reaches all of its tenant, on every host, and nobody else; and not with another's address."""
    sender, others = there[0], there[1:SIZE]
    switch = machines[sender.host]
    for other in others:
        if _dropped(switch.trace(sender, other)):
            raise LabError(f"{sender.name} does not reach {other.name}")
    if not _dropped(switch.trace(sender, others[0], source=others[-1].address)):
        raise LabError(f"{sender.name} speaks with the address of {others[-1].name}")
    if len(there) > SIZE and not _dropped(switch.trace(sender, there[SIZE])):
        raise LabError(f"{sender.name} reaches {there[SIZE].name}, who is another tenant's")


def _dropped(trace: str) -> bool:
    return trace.rstrip().endswith("Datapath actions: drop")
