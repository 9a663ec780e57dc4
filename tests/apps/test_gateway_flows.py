"""Gateway, DHCP and DNS: what is answered for the gateway, and what is asked of the controller."""

from __future__ import annotations

from fleets import FleetRows
from golden_flows import check

DHCP = {"range": ["10.0.0.100", "10.0.0.200"]}


def web(**spec: object) -> FleetRows:
    return FleetRows().host("kvm1", "192.0.2.1").host("kvm2", "192.0.2.2").network("web", **spec)


def test_both_families() -> None:
    fleet = web(subnets=["10.0.0.0/24", "fd00::1/64"], gateway_mac="02:f5:00:00:00:01")
    check("gateway_both", "gateway", fleet.port("a", "kvm1", "web").port("b", "kvm2", "web"))


def test_every_vlan_of_the_network_has_it() -> None:
    groups = {"one": {"vlan": 10}, "two": {"vlan": 20}}
    fleet = web(subnets=["10.0.0.254/24"], gateway_mac="02:f5:00:00:00:01", portgroups=groups)
    check("gateway_vlans", "gateway", fleet.port("a", "kvm1", "web", "one"))


def test_without_subnets_there_is_none() -> None:
    check("gateway_none", "gateway", web().port("a", "kvm1", "web"))


def test_dhcp_is_asked_by_each_vnic_with_a_meter_of_its_own() -> None:
    fleet = web(subnets=["10.0.0.0/24"], dhcp=DHCP).network("plain", subnets=["10.0.0.0/24"])
    fleet.port("a", "kvm1", "web").port("b", "kvm2", "web").port("c", "kvm2", "plain")
    check("dhcp", "dhcp", fleet)


def test_dns_is_asked_by_each_vnic_with_its_meter_and_tcp_goes_there_too() -> None:
    fleet = web(subnets=["10.0.0.0/24", "10.0.1.254/24"], gateway_mac="02:f5:00:00:00:01")
    fleet.network("mute", subnets=["10.0.0.0/24"], dns={"enable": False}).network("six", subnets=["fd00::/64"])
    fleet.port("a", "kvm1", "web").port("b", "kvm2", "web").port("c", "kvm2", "mute").port("d", "kvm2", "six")
    check("dns", "dns", fleet)


def test_dhcpv6_is_asked_where_the_network_has_ipv6() -> None:
    fleet = web(subnets=["10.0.0.0/24", "fd00::/64"], dhcp={"range6": ["fd00::100", "fd00::200"]})
    fleet.network("six", subnets=["fd01::/64"], dhcp={})
    check("dhcp_ipv6", "dhcp", fleet.port("a", "kvm1", "web").port("b", "kvm2", "six"))


def test_routers_are_asked_for_where_the_network_has_ipv6() -> None:
    fleet = web(subnets=["10.0.0.0/24", "fd00::/64"]).network("plain", subnets=["10.0.1.0/24"])
    check("ra", "ra", fleet.port("a", "kvm1", "web").port("b", "kvm2", "plain"))
