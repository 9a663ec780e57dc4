"""The engine and the fabric where histories do not lead: late numbers, rivals for one slot, apps that contradict."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import pytest
from fleets import FleetRows

from apps import APPS
from controller.engine import Delta, Engine, HostTable
from controller.pipeline.actions import goto, match, output
from controller.pipeline.app import App, Scope
from controller.pipeline.pipeline import Entry, Pipeline
from controller.pipeline.tables import CLASSIFY, DELIVER, Flow, Priority, Stage
from controller.reader import Reader
from controller.views import NetworkView


def identities(engine: Engine, host: str) -> set[tuple[int, int]]:
    return {entry.identity for entry in engine.tables[host]}


def small() -> FleetRows:
    fleet = FleetRows().host("kvm1", "192.0.2.1").host("kvm2", "192.0.2.2").network("web")
    return fleet.port("a", "kvm1", "web").port("b", "kvm2", "web")


def test_a_host_gets_its_flows_when_its_number_comes_late() -> None:
    fleet, pipeline = small(), Pipeline(APPS)
    whole = fleet.rows()
    engine, fresh = Engine(pipeline), Engine(pipeline)
    engine.update(dataclasses.replace(whole, host_numbers={"kvm2": 2}))
    assert "kvm1" not in engine.tables
    engine.update(whole, {("Host", "kvm1")})
    fresh.update(whole)
    assert identities(engine, "kvm1") == identities(fresh, "kvm1")
    assert identities(engine, "kvm2") == identities(fresh, "kvm2")


def test_a_network_works_when_its_segment_gets_its_number_late() -> None:
    fleet, pipeline = small(), Pipeline(APPS)
    whole = fleet.rows()
    engine, fresh = Engine(pipeline), Engine(pipeline)
    engine.update(dataclasses.replace(whole, segment_numbers={}))
    engine.update(whole, {("Network", "web")})
    fresh.update(whole)
    assert identities(engine, "kvm1") == identities(fresh, "kvm1")


@pytest.mark.parametrize("name", ["web", "web/kvm1/203.0.113", "a/b/c/d"])
def test_the_name_of_an_address_that_makes_no_sense_is_nobodys(name: str) -> None:
    fleet, engine = small().with_nat(), Engine(Pipeline(APPS))
    fleet.nat_addresses.insert(0, name)  # somebody edited the store by hand
    engine.update(fleet.rows())
    assert engine.fabric.reader().nat_addresses("kvm1") == {"nat": "203.0.113.70"}


def test_an_unchanged_row_changes_nothing() -> None:
    fleet, engine = small(), Engine(Pipeline(APPS))
    engine.update(fleet.rows())
    assert engine.update(fleet.rows()) == {}
    assert engine.update(fleet.rows(), {("Port", "a"), ("Host", "kvm1"), ("Network", "web")}) == {}


def test_a_network_has_its_hosts_once_however_many_blocks_it_has() -> None:
    fleet, engine = small().host("kvm3", "192.0.2.3").network("other"), Engine(Pipeline(APPS))

    def sets() -> dict[str, set[int]]:
        found: dict[str, set[int]] = {}
        for named, block in engine.blocks.items():
            if len(block.hosts) > 1 and named.scope is not Scope.PEER:
                found.setdefault(",".join(sorted(block.hosts)), set()).add(id(block.hosts))
        return found

    engine.update(fleet.rows())
    assert len(sets()["kvm1,kvm2"]) == 1
    assert sum(len(block.hosts) > 1 for block in engine.blocks.values()) > 5
    assert all(not block.hosts for block in engine.blocks.values() if not block.entries)
    engine.update(fleet.port("c", "kvm3", "web").port("d", "kvm1", "web").rows(), {("Port", "c"), ("Port", "d")})
    assert "kvm1,kvm2" not in sets()
    carried = {id(b.hosts) for i, b in engine.blocks.items() if i.scope in {Scope.PORT, Scope.NETWORK} and b.hosts}
    assert len(carried) == 1
    fleet.put("Network", "web", None)
    engine.update(fleet.rows(), {("Network", "web")})
    assert engine._carriers.keys() <= {"other"}


def test_a_vnic_that_moves_leaves_flows_of_others_alone() -> None:
    fleet, engine = small(), Engine(Pipeline(APPS))
    fleet.port("c", "kvm1", "web")
    engine.update(fleet.rows())
    before = {identity for block, made in engine.blocks.items() if "c" in block.objects for e in made.entries
              for identity in [e.identity]}  # fmt: skip
    deltas = engine.update(fleet.port("a", "kvm2", "web", mac=fleet.ports["a"].mac, ofport=9).rows(), {("Port", "a")})
    touched = {identity for delta in deltas.values() for identity in (*delta.adds, *delta.removes)}
    assert before
    assert not before & touched


def entry(cookie: int, slot: bytes = b"s") -> Entry:
    return Entry((0, cookie), (0, 100, slot), b"flow %d" % cookie)


@pytest.mark.parametrize("order", list(itertools.permutations([3, 1, 2])))
def test_the_winner_of_a_slot_does_not_depend_on_the_order(order: tuple[int, ...]) -> None:
    table = HostTable()
    for cookie in order:
        table.add(entry(cookie), Delta())
    assert [e.cookie for e in table] == [1]
    assert table.conflicts == 1
    delta = Delta()
    table.discard(entry(1), delta)
    assert [e.cookie for e in table] == [2]
    assert (set(delta.adds), delta.removes) == ({(0, 2)}, {(0, 1)})
    table.discard(entry(3), Delta())
    assert (table.conflicts, len(table)) == (0, 1)
    table.discard(entry(2), Delta())
    assert (table.conflicts, len(table)) == (0, 0)


def test_one_flow_of_two_blocks_is_one_flow_until_both_are_gone() -> None:
    table, delta = HostTable(), Delta()
    table.add(entry(7), delta)
    table.add(entry(7), delta)
    assert (table.conflicts, list(delta.adds)) == (0, [(0, 7)])
    later = Delta()
    table.discard(entry(7), later)
    assert (len(table), later.adds, later.removes) == (1, {}, set())
    table.discard(entry(7), later)
    assert (len(table), later.removes) == (0, {(0, 7)})


def test_what_goes_and_comes_back_within_one_update_is_no_change() -> None:
    table, delta = HostTable(), Delta()
    table.add(entry(7), Delta())
    table.discard(entry(7), delta)
    table.add(entry(7), delta)
    assert (delta.adds, delta.removes) == ({}, set())


def test_two_hosts_of_one_tunnel_address_stop_nothing() -> None:
    """The model refuses them; two operators at once may still bring them into the store."""
    fleet, engine = small(), Engine(Pipeline(APPS))
    engine.update(fleet.rows())
    fleet.host("kvm3", "192.0.2.2")
    engine.update(fleet.rows(), {("Host", "kvm3")})
    engine.update(fleet.port("c", "kvm1", "web").rows(), {("Port", "c")})
    fresh = Engine(Pipeline(APPS))
    fresh.update(fleet.rows())
    for name in fleet.hosts:
        assert identities(engine, name) == identities(fresh, name)
        assert engine.tables[name].conflicts == 0


class Twice(App):
    """Contradicts itself on networks of a certain name; the other half of it is right."""

    tables = (CLASSIFY, DELIVER)

    def fleet(self, fabric: Reader) -> Iterator[Flow]:
        yield CLASSIFY.flow(Priority.HERE, match(in_port=9), goto(Stage.DELIVER), why="right")

    def network(self, network: NetworkView, fabric: Reader) -> Iterator[Flow]:
        yield CLASSIFY.flow(Priority.HERE, match(in_port=1), goto(Stage.DELIVER), why="first")
        if network.uplink is not None:
            yield CLASSIFY.flow(Priority.HERE, match(in_port=1), output(2), why="second")


def test_a_block_that_contradicts_itself_is_told_has_no_flow_and_harms_no_other() -> None:
    fleet, engine = small(), Engine(Pipeline([Twice()]))
    engine.update(fleet.rows())
    [network] = fleet.networks
    before = {name: identities(engine, name) for name in fleet.hosts}
    assert engine.faults == {}
    right = fleet.networks[network]
    fleet.network(network, "bridge", physical_network="physnet1")
    engine.update(fleet.rows())
    [(block, text)] = engine.faults.items()
    assert (block.app, block.objects) == ("twice", (network,))
    assert "same table, priority and match" in text
    gone = {block.app: len(content.entries) for block, content in engine.blocks.items() if block.objects == (network,)}
    assert gone == {"twice": 0}
    assert all(len(identities(engine, name)) == len(before[name]) - 1 for name in fleet.hosts)
    fleet.networks[network] = right
    engine.update(fleet.rows())
    assert engine.faults == {}
    assert {name: identities(engine, name) for name in fleet.hosts} == before


class Broken(App):
    """A fault of a program in the block of one network; the other half of it is right."""

    tables = (CLASSIFY, DELIVER)

    def fleet(self, fabric: Reader) -> Iterator[Flow]:
        yield CLASSIFY.flow(Priority.HERE, match(in_port=9), goto(Stage.DELIVER), why="right")

    def network(self, network: NetworkView, fabric: Reader) -> Iterator[Flow]:
        yield CLASSIFY.flow(Priority.HERE, match(in_port=1), goto(Stage.DELIVER), why="before the fault")
        if network.uplink is not None:
            raise KeyError("nobody thought of this")


def test_a_block_with_any_fault_has_no_flow_and_harms_no_other() -> None:
    fleet, engine = small(), Engine(Pipeline([Broken()]))
    engine.update(fleet.rows())
    [network] = fleet.networks
    before = {name: identities(engine, name) for name in fleet.hosts}
    right = fleet.networks[network]
    fleet.network(network, "bridge", physical_network="physnet1")
    engine.update(fleet.rows())
    [(block, text)] = engine.faults.items()
    assert (block.app, block.objects) == ("broken", (network,))
    assert "nobody thought of this" in text
    assert all(len(identities(engine, name)) == len(before[name]) - 1 for name in fleet.hosts)
    fleet.networks[network] = right
    engine.update(fleet.rows())
    assert engine.faults == {}
    assert {name: identities(engine, name) for name in fleet.hosts} == before
