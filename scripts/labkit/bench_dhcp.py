"""Measure DHCP: our service beside dnsmasq on a plain bridge, in the same run, by the same clients."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from . import netns as ns
from .bench import OURS, PLAIN, p99, print_table, without_uplinks
from .dhcp_client import OFFER, Answer, Client, clients_at, lease_all, serve
from .host import Host
from .lab import Lab
from .nic import Nic
from .program import run_program
from .run import LabError, say, wait_for

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
        return sum(map(_cpu, self.pids))


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


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    begun = time.monotonic()
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
    _print(args.clients, *taken)
    say(f"taken in {time.monotonic() - begun:.0f} s")
    return 0


def _print(clients: int, ours: Taken, theirs: Taken) -> None:
    def times(what: str, one: Sequence[float], other: Sequence[float], cpu: float, its_cpu: float) -> list[str]:
        median, base = statistics.median(one), statistics.median(other)
        return [what, str(len(one)), *map(_ms, (median, p99(one), cpu, base, p99(other), its_cpu)),
                f"{median / base:.1f}"]  # fmt: skip

    lines = [
        times("discover -> offer, one by one", ours.offers, theirs.offers, ours.offer_cpu, theirs.offer_cpu),
        times("discover -> lease, one by one", ours.leases, theirs.leases, ours.lease_cpu, theirs.lease_cpu),
        times(f"{clients} at once: the last has a lease", ours.crowd, theirs.crowd, ours.crowd_cpu, theirs.crowd_cpu),
    ]
    print_table(["what", "n", "median", "p99", "CPU each", "dnsmasq", "its p99", "its CPU", "ratio"], lines)
    print(f"offers a second, all asking without end: {ours.rate:.0f} ({_ms(ours.rate_cpu)} CPU each); "
          f"dnsmasq {theirs.rate:.0f} ({_ms(theirs.rate_cpu)} CPU each)")  # fmt: skip


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms" if seconds < 0.1 else f"{seconds * 1000:.0f} ms"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench dhcp", description=__doc__)
    parser.add_argument("--name", default="bd", metavar="PREFIX", help="the lab's name (default bd)")
    parser.add_argument("--clients", type=int, default=200, metavar="N", help="guests that ask (default 200)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="how often all ask at once (default 3)")
    return parser


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _controller(lab: Lab) -> list[int]:
    """The controller, and the ovsdb-server that has its store."""
    process = lab.controller.process()
    if process is None:
        raise LabError("the controller ended")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [process.pid, *map(int, children)]


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


if __name__ == "__main__":
    sys.exit(run_program("bench", main))
