"""Guests start, move, stop and come back; hosts, libvirt and the controller go away in between."""

from __future__ import annotations

from typing import Any

import pytest
from guest_views import MAC1, MAC2, WEB1, WEB2, Fleet, domain, row, vnic

from controller.model.port import port_name
from controller.ovsdb.host import VnicRow
from topology.domain_xml import DomainView
from topology.guests import HostView, strays
from topology.judgement import Witness

NAME = port_name(WEB1, MAC1)


def running() -> Fleet:
    fleet = Fleet()
    fleet.tell("kvm1", row(), domains=(domain(vnic()),))
    fleet.tell("kvm2", domains=())
    assert fleet.known[NAME].state == "active"
    return fleet


def test_a_life() -> None:
    fleet = Fleet()
    fleet.tell("kvm1", domains=(domain(vnic(tap=None)),))
    assert fleet.known[NAME].state == "pending"
    assert "not plugged" in fleet.known[NAME].reason
    fleet.tell("kvm1", row(ofport=None), domains=(domain(vnic()),))
    assert fleet.known[NAME].state == "pending"
    fleet.tell("kvm1", row(), domains=(domain(vnic()),))
    status = fleet.known[NAME]
    assert (status.state, status.vm, status.host, status.tap, status.ofport) == ("active", "web1", "kvm1", "vnet0", 5)
    assert (status.network, status.portgroup, status.mtu) == ("web", "default", 1450)
    fleet.tell("kvm1", row(), domains=(domain(vnic(link_up=False)),))
    assert fleet.known[NAME].state == "down"
    assert fleet.tell("kvm1", domains=()).gone == {NAME}
    assert fleet.known == {}


def test_what_is_known_is_not_written_again() -> None:
    fleet = running()
    changes = fleet.evaluate()
    assert (changes.statuses, changes.gone) == ({}, set())


def test_libvirt_goes_and_comes_back() -> None:
    fleet = running()
    changes = fleet.tell("kvm1", row(), domains=(), witness=Witness.AWAY)
    assert fleet.known[NAME].state == "active"
    assert not changes.gone
    fleet.tell("kvm1", row(ofport=6), domains=(), witness=Witness.AWAY)
    assert fleet.known[NAME].state == "pending", "another row than the one that libvirt had confirmed"
    fleet.tell("kvm1", row(ofport=6), domains=(domain(vnic()),))
    assert fleet.known[NAME].state == "active"


@pytest.mark.parametrize("registered", [False, True])
def test_ovsdb_alone_switches_nothing_before_libvirts_first_word(registered: bool) -> None:
    fleet = Fleet()
    if registered:
        fleet.register("front", WEB1)
    fleet.guests.hosts["kvm1"].vnics = {"vnet0": row()}
    fleet.guests.hosts["kvm1"].reached = True
    fleet.evaluate({"kvm1"})
    [status] = fleet.known.values()
    assert (status.state, status.reason) == ("pending", "waits for the host's libvirt to confirm it")
    fleet.tell("kvm1", row(), domains=(domain(vnic()),))
    [status] = fleet.known.values()
    assert status.state == "active"


def test_a_registered_guest_that_libvirt_does_not_run_is_kept_out() -> None:
    fleet = Fleet()
    fleet.register("front", WEB1)
    fleet.tell("kvm1", row(), domains=())
    assert fleet.known["front"].state == "quarantined"
    fleet.register("front", WEB1, libvirt=False)
    fleet.evaluate()
    assert fleet.known["front"].state == "active"


def test_a_host_that_nobody_knows_yet_stops_no_other() -> None:
    fleet = running()
    fleet.hosts["kvm3"] = fleet.hosts["kvm2"]
    fleet.evaluate({"kvm3"})
    fleet.evaluate()
    assert fleet.known[NAME].state == "active"
    fleet.guests.hosts["kvm3"] = HostView(Witness.NONE)
    fleet.tell("kvm3", row(WEB2, MAC2))
    assert fleet.known[port_name(WEB2, MAC2)].state == "active"


def test_libvirt_is_being_asked_about_a_new_guest() -> None:
    fleet = Fleet()
    fleet.guests.hosts["kvm1"].asking.add(WEB1)
    fleet.tell("kvm1", row(), domains=())
    assert fleet.known[NAME].state == "pending"
    assert fleet.guests.unknown_to_libvirt("kvm1") == {WEB1}
    fleet.guests.hosts["kvm1"].asking.clear()
    fleet.evaluate({"kvm1"})
    assert fleet.known[NAME].state == "quarantined"
    fleet.tell("kvm1", row(), domains=(domain(vnic()),))
    assert fleet.guests.unknown_to_libvirt("kvm1") == set()


@pytest.mark.parametrize("witness", [Witness.AWAY, Witness.PRESENT, Witness.NONE])
def test_the_controller_starts_again(witness: Witness) -> None:
    fleet = running()
    before = dict(fleet.known)
    fleet.restart()
    fleet.guests.hosts["kvm1"].witness = Witness.AWAY
    fleet.evaluate()
    assert fleet.known == before, "no host was reached yet"
    fleet.tell("kvm1", row(), domains=(domain(vnic()),) if witness is Witness.PRESENT else (), witness=witness)
    assert fleet.known[NAME].state == "active"


@pytest.mark.parametrize("vm", [WEB1, "web1"])
def test_a_registered_guest_stays_on_when_the_controller_starts_while_libvirt_is_away(vm: str) -> None:
    fleet = Fleet()
    fleet.register("front", vm, addresses=("10.0.0.1",))
    fleet.tell("kvm1", row(), domains=(domain(vnic()),))
    before = dict(fleet.known)
    assert before["front"].state == "active"
    assert before["front"].addresses == ("10.0.0.1",)
    fleet.restart()
    changes = fleet.tell("kvm1", row(), domains=(), witness=Witness.AWAY)
    assert [status.state for status in changes.statuses.values()] in ([], ["active"])
    assert fleet.known.keys() == {"front"}
    assert (fleet.known["front"].network, fleet.known["front"].vm) == ("web", "web1")


def test_a_name_that_another_guest_has_now_is_not_the_old_ones() -> None:
    fleet = Fleet()
    fleet.register("front", "web1")
    fleet.tell("kvm1", row(), domains=(domain(vnic()),))
    fleet.tell("kvm1", row(), row(WEB2, MAC1, "vnet1"), domains=(domain(vnic(tap="vnet1"), uuid=WEB2),))
    assert fleet.known["front"].vm_uuid == WEB2
    assert fleet.known[NAME].state == "quarantined"


def twin(fleet: Fleet, mac: str = MAC1) -> None:
    """Another guest of the same name: libvirt compares those of one host only."""
    fleet.tell("kvm2", row(WEB2, mac, ofport=9), domains=(domain(vnic(mac), uuid=WEB2),))


def test_what_is_registered_holds_wherever_the_guest_is_when_another_host_tells_its_name() -> None:
    fleet = Fleet()
    fleet.register("front", "web9", network="web", portgroup="db")
    fleet.tell("kvm1", domains=(domain(vnic()),))
    fleet.tell("kvm2", row())
    assert (fleet.known[NAME].host, fleet.known[NAME].portgroup) == ("kvm2", "default")
    fleet.tell("kvm1", domains=(domain(vnic(), name="web9"),))
    fleet.evaluate(set())
    assert (fleet.known["front"].host, fleet.known["front"].portgroup) == ("kvm2", "db")
    assert NAME not in fleet.known


def test_a_guest_of_the_same_name_and_mac_on_another_host_takes_nothing_from_the_registered_one() -> None:
    fleet = Fleet()
    fleet.register("front", "web1", addresses=("10.0.0.1",))
    fleet.tell("kvm1", row(), domains=(domain(vnic()),))
    before = fleet.known["front"]
    twin(fleet)
    late = fleet.known[port_name(WEB2, MAC1)]
    assert fleet.known["front"] == before
    assert (late.state, late.addresses) == ("quarantined", ())
    assert "its MAC is that of web1 on host kvm1" in late.reason
    fleet.tell("kvm1", domains=())
    fleet.evaluate(set())
    assert (fleet.known["front"].vm_uuid, fleet.known["front"].state) == (WEB2, "active"), "the only one of that name"
    assert fleet.known.keys() == {"front"}


@pytest.mark.parametrize("heard", [False, True])
def test_nor_when_the_controller_starts_while_the_registered_ones_host_is_away(heard: bool) -> None:
    fleet = Fleet()
    fleet.register("front", "web1")
    fleet.tell("kvm1", row(), domains=(domain(vnic()),))
    fleet.restart()
    if heard:
        fleet.tell("kvm1", row(), domains=(), witness=Witness.AWAY)
    twin(fleet)
    assert (fleet.known["front"].vm_uuid, fleet.known["front"].host) == (WEB1, "kvm1")
    assert fleet.known["front"].state == "active"
    assert fleet.known[port_name(WEB2, MAC1)].state == "quarantined"


def test_a_guest_that_is_called_like_anothers_uuid_takes_nothing_from_it() -> None:
    fleet = Fleet()
    fleet.register("front", WEB1, addresses=("10.0.0.1",))
    fleet.tell("kvm1", row(), domains=(domain(vnic()),))
    before = fleet.known["front"]
    fleet.tell("kvm2", row(WEB2, ofport=9), domains=(domain(vnic(), uuid=WEB2, name=WEB1),))
    assert fleet.known["front"] == before
    assert fleet.known[port_name(WEB2, MAC1)].state == "quarantined"


def test_a_guest_that_is_made_anew_is_the_registered_one_before_it_is_plugged_in() -> None:
    fleet = Fleet()
    fleet.register("front", "web1")
    fleet.tell("kvm1", row(WEB1), domains=(domain(vnic()),))
    fleet.tell("kvm1", domains=())
    assert fleet.known["front"].state == "absent"
    fleet.tell("kvm2", domains=(domain(vnic(tap=None), uuid=WEB2),))
    assert {name: (status.vm_uuid, status.state) for name, status in fleet.known.items()} == {
        "front": (WEB2, "pending")
    }  # fmt: skip


def test_guests_of_one_name_are_told_apart_by_the_macs_that_are_registered() -> None:
    fleet = Fleet()
    fleet.register("front", "web1")
    fleet.register("back", "web1", MAC2)
    fleet.tell("kvm1", row(), domains=(domain(vnic()),))
    twin(fleet, MAC2)
    assert {name: (status.vm_uuid, status.state) for name, status in fleet.known.items()} == {
        "front": (WEB1, "active"), "back": (WEB2, "active")
    }  # fmt: skip


def test_a_migration() -> None:
    fleet = running()
    fleet.tell("kvm2", row(ofport=9), domains=(domain(vnic()),))
    assert fleet.known[NAME].host == "kvm1", "it stands on both hosts, and has not moved yet"
    fleet.guests.places.settled[WEB1] = "kvm2"
    fleet.evaluate(set())
    assert (fleet.known[NAME].host, fleet.known[NAME].ofport) == ("kvm2", 9)
    fleet.tell("kvm1", domains=())
    assert (fleet.known[NAME].host, fleet.known[NAME].state) == ("kvm2", "active")


def test_a_migration_that_fails() -> None:
    fleet = running()
    fleet.tell("kvm2", row(ofport=9), domains=(domain(vnic()),))
    fleet.tell("kvm2", domains=())
    assert (fleet.known[NAME].host, fleet.known[NAME].state) == ("kvm1", "active")


def test_a_guest_is_started_elsewhere_after_its_host_died() -> None:
    fleet = running()
    fleet.guests.hosts["kvm1"].alive = False  # and what it told last is shown for ever
    fleet.guests.hosts["kvm1"].witness = Witness.AWAY
    fleet.evaluate({"kvm1"})
    assert fleet.known[NAME].state == "active", "it may run on where nobody hears of it"
    fleet.tell("kvm2", row(ofport=9), domains=(domain(vnic()),))
    status = fleet.known[NAME]
    assert (status.host, status.ofport, status.state) == ("kvm2", 9, "active")


def test_a_migration_on_from_a_host_that_is_alive_waits_for_libvirts_word() -> None:
    fleet = running()
    fleet.guests.hosts["kvm1"].witness = Witness.AWAY  # its other connections stand
    fleet.tell("kvm2", row(ofport=9), domains=(domain(vnic()),))
    assert fleet.known[NAME].host == "kvm1"


def test_what_libvirt_said_of_the_last_migration_does_not_decide_the_next() -> None:
    fleet = running()
    fleet.tell("kvm2", row(ofport=9), domains=(domain(vnic()),))
    fleet.guests.places.settled[WEB1] = "kvm2"
    fleet.evaluate(set())
    fleet.tell("kvm1", domains=())
    assert fleet.known[NAME].host == "kvm2"
    fleet.tell("kvm1", row(ofport=4), domains=(domain(vnic()),))  # on its way back
    fleet.guests.places.settled[WEB1] = "kvm1"
    fleet.evaluate(set())
    fleet.tell("kvm2", domains=())
    assert fleet.known[NAME].host == "kvm1"
    assert fleet.guests.places.settled == {}, "it is on one host alone: there is nothing to decide"
    fleet.tell("kvm1", domains=())
    fleet.tell("kvm2", row(ofport=9), domains=(domain(vnic()),))  # shut down, and started where nobody heard of it
    fleet.tell("kvm1", row(ofport=6), domains=(domain(vnic()),))
    assert fleet.known[NAME].host == "kvm2", "it only begins to move to kvm1, where it was settled once"


def test_a_guest_that_another_host_has_shown_all_along_is_there_once_its_own_dies() -> None:
    fleet = running()
    fleet.tell("kvm2", row(profile="web:db"), domains=(domain(vnic(portgroup="db")),))
    fleet.evaluate(set())
    assert (fleet.known[NAME].host, fleet.known[NAME].incoming) == ("kvm1", None)
    fleet.guests.hosts["kvm1"].alive = False
    fleet.evaluate({"kvm1"})
    assert (fleet.known[NAME].host, fleet.known[NAME].portgroup) == ("kvm2", "db")


def test_a_host_that_dies_keeps_its_vnics_until_it_is_seen_without_them() -> None:
    fleet = running()
    fleet.guests.hosts["kvm1"].reached = False
    fleet.guests.hosts["kvm1"].vnics = {}
    assert not fleet.evaluate({"kvm1"}).gone
    fleet.guests.hosts["kvm1"].domains = {}
    assert not fleet.evaluate({"kvm1"}).gone


def test_a_host_that_leaves_the_fleet_takes_its_vnics_along() -> None:
    fleet = running()
    del fleet.hosts["kvm1"]
    assert fleet.evaluate().gone == {NAME}
    fleet.guests.forget("kvm1")
    assert fleet.evaluate().statuses == {}


def test_two_vnics_of_one_mac_in_one_network() -> None:
    fleet = running()
    fleet.tell("kvm2", row(WEB2), domains=(domain(vnic(), uuid=WEB2, name="web2"),))
    late = fleet.known[port_name(WEB2, MAC1)]
    assert fleet.known[NAME].state == "active", "it was there first"
    assert late.state == "quarantined"
    assert "its MAC is that of web1 on host kvm1" in late.reason
    fleet.tell("kvm1", domains=())
    assert fleet.known[port_name(WEB2, MAC1)].state == "active"


def test_a_registered_mac_is_its_owners_though_another_guest_took_it_first() -> None:
    fleet = running()
    fleet.register("mine", WEB2)
    fleet.evaluate()
    assert fleet.known[NAME].state == "active", "its owner does not run"
    fleet.tell("kvm2", row(WEB2), domains=(domain(vnic(), uuid=WEB2, name="web2"),))
    assert fleet.known["mine"].state == "active"
    assert fleet.known[NAME].state == "quarantined"
    assert fleet.known[NAME].reason == "its MAC is that of web2 on host kvm2, which is registered with it"
    fleet.tell("kvm2", domains=())
    assert fleet.known[NAME].state == "active"


def newcomer(fleet: Fleet) -> str:
    """Another guest with the same MAC, on the other host; its state."""
    fleet.tell("kvm2", row(WEB2), domains=(domain(vnic(), uuid=WEB2, name="web2"),))
    return fleet.known[port_name(WEB2, MAC1)].state


def test_a_mac_is_not_taken_over_while_its_host_is_away() -> None:
    fleet = running()
    fleet.guests.hosts["kvm1"].alive = False
    fleet.guests.hosts["kvm1"].witness = Witness.AWAY
    assert newcomer(fleet) == "quarantined"


def test_a_mac_is_not_taken_over_before_its_host_was_asked() -> None:
    fleet = running()
    before = fleet.known[NAME]
    fleet.restart()
    assert newcomer(fleet) == "quarantined"
    assert "its MAC is that of web1 on host kvm1" in fleet.known[port_name(WEB2, MAC1)].reason
    assert fleet.known[NAME] == before
    fleet.tell("kvm1", domains=())  # now it was asked, and the guest is gone
    fleet.evaluate()
    assert fleet.known.keys() == {port_name(WEB2, MAC1)}
    assert fleet.known[port_name(WEB2, MAC1)].state == "active"


def test_a_passthrough_vnic_keeps_its_uplink_before_its_host_was_asked() -> None:
    fleet = Fleet(1)
    raw = domain(vnic(network="lan", portgroup="passthrough"))
    fleet.tell("kvm1", row(profile="lan:passthrough"), domains=(raw,))
    fleet.restart()
    changes = fleet.evaluate()
    assert (changes.statuses, changes.gone, fleet.known[NAME].state) == ({}, set(), "active")


def test_one_mac_in_two_networks_is_no_double() -> None:
    fleet = running()
    fleet.tell("kvm2", row(WEB2, profile="lan:isolated"),
               domains=(domain(vnic(network="lan", portgroup="isolated"), uuid=WEB2, name="web2"),))  # fmt: skip
    assert {status.state for status in fleet.known.values()} == {"active"}


def test_one_guest_with_one_mac_twice_on_a_host() -> None:
    fleet = Fleet()
    fleet.tell("kvm1", row(), row(interface="vnet1", ofport=6), domains=(domain(vnic(), vnic(tap="vnet1")),))
    assert fleet.known[NAME].state == "quarantined"
    assert "two vNICs of this guest with this MAC" in fleet.known[NAME].reason
    assert taps_kept_out(fleet) == [("kvm1", "vnet1", 6)]
    fleet.tell("kvm1", row(), row(interface="vnet1", ofport=6), domains=(domain(vnic()),))
    assert (fleet.known[NAME].state, taps_kept_out(fleet)) == ("active", [("kvm1", "vnet1", 6)])
    fleet.tell("kvm1", row(), domains=(domain(vnic()),))
    assert (fleet.known[NAME].state, taps_kept_out(fleet)) == ("active", [])


def test_what_another_host_shows_in_another_network_is_kept_out_there_and_known() -> None:
    fleet = running()
    fleet.tell("kvm2", row(profile="lab:default", ofport=8), domains=None)
    assert fleet.known[NAME].host == "kvm1"
    assert taps_kept_out(fleet) == [("kvm2", "vnet0", 8)]


def taps_kept_out(fleet: Fleet) -> list[tuple[str, str, int]]:
    """Who says that he is this vNIC too, and is plugged in."""
    return [(rival.host, rival.tap, rival.ofport) for rival in fleet.known[NAME].rivals]


OLD = row(interface="vnet7", ofport=None, error="could not open network device vnet7 (No such device)")


@pytest.mark.parametrize("domains", [None, (domain(vnic()),)])
@pytest.mark.parametrize("rows", [(row(), OLD), (OLD, row())])
def test_a_row_that_a_guest_left_behind_is_named_and_takes_nothing_from_it(
    rows: tuple[VnicRow, ...], domains: tuple[DomainView, ...] | None
) -> None:
    """Open vSwitch has no device for it; after a power loss it stands there until it is cleaned away."""
    fleet = Fleet()
    fleet.tell("kvm1", *rows, domains=domains)
    assert (fleet.known[NAME].state, fleet.known[NAME].tap) == ("active", "vnet0")
    assert "vnet7 of the same host says that it is this vNIC too" in fleet.known[NAME].reason
    fleet.tell("kvm1", row(), domains=domains)
    assert fleet.known[NAME].reason == ""


def test_the_row_that_libvirt_confirms_is_the_vnic_and_the_one_that_came_with_its_name_is_not() -> None:
    """libvirt uses an old row again when a tap gets its name: for some milliseconds it shows the former guest."""
    fleet = Fleet()
    fleet.tell("kvm1", row(interface="vnet7", ofport=9), row(), domains=(domain(vnic()),))
    assert (fleet.known[NAME].state, fleet.known[NAME].tap) == ("active", "vnet0")


def test_without_libvirt_the_first_of_two_stays_and_of_two_that_come_at_once_none_is_let_in() -> None:
    fleet = Fleet()
    fleet.tell("kvm1", row())
    fleet.tell("kvm1", row(interface="a-first-in-the-alphabet", ofport=9), row())
    assert (fleet.known[NAME].state, fleet.known[NAME].tap) == ("active", "vnet0")
    fresh = Fleet()
    fresh.tell("kvm1", row(interface="vnet7", ofport=9), row())
    assert fresh.known[NAME].state == "quarantined"


def test_one_beside_a_passthrough_vnic_is_kept_out() -> None:
    fleet = Fleet()
    raw = domain(vnic(network="lan", portgroup="passthrough"))
    fleet.tell("kvm1", row(profile="lan:passthrough"), domains=(raw,))
    beside = domain(vnic(MAC2, "vnet1", "lan", portgroup="isolated"), uuid=WEB2, name="web2")
    fleet.tell("kvm1", row(profile="lan:passthrough"), row(WEB2, MAC2, "vnet1", ofport=6, profile="lan:isolated"),
               domains=(raw, beside))  # fmt: skip
    assert fleet.known[NAME].state == "active"
    assert fleet.known[port_name(WEB2, MAC2)].state == "quarantined"


def test_a_registered_port_is_absent_when_its_guest_is_off() -> None:
    fleet = Fleet()
    fleet.register("front", "web1")
    fleet.tell("kvm1", row(), domains=(domain(vnic()),))
    changes = fleet.tell("kvm1", domains=())
    status = changes.statuses["front"]
    assert (status.state, status.host, status.ofport, status.tap) == ("absent", None, None, None)
    assert not changes.gone
    assert fleet.evaluate().statuses == {}


def test_a_registration_that_ends_leaves_a_row_of_the_guest() -> None:
    fleet = Fleet()
    fleet.register("front", "web1")
    fleet.tell("kvm1", row(), domains=(domain(vnic()),))
    fleet.registered.clear()
    assert fleet.evaluate().gone == {"front"}
    assert fleet.known.keys() == {NAME}


def test_a_network_comes_and_goes() -> None:
    fleet = running()
    web = fleet.networks.pop("web")
    fleet.evaluate()
    assert (fleet.known[NAME].state, fleet.known[NAME].reason) == ("quarantined", "there is no Network web")
    fleet.networks["web"] = web
    fleet.evaluate()
    assert fleet.known[NAME].state == "active"


def test_interfaces_without_an_identity_are_strays() -> None:
    fleet = Fleet()
    rows = [row(None, None, "eth9"), row("no uuid", MAC1, "tap1"), row(WEB1, "ff:ff:ff:ff:ff:ff", "tap2"), row()]
    fleet.tell("kvm1", *rows)
    assert strays(fleet.guests.hosts["kvm1"]) == ["eth9", "tap1", "tap2"]
    assert fleet.known.keys() == {NAME}


def unseen(fleet: Fleet, *rows: VnicRow, **fields: Any) -> tuple[str, str]:
    """State and reason of a vNIC that libvirt runs and OVSDB does not show as a guest's."""
    fleet.tell("kvm1", *rows, domains=(domain(vnic(**fields)),))
    [status] = fleet.known.values()
    return status.state, status.reason


def test_what_libvirt_runs_elsewhere_is_shown_and_left_alone() -> None:
    fleet = Fleet()
    state, reason = unseen(fleet, tap="macvtap0", type="direct", unmanaged="macvtap: not ours")
    assert state == "unmanaged"
    assert reason.startswith("macvtap: not ours; to have it switched, use <interface type='network'>")
    state, reason = unseen(fleet, bridge="br-ex")
    assert (state, reason.partition(";")[0]) == (
        "unmanaged", "on bridge br-ex, and fleetswitch switches what is on br-int"
    )  # fmt: skip
    state, reason = unseen(fleet)
    assert state == "pending"
    assert "not plugged into the integration bridge br-int: restart libvirtd there" in reason


@pytest.mark.parametrize("kind", ["ethernet", "vhostuser"])
def test_what_libvirt_leaves_to_others_to_plug_in(kind: str) -> None:
    fleet = Fleet(1)
    fields: dict[str, Any] = {"type": kind, "network": None, "bridge": None, "tap": "tap9", "portgroup": None}
    state, reason = unseen(fleet, **fields)
    assert state == "unmanaged"
    assert f"type {kind}, which libvirt plugs in nowhere: add its port to br-int, give it external_ids vm-id" in reason
    state, reason = unseen(fleet, row(None, None, "tap9", profile=None), **fields)
    assert state == "pending"
    assert "tap9 is on br-int, and nothing there says whose it is" in reason
    fleet.register("front", "web1")
    fleet.tell("kvm1", row(interface="tap9", profile=None), domains=(domain(vnic(**fields)),))
    assert (fleet.known["front"].state, fleet.known["front"].network) == ("active", "web")


def test_a_registration_of_what_is_unmanaged_is_told_to_have_no_effect() -> None:
    fleet = Fleet()
    fleet.register("front", "web1", portgroup="db", addresses=("10.0.0.1",))
    fleet.tell("kvm1", domains=(domain(vnic(unmanaged="macvtap: not ours")),))
    assert fleet.known["front"].state == "unmanaged"
    assert fleet.known["front"].reason.endswith(". Its registration for web:db has no effect")
    assert fleet.known["front"].addresses == ()


def test_a_mac_that_libvirt_has_otherwise_confirms_nothing() -> None:
    fleet = Fleet()
    fleet.tell("kvm1", row(mac=MAC2), domains=(domain(vnic(MAC1)),))
    assert fleet.known[port_name(WEB1, MAC2)].state == "quarantined"


def test_what_a_guest_left_behind_does_not_hinder_it_when_it_runs_again() -> None:
    """Its host's OVSDB was away when it ended, so libvirt could not take its row away; Open vSwitch keeps the port."""
    fleet = running()
    left = row(device=False)
    fleet.tell("kvm1", left, domains=())
    assert fleet.known[NAME].state == "quarantined"
    assert fleet.guests.left_behind("kvm1").keys() == {"vnet0"}
    again = row(interface="vnet7", ofport=9)
    fleet.tell("kvm1", left, again, domains=(domain(vnic(tap="vnet7")),))
    assert (fleet.known[NAME].state, fleet.known[NAME].ofport) == ("active", 9)
    assert fleet.guests.left_behind("kvm1").keys() == {"vnet0"}
    alone = Fleet()
    alone.tell("kvm1", left, again)  # nobody but OVSDB to ask
    assert (alone.known[NAME].state, alone.known[NAME].ofport) == ("active", 9)
    alone.tell("kvm1", left)
    assert (alone.known[NAME].state, alone.known[NAME].reason) == ("pending", "its device is gone")


def test_what_is_left_of_a_guest_that_ended_twice_goes_too() -> None:
    fleet = Fleet(1)
    fleet.tell("kvm1", row(device=False), row(interface="vnet1", ofport=6, device=False), domains=())
    assert fleet.known[NAME].state == "quarantined"
    assert fleet.guests.left_behind("kvm1").keys() == {"vnet0", "vnet1"}


def test_a_running_guests_row_is_not_left_behind_though_its_device_is_gone() -> None:
    fleet = running()
    fleet.tell("kvm1", row(device=False), domains=(domain(vnic()),))
    assert fleet.guests.left_behind("kvm1") == {}


def test_a_libvirt_that_answers_for_two_hosts_takes_no_guest_off_the_one_where_it_is_plugged_in() -> None:
    fleet = running()
    fleet.tell("kvm2", domains=(domain(vnic()),))  # its address leads to kvm1's libvirt
    assert (fleet.known[NAME].host, fleet.known[NAME].state) == ("kvm1", "active")
    fleet.guests.places.settled[WEB1] = "kvm2"
    fleet.evaluate()
    assert (fleet.known[NAME].host, fleet.known[NAME].state) == ("kvm1", "active")
