"""ICMP errors for what cannot be routed: who sent it is told why (RFC 792, RFC 1812).

A guest may send anything: every length is checked before it is believed, and nothing is said about what nobody may be
told of (RFC 1812, 4.3.2.7): ICMP errors, later fragments, what was for many or is from nobody in particular.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface

from os_ken.lib.packet import ethernet, icmp, ipv4, packet

from controller.errors import OpenFlowError, PacketError
from controller.openflow.actions import Action, Resubmit, encode_actions
from controller.openflow.decode import PacketIn
from controller.openflow.messages import packet_out
from controller.pipeline.actions import load
from controller.pipeline.fields import OUT, SEGMENT, SOURCE, Source
from controller.reader import Reader
from controller.views import GatewayView

log = logging.getLogger(__name__)

_ETHERNET = struct.Struct("!6s6sH")
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_TYPE_IPV4, _ICMP = 0x0800, 1
_OFFSET = 0x1FFF  # of a fragment (RFC 791, 3.1)
_QUERIES = frozenset({0, 8, 9, 10, 13, 14, 15, 16, 17, 18})  # every other ICMP type is, or may be, an error
_LONGEST = 576  # bytes of an ICMP error: RFC 1812, 4.3.2.3
_HEADERS = 20 + 8  # of the error itself
_TTL = 64
_THIS_NETWORK = IPv4Interface("0.0.0.0/8").network  # RFC 1122, 3.2.1.3
_NO_NETWORK, _NO_HOST, _PROHIBITED = 0, 1, 13  # of destination unreachable: RFC 792; RFC 1812, 5.2.7.1

Send = Callable[[str, bytes], bool]


@dataclass(frozen=True, slots=True)
class Quoted:
    """What an error tells of the packet that it is about; ``start`` is that packet's beginning, as an error has it."""

    eth_src: str
    source: IPv4Address
    destination: IPv4Address
    ttl: int
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
    return Quoted(by.hex(":"), source, destination, ttl, packet_bytes[: _LONGEST - _HEADERS])


def encode(about: Quoted, gateway: GatewayView, what: tuple[int, int]) -> bytes:
    """The frame in which the gateway tells the sender ``what``, ICMP type and code. Raises PacketError."""
    own = [IPv4Interface(address) for address in gateway.addresses if "." in address]
    by = next((each for each in own if about.source in each.network), own[0] if own else None)
    if by is None or about.source == by.ip:
        raise PacketError(f"no gateway that could tell {about.source}")
    kind, code = what
    told = icmp.TimeExceeded if kind == icmp.ICMP_TIME_EXCEEDED else icmp.dest_unreach
    made = packet.Packet()
    made.add_protocol(ethernet.ethernet(about.eth_src, gateway.mac, _TYPE_IPV4))
    made.add_protocol(ipv4.ipv4(src=str(by.ip), dst=str(about.source), proto=_ICMP, ttl=_TTL))
    made.add_protocol(icmp.icmp(kind, code, data=told(data=about.start)))
    made.serialize()
    return bytes(made.data)


def reason(about: Quoted, fabric: Reader) -> tuple[int, int] | None:
    """ICMP type and code (RFC 1812, 5.2.7 and 5.3.1); None where silence is right."""
    if about.ttl <= 1:
        return icmp.ICMP_TIME_EXCEEDED, 0
    for network in fabric.networks():
        for subnet in network.gateway.prefixes4 if network.gateway is not None else ():
            if about.destination in subnet:
                if about.destination in {subnet.network_address, subnet.broadcast_address}:
                    return None
                takes = network.gateway is not None and network.gateway.takes
                return icmp.ICMP_DEST_UNREACH, _NO_HOST if takes else _PROHIBITED
    return icmp.ICMP_DEST_UNREACH, _NO_NETWORK


class IcmpErrors:
    """Everything on the loop. ``fabric`` reads the fleet as it is now, ``deliver`` is the number of the table that
    hands a packet to the vNIC, ``send`` gives a message to a host's switch."""

    def __init__(self, fabric: Callable[[], Reader], deliver: int, send: Send) -> None:
        self._fabric = fabric
        self._deliver = deliver
        self._send = send

    def take(self, host: str, packet_in: PacketIn) -> None:
        """A packet of a vNIC that its host cannot route. The answer goes to that vNIC and to nobody else."""
        fabric = self._fabric()
        try:
            fields = packet_in.fields()
            ofport, segment = fields.get("in_port", 0), (fields.get("reg0", 0) & SEGMENT.mask) >> SEGMENT.start
            port = next((each for each in fabric.members(segment, host) if each.ofport == ofport), None)
            network = fabric.network(port.network) if port is not None else None
            if network is None or network.gateway is None:
                raise PacketError(f"no vNIC of segment {segment} is known at OpenFlow port {ofport}")
            about = decode(packet_in.data)
            if (what := reason(about, fabric)) is None:
                return
            frame = encode(about, network.gateway, what)
        except (OpenFlowError, PacketError) as error:
            log.debug("%s: ICMP error: %s", host, error)
            return
        way: list[Action] = [load(SEGMENT, segment), load(SOURCE, Source.SWITCH), load(OUT, ofport)]
        self._send(host, packet_out(frame, encode_actions([*way, Resubmit(self._deliver)])))
