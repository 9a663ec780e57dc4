"""Names of a network: who has which, and that nobody takes another's."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from controller.model.lease import Lease
from controller.model.network import NetworkSpec
from controller.model.port import PortSpec
from controller.services.dns_zone import Zone, zone_of

RESERVED = {"mac": "52:54:00:00:00:05", "ip": "10.0.0.5", "name": "Printer"}


def network(*, subnets: tuple[str, ...] = ("10.0.0.0/24",), **dns: Any) -> NetworkSpec:
    dhcp = {"range": ["10.0.0.100", "10.0.0.200"], "hosts": [RESERVED]}
    return NetworkSpec.model_validate({"mode": "isolated", "subnets": subnets, "dhcp": dhcp, "dns": dns})


def lease(number: int, name: str, since: int = 0, **fields: Any) -> Lease:
    plain = {"network": "web", "ip": f"10.0.0.{number}", "mac": f"52:54:00:00:00:{number:02x}", "expires": 2000}
    return Lease(**{**plain, "name": name, "since": since, **fields})


def registered(vm: str, *addresses: str, **fields: Any) -> PortSpec:
    return PortSpec(**{"vm": vm, "mac": "52:54:00:00:00:01", "network": "web", "addresses": addresses, **fields})


def zone(*leases: Lease, ports: tuple[PortSpec, ...] = (), now: float = 1000.0, **dns: Any) -> Zone:
    return zone_of("web", network(**dns), ports, {each.ip: each for each in leases}, now)


def called(known: Zone, address: str) -> str | None:
    return known.pointers.get(ipaddress.ip_address(address).reverse_pointer)


def test_a_registered_guest_has_its_name_also_in_the_domain_and_its_addresses_have_it() -> None:
    known = zone(ports=(registered("Web1", "10.0.0.11", "fd00::11"),), domain="Example.org")
    assert known.addresses["web1"] == known.addresses["web1.example.org"] == ("10.0.0.11", "fd00::11")
    assert called(known, "10.0.0.11") == called(known, "fd00::11") == "web1.example.org"


def test_a_registered_guest_without_addresses_has_the_one_that_it_leased() -> None:
    known = zone(lease(30, "whatever", mac="52:54:00:00:00:01"), ports=(registered("web1"),))
    assert known.addresses["web1"] == ("10.0.0.30",)
    assert called(known, "10.0.0.30") == "web1"


def test_two_vnics_of_a_guest_share_its_name() -> None:
    two = registered("web1", "10.0.0.12", mac="52:54:00:00:00:02")
    assert zone(ports=(registered("web1", "10.0.0.11"), two)).addresses["web1"] == ("10.0.0.11", "10.0.0.12")


@pytest.mark.parametrize("vm", ["2f7f4a5c-1111-4222-8333-444444444444", "web_1"])
def test_what_is_no_host_name_names_nobody(vm: str) -> None:
    known = zone(ports=(registered(vm, "10.0.0.11"),))
    assert called(known, "10.0.0.11") is None


def test_guests_of_other_networks_are_not_known() -> None:
    assert "web1" not in zone(ports=(registered("web1", "10.0.0.11", network="other"),)).addresses


def test_who_has_a_name_that_several_want() -> None:
    """Records before registrations before reservations before what clients call themselves, and there the first."""
    port = registered("printer", "10.0.0.11")
    record = {"ip": "10.0.0.99", "names": ["printer.example.org"]}
    client = lease(40, "printer", since=1)
    everything: list[tuple[dict[str, Any], str]] = [
        ({"hosts": [record], "ports": (port,)}, "10.0.0.99"),
        ({"ports": (port,)}, "10.0.0.11"),
        ({}, "10.0.0.5"),
    ]
    for given, owner in everything:
        known = zone(client, domain="example.org", **given)
        assert known.addresses["printer"] == known.addresses["printer.example.org"] == (owner,)


@pytest.mark.parametrize("late", [41, 39])
def test_a_client_does_not_take_the_name_of_one_that_was_there_before(late: int) -> None:
    known = zone(lease(40, "db", since=500), lease(late, "db", since=600))
    assert known.addresses["db"] == ("10.0.0.40",)
    assert called(known, f"10.0.0.{late}") is None


def test_a_name_is_free_again_when_its_lease_has_ended() -> None:
    first, second = lease(40, "db", since=500, expires=1500), lease(41, "db", since=600)
    assert zone(first, second, now=1400.0).addresses["db"] == ("10.0.0.40",)
    assert zone(first, second, now=1600.0).addresses["db"] == ("10.0.0.41",)


def test_a_client_that_has_another_address_now_is_found_there() -> None:
    old, new = lease(40, "db", expires=1500), lease(41, "db", mac="52:54:00:00:00:28", expires=1900)
    assert zone(old, new).addresses["db"] == ("10.0.0.41",)


def test_a_client_has_one_name_with_its_addresses_of_both_families() -> None:
    known = zone(lease(40, "db"), lease(40, "", ip="fd00::40"))
    assert known.addresses["db"] == ("10.0.0.40", "fd00::40")
    assert called(known, "fd00::40") == "db"


@pytest.mark.parametrize("name", ["localhost", "wpad", "isatap", ""])
def test_what_no_client_may_call_itself(name: str) -> None:
    assert called(zone(lease(40, name)), "10.0.0.40") is None


def test_declined_addresses_have_no_name() -> None:
    assert "db" not in zone(lease(40, "db", state="declined")).addresses


def test_services_and_texts_stand_in_the_domain() -> None:
    ldap = {"service": "LDAP", "protocol": "tcp", "target": "db", "port": 389}
    known = zone(domain="example.org", srv=[ldap], txt=[{"name": "_info", "value": "hello"}])
    assert known.services["_ldap._tcp.example.org"][0].target == "db.example.org"
    assert known.texts["_info.example.org"] == known.texts["_info"] == ("hello",)


@pytest.mark.parametrize(
    ("subnet", "inside", "outside"),
    [
        ("10.0.0.0/24", "10.0.0.77", "10.0.1.77"),
        ("10.1.16.0/20", "10.1.31.5", "10.1.32.5"),
        ("10.1.1.128/25", "10.1.1.200", "10.1.1.100"),
        ("10.0.0.0/8", "10.200.1.1", "11.0.0.1"),
        ("fd00:0:0:8::/61", "fd00:0:0:f::1", "fd00:0:0:10::1"),
    ],
)
def test_reverse_names_of_the_subnets_and_no_others_are_the_networks_own(
    subnet: str, inside: str, outside: str
) -> None:
    spec = NetworkSpec(mode="isolated", subnets=(subnet,))
    known = zone_of("web", spec, (), {}, 0.0)
    assert known.domain_of(ipaddress.ip_address(inside).reverse_pointer, asks=True) is not None
    assert known.domain_of(ipaddress.ip_address(outside).reverse_pointer, asks=True) is None
