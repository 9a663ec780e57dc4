"""TCP that the gateway does not speak: a connection is refused at once, so that nobody waits for it."""

from __future__ import annotations

import struct

from os_ken.lib.packet import ethernet, ipv4, packet, tcp

from controller.errors import PacketError
from controller.services.datagrams import TCP, carried

_TCP = struct.Struct("!HHIIBB")
_SHORTEST = 20
_SYN_ONLY, _SYN = tcp.TCP_SYN | tcp.TCP_ACK | tcp.TCP_RST | tcp.TCP_FIN, tcp.TCP_SYN
_TTL = 64


def refusal(frame: bytes) -> bytes:
    """The frame that refuses the connection that this one asks for (RFC 9293, 3.5.2). Raises PacketError when it asks
    for none."""
    around, segment = carried(frame, TCP)
    if len(segment) < _SHORTEST:
        raise PacketError(f"{len(segment)} bytes are no TCP")
    source, destination, sequence, _, offset, flags = _TCP.unpack_from(segment)
    header = (offset >> 4) * 4
    if flags & _SYN_ONLY != _SYN or not _SHORTEST <= header <= len(segment):
        raise PacketError(f"flags {flags:#04x} and a header of {header} bytes ask for no connection")
    expected = (sequence + 1 + len(segment) - header) & 0xFFFFFFFF
    made = packet.Packet()
    made.add_protocol(ethernet.ethernet(around.eth_src, around.eth_dst, 0x0800))
    made.add_protocol(ipv4.ipv4(src=around.ip_dst, dst=around.ip_src, proto=TCP, ttl=_TTL))
    made.add_protocol(tcp.tcp(destination, source, 0, expected, bits=tcp.TCP_RST | tcp.TCP_ACK, window_size=0))
    made.serialize()
    return bytes(made.data)
