"""The XML of a host's networks: ours as made, as libvirt gives it back, and anybody's."""

from __future__ import annotations

import tracemalloc
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.errors import LibvirtError
from topology.network_xml import host_network_xml, parse_host_network, portgroup_xml, profile_id

UUID = "1278cdb0-205c-4a5c-b474-a3f8dd66387d"

# What libvirt 9.0.0 shows for host_network_xml("blue", UUID, "br-int", ["web", "db"], "default", "fleet-1").
SHOWN = f"""<network connections='3'>
  <name>blue</name>
  <uuid>{UUID}</uuid>
  <metadata xmlns:fleetswitch="urn:fleetswitch:net:1">
    <fleetswitch:net owner="fleet-1"/>
  </metadata>
  <forward mode='bridge'/>
  <bridge name='br-int'/>
  <virtualport type='openvswitch'/>
  <portgroup name='db'>
    <virtualport type='openvswitch'>
      <parameters profileid='blue:db'/>
    </virtualport>
  </portgroup>
  <portgroup name='web'>
    <virtualport type='openvswitch'>
      <parameters profileid='blue:web'/>
    </virtualport>
  </portgroup>
  <portgroup name='default' default='yes'>
    <virtualport type='openvswitch'>
      <parameters profileid='blue:default'/>
    </virtualport>
  </portgroup>
</network>
"""
FOREIGN = """<network><name>default</name><uuid>6695eb01-f6a4-8304-79aa-97f2502e193f</uuid>
<forward mode='nat'/><bridge name='virbr0' stp='on' delay='0'/><ip address='192.168.122.1' netmask='255.255.255.0'/>
</network>"""


def blue(*, portgroups: tuple[str, ...] = ("web", "db"), default: str = "default", owner: str = "fleet-1") -> str:
    return host_network_xml("blue", UUID, "br-int", portgroups, default, owner)


def test_the_template() -> None:
    view = parse_host_network(blue())
    assert (view.name, view.uuid, view.bridge, view.owner_id) == ("blue", UUID, "br-int", "fleet-1")
    assert [(group.name, group.default, group.profileid) for group in view.portgroups] == [
        ("web", False, "blue:web"),
        ("db", False, "blue:db"),
        ("default", True, "blue:default"),
    ]
    assert view.owned_by("fleet-1")
    assert not view.owned_by("fleet-2")


def test_the_default_is_added_once_and_always() -> None:
    for portgroups in ((), ("default",), ("web", "default", "web")):
        groups = parse_host_network(blue(portgroups=portgroups)).portgroups
        assert [group.name for group in groups] == list(dict.fromkeys((*portgroups, "default")))
        assert [group.name for group in groups if group.default] == ["default"]


def test_libvirts_way_of_writing_it_is_no_drift() -> None:
    shown, made = parse_host_network(SHOWN), parse_host_network(blue())
    assert (shown.digest, shown.base_digest) == (made.digest, made.base_digest)
    assert (shown.connections, made.connections) == (3, 0)


@pytest.mark.parametrize(
    ("old", "new", "base_too"),
    [
        ("profileid='blue:db'", "profileid='blue:web'", False),
        ("<portgroup name='db'>", "<portgroup name='db' default='yes'>", False),
        ("<portgroup name='db'>", "<portgroup name='db'><vlan><tag id='7'/></vlan>", False),
        ("br-int", "br-ex", True),
        ("mode='bridge'", "mode='nat'", True),
        ("fleet-1", "fleet-2", True),
        (UUID, "1278cdb0-205c-4a5c-b474-a3f8dd66387e", True),
        ("<bridge", "<bandwidth><inbound average='1'/></bandwidth><bridge", True),
    ],
)
def test_drift_is_seen(old: str, new: str, base_too: bool) -> None:
    assert old in SHOWN
    drifted, made = parse_host_network(SHOWN.replace(old, new)), parse_host_network(blue())
    assert drifted.digest != made.digest
    assert (drifted.base_digest != made.base_digest) is base_too


def test_anothers_network_is_not_ours() -> None:
    view = parse_host_network(FOREIGN)
    assert (view.name, view.bridge, view.owner_id, view.portgroups) == ("default", "virbr0", None, ())
    assert not view.owned_by("")


@pytest.mark.parametrize(
    ("xml", "what"),
    [
        ("<domain/>", "XML of a <domain>"),
        ("<network/>", "it has no name"),
        ("<network><name>x</name></network>", "it has no uuid"),
        (f"<network connections='-1'><name>x</name><uuid>{UUID}</uuid></network>", "connections '-1'"),
        (f"<network><name>x</name><uuid>{UUID}</uuid><portgroup/></network>", "a port group has no name"),
        (
            f"<!DOCTYPE network [<!ENTITY x 'y'>]><network><name>&x;</name><uuid>{UUID}</uuid></network>",
            "document type",
        ),
    ],
)
def test_what_is_no_network_is_refused_with_the_host_named(xml: str, what: str) -> None:
    with pytest.raises(LibvirtError) as caught:
        parse_host_network(xml, "kvm01")
    assert what in caught.value.what
    assert caught.value.where.startswith("host kvm01, network")


names = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40).filter(
    lambda name: name == name.strip()
)


@settings(max_examples=200, deadline=None)
@given(name=names, portgroups=st.lists(names, max_size=4), default=names, owner=names)
def test_no_name_breaks_out_of_the_xml(name: str, portgroups: list[str], default: str, owner: str) -> None:
    view = parse_host_network(host_network_xml(name, UUID, "br-int", portgroups, default, owner))
    assert (view.name, view.owner_id) == (name, owner)
    assert {group.name: group.profileid for group in view.portgroups} == {
        group: profile_id(name, group) for group in (*portgroups, default)
    }
    for group in (*portgroups, default):
        alone = ElementTree.fromstring(portgroup_xml(name, group, group == default))
        assert (alone.get("name"), alone.get("default")) == (group, "yes" if group == default else None)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(SHOWN) - 1), st.integers(0, 30), st.text(max_size=12))
def test_a_damaged_network_is_refused_or_drifted_or_the_same(at: int, length: int, put: str) -> None:
    try:
        view = parse_host_network(SHOWN[:at] + put + SHOWN[at + length :])
    except LibvirtError:
        return
    assert len(view.digest) == 64


def test_what_hosts_say_at_length_is_not_kept() -> None:
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(12):
            xml = blue().replace("<forward", f"<description>{number}{'x' * 900_000}</description><forward")
            assert parse_host_network(xml).bridge == "br-int"
            del xml
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 2_000_000, "the next host's networks find no room"
