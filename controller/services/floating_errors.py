"""ICMP errors to and from floating addresses: the packet that they quote is translated as well (RFC 5508, 4).

A switch rewrites a packet's own addresses and not those of one inside it. Without this, a guest would not hear that its
packets are too large for a network outside, nor a machine outside that the guest's port is closed.

Anybody may send anything: every length is checked before it is believed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address

from controller.errors import OpenFlowError, PacketError
from controller.openflow.actions import Action, Resubmit, encode_actions
from controller.openflow.decode import PacketIn
from controller.openflow.messages import packet_out
from controller.pipeline.actions import load
from controller.pipeline.fields import NATTED, NEXT_HOP, NEXT_HOP6, SEGMENT, SOURCE, Source
from controller.reader import Reader
from controller.services import datagrams, datagrams6
from controller.services.announcements import answered
from controller.services.datagrams import Around
from controller.services.next_hops import next_hop

log = logging.getLogger(__name__)

_OUTER = 14  # bytes of Ethernet before it


@dataclass(frozen=True, slots=True)
class _Ip:
    """One version of IP: its ICMP, the types of that which are errors, and what reads it; bytes of its header, and
    where in that the addresses are."""

    icmp: int
    errors: tuple[int, ...]
    carried: Callable[[bytes, int], tuple[Around, bytes]]
    header: int
    source: int
    destination: int


# Unreachable, too big, time exceeded, parameter problem (RFC 792; RFC 4443, 3); headers: RFC 791, 3.1; RFC 8200, 3.
_IP = {
    4: _Ip(1, (3, 11, 12), datagrams.carried, 20, 12, 16),
    6: _Ip(58, (1, 2, 3, 4), datagrams6.carried, 40, 8, 24),
}

Send = Callable[[str, bytes], bool]
_Sent = tuple[bytes, list[Action]]


def translated(frame: bytes, old: str, new: str, *, inward: bool) -> bytes:
    """The frame with the address ``old`` become ``new``: of an inward error where it goes, and whence the packet came
    that it quotes; of an outward one the other ends. Raises PacketError for what is no such error."""
    version, was, now = ip_address(old).version, ip_address(old).packed, ip_address(new).packed
    ip, size = _IP[version], len(was)
    _, error = ip.carried(frame, ip.icmp)
    outer, inner = (ip.destination, ip.source) if inward else (ip.source, ip.destination)
    begin = _OUTER + (ip.header if version == 6 else (frame[_OUTER] & 15) * 4)
    made, quoted = bytearray(frame[: begin + len(error)]), begin + 8
    if error[0] not in ip.errors or len(made) < quoted + ip.header or made[quoted] >> 4 != version:
        raise PacketError(f"ICMP type {error[0]} with {len(error)} bytes quotes no IPv{version} packet")
    for header, place in ((_OUTER, outer), (quoted, inner)):
        at = header + place
        if made[at : at + size] != was:
            raise PacketError(f"{ip_address(bytes(made[at : at + size]))} where {old} is expected")
        made[at : at + size] = now
        if version == 4:
            made[header + 10 : header + 12] = _adjusted(bytes(made[header + 10 : header + 12]), was, now)
    made[begin + 2 : begin + 4] = bytes(2)
    covered = bytes(made[begin:])
    if version == 6:  # with its ends, its length and its protocol: RFC 8200, 8.1
        covered += bytes(len(covered) % 2) + bytes(made[_OUTER + ip.source : begin])
        covered += len(error).to_bytes(4, "big") + ip.icmp.to_bytes(4, "big")
    made[begin + 2 : begin + 4] = (0xFFFF - _sum(covered)).to_bytes(2, "big")
    return bytes(made)


def _sum(data: bytes) -> int:
    """In ones' complement (RFC 1071)."""
    data += bytes(len(data) % 2)
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def _adjusted(checksum: bytes, old: bytes, new: bytes) -> bytes:
    """The checksum of a header in which an address has become another (RFC 1624, 3)."""
    inverse = bytes(0xFF - byte for byte in checksum + old)
    return (0xFFFF - _sum(inverse + new)).to_bytes(2, "big")


class FloatingErrors:
    """Everything on the loop. ``fabric`` reads the fleet as it is now; ``forward``, ``hop`` and ``gateway`` are the
    numbers of the tables that lead to a guest, to the outside, and in from there; ``send`` gives a message to a host's
    switch."""

    def __init__(self, fabric: Callable[[], Reader], forward: int, hop: int, gateway: int, send: Send) -> None:
        self._fabric = fabric
        self._forward = forward
        self._hop = hop
        self._gateway = gateway
        self._send = send

    def inward(self, host: str, packet: PacketIn) -> None:
        """An error for a floating address of the host."""
        self._translate(host, packet, inward=True)

    def outward(self, host: str, packet: PacketIn) -> None:
        """An error of a guest with a floating address, to the outside or to the host's external address."""
        self._translate(host, packet, inward=False)

    def _translate(self, host: str, packet: PacketIn, *, inward: bool) -> None:
        ip = _IP[6 if packet.data[12:14] == datagrams6.ETHERTYPE.to_bytes(2, "big") else 4]
        try:
            around, _ = ip.carried(packet.data, ip.icmp)
            found = (self._inward if inward else self._outward)(host, packet, around)
        except (OpenFlowError, PacketError) as error:
            log.debug("%s: ICMP error: %s", host, error)
            return
        if found is not None:
            frame, way = found
            self._send(host, packet_out(frame, encode_actions(way)))

    def _inward(self, host: str, packet: PacketIn, around: Around) -> _Sent | None:
        for place in answered(self._fabric(), lambda each: each.address == around.ip_dst):
            port, floating = place.port, place.floating
            if place.host.name == host:
                frame = translated(packet.data, floating.address, floating.inside, inward=True)
                segment = port.memberships[0].segment
                way: list[Action] = [load(SEGMENT, segment), load(SOURCE, Source.VNIC), Resubmit(self._forward)]
                return _between(frame, floating.mac, port.mac), way
        return None

    def _outward(self, host: str, packet: PacketIn, around: Around) -> _Sent | None:
        fabric = self._fabric()
        for place in answered(fabric, lambda each: each.inside == around.ip_src):
            floating, outside = place.floating, place.outside
            if (place.host.name, place.port.ofport) != (host, packet.fields().get("in_port")):
                continue
            frame = translated(packet.data, floating.inside, floating.address, inward=False)
            way: list[Action] = [load(SEGMENT, outside.segment), load(SOURCE, Source.VNIC), load(NATTED, 1)]
            if around.ip_dst in {*(own.address for own in outside.ways), *fabric.nat_addresses(host).values()}:
                return _between(frame, floating.mac, outside.mac), [*way, Resubmit(self._gateway)]
            way.append(load(NEXT_HOP6 if floating.version == 6 else NEXT_HOP, int(ip_address(next_hop(packet)))))
            return _between(frame, floating.mac, around.eth_dst), [*way, Resubmit(self._hop)]
        return None


def _between(frame: bytes, eth_src: str, eth_dst: str) -> bytes:
    return bytes.fromhex((eth_dst + eth_src).replace(":", "")) + frame[12:]
