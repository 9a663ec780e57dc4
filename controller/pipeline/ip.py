"""IPv4 and IPv6 in matches: the same words for both."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Literal

from controller.openflow.match import Value
from controller.views import Subnet

IPV4, IPV6 = 0x0800, 0x86DD  # IEEE 802 numbers (IANA), "ethertype"
ETHERTYPES = (IPV4, IPV6)
PROTOCOLS: Mapping[str, int] = {"tcp": 6, "udp": 17, "sctp": 132}
LINK_LOCAL = IPv6Network("fe80::/10")  # RFC 4291, 2.5.6: no router forwards it
MULTICAST6 = IPv6Network("ff00::/8")  # RFC 4291, 2.7
# Senders that mean nobody elsewhere: no router forwards them (RFC 1812, 5.3.7; RFC 4291, 2.5.2, 2.5.3, 2.5.6, 2.7).
NOBODYS: tuple[Subnet, ...] = (
    *map(IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "255.255.255.255/32")),
    *(IPv6Network("::/127"), LINK_LOCAL, MULTICAST6),
)


def packets(end: Literal["src", "dst"], whom: str | Subnet) -> dict[str, Value]:
    """Terms of packets from (``src``) or to (``dst``) an address or a subnet."""
    if isinstance(whom, str):
        version, value = ip_address(whom).version, whom
        return {"eth_type": ethertype(version), f"ipv{version}_{end}": value}
    mask = str(whom.network_address), str(whom.netmask)
    return {"eth_type": ethertype(whom.version), f"ipv{whom.version}_{end}": mask}


def ethertype(version: int) -> int:
    return IPV6 if version == 6 else IPV4
