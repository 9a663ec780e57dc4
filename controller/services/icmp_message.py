"""ICMP errors as they go out, and the packets that they are about (RFC 792, 1191, 1812; ICMPv6: RFC 4443).

A guest may send anything: every length is checked before it is believed, and nothing is said about what nobody may be
told of (RFC 1812, 4.3.2.7; RFC 4443, 2.4 e): ICMP errors, later fragments, what was for many or is from nobody in
particular.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address

from os_ken.lib.packet import ethernet, icmp, icmpv6, ipv4, ipv6, packet

from controller.errors import PacketError

_ETHERNET = struct.Struct("!6s6sH")
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_TYPE_IPV4, _TYPE_IPV6, _ICMP, _ICMPV6 = 0x0800, 0x86DD, 1, 58
_OFFSET, _OFFSET_V6 = 0x1FFF, 0xFFF8  # of a fragment: RFC 791, 3.1; RFC 8200, 4.5
_QUERIES = frozenset({0, 8, 9, 10, 13, 14, 15, 16, 17, 18})  # every other ICMP type is, or may be, an error
_FIRST_QUERY_V6, _REDIRECT_V6 = 128, 137
_OPTIONS_V6, _FRAGMENT_V6 = frozenset({0, 43, 60}), 44  # headers before what is carried: RFC 8200, 4
_LONGEST, _LONGEST_V6 = 576, 1280  # bytes of an error: RFC 1812, 4.3.2.3; RFC 4443, 2.4 c
_HEADERS, _HEADERS_V6 = 20 + 8, 40 + 8  # of the error itself
_TTL = 64
_THIS_NETWORK = IPv4Network("0.0.0.0/8")  # RFC 1122, 3.2.1.3

Address = IPv4Address | IPv6Address


class Why(Enum):
    """Why a packet goes no further. The value is type and code of ICMP (RFC 792; RFC 1812, 5.2.7.1) and of ICMPv6."""

    TIME_IS_OVER = (icmp.ICMP_TIME_EXCEEDED, 0), (icmpv6.ICMPV6_TIME_EXCEEDED, 0)
    NO_NETWORK = (icmp.ICMP_DEST_UNREACH, 0), (icmpv6.ICMPV6_DST_UNREACH, 0)
    NO_HOST = (icmp.ICMP_DEST_UNREACH, 1), (icmpv6.ICMPV6_DST_UNREACH, 3)
    TOO_BIG = (icmp.ICMP_DEST_UNREACH, 4), (icmpv6.ICMPV6_PACKET_TOO_BIG, 0)
    PROHIBITED = (icmp.ICMP_DEST_UNREACH, 13), (icmpv6.ICMPV6_DST_UNREACH, 1)


@dataclass(frozen=True, slots=True)
class Quoted:
    """What an error tells of the packet that it is about: its ``size`` is bytes, ``start`` is its beginning, as an
    error has it."""

    eth_src: str
    source: Address
    destination: Address
    ttl: int
    size: int
    start: bytes


def decode(frame: bytes) -> Quoted:
    """The IP packet in an untagged frame, if its sender may be told of an error. Raises PacketError."""
    if len(frame) < _ETHERNET.size:
        raise PacketError(f"{len(frame)} bytes are no frame")
    to, by, kind = _ETHERNET.unpack_from(frame)
    if (to[0] | by[0]) & 1 or kind not in {_TYPE_IPV4, _TYPE_IPV6}:
        raise PacketError(
            f"type {kind:#06x} to {to.hex(':')} from {by.hex(':')} is no IP packet from one machine to another"
        )
    return (_decode_ipv4 if kind == _TYPE_IPV4 else _decode_ipv6)(by.hex(":"), frame[_ETHERNET.size :])


def _decode_ipv4(by: str, data: bytes) -> Quoted:
    if len(data) < _IPV4.size:
        raise PacketError(f"{len(data)} bytes hold no IPv4 packet")
    version, _, total, _, fragment, ttl, protocol, _, src, dst = _IPV4.unpack_from(data)
    header = (version & 15) * 4
    if version >> 4 != 4 or not _IPV4.size <= header <= total <= len(data):
        raise PacketError(f"{total} bytes with a header of {header} are no IPv4 packet")
    source, destination = IPv4Address(src), IPv4Address(dst)
    if fragment & _OFFSET or destination.is_multicast or destination.is_reserved:
        raise PacketError(f"nobody is told of a later fragment, or of what was for many: {destination}")
    if source.is_multicast or source.is_reserved or source.is_loopback or source in _THIS_NETWORK:
        raise PacketError(f"{source} is nobody in particular")
    if protocol == _ICMP and (total < header + 1 or data[header] not in _QUERIES):
        raise PacketError("nobody is told of an error by an error")
    return Quoted(by, source, destination, ttl, total, data[: min(total, _LONGEST - _HEADERS)])


def _decode_ipv6(by: str, data: bytes) -> Quoted:
    if len(data) < _IPV6.size:
        raise PacketError(f"{len(data)} bytes hold no IPv6 packet")
    version, length, header, hops, src, dst = _IPV6.unpack_from(data)
    total = _IPV6.size + length
    if version >> 28 != 6 or total > len(data):
        raise PacketError(f"{total} bytes, of which {len(data)} are here, are no IPv6 packet")
    source, destination = IPv6Address(src), IPv6Address(dst)
    if destination.is_multicast or destination.is_link_local:
        raise PacketError(f"nobody is told of what was for many, or for his own wire: {destination}")
    if source.is_multicast or source.is_unspecified or source.is_loopback or source.is_link_local:
        raise PacketError(f"{source} is nobody in particular")
    protocol, start = _carried(header, data[:total])
    if protocol == _ICMPV6 and (start >= total or data[start] < _FIRST_QUERY_V6 or data[start] == _REDIRECT_V6):
        raise PacketError("nobody is told of an error by an error")
    return Quoted(by, source, destination, hops, total, data[: min(total, _LONGEST_V6 - _HEADERS_V6)])


def _carried(header: int, data: bytes) -> tuple[int, int]:
    """What an IPv6 packet carries behind its extension headers, and where that begins. Raises PacketError."""
    start = _IPV6.size
    while header in _OPTIONS_V6 or header == _FRAGMENT_V6:
        if start + 8 > len(data):
            raise PacketError(f"a header of type {header} ends behind the packet")
        if header == _FRAGMENT_V6 and int.from_bytes(data[start + 2 : start + 4], "big") & _OFFSET_V6:
            raise PacketError("nobody is told of a later fragment")
        size = 8 if header == _FRAGMENT_V6 else (data[start + 1] + 1) * 8
        header, start = data[start], start + size
    return header, start


def encode(about: Quoted, mac: str, address: str, why: Why, mtu: int = 0) -> bytes:
    """The frame in which the router with this MAC and address tells the sender; ``mtu`` is bytes that would fit.

    Raises PacketError when that is the sender itself.
    """
    if address == str(about.source):
        raise PacketError(f"{address} tells itself nothing")
    made = packet.Packet()
    if about.source.version == 4:
        (kind, code), _ = why.value
        over = kind == icmp.ICMP_TIME_EXCEEDED
        told = icmp.TimeExceeded(data=about.start) if over else icmp.dest_unreach(0, mtu, about.start)
        made.add_protocol(ethernet.ethernet(about.eth_src, mac, _TYPE_IPV4))
        made.add_protocol(ipv4.ipv4(src=address, dst=str(about.source), proto=_ICMP, ttl=_TTL))
        made.add_protocol(icmp.icmp(kind, code, data=told))
    else:
        _, (kind, code) = why.value
        made.add_protocol(ethernet.ethernet(about.eth_src, mac, _TYPE_IPV6))
        made.add_protocol(ipv6.ipv6(src=address, dst=str(about.source), nxt=_ICMPV6, hop_limit=_TTL))
        made.add_protocol(icmpv6.icmpv6(kind, code, data=struct.pack("!I", mtu) + about.start))
    made.serialize()
    return bytes(made.data)
