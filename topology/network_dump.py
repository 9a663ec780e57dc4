"""A Network as libvirt's network XML: what ``net define`` made of a file, given back in one order.

What libvirt has no words for (where a network spans, filters, some isolations) stands in ``<metadata>`` under
fleetswitch's own namespace, which libvirt carries along: as the patch that makes the Network of what the rest says. It
is found by reading the rest, so no field can be forgotten.
"""

from __future__ import annotations

import ipaddress
import json
from xml.etree.ElementTree import Element, SubElement, indent, register_namespace, tostring

from controller.model.documents import dump_spec
from controller.model.nat import Nat
from controller.model.network import DEFAULT_PORTGROUP, NetworkSpec, PortGroup, network_gateway_mac, network_uuid
from controller.model.subnet import DEFAULT_LEASE_SECONDS, Dhcp
from topology.merge_patch import difference
from topology.network_definition import SPEC, define_network
from topology.network_dns import write_dns
from topology.network_dnsmasq import write_dnsmasq
from topology.network_rules import DNSMASQ

register_namespace("dnsmasq", DNSMASQ)

_Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


def dump_network(name: str, spec: NetworkSpec) -> str:
    """The ``<network>``, UUID and gateway's MAC included. ``define_network`` reads it as the same Network."""
    network = Element("network")
    SubElement(network, "name").text = name
    SubElement(network, "uuid").text = network_uuid(name, spec)
    if spec.mode != "isolated":
        forward = SubElement(network, "forward", mode=spec.mode)
        if spec.physical_network is not None:
            forward.set("dev", spec.physical_network)
        if spec.nat is not None:
            _nat(forward, spec.nat)
    if spec.mtu is not None:
        SubElement(network, "mtu", size=str(spec.mtu))
    if spec.subnets:
        SubElement(network, "mac", address=network_gateway_mac(name, spec))
    write_dns(network, spec)
    if spec.vlan is not None:
        _tag(SubElement(network, "vlan"), spec.vlan)
    if all(group.isolation == "isolated" for group in _groups(spec).values()):
        SubElement(network, "port", isolated="yes")
    for group_name in spec.portgroup_names():
        if group_name in spec.portgroups:
            _portgroup(network, group_name, spec.portgroups[group_name])
    _addresses(network, spec)
    if spec.dhcp is not None:
        write_dnsmasq(network, spec.dhcp)
    if (metadata := _unsaid(network, spec)) is not None:
        network.insert(2, metadata)  # behind name and uuid, as libvirt itself writes it
    indent(network)
    return tostring(network, encoding="unicode") + "\n"


def _groups(spec: NetworkSpec) -> dict[str, PortGroup]:
    """Those that vNICs can have: ``default`` too, whether it is written or not."""
    return {DEFAULT_PORTGROUP: PortGroup(), **spec.portgroups}


def _unsaid(network: Element, spec: NetworkSpec) -> Element | None:
    """The ``<metadata>`` with what the rest of the XML does not say: whoever reads it back has the same Network."""
    patch = difference(dump_spec(define_network(network).document.spec), dump_spec(spec))
    if not patch:
        return None
    metadata = Element("metadata")
    SubElement(metadata, SPEC).text = json.dumps(patch)
    return metadata


def _portgroup(network: Element, name: str, group: PortGroup) -> None:
    element = SubElement(network, "portgroup", name=name)
    if name == DEFAULT_PORTGROUP:
        element.set("default", "yes")
    if group.learning:
        element.set("trustGuestRxFilters", "yes")
    SubElement(element, "virtualport", type="openvswitch")
    if group.vlan is not None:
        _tag(SubElement(element, "vlan"), group.vlan)
    if group.trunk:
        vlan = SubElement(element, "vlan", trunk="yes")
        outside = (group.native,) if group.native is not None and group.native not in group.trunk else ()
        for number in (*group.trunk, *outside):
            tag = _tag(vlan, number)
            if number == group.native:
                tag.set("nativeMode", group.native_mode)


def _nat(forward: Element, nat: Nat) -> None:
    """The XML has room for one range of addresses."""
    element = SubElement(forward, "nat")
    if len(nat.spans) == 1:
        low, high = nat.spans[0]
        SubElement(element, "address", start=str(low), end=str(high))
    if nat.port_span is not None:
        first, last = nat.port_span
        SubElement(element, "port", start=str(first), end=str(last))


def _tag(vlan: Element, number: int) -> Element:
    return SubElement(vlan, "tag", id=str(number))


def _addresses(network: Element, spec: NetworkSpec) -> None:
    """What the DHCP server hands out stands below the subnet that it is of."""
    subnets = [ipaddress.ip_interface(subnet) for subnet in spec.subnets]
    first = next((subnet for subnet in subnets if subnet.version == 4), subnets[0] if subnets else None)
    for subnet in subnets:
        ip = SubElement(network, "ip", family=f"ipv{subnet.version}", address=str(subnet.ip),
                        prefix=str(subnet.network.prefixlen))  # fmt: skip
        if spec.dhcp is not None and (subnet is first or _is_of(subnet, spec.dhcp)):
            _dhcp(ip, subnet, spec.dhcp)


def _is_of(subnet: _Interface, dhcp: Dhcp) -> bool:
    starts = (*(low for low, _ in (*dhcp.range, *dhcp.range6)), *(host.ip for host in dhcp.hosts))
    return any(ipaddress.ip_address(start) in subnet.network for start in starts)


def _dhcp(ip: Element, subnet: _Interface, dhcp: Dhcp) -> None:
    section = SubElement(ip, "dhcp")
    for low, high in (*dhcp.range, *dhcp.range6):
        if ipaddress.ip_address(low) in subnet.network:
            _lease(SubElement(section, "range", start=low, end=high), dhcp)
    for host in dhcp.hosts:
        if ipaddress.ip_address(host.ip) in subnet.network:
            told = {"mac": host.mac, "id": host.id, "ip": host.ip, "name": host.name}
            said = {name: value for name, value in told.items() if value is not None}
            _lease(SubElement(section, "host", said), dhcp)
    if dhcp.boot is not None and subnet.version == 4:
        server = {"server": dhcp.boot.server} if dhcp.boot.server is not None else {}
        SubElement(section, "bootp", {"file": dhcp.boot.file, **server})


def _lease(element: Element, dhcp: Dhcp) -> None:
    if _has_own_lease(dhcp):
        SubElement(element, "lease", expiry=str(dhcp.lease), unit="seconds")


def _has_own_lease(dhcp: Dhcp) -> bool:
    return dhcp.lease != DEFAULT_LEASE_SECONDS
