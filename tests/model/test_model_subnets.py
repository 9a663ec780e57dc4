"""Subnets and DHCP of a network: what is taken, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from controller.model.host import External, HostSpec
from controller.model.kinds import Fleet
from controller.model.network import NetworkSpec, network_gateway_mac, return_routes

RANGE = ["10.0.0.100", "10.0.0.200"]
TWICE = [{"mac": "52:54:00:00:00:01", "ip": f"10.0.0.{n}"} for n in (2, 3)]


DUID = "00:03:00:01:02:03"


def leasing(*ends: str) -> dict[str, Any]:
    return {"subnets": ["10.0.0.0/24", "fd00::/64"], "dhcp": {"range6": ends}}


def reserving(*hosts: dict[str, Any], **host: Any) -> dict[str, Any]:
    return {"subnets": ["10.0.0.0/24", "fd00::/64"], "dhcp": {"hosts": [*hosts, *([host] if host else [])]}}


def network(**fields: Any) -> NetworkSpec:
    return NetworkSpec.model_validate({"mode": "isolated", **fields})


def told(**dhcp: object) -> dict[str, object]:
    return {"subnets": ["10.0.0.0/24"], "dhcp": dhcp}


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
        ({"subnets": ["fe80::/64"]}, "not for guests"),
        ({"subnets": ["web"]}, "'web' is no subnet"),
        ({"subnets": ["10.0.0.0/24", "10.0.0.128/25"]}, "overlap"),
        ({"mode": "bridge", "physical_network": "p", "subnets": ["10.0.0.0/24"]}, "mode bridge and subnets"),
        ({"gateway_mac": "52:54:00:00:00:01"}, "gateway_mac without subnets"),
        ({"dhcp": {}}, "dhcp without subnets"),
        ({"subnets": ["fd00::/64"], "dhcp": {"range": RANGE}}, "dhcp for IPv4 without such a subnet"),
        ({"subnets": ["10.0.0.0/24"], "dhcp": {"range": ["10.0.0.9", "10.0.0.8"]}}, "ends before it begins"),
        ({"subnets": ["10.0.0.0/24"], "dhcp": {"range": [RANGE, ["10.0.0.200", "10.0.0.201"]]}}, "in two ranges"),
        ({"subnets": ["10.0.0.0/24"], "dhcp": {"range": ["10.0.0.9", "10.0.1.8"]}}, "not within one subnet"),
        ({"subnets": ["10.0.0.0/24"], "dhcp": {"range": ["10.0.0.0", "10.0.0.8"]}}, "not within one subnet"),
        ({"subnets": ["10.0.0.0/24"], "dhcp": {"range": ["10.0.0.9", "10.0.0.255"]}}, "not within one subnet"),
        ({"subnets": ["10.0.0.0/24"], "dhcp": {"range": ["fd00::1", "fd00::2"]}}, "no IPv4 address"),
        ({"subnets": ["10.0.0.0/24"], "dhcp": {"lease": 60}}, "greater than or equal to 120"),
        (told(router=["10.9.0.1"]), "names the router 10.9.0.1, which guests do not reach"),
        (told(routes=[{"to": "10.50.0.0/16", "via": "10.9.0.1"}]), "routes 10.50.0.0/16 via 10.9.0.1, which guests"),
        (told(routes=[{"to": "10.50.0.0/16", "via": f"10.0.0.{n}"} for n in (2, 3)]), "two routes to 10.50.0.0/16"),
        (told(routes=[{"to": "fd50::/48", "via": "10.0.0.2"}]), "is no IPv4 subnet that guests can be told"),
        (told(routes=[{"to": "0.0.0.0/0", "via": "10.0.0.2"}]), "is no IPv4 subnet that guests can be told"),
        (told(boot={"file": "pxelinux.0"}), "no files are served here"),
        (told(boot={"file": "a b", "server": "10.0.0.9"}), "match pattern"),
        (told(boot={"file": "a", "server": "10.0.0.9"}, options={66: "b"}), "which boot sets"),
        (told(options={"router": "10.0.0.2"}), "is not set so; write dhcp.router"),
        (told(options={42: "10.0.0.3", "ntp-server": "10.0.0.4"}), "names option ntp-server twice"),
        (told(options={"ntp-server": "noon"}), "option ntp-server is noon"),
        (told(options={"domain-search": ["x" * 60 + ".example"] * 4}), "has 280 bytes"),
        (told(options={"root-path": []}), "has 0 bytes"),
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
        (reserving(ip="10.0.0.2", name="web"), "DHCPv4 knows clients by their mac"),
        (reserving(ip="10.0.0.2", mac="52:54:00:00:00:01", id=DUID), "DHCPv4 knows clients by their mac"),
        (reserving(ip="fd00::2"), "for nobody; add the client's mac, id or name"),
        (reserving(ip="fd00::2", mac="52:54:00:00:00:01", id=DUID), "by mac and id; keep one"),
        (reserving(ip="fd00::2", id="00:03"), "'00:03' is no DUID"),
        (reserving(ip="fd00::2", id="00:03:zz"), "is no DUID"),
        (reserving(ip="fd00::2", id=10802), "10802 is no DUID; write it in quotes"),
        (reserving({"ip": "fd00::2", "id": DUID}, {"ip": "fd00::3", "id": "0:3:0:1:2:3"}), "reserves id .* twice"),
        (reserving({"ip": "fd00::2", "id": DUID}, {"ip": "fd00::2", "name": "web"}), "reserves ip fd00::2 twice"),
        (reserving(ip="fd00::1", id=DUID), "fd00::1, which is no guest's"),
        (reserving(ip="fd00::", id=DUID), "fd00::, which is no guest's"),
        (reserving(ip="fd01::5", id=DUID), "fd01::5, which is no guest's"),
        (leasing("fd00::9", "fd00::8"), "ends before it begins"),
        (leasing("fd00::9", "fd00:0:0:1::1"), "not within one subnet"),
        (leasing("10.0.0.9", "10.0.0.10"), "10.0.0.9 is no IPv6 address; range is for IPv4, range6 for IPv6"),
        ({"subnets": ["10.0.0.0/24"], "dhcp": {"range6": ["fd00::8", "fd00::9"]}}, "dhcp for IPv6 without such a"),
    ],
)
def test_what_does_not_fit_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        network(**fields)


def test_one_guest_has_reservations_of_both_families() -> None:
    mine = {"mac": "52:54:00:00:00:01", "name": "web"}
    spec = network(
        **reserving({**mine, "ip": "10.0.0.2"}, {**mine, "ip": "fd00::2"}, {"id": "0:3:0:1:a", "ip": "fd00::3"})
    )
    assert spec.dhcp is not None
    assert [host.ip for host in spec.dhcp.hosts_of(6)] == ["fd00::2", "fd00::3"]
    assert spec.dhcp.hosts[2].id == "00:03:00:01:0a"  # as libvirt's documents write it, and in full


def test_a_network_may_have_ipv6_alone() -> None:
    spec = network(subnets=["fd00::/64"], dhcp={"dns": ["fd00::53", "10.0.0.53"], "domain": "example.org"})
    assert spec.dhcp is not None
    assert (spec.dhcp.dns_of(6), spec.dhcp.dns_of(4)) == (("fd00::53",), ("10.0.0.53",))


def test_the_physical_networks_routers_are_told_the_ways_to_routed_guests() -> None:
    hosts = {
        name: HostSpec.model_validate({
            "ovsdb": f"unix:/{name}", "uplinks": {"p": {"interface": "e0"}},
            "external": {"uplink": "p", "address": f"{address}/24", "gateway": "203.0.113.1", **ipv6},
        })
        for name, address, ipv6 in (
            ("b", "203.0.113.12", {}),
            ("a", "203.0.113.11", {"address6": "2001:db8::11/64", "gateway6": "fe80::1"}),
        )
    }  # fmt: skip
    hosts["c"] = HostSpec(ovsdb="unix:/c")
    subnets = ["10.0.0.0/24", "fd00::/64"]
    assert return_routes(network(mode="route", subnets=subnets), hosts) == [
        "10.0.0.0/24 via 203.0.113.11", "10.0.0.0/24 via 203.0.113.12", "fd00::/64 via 2001:db8::11",
    ]  # fmt: skip
    assert return_routes(network(mode="nat", subnets=subnets), hosts) == []


OUTSIDE = {"uplink": "p", "address": "203.0.113.11/24", "gateway": "203.0.113.1"}
IPV6 = {"address6": "2001:db8::11/64", "gateway6": "2001:db8::1"}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"gateway6": None}, "has address6 without gateway6; add gateway6"),
        ({"address6": None}, "has gateway6 without address6; add address6"),
        ({"address6": "2001:db8::11"}, "no address of a machine with its prefix length; write 2001:db8::11/64"),
        ({"address6": "2001:db8::/64"}, "is all routers' address"),
        ({"address6": "fe80::11/64"}, "no address of a machine"),
        ({"address6": "ff02::11/64"}, "no address of a machine"),
        ({"address6": "203.0.113.11/24"}, "no address of a machine"),
        ({"gateway6": "2001:db8:1::1"}, "no other machine of 2001:db8::/64"),
        ({"gateway6": "2001:db8::11"}, "no other machine of 2001:db8::/64"),
        ({"gateway6": "203.0.113.1"}, "no other machine of 2001:db8::/64"),
        ({"mtu": 1279}, "has address6 and mtu 1279; IPv6 needs 1280 or more"),
    ],
)
def test_external_addresses_of_ipv6_that_are_refused(fields: dict[str, Any], said: str) -> None:
    assert External.model_validate({**OUTSIDE, **IPV6}).ips == ("203.0.113.11", "2001:db8::11")
    with pytest.raises(ValidationError) as refused:
        External.model_validate({**OUTSIDE, **IPV6, **fields})
    assert said in str(refused.value)


def test_external_addresses_of_ipv6_are_one_hosts_each_and_no_networks() -> None:
    def host(number: int, address6: str) -> HostSpec:
        outside = {**OUTSIDE, **IPV6, "address": f"203.0.113.{number}/24", "address6": address6}
        uplinks = {"p": {"interface": "e0"}}
        return HostSpec.model_validate({"ovsdb": f"unix:/{number}", "uplinks": uplinks, "external": outside})

    fleet = Fleet(
        hosts={"a": host(11, "2001:db8::11/64"), "b": host(12, "2001:db8::11/64"), "c": host(13, "2001:db8::13/64")},
        networks={"web": network(mode="route", subnets=["2001:db8::/48"])},
    )
    assert [f"{problem.where} {problem.what}" for problem in fleet.problems()] == [
        "Host b: external.address6 2001:db8::11 is Host a's already",
        "Network web: subnets 2001:db8::/48 overlaps 2001:db8::/64, outside of Host a",
    ]


@pytest.mark.parametrize("mode", ["nat", "route", "open"])
def test_routed_networks_have_addresses_that_nobody_else_has(mode: str) -> None:
    fleet = Fleet(networks={
        "a": network(mode="route", subnets=["10.0.0.0/16"]), "b": network(mode=mode, subnets=["10.0.1.0/24"]),
        "c": network(mode="isolated", subnets=["10.0.1.0/24"]),
    })  # fmt: skip
    [problem] = fleet.problems()
    assert str(problem).startswith("Network b: subnets: 10.0.1.0/24 overlaps 10.0.0.0/16, Network a")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"mode": "nat", "routes": [{"to": "10.50.0.0/16", "via": "10.0.0.9"}]}, "has mode nat and routes"),
        ({"routes": [{"to": "10.50.0.0/16", "via": "10.0.1.9"}]}, "which is no guest's address"),
        ({"routes": [{"to": "10.50.0.0/16", "via": "10.0.0.1"}]}, "which is no guest's address"),
        ({"routes": [{"to": "10.50.0.1/16", "via": "10.0.0.9"}]}, "'10.50.0.1/16' is no subnet"),
        ({"routes": [{"to": "fd50::/97", "via": "10.0.0.9"}]}, "'fd50::/97' is no subnet"),
        ({"routes": [{"to": "fe80::/64", "via": "10.0.0.9"}]}, "'fe80::/64' is no subnet"),
        ({"routes": [{"to": "fd50::/48", "via": "10.0.0.9"}]}, "name an address of IPv6"),
        ({"routes": [{"to": "fd50::/48", "via": "fd00::9"}]}, "which is no guest's address"),
        ({"routes": [{"to": "10.0.0.128/25", "via": "10.0.0.9"}]}, "which is its own subnet"),
        ({"routes": [{"to": "0.0.0.0/0", "via": "10.0.0.9"}]}, "is no subnet that a route can lead to"),
        ({"routes": [{"to": "10.50.0.0/16", "via": f"10.0.0.{n}"} for n in (8, 9)]}, "routes one subnet twice"),
    ],
)
def test_routes_that_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        network(**{"mode": "open", "subnets": ["10.0.0.0/24"], **fields})


def test_subnets_behind_guests_are_nobody_elses() -> None:
    routes = [{"to": "10.1.0.0/16", "via": "10.0.0.9"}, {"to": "10.1.7.0/24", "via": "10.0.0.8"}]
    routed = network(mode="open", subnets=["10.0.0.0/24"], routes=routes)
    assert Fleet(networks={"a": routed}).problems() == []
    [problem] = Fleet(networks={"a": routed, "b": network(mode="nat", subnets=["10.1.1.0/24"])}).problems()
    assert str(problem).startswith("Network b: subnets: 10.1.1.0/24 overlaps 10.1.0.0/16, Network a")
