"""Frames between switches: from no vNIC and to none, however it is isolated; LLDP of a wire is the controller's."""

from __future__ import annotations

import pytest
from fleets import FleetRows
from oracle import mac_of
from switch_model import Frame, World, number

from apps import APPS
from controller.engine import Engine
from controller.openflow.execute import Tables
from controller.openflow.names import CONTROLLER
from controller.pipeline.pipeline import Pipeline
from controller.pipeline.ports import uplink_port

PIPELINE = Pipeline(APPS)
LLDP, SLOW, TEST = 0x88CC, 0x8809, 0x88B5
OUTSIDE = number("eth_src", "02:00:00:00:00:99")
STP, NEAREST, CDP = "01:80:c2:00:00:00", "01:80:c2:00:00:0e", "01:00:0c:cc:cc:cc"
BROADCAST = "ff:ff:ff:ff:ff:ff"


def frame(src: int, dst: str, kind: int, *tags: int) -> Frame:
    return Frame({"eth_src": src, "eth_dst": number("eth_dst", dst), "eth_type": kind}, tags)


@pytest.fixture(params=["none", "isolated", "private", "vepa", "passthrough"])
def fleet(request: pytest.FixtureRequest) -> FleetRows:
    fleet = FleetRows().host("kvm1", None, "phys1").host("kvm2", None, "phys1")
    fleet.network("lan", "bridge", physical_network="phys1", portgroups={"p": {"isolation": request.param}})
    return fleet.port("a", "kvm1", "lan", "p", ofport=1).port("b", "kvm2", "lan", "p", ofport=2)


def built(fleet: FleetRows) -> World:
    engine = Engine(PIPELINE)
    engine.update(fleet.rows())
    world = World(fleet.hosts, {name: uplink_port(number) for name, number in fleet.uplink_numbers.taken.items()})
    for host, table in engine.tables.items():
        world.switches[host].install(table)
    return world


@pytest.mark.parametrize("tags", [(), (0,)])
@pytest.mark.parametrize(("dst", "kind"), [(STP, SLOW), (NEAREST, LLDP), (CDP, TEST), (BROADCAST, LLDP), (STP, LLDP)])
def test_from_a_vnic_and_to_one(fleet: FleetRows, dst: str, kind: int, tags: tuple[int, ...]) -> None:
    world, mac = built(fleet), mac_of(fleet.ports["a"])
    assert world.from_vnic("kvm1", 1, frame(mac, BROADCAST, TEST)), "others go out"
    assert world.from_vnic("kvm1", 1, frame(mac, dst, kind, *tags)) == []
    guests = [("kvm1", 1), ("kvm2", 2)]
    assert not any(d.place in guests for d in world.from_outside("phys1", frame(OUTSIDE, dst, kind, *tags)))


def test_what_the_controller_hears(fleet: FleetRows) -> None:
    engine = Engine(PIPELINE)
    engine.update(fleet.rows())
    tables, uplink = Tables(entry.described() for entry in engine.tables["kvm1"]), uplink_port(1)

    def heard(in_port: int, said: Frame) -> list[int]:
        return [sent.port for sent in tables.run(in_port, said).sent]

    assert heard(uplink, frame(OUTSIDE, NEAREST, LLDP)) == [CONTROLLER]
    assert heard(1, frame(mac_of(fleet.ports["a"]), NEAREST, LLDP)) == []
    for other in (frame(OUTSIDE, BROADCAST, LLDP), frame(OUTSIDE, STP, LLDP), frame(OUTSIDE, NEAREST, LLDP, 7)):
        assert heard(uplink, other) == []
