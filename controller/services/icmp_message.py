"""ICMP errors as they go out, and the packets that they are about (RFC 792, 1191, 1812).

A guest may send anything: every length is checked before it is believed, and nothing is said about what nobody may be
told of (RFC 1812, 4.3.2.7): ICMP errors, later fragments, what was for many or is from nobody in particular.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Interface

from os_ken.lib.packet import ethernet, icmp, ipv4, packet

from controller.errors import PacketError

_ETHERNET = struct.Struct("!6s6sH")
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_TYPE_IPV4, _ICMP = 0x0800, 1
_OFFSET = 0x1FFF  # of a fragment (RFC 791, 3.1)
_QUERIES = frozenset({0, 8, 9, 10, 13, 14, 15, 16, 17, 18})  # every other ICMP type is, or may be, an error
_LONGEST = 576  # bytes of an ICMP error: RFC 1812, 4.3.2.3
_HEADERS = 20 + 8  # of the error itself
_TTL = 64
_THIS_NETWORK = IPv4Interface("0.0.0.0/8").network  # RFC 1122, 3.2.1.3


class Why(Enum):
    """Why a packet goes no further. The value is ICMP's type and code (RFC 792; RFC 1812, 5.2.7.1)."""

    TIME_IS_OVER = icmp.ICMP_TIME_EXCEEDED, 0
    NO_NETWORK = icmp.ICMP_DEST_UNREACH, 0
    NO_HOST = icmp.ICMP_DEST_UNREACH, 1
    TOO_BIG = icmp.ICMP_DEST_UNREACH, 4
    PROHIBITED = icmp.ICMP_DEST_UNREACH, 13


@dataclass(frozen=True, slots=True)
class Quoted:
    """What an error tells of the packet that it is about: its ``size`` is bytes, ``start`` is its beginning, as an
    error has it."""

    eth_src: str
    source: IPv4Address
    destination: IPv4Address
    ttl: int
    size: int
    start: bytes


def decode(frame: bytes) -> Quoted:
    """The IPv4 packet in an untagged frame, if its sender may be told of an error. Raises PacketError."""
    if len(frame) < _ETHERNET.size + _IPV4.size:
        raise PacketError(f"{len(frame)} bytes hold no IPv4 packet")
    to, by, kind = _ETHERNET.unpack_from(frame)
    version, _, total, _, fragment, ttl, protocol, _, src, dst = _IPV4.unpack_from(frame, _ETHERNET.size)
    header = (version & 15) * 4
    if kind != _TYPE_IPV4 or version >> 4 != 4 or not _IPV4.size <= header <= total <= len(frame) - _ETHERNET.size:
        raise PacketError(f"type {kind:#06x}, {total} bytes with a header of {header}, is no IPv4 packet")
    source, destination = IPv4Address(src), IPv4Address(dst)
    packet_bytes = frame[_ETHERNET.size : _ETHERNET.size + total]
    if fragment & _OFFSET or to[0] & 1 or destination.is_multicast or destination.is_reserved:
        raise PacketError(f"nobody is told of a later fragment, or of what was for many: {destination}")
    if source.is_multicast or source.is_reserved or source.is_loopback or source in _THIS_NETWORK:
        raise PacketError(f"{source} is nobody in particular")
    if protocol == _ICMP and (total < header + 1 or packet_bytes[header] not in _QUERIES):
        raise PacketError("nobody is told of an error by an error")
    return Quoted(by.hex(":"), source, destination, ttl, total, packet_bytes[: _LONGEST - _HEADERS])


def encode(about: Quoted, mac: str, address: str, why: Why, mtu: int = 0) -> bytes:
    """The frame in which the router with this MAC and address tells the sender; ``mtu`` is bytes that would fit.

    Raises PacketError when that is the sender itself.
    """
    if address == str(about.source):
        raise PacketError(f"{address} tells itself nothing")
    kind, code = why.value
    told = icmp.TimeExceeded(data=about.start) if why is Why.TIME_IS_OVER else icmp.dest_unreach(0, mtu, about.start)
    made = packet.Packet()
    made.add_protocol(ethernet.ethernet(about.eth_src, mac, _TYPE_IPV4))
    made.add_protocol(ipv4.ipv4(src=address, dst=str(about.source), proto=_ICMP, ttl=_TTL))
    made.add_protocol(icmp.icmp(kind, code, data=told))
    made.serialize()
    return bytes(made.data)
