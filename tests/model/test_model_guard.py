"""Filters of a portgroup: what they check, and what is checked where none are named."""

from __future__ import annotations

from typing import get_args

import pytest
from pydantic import ValidationError

from controller.model.guard import ELSEWHERE, Check, FilterName, checks
from controller.model.network import PortGroup

ALLOWANCES = {"dhcp_server", "dhcpv6_server", "router"}


@pytest.mark.parametrize(
    ("addresses", "more"),
    [
        ((), set()),
        (("10.0.0.1",), {"ipv4", "arp_ip", "ipv6"}),
        (("fd00::1",), {"ipv4", "arp_ip", "ipv6"}),
        (("fd00::1", "10.0.0.1"), {"ipv4", "arp_ip", "ipv6"}),
    ],
)
def test_without_filters_what_is_known_is_checked(addresses: tuple[str, ...], more: set[str]) -> None:
    assert checks(PortGroup().filters, addresses) == {"mac", "arp_mac", "nd_mac"} | more
    assert checks(PortGroup().filters, addresses, learns=True) == {"mac", "arp_mac", "nd_mac", "ipv4", "arp_ip", "ipv6"}


def test_where_guests_make_ipv6_addresses_these_are_compared_once_one_is_known() -> None:
    held = {"mac", "arp_mac", "nd_mac", "ipv4", "arp_ip"}
    assert checks(PortGroup().filters, ("10.0.0.1",), slaac=True) == held
    for addresses, learns in ((("10.0.0.1", "fd00::1"), False), (("fe80::1",), False), ((), True)):
        assert checks(PortGroup().filters, addresses, learns=learns, slaac=True) == held | {"ipv6"}
    assert "no_ipv6" in checks(("clean-traffic",), (), slaac=True)


def test_an_empty_list_checks_nothing() -> None:
    assert checks(PortGroup(filters=()).filters, ("10.0.0.1", "fd00::1")) == frozenset()


def test_where_others_speak_through_a_vnic_its_addresses_are_not_compared() -> None:
    group = PortGroup(learning=True)
    assert (checks(group.filters, ("10.0.0.1",), group.learning), group.mac_limit) == (frozenset(), 32)
    strict = PortGroup(learning=True, max_macs=4, filters=("no-ip-multicast", "be-router"))
    assert checks(strict.filters, ("10.0.0.1",), strict.learning) == {"no_ipv4_multicast", "router"}
    assert (strict.mac_limit, PortGroup().mac_limit) == (4, 0)


@pytest.mark.parametrize("name", get_args(FilterName))
def test_a_filter_allows_or_refuses_and_does_not_do_both(name: FilterName) -> None:
    found = checks((name,), ())
    assert found
    assert found <= ALLOWANCES if name.startswith("be-") else not found & ALLOWANCES


def test_each_allowance_is_one_thing() -> None:
    """Who may serve DHCP serves no DHCPv6 with it, and is no router."""
    each = [checks((name,), ()) for name in get_args(FilterName) if name.startswith("be-")]
    assert sorted(check for found in each for check in found) == sorted(ALLOWANCES)


def test_filters_add_up_and_every_check_has_one() -> None:
    assert checks(("no-arp-mac-spoofing", "no-arp-ip-spoofing"), ()) == checks(("no-arp-spoofing",), ())
    assert checks(get_args(FilterName), ()) == set(get_args(Check))


def test_every_filter_of_libvirt_is_one_here_or_is_refused_with_what_to_do() -> None:
    """Those that libvirt 9.0 brings along, of which there are 24."""
    ours = {name for name in get_args(FilterName) if not name.startswith("be-")}
    assert len(ours | ELSEWHERE.keys()) == 24
    assert not ours & ELSEWHERE.keys()
    for name, why in ELSEWHERE.items():
        with pytest.raises(ValidationError, match=f"has libvirt's filter {name}, which is none here: ") as error:
            PortGroup.model_validate({"filters": ["no-mac-spoofing", name]})
        assert why in str(error.value)
