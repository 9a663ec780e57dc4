"""What IPv6 carries as it comes from a guest, and UDP as it goes back.

Every length is checked before it is believed. Headers between IPv6's and UDP's are for nobody who asks his own wire:
such a packet is refused.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv6Address

from os_ken.lib.packet import ethernet, ipv6, packet, udp

from controller.errors import PacketError
from controller.services.datagrams import Around

ETHERTYPE = 0x86DD
_HEAD = struct.Struct("!6s6sHIHBB16s16s")
_UDP = struct.Struct("!HHHH")
_UDP_PROTOCOL = 17
_HOPS = 64


@dataclass(frozen=True, slots=True)
class Datagram6:
    """One UDP datagram with what is around it; MACs and addresses as text."""

    eth_src: str
    eth_dst: str
    ipv6_src: str
    ipv6_dst: str
    udp_src: int
    udp_dst: int
    payload: bytes


def carried(frame: bytes, wanted: int) -> tuple[Around, bytes]:
    """What an IPv6 packet carries whose next header is this one, in an untagged Ethernet frame (RFC 2464, 8200): eight
    bytes or more. Raises PacketError for anything else."""
    if len(frame) < _HEAD.size:
        raise PacketError(f"{len(frame)} bytes hold no IPv6 packet")
    dst, src, kind, version, length, header, _, ip_src, ip_dst = _HEAD.unpack_from(frame)
    if kind != ETHERTYPE or version >> 28 != 6 or header != wanted:
        raise PacketError(f"type {kind:#06x}, version {version >> 28}, header {header} is no IPv6 with header {wanted}")
    here = len(frame) - _HEAD.size
    if not _UDP.size <= length <= here:
        raise PacketError(f"an IPv6 packet of {length} bytes, of which {here} are here")
    around = Around(src.hex(":"), dst.hex(":"), str(IPv6Address(ip_src)), str(IPv6Address(ip_dst)))
    return around, frame[_HEAD.size : _HEAD.size + length]


def decode(frame: bytes) -> Datagram6:
    """The datagram in an untagged Ethernet frame (RFC 768). Raises PacketError for anything else."""
    around, segment = carried(frame, _UDP_PROTOCOL)
    udp_src, udp_dst, size, _ = _UDP.unpack_from(segment)
    if not _UDP.size <= size <= len(segment):
        raise PacketError(f"a UDP datagram of {size} bytes in {len(segment)}")
    return Datagram6(
        around.eth_src, around.eth_dst, around.ip_src, around.ip_dst, udp_src, udp_dst, segment[_UDP.size : size]
    )


def encode(said: Datagram6) -> bytes:
    """The Ethernet frame, with the checksum that IPv6 wants (RFC 8200, 8.1)."""
    made = packet.Packet()
    made.add_protocol(ethernet.ethernet(said.eth_dst, said.eth_src, ETHERTYPE))
    made.add_protocol(ipv6.ipv6(src=said.ipv6_src, dst=said.ipv6_dst, nxt=_UDP_PROTOCOL, hop_limit=_HOPS))
    made.add_protocol(udp.udp(said.udp_src, said.udp_dst))
    made.add_protocol(said.payload)
    made.serialize()
    return bytes(made.data)
