"""Networks out of files as people give them to virsh net-define, and back."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.errors import InvalidInput
from controller.model.documents import dump_spec
from controller.model.network import NetworkSpec, PortGroup, network_uuid
from topology.network_definition import LEARNED, NetworkDefinition, as_new, define_network, read_network_xml
from topology.network_dump import dump_network
from topology.network_rules import RULES
from topology.network_schema import SchemaAnswer, check_schema
from topology.network_xml import host_network_xml

UUID = "6695eb01-f6a4-8304-79aa-97f2502e193f"

# What libvirt 9.0 prints for the network that it brings along, with what people add to it.
DEFAULT = f"""<network connections='1'>
  <name>default</name>
  <uuid>{UUID}</uuid>
  <forward mode='nat'>
    <nat>
      <port start='1024' end='65535'/>
    </nat>
  </forward>
  <bridge name='virbr0' stp='on' delay='0'/>
  <mac address='52:54:00:0A:75:1c'/>
  <domain name='lab.example'/>
  <ip address='192.168.122.1' netmask='255.255.255.0'>
    <dhcp>
      <range start='192.168.122.2' end='192.168.122.254'>
        <lease expiry='2' unit='hours'/>
      </range>
      <host mac='52:54:00:00:00:0a' name='web1' ip='192.168.122.10'><lease expiry='7200' unit='seconds'/></host>
    </dhcp>
  </ip>
</network>"""

# An Open vSwitch network with VLANs by portgroup.
LAN = """<network ipv6='yes'>
  <name>lan</name>
  <forward mode='bridge' dev='physnet1'/>
  <mtu size='9000'/>
  <virtualport type='openvswitch'><parameters profileid='x'/></virtualport>
  <vlan><tag id='7'/></vlan>
  <portgroup name='office' default='yes' trustGuestRxFilters='yes'>
    <virtualport type='openvswitch'/>
    <vlan><tag id='10'/></vlan>
  </portgroup>
  <portgroup name='router'>
    <vlan trunk='yes'><tag id='10' nativeMode='tagged'/><tag id='20'/></vlan>
  </portgroup>
</network>"""

INNER = """<network xmlns:dnsmasq='http://libvirt.org/schemas/network/dnsmasq/1.0'>
  <name>inner</name>
  <port isolated='yes'/>
  <dns enable='no'/>
  <ip address='10.20.0.1' prefix='16'>
    <dhcp><range start='10.20.1.1' end='10.20.1.99'/></dhcp>
  </ip>
  <ip family='ipv6' address='fd20::1' prefix='64'>
    <dhcp>
      <range start='fd20::100' end='fd20::1ff'/>
      <host id='0:3:0:1:0:16:3e:11:22:33' ip='fd20::5'/>
      <host name='db1' ip='fd20::6'/>
    </dhcp>
  </ip>
  <dnsmasq:options>
    <dnsmasq:option value='dhcp-option=6,10.20.0.53,10.20.0.54'/>
    <dnsmasq:option value='dhcp-option=option6:dns-server,[fd20::53]'/>
  </dnsmasq:options>
</network>"""

# Guests that boot by network, and are told more than libvirt has words for.
TOLD = """<network xmlns:dnsmasq='http://libvirt.org/schemas/network/dnsmasq/1.0'>
  <name>told</name>
  <ip address='10.20.0.1' prefix='16'>
    <dhcp><range start='10.20.1.1' end='10.20.1.99'/><bootp file='pxelinux.0' server='10.20.0.9'/></dhcp>
  </ip>
  <dnsmasq:options>
    <dnsmasq:option value='dhcp-option=3'/>
    <dnsmasq:option value='dhcp-option=121,10.50.0.0/16,10.20.0.7,10.60.0.0/16,10.20.0.8'/>
    <dnsmasq:option value='dhcp-option=249,10.50.0.0/16,10.20.0.7'/>
    <dnsmasq:option value='dhcp-option=option:ntp-server,10.20.0.3'/>
    <dnsmasq:option value='dhcp-option-force=119,lab.example,example.org'/>
    <dnsmasq:option value='dhcp-option=252,http://10.20.0.3/a,b.pac'/>
    <dnsmasq:option value='dhcp-option=224,01:0a'/>
    <dnsmasq:option value='dhcp-authoritative'/>
  </dnsmasq:options>
</network>"""

# A name server with everything that it can be told.
SERVER = """<network>
  <name>names</name>
  <forward mode='nat'/>
  <domain name='Lab.example' localOnly='yes'/>
  <dns forwardPlainNames='no'>
    <forwarder addr='192.0.2.53'/>
    <forwarder domain='corp.example' addr='10.1.2.3'/>
    <txt name='note' value='second floor'/>
    <host ip='10.30.0.5'><hostname>printer</hostname><hostname>lp.lab.example</hostname></host>
    <srv service='ldap' protocol='tcp' domain='lab.example' target='printer' port='389' priority='1' weight='2'/>
    <srv service='none' protocol='udp' target='.'/>
  </dns>
  <ip address='10.30.0.1' prefix='24'/>
</network>"""

# Guests that leave by addresses and ports of their own.
POOL = """<network>
  <name>pool</name>
  <forward mode='nat'>
    <nat><address start='203.0.113.20' end='203.0.113.29'/><port start='20000' end='30000'/></nat>
  </forward>
  <ip address='10.40.0.1' prefix='24'/>
</network>"""


SPEC = "<metadata><x:spec xmlns:x='urn:fleetswitch:net:1'>{}</x:spec></metadata>"


def define(xml: str, physical_network: str | None = None) -> NetworkDefinition:
    return define_network(read_network_xml(xml), physical_network)


def spec_of(xml: str) -> dict[str, Any]:
    return dump_spec(define(xml).document.spec)


def network(inside: str, start: str = "<network>") -> str:
    return f"{start}<name>blue</name>{inside}</network>"


def refusals(xml: str, physical_network: str | None = None) -> dict[str, str]:
    with pytest.raises(InvalidInput) as caught:
        define(xml, physical_network)
    assert all(problem.remedy for problem in caught.value.problems), caught.value
    return {problem.where: problem.what for problem in caught.value.problems}


def warned(xml: str) -> dict[str, str]:
    """What is ignored at each place, with its reasons."""
    found: dict[str, str] = {}
    for warning in define(xml).warnings:
        found[warning.where] = "\n".join(filter(None, (found.get(warning.where), warning.what)))
    return found


def test_the_network_that_libvirt_brings_along() -> None:
    assert spec_of(DEFAULT) == {
        "mode": "nat",
        "uuid": UUID,
        "subnets": ["192.168.122.1/24"],
        "gateway_mac": "52:54:00:0a:75:1c",
        "dhcp": {
            "range": [["192.168.122.2", "192.168.122.254"]],
            "hosts": [{"mac": "52:54:00:00:00:0a", "ip": "192.168.122.10", "name": "web1"}],
            "lease": 7200,
            "domain": "lab.example",
        },
        "portgroups": {"default": {"learn_addresses": LEARNED}},
    }
    assert list(warned(DEFAULT)) == ["network@connections", "network/bridge@name", "network/bridge@stp"]


@pytest.mark.parametrize(
    ("forward", "learned"), [("", 0), ("<forward mode='route'/>", LEARNED), ("<forward mode='open'/>", LEARNED)]
)
def test_guests_of_a_routed_network_may_have_addresses_that_nobody_registered(forward: str, learned: int) -> None:
    """Or nothing would reach them from elsewhere, as it does in libvirt's own networks."""
    xml = (
        f"<network><name>web</name>{forward}<ip address='10.1.0.1' prefix='24'/><portgroup name='db'/>"
        "<portgroup name='nested' trustGuestRxFilters='yes'/></network>"
    )
    spec = NetworkSpec(**spec_of(xml))
    found = {name: group.learn_addresses for name in spec.portgroup_names() if (group := spec.portgroup(name))}
    assert found == {"default": learned, "db": learned, "nested": 0}
    told = SPEC.format('{"portgroups": {"default": null}}')
    assert "default" not in NetworkSpec(**spec_of(xml.replace("<ip ", f"{told}<ip "))).portgroups


def test_portgroups_on_a_physical_network() -> None:
    office = {"vlan": 10, "learning": True}
    assert spec_of(LAN) == {
        "mode": "bridge",
        "physical_network": "physnet1",
        "vlan": 7,
        "mtu": 9000,
        "portgroups": {
            "office": office,
            "router": {"trunk": [10, 20], "native": 10, "native_mode": "tagged"},
            "default": office,
        },
    }


def test_an_isolated_network_whose_guests_do_not_meet() -> None:
    assert spec_of(INNER) == {
        "mode": "isolated",
        "portgroups": {"default": {"isolation": "isolated"}},
        "subnets": ["10.20.0.1/16", "fd20::1/64"],
        "dhcp": {
            "range": [["10.20.1.1", "10.20.1.99"]],
            "range6": [["fd20::100", "fd20::1ff"]],
            "hosts": [{"id": "00:03:00:01:00:16:3e:11:22:33", "ip": "fd20::5"}, {"name": "db1", "ip": "fd20::6"}],
            "dns": ["10.20.0.53", "10.20.0.54", "fd20::53"],
        },
        "dns": {"enable": False},
    }
    assert warned(INNER) == {}


def test_a_name_server() -> None:
    assert spec_of(SERVER) == {
        "mode": "nat",
        "subnets": ["10.30.0.1/24"],
        "portgroups": {"default": {"learn_addresses": LEARNED}},
        "dns": {
            "domain": "lab.example",
            "local_only": True,
            "forward_plain_names": False,
            "forwarders": [{"addr": "192.0.2.53"}, {"addr": "10.1.2.3", "domain": "corp.example"}],
            "txt": [{"name": "note", "value": "second floor"}],
            "hosts": [{"ip": "10.30.0.5", "names": ["printer", "lp.lab.example"]}],
            "srv": [
                {"service": "ldap", "protocol": "tcp", "domain": "lab.example", "target": "printer", "port": 389,
                 "priority": 1, "weight": 2},
                {"service": "none", "protocol": "udp"},
            ],
        },
    }  # fmt: skip
    assert not warned(SERVER)


def test_a_pool_of_addresses() -> None:
    pool = {"addresses": ["203.0.113.20-203.0.113.29"], "ports": "20000-30000"}
    groups = {"default": {"learn_addresses": LEARNED}}
    assert spec_of(POOL) == {"mode": "nat", "subnets": ["10.40.0.1/24"], "nat": pool, "portgroups": groups}
    assert not warned(POOL)
    given = dump_network("pool", define(POOL).document.spec)
    assert '<address start="203.0.113.20" end="203.0.113.29" />' in given
    assert '<port start="20000" end="30000" />' in given
    assert "metadata" not in given


def test_every_attribute_that_is_taken_is_taken_in_one_of_these() -> None:
    taken = {each.where for xml in (DEFAULT, LAN, INNER, TOLD, SERVER, POOL) for each in define(xml).taken}
    wanted = {path for path, rule in RULES.items() if rule.verdict == "taken" and "@" in path}
    neutral = {path for path in wanted if RULES[path].neutral}
    assert wanted - taken - neutral == set()
    shown = {each.where: each.values for each in define(DEFAULT).taken}
    assert shown["ip/dhcp/range@start"] == ("192.168.122.2",)
    assert shown["uuid"] == (UUID,)


def test_a_bridge_of_one_host_needs_a_physical_network() -> None:
    xml = network("<forward mode='bridge'/><bridge name='br0'/>")
    assert "a network of mode bridge is on a physical network" in refusals(xml)["network/forward"]
    definition = define(xml, "physnet2")
    assert dump_spec(definition.document.spec) == {"mode": "bridge", "physical_network": "physnet2"}
    assert [warning.where for warning in definition.warnings] == ["network/bridge@name"]
    assert "network/forward@mode" in refusals(DEFAULT, "physnet1")


@pytest.mark.parametrize(
    ("inside", "subnet"),
    [
        ("<ip address='10.1.2.3'/>", "10.1.2.3/8"),
        ("<ip address='172.16.2.3'/>", "172.16.2.3/16"),
        ("<ip address='192.168.2.3'/>", "192.168.2.3/24"),
        ("<ip family='ipv6' address='fd00::1'/>", "fd00::1/64"),
    ],
)
def test_a_subnet_without_a_size_has_that_which_libvirt_takes(inside: str, subnet: str) -> None:
    assert spec_of(network(inside))["subnets"] == [subnet]


DUID = "00:03:00:01:52:54:00:00:00:05"
DHCP = "<ip address='10.1.0.1' prefix='24'><dhcp>{}</dhcp></ip>"
BOOTS = "<x:options xmlns:x='http://libvirt.org/schemas/network/dnsmasq/1.0'>{}</x:options>"
BOOT = "<x:option value='dhcp-boot={},,10.1.0.9'/>"
RANGE = "<range start='10.1.0.10' end='10.1.0.20'>{}</range>"


@pytest.mark.parametrize(
    ("inside", "where", "what"),
    [
        ("<foo/>", "network/foo", "no element of libvirt's network XML"),
        ("<mtu size='1400' foo='1'/>", "network/mtu@foo", "'1' is no attribute"),
        ("<mtu size='1400'/><mtu size='1500'/>", "network/mtu", "a second time"),
        ("<mtu size='big'/>", "network/mtu@size", "'big' is no count"),
        ("<mtu size='1400'>x</mtu>", "network/mtu", "holds the text 'x'"),
        ("<uuid>7</uuid>", "network/uuid", "'7' is no UUID"),
        ("<forward mode='none'/>", "network/forward@mode", "'none' is no mode of libvirt's"),
        ("<forward mode='nat' dev='eth0'/>", "network/forward@dev", "'eth0': guests leave by their own"),
        ("<vlan><tag id='5'/><tag id='6'/></vlan>", "network/vlan", "is no trunk"),
        ("<vlan/>", "network/vlan", "names no VLAN"),
        ("<portgroup name='a'><vlan><tag id='5' nativeMode='tagged'/></vlan></portgroup>",
         "network/portgroup a/vlan/tag@nativeMode", "only a trunk"),
        ("<virtualport type='midonet'/>", "network/virtualport@type", "'midonet': it belongs to another"),
        ("<portgroup name='a'><virtualport type='802.1Qbh'/></portgroup>", "network/portgroup a/virtualport@type",
         "'802.1Qbh'"),
        ("<portgroup name='a' default='yes'/><portgroup name='b' default='yes'/>", "network/portgroup@default", "a, b"),
        ("<portgroup name='a'/><portgroup name='a'/>", "network/portgroup", "'a' stands there a second time"),
        ("<portgroup name='a' default='yes'/><portgroup name='default'/>", "network/portgroup default",
         "the default is another"),
        ("<portgroup name='a'><vlan><tag id='1' nativeMode='tagged'/><tag id='2' nativeMode='tagged'/></vlan>"
         "</portgroup>",
         "network/portgroup a/vlan/tag@nativeMode", "two VLANs are native"),
        ("<ip address='10.1.0.0' prefix='24'/>", "network/ip@address", "is the subnet itself"),
        ("<ip address='10.1.0.1' prefix='99'/>", "network/ip", "is no address with the size of its subnet"),
        ("<ip family='ipv6' address='10.1.0.1'/>", "network/ip@family", "'ipv6' is not that of 10.1.0.1"),
        ("<ip address='fd00::1'><dhcp><host ip='fd00::9'/></dhcp></ip>", "network/ip/dhcp/host", "a reservation is"),
        (DHCP.format(RANGE.format("<lease expiry='0'/>")), "network/ip/dhcp/range/lease@expiry", "without end"),
        (DHCP.format(RANGE.format("<lease expiry='5' unit='days'/>")), "network/ip/dhcp/range/lease@unit", "'days'"),
        (DHCP.format(RANGE.format("<lease expiry='5'/>") + RANGE.format("")), "network/ip/dhcp/range/lease",
         "300 s, 3600 s: a network has one lease time"),
        (DHCP.format("<bootp file='a'/>"), "network/ip/dhcp/bootp", "no files are served here"),
        (DHCP.format("<bootp file='a' server='10.1.0.9'/>") + DHCP.format("<bootp file='b' server='10.1.0.9'/>"),
         "network/ip/dhcp/bootp", "several that differ"),
        (DHCP.format("<bootp file='a' server='10.1.0.9'/>") + BOOTS.format(BOOT.format("b")),
         "network/ip/dhcp/bootp", "several that differ"),
        (DHCP.format(RANGE.format("")) + BOOTS.format(BOOT.format("a") + BOOT.format("b")),
         "network/ip/dhcp/bootp", "several that differ"),
        (DHCP.format("<bootp file='a' server='boot.example'/>"), "network: Network blue: dhcp.boot.server",
         "'boot.example' is no IP address"),
        (DHCP.format("<host name='a' ip='10.1.0.9'/>"), "network/ip/dhcp/host", "a reservation is of a MAC"),
        ("<metadata><x:net xmlns:x='urn:fleetswitch:net:1'/></metadata>", "network/metadata",
         "itself keeps on its hosts"),
        (SPEC.format("{"), "network/metadata", "holds no JSON object"),
        (SPEC.format("[1]"), "network/metadata", "holds no JSON object"),
        (SPEC.format("[" * 5000), "network/metadata", "holds no JSON object"),
        (SPEC.format("<a/>"), "network/metadata", "holds no JSON object"),
        (SPEC.format('{"foo": 1}'), "network: Network blue: foo", "is not known"),
        (SPEC.format('{"portgroups": {"a": {"vlan": "x"}}}'), "network: Network blue: portgroups.a.vlan", "x"),
        ("<bridge name='x' zone='public'/>", "network/bridge@zone", "firewalld"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_here_is_refused_where_it_stands(inside: str, where: str, what: str) -> None:
    assert what in refusals(network(inside))[where]


@pytest.mark.parametrize(
    ("option", "what", "remedy"),
    [
        ("no-resolv", "'no-resolv': no dnsmasq runs here", "write <forwarder>"),
        ("server=/corp.example/10.1.2.3", "no dnsmasq runs here", "write <forwarder> in <dns>"),
        ("log-queries", "no dnsmasq runs here", "leave it out"),
        ("dhcp-option=tag:red,42,10.20.0.3", "guests of one network are told the same", "a network of its own"),
        ("dhcp-option=option6:ntp-server,[fd20::3]", "of IPv6 only name servers", "option6:dns-server"),
        ("dhcp-option=51,9", "option 51 (lease-time) is not set so", "write dhcp.lease"),
        ("dhcp-option=mtu,9", "option 26 (mtu) is not set so", "write the Network's mtu"),
        ("dhcp-option=54,10.20.0.9", "option 54 is DHCP's own", "leave it out"),
        ("dhcp-option=option:coffee,1", "no option of DHCPv4", "ntp-server"),
        ("dhcp-option=ntp-server,noon", "option ntp-server is noon", "write 10.10.10.3"),
        ("dhcp-option=19,300", "does not fit into 1 bytes", "a number"),
        ("dhcp-option=224,7", "may be of 1, 2 or 4 bytes", "write 7b, 7s or 7i"),
        ("dhcp-option=121,10.50.0.0/16", "without the address that leads there", "write dhcp-option=121,"),
        ("dhcp-option=", "no option of DHCPv4", "a name of dnsmasq's"),
        ("dhcp-option=42,0.0.0.0", "0.0.0.0 is the machine that dnsmasq runs on", "the gateway's address"),
        ("dhcp-option=6,0.0.0.0", "0.0.0.0 is the machine that dnsmasq runs on", "the gateway's address"),
        ('dhcp-option=252,"\\n"', "quotes and backslashes", "without them"),
    ],
)
def test_an_option_of_dnsmasq_that_is_not_understood(option: str, what: str, remedy: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        define(INNER.replace("dhcp-option=6,10.20.0.53,10.20.0.54", option))
    (problem,) = caught.value.problems
    assert problem.where == "network/dnsmasq:options/dnsmasq:option@value"
    assert what in problem.what
    assert remedy in problem.remedy


@pytest.mark.parametrize("option", ["option:ntp-server,10.20.0.4", "42,10.20.0.4", "3,10.20.0.4"])
def test_an_option_that_is_there_twice_is_not_half_forgotten(option: str) -> None:
    again = f"<dnsmasq:option value='dhcp-option={option}'/></dnsmasq:options>"
    (what,) = refusals(TOLD.replace("</dnsmasq:options>", again)).values()
    assert option in what
    assert "twice" in what


def test_what_dnsmasq_would_tell_guests_is_told() -> None:
    told = spec_of(TOLD)["dhcp"]
    assert told["boot"] == {"file": "pxelinux.0", "server": "10.20.0.9"}
    assert told["router"] == []
    assert told["routes"] == [{"to": "10.50.0.0/16", "via": "10.20.0.7"}, {"to": "10.60.0.0/16", "via": "10.20.0.8"}]
    assert told["options"] == {
        "ntp-server": ["10.20.0.3"],
        "domain-search": ["lab.example", "example.org"],
        "252": ["http://10.20.0.3/a,b.pac"],
        "224": ["01:0a"],
    }
    assert warned(TOLD) == {
        "network/dnsmasq:options/dnsmasq:option@value":
            "'dhcp-option-force=119,lab.example,example.org': guests are told what they ask for, by force or not; "
            "ignored\n"
            "'dhcp-authoritative': it is so anyhow; ignored"
    }  # fmt: skip
    booted = TOLD.replace("dhcp-authoritative", "dhcp-boot=undionly.kpxe,,10.20.0.4").replace("<bootp", "<!--bootp")
    booted = booted.replace("server='10.20.0.9'/>", "-->")
    assert spec_of(booted)["dhcp"]["boot"] == {"file": "undionly.kpxe", "server": "10.20.0.4"}
    named = booted.replace("kpxe,,", "kpxe,boothost,")
    assert spec_of(named)["dhcp"]["boot"] == {"file": "undionly.kpxe", "server": "10.20.0.4"}
    assert "'boothost'" in warned(named)["network/dnsmasq:options/dnsmasq:option@value"]


@pytest.mark.parametrize(
    ("inside", "where", "what"),
    [
        ("<vlan><tag id='0'/></vlan>", "network: Network blue: vlan", "0 is no VLAN"),
        ("<vlan><tag id='4095'/></vlan>", "network: Network blue: vlan", "4095 is no VLAN"),
        ("<mtu size='100'/>", "network: Network blue: mtu", "100 is not possible"),
        ("<forward/>", "network: Network blue", "has mode nat without a subnet"),
        (DHCP.format(RANGE.format("<lease expiry='1'/>")), "network: Network blue: dhcp.lease", "60 is not possible"),
    ],
)
def test_what_the_model_does_not_take_is_named_by_its_field(inside: str, where: str, what: str) -> None:
    assert what in refusals(network(inside))[where]


def test_all_that_is_wrong_is_told_at_once() -> None:
    told = refusals(network("<forward mode='hostdev'/><bandwidth/><ip address='10.0.0.1'><tftp root='/'/></ip>"))
    assert list(told) == ["network/bandwidth", "network/ip/tftp", "network/forward@mode"]


def test_what_has_nothing_to_act_on_is_told() -> None:
    told = warned(network("<mac address='52:54:00:00:00:01'/><domain name='x.org'/>"))
    assert told["network/mac@address"].startswith("'52:54:00:00:00:01': the network has no gateway")
    assert told["network/domain@name"].startswith("'x.org': the network has no gateway")
    told = warned(network("<metadata><a:b xmlns:a='urn:a'/></metadata><portgroup name='default'><vlan><tag id='5'/>"
                          "</vlan></portgroup>"))  # fmt: skip
    assert "<{urn:a}b> is another program's" in told["network/metadata"]
    assert "vNICs that name no portgroup are of this one" in told["network/portgroup default"]


@pytest.mark.parametrize(
    "xml",
    [
        "",
        "<network>",
        "<domain/>",
        "<!DOCTYPE network [<!ENTITY a 'b'>]><network><name>&a;</name></network>",
        "<network>" + "<a>" * 100 + "</a>" * 100 + "</network>",
        network("<metadata>" + "<a/>" * 60_000 + "</metadata>"),
        network("<!--" + "x" * (1 << 20) + "-->"),
    ],
)
def test_what_is_no_xml_of_a_network_is_refused(xml: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        define(xml)
    assert caught.value.problems[0].where == "network"


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([DEFAULT, LAN, INNER, TOLD]), st.data())
def test_a_damaged_file_is_refused_or_read(xml: str, data: st.DataObject) -> None:
    at, length = data.draw(st.integers(0, len(xml))), data.draw(st.integers(0, 30))
    with suppress(InvalidInput):
        define(xml[:at] + data.draw(st.text(max_size=12)) + xml[at + length :])


def test_a_network_of_a_host_under_another_name() -> None:
    root = read_network_xml(DEFAULT)
    as_new(root, "lab")
    definition = define_network(root)
    assert (definition.document.name, definition.uuid) == ("lab", None)
    assert "network@connections" not in [warning.where for warning in definition.warnings]


# There and back.


def test_what_libvirt_has_no_words_for_is_said_beside_the_rest_and_nothing_else() -> None:
    spec = NetworkSpec(mode="isolated", span="host", vlan=7, portgroups={"a": PortGroup(vlan=9, learn_addresses=2)})
    element = read_network_xml(dump_network("web", spec)).find("metadata/{urn:fleetswitch:net:1}spec")
    assert element is not None
    assert json.loads(element.text or "") == {"portgroups": {"a": {"learn_addresses": 2}}, "span": "host"}


def test_a_dump_is_whole_and_says_nothing_that_is_ignored() -> None:
    xml = dump_network("web", NetworkSpec(mode="nat", subnets=("10.1.0.1/24",)))
    assert f"<uuid>{network_uuid('web', NetworkSpec(mode='isolated'))}</uuid>" in xml
    assert "<mac address=" in xml
    assert define(xml).warnings == ()


def test_a_network_of_a_host_is_fleetswitchs_own() -> None:
    xml = host_network_xml("blue", UUID, "br-int", ["web"], "default", "fleet-1")
    assert "itself keeps on its hosts" in refusals(xml)["network/metadata"]


VLANS = st.integers(1, 4094)
NAMES = st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,9}", fullmatch=True)


@st.composite
def portgroups(draw: st.DrawFn, physical: bool) -> PortGroup:
    fields: dict[str, Any] = {}
    kinds = ["none", "isolated", "private", "vepa", "passthrough"] if physical else ["none", "isolated"]
    fields["isolation"] = isolation = draw(st.sampled_from(kinds))
    if isolation != "passthrough":
        match draw(st.sampled_from(["nothing", "access", "trunk", "native"])):
            case "access":
                fields["vlan"] = draw(VLANS)
            case "trunk":
                fields["trunk"] = draw(st.lists(VLANS, min_size=1, max_size=5, unique=True))
            case "native":
                fields["trunk"] = draw(st.lists(VLANS, min_size=1, max_size=5, unique=True))
                fields["native"] = draw(st.sampled_from(fields["trunk"]) | VLANS)
                fields["native_mode"] = draw(st.sampled_from(["tagged", "untagged"]))
        fields["filters"] = draw(st.sampled_from([None, [], ["be-router", "no-other-l2-traffic"]]))
    if isolation == "none" and draw(st.booleans()):
        fields |= {"learning": True, "max_macs": draw(st.none() | st.integers(1, 4096))}
    return PortGroup(**fields)


@st.composite
def options(draw: st.DrawFn, subnets: list[str]) -> dict[str, Any]:
    """What guests are told beside an address."""
    near = next((subnet.rpartition(".")[0] + ".77" for subnet in subnets if "." in subnet), None)
    files = [None, {"file": "pxelinux.0", "server": "10.250.0.1"}, {"file": "http://boot.example/<&>"}]
    plain = {"ntp-server": "10.0.0.3", 224: "01:ff", 66: " a, <&> b"}
    said = [{}, plain, {"ntp-server": "0.0.0.0", 66: 'a "\\" b', 17: "nfs"}]
    found = {
        "boot": draw(st.sampled_from(files)),
        "options": draw(st.sampled_from(said)),
        "router": draw(st.sampled_from([None, [], [near]])) if near is not None else None,
        "routes": draw(st.sampled_from([[], [{"to": "10.50.0.0/16", "via": near}]])) if near is not None else [],
    }
    return {**found, "boot": None} if found["options"] else found


@st.composite
def addresses(draw: st.DrawFn) -> dict[str, Any]:
    """Subnets, each with ranges and reservations of its own."""
    found: dict[str, Any] = {"subnets": [], "gateway_mac": draw(st.none() | st.just("52:54:00:99:00:01"))}
    ranges, ranges6, hosts = [], [], []
    for number in draw(st.lists(st.integers(0, 200), min_size=1, max_size=3, unique=True)):
        found["subnets"].append(f"10.{number}.0.{draw(st.integers(1, 9))}/24")
        if draw(st.booleans()):
            ranges.append([f"10.{number}.0.100", f"10.{number}.0.120"])
        if draw(st.booleans()):
            name = draw(st.none() | st.just(f"host-{number}"))
            hosts.append({"mac": f"52:54:00:00:00:{number:02x}", "ip": f"10.{number}.0.50", "name": name})
    if draw(st.booleans()):
        found["subnets"].append("fd00::1/64")
        ranges6 = draw(st.sampled_from([[], [["fd00::10", "fd00::20"]]]))
        who = st.sampled_from([{"mac": "52:54:00:00:00:01", "name": "six"}, {"id": DUID}, {"name": "six"}])
        hosts += [{**draw(who), "ip": "fd00::5"}] if draw(st.booleans()) else []
    if draw(st.booleans()):
        found["dhcp"] = {
            "range": ranges,
            "range6": ranges6,
            "hosts": hosts,
            "lease": draw(st.sampled_from([120, 3600, 7200, 2**31])),
            "domain": draw(st.none() | st.just("example.org")),
            "dns": draw(st.sampled_from([[], ["10.0.0.53"], ["10.0.0.53", "192.0.2.1", "fd00::53"]])),
            **draw(options(found["subnets"])),
        }
    return found


@st.composite
def name_servers(draw: st.DrawFn) -> dict[str, Any]:
    if draw(st.booleans()):
        return {"enable": False}
    target = {"target": "db", "port": 5432, "weight": draw(st.sampled_from([0, 5]))}
    return {
        "domain": draw(st.none() | st.just("example.org")),
        "forward_plain_names": draw(st.booleans()),
        "forwarders": draw(st.sampled_from([None, [], [{"addr": "192.0.2.53"}, {"domain": "example.com"}]])),
        "hosts": draw(st.sampled_from([[], [{"ip": "10.0.0.5", "names": ["a", "b.example.org"]}]])),
        "txt": draw(st.sampled_from([[], [{"name": "a.b", "value": "x"}, {"name": "_a.b", "value": 'x <&> "y"'}]])),
        "srv": draw(
            st.sampled_from([[], [{"service": "sql", "protocol": "tcp", **draw(st.sampled_from([{}, target]))}]])
        ),
    }


NATS: list[Any] = [
    None, {"addresses": ["203.0.113.20-203.0.113.29"]}, {"addresses": ["203.0.113.20"], "ports": "20000-30000"},
    {"ports": 5000}, {"addresses": ["203.0.113.20-203.0.113.29", "198.51.100.5"]}, {"ports": "1024-65535"},
]  # fmt: skip


@st.composite
def specs(draw: st.DrawFn) -> NetworkSpec:
    mode = draw(st.sampled_from(["isolated", "nat", "route", "open", "bridge"]))
    names = st.sampled_from(["default", "a", "web", "db.1"])
    fields: dict[str, Any] = {
        "mode": mode,
        "vlan": draw(st.none() | VLANS),
        "mtu": draw(st.none() | st.integers(1280, 65535)),
        "uuid": draw(st.none() | st.just(UUID)),
        "portgroups": draw(st.dictionaries(names, portgroups(mode == "bridge"), max_size=4)),
        "reserved_addresses": draw(st.sampled_from([(), ("10.200.0.1",)])),
    }
    if mode == "bridge":
        fields["physical_network"] = "physnet-1"
    else:
        fields["span"] = draw(st.sampled_from(["fleet", "host"]))
    if mode in {"nat", "route", "open"} or (mode == "isolated" and draw(st.booleans())):
        fields |= draw(addresses())
        fields["dns"] = draw(st.none() | name_servers())
        domain = (fields["dns"] or {}).get("domain") or (fields.get("dhcp") or {}).get("domain")
        if fields["dns"] and domain:
            fields["dns"]["local_only"] = draw(st.booleans())
    if mode == "nat":
        fields["nat"] = draw(st.sampled_from(NATS))
    if mode in {"route", "open"} and draw(st.booleans()):
        fields["routes"] = [{"to": "172.16.0.0/12", "via": fields["subnets"][0].rpartition(".")[0] + ".100"}]
    return NetworkSpec(**fields)


@settings(max_examples=300, deadline=None)
@given(NAMES, specs())
def test_what_is_dumped_is_defined_as_the_same(name: str, spec: NetworkSpec) -> None:
    xml = dump_network(name, spec)
    definition = define(xml)
    assert (definition.document.name, definition.document.spec) == (name, spec)
    assert dump_network(name, definition.document.spec) == xml


@settings(max_examples=15, deadline=None)
@given(NAMES, specs())
def test_libvirts_schema_takes_what_is_dumped(name: str, spec: NetworkSpec) -> None:
    assert check_schema(dump_network(name, spec)).refusal == ""


def test_the_schemas_word_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_schema(DEFAULT) == SchemaAnswer()
    assert check_schema(network("<foo/>")).refusal.endswith("Element network has extra content: foo")
    assert "Premature end" in check_schema("<network>").refusal
    monkeypatch.setattr("topology.network_schema._PROGRAM", tmp_path / "none")
    assert "libvirt could not be asked" in check_schema(DEFAULT).unchecked
