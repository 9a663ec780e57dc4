"""Router advertisements (RFC 4861, 4.2; RFC 8106): what a network's gateway says of the network."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network

from os_ken.lib.packet import ethernet, icmpv6, ipv6, packet

from controller.model.subnet import link_local

ETHERTYPE, ICMPV6, SOLICITATION = 0x86DD, 58, 133
PREFERRED_SECONDS, VALID_SECONDS = 7 * 86400, 30 * 86400
"""Of prefixes, and of name servers the first: RFC 4861's (6.2.1). Guests keep them while the controller is away."""
ROUTER_SECONDS = 65535
"""As long as can be said (RFC 8319, 4), for the same reason."""

_ALL_NODES = ("33:33:00:00:00:01", "ff02::1")
_HOPS = 255  # RFC 4861, 6.1.2
_MANAGED, _OTHER = 2, 1
_ON_LINK, _AUTONOMOUS = 4, 2
_MTU, _RDNSS = 5, 25


@dataclass(frozen=True, slots=True)
class Prefix:
    """A subnet; ``autonomous``: guests make their addresses in it themselves."""

    subnet: IPv6Network
    autonomous: bool


@dataclass(frozen=True, slots=True)
class Advert:
    """What the gateway with this MAC says. ``mtu`` is bytes; ``managed`` and ``other``: addresses, and the rest, are to
    be had by DHCPv6; ``router_seconds`` 0: it leads nowhere else."""

    mac: str
    prefixes: tuple[Prefix, ...]
    mtu: int
    managed: bool
    other: bool
    dns: tuple[str, ...] = ()
    router_seconds: int = 0


def is_solicitation(frame: bytes) -> bool:
    """Whether an untagged frame is the question that is answered by it; what is inside does not matter."""
    return len(frame) > 54 and (frame[12:14], frame[20], frame[54]) == (b"\x86\xdd", ICMPV6, SOLICITATION)


@lru_cache(maxsize=1024)
def encode(advert: Advert) -> bytes:
    """The frame, to all nodes."""
    mac, address = _ALL_NODES
    options = [icmpv6.nd_option_sla(hw_src=advert.mac), *(_prefix(each) for each in advert.prefixes)]
    told = icmpv6.nd_router_advert(
        ch_l=64, res=_MANAGED * advert.managed + _OTHER * advert.other, rou_l=advert.router_seconds,
        options=[*options, _mtu(advert.mtu), *([_rdnss(advert.dns)] if advert.dns else [])],
    )  # fmt: skip
    made = packet.Packet()
    made.add_protocol(ethernet.ethernet(mac, advert.mac, ETHERTYPE))
    made.add_protocol(ipv6.ipv6(src=link_local(advert.mac), dst=address, nxt=ICMPV6, hop_limit=_HOPS))
    made.add_protocol(icmpv6.icmpv6(icmpv6.ND_ROUTER_ADVERT, data=told))
    made.serialize()
    return bytes(made.data)


def _prefix(prefix: Prefix) -> icmpv6.nd_option_pi:
    flags = _ON_LINK + _AUTONOMOUS * prefix.autonomous
    return icmpv6.nd_option_pi(
        pl=prefix.subnet.prefixlen, res1=flags, val_l=VALID_SECONDS, pre_l=PREFERRED_SECONDS,
        prefix=str(prefix.subnet.network_address),
    )  # fmt: skip


# os-ken cannot write these two: its option for the MTU cannot be built, and it has none for name servers.
def _mtu(mtu: int) -> bytes:
    return struct.pack("!BBxxI", _MTU, 1, mtu)


def _rdnss(servers: Sequence[str]) -> bytes:
    head = struct.pack("!BBxxI", _RDNSS, 1 + 2 * len(servers), PREFERRED_SECONDS)
    return head + b"".join(IPv6Address(server).packed for server in servers)
