"""How long a change takes in a large fleet until every host that needs it has confirmed it: a guest starts, migrates,
stops; a rule changes. The switches are sinks, and what hosts would tell of a guest is written as rows.

Beside each the processor time of a full recomputation; and the same with a tenth of the networks.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from labkit.run import LabError

from .cold import Cold, asked, cold, sizes
from .figures import Figure, Goal, p99
from .processes import cpu
from .rows import Rows, rows
from .sinks import Sinks, sinks
from .tenants import TENANT, network_name, row

ABOUT = "a guest starts, migrates, stops, a rule changes: until every host that needs it has confirmed it"
_P99 = Goal(0.02)
_QUIET = 0.1  # seconds without a commit, after which a change is over
_PATIENCE = 20.0
_NEWCOMERS = 1_000_000  # guests that are not there yet have numbers from here on


def options(parser: argparse.ArgumentParser) -> None:
    sizes(parser, [(400, 200), (400, 2000)])
    parser.add_argument("--changes", type=int, default=40, metavar="N", help="of each kind (default 40)")


@dataclass(slots=True)
class _Taken:
    """Of all changes of a kind: seconds until the last commit, switches that committed, the controller's processor
    time together."""

    seconds: list[float] = field(default_factory=list)
    hosts: list[int] = field(default_factory=list)
    spent: float = 0.0


def measure(args: argparse.Namespace) -> list[Figure]:
    found: list[Figure] = []
    medians: dict[tuple[str, int], float] = {}
    for tenants in asked(args):
        with cold(tenants) as fleet, sinks() as played, rows(fleet.controller.store) as store:
            fleet.told(played)
            for kind, taken in _changes(fleet, played, store, args.changes).items():
                found += _figures(fleet, kind, taken, medians.get((kind, tenants.hosts)))
                medians.setdefault((kind, tenants.hosts), statistics.median(taken.seconds))
    return found


def _figures(fleet: Cold, kind: str, taken: _Taken, before: float | None) -> Iterator[Figure]:
    size, each = fleet.tenants.size, taken.spent / len(taken.seconds)
    median = statistics.median(taken.seconds)
    yield Figure("change", f"{kind}: median", median, "s", size, before, "with fewer networks" if before else "")
    yield Figure("change", f"{kind}: p99", p99(taken.seconds), "s", size, goal=_P99)
    yield Figure("change", f"{kind}: processor time", each, "s", size, fleet.computing, "all computed anew")
    yield Figure("change", f"{kind}: hosts that it concerns", statistics.mean(taken.hosts), "", size)


def _changes(fleet: Cold, played: Sinks, store: Rows, count: int) -> dict[str, _Taken]:
    tenants, chance = fleet.tenants, random.Random(2)
    networks = -(-tenants.guests // TENANT)

    def newcomer(number: int, host: int) -> dict[str, str]:
        return row(_NEWCOMERS + number, host, 1000 + number, network=network_name(number % networks), addresses=[])

    places = [chance.sample(range(tenants.hosts), 2) for _ in range(count)]
    names = [newcomer(n, 0)["name"] for n in range(count)]
    rules = [_rule(n // networks % 2, network_name(n % networks)) for n in range(count)]
    kinds: dict[str, Callable[[int], object]] = {
        "a guest starts": lambda n: store.insert(newcomer(n, places[n][0])),
        "a guest migrates": lambda n: store.update(newcomer(n, places[n][1])),
        "a guest stops": lambda n: store.delete(names[n]),
        "a rule changes": lambda n: fleet.controller.api.ask("POST", "/apply", [rules[n]]),
    }
    return {kind: _measured(fleet, played, count, make) for kind, make in kinds.items()}


def _rule(loose: int, network: str) -> dict[str, object]:
    """The network, with a filter of its own for what its vNICs may send."""
    number = int(network.removeprefix("tenant"))
    prefix = f"10.{number >> 8}.{number & 255}"
    filters = ["no-mac-spoofing"] if loose else ["clean-traffic"]
    return {"kind": "Network", "name": network, "mode": "isolated", "subnets": [f"{prefix}.0/24"],
            "dhcp": {"range": [f"{prefix}.100", f"{prefix}.200"]},
            "portgroups": {"default": {"filters": filters}}}  # fmt: skip


def _measured(fleet: Cold, played: Sinks, count: int, make: Callable[[int], object]) -> _Taken:
    taken, spent = _Taken(), cpu([fleet.pid])
    for number in range(count):
        commits = played.taken().commits
        begun = time.monotonic()
        make(number)
        seen, last = commits, begun
        while seen == commits or time.monotonic() - last < _QUIET:
            now = played.taken()
            seen, last = now.commits, max(now.last, begun)
            if seen == commits and time.monotonic() - begun > _PATIENCE:
                raise LabError("a change concerned no host at all")
            time.sleep(0.005)
        taken.seconds.append(last - begun)
        taken.hosts.append(seen - commits)
    taken.spent = cpu([fleet.pid]) - spent
    return taken
