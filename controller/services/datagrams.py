"""UDP over IPv4 as it comes from a guest, and as it goes back.

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
_TYPE_IPV4, _UDP_PROTOCOL = 0x0800, 17
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


def decode(frame: bytes) -> Datagram:
    """The datagram in an untagged Ethernet frame (RFC 894, 791, 768). Raises PacketError for anything else."""
    if len(frame) < _ETHERNET.size + _IPV4.size:
        raise PacketError(f"{len(frame)} bytes hold no IPv4 packet")
    dst, src, kind = _ETHERNET.unpack_from(frame)
    if kind != _TYPE_IPV4:
        raise PacketError(f"type {kind:#06x} is not IPv4's")
    version, _, total, _, fragment, _, protocol, _, ip_src, ip_dst = _IPV4.unpack_from(frame, 14)
    header = (version & 15) * 4
    if version >> 4 != 4 or header < _IPV4.size or not header + _UDP.size <= total <= len(frame) - 14:
        raise PacketError(
            f"an IPv4 header of {header} bytes in a packet of {total}, of which {len(frame) - 14} are here"
        )
    if protocol != _UDP_PROTOCOL or fragment & _FRAGMENT:
        raise PacketError(f"protocol {protocol}, or a fragment, is no whole UDP datagram")
    start, end = 14 + header, 14 + total
    udp_src, udp_dst, size, _ = _UDP.unpack_from(frame, start)
    if not _UDP.size <= size <= end - start:
        raise PacketError(f"a UDP datagram of {size} bytes in {end - start}")
    return Datagram(
        src.hex(":"), dst.hex(":"), _dotted(ip_src), _dotted(ip_dst), udp_src, udp_dst,
        frame[start + _UDP.size : start + size],
    )  # fmt: skip


def encode(said: Datagram) -> bytes:
    """The Ethernet frame, with its checksums."""
    made = packet.Packet()
    made.add_protocol(ethernet.ethernet(said.eth_dst, said.eth_src, _TYPE_IPV4))
    made.add_protocol(ipv4.ipv4(src=said.ipv4_src, dst=said.ipv4_dst, proto=_UDP_PROTOCOL, ttl=_TTL))
    made.add_protocol(udp.udp(said.udp_src, said.udp_dst))
    made.add_protocol(said.payload)
    made.serialize()
    return bytes(made.data)


def _dotted(address: bytes) -> str:
    return ".".join(map(str, address))
