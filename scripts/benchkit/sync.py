"""A cold start over one real ovs-vswitchd, of which every bridge is a host: nothing → every flow confirmed.

Its baselines have the same switch: the same bytes in 64 KiB writes, which is all that Open vSwitch can do; `ovs-ofctl
--bundle`; and os-ken, which sends a message at a time.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Iterator, Sequence

from labkit.run import LabError, run

from .bare import write_all
from .cold import PATIENCE, Cold, bundles, of_each, sizes
from .figures import Figure, Goal
from .one_by_one import os_ken
from .processes import cpu
from .sinks import sinks
from .vswitchd import Vswitchd, vswitchd

ABOUT = "one real Open vSwitch with a bridge for each host: nothing → every flow confirmed, beside bare writing"
_WALL, _CPU = Goal(1.5, of="ratio"), Goal(0.2, of="ratio")
_EVERY = 0.25  # seconds between questions whether all is confirmed
_OTHERS = 4  # bridges that `ovs-ofctl` and os-ken fill


def options(parser: argparse.ArgumentParser) -> None:
    sizes(parser, [(16, 800), (64, 3200), (400, 2000)])


def measure(args: argparse.Namespace) -> list[Figure]:
    return of_each(args, _figures)


def _figures(fleet: Cold) -> Iterator[Figure]:
    size, folder = fleet.tenants.size, fleet.folder / "ovs"
    folder.mkdir()
    with sinks() as played:
        taken, _, _ = fleet.told(played)
        told = bundles(taken)
    flows = taken.flows - fleet.tenants.hosts  # one of each is the deletion of what was left over
    with vswitchd(folder, fleet.datapaths) as switch:
        switch.empty(left_over=True)
        wall, ours, its = _synced(fleet, switch, flows)
        yield Figure("sync", "flows", flows, "", size)
        switch.connect()
        limit, limit_cpu = _rewritten(switch, told)
        yield Figure("sync", "switches connect → every flow confirmed", wall, "s", size, limit, "the same bytes", _WALL)
        yield Figure("sync", "the same: the controller's processor time", ours, "s", size, its, "ovs-vswitchd's", _CPU)
        yield Figure("sync", "the same: ovs-vswitchd's processor time", its, "s", size, limit_cpu, "the same bytes")
        each = (ours + its) / flows
        yield Figure("sync", "processor time of both, a flow", each, "s", size, _by_ofctl(switch), "ovs-ofctl --bundle")
        by_os_ken = os_ken(switch, told[0])
        yield Figure("sync", "processor time of both, a flow, again", each, "s", size, by_os_ken, "os-ken, one by one")


def _synced(fleet: Cold, switch: Vswitchd, flows: int) -> tuple[float, float, float]:
    """Seconds of the clock, and of the processor times of the controller, without those that it takes to be asked, and
    of ovs-vswitchd."""
    ours, its, begun = cpu([fleet.pid]), cpu([switch.pid]), time.monotonic()
    switch.connect(fleet.controller.port)
    asks = 0
    while True:
        time.sleep(_EVERY)
        asks, now = asks + 1, time.monotonic()
        if _confirmed(fleet) >= flows:
            break
        if now - begun > PATIENCE:
            raise LabError(f"not every flow was confirmed within {PATIENCE:.0f} s")
    spent, its = cpu([fleet.pid]) - ours, cpu([switch.pid]) - its
    before = cpu([fleet.pid])
    for _ in range(_OTHERS):
        _confirmed(fleet)
    return now - begun, spent - asks * (cpu([fleet.pid]) - before) / _OTHERS, its


def _confirmed(fleet: Cold) -> int:
    """Flows that the controller knows to be on switches."""
    hosts = json.loads(fleet.controller.api.ask("GET", "/hosts?limit=5000"))["items"]
    return sum(int(host["status"]["flows"]) for host in hosts)


def _rewritten(switch: Vswitchd, told: Sequence[bytes]) -> tuple[float, float]:
    """Seconds of the clock and of ovs-vswitchd's processor time, for the same bytes."""
    walls, spent = [], []
    for _ in range(3):
        switch.empty()
        before = cpu([switch.pid])
        with switch.sockets() as sockets:
            walls.append(write_all([*zip(sockets, told, strict=True)]).wall)
        spent.append(cpu([switch.pid]) - before)
    return statistics.median(walls), statistics.median(spent)


def _by_ofctl(switch: Vswitchd) -> float:
    """Processor seconds a flow, of ovs-vswitchd and the program that reads and sends them."""
    spent, flows = 0.0, 0
    for number in range(min(_OTHERS, switch.bridges)):
        bridge, path = f"unix:{switch.management(number)}", switch.folder / "flows"
        dumped = run(["ovs-ofctl", "-OOpenFlow15", "--no-stats", "dump-flows", bridge]).stdout
        lines = [line.strip().replace(" reset_counts", "") for line in dumped.splitlines() if "actions=" in line]
        path.write_text("\n".join(lines) + "\n")
        run(["ovs-ofctl", "-OOpenFlow15", "del-flows", bridge])
        before, its = resource.getrusage(resource.RUSAGE_CHILDREN), cpu([switch.pid])
        run(["ovs-ofctl", "-OOpenFlow15", "--bundle", "add-flows", bridge, str(path)])
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent += after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime + cpu([switch.pid]) - its
        flows += len(lines)
    return spent / flows
