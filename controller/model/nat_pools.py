"""What must hold between the address pools of nat networks and the rest of a fleet."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network

from controller.errors import Problem
from controller.model.floating import FloatingIPSpec
from controller.model.host import HostSpec
from controller.model.nat import Span, address_span
from controller.model.network import NetworkSpec
from controller.model.port import PortSpec

_LEAVE_OUT = "leave that out of the range"
_Taken = list[tuple[IPv4Address, str]]


def problems(
    networks: Mapping[str, NetworkSpec],
    hosts: Mapping[str, HostSpec],
    floating: Mapping[str, FloatingIPSpec],
    ports: Mapping[str, PortSpec],
) -> Iterator[Problem]:
    """One for each range of a pool that cannot be."""
    pools = {name: spec.nat.addresses for name, spec in sorted(networks.items()) if spec.nat is not None}
    if not any(pools.values()):
        return
    subnets = outside_subnets4(hosts)
    taken = list(_outside(hosts))
    taken += [
        (IPv4Address(f.address), f"FloatingIP {name}'s") for name, f in sorted(floating.items()) if "." in f.address
    ]
    taken += _guests(networks, ports, {(x.uplink, x.vlan or 0) for h in hosts.values() if (x := h.external)})
    before: list[tuple[Span, str]] = []
    for name, ranges in pools.items():
        for text in ranges:
            low, high = ends = address_span(text)
            what = _wrong(ends, subnets, taken, before)
            if what is not None:
                yield Problem(f"Network {name}: nat.addresses", f"{text} {what[0]}", what[1])
            before.append(((low, high), name))


def outside_subnets4(hosts: Mapping[str, HostSpec]) -> frozenset[IPv4Network]:
    """The IPv4 ones of the hosts' external addresses."""
    return frozenset(host.external.subnet for host in hosts.values() if host.external is not None)


def is_in(spec: NetworkSpec, subnets: Iterable[IPv4Network]) -> bool:
    """Whether every range of its pool, if it has any, is in one of the subnets."""
    known = tuple(subnets)
    return spec.nat is None or all(any(low in net and high in net for net in known) for low, high in spec.nat.spans)


def pools_of_wires(
    networks: Mapping[str, NetworkSpec], hosts: Mapping[str, HostSpec]
) -> dict[str, tuple[IPv4Network, ...]]:
    """What of pools is in the subnets where hosts meet the outside in a network, by that network."""
    pools = [each for spec in networks.values() if spec.nat is not None for each in spec.nat.subnets]
    wires: dict[tuple[str, int], set[IPv4Network]] = defaultdict(set)
    for external in (host.external for host in hosts.values() if pools):
        if external is not None:
            wires[external.uplink, external.vlan or 0].add(external.subnet)
    found = {}
    for name, spec in networks.items() if wires else ():
        physical = spec.physical_network
        subnets = {subnet for vlan in spec.vlans() if physical for subnet in wires.get((physical, vlan), ())}
        if within := tuple(pool for pool in pools if any(pool.overlaps(subnet) for subnet in subnets)):
            found[name] = within
    return found


def _wrong(
    ends: Span, subnets: Iterable[IPv4Network], taken: _Taken, before: Iterable[tuple[Span, str]]
) -> tuple[str, str] | None:
    """What is wrong with a range, and what to do."""
    low, high = ends
    there = [subnet for subnet in subnets if low in subnet and high in subnet]
    if not there:
        known = ", ".join(sorted(map(str, subnets))) or "none yet"
        return "is in no subnet of a host's external address", f"those are: {known}"
    for address, whose in taken:
        if low <= address <= high:
            one = low == high
            return f"is {whose}" if one else f"has {address}, which is {whose}", "choose another" if one else _LEAVE_OUT
    for subnet in there:
        for edge in (subnet.network_address, subnet.broadcast_address):
            if low <= edge <= high:
                return f"has {edge}, no address of a machine in {subnet}", _LEAVE_OUT
    for (first, last), other in before:
        if first <= high and low <= last:
            return f"has {max(first, low)}, which is in the pool of Network {other}", "give each network its own"
    return None


def _outside(hosts: Mapping[str, HostSpec]) -> Iterator[tuple[IPv4Address, str]]:
    for name, host in sorted(hosts.items()):
        if (external := host.external) is not None:
            yield IPv4Address(external.ip), f"Host {name}'s external address"
            yield IPv4Address(external.gateway), f"the router of Host {name}"


def _guests(
    networks: Mapping[str, NetworkSpec], ports: Mapping[str, PortSpec], wires: set[tuple[str, int]]
) -> Iterator[tuple[IPv4Address, str]]:
    """Registered on a wire where hosts meet the outside."""
    for name, port in sorted(ports.items()):
        network = networks.get(port.network)
        if network is None or not any((network.physical_network, vlan) in wires for vlan in network.vlans()):
            continue
        for address in port.addresses:
            if "." in address:
                yield IPv4Address(address), f"Port {name}'s on Network {port.network}"
