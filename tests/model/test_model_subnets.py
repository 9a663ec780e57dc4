"""Subnets and DHCP of a network: what is taken, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from controller.model.network import NetworkSpec, network_gateway_mac

RANGE = ["10.0.0.100", "10.0.0.200"]
TWICE = [{"mac": "52:54:00:00:00:01", "ip": f"10.0.0.{n}"} for n in (2, 3)]


def network(**fields: Any) -> NetworkSpec:
    return NetworkSpec.model_validate({"mode": "isolated", **fields})


@pytest.mark.parametrize(
    ("written", "gateway"),
    [
        ("10.10.10.0/24", "10.10.10.1/24"),
        ("10.10.10.254/24", "10.10.10.254/24"),
        ("10.10.10.7/30", None),
        ("10.0.0.4/30", "10.0.0.5/30"),
        ("fd00:10::/64", "fd00:10::1/64"),
        ("fd00:10::ff/64", "fd00:10::ff/64"),
    ],
)
def test_a_subnet_is_written_with_its_gateway_or_alone(written: str, gateway: str | None) -> None:
    if gateway is None:
        with pytest.raises(ValidationError, match="broadcast address"):
            network(subnets=[written])
    else:
        assert network(subnets=[written]).subnets == (gateway,)


def test_one_range_needs_no_list_around_it() -> None:
    one = network(subnets=["10.0.0.0/24"], dhcp={"range": RANGE})
    assert one == network(subnets=["10.0.0.0/24"], dhcp={"range": [RANGE]})
    assert one.dhcp is not None
    assert one.dhcp.range == (("10.0.0.100", "10.0.0.200"),)


def test_the_gateways_mac_goes_with_the_name_unless_it_is_written() -> None:
    spec = network(subnets=["10.0.0.0/24"])
    assert network_gateway_mac("web", spec) == network_gateway_mac("web", spec) != network_gateway_mac("db", spec)
    assert int(network_gateway_mac("web", spec)[:2], 16) & 3 == 2  # locally administered, one machine's
    assert network_gateway_mac("web", network(subnets=["10.0.0.0/24"], gateway_mac="52:54:00:00:00:fe"))[-2:] == "fe"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"subnets": ["10.0.0.1"]}, "10.0.0.1' has no room for guests"),
        ({"subnets": ["10.0.0.0/31"]}, "no room for guests"),
        ({"subnets": ["fd00::/127"]}, "no room for guests"),
        ({"subnets": ["10.0.0.255/24"]}, "broadcast address"),
        ({"subnets": ["224.0.0.0/24"]}, "not for guests"),
        ({"subnets": ["web"]}, "'web' is no subnet"),
        ({"subnets": ["10.0.0.0/24", "10.0.0.128/25"]}, "overlap"),
        ({"mode": "bridge", "physical_network": "p", "subnets": ["10.0.0.0/24"]}, "mode bridge and subnets"),
        ({"gateway_mac": "52:54:00:00:00:01"}, "gateway_mac without subnets"),
        ({"dhcp": {}}, "dhcp without an IPv4 subnet"),
        ({"subnets": ["fd00::/64"], "dhcp": {"range": RANGE}}, "dhcp without an IPv4 subnet"),
        ({"subnets": ["10.0.0.0/24"], "dhcp": {"range": ["10.0.0.9", "10.0.0.8"]}}, "ends before it begins"),
        ({"subnets": ["10.0.0.0/24"], "dhcp": {"range": [RANGE, ["10.0.0.200", "10.0.0.201"]]}}, "in two ranges"),
        ({"subnets": ["10.0.0.0/24"], "dhcp": {"range": ["10.0.0.9", "10.0.1.8"]}}, "not within one subnet"),
        ({"subnets": ["10.0.0.0/24"], "dhcp": {"range": ["10.0.0.0", "10.0.0.8"]}}, "not within one subnet"),
        ({"subnets": ["10.0.0.0/24"], "dhcp": {"range": ["10.0.0.9", "10.0.0.255"]}}, "not within one subnet"),
        ({"subnets": ["10.0.0.0/24"], "dhcp": {"range": ["fd00::1", "fd00::2"]}}, "no IPv4 address"),
        ({"subnets": ["10.0.0.0/24"], "dhcp": {"lease": 60}}, "greater than or equal to 120"),
        (
            {"subnets": ["10.0.0.0/24"], "dhcp": {"hosts": [{"mac": "52:54:00:00:00:01", "ip": "10.0.0.1"}]}},
            "no guest's",
        ),
        (
            {"subnets": ["10.0.0.0/24"], "dhcp": {"hosts": [{"mac": "52:54:00:00:00:01", "ip": "10.0.1.2"}]}},
            "no guest's",
        ),
        (
            {"subnets": ["10.0.0.0/24"], "dhcp": {"hosts": TWICE}},
            "reserves mac 52:54:00:00:00:01 twice",
        ),
    ],
)
def test_what_does_not_fit_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        network(**fields)
