"""Which prefixes are announced, and by which host's external address each is reached."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from ipaddress import ip_address, ip_network

from controller.fabric import Fabric
from controller.views import GatewayView, PortView


def routes(fabric: Fabric, uplink: str | None = None) -> dict[str, str]:
    """Prefix → next hop of the same version of IP, of the networks that are reached from outside.

    Each guest's address by its own host; what is behind it as well. A subnet by one of the hosts that carry its guests:
    what comes there for others it sends on. Only by hosts that meet the outside on this physical network, if one is
    named.
    """
    reader = fabric.reader()
    outsides = {
        host.name: host.external
        for host in reader.hosts()
        if host.external is not None and (uplink is None or (uplink, host.external.uplink) in host.uplinks)
    }
    found: dict[str, str] = {}
    for network in reader.networks():
        if network.gateway is None or not network.gateway.takes:
            continue
        hosts = _guests(network.gateway, fabric.ports_of(network.name))
        for version in network.gateway.versions:
            next_hops = {
                host: way.address for host, each in outsides.items() for way in each.ways if way.version == version
            }
            found |= _ways(network.name, network.gateway, version, hosts, next_hops)
    return found


def _ways(
    network: str, gateway: GatewayView, version: int, hosts: Mapping[str, str], next_hops: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Prefix and next hop. ``hosts`` gives each guest's address its host, ``next_hops`` each host its own outside."""
    places = {
        address: host for address, host in hosts.items() if host in next_hops and (":" in address) == (version == 6)
    }
    for address, host in places.items():
        yield f"{address}/{32 if version == 4 else 128}", next_hops[host]
    for to, via in gateway.routes:
        if via in places:
            yield to, next_hops[places[via]]
    if places:
        chosen = min(set(places.values()), key=lambda host: _rank(network, host))
        for subnet in gateway.subnets:
            if subnet.version == version:
                yield str(subnet), next_hops[chosen]


def _guests(gateway: GatewayView, ports: Iterable[PortView]) -> dict[str, str]:
    """The host of each address that a guest in the subnets has; of two guests with one the first by name counts."""
    subnets = [(each.version, int(each.network_address), int(each.netmask)) for each in gateway.subnets]
    found: dict[str, str] = {}
    for port in ports:
        if port.arriving or not port.memberships:
            continue
        for text in port.addresses:
            address = ip_address(text)
            number = int(address)
            if any(address.version == version and number & mask == first for version, first, mask in subnets):
                found.setdefault(text, port.host)
    return found


def _rank(network: str, host: str) -> bytes:
    """By it a network's host is chosen: the choice changes only with the chosen one, and networks are spread."""
    return blake2b(f"{network} {host}".encode(), digest_size=8).digest()


def in_order(found: dict[str, str]) -> list[str]:
    """Written as a router shows them, by address."""
    return [f"{prefix} via {found[prefix]}" for prefix in sorted(found, key=_by_address)]


def _by_address(prefix: str) -> tuple[int, int, int]:
    network = ip_network(prefix)
    return network.version, int(network.network_address), network.prefixlen
