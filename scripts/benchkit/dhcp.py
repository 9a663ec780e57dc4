"""DHCP: our service beside dnsmasq on a plain bridge, in the same run, by the same clients.

Processor time is that of the controller with its store, and of dnsmasq.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from labkit import netns as ns
from labkit.dhcp_client import OFFER, Answer, Client, clients_at, lease_all, serve
from labkit.host import Host
from labkit.lab import Lab
from labkit.nic import Nic
from labkit.run import LabError, say, wait_for

from .figures import Figure, Goal, p99
from .plain import OURS, PLAIN, without_uplinks
from .processes import cpu, family

ABOUT = "200 guests of one host ask for addresses, one by one, all at once and without end; beside dnsmasq"
NETWORK = """\
kind: Network
name: bench
mode: isolated
subnets: [10.92.0.1/16]
dhcp: {range: [10.92.1.1, 10.92.8.254]}
"""
_SERVER = "10.93.0.1/16"
_DNSMASQ = ("--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--pid-file=", "--no-ping",
            "--dhcp-authoritative", "--dhcp-range=10.93.1.1,10.93.8.254,255.255.0.0,1h", "--dhcp-lease-max=5000",
            "--log-facility=/dev/null", "--bind-interfaces", "--interface=eth0")  # fmt: skip
_PATIENCE = 30.0
_LOAD_SECONDS = 5.0
_REFILL_SECONDS = 5.0  # until a switch may tell the controller as much at once as before (controller_burst_limit)


@dataclass(frozen=True, slots=True)
class Side:
    """A server, and the clients that ask it; ``pids`` are the processes that answer, by what they are."""

    name: str
    clients: Sequence[Client]
    pids: Sequence[int]

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        return cpu(self.pids)


@dataclass
class Taken:
    """What one side took, in seconds."""

    crowd: list[float] = field(default_factory=list)
    offers: list[float] = field(default_factory=list)
    leases: list[float] = field(default_factory=list)
    offer_cpu: float = 0.0
    lease_cpu: float = 0.0
    crowd_cpu: float = 0.0
    rate: float = 0.0
    rate_cpu: float = 0.0


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", default="bd", metavar="PREFIX", help="the lab's name (default bd)")
    parser.add_argument("--clients", type=int, default=200, metavar="N", help="guests that ask (default 200)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="how often all ask at once (default 3)")


def measure(args: argparse.Namespace) -> list[Figure]:
    with Lab(args.name, 1, libvirt=False) as lab:
        host = lab.hosts["h1"]
        lab.controller.start()
        lab.controller.apply(without_uplinks(lab.fleet_yaml()) + "---\n" + NETWORK)
        host.wait_bridge(OURS)
        host.add_bridge(PLAIN, fail_mode="standalone")
        with _dnsmasq(lab, host) as dnsmasq, _crowd(lab, OURS, args.clients) as ours, \
                _crowd(lab, PLAIN, args.clients) as theirs:  # fmt: skip
            sides = [Side("fleetswitch", ours, _controller(lab)), Side("dnsmasq", theirs, [dnsmasq])]
            taken = [_measure(side, args.rounds) for side in sides]
    return list(_figures({"guests": args.clients}, *taken))


def _figures(size: dict[str, int], ours: Taken, theirs: Taken) -> Iterator[Figure]:
    def figure(what: str, one: float, other: float, goal: Goal | None = None, unit: str = "s") -> Figure:
        return Figure("dhcp", what, one, unit, size, other, "dnsmasq", goal)

    for what, one, other in (
        ("discover to offer, one by one", ours.offers, theirs.offers),
        ("discover to lease, one by one", ours.leases, theirs.leases),
    ):
        yield figure(what, statistics.median(one), statistics.median(other))
        yield figure(f"{what}: p99", p99(one), p99(other))
    yield figure("all at once: the last has a lease, worst", max(ours.crowd), max(theirs.crowd), Goal(2.0))
    yield figure("CPU of an offer", ours.offer_cpu, theirs.offer_cpu)
    yield figure("CPU of a lease, one by one", ours.lease_cpu, theirs.lease_cpu)
    yield figure("CPU of a lease, all at once", ours.crowd_cpu, theirs.crowd_cpu)
    yield figure("offers, all asking without end", ours.rate, theirs.rate, unit="1/s")
    yield figure("CPU of an offer, all asking without end", ours.rate_cpu, theirs.rate_cpu)


def _controller(lab: Lab) -> list[int]:
    """The controller, and the ovsdb-server that has its store."""
    process = lab.controller.process()
    if process is None:
        raise LabError("the controller ended")
    return family(process.pid)


@contextmanager
def _crowd(lab: Lab, bridge: str, count: int) -> Iterator[list[Client]]:
    """Clients on a bridge, each at a guest of its own."""
    guests = lab.start_lights("h1", [(f"{bridge[3:]}{n}", [Nic("bench")]) for n in range(count)], bridge)
    with clients_at(guests) as clients:
        yield clients


@contextmanager
def _dnsmasq(lab: Lab, host: Host) -> Iterator[int]:
    """A dnsmasq on the plain bridge; its pid. It writes leases into a file, as it does everywhere."""
    server = lab.start_light(host.name, "dnsmasq", [Nic("bench", addresses=(_SERVER,))], PLAIN)
    leases = host.dir / "dnsmasq.leases"
    argv = ns.argv_in(server.netns, ["dnsmasq", *_DNSMASQ, f"--dhcp-leasefile={leases}"])
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    try:
        wait_for("dnsmasq serves", lambda: leases.exists() or process.poll() is not None, _PATIENCE)
        yield process.pid
    finally:
        process.terminate()
        process.wait(_PATIENCE)


def _measure(side: Side, rounds: int) -> Taken:
    say(f"{side.name}: {len(side.clients)} clients")
    taken, count = Taken(), len(side.clients)
    for client in side.clients:
        client.discover()
    if serve(side.clients, lambda _, answer: answer.kind == OFFER, _PATIENCE):
        raise LabError(f"{side.name}: not every client has an offer")
    _rest(side)
    for _ in range(rounds):
        before = side.cpu()
        taken.crowd.append(lease_all(side.clients, _PATIENCE))
        taken.crowd_cpu += (side.cpu() - before) / count / rounds
        _give_back(side)
    before = side.cpu()
    taken.leases = [lease_all([client], _PATIENCE) for client in side.clients]
    taken.lease_cpu = (side.cpu() - before) / count
    _rest(side)
    before = side.cpu()
    taken.offers = [_offer(client) for client in side.clients]
    taken.offer_cpu = (side.cpu() - before) / count
    _rest(side)
    taken.rate, taken.rate_cpu = _rate(side)
    return taken


def _give_back(side: Side) -> None:
    for client in side.clients:
        client.release()
    _rest(side)


def _rest(side: Side) -> None:
    """Return when the side does next to nothing any more, and is heard as if nobody had asked before."""
    time.sleep(_REFILL_SECONDS)

    def rests() -> bool:
        before = side.cpu()
        time.sleep(1.0)  # over which its processor time is taken
        return side.cpu() - before <= 0.1

    wait_for(f"{side.name} rests", rests, _PATIENCE)


def _offer(client: Client) -> float:
    begun = time.monotonic()
    client.discover()
    if serve([client], lambda _, answer: answer.kind == OFFER, _PATIENCE):
        raise LabError("a client had no offer")
    return time.monotonic() - begun


def _rate(side: Side) -> tuple[float, float]:
    """Offers a second while every client asks anew as soon as it has one, and the processor time of each."""
    offers = 0

    def took(client: Client, answer: Answer) -> bool:
        nonlocal offers
        if answer.kind == OFFER:
            offers += 1
            client.discover()
        return False

    for client in side.clients:
        client.discover()
    before, begun = side.cpu(), time.monotonic()
    serve(side.clients, took, _LOAD_SECONDS)
    return offers / (time.monotonic() - begun), (side.cpu() - before) / max(1, offers)
