"""Floating addresses: where each is answered and what becomes of packets there, wherever its guest goes."""

from __future__ import annotations

import pytest
from fleets import FleetRows
from golden_flows import PIPELINE, check, flows_of

from controller.engine import Engine
from controller.pipeline.ports import FLOATING_ERRORS
from controller.views import FloatingView


def two_hosts(**network: object) -> FleetRows:
    """Guests a and b of network web on two hosts with an address outside; a third host has none, a fourth another."""
    fleet = FleetRows().host("kvm1", "192.0.2.1", "phys1").host("kvm2", "192.0.2.2", "phys1").host("kvm3", "192.0.2.3")
    fleet.outside("kvm1", "phys1", "203.0.113.11", mac="02:f5:00:00:01:01")
    fleet.outside("kvm2", "phys1", "203.0.113.12", mac="02:f5:00:00:01:02")
    fleet.network("web", "nat", **{"subnets": ["10.0.0.0/24"], "gateway_mac": "02:f5:00:00:00:01", **network})
    fleet.port("a", "kvm1", "web", addresses=("10.0.0.5",)).port("b", "kvm2", "web", addresses=("10.0.0.6",))
    return fleet


def floating(fleet: FleetRows, name: str = "one", last: int = 50, **target: str) -> FleetRows:
    return fleet.floating_ip(name, "web", f"203.0.113.{last}", target or {"vnic": "a"}, mac=f"02:f1:00:00:00:{last}")


def two_hosts6() -> FleetRows:
    """The same of IPv6."""
    fleet = two_hosts(subnets=["10.0.0.0/24", "fd00::/64"])
    for number in (1, 2):
        ipv6 = {"address6": f"2001:db8::1{number}/64", "gateway6": "fe80::1", "mac": f"02:f5:00:00:01:0{number}"}
        fleet.outside(f"kvm{number}", "phys1", f"203.0.113.1{number}", **ipv6)
    fleet.port("a", "kvm1", "web", addresses=("10.0.0.5", "fd00::5"), ofport=1, mac="52:54:00:00:00:01")
    return fleet.port("b", "kvm2", "web", addresses=("10.0.0.6", "fd00::6"), ofport=2, mac="52:54:00:00:00:02")


def migrating(fleet: FleetRows, to: str) -> FleetRows:
    """Guest a is being copied to that host."""
    incoming = {"host": to, "tap": "vnet9", "ofport": 50}
    row = fleet.ports["a"].model_dump()
    fleet.put("Port", "a", type(fleet.ports["a"]).model_validate({**row, "incoming": incoming}))
    return fleet


def told(fleet: FleetRows) -> tuple[Engine, list[FloatingView]]:
    engine = Engine(PIPELINE)
    engine.update(fleet.rows())
    reader = engine.fabric.reader()
    port = reader.port("a")
    assert port is not None
    return engine, reader.floating_to(port)


def test_flows() -> None:
    check("floating", "floating", floating(two_hosts()))


def test_flows_of_ipv6() -> None:
    fleet = two_hosts6().floating_ip("one", "web", "2001:db8::50", {"vnic": "a"}, mac="02:f1:00:00:00:50")
    check("floating_ipv6", "floating", fleet)


def test_a_guest_has_one_of_each_family_and_a_host_without_ipv6_outside_answers_for_one() -> None:
    fleet = floating(two_hosts6()).floating_ip("two", "web", "2001:db8::50", {"vnic": "a"}, mac="02:f1:00:00:06:50")
    _, found = told(fleet)
    assert [(each.address, each.inside) for each in found] == [
        ("203.0.113.50", "10.0.0.5"),
        ("2001:db8::50", "fd00::5"),
    ]
    assert "2001:db8::50" in flows_of("floating", fleet)
    fleet.outside("kvm1", "phys1", "203.0.113.11", mac="02:f5:00:00:01:01")
    assert "2001:db8::50" not in flows_of("floating", fleet)
    assert "203.0.113.50" in flows_of("floating", fleet)


@pytest.mark.parametrize(
    ("addresses", "learned", "inside"),
    [
        (("fd00::9", "fd00::5054:ff:fe00:1", "fd00::7"), ("fd00::9", "fd00::5054:ff:fe00:1", "fd00::7"),
         "fd00::5054:ff:fe00:1"),
        (("fd00::9", "fd00::5054:ff:fe00:1"), ("fd00::5054:ff:fe00:1",), "fd00::9"),
        (("fd00::9", "fd00::7"), ("fd00::9", "fd00::7"), "fd00::7"),
        (("fe80::5054:ff:fe00:1", "fd01::1", "10.0.0.5"), (), None),
    ],
)  # fmt: skip
def test_of_several_ipv6_addresses_the_one_that_lasts_is_meant(
    addresses: tuple[str, ...], learned: tuple[str, ...], inside: str | None
) -> None:
    """Privacy addresses come and go (RFC 8981)."""
    fleet = two_hosts6().port("a", "kvm1", "web", addresses=addresses, learned=learned, mac="52:54:00:00:00:01")
    _, found = told(fleet.floating_ip("one", "web", "2001:db8::50", {"vnic": "a"}))
    assert [each.inside for each in found] == ([inside] if inside else [])


def test_only_one_place_of_a_guest_that_migrates_answers_arp_and_both_take_its_packets() -> None:
    check("floating_migration", "floating", migrating(floating(two_hosts()), "kvm2"))


def test_the_wire_outside_learns_at_once_where_a_guest_has_come_to() -> None:
    check("floating_arrival", "migration", migrating(floating(two_hosts()), "kvm2"))


def test_errors_from_outside_cost_a_guest_nothing_of_what_it_may_ask() -> None:
    """With its own meter anybody outside could keep it from its leases and its name server."""
    flows = flows_of("floating", floating(two_hosts())).splitlines()
    [inward] = {line.split("meter_id=")[1] for line in flows if "table=error_in," in line}
    [outward] = {line.split("meter_id=")[1] for line in flows if "table=error_out," in line}
    assert (inward, outward) == (f"{FLOATING_ERRORS})", "1)")


def test_no_guest_of_the_wire_takes_the_address() -> None:
    fleet = floating(two_hosts()).network("lan", "bridge", physical_network="phys1").port("pc", "kvm2", "lan")
    check("floating_wire", "floating", fleet)


@pytest.mark.parametrize("target", [{"vm": "nobody"}, {"vnic": "a"}, {"address": "10.0.0.77"}])
def test_nobody_on_the_wire_takes_the_address_while_its_guest_is_away(target: dict[str, str]) -> None:
    def taken(fleet: FleetRows) -> set[str]:
        fleet.network("lan", "bridge", physical_network="phys1").port("pc", "kvm2", "lan")
        return {line for line in flows_of("floating", fleet).splitlines() if "spoof_guard," in line}

    away = floating(two_hosts(), **target)
    away.put("Port", "a", away.ports["a"].model_copy(update={"state": "absent"}))
    assert taken(away)
    assert taken(away) == taken(floating(two_hosts()))


def test_without_a_target_there_is_nothing_where_no_guest_is_on_the_wire() -> None:
    assert flows_of("floating", floating(two_hosts(), vm="nobody")) == "\n"


@pytest.mark.parametrize("host", ["kvm3", "kvm4"])
def test_a_host_that_does_not_meet_the_outside_there_does_nothing(host: str) -> None:
    fleet = floating(two_hosts()).host("kvm4", "192.0.2.4", "phys1")
    external = {"uplink": "phys1", "address": "198.51.100.11/24", "gateway": "198.51.100.1"}
    spec = type(fleet.hosts["kvm4"]).model_validate({**fleet.hosts["kvm4"].model_dump(), "external": external})
    fleet.put("Host", "kvm4", spec)
    fleet.put("Port", "a", fleet.ports["a"].model_copy(update={"host": host}))
    engine, found = told(fleet)
    assert [each.inside for each in found] == ["10.0.0.5"]
    assert not [block for block, made in engine.blocks.items() if block.app == "floating" and block.objects == ("a",)
                and made.entries]  # fmt: skip


def test_an_address_inside_has_one_outside() -> None:
    _, found = told(floating(floating(two_hosts(), last=51, name="zzz"), address="10.0.0.5"))
    assert [(each.name, each.address) for each in found] == [("one", "203.0.113.50")]


def test_what_was_forwarded_waits_for_the_client_only_where_nobody_else_speaks_to_the_port() -> None:
    fleet = two_hosts().forward("door", "web", {"port": 8080}, {"vnic": "a", "port": 80})
    assert "it waits until the client sends" in flows_of("forwards", fleet)
    assert "it waits until the client sends" not in flows_of("forwards", floating(fleet))
