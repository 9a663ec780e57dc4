"""Packets of a guest that have what belongs in them, and anything at all in their fields: made with scapy's fuzz()."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dhcp6 import DHCP6_Request, DHCP6_Solicit, DHCP6OptClientId, DHCP6OptIA_NA, DHCP6OptOptReq
from scapy.layers.dns import DNS, DNSQR, DNSRR
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6MLReport,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw, fuzz

_EVERYBODY = "ff:ff:ff:ff:ff:ff"
_MOST = 1500  # bytes of an IP packet


@dataclass(frozen=True, slots=True)
class Guest:
    """Who sends, and the gateway that it sends to."""

    mac: str = "52:54:00:00:00:66"
    ip: str = "10.0.0.66"
    ip6: str = "fd00::66"
    gateway_mac: str = "02:f5:00:00:00:01"
    gateway: str = "10.0.0.1"
    gateway6: str = "fd00::1"


def frames(guest: Guest, count: int, seed: int) -> list[bytes]:
    """So many frames, the same for the same seed."""
    before = random.getstate()
    random.seed(seed)
    try:
        makers = list(_makers(guest).values())
        return [_cut(bytes(makers[number % len(makers)]())) for number in range(count)]
    finally:
        random.setstate(before)


def _cut(frame: bytes) -> bytes:
    """One in eight ends too early."""
    return frame[: 14 + _MOST] if random.randrange(8) else frame[: random.randrange(14, 15 + min(len(frame), _MOST))]


def _makers(guest: Guest) -> dict[str, Callable[[], Packet]]:
    def noise(most: int = 300) -> Raw:
        return Raw(random.randbytes(random.randrange(most)))

    def ether(dst: str = guest.gateway_mac) -> Packet:
        return Ether(src=guest.mac, dst=dst)

    def ip(dst: str = guest.gateway, **more: object) -> Packet:
        return ether() / IP(src=guest.ip, dst=dst, **more)

    def ip6(dst: str = guest.gateway6, **more: object) -> Packet:
        return ether() / IPv6(src=guest.ip6, dst=dst, **more)

    def asks(src: str) -> Packet:
        return ether(_EVERYBODY) / IP(src=src, dst="255.255.255.255") / UDP(sport=68, dport=67)

    own = bytes.fromhex(guest.mac.replace(":", "")).ljust(16, b"\0")
    asks6 = ip6("ff02::1:2") / UDP(sport=546, dport=547)
    magic = b"\x63\x82\x53\x63"
    return {
        "dhcp": lambda: asks("0.0.0.0") / fuzz(BOOTP()) / fuzz(DHCP()),
        "dhcp options": lambda: asks("0.0.0.0") / BOOTP(op=1, chaddr=own, options=magic) / noise(),
        "dhcp request": lambda: asks(guest.ip) / BOOTP(op=1, chaddr=own, xid=random.getrandbits(32), options=magic)
        / Raw(b"\x35\x01" + bytes([random.randrange(1, 9)])) / noise(),
        "starvation": lambda: ether(_EVERYBODY) / IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67)
        / BOOTP(op=1, chaddr=random.randbytes(6).ljust(16, b"\0"), xid=random.getrandbits(32))
        / DHCP(options=[("message-type", "discover"), "end"]),
        "dhcp6": lambda: asks6 / fuzz(DHCP6_Solicit()) / fuzz(DHCP6OptClientId()) / fuzz(DHCP6OptIA_NA()),
        "dhcp6 of a client": lambda: asks6
        / DHCP6_Solicit(trid=random.randrange(1 << 24)) / DHCP6OptClientId(duid=own) / DHCP6OptIA_NA(iaid=1),
        "dhcp6 request": lambda: asks6 / fuzz(DHCP6_Request()) / fuzz(DHCP6OptOptReq()) / noise(),
        "dns": lambda: ip() / UDP(dport=53) / fuzz(DNS(qd=fuzz(DNSQR()))),
        "dns with records": lambda: ip() / UDP(dport=53) / DNS(id=1, qd=DNSQR(qname="a.example"), ar=fuzz(DNSRR())),
        "dns noise": lambda: ip() / UDP(dport=53) / noise(),
        "dns6": lambda: ip6() / UDP(dport=53) / fuzz(DNS(qd=fuzz(DNSQR()))),
        "dns6 question": lambda: ip6() / UDP(dport=53) / DNS(id=1, qd=DNSQR(qtype=random.randrange(300))),
        "ns": lambda: ip6(hlim=255) / fuzz(ICMPv6ND_NS()) / fuzz(ICMPv6NDOptSrcLLAddr()),
        "na": lambda: ip6(hlim=255) / fuzz(ICMPv6ND_NA()) / fuzz(ICMPv6NDOptDstLLAddr()),
        "na of its own": lambda: ip6(hlim=255) / ICMPv6ND_NA(tgt=guest.ip6) / ICMPv6NDOptDstLLAddr(lladdr=guest.mac),
        "rs": lambda: ip6("ff02::2", hlim=255) / fuzz(ICMPv6ND_RS()) / fuzz(ICMPv6NDOptSrcLLAddr()),
        "ra": lambda: ip6("ff02::1", hlim=255) / fuzz(ICMPv6ND_RA()) / fuzz(ICMPv6NDOptPrefixInfo()),
        "mld": lambda: ip6("ff02::16", hlim=1) / fuzz(ICMPv6MLReport()),
        "igmp": lambda: ip("224.0.0.22", ttl=1, proto=2) / Raw(b"\x22") / noise(60),
        "arp": lambda: ether(_EVERYBODY) / fuzz(ARP(hwlen=6, plen=4)),
        "arp of its own": lambda: ether(_EVERYBODY)
        / ARP(hwsrc=guest.mac, psrc=guest.ip, pdst=f"10.0.0.{random.randrange(256)}"),
        "ns of its own": lambda: ip6(hlim=255) / ICMPv6ND_NS(tgt=f"fd00::{random.randrange(65536):x}"),
        "icmp": lambda: ip() / fuzz(ICMP()) / fuzz(IP()),
        "error": lambda: ip()
        / ICMP(type=random.choice([3, 11, 12])) / IP(src="203.0.113.1", dst=guest.ip) / noise(),
        "icmp6": lambda: ip6() / fuzz(ICMPv6DestUnreach()) / fuzz(IPv6()),
        "time over": lambda: ip("192.0.2.1", ttl=random.randrange(2)) / noise(1400),
        "no way": lambda: ip(f"10.0.0.{random.randrange(256)}", proto=random.randrange(256)) / noise(),
        "options of ip": lambda: ether() / fuzz(IP(src=guest.ip, dst="192.0.2.1")) / noise(),
        "extension headers": lambda: ip6("2001:db8::1", hlim=1)
        / fuzz(IPv6ExtHdrDestOpt()) / fuzz(IPv6ExtHdrFragment()) / noise(),
        "syn": lambda: ip()
        / TCP(sport=random.randrange(1, 65536), dport=random.choice([53, 179]), flags="S") / noise(),
        "bgp": lambda: ip() / TCP(sport=random.randrange(65536), dport=179, flags=random.randrange(512)) / noise(),
        "bgp6": lambda: ip6() / fuzz(TCP(dport=179)) / noise(),
        "anything": lambda: ether() / Raw(random.randbytes(random.randrange(200))),
    }  # fmt: skip
