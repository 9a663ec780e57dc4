"""ARP for IPv4 over Ethernet (RFC 826), from and to machines outside."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

from os_ken.lib.packet import arp, ethernet, packet

from controller.errors import PacketError

ETHERTYPE = 0x0806
_FRAME = struct.Struct("!6s6sHHHBBH6s4s6s4s")
_ETHERNET_IPV4 = (1, 0x0800, 6, 4)
_EVERYBODY, _NOBODY = "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"


@dataclass(frozen=True, slots=True)
class Told:
    """Who says of itself that it has an address."""

    mac: str
    address: str


def decode(frame: bytes) -> Told:
    """What the sender of an untagged ARP frame says of itself. Raises PacketError."""
    if len(frame) < _FRAME.size:
        raise PacketError(f"{len(frame)} bytes are no ARP")
    _, _, kind, *what, _, mac, address, _, _ = _FRAME.unpack_from(frame)
    if kind != ETHERTYPE or tuple(what) != _ETHERNET_IPV4:
        raise PacketError(f"type {kind:#06x}, {what} is no ARP for IPv4 over Ethernet")
    return Told(mac.hex(":"), str(IPv4Address(address)))


def request(mac: str, address: str, target: str) -> bytes:
    """The frame in which a machine asks who has the target."""
    made = packet.Packet()
    made.add_protocol(ethernet.ethernet(_EVERYBODY, mac, ETHERTYPE))
    made.add_protocol(arp.arp(opcode=arp.ARP_REQUEST, src_mac=mac, src_ip=address, dst_mac=_NOBODY, dst_ip=target))
    made.serialize()
    return bytes(made.data)
