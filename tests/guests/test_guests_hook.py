"""Hosts without a libvirt connection whose hook reports: who is believed when."""

from __future__ import annotations

import base64
import gzip
from unittest.mock import patch

import pytest
from guest_views import MAC1, MAC2, WEB1, Fleet, row

from controller.ovsdb.host import HookRow, VnicRow
from topology.hook_reports import port_key
from topology.judgement import Witness

IFACE = "00000000-0000-4000-8000-0000000000ff"
HOOK = HookRow("1 no")


def packed(xml: str) -> str:
    return base64.b64encode(gzip.compress(xml.encode())).decode()


def reported(network: str | None = "web", **fields: object) -> VnicRow:
    """A vNIC with its guest's XML beside it."""
    source = f"network='{network}'" if network else "bridge='br-int'"
    xml = f"""<domain id='1'><name>web1</name><uuid>{WEB1}</uuid><devices>
      <interface type='bridge'><mac address='{MAC1}'/>
      <source {source}/><virtualport type='openvswitch'><parameters interfaceid='{IFACE}'/></virtualport>
      <target dev='vnet0'/><mtu size='1450'/></interface></devices></domain>"""
    return row(iface_id=IFACE, report=packed(xml), **fields)


def plugged(mac: str = MAC2, group: str = "db") -> dict[str, str]:
    """What the network's hook wrote of a vNIC."""
    xml = f"""<hookData><network><name>web</name></network><networkport>
      <owner><name>web1</name><uuid>{WEB1}</uuid></owner>
      <group>{group}</group><mac address='{mac}'/><virtualport type='openvswitch'><parameters interfaceid='{IFACE}'/>
      </virtualport></networkport></hookData>"""
    return {port_key(WEB1, mac): packed(xml)}


class Hooked(Fleet):
    """One host, kvm1."""

    def __init__(self) -> None:
        super().__init__(hosts=1)

    def tells(self, hook: HookRow, *rows: VnicRow) -> None:
        view = self.guests.hosts["kvm1"]
        view.alive = view.reached = True
        view.vnics, view.hook = {each.interface: each for each in rows}, hook
        view.without_libvirt("kvm1")
        self.evaluate({"kvm1"})

    def found(self, mac: str = MAC1) -> tuple[str, str | None, str | None]:
        status = next(status for status in self.known.values() if status.mac == mac)
        return status.state, status.vm, status.portgroup


def test_the_guests_name_and_portgroup_are_known() -> None:
    fleet = Hooked()
    fleet.tells(HOOK, reported())
    assert fleet.guests.hosts["kvm1"].witness is Witness.HOOK
    assert fleet.found() == ("active", "web1", "default")


def test_a_registration_by_the_guests_name_finds_it() -> None:
    fleet = Hooked()
    fleet.register("mine", "web1", addresses=("10.0.0.5",))
    fleet.tells(HOOK, reported())
    assert fleet.known["mine"].addresses == ("10.0.0.5",)


def test_a_forged_profile_is_found_out() -> None:
    fleet = Hooked()
    fleet.tells(HOOK, reported(network=None))
    assert fleet.found()[0] == "quarantined"
    fleet.tells(HOOK, row(WEB1, MAC2, "vnet1", iface_id=IFACE))
    assert fleet.found(MAC2)[0] == "pending", "hot-plugged on a bridge, nobody reports it"


def test_a_vnic_that_a_running_guest_gets() -> None:
    fleet = Hooked()
    fleet.tells(HookRow("1 no", plugged()), reported(), row(WEB1, MAC2, "vnet1", iface_id=IFACE, profile="web:db"))
    assert fleet.found(MAC2) == ("active", "web1", "db")
    assert fleet.found() == ("active", "web1", "default"), "the other is as it was"


def test_who_was_switched_before_there_was_a_hook_stays_so() -> None:
    fleet = Hooked()
    fleet.tells(HookRow(), row())
    assert fleet.found()[0] == "active"
    fleet.tells(HOOK, row())
    assert fleet.found()[0] == "active", "its flows are not taken off a guest that runs"
    fleet.tells(HOOK, row(ofport=6))
    assert fleet.found()[0] == "pending", "another start of it"


def test_a_controller_that_starts_again_believes_what_is_still_there() -> None:
    fleet = Hooked()
    fleet.tells(HookRow("1 no", plugged()), reported(), row(WEB1, MAC2, "vnet1", iface_id=IFACE, profile="web:db"))
    before = dict(fleet.known)
    fleet.restart()
    fleet.tells(HookRow("1 no", plugged()), reported(), row(WEB1, MAC2, "vnet1", iface_id=IFACE, profile="web:db"))
    assert fleet.known == before


def test_where_there_is_no_hook_any_more_ovsdb_decides() -> None:
    fleet = Hooked()
    fleet.tells(HOOK, row())
    assert fleet.found()[0] == "pending"
    fleet.tells(HookRow(), row())
    assert fleet.found()[0] == "active"


def test_words_on_vnics_that_are_not_there_are_left_behind() -> None:
    fleet = Hooked()
    words = {**plugged(), **plugged(MAC1)}
    fleet.tells(HookRow("1 no", words), reported())
    assert fleet.guests.left_behind("kvm1").keys() == {port_key(WEB1, MAC2)}
    fleet.tells(HookRow("1 no", words), reported(), row(WEB1, MAC2, "vnet1", iface_id=IFACE, profile="web:db"))
    assert fleet.guests.left_behind("kvm1") == {}


GONE = {"ofport": None, "error": "could not open network device vnet0 (No such device)"}


def test_rows_without_a_device_are_left_behind_whatever_was_said_of_them_before() -> None:
    """The host lost its power, and its rows stand there with their reports."""
    fleet = Hooked()
    fleet.tells(HOOK, reported(**GONE))
    assert fleet.guests.left_behind("kvm1").keys() == {"vnet0"}
    fleet.tells(HOOK, reported(device=False))
    assert fleet.guests.left_behind("kvm1").keys() == {"vnet0"}
    assert fleet.guests.unclear("kvm1") == []
    for stays in (reported(), reported(ofport=None), reported(ofport=None, error="no room for more ports")):
        fleet.tells(HOOK, stays)
        assert fleet.guests.left_behind("kvm1") == {}


def test_without_a_hook_they_stay_and_are_told() -> None:
    fleet = Hooked()
    fleet.tells(HookRow(), row(**GONE), row(None, None, "by-hand", **GONE))
    assert fleet.guests.left_behind("kvm1") == {}
    assert fleet.guests.unclear("kvm1") == ["vnet0"]


def test_the_rows_of_guests_that_are_none_of_libvirts_stay() -> None:
    fleet = Hooked()
    fleet.register("foreign", "web1", libvirt=False)
    fleet.tells(HOOK, reported(**GONE))
    assert fleet.guests.left_behind("kvm1") == {}
    fleet.guests.forget("kvm2")
    assert fleet.guests.left_behind("kvm1") == {}, "before the next judgement, too"
    for _ in range(2):
        with patch("topology.guests.Guests._rename", side_effect=ZeroDivisionError), pytest.raises(ZeroDivisionError):
            fleet.evaluate()
        assert fleet.guests.left_behind("kvm1") == {}, "and when that fails"
