"""A controller that has computed a fleet of tenants and knows no switch yet, and what it sends to those that come."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from labkit.run import say

from . import population
from .bare import flows_alone
from .controller import Controller, running
from .figures import Figure
from .processes import cpu
from .sinks import Sinks, Taken
from .tenants import Tenants

PATIENCE = 120.0


@dataclass(frozen=True, slots=True)
class Cold:
    """``computing`` is the processor time that the controller has taken from its start until it was at rest; ``folder``
    is for whoever needs one."""

    tenants: Tenants
    controller: Controller
    datapaths: list[int]
    computing: float
    folder: Path

    @property
    def pid(self) -> int:
        return self.controller.process.pid

    def told(self, sinks: Sinks) -> tuple[Taken, float, float]:
        """Have sinks take everything; gives what they took, and the seconds that it took: of the clock, from the first
        one's connection to the last bundle's commit, and of the controller's processor time."""
        spent = cpu([self.pid])
        begun = sinks.connect(self.controller.port, self.datapaths, keep=True)
        taken = sinks.committed(1, PATIENCE)
        return taken, taken.last - begun, cpu([self.pid]) - spent


def filled(folder: Path, tenants: Tenants) -> None:
    """Have a controller make the fleet's rows, in its state in that folder."""
    with running(folder) as controller:
        controller.api.ask("POST", "/apply", tenants.documents())
        population.fill(controller, tenants.vnics())
        population.settle(controller, tenants.guests)


@contextmanager
def cold(tenants: Tenants) -> Iterator[Cold]:
    say(f"{tenants.hosts} hosts, {tenants.guests} guests")
    with tempfile.TemporaryDirectory(prefix="fleetswitch-bench-") as name:
        filled(Path(name), tenants)
        with started(Path(name), tenants) as found:
            yield found


@contextmanager
def started(folder: Path, tenants: Tenants) -> Iterator[Cold]:
    """A controller on rows that ``filled`` made."""
    with running(folder) as controller:
        population.settle(controller, tenants.guests)
        computing = cpu([controller.process.pid])
        yield Cold(tenants, controller, population.datapaths(controller.api), computing, folder)


def bundles(taken: Taken) -> list[bytes]:
    """Of each sink what made its flows."""
    return [flows_alone(sent) for sent in taken.bytes]


def sizes(parser: argparse.ArgumentParser, usual: Sequence[tuple[int, int]]) -> None:
    """The option --size, with what is measured without it."""
    parser.add_argument("--size", type=_size, action="append", metavar="HOSTS,GUESTS", dest="sizes",
                        help="once or more; default " + " ".join(f"{h},{g}" for h, g in usual))  # fmt: skip
    parser.set_defaults(usual=[Tenants(hosts, guests) for hosts, guests in usual])


def of_each(args: argparse.Namespace, figures: Callable[[Cold], Iterable[Figure]]) -> list[Figure]:
    """The figures of a cold start of each size that was asked for."""
    found: list[Figure] = []
    for tenants in asked(args):
        with cold(tenants) as fleet:
            found += figures(fleet)
    return found


def asked(args: argparse.Namespace) -> list[Tenants]:
    found: list[Tenants] = args.sizes or args.usual
    return found


def _size(text: str) -> Tenants:
    hosts, comma, guests = text.partition(",")
    if not (comma and hosts.isdecimal() and guests.isdecimal() and 1 <= int(hosts) <= 10_000 and int(guests) >= 1):
        raise argparse.ArgumentTypeError(f"{text!r}: hosts and guests with a comma between, as in 400,2000")
    return Tenants(int(hosts), int(guests))
