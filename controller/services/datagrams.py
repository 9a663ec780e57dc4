"""What IPv4 carries as it comes from a guest, and UDP as it goes back.

A guest may send anything: every length is checked before it is believed. Checksums are not: the switch, or whoever
sends by an offloading card, may have left them open.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from os_ken.lib.packet import ethernet, ipv4, packet, udp

from controller.errors import PacketError

_ETHERNET = struct.Struct("!6s6sH")
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_UDP = struct.Struct("!HHHH")
TCP, UDP = 6, 17
_TYPE_IPV4 = 0x0800
_FRAGMENT = 0x3FFF  # more fragments, and the offset (RFC 791, 3.1)
_TTL = 64


@dataclass(frozen=True, slots=True)
class Datagram:
    """One UDP datagram with what is around it; MACs and addresses as text."""

    eth_src: str
    eth_dst: str
    ipv4_src: str
    ipv4_dst: str
    udp_src: int
    udp_dst: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Around:
    """What is around a packet's payload; MACs and addresses as text."""

    eth_src: str
    eth_dst: str
    ip_src: str
    ip_dst: str


def protocol(frame: bytes) -> int | None:
    """The IPv4 protocol of an untagged Ethernet frame, if it has one."""
    return frame[23] if len(frame) > 23 and frame[12:14] == _TYPE_IPV4.to_bytes(2, "big") else None


def destination_port(frame: bytes) -> int | None:
    """The port of TCP or UDP over IPv4 that a frame is for, if it is for one."""
    number = protocol(frame)
    try:
        return int.from_bytes(carried(frame, number)[1][2:4], "big") if number in {TCP, UDP} else None
    except PacketError:
        return None


def carried(frame: bytes, wanted: int) -> tuple[Around, bytes]:
    """What an IPv4 packet of this protocol carries, in an untagged Ethernet frame (RFC 894, 791). Raises PacketError
    for anything else, also for a fragment."""
    if len(frame) < _ETHERNET.size + _IPV4.size:
        raise PacketError(f"{len(frame)} bytes hold no IPv4 packet")
    dst, src, kind = _ETHERNET.unpack_from(frame)
    if kind != _TYPE_IPV4:
        raise PacketError(f"type {kind:#06x} is not IPv4's")
    version, _, total, _, fragment, _, number, _, ip_src, ip_dst = _IPV4.unpack_from(frame, 14)
    header = (version & 15) * 4
    if version >> 4 != 4 or header < _IPV4.size or not header + _UDP.size <= total <= len(frame) - 14:
        raise PacketError(
            f"an IPv4 header of {header} bytes in a packet of {total}, of which {len(frame) - 14} are here"
        )
    if number != wanted or fragment & _FRAGMENT:
        raise PacketError(f"protocol {number}, or a fragment, is no whole packet of protocol {wanted}")
    return Around(src.hex(":"), dst.hex(":"), _dotted(ip_src), _dotted(ip_dst)), frame[14 + header : 14 + total]


def decode(frame: bytes) -> Datagram:
    """The datagram in an untagged Ethernet frame (RFC 768). Raises PacketError for anything else."""
    around, segment = carried(frame, UDP)
    udp_src, udp_dst, size, _ = _UDP.unpack_from(segment)
    if not _UDP.size <= size <= len(segment):
        raise PacketError(f"a UDP datagram of {size} bytes in {len(segment)}")
    return Datagram(
        around.eth_src, around.eth_dst, around.ip_src, around.ip_dst, udp_src, udp_dst, segment[_UDP.size : size]
    )


def encode(said: Datagram) -> bytes:
    """The Ethernet frame, with its checksums."""
    made = packet.Packet()
    made.add_protocol(ethernet.ethernet(said.eth_dst, said.eth_src, _TYPE_IPV4))
    made.add_protocol(ipv4.ipv4(src=said.ipv4_src, dst=said.ipv4_dst, proto=UDP, ttl=_TTL))
    made.add_protocol(udp.udp(said.udp_src, said.udp_dst))
    made.add_protocol(said.payload)
    made.serialize()
    return bytes(made.data)


def _dotted(address: bytes) -> str:
    return ".".join(map(str, address))
