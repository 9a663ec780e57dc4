"""What it costs the controller itself to bring a fleet from nothing to every flow confirmed: its switches are sinks,
which only acknowledge. Beside that, the same bytes are written to the same sinks by a loop."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from .bare import connected, write_all
from .cold import Cold, bundles, of_each, sizes
from .figures import Figure, Goal
from .sinks import sinks

ABOUT = "the controller's own cost from nothing to every flow confirmed, beside bare writing of the same bytes"
_GOAL = Goal(1.5, of="ratio")
_ROUNDS = 3  # of the baseline, which is short


def options(parser: argparse.ArgumentParser) -> None:
    sizes(parser, [(16, 800), (400, 2000)])


def measure(args: argparse.Namespace) -> list[Figure]:
    return of_each(args, _figures)


def _figures(fleet: Cold) -> Iterator[Figure]:
    size = fleet.tenants.size
    with sinks() as played:
        taken, wall, spent = fleet.told(played)
        told, costs = bundles(taken), []
        for _ in range(_ROUNDS):
            with connected(played, len(told)) as sockets:
                costs.append(write_all([*zip(sockets, told, strict=True)]))
            played.close()
    bare, bare_cpu = sorted(cost.wall for cost in costs)[1], sorted(cost.cpu for cost in costs)[1]
    yield Figure(
        "sync-null", "first switch connects → every flow confirmed", wall, "s", size, bare, "bare writing", _GOAL
    )
    yield Figure("sync-null", "the same: processor time", spent, "s", size, bare_cpu, "bare writing", _GOAL)
    yield Figure("sync-null", "before: program started, rows read, all computed: processor time", fleet.computing, "s",
                 size)  # fmt: skip
    yield Figure("sync-null", "flows a host", taken.flows / fleet.tenants.hosts - 1, "", size)
    yield Figure("sync-null", "bytes in all", sum(map(len, told)), "B", size)
