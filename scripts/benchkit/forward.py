"""What passes between guests: one TCP connection, datagrams of 64 bytes, and how many flows the datapath needs for it.

Beside a bridge that does NORMAL and one that copies each port to another, on the same hosts (the userspace datapath),
in turns. Behind NAT the baseline is a guest of the NORMAL bridge that reaches the same machine without any.
"""

from __future__ import annotations

import argparse
import re
import socket
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping

from labkit.lab import Lab
from labkit.run import say

from .figures import Figure, Goal
from .forwarding import DIRECT, LOCAL, NETWORK, OUTSIDE, OVERLAY, Path, datapath_flows, paths, small, stream
from .plain import OURS, PLAIN

ABOUT = "TCP, small datagrams and datapath flows between guests: local, across the overlay, through NAT; beside NORMAL"
OF_NORMAL, FLOWS_OF_NORMAL = 0.95, 1.2
_BESIDE = {PLAIN: "NORMAL", DIRECT: "in_port → output"}
_KINDS = {"TCP": socket.SOCK_STREAM, "UDP": socket.SOCK_DGRAM}

Taken = Mapping[tuple[str, str], list[float]]  # by bridge and kind of path, a number for each round


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", default="bf", metavar="PREFIX", help="the lab's name (default bf)")
    parser.add_argument("--seconds", type=int, default=2, metavar="S", help="of each measurement (default 2)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="of ours and theirs in turns (default 3)")
    parser.add_argument("--connections", type=int, default=100, metavar="N", help="for the datapath's flows (100)")


def measure(args: argparse.Namespace) -> list[Figure]:
    with Lab(args.name, 2, physnets=2, libvirt=False) as lab:
        lab.controller.start()
        lab.controller.apply(_documents(lab))
        for host in lab.hosts.values():
            host.wait_bridge(OURS)
        with paths(lab) as found:
            return [*_passes(args, found), *_flows(args, found)]


def _documents(lab: Lab) -> str:
    """The first host has an address outside; the second physical network is NORMAL's."""
    first, *others = re.sub(r"  physnet2: .*\n", "", lab.fleet_yaml()).split("---\n")
    return "---\n".join([first + OUTSIDE, *others, NETWORK])


def _passes(args: argparse.Namespace, found: list[Path]) -> Iterator[Figure]:
    streams: Taken = defaultdict(list)
    rates: Taken = defaultdict(list)
    costs: Taken = defaultdict(list)
    for number in range(args.rounds):
        say(f"what passes: round {number + 1} of {args.rounds}")
        for path in sorted(found, key=lambda path: path.kind):
            key = path.bridge, path.kind
            streams[key].append(stream(path, args.seconds) / 8)
            rate, cost = small(path, args.seconds)
            rates[key].append(rate)
            costs[key].append(cost)
    reached = Goal(OF_NORMAL, at_least=True, of="ratio")
    yield from _beside("one TCP connection, bytes a second", streams, "1/s", reached)
    yield from _beside("datagrams of 64 bytes a second", rates, "1/s", reached)
    yield from _beside("processor time of a datagram", costs, "s", None)


def _flows(args: argparse.Namespace, found: list[Path]) -> Iterator[Figure]:
    say(f"datapath flows for {args.connections} connections")
    for name, kind in _KINDS.items():
        taken = {(path.bridge, path.kind): [float(datapath_flows(path, kind, args.connections))] for path in found}
        what = f"datapath flows for {args.connections} {name} connections"
        yield from _beside(what, taken, "", Goal(FLOWS_OF_NORMAL, of="ratio"))


def _beside(what: str, taken: Taken, unit: str, goal: Goal | None) -> Iterator[Figure]:
    """Goals are for what NORMAL does too: it translates no addresses."""
    for (bridge, kind), theirs in taken.items():
        if bridge != OURS:
            ours = statistics.median(taken[OURS, kind])
            judged = goal if bridge == PLAIN and kind in {LOCAL, OVERLAY} else None
            yield Figure("forward", f"{kind}: {what}, beside {_BESIDE[bridge]}", ours, unit,
                         baseline=statistics.median(theirs), beside=_BESIDE[bridge], goal=judged)  # fmt: skip
