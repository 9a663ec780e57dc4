"""What a whole fleet weighs: the real controller with an OpenFlow, an OVSDB and a libvirt connection to every host."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from labkit.run import say

from . import population
from .controller import Controller, running
from .figures import Figure, Goal
from .machines import Machines, lift_limit
from .processes import descriptors, family, memory, threads
from .switches import switches

ABOUT = "the controller's memory, threads and descriptors, with every connection open"
MEMORY = 300_000_000  # bytes, of the controller and its store
THREADS = 100  # of the controller, however many hosts there are
_WATCHED = 3.0  # seconds over which the most threads are counted
_TUNNELS = 3


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--hosts", type=int, default=400, metavar="N", help="hosts (default 400)")
    parser.add_argument("--guests", type=int, default=2000, metavar="N", help="guests (default 2000)")


def measure(args: argparse.Namespace) -> list[Figure]:
    lift_limit()
    with tempfile.TemporaryDirectory(prefix="fleetswitch-bench-") as name:
        folder = Path(name)
        say(f"{args.hosts} databases, {args.guests} guests of libvirt's test driver")
        vnics = population.tenants(args.hosts, args.guests)
        with Machines(folder, vnics) as machines, running(folder) as controller:
            empty, alone = _weight(controller), _most_threads(controller)
            begun = time.monotonic()
            controller.api.ask(
                "POST", "/apply", [*population.real_hosts(machines), *population.tenant_networks(args.guests)]
            )
            machines.play()
            ports = -(-args.guests // args.hosts) + _TUNNELS
            with switches(controller.port, population.datapaths(controller.api), ports):
                population.connected(controller, args.hosts)
                hosts = _weight(controller)
                say(f"every connection stands after {time.monotonic() - begun:.0f} s")
                machines.plug()
                population.active(controller, args.guests)
                say(f"all guests are switched after {time.monotonic() - begun:.0f} s")
                return _figures(controller, args.hosts, args.guests, empty, hosts, alone)


def _figures(controller: Controller, hosts: int, guests: int, empty: int, with_hosts: int, alone: int) -> list[Figure]:
    pid, size, full = controller.process.pid, {"hosts": hosts, "guests": guests}, _weight(controller)
    return [
        Figure("memory", "controller and store, no host", empty, "B"),
        Figure("memory", "controller and store, all connected", full, "B", size, goal=Goal(MEMORY)),
        Figure("memory", "the controller alone", memory(pid), "B", size),
        Figure("memory", "the controller at most", memory(pid, "VmHWM"), "B", size),
        Figure("memory", "a host's three connections", (with_hosts - empty) / hosts, "B", size),
        Figure("memory", "a guest", (full - with_hosts) / guests, "B", size),
        Figure("memory", "threads", _most_threads(controller), "", size, alone, "no host", Goal(THREADS)),
        Figure("memory", "file descriptors", descriptors(pid), "", size),
    ]


def _weight(controller: Controller) -> int:
    return sum(map(memory, family(controller.process.pid)))


def _most_threads(controller: Controller) -> int:
    """They come and go: libvirt's calls have each one of their own."""
    until, most = time.monotonic() + _WATCHED, 0
    while time.monotonic() < until:
        most = max(most, threads(controller.process.pid))
        time.sleep(0.01)
    return most
