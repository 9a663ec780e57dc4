"""Addresses that a vNIC without registered ones has claimed, and what a claim is on the wire.

A claim is ARP with a sender address (RFC 826; an announcement of RFC 5227 is one), a neighbour advertisement, a
neighbour solicitation from an address, or one from the unspecified address about the address that it is about to take
(RFC 4861, RFC 4862). An ARP probe is none: it comes from 0.0.0.0, and an announcement follows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address

from controller.model.guard import first_of_each_kind, kind_of
from controller.model.host import HostSpec
from controller.model.nat_pools import pools_of_wires
from controller.model.network import NetworkSpec, nobodys_addresses
from controller.model.port import PortSpec, PortStatus

_ETHERNET, _ARP_BYTES, _IPV6_BYTES, _ND_BYTES = 14, 28, 40, 24
_ARP, _IPV6 = 0x0806, 0x86DD
_ARP_FIXED = bytes.fromhex("0001080006040001"), bytes.fromhex("0001080006040002")  # Ethernet, IPv4; request, reply
_ICMPV6, _SOLICITATION, _ADVERTISEMENT = 58, 135, 136
_ND_HOP_LIMIT = 255  # RFC 4861, 6.1: whatever comes from farther away is no ND


@dataclass(frozen=True, slots=True)
class Claim:
    """Who says so, by the Ethernet source, and which address it is."""

    mac: str
    address: str


def read_claim(frame: bytes) -> Claim | None:
    """The claim in an Ethernet frame without a tag, as a guest sent it; None when it is none, or cut off."""
    if len(frame) < _ETHERNET:
        return None
    mac, eth_type, inside = frame[6:12], int.from_bytes(frame[12:14], "big"), frame[_ETHERNET:]
    address = _by_arp(mac, inside) if eth_type == _ARP else _by_nd(inside) if eth_type == _IPV6 else None
    if address is None or address.is_multicast or address.is_unspecified or address.is_loopback:
        return None
    if address == IPv4Address("255.255.255.255"):
        return None
    return Claim(mac.hex(":"), str(address))


def _by_arp(mac: bytes, packet: bytes) -> IPv4Address | None:
    if len(packet) < _ARP_BYTES or packet[:8] not in _ARP_FIXED or packet[8:14] != mac:
        return None
    return IPv4Address(packet[14:18])


def _by_nd(packet: bytes) -> IPv6Address | None:
    if len(packet) < _IPV6_BYTES + _ND_BYTES or packet[0] >> 4 != 6 or packet[6:8] != bytes([_ICMPV6, _ND_HOP_LIMIT]):
        return None
    source, kind, target = IPv6Address(packet[8:24]), packet[40], IPv6Address(packet[48:64])
    if kind == _ADVERTISEMENT or (kind == _SOLICITATION and source.is_unspecified):
        return target
    return source if kind == _SOLICITATION else None


@dataclass(frozen=True, slots=True)
class Taken:
    """``addresses`` are (network, address); ``pools`` are whole subnets, by network."""

    addresses: Collection[tuple[str, str]]
    pools: Mapping[str, Collection[IPv4Network]]

    def has(self, network: str, address: str) -> bool:
        pools = self.pools.get(network, ()) if "." in address else ()
        return (network, address) in self.addresses or any(IPv4Address(address) in pool for pool in pools)


def taken_in(
    networks: Mapping[str, NetworkSpec],
    registered: Iterable[PortSpec],
    hosts: Mapping[str, HostSpec],
    floating: Collection[str],
) -> Taken:
    """Everything that nobody can learn: reserved, a host's, a floating one, of a pool, or a registered vNIC's."""
    found = {
        (name, address) for name, spec in networks.items() for address in nobodys_addresses(name, spec, hosts, floating)
    }
    found |= {(spec.network, address) for spec in registered for address in spec.addresses}
    return Taken(found, pools_of_wires(networks, hosts))


def learned(
    status: PortStatus,
    before: PortStatus | None,
    claimed: Iterable[str],
    networks: Mapping[str, NetworkSpec],
    taken: Taken,
) -> tuple[str, ...]:
    """What a vNIC without registered addresses has learned: what it had in the same place, then what it claimed since.

    Of a kind of which it has leased ones, that ``status`` names, it learns none.
    """
    network = networks.get(status.network or "")
    group = network.portgroup(status.portgroup or "") if network is not None else None
    if group is None or not group.learn_addresses:
        return ()
    place, leased = (status.network, status.portgroup), {kind_of(address) for address in status.addresses}
    had = before.learned if before is not None and (before.network, before.portgroup) == place else ()
    free = (a for a in (*had, *claimed) if not taken.has(status.network or "", a) and kind_of(a) not in leased)
    return first_of_each_kind(free, group.learn_addresses)
