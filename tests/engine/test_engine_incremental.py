"""However the rows came to be what they are, the engine says what a fresh one says of them.

FLEETSWITCH_TEST_EFFORT multiplies the number of histories (1 in continuous integration).
"""

from __future__ import annotations

import os

from changes import FLOATING, FORWARDS, HOSTS, NETWORKS, PORTS, Change, changes, forwarded_changes
from fleets import FleetRows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps import APPS
from controller.engine import Aspect, Delta, Engine
from controller.pipeline.app import BlockId
from controller.pipeline.pipeline import Entry, Pipeline
from controller.reader import Key

EFFORT = int(os.environ.get("FLEETSWITCH_TEST_EFFORT", "1"))
PIPELINE = Pipeline(APPS)

Identity = tuple[int, int]
Cell = tuple[BlockId, Aspect]


def start() -> FleetRows:
    """A fleet in which something goes on from the first change."""
    fleet = FleetRows()
    for number, host in enumerate(HOSTS):
        fleet.host(host, f"192.0.2.{number + 1}", "phys1", "phys2")
    group = {"trunk": {"trunk": [10, 20], "native": 10}, "quiet": {"isolation": "isolated"}}
    fleet.network(NETWORKS[0], portgroups=group)
    fleet.network(NETWORKS[1], "bridge", physical_network="phys1", portgroups=group)
    return fleet


def start_outside() -> FleetRows:
    """A fleet whose guests are reached from outside."""
    fleet = FleetRows()
    for number, host in enumerate(HOSTS):
        fleet.host(host, f"192.0.2.{number + 1}", "phys1").outside(host, "phys1", f"203.0.113.{number + 11}")
    fleet.network(NETWORKS[0], "nat", subnets=["10.0.0.0/24"])
    for number in range(3):
        fleet.port(PORTS[number], HOSTS[number], NETWORKS[0], addresses=(f"10.0.0.{number + 5}",))
        fleet.forward(FORWARDS[number], NETWORKS[0], {"port": 80 + number}, {"vnic": PORTS[number]})
        fleet.floating_ip(FLOATING[number], NETWORKS[0], f"203.0.113.{number + 50}", {"vnic": PORTS[number]})
    return fleet


def table(engine: Engine, host: str) -> dict[Identity, bytes]:
    return {entry.identity: entry.add for entry in engine.tables[host]}


def read(engine: Engine) -> dict[Cell, set[Key]]:
    """What each block depends on."""
    return {cell: {answer.key for answer in answers} for cell, answers in engine._reads.items()}


def readers(engine: Engine) -> dict[Key, set[Cell]]:
    """The other way round."""
    return {key: answer.readers for key, answer in engine._answers.items()}


class Switches:
    """What switches have that did as they were told, and nothing else."""

    def __init__(self) -> None:
        self.flows: dict[str, dict[Identity, Entry]] = {}

    def apply(self, deltas: dict[str, Delta], hosts: set[str]) -> None:
        for host in self.flows.keys() - hosts:
            del self.flows[host]
        for host, delta in deltas.items():
            flows = self.flows.setdefault(host, {})
            for identity in delta.removes:
                del flows[identity]  # only what is there is taken away
            for identity, entry in delta.adds.items():
                assert identity not in flows, "only what is not there is added"
                flows[identity] = entry

    def table(self, host: str) -> dict[Identity, bytes]:
        flows = self.flows.get(host, {})
        assert len({entry.slot for entry in flows.values()}) == len(flows), "two flows in one place"
        return {identity: entry.add for identity, entry in flows.items()}


def compare(engine: Engine, fleet: FleetRows, switches: Switches) -> None:
    fresh = Engine(PIPELINE)
    fresh.update(fleet.rows())
    assert engine.tables.keys() == fresh.tables.keys() == set(fleet.hosts)
    for host in fleet.hosts:
        wanted = table(fresh, host)
        assert table(engine, host) == wanted
        assert switches.table(host) == wanted
        assert engine.tables[host].conflicts == fresh.tables[host].conflicts
    assert engine.blocks == fresh.blocks
    assert read(engine) == read(fresh)
    assert readers(engine) == readers(fresh)


def follow(fleet: FleetRows, history: list[list[Change]]) -> None:
    engine, switches = Engine(PIPELINE), Switches()
    switches.apply(engine.update(fleet.rows()), set(fleet.hosts))
    compare(engine, fleet, switches)
    for step in history:
        for kind, name, value in step:
            fleet.put(kind, name, value)
        changed = {(kind, name) for kind, name, _ in step}
        switches.apply(engine.update(fleet.rows(), changed), set(fleet.hosts))
        compare(engine, fleet, switches)


@settings(
    max_examples=60 * EFFORT, deadline=None, derandomize=EFFORT == 1, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example, HealthCheck.data_too_large],
)  # fmt: skip
@given(st.lists(st.lists(changes(), min_size=1, max_size=4), min_size=12, max_size=40))
def test_a_history_of_changes_ends_where_a_fresh_start_does(history: list[list[Change]]) -> None:
    follow(start(), history)


@settings(
    max_examples=16 * EFFORT, deadline=None, derandomize=EFFORT == 1, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example, HealthCheck.data_too_large],
)  # fmt: skip
@given(st.lists(st.lists(forwarded_changes(), min_size=1, max_size=3), min_size=8, max_size=20))
def test_so_does_one_of_forwards(history: list[list[Change]]) -> None:
    follow(start_outside(), history)
