"""Neighbour discovery with machines outside (RFC 4861), from and to them."""

from __future__ import annotations

import struct
from ipaddress import IPv6Address

from os_ken.lib.packet import ethernet, icmpv6, ipv6, packet

from controller.errors import PacketError
from controller.services.arp import Told

ETHERTYPE, _ICMPV6, _ADVERTISEMENT = 0x86DD, 58, 136
_HEAD = struct.Struct("!6s6sHIHBB16s16s")
_SAID = struct.Struct("!BBHI16sBB6s")  # an advertisement, and its one option
_TARGET_LINK_LAYER = 2
_HOPS = 255  # RFC 4861, 7.1.2: it has crossed no router
_OVERRIDE = 1  # of the three flags R, S and O: what is known of the address is over (RFC 4861, 4.4)
_ALL_NODES, _ALL_NODES_MAC = "ff02::1", "33:33:00:00:00:01"  # RFC 4291, 2.7.1; RFC 2464, 7
_SOLICITED_NODE = int(IPv6Address("ff02::1:ff00:0"))  # RFC 4291, 2.7.1


def is_advertisement(frame: bytes) -> bool:
    """Whether an untagged frame is one; what is inside does not matter."""
    return len(frame) > 54 and (frame[12:14], frame[20], frame[54]) == (b"\x86\xdd", _ICMPV6, _ADVERTISEMENT)


def decode(frame: bytes) -> Told:
    """What the sender of an advertisement in an untagged frame says of itself. Raises PacketError."""
    if len(frame) < _HEAD.size + _SAID.size:
        raise PacketError(f"{len(frame)} bytes are no neighbour advertisement with an address")
    _, _, kind, version, length, header, hops, _, _ = _HEAD.unpack_from(frame)
    if kind != ETHERTYPE or version >> 28 != 6 or header != _ICMPV6 or hops != _HOPS or length < _SAID.size:
        raise PacketError(f"type {kind:#06x}, header {header}, hop limit {hops} is no neighbour advertisement")
    what, code, _, _, target, option, size, mac = _SAID.unpack_from(frame, _HEAD.size)
    if (what, code, option, size) != (_ADVERTISEMENT, 0, _TARGET_LINK_LAYER, 1):
        raise PacketError(f"ICMPv6 {what}, option {option} is no neighbour advertisement with an address")
    return Told(mac.hex(":"), str(IPv6Address(target)))


def announcement(mac: str, address: str) -> bytes:
    """The frame in which a machine tells all who it is, unasked (RFC 4861, 7.2.6)."""
    made = packet.Packet()
    made.add_protocol(ethernet.ethernet(_ALL_NODES_MAC, mac, ETHERTYPE))
    made.add_protocol(ipv6.ipv6(src=address, dst=_ALL_NODES, nxt=_ICMPV6, hop_limit=_HOPS))
    told = icmpv6.nd_neighbor(res=_OVERRIDE, dst=address, option=icmpv6.nd_option_tla(hw_src=mac))
    made.add_protocol(icmpv6.icmpv6(icmpv6.ND_NEIGHBOR_ADVERT, data=told))
    made.serialize()
    return bytes(made.data)


def request(mac: str, address: str, target: str) -> bytes:
    """The frame in which a machine asks who has the target."""
    low = int(IPv6Address(target)) & 0xFFFFFF
    everybody = f"33:33:ff:{low >> 16:02x}:{low >> 8 & 0xFF:02x}:{low & 0xFF:02x}"  # RFC 2464, 7
    made = packet.Packet()
    made.add_protocol(ethernet.ethernet(everybody, mac, ETHERTYPE))
    made.add_protocol(ipv6.ipv6(src=address, dst=str(IPv6Address(_SOLICITED_NODE | low)), nxt=_ICMPV6, hop_limit=_HOPS))
    asked = icmpv6.nd_neighbor(dst=target, option=icmpv6.nd_option_sla(hw_src=mac))
    made.add_protocol(icmpv6.icmpv6(icmpv6.ND_NEIGHBOR_SOLICIT, data=asked))
    made.serialize()
    return bytes(made.data)
