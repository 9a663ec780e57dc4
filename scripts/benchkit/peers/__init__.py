"""What a user would take instead, with the same guests in the same run: OVN for a fleet, Faucet for one switch."""

from __future__ import annotations

import argparse

from labkit.run import LabError, say

from ..figures import Figure
from . import beside_faucet, beside_ovn
from .faucet import installed

ABOUT = "beside OVN: cold start, memory, flows, a guest that boots; beside Faucet: start, reload, restart"
_FLEETS, _SWITCHES = "8x200", "20"


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fleets", type=_fleets, default=_FLEETS, metavar="HOSTSxPORTS,...",
                        help=f"fleets beside OVN (default {_FLEETS}; 16x800 takes a minute more)")  # fmt: skip
    parser.add_argument("--switches", type=_numbers, default=_SWITCHES, metavar="PORTS,...",
                        help=f"ports of the switch beside Faucet (default {_SWITCHES})")  # fmt: skip
    parser.add_argument("--boots", type=int, default=10, metavar="N", help="guests that boot one by one (default 10)")
    parser.add_argument("--rounds", type=int, default=2, metavar="N", help="how often beside Faucet (default 2)")
    parser.add_argument("--name", default="bf", metavar="PREFIX", help="the name of the lab beside Faucet (default bf)")


def measure(args: argparse.Namespace) -> list[Figure]:
    figures: list[Figure] = []
    for hosts, ports in args.fleets:
        figures += beside_ovn.measure(hosts, ports, args.boots)
    if args.switches:
        try:
            programs = installed()
        except LabError as error:
            say(f"Faucet cannot be installed, its figures are left out: {error}")
            return figures
    for ports in args.switches:
        figures += beside_faucet.measure(programs, args.name, ports, args.rounds)
    return figures


def _fleets(text: str) -> list[tuple[int, int]]:
    """ "8x200,16x800"; nothing is none. Raises ArgumentTypeError."""
    found = []
    for each in filter(None, text.split(",")):
        hosts, _, ports = each.partition("x")
        if not (hosts.isdecimal() and ports.isdecimal() and 1 <= int(hosts) <= 250 and 20 <= int(ports) <= 5000):
            raise argparse.ArgumentTypeError(f"{each!r} is no fleet: hosts (to 250), x, ports (20 to 5000)")
        found.append((int(hosts), int(ports)))
    return found


def _numbers(text: str) -> list[int]:
    found = list(filter(None, text.split(",")))
    if not all(each.isdecimal() and 4 <= int(each) <= 200 for each in found):
        raise argparse.ArgumentTypeError(f"{text!r}: numbers of ports, 4 to 200, with commas between")
    return [int(each) for each in found]
