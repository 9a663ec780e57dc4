"""NXT_CT_FLUSH: have a switch's connection tracker forget connections (Open vSwitch 3.1, ofp-ct.c, ovs-ofctl(8)).

A switch that is older answers with an error, and forgets nothing.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

from controller.openflow.actions import NICIRA
from controller.openflow.messages import HEADER, VERSION, Type

_FLUSH = 32
_ORIGINAL, _REPLY, _ZONE = 0, 1, 2  # properties
_SRC, _DST, _DST_PORT = 0, 1, 3  # properties of these two


@dataclass(frozen=True, slots=True)
class Way:
    """Packets of a connection in one direction, by what of it is said; "" and 0 say nothing."""

    src: str = ""
    dst: str = ""
    dst_port: int = 0


@dataclass(frozen=True, slots=True)
class Remembered:
    """Connections of a zone: as they began, and as their answers come. A port needs the IP ``protocol``."""

    zone: int
    original: Way = Way()
    reply: Way = Way()
    protocol: int = 0


def ct_flush(which: Remembered) -> bytes:
    """The message that has them forgotten."""
    body = struct.pack("!IIB7x", NICIRA, _FLUSH, which.protocol)
    for kind, way in ((_ORIGINAL, which.original), (_REPLY, which.reply)):
        if inner := _way(way):
            body += struct.pack("!HH4x", kind, 8 + len(inner)) + inner
    body += struct.pack("!HHH2x", _ZONE, 8, which.zone)
    return HEADER.pack(VERSION, Type.EXPERIMENTER, HEADER.size + len(body), 0) + body


def _way(way: Way) -> bytes:
    inner = b""
    for kind, address in ((_SRC, way.src), (_DST, way.dst)):
        if address:
            inner += struct.pack("!HH", kind, 20) + _mapped(address) + bytes(4)
    if way.dst_port:
        inner += struct.pack("!HHH2x", _DST_PORT, 8, way.dst_port)
    return inner


def _mapped(address: str) -> bytes:
    """IPv4 as IPv6 (RFC 4291, 2.5.5.2)."""
    parsed = ipaddress.ip_address(address)
    return parsed.packed if parsed.version == 6 else bytes(10) + b"\xff\xff" + parsed.packed
