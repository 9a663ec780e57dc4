"""Spoof guard: what each filter makes, and what a vNIC gets that names none."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from fleets import FleetRows
from golden_flows import check, flows_of

from controller.model.guard import FilterName

ADDRESSES = ("10.0.0.1", "10.0.0.2", "fd00::1")


def one_vnic(addresses: tuple[str, ...] = ADDRESSES, **group: Any) -> FleetRows:
    fleet = FleetRows().host("kvm1").network("web", portgroups={"special": group})
    return fleet.port("a", "kvm1", "web", "special", addresses=addresses)


@pytest.mark.parametrize("name", get_args(FilterName))
def test_each_filter(name: FilterName) -> None:
    check(f"spoof_guard_{name}", "spoofguard", one_vnic(filters=[name]))


@pytest.mark.parametrize(
    ("name", "addresses"),
    [("nothing", ()), ("ipv4", ("10.0.0.1",)), ("ipv6", ("fd00::1",)), ("both", ("10.0.0.1", "fd00::1"))],
)
def test_no_filters_named(name: str, addresses: tuple[str, ...]) -> None:
    check(f"spoof_guard_knows_{name}", "spoofguard", one_vnic(addresses))


def test_an_empty_list_of_filters() -> None:
    check("spoof_guard_open", "spoofguard", one_vnic(filters=[]))


def test_several_filters() -> None:
    filters = ["clean-traffic", "no-ipv6-spoofing", "no-mac-broadcast", "be-dhcp-server"]
    check("spoof_guard_several", "spoofguard", one_vnic(filters=filters))


def test_filters_that_check_addresses_of_a_vnic_without_any() -> None:
    fleet = one_vnic((), filters=["no-arp-spoofing", "no-ip-spoofing", "no-ipv6-spoofing"])
    check("spoof_guard_no_addresses", "spoofguard", fleet)


def test_a_link_local_address_that_is_registered_stands_beside_that_of_the_mac() -> None:
    text = flows_of("spoofguard", one_vnic(("fe80::5054:ff:fe00:1", "fe80::77")))
    assert text.count("from its own fe80::5054:ff:fe00:1") == 1
    assert text.count("from its own fe80::77") == 1


def test_passthrough_is_not_guarded() -> None:
    fleet = FleetRows().host("kvm1", None, "phys1")
    fleet.network("lan", "bridge", physical_network="phys1", portgroups={"raw": {"isolation": "passthrough"}})
    assert "local:" not in flows_of("spoofguard", fleet.port("a", "kvm1", "lan", "raw"))


@pytest.mark.parametrize(("name", "learned"), [("nothing", ()), ("some", ("10.0.0.1", "fd00::1")),
                         ("all", ("10.0.0.1", "fd00::1", "fe80::9"))])  # fmt: skip
def test_a_vnic_that_learns_its_addresses(name: str, learned: tuple[str, ...]) -> None:
    """What may be a claim goes to the controller while it may have more, and never on."""
    fleet = FleetRows().host("kvm1").network("web", portgroups={"special": {"learn_addresses": 1}})
    check(f"spoof_guard_learns_{name}", "spoofguard", fleet.port("a", "kvm1", "web", "special", addresses=learned,
                                                                 learned=learned))  # fmt: skip


@pytest.mark.parametrize(("name", "dhcp", "learns"), [
    ("slaac", {"range": ["10.0.0.9", "10.0.0.20"]}, 0),
    ("slaac_learns", {"range": ["10.0.0.9", "10.0.0.20"]}, 1),
    ("leased_ipv6", {"range6": ["fd00::9", "fd00::20"]}, 0),
])  # fmt: skip
def test_a_vnic_with_a_lease_where_ipv6_addresses_are_made_or_leased(name: str, dhcp: Any, learns: int) -> None:
    fleet = FleetRows().host("kvm1").network("web", subnets=["10.0.0.0/24", "fd00::/64"], dhcp=dhcp,
                                             portgroups={"own": {"learn_addresses": learns}})  # fmt: skip
    fleet.port("a", "kvm1", "web", "own", addresses=("10.0.0.9",))
    fleet.registered.clear()  # it is leased
    check(f"spoof_guard_{name}", "spoofguard", fleet)


def test_who_may_send_no_ipv6_does_not_ask_either() -> None:
    group = {"filters": ["clean-traffic", "no-ipv6-spoofing"]}
    fleet = FleetRows().host("kvm1").network("web", subnets=["fd00::/64"], dhcp={}, portgroups={"four": group})
    assert "asks for routers" not in flows_of("spoofguard", fleet.port("a", "kvm1", "web", "four"))
