"""Floating addresses: what does not hold between one and the fleet."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from controller.errors import Problem
from controller.model.floating import FloatingIPSpec
from controller.model.host import External, HostSpec
from controller.model.kinds import Fleet
from controller.model.network import NetworkSpec
from controller.model.port import PortSpec


def floating(address: str = "203.0.113.50", target: dict[str, Any] | None = None, **fields: Any) -> FloatingIPSpec:
    return FloatingIPSpec.model_validate(
        {"network": "web", "address": address, "target": target or {"vm": "web1"}, **fields}
    )


def fleet(**wanted: FloatingIPSpec) -> Fleet:
    """Two hosts with an address outside, one without, and three networks, one of them that of the outside."""
    hosts = {"kvm0": HostSpec(ovsdb="unix:/kvm0")}
    for number in (1, 2):
        outside = {"uplink": "phys1", "address": f"203.0.113.1{number}/24", "gateway": "203.0.113.1",
                   "mac": f"02:f5:00:00:00:1{number}", "address6": f"2001:db8::1{number}/64",
                   "gateway6": "2001:db8::1" if number == 1 else "fe80::1"}  # fmt: skip
        document = {"ovsdb": f"unix:/kvm{number}", "uplinks": {"phys1": {"interface": "eth1"}}, "external": outside}
        hosts[f"kvm{number}"] = HostSpec.model_validate(document)
    networks = {
        "web": NetworkSpec(mode="nat", subnets=("10.0.0.0/24", "fd00::/64"), gateway_mac="02:f5:00:00:00:01"),
        "lab": NetworkSpec(mode="isolated"),
        "lan": NetworkSpec(mode="bridge", physical_network="phys1"),
    }
    ports = {
        "pc": PortSpec(vm="pc", mac="52:54:00:00:00:09", network="lan", addresses=("203.0.113.77", "2001:db8::77"))
    }
    return Fleet(hosts, networks, ports, {}, wanted)


def said(*problems: Problem) -> list[str]:
    return [f"{each.where}: {each.what}; {each.remedy}" for each in problems]


def test_one_that_fits() -> None:
    spec = floating()
    assert fleet(one=spec, two=floating("203.0.113.51", {"address": "10.0.0.5"})).problems() == []
    assert spec.eth.startswith("02:f1:")
    assert spec.eth != floating("203.0.113.51").eth
    assert floating(mac="02:00:00:00:00:01").eth == "02:00:00:00:00:01"
    both = fleet(one=spec, two=floating("2001:db8::50"), three=floating("2001:db8::ffff:ffff:ffff:ffff", {"vm": "b"}))
    assert both.problems() == []
    assert floating("2001:db8:0::50").eth == floating("2001:db8::50").eth


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("fd00::5", {"address": "10.0.0.5"}),
        ("203.0.113.50", {"address": "fd00::5"}),
        ("203.0.113.50", {"vm": "a", "vnic": "b"}),
        ("203.0.113.50", {"port": 80}),
    ],
)
def test_what_is_none(address: str, target: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        floating(address, target)


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        (floating("198.51.100.5"), "address: 198.51.100.5 is in no subnet of a host's external address; those are: "
         "2001:db8::/64, 203.0.113.0/24"),
        (floating("2001:db8::11"), "address: 2001:db8::11 is Host kvm1's external address; choose another"),
        (floating("2001:db8::1"), "address: 2001:db8::1 is the router of Host kvm1; choose another"),
        (floating("2001:db8::"), "address: 2001:db8:: is no address of a machine in 2001:db8::/64; choose another"),
        (floating("2001:db8::77"), "address: 2001:db8::77 is Port pc's on Network lan; choose another"),
        (floating("2001:db8:1::5"), "address: 2001:db8:1::5 is in no subnet of a host's external address; those are: "
         "2001:db8::/64, 203.0.113.0/24"),
        (floating("2001:db8::50", {"address": "fd01::5"}), "target.address: fd01::5 is not in Network web; use an "
         "address of fd00::/64"),
        (floating("203.0.113.11"), "address: 203.0.113.11 is Host kvm1's external address; choose another"),
        (floating("203.0.113.1"), "address: 203.0.113.1 is the router of Host kvm1; choose another"),
        (floating("203.0.113.255"), "address: 203.0.113.255 is no address of a machine in 203.0.113.0/24; choose "
         "another"),
        (floating("203.0.113.77"), "address: 203.0.113.77 is Port pc's on Network lan; choose another"),
        (floating(network="no"), "network: there is no Network 'no'; name one with mode nat; there are: web"),
        (floating(network="lab"), "network: Network lab has mode isolated; name one with mode nat; there are: web"),
        (floating(target={"address": "10.1.0.5"}), "target.address: 10.1.0.5 is not in Network web; use an address of "
         "10.0.0.0/24"),
        (floating(mac="52:54:00:00:00:09"), "mac: 52:54:00:00:00:09 is Port pc's; choose another, or leave mac out"),
        (floating(mac="02:f5:00:00:00:01"), "mac: 02:f5:00:00:00:01 is the gateway's of Network web; choose another, "
         "or leave mac out"),
        (floating(mac="02:f5:00:00:00:11"), "mac: 02:f5:00:00:00:11 is that of Host kvm1's external address; choose "
         "another, or leave mac out"),
        (floating(target={"address": "10.0.0.1"}), "target.address: 10.0.0.1 is the gateway's; name a guest's address"),
    ],
)  # fmt: skip
def test_what_is_refused(wrong: FloatingIPSpec, what: str) -> None:
    assert said(*fleet(one=wrong).problems()) == [f"FloatingIP one: {what}"]


def test_a_hosts_outside_is_read_once_however_many_addresses_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of a fleet with a thousand of them would hold the controller up for seconds."""
    read, subnet = [], External.subnet.fget
    assert subnet is not None
    monkeypatch.setattr(External, "subnet", property(lambda external: read.append(external) or subnet(external)))
    counts = []
    for count in (1, 50):
        read.clear()
        wanted = {f"f{n}": floating(f"203.0.113.{100 + n}", {"vnic": f"v{n}"}) for n in range(count)}
        assert fleet(**wanted).problems() == []
        counts.append(len(read))
    assert counts[0] == counts[1]


def test_an_address_of_another_vlan_is_another() -> None:
    found = fleet(one=floating("203.0.113.77"))
    found.networks["lan"] = NetworkSpec(mode="bridge", physical_network="phys1", vlan=10)
    assert found.problems() == []


def test_one_address_one_guest() -> None:
    same = floating(target={"vnic": "b"})
    assert said(*fleet(one=floating(), two=same).problems()) == [
        "FloatingIP two: address: 203.0.113.50 is FloatingIP one's already; give each its own",
        f"FloatingIP two: mac: {same.eth} is FloatingIP one's already; give each its own",
    ]
    assert said(*fleet(one=floating(), two=floating("203.0.113.51")).problems()) == [
        "FloatingIP two: target: its guest is FloatingIP one's already; a guest's address has one floating address"
    ]


def test_a_host_that_comes_later_takes_none_of_them() -> None:
    found = fleet(one=floating())
    outside = found.hosts["kvm2"].model_dump()
    outside["external"]["address"] = "203.0.113.50/24"
    found.hosts["kvm2"] = HostSpec.model_validate(outside)
    assert said(*found.problems()) == [
        "FloatingIP one: address: 203.0.113.50 is Host kvm2's external address; choose another"
    ]
