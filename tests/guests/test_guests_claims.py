"""Addresses that a vNIC has claimed: they are its own as long as it is there, and nobody's who has them already."""

from __future__ import annotations

import pytest
from guest_views import MAC1, WEB1, Fleet, domain, row, vnic

from controller.model.host import HostSpec
from controller.model.network import NetworkSpec, PortGroup
from controller.model.port import port_name

NAME = port_name(WEB1, MAC1)


def running(reserved: tuple[str, ...] = (), learns: int = 2) -> Fleet:
    fleet = Fleet()
    group = PortGroup(learn_addresses=learns)
    fleet.networks["web"] = NetworkSpec(
        mode="isolated", portgroups={"default": group, "db": group, "plain": PortGroup()}, reserved_addresses=reserved
    )
    fleet.tell("kvm1", row(), domains=(domain(vnic()),))
    return fleet


def claim(fleet: Fleet, *addresses: str) -> tuple[str, ...]:
    """What the vNIC has after it has claimed these."""
    fleet.guests.claimed[WEB1, MAC1] = addresses
    fleet.evaluate({"kvm1"})
    assert fleet.known[NAME].addresses == fleet.known[NAME].learned
    return fleet.known[NAME].learned


def test_the_first_of_each_family_are_its_own_from_then_on() -> None:
    fleet = running()
    assert claim(fleet, "10.0.0.1", "fd00::1", "fe80::9", "10.0.0.2", "10.0.0.3", "fd00::2") == (
        "10.0.0.1", "fd00::1", "fe80::9", "10.0.0.2", "fd00::2"
    )  # fmt: skip
    assert claim(fleet, "10.0.0.4", "fe80::8") == ("10.0.0.1", "fd00::1", "fe80::9", "10.0.0.2", "fd00::2", "fe80::8")
    fleet.evaluate()
    assert fleet.guests.claimed == {}, "all of it is in the row now"


def test_they_outlive_the_controller_and_a_move_and_end_with_the_vnic() -> None:
    fleet = running()
    claim(fleet, "10.0.0.1")
    fleet.restart()
    fleet.evaluate()
    fleet.tell("kvm1", row(), domains=(domain(vnic()),))
    assert fleet.known[NAME].learned == ("10.0.0.1",)
    fleet.tell("kvm2", row(ofport=9), domains=None)
    fleet.tell("kvm1", domains=())
    assert (fleet.known[NAME].host, fleet.known[NAME].learned) == ("kvm2", ("10.0.0.1",))
    fleet.tell("kvm2", domains=None)
    assert NAME not in fleet.known
    fleet.tell("kvm1", row(), domains=(domain(vnic()),))
    assert fleet.known[NAME].learned == ()


def outside(vlan: int | None, **ways: str) -> Fleet:
    """A guest that learns addresses on a wire, and a host whose outside is the same wire where ``vlan`` is None."""
    fleet, group = running(learns=4), PortGroup(learn_addresses=4)
    fleet.networks["web"] = NetworkSpec(
        mode="bridge", physical_network="phys1", vlan=vlan, portgroups={"default": group}
    )
    external = {"uplink": "phys1", "address": "203.0.113.11/24", "gateway": "203.0.113.1", **ways}
    fleet.hosts["kvm2"] = HostSpec.model_validate(
        {"ovsdb": "unix:/kvm2", "uplinks": {"phys1": {"interface": "eth1"}}, "external": external}
    )
    return fleet


@pytest.mark.parametrize(("vlan", "has"), [(None, ()), (7, ("203.0.113.1", "203.0.113.11"))])
def test_what_is_a_hosts_outside_or_its_routers_is_learned_by_no_guest_of_that_wire(
    vlan: int | None, has: tuple[str, ...]
) -> None:
    fleet = outside(vlan)
    assert claim(fleet, "203.0.113.1", "203.0.113.11", "203.0.113.60") == (*has, "203.0.113.60")


@pytest.mark.parametrize(("vlan", "has"), [(None, ()), (7, ("203.0.113.60", "2001:db8::60"))])
def test_what_becomes_a_floating_address_is_no_guests_of_that_wire_any_more(
    vlan: int | None, has: tuple[str, ...]
) -> None:
    """And is one's again that claims it once it is none."""
    fleet = outside(vlan, address6="2001:db8::11/64", gateway6="fe80::1")
    others = ("203.0.113.61", "198.51.100.60", "2001:db8::61")
    both = ("203.0.113.60", "2001:db8::60")
    assert set(claim(fleet, *both, *others)) == {*both, *others}
    fleet.floating += [*both, "198.51.100.60"]  # the last one is of another wire
    fleet.evaluate()
    assert set(fleet.known[NAME].learned) == {*has, *others}
    fleet.floating.clear()
    assert set(claim(fleet, *both)) == {*both, *others}


@pytest.mark.parametrize(("vlan", "has"), [(None, ()), (7, ("203.0.113.60",))])
def test_what_becomes_an_address_of_a_pool_is_no_guests_of_that_wire_any_more(
    vlan: int | None, has: tuple[str, ...]
) -> None:
    fleet = outside(vlan)
    others = ("203.0.113.90", "2001:db8::60")
    assert set(claim(fleet, "203.0.113.60", *others)) == {"203.0.113.60", *others}
    pool = {"addresses": ["203.0.113.50-203.0.113.70"]}
    fleet.networks["nat"] = NetworkSpec.model_validate({"mode": "nat", "subnets": ["10.9.0.0/24"], "nat": pool})
    fleet.evaluate()
    assert set(fleet.known[NAME].learned) == {*has, *others}


def test_what_is_registered_or_reserved_later_is_learned_by_nobody_any_more() -> None:
    fleet = running()
    claim(fleet, "10.0.0.1", "10.0.0.2")
    fleet.register("other", "web2", "52:54:00:00:00:02", addresses=("10.0.0.1",))
    fleet.evaluate()
    assert fleet.known[NAME].addresses == ("10.0.0.2",)
    fleet.networks["web"] = fleet.networks["web"].model_copy(update={"reserved_addresses": ("10.0.0.2",)})
    fleet.evaluate()
    assert fleet.known[NAME].addresses == ()


def test_who_is_registered_with_addresses_or_elsewhere_has_learned_none() -> None:
    fleet = running()
    claim(fleet, "10.0.0.1")
    fleet.register("front", "web1", addresses=("10.0.0.7",))
    fleet.evaluate()
    assert (fleet.known["front"].addresses, fleet.known["front"].learned) == (("10.0.0.7",), ())
    fleet = running()
    claim(fleet, "10.0.0.1")
    fleet.tell("kvm1", row(profile="web:plain"), domains=(domain(vnic(portgroup="plain")),))
    assert fleet.known[NAME].addresses == ()
    fleet.tell("kvm1", row(), domains=(domain(vnic()),))
    assert fleet.known[NAME].addresses == ()


def test_one_that_is_registered_without_addresses_forgets_what_it_learned_when_it_stops() -> None:
    fleet = running()
    fleet.register("front", "web1")
    fleet.evaluate()
    fleet.guests.claimed[WEB1, MAC1] = ("10.0.0.1",)
    fleet.evaluate()
    assert fleet.known["front"].addresses == ("10.0.0.1",)
    fleet.tell("kvm1", domains=())
    assert (fleet.known["front"].state, fleet.known["front"].addresses) == ("absent", ())


def test_beside_a_lease_addresses_of_the_other_family_are_learned() -> None:
    fleet = running()
    fleet.leased["web", MAC1] = ("10.0.0.9",)
    fleet.guests.claimed[WEB1, MAC1] = ("10.0.0.1", "fd00::1", "fe80::9")
    fleet.evaluate()
    assert fleet.known[NAME].addresses == ("10.0.0.9", "fd00::1", "fe80::9")
    assert fleet.known[NAME].learned == ("fd00::1", "fe80::9")
    fleet.leased.clear()
    fleet.evaluate()
    assert fleet.known[NAME].addresses == ("fd00::1", "fe80::9")


def test_whoever_is_registered_with_addresses_learns_none_beside_a_lease() -> None:
    fleet = running()
    fleet.register("front", "web1", addresses=("10.0.0.7",))
    fleet.leased["web", MAC1] = ("10.0.0.9",)
    fleet.guests.claimed[WEB1, MAC1] = ("fd00::1",)
    fleet.evaluate()
    assert (fleet.known["front"].addresses, fleet.known["front"].learned) == (("10.0.0.7", "10.0.0.9"), ())
