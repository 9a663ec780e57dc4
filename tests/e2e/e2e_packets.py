"""ARP, IPv4 and IPv6 packets of a few protocols, honest or not, each with a marker behind it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from e2e_frames import BROADCAST, Build, ethernet

IPV4, IPV6, RARP = 0x0800, 0x86DD, 0x8035
UDP, ICMPV6, DESTINATION_OPTIONS, FRAGMENT = 17, 58, 60, 44
ALL_NODES = "ff02::1"


@dataclass(frozen=True, slots=True)
class Speaker:
    """Somebody with a MAC and addresses."""

    mac: str
    ipv4: str
    ipv6: str

    @property
    def link_local(self) -> str:
        """RFC 4291, appendix A."""
        mac = bytes.fromhex(self.mac.replace(":", ""))
        return str(IPv6Address(b"\xfe\x80" + bytes(6) + bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:]))


def framed(src: str, ethertype: int, packet: bytes, tags: tuple[int, ...] = (), dst: str = BROADCAST) -> Build:
    """Frames with the packet; the marker stands behind it, where it is padding."""
    return lambda marker: ethernet(dst, src, ethertype, packet + marker, tags)


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def arp(operation: int, sha: str, spa: str, tpa: str, tha: str = "00:00:00:00:00:00") -> bytes:
    """RFC 826, and RFC 903 for RARP."""
    head = struct.pack("!HHBBH", 1, IPV4, 6, 4, operation)
    return head + _mac(sha) + IPv4Address(spa).packed + _mac(tha) + IPv4Address(tpa).packed


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def udp(source: int, target: int, payload: bytes = b"nothing.") -> bytes:
    """Without a checksum (RFC 768 allows it; over IPv6 a receiver drops it, after it has been heard)."""
    return struct.pack("!HHHH", source, target, 8 + len(payload), 0) + payload


def ipv4(src: str, dst: str, protocol: int, payload: bytes, fragment: int = 0, length: int | None = None) -> bytes:
    """``fragment`` is the field of flags and offset (RFC 791, 3.1), 0x2000 of a first one; ``length`` a false one."""
    length = 20 + len(payload) if length is None else length
    addresses = IPv4Address(src).packed + IPv4Address(dst).packed
    head = struct.pack("!BBHHHBBH", 0x45, 0, length, 0, fragment, 64, protocol, 0) + addresses
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def ipv6(src: str, dst: str, following: int, payload: bytes) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, len(payload), following, 255)
    return head + IPv6Address(src).packed + IPv6Address(dst).packed + payload


def icmpv6(src: str, dst: str, kind: int, body: bytes) -> bytes:
    """The ICMPv6 message alone, with its checksum (RFC 4443, 2.3)."""
    message = struct.pack("!BBH", kind, 0, 0) + body
    pseudo = IPv6Address(src).packed + IPv6Address(dst).packed + struct.pack("!II", len(message), ICMPV6)
    return message[:2] + struct.pack("!H", checksum(pseudo + message)) + message[4:]


def solicitation(src: str, target: str, mac: str | None, dst: str = ALL_NODES) -> bytes:
    """RFC 4861, 4.3; without a MAC there is no link-layer option."""
    option = b"\1\1" + _mac(mac) if mac is not None else b""
    return ipv6(src, dst, ICMPV6, icmpv6(src, dst, 135, bytes(4) + IPv6Address(target).packed + option))


def advertisement(src: str, target: str, mac: str | None) -> bytes:
    """RFC 4861, 4.4: unsolicited, and overrides what its receivers know. Without a MAC it leaves the option out."""
    option = b"\2\1" + _mac(mac) if mac is not None else b""
    body = struct.pack("!I", 1 << 29) + IPv6Address(target).packed + option
    return ipv6(src, ALL_NODES, ICMPV6, icmpv6(src, ALL_NODES, 136, body))


def router_advertisement(src: str) -> bytes:
    """RFC 4861, 4.2: a router of no lifetime, of whom nothing would be believed but that it is there."""
    return icmpv6(src, ALL_NODES, 134, bytes(12))


def options(following: int) -> bytes:
    """Destination options that say nothing (RFC 8200, 4.6)."""
    return bytes([following, 0, 1, 4, 0, 0, 0, 0])


def fragment(following: int, offset: int, more: bool) -> bytes:
    """A fragment header (RFC 8200, 4.5); the offset is in 8 bytes."""
    return struct.pack("!BBHI", following, 0, offset << 3 | more, 77)
