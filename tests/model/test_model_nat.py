"""Pools of nat networks: what is none, and what does not hold between one and the fleet."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any

import pytest
from pydantic import ValidationError

from controller.model.floating import FloatingIPSpec
from controller.model.host import HostSpec
from controller.model.kinds import Fleet
from controller.model.nat import Nat
from controller.model.network import NetworkSpec
from controller.model.port import PortSpec


def network(**nat: Any) -> NetworkSpec:
    return NetworkSpec.model_validate({"mode": "nat", "subnets": ["10.0.0.0/24"], "nat": nat})


def fleet(*addresses: str, **others: NetworkSpec) -> Fleet:
    """A host with an address outside, a guest that is registered there, a floating address, and a pool."""
    outside = {"uplink": "phys1", "address": "203.0.113.11/24", "gateway": "203.0.113.1"}
    host = {"ovsdb": "unix:/db", "uplinks": {"phys1": {"interface": "eth1"}}, "external": outside}
    lan = NetworkSpec(mode="bridge", physical_network="phys1")
    floating = {"network": "web", "address": "203.0.113.50", "target": {"vm": "web1"}}
    return Fleet(
        {"kvm1": HostSpec.model_validate(host)}, {"web": network(addresses=addresses), "lan": lan, **others},
        {"pc": PortSpec(vm="pc", mac="52:54:00:00:00:09", network="lan", addresses=("203.0.113.77", "2001:db8::7"))},
        {}, {"front": FloatingIPSpec.model_validate(floating)},
    )  # fmt: skip


def test_ranges_are_written_in_one_way() -> None:
    nat = Nat.model_validate({"addresses": ["203.0.113.20 - 203.0.113.29", "203.0.113.40"], "ports": "20000-30000"})
    assert nat.addresses == ("203.0.113.20-203.0.113.29", "203.0.113.40")
    assert nat.port_span == (20000, 30000)
    assert [str(each) for each in nat.subnets] == ["203.0.113.20/30", "203.0.113.24/30", "203.0.113.28/31",
                                                  "203.0.113.40/32"]  # fmt: skip
    assert [str(each) for each in nat.within(IPv4Network("203.0.113.28/30"))] == [
        "203.0.113.28", "203.0.113.29",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("nat", "what"),
    [
        ({}, "has nat without addresses and ports; add one of them"),
        ({"addresses": ["203.0.113.29-203.0.113.20"]}, "is no IPv4 address and no range of them"),
        ({"addresses": ["fd00::1"]}, "is no IPv4 address and no range of them"),
        ({"addresses": ["203.0.113.0/24"]}, "is no IPv4 address and no range of them"),
        ({"addresses": ["224.0.0.1"]}, "is no IPv4 address and no range of them"),
        ({"addresses": ["203.0.113.20-203.0.113.29", "203.0.113.25"]}, "has 203.0.113.25 twice in nat.addresses"),
        ({"ports": "30000-20000"}, "is no port and no range of ports"),
    ],
)
def test_what_is_no_pool(nat: dict[str, Any], what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        network(**nat)


def test_only_a_nat_network_with_ipv4_has_one() -> None:
    pool = {"nat": {"addresses": ["203.0.113.20"]}}
    with pytest.raises(ValidationError, match="has mode route and nat; use mode nat"):
        NetworkSpec.model_validate({"mode": "route", "subnets": ["10.0.0.0/24"], **pool})
    with pytest.raises(ValidationError, match=r"has nat\.addresses and no IPv4 subnet"):
        NetworkSpec.model_validate({"mode": "nat", "subnets": ["fd00::/64"], **pool})


@pytest.mark.parametrize(
    ("addresses", "what"),
    [
        (["198.51.100.5-198.51.100.9"], "198.51.100.5-198.51.100.9 is in no subnet of a host's external address; those "
         "are: 203.0.113.0/24"),
        (["203.0.113.250-203.0.114.9"], "203.0.113.250-203.0.114.9 is in no subnet of a host's external address; those "
         "are: 203.0.113.0/24"),
        (["203.0.113.5-203.0.113.20"], "203.0.113.5-203.0.113.20 has 203.0.113.11, which is Host kvm1's external "
         "address; leave that out of the range"),
        (["203.0.113.1-203.0.113.9"], "203.0.113.1-203.0.113.9 has 203.0.113.1, which is the router of Host kvm1; "
         "leave that out of the range"),
        (["203.0.113.50"], "203.0.113.50 is FloatingIP front's; choose another"),
        (["203.0.113.70-203.0.113.79"], "203.0.113.70-203.0.113.79 has 203.0.113.77, which is Port pc's on Network "
         "lan; leave that out of the range"),
        (["203.0.113.200-203.0.113.255"], "203.0.113.200-203.0.113.255 has 203.0.113.255, no address of a machine in "
         "203.0.113.0/24; leave that out of the range"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_once(addresses: list[str], what: str) -> None:
    (problem,) = fleet(*addresses).problems()
    assert (problem.where, f"{problem.what}; {problem.remedy}") == ("Network web: nat.addresses", what)


def test_no_address_is_in_two_pools() -> None:
    other = NetworkSpec.model_validate(
        {"mode": "nat", "subnets": ["10.1.0.0/24"], "nat": {"addresses": ["203.0.113.25-203.0.113.35"]}}
    )
    assert fleet("203.0.113.20-203.0.113.24", zoo=other).problems() == []
    (problem,) = fleet("203.0.113.20-203.0.113.29", zoo=other).problems()
    assert problem.where == "Network zoo: nat.addresses"
    assert problem.what == "203.0.113.25-203.0.113.35 has 203.0.113.25, which is in the pool of Network web"
