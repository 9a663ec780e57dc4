"""A guest that migrates: in the old place nothing changes until its first frame from the new one, and then all is as if
it had always been there.
"""

from __future__ import annotations

import copy
from collections import Counter
from random import Random

import pytest
from fleets import FleetRows
from frames import Sent, arp, ip, rarp, sent
from hypothesis import assume, given, settings
from oracle import BROADCAST, Oracle, mac_of
from switch_model import Delivery, World
from test_engine_oracle import BUDGET, EFFORT, PIPELINE, SEEDS, described, random_fleet

from controller.engine import Engine
from controller.model.port import Incoming, PortStatus
from controller.pipeline.cookies import arrived_port
from controller.pipeline.ports import uplink_port
from controller.pipeline.tables import ARRIVED

NEW = 50  # the OpenFlow port of the place to come


def built(fleet: FleetRows) -> World:
    engine = Engine(PIPELINE)
    engine.update(fleet.rows())
    uplinks = {name: uplink_port(number) for name, number in fleet.uplink_numbers.taken.items()}
    world = World(fleet.hosts, uplinks)
    for host, table in engine.tables.items():
        assert table.conflicts == 0
        world.switches[host].install(table)
    return world


def fresh(world: World) -> World:
    """The world, and nobody has said anything in it yet."""
    for switch in world.switches.values():
        switch.forget()
    return world


def changed(fleet: FleetRows, name: str, **fields: object) -> FleetRows:
    found = copy.deepcopy(fleet)
    found.ports[name] = fleet.ports[name].model_copy(update=fields)
    return found


def migrating(fleet: FleetRows, name: str, to: str) -> tuple[FleetRows, FleetRows]:
    """The fleet while the vNIC is copied to another host, and when it has moved."""
    during = changed(fleet, name, incoming=Incoming(host=to, tap="vnet9", ofport=NEW))
    return during, changed(fleet, name, host=to, ofport=NEW)


def may_move(fleet: FleetRows, port: PortStatus, to: str) -> bool:
    """Whether the vNIC would be switched there."""
    oracle = Oracle(fleet)
    physical, kind = oracle.network(port).physical_network, oracle.isolation(port)
    if to == port.host or (kind in {"private", "vepa", "passthrough"} and physical not in fleet.hosts[to].uplinks):
        return False
    beside = [p for p in fleet.ports.values() if p.host == to and oracle.network(p).physical_network == physical]
    alone = kind == "passthrough" or any(oracle.isolation(p) == "passthrough" for p in beside)
    return physical is None or not beside or not alone


def heard(fleet: FleetRows, deliveries: list[Delivery], *but: tuple[str, int]) -> Counter[object]:
    """What vNICs get. The wire carries a copy more while a guest migrates, and so does who has all of it to himself."""
    oracle = Oracle(fleet)
    deaf = {oracle.place(p) for p in fleet.ports.values() if oracle.isolation(p) == "passthrough"} - {*but}
    return Counter(d.key() for d in deliveries if not isinstance(d.place, str) and d.place not in {*deaf, *but})


def send(fleet: FleetRows, world: World, one: Sent) -> list[Delivery]:
    port = fleet.ports.get(one.by)
    if port is None:
        return world.from_outside(one.by, one.frame)
    return world.from_vnic(*Oracle(fleet).place(port), one.frame)


@settings(BUDGET, max_examples=100 * EFFORT)
@given(SEEDS)
def test_nothing_changes_before_the_first_frame_and_all_does_with_it(seed: int) -> None:
    dice = Random(seed)
    before = random_fleet(dice, False)
    assume(before.ports)
    name = dice.choice(sorted(before.ports))
    port = before.ports[name]
    to = dice.choice(sorted(before.hosts))
    # Of a network that spans one host the other knows nothing: there a MAC that is not known is flooded, and then not.
    assume(may_move(before, port, to) and before.networks[port.network or ""].span == "fleet")
    during, after = migrating(before, name, to)
    old, new = Oracle(before).place(port), (to, NEW)
    announcement = rarp(mac_of(port), mac_of(port))
    here, moving, there = built(before), built(during), built(after)
    for one in [sent(dice, before) for _ in range(8)]:
        story = f"{name} to {to}: {one}\n{described(before)}"
        got, wanted = send(before, fresh(moving), one), send(before, fresh(here), one)
        assert new not in {d.place for d in got}, story
        assert heard(before, got) == heard(before, wanted), story
        for world in (moving, there):
            fresh(world).from_vnic(*new, announcement)
        got, wanted = send(after, moving, one), send(after, there, one)
        assert heard(after, got, old) == heard(after, wanted, old), story
        assert Counter(d.key() for d in got if d.place == new) == Counter(d.key() for d in wanted if d.place == new)


def web() -> FleetRows:
    fleet = FleetRows().host("kvm1", "192.0.2.1").host("kvm2", "192.0.2.2").host("kvm3", "192.0.2.3")
    fleet.network("web", portgroups={"bare": {"trunk": [10]}, "open": {"filters": []}})
    return (
        fleet.port("a", "kvm1", "web", ofport=1).port("b", "kvm2", "web", ofport=2).port("c", "kvm3", "web", ofport=3)
    )


def lan() -> FleetRows:
    fleet = FleetRows().host("kvm1", None, "phys1").host("kvm2", None, "phys1").host("kvm3", None, "phys1")
    fleet.network("lan", "bridge", physical_network="phys1")
    return (
        fleet.port("a", "kvm1", "lan", ofport=1).port("b", "kvm2", "lan", ofport=2).port("c", "kvm1", "lan", ofport=3)
    )


def places(deliveries: list[Delivery]) -> list[object]:
    return sorted((d.place for d in deliveries), key=str)


@pytest.mark.parametrize("sender", ["b", "c"])
def test_an_overlay_sends_to_both_places_and_the_new_one_hears_it_once_it_has_spoken(sender: str) -> None:
    fleet, _ = migrating(web(), "a", "kvm2")
    world, mac = built(fleet), mac_of(fleet.ports["a"])
    port = fleet.ports[sender]
    ping = ip(mac_of(port), mac)
    assert places(world.from_vnic(port.host or "", port.ofport or 0, ping)) == [("kvm1", 1)]
    world.from_vnic("kvm2", NEW, rarp(mac, mac))
    assert places(world.from_vnic(port.host or "", port.ofport or 0, ping)) == [("kvm1", 1), ("kvm2", NEW)]


def test_a_neighbour_of_the_old_place_reaches_the_new_one_by_the_wire() -> None:
    fleet, _ = migrating(lan(), "a", "kvm2")
    world, mac = built(fleet), mac_of(fleet.ports["a"])
    world.from_vnic("kvm2", NEW, rarp(mac, mac))
    assert places(world.from_vnic("kvm1", 3, ip(mac_of(fleet.ports["c"]), mac))) == [
        ("kvm1", 1), ("kvm2", NEW), "phys1"
    ]  # fmt: skip


def test_broadcasts_reach_the_new_place_too_and_an_address_is_answered_for_it() -> None:
    fleet = web()
    fleet.port("d", "kvm3", "web", ofport=4, addresses=("10.0.0.4",))
    fleet, _ = migrating(fleet, "d", "kvm1")
    world, mac = built(fleet), mac_of(fleet.ports["d"])
    asks = arp(mac_of(fleet.ports["b"]), "10.0.0.2", "10.0.0.4")
    assert places(world.from_vnic("kvm2", 2, asks)) == [("kvm2", 2)]
    world.from_vnic("kvm1", NEW, rarp(mac, mac))
    assert places(world.from_vnic("kvm2", 2, asks)) == [("kvm2", 2)]
    flooded = world.from_vnic("kvm2", 2, ip(mac_of(fleet.ports["b"]), BROADCAST))
    assert places(flooded) == [("kvm1", 1), ("kvm1", NEW), ("kvm3", 3), ("kvm3", 4)]


def test_a_trunk_without_an_untagged_vlan_is_announced_all_the_same() -> None:
    fleet = web()
    fleet.port("d", "kvm1", "web", "bare", ofport=4).port("e", "kvm3", "web", "bare", ofport=5)
    fleet, _ = migrating(fleet, "d", "kvm2")
    world, mac = built(fleet), mac_of(fleet.ports["d"])
    assert world.from_vnic("kvm2", NEW, rarp(mac, mac)) == []
    got = world.from_vnic("kvm3", 5, ip(mac_of(fleet.ports["e"]), mac, 10))
    assert places(got) == [("kvm1", 4), ("kvm2", NEW)]
    assert {d.frame.tags for d in got} == {(10,)}


def test_only_its_own_mac_opens_the_new_place() -> None:
    fleet = web()
    fleet.port("d", "kvm1", "web", "open", ofport=4)
    fleet, _ = migrating(fleet, "d", "kvm2")
    world, mac, other = built(fleet), mac_of(fleet.ports["d"]), mac_of(fleet.ports["b"])
    ping = ip(mac_of(fleet.ports["c"]), mac)
    world.from_vnic("kvm2", NEW, ip(other, BROADCAST))
    assert places(world.from_vnic("kvm3", 3, ping)) == [("kvm1", 4)]
    world.from_vnic("kvm2", NEW, ip(mac, BROADCAST))
    assert places(world.from_vnic("kvm3", 3, ping)) == [("kvm1", 4), ("kvm2", NEW)]


def test_in_a_network_of_one_host_each_host_has_its_own_place() -> None:
    fleet = FleetRows().host("kvm1").host("kvm2").network("lab", span="host")
    fleet.port("a", "kvm1", "lab", ofport=1).port("b", "kvm1", "lab", ofport=2).port("c", "kvm2", "lab", ofport=3)
    fleet, _ = migrating(fleet, "a", "kvm2")
    world, mac = built(fleet), mac_of(fleet.ports["a"])
    b, c = (ip(mac_of(fleet.ports[name]), mac) for name in "bc")
    assert (places(world.from_vnic("kvm1", 2, b)), world.from_vnic("kvm2", 3, c)) == ([("kvm1", 1)], [])
    world.from_vnic("kvm2", NEW, rarp(mac, mac))
    assert places(world.from_vnic("kvm2", 3, c)) == [("kvm2", NEW)]


def test_a_passthrough_vnic_gets_the_wire_of_the_new_host_once_it_is_there() -> None:
    fleet = FleetRows().host("kvm1", None, "phys1").host("kvm2", None, "phys1")
    fleet.network("lan", "bridge", physical_network="phys1", portgroups={"raw": {"isolation": "passthrough"}})
    fleet, _ = migrating(fleet.port("a", "kvm1", "lan", "raw", ofport=1), "a", "kvm2")
    world, mac = built(fleet), mac_of(fleet.ports["a"])
    frame = ip(mac + 1, BROADCAST, 7)
    assert places(world.from_outside("phys1", frame)) == [("kvm1", 1)]
    world.from_vnic("kvm2", NEW, rarp(mac, mac))
    assert places(world.from_outside("phys1", frame)) == [("kvm1", 1), ("kvm2", NEW)]


def test_what_was_learned_tells_which_vnic_has_arrived() -> None:
    fleet, _ = migrating(web(), "a", "kvm2")
    world, mac = built(fleet), mac_of(fleet.ports["a"])
    world.from_vnic("kvm2", NEW, rarp(mac, mac))
    [flow] = world.switches["kvm2"].learned.values()
    assert flow.table == PIPELINE.number[ARRIVED]
    assert arrived_port(flow.cookie) == NEW


def test_an_abort_leaves_nothing() -> None:
    before = web()
    during, _ = migrating(before, "a", "kvm3")
    engine = Engine(PIPELINE)
    engine.update(before.rows())
    flows = {host: {e.identity for e in table} for host, table in engine.tables.items()}
    engine.update(during.rows(), {("Port", "a")})
    assert {host: {e.identity for e in table} for host, table in engine.tables.items()} != flows
    engine.update(before.rows(), {("Port", "a")})
    assert {host: {e.identity for e in table} for host, table in engine.tables.items()} == flows
