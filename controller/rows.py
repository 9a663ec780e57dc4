"""The rows that the fabric is made of, and the views of hosts and networks that follow from them alone."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from controller.model.floating import FloatingIPSpec
from controller.model.forward import PortForwardSpec
from controller.model.host import External, HostSpec, external_mac
from controller.model.kinds import network_mtu
from controller.model.network import NetworkSpec, network_gateway_mac
from controller.model.port import PortSpec, PortStatus
from controller.views import ExternalView, GatewayView, HostView, NetworkView, Way


@dataclass(frozen=True, slots=True)
class Rows:
    """Everything that the fabric is made of. Numbers come from the store's pools; ``strays`` are interfaces that are
    no guest's, by host, with their OpenFlow ports; ``nat_addresses`` are the names of those that were allotted (see
    ``nat_name``)."""

    hosts: Mapping[str, HostSpec]
    networks: Mapping[str, NetworkSpec]
    ports: Mapping[str, PortStatus]
    host_numbers: Mapping[str, int]
    segment_numbers: Mapping[str, int]
    uplink_numbers: Mapping[str, int]
    registered: Mapping[str, PortSpec]
    strays: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    forwards: Mapping[str, PortForwardSpec] = field(default_factory=dict)
    floating: Mapping[str, FloatingIPSpec] = field(default_factory=dict)
    nat_addresses: Iterable[str] = ()


def outside_name(physical_network: str, vlan: int) -> str:
    """How the wire to the outside is called where it is no network of the operator's; no network's name begins so."""
    return f"@{physical_network}/{vlan}"


def segment_name(network: str, vlan: int) -> str:
    """How the store calls a segment in its pool of numbers."""
    return f"{network}/{vlan}"


def nat_name(network: str, host: str, address: str) -> str:
    """How the store calls an address of a network's pool that is a host's, whose number is the address."""
    return f"{network}/{host}/{address}"


def nat_allotments(
    names: Iterable[str], networks: Mapping[str, NetworkSpec], hosts: Mapping[str, HostSpec]
) -> dict[tuple[str, str], str]:
    """The address as which guests of a network leave a host, by (network, host), of those names that hold: the network
    has it in its pool, and the host its subnet outside."""
    found: dict[tuple[str, str], str] = {}
    for name in sorted(names):
        try:
            network, host, address = name.split("/")
            there = ipaddress.IPv4Address(address)
        except ValueError:  # somebody edited the store by hand
            continue
        nat, external = (
            networks[network].nat if network in networks else None,
            hosts[host].external if host in hosts else None,
        )
        if nat is not None and external is not None and nat.holds(there) and there in external.subnet:
            found.setdefault((network, host), address)
    return found


def outside_segment(external: External) -> str:
    """How the store calls the segment of a host's way to the outside, where no network of the operator's has it."""
    vlan = external.vlan or 0
    return segment_name(outside_name(external.uplink, vlan), vlan)


def network_of_wire(rows: Rows) -> dict[tuple[str, int], str]:
    """Which network has a VLAN of a physical network; a passthrough's is nobody else's."""
    return {
        (spec.physical_network, vlan): name
        for name, spec in rows.networks.items()
        if spec.physical_network is not None
        for vlan in spec.vlans()
    }


def external_view(name: str, spec: HostSpec, rows: Rows, wires: Mapping[tuple[str, int], str]) -> ExternalView | None:
    external = spec.external
    if external is None:
        return None
    vlan = external.vlan or 0
    network = wires.get((external.uplink, vlan), outside_name(external.uplink, vlan))
    segment, uplink = rows.segment_numbers.get(segment_name(network, vlan)), rows.uplink_numbers.get(external.uplink)
    if segment is None or uplink is None:
        return None
    subnet, mac, ipv6 = str(external.subnet), external_mac(name, external), None
    if external.ip6 is not None and external.gateway6 is not None:
        ipv6 = Way(external.ip6, str(external.subnet6), external.gateway6)
    return ExternalView(network, segment, uplink, mac, external.ip, subnet, external.gateway, external.mtu, ipv6)


def host_view(name: str, rows: Rows, wires: Mapping[tuple[str, int], str]) -> HostView | None:
    spec, number = rows.hosts.get(name), rows.host_numbers.get(name)
    if spec is None or number is None:
        return None
    ports = rows.uplink_numbers
    uplinks = tuple((physical, ports[physical]) for physical in sorted(spec.uplinks) if physical in ports)
    external = external_view(name, spec, rows, wires)
    return HostView(name, number, spec.tunnel_ip, spec.tunnel, uplinks, external)


def network_view(name: str, rows: Rows, overlay_limit: int | None) -> NetworkView | None:
    """``overlay_limit`` is ``overlay_mtu`` of the hosts."""
    spec = rows.networks.get(name)
    if spec is None:
        return None
    segments = []
    for vlan in sorted(spec.vlans()):
        number = rows.segment_numbers.get(segment_name(name, vlan))
        if number is None:
            return None
        segments.append((vlan, number))
    uplink = rows.uplink_numbers.get(spec.physical_network) if spec.physical_network is not None else None
    learning = any(group.learning for group in spec.portgroups.values())
    return NetworkView(
        name, tuple(segments), spec.is_overlay, spec.physical_network, uplink, learning,
        _gateway_view(name, spec, network_mtu(spec, overlay_limit)), sorted_addresses(spec.reserved_addresses),
    )  # fmt: skip


def _gateway_view(name: str, spec: NetworkSpec, mtu: int) -> GatewayView | None:
    if not spec.subnets:
        return None
    dhcp, dhcp6 = (spec.dhcp is not None and spec.has_subnet(version) for version in (4, 6))
    mac, routes = network_gateway_mac(name, spec), tuple((route.to, route.via) for route in spec.routes)
    pool, ports = (spec.nat.subnets, spec.nat.port_span) if spec.nat is not None else ((), None)
    return GatewayView(mac, spec.subnets, dhcp, spec.mode, routes, spec.answers_dns, dhcp6, mtu, pool, ports)


def sorted_addresses(addresses: Iterable[str]) -> tuple[str, ...]:
    """IPv4 before IPv6, each by number."""
    return tuple(sorted(addresses, key=lambda a: (":" in a, ipaddress.ip_address(a).packed)))
