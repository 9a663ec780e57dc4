"""Domain XML: what libvirt writes, what people write by hand, and what an attacker would write."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.errors import LibvirtError
from topology.domain_xml import MAX_VNICS, VnicView, parse_domain
from topology.xml_reader import MAX_CHARACTERS, MAX_DEPTH, MAX_ELEMENTS

UUID = "5fbdb5b0-261e-4eae-a1f4-abf6bed50d8d"
MAC = "52:54:00:6c:7c:56"

# As libvirt 9.0.0 shows a running domain with one vNIC of a network and one on a bridge.
LIVE = f"""<domain type='qemu' id='1'>
  <name>g1</name>
  <uuid>{UUID}</uuid>
  <metadata><fs:vm xmlns:fs='urn:example:1'><interface type='bogus'/></fs:vm></metadata>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <interface type='bridge'>
      <mac address='{MAC}'/>
      <source network='blue' portgroup='db' portid='4203ce7c-7a28-4d29-84e9-5a50e9f11b66' bridge='br-int'/>
      <virtualport type='openvswitch'>
        <parameters interfaceid='6d991895-1b36-4189-8cea-e409026d0260' profileid='blue:db'/>
      </virtualport>
      <target dev='vnet0'/>
      <model type='virtio'/>
      <alias name='net0'/>
      <address type='pci' domain='0x0000' bus='0x01' slot='0x00' function='0x0'/>
    </interface>
    <interface type='bridge' trustGuestRxFilters='yes'>
      <mac address='52:54:00:34:6E:0F'/>
      <source bridge='br-int'/>
      <vlan trunk='yes'><tag id='42' nativeMode='untagged'/><tag id='47'/></vlan>
      <virtualport type='openvswitch'><parameters interfaceid='cc163e3c-ef46-4168-a831-91010b45b9df'/></virtualport>
      <target dev='vnet1'/>
      <link state='down'/>
      <mtu size='1400'/>
      <alias name='net1'/>
    </interface>
  </devices>
</domain>"""

NET0 = VnicView(
    mac=MAC,
    type="bridge",
    tap="vnet0",
    network="blue",
    portgroup="db",
    bridge="br-int",
    virtualport="openvswitch",
    iface_id="6d991895-1b36-4189-8cea-e409026d0260",
    profileid="blue:db",
    vlan_tags=(),
    vlan_trunk=False,
    native=None,
    mtu=None,
    link_up=True,
    alias="net0",
    trust_guest_rx_filters=False,
    unmanaged="",
)


def domain(*interfaces: str, live: bool = True) -> str:
    at = " id='7'" if live else ""
    return f"<domain{at}><name>g</name><uuid>{UUID}</uuid><devices>{''.join(interfaces)}</devices></domain>"


def interface(inner: str = "", kind: str = "bridge", mac: str = MAC) -> str:
    return f"<interface type='{kind}'><mac address='{mac}'/>{inner}</interface>"


OVS = "<virtualport type='openvswitch'/>"


def test_a_running_domain_as_libvirt_writes_it() -> None:
    view = parse_domain(LIVE, "kvm01")
    assert (view.uuid, view.name, view.live, view.problems) == (UUID, "g1", True, ())
    assert view.vnics == (
        NET0,
        replace(
            NET0,
            mac="52:54:00:34:6e:0f",
            tap="vnet1",
            network=None,
            portgroup=None,
            iface_id="cc163e3c-ef46-4168-a831-91010b45b9df",
            profileid=None,
            vlan_tags=(42, 47),
            vlan_trunk=True,
            native=(42, "untagged"),
            mtu=1400,
            link_up=False,
            alias="net1",
            trust_guest_rx_filters=True,
        ),
    )


def test_an_inactive_domain_has_no_tap_and_its_network_decides() -> None:
    (vnic,) = parse_domain(domain(interface("<source network='blue'/>", "network"), live=False)).vnics
    assert (vnic.network, vnic.tap, vnic.iface_id, vnic.managed) == ("blue", None, None, True)
    assert not parse_domain(domain(live=False)).live


@pytest.mark.parametrize(
    ("kind", "inner", "reason"),
    [
        ("bridge", OVS, ""),
        ("bridge", "<source network='blue' bridge='br-int'/>" + OVS, ""),
        ("ethernet", "<target dev='tap7' managed='no'/>", ""),
        ("vhostuser", "<source type='unix' path='/run/vhu0' mode='server'/>", ""),
        ("bridge", "<source bridge='br0'/>", "Linux bridge (bridge br0)"),
        ("network", "<source network='default' bridge='virbr0'/>", "Linux bridge (network default)"),
        ("bridge", "<virtualport type='midonet'/>", "type midonet"),
        ("direct", "<source dev='eth0' mode='vepa'/>", "macvtap: its frames never meet Open vSwitch"),
        ("direct", "<source network='lan' dev='eth0' mode='bridge'/>", "macvtap"),
        ("hostdev", "", "PCI device"),
        ("vdpa", "<source dev='/dev/vhost-vdpa-0'/>", "vDPA"),
        ("user", "<backend type='passt'/>", "user-mode"),
        ("mcast", "", "multicast socket"),
        ("udp", "", "UDP socket"),
        ("client", "", "TCP socket"),
        ("server", "", "TCP socket"),
        ("internal", "", "internal network"),
        ("vds", "", "distributed switch"),
        ("null", "", "nothing"),
        ("teleport", "", "interface type teleport is not known"),
    ],
)
def test_what_fleetswitch_can_switch_and_why_not(kind: str, inner: str, reason: str) -> None:
    (vnic,) = parse_domain(domain(interface(inner, kind))).vnics
    assert vnic.managed is (reason == "")
    assert reason in vnic.unmanaged


@pytest.mark.parametrize(
    ("vlan", "tags", "trunk", "native"),
    [
        ("<vlan><tag id='0'/></vlan>", (0,), False, None),
        ("<vlan><tag id='4095'/></vlan>", (4095,), False, None),
        ("<vlan><tag id='2'/><tag id='1'/></vlan>", (2, 1), True, None),
        ("<vlan trunk='yes'><tag id='5'/></vlan>", (5,), True, None),
        ("<vlan trunk='yes'><tag id='5' nativeMode='tagged'/></vlan>", (5,), True, (5, "tagged")),
    ],
)
def test_vlans(vlan: str, tags: tuple[int, ...], trunk: bool, native: tuple[int, str] | None) -> None:
    (vnic,) = parse_domain(domain(interface(OVS + vlan))).vnics
    assert (vnic.vlan_tags, vnic.vlan_trunk, vnic.native) == (tags, trunk, native)


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        ("<interface type='bridge'/>", "it has no MAC"),
        (interface(mac="52:54:00"), "MAC '52:54:00' is not valid"),
        (interface(mac="01:00:5e:00:00:01"), "MAC '01:00:5e:00:00:01' is not valid"),
        (f"<interface><mac address='{MAC}'/></interface>", "it has no type"),
        (interface("<target dev='a-name-of-16-chr'/>"), "target dev 'a-name-of-16-chr' is not valid"),
        (interface("<target dev='../x'/>"), "target dev '../x' is not valid"),
        (interface("<virtualport><parameters interfaceid='7'/></virtualport>"), "interfaceid '7' is not valid"),
        (interface("<mtu size='1e3'/>"), "mtu size '1e3' is not valid"),
        (interface("<mtu size='٣٠٠'/>"), "mtu size '٣٠٠' is not valid"),
        (interface("<mtu size='67'/>"), "mtu size '67' is not valid"),
        (interface("<vlan><tag id='4096'/></vlan>"), "vlan tag '4096' is not valid"),
        (interface("<vlan><tag/></vlan>"), "a vlan tag has no id"),
        (interface("<vlan><tag id='1' nativeMode='x'/></vlan>"), "nativeMode 'x' is neither"),
        (
            interface("<vlan><tag id='1' nativeMode='tagged'/><tag id='2' nativeMode='tagged'/></vlan>"),
            "two vlan tags have a nativeMode",
        ),
        (interface(f"<source network='{'n' * 256}'/>"), "too long"),
        (interface("<source network='a&#10;b'/>"), "'a?b' is too long or holds control characters"),
    ],
)
def test_one_bad_interface_is_named_and_hides_no_other(bad: str, what: str) -> None:
    good = interface(OVS, mac="52:54:00:00:00:01")
    view = parse_domain(domain(good, bad, interface(OVS, mac="52:54:00:00:00:02")), "kvm01")
    assert [vnic.mac for vnic in view.vnics] == ["52:54:00:00:00:01", "52:54:00:00:00:02"]
    (problem,) = view.problems
    assert what in problem.what
    assert problem.where.startswith("host kvm01, domain g, interface ")
    assert problem.remedy == "virsh edit g"


def test_two_interfaces_with_one_mac_are_a_problem_and_stay() -> None:
    view = parse_domain(domain(interface(OVS), interface(OVS, mac=MAC.upper())))
    assert [vnic.mac for vnic in view.vnics] == [MAC, MAC]
    (problem,) = view.problems
    assert MAC in problem.what


def bomb() -> str:
    entities = "".join(f"<!ENTITY l{n} '{f'&l{n - 1};' * 10}'>" for n in range(1, 10))
    return f"<!DOCTYPE domain [<!ENTITY l0 'ha'>{entities}]><domain><name>&l9;</name></domain>"


@pytest.mark.parametrize(
    ("xml", "what"),
    [
        ("", "malformed XML"),
        ("<domain>", "malformed XML"),
        ("<domain>&nbsp;</domain>", "malformed XML"),
        ("<domain>\udc80</domain>", "malformed XML"),
        ("<network/>", "XML of a <network>, not of a <domain>"),
        ("<domain xmlns='urn:x'/>", "XML of a <{urn:x}domain>"),
        ("<domain/>", "it has no name"),
        ("<domain><name>g</name></domain>", "it has no uuid"),
        ("<domain><name>g</name><uuid>g</uuid></domain>", "uuid 'g' is not valid"),
        (bomb(), "document type declaration"),
        ("<!DOCTYPE d [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><domain><name>&x;</name></domain>", "document type"),
        ("<!DOCTYPE domain SYSTEM 'http://192.0.2.1/x.dtd'><domain/>", "document type declaration"),
        ("<domain>" + " " * MAX_CHARACTERS + "</domain>", "characters, more than"),
        ("<domain>" + "<a>" * MAX_DEPTH + "</a>" * MAX_DEPTH + "</domain>", "deeper than"),
        ("<domain>" + "<a/>" * MAX_ELEMENTS + "</domain>", "deeper than"),
        (domain(*[interface(OVS)] * (MAX_VNICS + 1)), "interfaces, more than"),
    ],
    ids=lambda value: value[:24],
)
def test_what_is_no_domain_is_refused_with_the_host_named(xml: str, what: str) -> None:
    with pytest.raises(LibvirtError) as caught:
        parse_domain(xml, "kvm01")
    assert what in caught.value.what
    assert caught.value.where.startswith("host kvm01, domain")
    assert len(str(caught.value)) < 500


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_any_text_is_refused_in_our_own_words(text: str) -> None:
    with pytest.raises(LibvirtError):
        parse_domain(text)


@settings(max_examples=400, deadline=None)
@given(
    st.integers(0, len(LIVE) - 1),
    st.integers(0, 40),
    st.one_of(st.text(max_size=20), st.sampled_from(["'", "<", "/>", "&#0;", "&amp;", "99999999", "<interface/>"])),
)
def test_a_damaged_domain_is_refused_or_read_within_bounds(at: int, length: int, put: str) -> None:
    try:
        view = parse_domain(LIVE[:at] + put + LIVE[at + length :])
    except LibvirtError:
        return  # anything else that is raised fails the test
    assert len(view.uuid) == 36
    for vnic in view.vnics:
        assert len(vnic.mac) == 17
        assert all(0 <= tag <= 4095 for tag in vnic.vlan_tags)
        assert vnic.tap is None or 1 <= len(vnic.tap) <= 15


def test_what_somebody_else_would_have_to_do_is_noticed() -> None:
    def asks(inner: str) -> tuple[bool, str | None, bool]:
        (vnic,) = parse_domain(domain(interface(OVS + inner))).vnics
        return vnic.bandwidth, vnic.filter, vnic.isolated

    assert asks("") == (False, None, False)
    assert asks("<bandwidth><inbound average='100'/></bandwidth>") == (True, None, False)
    assert asks("<filterref filter='clean-traffic'><parameter name='IP' value='10.0.0.1'/></filterref>") == (
        False, "clean-traffic", False,
    )  # fmt: skip
    assert asks("<port isolated='yes'/>") == (False, None, True)
    assert asks("<port isolated='no'/>") == (False, None, False)
