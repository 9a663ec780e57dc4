"""UDP over IPv6 as it comes from a guest, and as it goes back.

Every length is checked before it is believed. Headers between IPv6's and UDP's are for nobody who asks his own wire:
such a packet is refused.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv6Address

from os_ken.lib.packet import ethernet, ipv6, packet, udp

from controller.errors import PacketError

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


def decode(frame: bytes) -> Datagram6:
    """The datagram in an untagged Ethernet frame (RFC 2464, 8200, 768). Raises PacketError for anything else."""
    start = _HEAD.size + _UDP.size
    if len(frame) < start:
        raise PacketError(f"{len(frame)} bytes hold no UDP over IPv6")
    dst, src, kind, version, length, header, _, ip_src, ip_dst = _HEAD.unpack_from(frame)
    if kind != ETHERTYPE or version >> 28 != 6 or header != _UDP_PROTOCOL:
        raise PacketError(f"type {kind:#06x}, version {version >> 28}, header {header} is no UDP over IPv6")
    udp_src, udp_dst, size, _ = _UDP.unpack_from(frame, _HEAD.size)
    if not _UDP.size <= size <= length <= len(frame) - _HEAD.size:
        raise PacketError(
            f"a UDP datagram of {size} bytes in {length}, of which {len(frame) - _HEAD.size} are here"
        )  # fmt: skip
    payload = frame[start : _HEAD.size + size]
    return Datagram6(
        src.hex(":"), dst.hex(":"), str(IPv6Address(ip_src)), str(IPv6Address(ip_dst)), udp_src, udp_dst, payload
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
