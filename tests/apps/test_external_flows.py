"""External addresses: what answers for a host, what is learned of machines outside, and who may not speak as either."""

from __future__ import annotations

import pytest
from fleets import FleetRows
from golden_flows import check, flows_of

from controller.pipeline.ports import ROUTERS


def test_a_wire_of_its_own() -> None:
    fleet = (
        FleetRows().host("kvm1", "192.0.2.1", "phys1").outside("kvm1", "phys1", "203.0.113.11", mac="02:f5:00:00:00:0b")
    )
    fleet.network("web", "nat", subnets=["10.0.0.0/24"], gateway_mac="02:f5:00:00:00:01")
    check("external_own_wire", "external", fleet.port("a", "kvm1", "web", addresses=("10.0.0.5",)))


def test_ipv6_on_a_wire_with_guests() -> None:
    fleet = FleetRows().host("kvm1", "192.0.2.1", "phys1")
    ipv6 = {"address6": "2001:db8::11/64", "gateway6": "fe80::1", "mtu": 1400}
    fleet.outside("kvm1", "phys1", "203.0.113.11", mac="02:f5:00:00:00:0b", **ipv6)
    fleet.network("lan", "bridge", physical_network="phys1")
    fleet.network("web", "nat", subnets=["fd01::/64"], gateway_mac="02:f5:00:00:00:01")
    fleet.network("api", "route", subnets=["2001:db8:1::/64"], gateway_mac="02:f5:00:00:00:02")
    fleet.port("a", "kvm1", "web", addresses=("fd01::5",)).port("b", "kvm1", "api", addresses=("2001:db8:1::5",))
    for app in ("external", "nat", "routing", "mtu"):
        check(f"ipv6_outside_{app}", app, fleet)


def test_no_machine_outside_keeps_routers_from_being_heard() -> None:
    """Whoever says there without end where it is would have doctor tell of a silent router."""
    fleet = FleetRows().host("kvm1", "192.0.2.1", "phys1")
    fleet.outside("kvm1", "phys1", "203.0.113.11", address6="2001:db8::11/64", gateway6="fe80::1")
    said = [
        line for line in flows_of("external", fleet).splitlines() if "table=gateway," in line and "meter_id" in line
    ]
    routers = [line for line in said if "arp_spa=203.0.113.1," in line or "nd_target=fe80::1," in line]
    assert len(routers) == 2
    assert all(line.endswith(f"meter_id={ROUTERS})") == (line in routers) for line in said)


@pytest.mark.parametrize("mode", ["nat", "route", "open"])
def test_whose_next_hop_is_not_known_is_metered_by_its_own_vnic(mode: str) -> None:
    """With the uplink's meter one guest that asks for many would keep all others' routers from being heard."""
    fleet = FleetRows().host("kvm1", "192.0.2.1", "phys1").outside("kvm1", "phys1", "203.0.113.11")
    fleet.network("web", mode, subnets=["10.0.0.0/24", "fd01::/64"])
    flows = flows_of("external", fleet.port("a", "kvm1", "web", ofport=7)).splitlines()
    metered = [line.split("meter_id=")[1] for line in flows if "table=next_hop_known," in line and "in_port=7" in line]
    assert metered == ["7)", "7)"]


def test_a_wire_with_guests_who_are_neither_a_host_nor_its_router() -> None:
    fleet = FleetRows().host("kvm1", "192.0.2.1", "phys1").host("kvm2", "192.0.2.2", "phys1")
    for number, name in enumerate(("kvm1", "kvm2")):
        fleet.outside(name, "phys1", f"203.0.113.1{number + 1}", vlan=20, mac=f"02:f5:00:00:00:0{number}")
    fleet.network("lan", "bridge", physical_network="phys1", vlan=20)
    check("external_with_guests", "external", fleet.port("a", "kvm1", "lan"))


def test_who_says_to_all_nothing_of_its_mac_stays_where_it_is_known() -> None:
    """An advertisement to all may leave its option out (RFC 4861, 4.4): a router that says that it is none any more."""
    fleet = FleetRows().host("kvm1", "192.0.2.1", "phys1")
    fleet.outside("kvm1", "phys1", "203.0.113.11", address6="2001:db8::11/64", gateway6="fe80::1")
    overheard = [line for line in flows_of("external", fleet).splitlines() if "table=overheard," in line]
    silent = [line for line in overheard if "=00:00:00:00:00:00 " in line or "=00:00:00:00:00:00," in line]
    assert [line.partition("actions=")[2] for line in silent] == ["drop", "drop"]
    priorities = [int(line.partition("priority=")[2].partition(",")[0]) for line in overheard]
    assert min(priorities[overheard.index(line)] for line in silent) > max(
        number for number, line in zip(priorities, overheard, strict=True) if "learn(" in line
    )
