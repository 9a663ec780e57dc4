"""What a vNIC may send, by names in the manner of libvirt's built-in filters (formatnwfilter, "Pre-existing filters").

libvirt refuses filters on ports of Open vSwitch; here they are flows. A portgroup lists names; each stands for a few
checks, and only what the vNIC sends is checked. The names that are libvirt's refuse what libvirt's
refuse of what a guest sends; ``ELSEWHERE`` says of libvirt's other ones what to do instead. The ``be-...`` names are
ours: exceptions from what no vNIC may do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address
from typing import Literal

Check = Literal[
    "mac",  # Ethernet source is its own
    "arp_mac",  # ARP sender hardware address is its own
    "arp_ip",  # ARP sender address is one of its own
    "nd_mac",  # link-layer address in neighbour solicitations and advertisements is its own
    "ipv4",  # IPv4 source is one of its own
    "ipv6",  # IPv6 source, and what its advertisements are about, is one of its own
    "no_ipv6",  # no IPv6 at all
    "ip_only",  # nothing but IP and ARP (and the RARP with which QEMU announces a migrated guest)
    "no_ipv4_broadcast",  # no IPv4 in broadcast frames but the DHCP client's
    "no_ipv4_multicast",
    "no_ipv6_multicast",  # none but ND's, MLD's and the DHCPv6 client's
    "no_rarp",  # no RARP at all
    "own_rarp",  # no RARP but that with which QEMU announces the migrated guest itself
    "dhcp_server",  # allowed to send to DHCP clients
    "dhcpv6_server",  # allowed to send to DHCPv6 clients
    "router",  # allowed to send router advertisements and redirects
]

CLAIMS: frozenset[Check] = frozenset({"arp_ip", "ipv4", "ipv6"})
"""Those that keep a vNIC from saying that another's address is its own: of ARP, of IPv4, of IPv6 with ND."""

FilterName = Literal[
    "no-mac-spoofing",
    "no-arp-mac-spoofing",
    "no-arp-ip-spoofing",
    "no-arp-spoofing",
    "no-ip-spoofing",
    "no-ipv6-spoofing",
    "no-other-l2-traffic",
    "no-other-rarp-traffic",
    "qemu-announce-self",
    "no-mac-broadcast",
    "no-ip-multicast",
    "no-ipv6-multicast",
    "clean-traffic",
    "be-dhcp-server",
    "be-dhcpv6-server",
    "be-router",
]

_CHECKS: Mapping[FilterName, frozenset[Check]] = {
    "no-mac-spoofing": frozenset({"mac"}),
    "no-arp-mac-spoofing": frozenset({"arp_mac"}),
    "no-arp-ip-spoofing": frozenset({"arp_ip"}),
    "no-arp-spoofing": frozenset({"arp_mac", "arp_ip"}),
    "no-ip-spoofing": frozenset({"ipv4"}),
    "no-ipv6-spoofing": frozenset({"ipv6", "nd_mac"}),
    "no-other-l2-traffic": frozenset({"ip_only"}),
    "no-other-rarp-traffic": frozenset({"no_rarp"}),
    "qemu-announce-self": frozenset({"own_rarp"}),
    "no-mac-broadcast": frozenset({"no_ipv4_broadcast"}),
    "no-ip-multicast": frozenset({"no_ipv4_multicast"}),
    "no-ipv6-multicast": frozenset({"no_ipv6_multicast"}),
    "clean-traffic": frozenset({"mac", "arp_mac", "arp_ip", "ipv4", "no_ipv6", "ip_only"}),
    "be-dhcp-server": frozenset({"dhcp_server"}),
    "be-dhcpv6-server": frozenset({"dhcpv6_server"}),
    "be-router": frozenset({"router"}),
}

_NOTHING = "it allows nothing that another filter refuses; leave it out"
_RECEIVES = "what a vNIC receives is not filtered; leave it out"
_ASKS = "a vNIC may ask any DHCP server, whatever its filters; leave it out"
_ASKS_ONE = "libvirt's lets a guest ask one server, and a vNIC may ask any; leave it out, or for a server name {}"

ELSEWHERE: Mapping[str, str] = {
    "allow-arp": _NOTHING,
    "allow-ipv4": _NOTHING,
    "allow-ipv6": f"{_NOTHING}; for clean-traffic with IPv6 name no-mac-spoofing, no-arp-spoofing, no-ip-spoofing, "
    "no-ipv6-spoofing and no-other-l2-traffic",
    "allow-incoming-ipv4": _RECEIVES,
    "allow-incoming-ipv6": _RECEIVES,
    "allow-dhcp": _ASKS,
    "allow-dhcpv6": _ASKS,
    "allow-dhcp-server": _ASKS_ONE.format("be-dhcp-server"),
    "allow-dhcpv6-server": _ASKS_ONE.format("be-dhcpv6-server"),
    "clean-traffic-gateway": "it keeps a guest to its gateway's MAC; use isolation: private, which keeps it to the "
    "uplink, with clean-traffic",
    "qemu-announce-self-rarp": "alone it refuses nothing; name qemu-announce-self, which has it",
}
"""Filters of libvirt that are none here: why, and what to do."""


# Checks that compare the vNIC's own addresses with what it sends.
_OWN: frozenset[Check] = frozenset({"mac", "arp_mac", "arp_ip", "nd_mac", "ipv4", "ipv6"})


def about_senders(filters: Iterable[FilterName]) -> list[FilterName]:
    """Those that let a vNIC speak for itself alone."""
    return [name for name in filters if _CHECKS[name] & _OWN]


def about_addresses(filters: Iterable[FilterName]) -> bool:
    """Whether some of them compare a vNIC's addresses."""
    return any(_CHECKS[name] & {"arp_ip", "ipv4", "ipv6"} for name in filters)


def checks(
    filters: Sequence[FilterName] | None,
    addresses: Iterable[str],
    learning: bool = False,
    learns: bool = False,
    slaac: bool = False,
) -> frozenset[Check]:
    """What is checked of a vNIC with these addresses.

    A portgroup that lists no filters gets the guard that fits what is known: its MAC always, its addresses as soon as
    it has one, of whichever family, and from the beginning where it learns them (``learns``). Where guests make IPv6
    addresses themselves (``slaac``) and it learns none, IPv6 is compared only when one is known. An empty list checks
    nothing but who may serve DHCP and be a router; so does no list where others speak through the vNIC
    (``learning``).
    """
    if filters is not None:
        return frozenset(check for name in filters for check in _CHECKS[name])
    if learning:
        return frozenset()
    found: set[Check] = {"mac", "arp_mac", "nd_mac"}
    known = {kind_of(address) for address in addresses}
    if learns or known:
        found |= {"ipv4", "arp_ip"}
        if learns or not slaac or known & {"ipv6", "link-local"}:
            found.add("ipv6")
    return frozenset(found)


def kind_of(address: str) -> str:
    """``ipv4``, ``ipv6`` or ``link-local``: a vNIC may learn so many of each."""
    parsed = ip_address(address)
    return "link-local" if parsed.version == 6 and parsed.is_link_local else f"ipv{parsed.version}"


def first_of_each_kind(addresses: Iterable[str], most: int) -> tuple[str, ...]:
    """The first ``most`` of each kind, in the order in which they were claimed, each once."""
    room = dict.fromkeys(("ipv4", "ipv6", "link-local"), most)
    found = []
    for address in dict.fromkeys(addresses):
        if room[kind_of(address)]:
            room[kind_of(address)] -= 1
            found.append(address)
    return tuple(found)
