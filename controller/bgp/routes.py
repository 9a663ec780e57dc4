"""Which prefixes are announced, and by which host's external address each is reached."""

from __future__ import annotations

from hashlib import blake2b
from ipaddress import IPv4Address, IPv4Network

from controller.fabric import Fabric
from controller.views import GatewayView, PortView


def routes(fabric: Fabric, uplink: str | None = None) -> dict[str, str]:
    """Prefix → next hop, of the networks that are reached from outside.

    Each guest's address by its own host; what is behind it as well. A subnet by one of the hosts that carry its guests:
    what comes there for others it sends on. Only by hosts that meet the outside on this physical network, if one is
    named.
    """
    reader = fabric.reader()
    next_hops = {
        host.name: host.external.address
        for host in reader.hosts()
        if host.external is not None and (uplink is None or (uplink, host.external.uplink) in host.uplinks)
    }
    found: dict[str, str] = {}
    for network in reader.networks():
        if network.gateway is None or not network.gateway.takes:
            continue
        hosts = _guests(network.gateway, fabric.ports_of(network.name))
        places = {address: host for address, host in hosts.items() if host in next_hops}
        found |= {f"{address}/32": next_hops[host] for address, host in places.items()}
        found |= {to: next_hops[places[via]] for to, via in network.gateway.routes if via in places}
        if places:
            host = min(set(places.values()), key=lambda host: _rank(network.name, host))
            found |= {str(subnet): next_hops[host] for subnet in network.gateway.subnets4}
    return found


def _guests(gateway: GatewayView, ports: list[PortView]) -> dict[str, str]:
    """The host of each address that a guest in the subnets has; of two guests with one the first by name counts."""
    subnets = [(int(subnet.network_address), int(subnet.netmask)) for subnet in gateway.subnets4]
    found: dict[str, str] = {}
    for port in ports:
        if port.arriving or not port.memberships:
            continue
        for address in port.ipv4:
            if any(int(IPv4Address(address)) & mask == first for first, mask in subnets):
                found.setdefault(address, port.host)
    return found


def _rank(network: str, host: str) -> bytes:
    """By it a network's host is chosen: the choice changes only with the chosen one, and networks are spread."""
    return blake2b(f"{network} {host}".encode(), digest_size=8).digest()


def in_order(found: dict[str, str]) -> list[str]:
    """Written as a router shows them, by address."""
    return [f"{prefix} via {found[prefix]}" for prefix in sorted(found, key=IPv4Network)]
