"""What a whole fleet weighs: the real controller with an OpenFlow, an OVSDB and a libvirt connection to every host."""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from pathlib import Path

from labkit.run import say

from . import population
from .controller import Controller, running
from .figures import Figure, Goal
from .machines import Machines, lift_limit, sizes
from .processes import descriptors, family, memory, threads
from .switches import switches

ABOUT = "the controller's memory, threads and descriptors, with every connection open"
MEMORY = 300_000_000  # bytes, of the controller and its store
THREADS = 100  # of the controller, however many hosts there are
_WATCHED = 3.0  # seconds over which the most threads are counted
_TUNNELS = 3


def options(parser: argparse.ArgumentParser) -> None:
    sizes(parser)


def measure(args: argparse.Namespace) -> list[Figure]:
    lift_limit()
    with tempfile.TemporaryDirectory(prefix="fleetswitch-bench-") as name:
        folder = Path(name)
        size = {"hosts": args.hosts, "guests": args.guests, "networks": args.networks}
        say(f"{args.hosts} databases, {args.guests} guests of libvirt's test driver, {args.networks} networks in each")
        vnics = population.tenants(**size)
        with Machines(folder, vnics) as machines, running(folder) as controller:
            empty, alone = _weight(controller), _most_threads(controller)
            begun = time.monotonic()
            controller.api.ask(
                "POST", "/apply", [*population.real_hosts(machines), *population.tenant_networks(args.networks)]
            )
            machines.play()
            ports = -(-args.guests // args.hosts) + _TUNNELS
            with switches(controller.port, population.datapaths(controller.api), ports):
                slowest = population.connected(controller, args.hosts)
                hosts = _weight(controller)
                say(f"every connection stands after {time.monotonic() - begun:.0f} s")
                machines.plug()
                population.active(controller, args.guests)
                say(f"all guests are switched after {time.monotonic() - begun:.0f} s")
                waited = Figure("memory", "slowest list of hosts while they connect", slowest, "s", size)
                return [*_figures(controller, size, empty, hosts, alone), waited]


def _figures(controller: Controller, size: dict[str, int], empty: int, with_hosts: int, alone: int) -> list[Figure]:
    pid, full = controller.process.pid, _weight(controller)
    hosts, guests = size["hosts"], size["guests"]
    return [
        Figure("memory", "controller and store, no host", empty, "B"),
        Figure("memory", "controller and store, all connected", full, "B", size, goal=Goal(MEMORY)),
        Figure("memory", "the controller alone", memory(pid), "B", size),
        Figure("memory", "the controller at most", memory(pid, "VmHWM"), "B", size),
        Figure("memory", "a host's three connections", (with_hosts - empty) / hosts, "B", size),
        Figure("memory", "a guest", (full - with_hosts) / guests, "B", size),
        Figure("memory", "threads", _most_threads(controller), "", size, alone, "no host", Goal(THREADS)),
        Figure("memory", "file descriptors", descriptors(pid), "", size),
        Figure("memory", "flows a host", _flows(controller) / hosts, "", size),
    ]


def _weight(controller: Controller) -> int:
    return sum(map(memory, family(controller.process.pid)))


def _flows(controller: Controller) -> int:
    """That all hosts together should have."""
    told = controller.api.ask("GET", "/metrics").decode()
    return sum(int(count) for count in re.findall(r"^fleetswitch_host_flows_wanted{.*} (\d+)$", told, re.MULTILINE))


def _most_threads(controller: Controller) -> int:
    """They come and go: libvirt's calls have each one of their own."""
    until, most = time.monotonic() + _WATCHED, 0
    while time.monotonic() < until:
        most = max(most, threads(controller.process.pid))
        time.sleep(0.01)
    return most
