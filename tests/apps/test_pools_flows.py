"""Pools of nat networks: as whom each host's guests leave, and who has the addresses."""

from __future__ import annotations

from fleets import FleetRows
from golden_flows import PIPELINE, check, flows_of

from controller.engine import Engine
from controller.pipeline.ports import FORWARDED, connections_meter

POOL = {"addresses": ["203.0.113.20-203.0.113.23"], "ports": "20000-30000"}


def two_hosts(**fields: object) -> FleetRows:
    """Guests a and b of network web on two hosts; the first one has an address of its pool."""
    fleet = FleetRows().host("kvm1", "192.0.2.1", "phys1").host("kvm2", "192.0.2.2", "phys1")
    fleet.outside("kvm1", "phys1", "203.0.113.11", mac="02:f5:00:00:01:01")
    fleet.outside("kvm2", "phys1", "203.0.113.12", mac="02:f5:00:00:01:02")
    nat = {"nat": POOL, **fields}
    fleet.network("web", "nat", subnets=["10.0.0.0/24"], gateway_mac="02:f5:00:00:00:01", **nat)
    fleet.port("a", "kvm1", "web", addresses=("10.0.0.5",)).port("b", "kvm2", "web", addresses=("10.0.0.6",))
    return fleet.allotted("web", "kvm1", "203.0.113.20")


def lines(app: str, fleet: FleetRows, text: str) -> list[str]:
    return [line for line in flows_of(app, fleet).splitlines() if text in line]


def test_the_addresses_of_a_pool() -> None:
    check("pools", "pools", two_hosts())


def test_guests_leave_by_their_hosts_address_or_not_at_all() -> None:
    check("pools_nat", "nat", two_hosts())


def test_ports_without_a_pool() -> None:
    (first, again) = lines("nat", two_hosts(nat={"ports": "20000-30000"}), "in_port=1 ")
    assert "nat(src=203.0.113.11:20000-30000)" in first
    assert "nat(src=203.0.113.11:20000-30000)" in again


def test_no_guest_of_the_wire_takes_an_address_of_the_pool() -> None:
    fleet = two_hosts().network("lan", "bridge", physical_network="phys1").port("pc", "kvm2", "lan")
    check("pools_wire", "pools", fleet)


def test_what_is_not_in_the_pool_any_more_is_not_answered_for() -> None:
    fleet = two_hosts()
    fleet.network("web", "nat", subnets=["10.0.0.0/24"], nat={"addresses": ["203.0.113.30"]})
    assert flows_of("pools", fleet) == "\n"
    fleet.allotted("web", "kvm1", "203.0.113.30")
    assert lines("pools", fleet, "arp_tpa=203.0.113.30")
    assert not lines("pools", fleet, "203.0.113.20")


def test_a_guest_with_a_floating_address_answers_one_that_speaks_by_the_pool() -> None:
    """On one host, where neither leaves it."""
    fleet = two_hosts().port("c", "kvm1", "web", addresses=("10.0.0.7",))
    fleet.floating_ip("c", "web", "203.0.113.50", {"vnic": "c"}, mac="02:f1:00:00:00:50")
    turned = lines("floating", fleet, "table=gateway")
    assert any("nw_dst=203.0.113.20 actions=ct(table=hairpin" in line for line in turned)


def test_each_vnic_has_a_meter_of_its_own_for_connections() -> None:
    engine = Engine(PIPELINE)
    fleet = two_hosts().forward("web", "web", {"port": 80}, {"vnic": "a"})
    fleet.port("c", "kvm1", "web", addresses=("10.0.0.7",))
    engine.update(fleet.rows())
    meters = {meter for meter in engine.tables["kvm1"].meters if meter >= FORWARDED}
    assert meters == {FORWARDED, connections_meter(1), connections_meter(3)}
