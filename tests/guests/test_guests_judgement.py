"""Every verdict on a vNIC, and the reason that the operator reads."""

from __future__ import annotations

from typing import Any

import pytest
from guest_views import MAC1, NETWORKS, WEB1, host, row, vnic

from controller.model.network import NetworkSpec, PortGroup
from controller.model.port import PortSpec
from controller.pipeline.ports import TUNNEL_PORTS, UPLINK_FIRST
from topology.disregarded import disregarded
from topology.judgement import Evidence, Verdict, Witness, judge

REGISTERED = PortSpec(vm=WEB1, mac=MAC1, network="web", portgroup="db")
APART = REGISTERED.model_copy(update={"libvirt": False})  # of a guest that something else than libvirt runs


def verdict(
    *, witness: Witness = Witness.PRESENT, xml: Any = "web", registered: PortSpec | None = None,
    confirmed: tuple[str, str] | None = None, hosts: dict[str, Any] | None = None, xml_fields: Any = None,
    socket: tuple[str, str | None] | None = None,
    **fields: Any,
) -> Verdict:  # fmt: skip
    view = vnic(network=xml, **(xml_fields or {})) if xml != "unseen" else None
    evidence = Evidence(row(**fields), view, witness, registered, confirmed, socket)
    return judge(evidence, host(**(hosts or {})), NETWORKS, dict.fromkeys(NETWORKS, 1450))


def test_all_agree() -> None:
    assert verdict() == Verdict("active", "", "web", "default")
    assert verdict(profile="web:db", xml_fields={"portgroup": "db"}) == Verdict("active", "", "web", "db")
    assert verdict(xml_fields={"portgroup": None}) == Verdict("active", "", "web", "default")
    assert verdict(registered=REGISTERED, profile="web:db", xml_fields={"portgroup": "db"}).state == "active"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"profile": "web:db"}, "OVSDB says profile web:db, its domain XML web:default"),
        ({"xml": None}, "claims profile web:default, but its domain XML names no network"),
        ({"profile": None}, "has no profile: Network web has no portgroup default on this host"),
        ({"profile": None, "xml": None}, "names no network; attach it with"),
        ({"profile": "no profile", "xml": None}, "names no network"),
        ({"xml": "unseen"}, "the host's libvirt runs no such vNIC; if it is none of libvirt's, register it so"),
        ({"xml": "unseen", "registered": REGISTERED, "profile": "web:db"}, "the host's libvirt runs no such vNIC"),
        ({"xml": "unseen", "registered": APART}, "is registered for web:db, but OVSDB says web:default"),
        ({"registered": REGISTERED}, "is registered for web:db, but OVSDB says web:default"),
        ({"profile": "gone:default", "xml": "gone"}, "there is no Network gone"),
        ({"profile": "web:gone", "xml_fields": {"portgroup": "gone"}}, "has no portgroup gone; it has: default, db"),
        ({"witness": Witness.NONE, "xml": "unseen", "profile": None}, "names no network"),
        ({"witness": Witness.AWAY, "xml": "unseen", "registered": APART}, "is registered for web:db, but OVSDB"),
        (
            {"witness": Witness.AWAY, "xml": "unseen", "registered": REGISTERED, "confirmed": ("web", "default")},
            "is registered for web:db, but OVSDB",
        ),
        ({"ofport": UPLINK_FIRST}, f"has OpenFlow port {UPLINK_FIRST}, which is reserved"),
        ({"ofport": TUNNEL_PORTS["geneve"]}, "which is reserved"),
    ],
)
def test_kept_out(fields: dict[str, Any], reason: str) -> None:
    found = verdict(**fields)
    assert found.state == "quarantined"
    assert reason in found.reason


@pytest.mark.parametrize("kind", ["private", "vepa", "passthrough"])
def test_kept_out_where_there_is_no_uplink(kind: str) -> None:
    fields = {"xml": "lan", "profile": f"lan:{kind}", "xml_fields": {"portgroup": kind}}
    assert verdict(**fields).state == "active"
    assert verdict(**fields, hosts={"uplinks": {}}) == Verdict(
        "quarantined", "the host has no uplink to phys1", "lan", kind
    )


def test_active_with_a_remark() -> None:
    lonely = verdict(xml="lan", profile="lan:isolated", xml_fields={"portgroup": "isolated"}, hosts={"uplinks": {}})
    assert lonely == Verdict("active", "the host has no uplink to phys1: it reaches this host only", "lan", "isolated")
    assert verdict(hosts={"tunnel_ip": None}).reason == "the host has no tunnel_ip: it reaches this host only"
    assert verdict(xml="lab", profile="lab:default", hosts={"tunnel_ip": None}).reason == ""


def test_not_yet() -> None:
    assert verdict(ofport=None) == Verdict("pending", "Open vSwitch has not plugged it in yet", "web", "default")
    assert verdict(ofport=None, error="no such device").reason == "no such device"
    assert verdict(xml_fields={"link_up": False}).state == "down"


def test_libvirt_is_away() -> None:
    away: dict[str, Any] = {"witness": Witness.AWAY, "xml": "unseen"}
    assert verdict(**away) == Verdict("pending", "waits for the host's libvirt to confirm it")
    assert verdict(**away, confirmed=("web", "default")) == Verdict("active", "", "web", "default")
    assert verdict(**away, registered=REGISTERED, profile="web:db").state == "pending", "nobody confirmed it yet"
    known: dict[str, Any] = {**away, "registered": REGISTERED, "confirmed": ("web", "db")}
    assert verdict(**known, profile="web:db") == Verdict("active", "", "web", "db")
    assert verdict(**known, profile=None) == Verdict("active", "", "web", "db")


def test_a_host_without_libvirt() -> None:
    alone: dict[str, Any] = {"witness": Witness.NONE, "xml": "unseen"}
    assert verdict(**alone) == Verdict("active", "", "web", "default")
    assert verdict(**alone, registered=REGISTERED, profile=None) == Verdict("active", "", "web", "db")


def test_a_registration_speaks_for_a_vnic_without_a_network() -> None:
    assert verdict(xml=None, profile=None, registered=REGISTERED) == Verdict("active", "", "web", "db")
    assert verdict(xml=None, profile="web:db", registered=REGISTERED) == Verdict("active", "", "web", "db")


@pytest.mark.parametrize("witness", list(Witness))
@pytest.mark.parametrize("profile", ["web:db", None])
def test_a_guest_that_is_none_of_libvirts_is_registered_so(witness: Witness, profile: str | None) -> None:
    assert verdict(xml="unseen", witness=witness, profile=profile, registered=APART) == Verdict(
        "active", "", "web", "db"
    )


@pytest.mark.parametrize("profile", ["web:db", None])
def test_a_registration_alone_plugs_nothing_in_where_libvirt_answers(profile: str | None) -> None:
    assert verdict(xml="unseen", profile=profile, registered=REGISTERED).state == "quarantined"


def test_an_ordinary_port_is_not_reserved() -> None:
    assert verdict(ofport=UPLINK_FIRST - 1).state == "active"


def test_an_mtu_that_does_not_fit_is_told() -> None:
    assert "its MTU is 1500 and the network carries 1450" in verdict(xml_fields={"mtu": None}).reason
    assert "its MTU is 9000" in verdict(xml_fields={"mtu": 9000}).reason
    assert verdict(xml_fields={"mtu": 1400}).reason == ""


def test_what_its_xml_asks_for_in_vain_is_told_and_it_is_switched_all_the_same() -> None:
    tagged = verdict(xml_fields={"vlan_tags": (77,), "mtu": 1400})
    assert (tagged.state, tagged.reason) == (
        "active", "<vlan> of its domain XML (77) plays no part: the portgroup says its VLANs"
    )  # fmt: skip
    limited = verdict(xml_fields={"bandwidth": True, "mtu": 1400})
    assert (limited.state, limited.reason) == ("active", "<bandwidth> of its domain XML is not honoured yet")


def vain(group: PortGroup, **xml_fields: Any) -> str:
    return "; ".join(disregarded(vnic(**xml_fields), NetworkSpec(mode="isolated", vlan=5), group))


@pytest.mark.parametrize(
    ("group", "fields", "told"),
    [
        ({}, {"vlan_tags": (5,)}, ""),
        ({}, {"vlan_tags": (6,)}, "<vlan> of its domain XML (6) plays no part"),
        ({"vlan": 6}, {"vlan_tags": (6,)}, ""),
        ({"trunk": (6, 7)}, {"vlan_tags": (6,)}, "<vlan> of its domain XML (6)"),
        ({"trunk": (6, 7)}, {"vlan_tags": (7, 6), "vlan_trunk": True}, ""),
        ({"trunk": (6,)}, {"vlan_tags": (6,)}, "<vlan> of its domain XML (6)"),
        ({"trunk": (6, 7), "native": 6}, {"vlan_tags": (6, 7), "vlan_trunk": True}, "<vlan>"),
        (
            {"trunk": (6, 7), "native": 6},
            {"vlan_tags": (6, 7), "vlan_trunk": True, "native": (6, "untagged")}, "",
        ),
        ({}, {"filter": "clean-traffic"}, "<filterref> of its domain XML (clean-traffic) plays no part: the portgroup"),
        ({"filters": ["clean-traffic"]}, {"filter": "clean-traffic"}, ""),
        ({"filters": []}, {"filter": "clean-traffic"}, "<filterref>"),
        ({}, {"isolated": True}, "<port isolated='yes'/> of its domain XML plays no part"),
        ({"isolation": "isolated"}, {"isolated": True}, ""),
        ({}, {"trust_guest_rx_filters": True}, "trustGuestRxFilters of its domain XML plays no part"),
        ({"filters": []}, {"trust_guest_rx_filters": True}, ""),
        ({"learning": True}, {"trust_guest_rx_filters": True}, ""),
    ],
)  # fmt: skip
def test_nothing_of_its_xml_is_passed_over_in_silence(group: dict[str, Any], fields: dict[str, Any], told: str) -> None:
    found = vain(PortGroup(**group), **fields)
    assert found == "" if told == "" else told in found


def test_a_hook_that_has_the_xml_is_as_good_as_libvirt() -> None:
    hook = Witness.HOOK
    assert verdict(witness=hook) == Verdict("active", "", "web", "default")
    assert "domain XML names no network" in verdict(witness=hook, xml=None).reason
    assert "OVSDB says profile web:db, its domain XML web:default" in verdict(witness=hook, profile="web:db").reason
    assert "has no profile: Network web has no portgroup default" in verdict(witness=hook, profile=None).reason
    assert verdict(witness=hook, xml=None, profile=None, registered=REGISTERED) == Verdict("active", "", "web", "db")


def test_a_hook_that_knows_where_it_was_plugged_in() -> None:
    told: dict[str, Any] = {"witness": Witness.HOOK, "xml": "unseen"}
    assert verdict(**told, socket=("web", None)) == Verdict("active", "", "web", "default")
    assert verdict(**told, socket=("web", "db"), profile="web:db") == Verdict("active", "", "web", "db")
    forged = verdict(**told, socket=("web", "db"), profile="web:default")
    assert (forged.state, forged.reason) == ("quarantined", "OVSDB says profile web:default, its domain XML web:db")
    misspelt = verdict(**told, socket=("web", "bd"), profile=None)
    assert "has no profile: Network web has no portgroup bd" in misspelt.reason
    assert verdict(**told, socket=("web", "default"), registered=REGISTERED).state == "quarantined"


def test_a_hook_that_says_nothing() -> None:
    """What a running guest got on a bridge, with a profile that anybody can write."""
    silent: dict[str, Any] = {"witness": Witness.HOOK, "xml": "unseen"}
    found = verdict(**silent)
    assert found.state == "pending"
    assert "the host's hook has not reported it" in found.reason
    assert verdict(**silent, confirmed=("web", "default")) == Verdict("active", "", "web", "default")
    assert verdict(**silent, registered=REGISTERED, profile="web:db") == Verdict("active", "", "web", "db")
    assert verdict(**silent, registered=REGISTERED).state == "quarantined", "it claims something else"
    assert verdict(**silent, registered=APART, profile=None) == Verdict("active", "", "web", "db")


def test_what_a_hook_says_plays_no_part_where_libvirt_answers_for_itself() -> None:
    assert verdict(witness=Witness.AWAY, xml="unseen", socket=("web", None)).state == "pending"
