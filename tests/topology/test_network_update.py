"""One element of a network changed, by the words of virsh net-update."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.errors import InvalidInput
from controller.model.documents import dump_spec
from controller.model.network import NetworkSpec
from topology.network_rules import RULES
from topology.network_update import COMMANDS, SECTIONS, update_network

A, B = "52:54:00:00:00:0a", "52:54:00:00:00:0b"
SPEC: dict[str, Any] = {
    "mode": "nat",
    "subnets": ["10.0.0.1/24", "10.0.1.1/24", "fd00::1/64"],
    "dhcp": {"range": [["10.0.0.100", "10.0.0.200"]], "hosts": [{"mac": A, "ip": "10.0.0.10", "name": "web1"}],
             "lease": 7200},
    "dns": {
        "hosts": [{"ip": "10.0.0.5", "names": ["printer", "lp"]}],
        "txt": [{"name": "_a.b", "value": "x"}],
        "srv": [{"service": "ldap", "protocol": "tcp", "target": "db", "port": 389}],
    },
    "portgroups": {"db": {"vlan": 20, "filters": ["clean-traffic"], "isolation": "isolated"}},
}  # fmt: skip


def updated(command: str, section: str, xml: str, **spec: Any) -> dict[str, Any]:
    return dump_spec(update_network("lab", NetworkSpec.model_validate(SPEC | spec), command, section, xml).spec)


def refused(command: str, section: str, xml: str, **spec: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        updated(command, section, xml, **spec)
    assert all(problem.remedy for problem in caught.value.problems)
    return str(caught.value)


@pytest.mark.parametrize(
    ("section", "xml", "holder", "field", "item"),
    [
        ("ip-dhcp-host", f"<host mac='{B.upper()}' ip='10.0.1.9' name='w'/>", "dhcp", "hosts",
         {"mac": B, "ip": "10.0.1.9", "name": "w"}),
        ("ip-dhcp-host", "<host id='0:3:0:1:5' ip='fd00::9'/>", "dhcp", "hosts",
         {"id": "00:03:00:01:05", "ip": "fd00::9"}),
        ("ip-dhcp-range", "<range start='10.0.1.20' end='10.0.1.30'/>", "dhcp", "range", ["10.0.1.20", "10.0.1.30"]),
        ("ip-dhcp-range", "<range start='fd00::20' end='fd00::30'/>", "dhcp", "range6", ["fd00::20", "fd00::30"]),
        ("dns-host", "<host ip='10.0.0.6'><hostname>scan</hostname></host>", "dns", "hosts",
         {"ip": "10.0.0.6", "names": ["scan"]}),
        ("dns-txt", "<txt name='note' value='y'/>", "dns", "txt", {"name": "note", "value": "y"}),
        ("dns-srv", "<srv service='sip' protocol='udp' target='.'/>", "dns", "srv",
         {"service": "sip", "protocol": "udp"}),
    ],
)  # fmt: skip
def test_what_is_added_is_there_and_can_be_taken_away(
    section: str, xml: str, holder: str, field: str, item: object
) -> None:
    before = SPEC[holder].get(field, [])
    for command, wanted in (("add", [*before, item]), ("add-last", [*before, item]), ("add-first", [item, *before])):
        spec = updated(command, section, xml)
        assert spec[holder][field] == wanted
        assert {name: value for name, value in spec.items() if name != holder} == {
            name: value for name, value in SPEC.items() if name != holder
        }
        assert spec[holder] | {field: before} == SPEC[holder] | {field: before}
    assert updated("delete", section, xml, **spec) == updated("add", "dns-txt", "<txt name='z' value='z'/>") | {
        "dns": SPEC["dns"]
    }
    assert "already" in refused("add", section, xml, **spec)


def test_portgroups() -> None:
    xml = "<portgroup name='web'><vlan><tag id='30'/></vlan></portgroup>"
    spec = updated("add", "portgroup", xml)
    assert spec["portgroups"] == {**SPEC["portgroups"], "web": {"vlan": 30}}
    assert "name web" in refused("add", "portgroup", xml, **spec)
    # What the XML has no words for is not lost.
    changed = updated("modify", "portgroup", xml.replace("web", "db"))["portgroups"]["db"]
    assert changed == {"vlan": 30, "filters": ["clean-traffic"], "isolation": "isolated"}
    assert updated("delete", "portgroup", "<portgroup name='db'/>").get("portgroups", {}) == {}
    assert "there is no <portgroup name='x'>" in refused("delete", "portgroup", "<portgroup name='x'/>")
    assert "there is no <portgroup name='x'>" in refused("modify", "portgroup", "<portgroup name='x'/>")
    first = updated("add", "portgroup", xml.replace("name='web'", "name='web' default='yes'"))
    assert first["portgroups"]["default"] == first["portgroups"]["web"] == {"vlan": 30}
    other = "<portgroup name='x' default='yes'/>"
    assert "name default" in refused("add", "portgroup", other, **first)


def test_a_reservation_is_changed_by_what_its_client_is_known_by() -> None:
    spec = updated("add", "ip-dhcp-host", f"<host mac='{B}' ip='10.0.0.11'/>")
    hosts = updated("modify", "ip-dhcp-host", f"<host mac='{A}' ip='10.0.0.12'/>", **spec)["dhcp"]["hosts"]
    assert hosts == [{"mac": A, "ip": "10.0.0.12"}, {"mac": B, "ip": "10.0.0.11"}]
    assert "reserves ip 10.0.0.11 twice" in refused(
        "modify", "ip-dhcp-host", f"<host mac='{A}' ip='10.0.0.11'/>", **spec
    )
    assert "there is no" in refused("modify", "ip-dhcp-host", "<host mac='52:54:00:00:00:0c' ip='10.0.0.10'/>")
    assert updated("delete", "ip-dhcp-host", "<host name='web1'/>")["dhcp"].get("hosts", []) == []
    assert "there is no" in refused("delete", "ip-dhcp-host", f"<host mac='{A}' ip='10.0.0.11'/>")
    assert "already: mac 52:54:00:00:00:0a" in refused("add", "ip-dhcp-host", f"<host mac='{B}' ip='10.0.0.10'/>")


def test_the_last_thing_that_dhcp_hands_out_takes_it_away() -> None:
    dhcp = {"hosts": [{"mac": A, "ip": "10.0.0.10"}]}
    assert "dhcp" not in updated("delete", "ip-dhcp-host", f"<host mac='{A}'/>", dhcp=dhcp)
    assert updated("add", "ip-dhcp-host", f"<host mac='{A}' ip='10.0.0.10'/>", dhcp=None)["dhcp"] == dhcp


@pytest.mark.parametrize(
    ("command", "section", "xml", "what"),
    [
        ("add", "forward-interface", "<interface dev='eth0'/>", "never meet Open vSwitch"),
        ("modify", "domain", "<domain name='a'/>", "is not updated by itself"),
        ("modify", "dns-host", "<host ip='10.0.0.5'/>", "is not modified, as with libvirt"),
        ("add", "dns-txt", "<srv/>", "write one <txt> element"),
        ("add", "dns-txt", "<txt", "malformed"),
        ("add", "dns-txt", "<!DOCTYPE a><txt/>", "document type"),
        ("add", "dns-txt", "<txt name='a' value='b' ttl='1'/>", "is no attribute of libvirt's network XML"),
        ("delete", "dns-txt", "<txt nam='a'/>", "is no attribute of libvirt's network XML"),
        ("delete", "dns-txt", "<txt/>", "there is no <txt>"),
        ("delete", "dns-host", "<host/>", "there is no <host>"),
        ("add", "ip-dhcp-host", f"<host mac='{B}'/>", "a reservation is of a MAC and an address"),
        ("add", "ip-dhcp-host", f"<host mac='{B}' ip='10.9.0.1'/>", "no guest's address"),
        ("add", "ip-dhcp-range", "<range start='10.0.1.9' end='10.0.1.10'><lease expiry='5'/></range>",
         "a network has one lease time, of 7200 s"),
        ("add", "ip-dhcp-range", "<range start='10.0.0.150' end='10.0.0.250'/>", "in two ranges"),
        ("delete", "dns-srv", "<srv service='ldap' protocol='tcp' target='other'/>", "there is no <srv"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_told_with_the_reason(command: str, section: str, xml: str, what: str) -> None:
    assert what in refused(command, section, xml)


def test_what_is_meant_must_be_one() -> None:
    srv = [{"service": "ldap", "protocol": "tcp", "target": name, "port": 389} for name in ("a", "b")]
    xml = "<srv service='ldap' protocol='tcp'/>"
    assert "2 are <srv" in refused("delete", "dns-srv", xml, dns={"srv": srv})
    left = updated("delete", "dns-srv", xml.replace("/>", " target='A' port='389'/>"), dns={"srv": srv})
    assert left["dns"]["srv"] == [srv[1]]


def test_a_network_without_subnets_reserves_nothing() -> None:
    bare = {"mode": "isolated", "subnets": [], "dhcp": None, "dns": None}
    assert "has no subnet" in refused("add", "ip-dhcp-host", f"<host mac='{A}' ip='10.0.0.9'/>", **bare)


ATTRIBUTES = st.dictionaries(
    st.sampled_from([path.rpartition("@")[2] for path in RULES if "@" in path]), st.text(max_size=9)
)


@given(st.sampled_from(COMMANDS), st.sampled_from(SECTIONS), st.data())
def test_whatever_an_element_says_it_is_taken_or_refused(command: str, section: str, data: st.DataObject) -> None:
    tag = section.rpartition("-")[2]
    said = " ".join(f"{name}={value!r}" for name, value in data.draw(ATTRIBUTES).items())
    with suppress(InvalidInput):
        updated(command, section, f"<{tag} {said}/>")
