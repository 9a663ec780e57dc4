"""A guest that is copied to another host: where it is, where it comes to, and what the operator is told."""

from __future__ import annotations

import pytest
from guest_views import MAC1, MAC2, WEB1, Fleet, domain, row, vnic

from controller.model.port import Incoming, PortStatus, port_name
from controller.ovsdb.host import VnicRow
from topology.judgement import Witness
from topology.places import TWICE_SECONDS, Places

NAME = port_name(WEB1, MAC1)
TO_KVM2 = Incoming(host="kvm2", tap="vnet0", ofport=9, iface_id="i2")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def there(**fields: object) -> VnicRow:
    return row(**{"ofport": 9, "iface_id": "i2", **fields})


def copying(libvirt: bool = True) -> Fleet:
    """web1 runs on kvm1 and is being copied to kvm2."""
    fleet = Fleet()
    known = (domain(vnic()),) if libvirt else None
    fleet.tell("kvm2", domains=() if libvirt else None)
    fleet.tell("kvm1", row(), domains=known)
    fleet.tell("kvm2", there(), domains=known)
    return fleet


def status(fleet: Fleet) -> PortStatus:
    return fleet.known[NAME]


def arrive(fleet: Fleet, host: str = "kvm2", ofport: int = 9) -> None:
    fleet.guests.hosts[host].arrived = frozenset({ofport})
    fleet.evaluate({host})


@pytest.mark.parametrize("libvirt", [True, False])
def test_the_place_that_it_is_being_copied_to_is_shown(libvirt: bool) -> None:
    fleet = copying(libvirt)
    found = status(fleet)
    assert (found.host, found.ofport, found.state, found.incoming) == ("kvm1", 5, "active", TO_KVM2)
    assert found.reason == "is being copied to kvm2"
    assert fleet.evaluate().statuses == {}


@pytest.mark.parametrize("libvirt", [True, False])
def test_its_first_frame_from_there_moves_it(libvirt: bool) -> None:
    fleet = copying(libvirt)
    arrive(fleet)
    found = status(fleet)
    assert (found.host, found.ofport, found.iface_id, found.incoming) == ("kvm2", 9, "i2", None)
    assert (found.state, found.reason) == ("active", "")
    fleet.tell("kvm1", domains=() if libvirt else None)
    assert (status(fleet).host, status(fleet).incoming) == ("kvm2", None)


def test_all_vnics_of_a_guest_come_with_the_first_of_them() -> None:
    fleet = Fleet()
    two = domain(vnic(), vnic(MAC2, "vnet1"))
    fleet.tell("kvm1", row(), row(mac=MAC2, interface="vnet1", ofport=6), domains=(two,))
    fleet.tell("kvm2", there(), row(mac=MAC2, interface="vnet1", ofport=10), domains=(two,))
    arrive(fleet, ofport=10)
    assert {found.host for found in fleet.known.values()} == {"kvm2"}


def test_an_abort_leaves_it_as_it_was() -> None:
    fleet = copying()
    fleet.tell("kvm2", domains=())
    assert (status(fleet).host, status(fleet).incoming, status(fleet).reason) == ("kvm1", None, "")


def test_a_place_that_it_left_is_none_to_come_to() -> None:
    fleet = copying()
    arrive(fleet)
    arrive(fleet, "kvm1", 5)
    assert (status(fleet).host, status(fleet).incoming) == ("kvm2", None)
    fleet.tell("kvm1", row(ofport=None), domains=(domain(vnic()),))  # its device goes before its row
    fleet.tell("kvm1", row(), domains=(domain(vnic()),))
    assert (status(fleet).host, status(fleet).incoming) == ("kvm2", None)


def test_it_may_come_back_in_a_new_place() -> None:
    fleet = copying()
    arrive(fleet)
    fleet.tell("kvm1", domains=())
    fleet.tell("kvm1", row(ofport=7, interface="vnet3"), domains=(domain(vnic(tap="vnet3")),))
    assert status(fleet).incoming == Incoming(host="kvm1", tap="vnet3", ofport=7, iface_id="i1")
    fleet.guests.hosts["kvm2"].arrived = frozenset()
    arrive(fleet, "kvm1", 7)
    assert (status(fleet).host, status(fleet).tap) == ("kvm1", "vnet3")


def test_libvirts_word_that_it_goes_on_in_the_old_place_wins_over_a_frame() -> None:
    fleet = copying()
    arrive(fleet)
    fleet.guests.places.settled[WEB1] = "kvm1"  # resumed there
    fleet.evaluate(set())
    assert (status(fleet).host, status(fleet).incoming) == ("kvm1", None)
    arrive(fleet)
    assert status(fleet).host == "kvm1"


def test_a_device_that_is_gone_moves_it_and_one_that_comes_again_may_call_it_back() -> None:
    fleet = copying(libvirt=False)
    fleet.tell("kvm1", row(ofport=None))
    assert (status(fleet).host, status(fleet).state) == ("kvm2", "active")
    fleet.tell("kvm1", row())
    assert (status(fleet).host, status(fleet).incoming) == (
        "kvm2", Incoming(host="kvm1", tap="vnet0", ofport=5, iface_id="i1")
    )  # fmt: skip
    arrive(fleet, "kvm1", 5)
    assert status(fleet).host == "kvm1"


def test_a_place_where_it_would_not_be_switched_is_no_place_to_come_to() -> None:
    fleet = copying()
    fleet.tell("kvm2", there(profile="web:db"), domains=(domain(vnic()),))
    assert status(fleet).incoming is None
    assert status(fleet).state == "active"
    assert status(fleet).reason.startswith("host kvm2 shows it too, where it is kept out: ")


def test_in_another_portgroup_it_is_told_and_not_prepared() -> None:
    fleet = copying()
    fleet.tell("kvm2", there(profile="web:db"), domains=(domain(vnic(portgroup="db")),))
    assert (status(fleet).incoming, status(fleet).portgroup) == (None, "default")
    assert "another network or portgroup" in status(fleet).reason


@pytest.mark.parametrize("gone", ["kvm1", "kvm2"])
def test_connections_that_are_lost_meanwhile_change_nothing(gone: str) -> None:
    fleet = copying()
    before = status(fleet)
    fleet.guests.hosts[gone].alive = False
    fleet.guests.hosts[gone].witness = Witness.AWAY
    assert fleet.evaluate({"kvm1", "kvm2"}).statuses == {}
    assert status(fleet) == before


@pytest.mark.parametrize("first", ["kvm1", "kvm2"])
def test_a_controller_that_starts_meanwhile_changes_nothing(first: str) -> None:
    fleet = copying()
    before = status(fleet)
    fleet.restart()
    told = {"kvm1": row(), "kvm2": there()}
    for host in (first, "kvm2" if first == "kvm1" else "kvm1"):
        fleet.tell(host, told[host], domains=(), witness=Witness.AWAY)
        assert status(fleet).model_copy(update={"mtu": before.mtu}) == before  # the MTU is known from libvirt alone
    for host, vnics in told.items():
        fleet.tell(host, vnics, domains=(domain(vnic()),))
    assert status(fleet) == before


def test_a_controller_that_starts_after_it_came_hears_of_it() -> None:
    fleet = copying()
    fleet.restart()
    fleet.guests.hosts["kvm2"].arrived = frozenset({9})
    fleet.tell("kvm2", there(), domains=(domain(vnic()),))
    assert status(fleet).host == "kvm2"
    fleet.tell("kvm1", row(), domains=(domain(vnic()),))
    assert (status(fleet).host, status(fleet).incoming) == ("kvm2", None), "kvm1 was heard late: it has left there"


def test_an_old_place_that_stays_is_told_and_does_not_call_it_back() -> None:
    fleet, clock = copying(), Clock()
    fleet.guests.places = Places(clock)
    fleet.evaluate()
    arrive(fleet)
    assert status(fleet).reason == ""
    assert fleet.guests.places.left == {"kvm1"}
    clock.now += TWICE_SECONDS + 1
    fleet.evaluate(set())
    assert "host kvm1 shows it too, and has not let go" in status(fleet).reason
    assert (status(fleet).host, status(fleet).state, status(fleet).incoming) == ("kvm2", "active", None)
    fleet.tell("kvm1", domains=())
    assert (status(fleet).reason, fleet.guests.places.left) == ("", set())


def test_of_three_places_none_is_prepared() -> None:
    fleet = Fleet(3)
    for name in fleet.hosts:
        fleet.tell(name, row(), domains=(domain(vnic()),))
    assert (status(fleet).host, status(fleet).incoming) == ("kvm1", None)
    assert "host kvm3 shows it too" in status(fleet).reason


def test_a_registered_guest_that_ends_while_it_is_copied_is_absent() -> None:
    fleet = Fleet()
    fleet.register("front", "web1")
    for name, place in (("kvm1", row()), ("kvm2", there())):
        fleet.tell(name, place, domains=(domain(vnic()),))
    assert fleet.known["front"].incoming == TO_KVM2
    fleet.tell("kvm2", domains=())
    fleet.tell("kvm1", domains=())
    assert (fleet.known["front"].state, fleet.known["front"].incoming) == ("absent", None)


def test_a_vnic_that_would_share_anothers_uplink_is_not_prepared_there() -> None:
    fleet = Fleet()
    raw = domain(vnic(network="lan", portgroup="passthrough"))
    beside = domain(vnic(MAC2, "vnet1", "lan", portgroup="isolated"), uuid=WEB1[:-1] + "2", name="web2")
    fleet.tell("kvm2", row(beside.uuid, MAC2, "vnet1", ofport=6, profile="lan:isolated"), domains=(beside,))
    fleet.tell("kvm1", row(profile="lan:passthrough"), domains=(raw,))
    fleet.tell("kvm2", row(beside.uuid, MAC2, "vnet1", ofport=6, profile="lan:isolated"),
               there(profile="lan:passthrough"), domains=(beside, raw))  # fmt: skip
    found = status(fleet)
    assert (found.host, found.state, found.incoming) == ("kvm1", "active", None)
    assert found.reason == "would be kept out on kvm2: web2 on host kvm2 uses it: the uplink to phys1"
    assert fleet.known[port_name(beside.uuid, MAC2)].state == "active"


def test_a_host_that_died_is_not_said_to_hold_on_to_a_guest() -> None:
    fleet, clock = Fleet(), Clock()
    fleet.guests.places = Places(clock)
    fleet.tell("kvm1", row(), domains=(domain(vnic()),))
    fleet.guests.hosts["kvm1"].alive = False
    fleet.tell("kvm2", there(), domains=(domain(vnic()),))
    clock.now += TWICE_SECONDS + 1
    fleet.evaluate()
    assert (status(fleet).host, status(fleet).reason) == ("kvm2", "")
    fleet.guests.hosts["kvm1"].alive = True
    fleet.evaluate()
    assert "host kvm1 shows it too" in status(fleet).reason
