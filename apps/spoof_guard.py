"""Spoof guard: a vNIC sends only from the addresses that are its own, and is no DHCP server and no router unasked.

Four tables: who it is on the wire (MAC), what it may serve (DHCP, router advertisements), for whom it speaks (ARP, ND),
and from which addresses it sends (IPv4, IPv6). Unspecified source addresses pass where a host without an address needs
them: DHCP (RFC 2131), ARP probes (RFC 5227), duplicate address detection and MLD (RFC 4862, RFC 3590, RFC 3810).

A vNIC that learns its addresses sends from none until it has one. What could be a claim goes to the controller and
nowhere else: it alone knows what belongs to others, and until it has said so nobody hears of the claim. The vNIC's
meter bounds how much that is.

What cannot be read cannot be judged, and is dropped: a second tag inside the first, behind which Open vSwitch does not
look (``vlan-limit`` is 1; Linux takes a tag of VLAN 0 for none), malformed IP, and IPv6 whose upper header is not in
the first fragment (RFC 7112).
"""

from __future__ import annotations

from collections.abc import Iterator

from controller.model.guard import Check
from controller.model.subnet import link_local
from controller.openflow.actions import Controller
from controller.openflow.match import Value
from controller.pipeline.actions import goto, match, metered_punt
from controller.pipeline.app import App
from controller.pipeline.fields import Source
from controller.pipeline.tables import DROP, NEXT, Flow, Priority, Stage, Table
from controller.reader import Reader
from controller.views import PortView

SPOOF_GUARD = Table("spoof_guard", Stage.SPOOF_GUARD, DROP, "a vNIC sends from its own MAC")
SERVER_GUARD = Table("server_guard", Stage.SPOOF_GUARD, NEXT, "a vNIC serves no DHCP and advertises no router")
NEIGHBOUR_GUARD = Table("neighbour_guard", Stage.SPOOF_GUARD, NEXT, "ARP and ND: a vNIC speaks for itself")
ADDRESS_GUARD = Table("address_guard", Stage.SPOOF_GUARD, NEXT, "a vNIC sends from its own addresses")

_ARP, _RARP, _IPV4, _IPV6 = 0x0806, 0x8035, 0x0800, 0x86DD
_TAGS = (0x8100, 0x88A8)  # IEEE 802.1Q-2018, table 9-1: customer and service tags
_ICMP, _UDP, _ICMPV6 = 1, 17, 58
_FIRST = 1  # of ip_frag: a first fragment; a later one of IPv4 has no port of its own, and nobody takes it alone
_ARP_REQUEST, _RARP_REQUEST = 1, 3
_ROUTER_SOLICITATION, _SOLICITATION, _ADVERTISEMENT = 133, 135, 136
_MLD = (131, 132, 143)  # RFC 2710 report and done, RFC 3810 report
_BROADCAST = "ff:ff:ff:ff:ff:ff"
_LINK_LOCAL = ("fe80::", "ffc0::")  # RFC 4291, 2.4
_NO_MAC = "00:00:00:00:00:00"  # the link-layer option is not there

_CLAIM_BYTES = 128  # Ethernet 14, IPv6 40, ND 24 and an option; whoever claims waits, and says it again

_Terms = dict[str, Value]


def _icmpv6(kind: int) -> _Terms:
    return {"eth_type": _IPV6, "ip_proto": _ICMPV6, "icmpv6_type": kind}


_DHCP_CLIENT: _Terms = {"eth_type": _IPV4, "ip_proto": _UDP, "udp_src": 68, "udp_dst": 67}
_DHCPV6_CLIENT: _Terms = {"eth_type": _IPV6, "ip_proto": _UDP, "udp_src": 546, "udp_dst": 547}

# What only a server or a router says. Clients look at the port that they listen on, not at the one that it came from.
_SERVERS: tuple[tuple[Check, _Terms, str], ...] = (
    ("dhcp_server", {"eth_type": _IPV4, "ip_proto": _UDP, "udp_dst": 68}, "DHCP to a client"),
    ("dhcpv6_server", {"eth_type": _IPV6, "ip_proto": _UDP, "udp_dst": 546}, "DHCPv6 to a client"),
    ("router", _icmpv6(134), "router advertisement"),
    ("router", _icmpv6(137), "ICMPv6 redirect"),
    ("router", {"eth_type": _IPV4, "ip_proto": _ICMP, "icmpv4_type": 9}, "ICMP router advertisement"),
    ("router", {"eth_type": _IPV4, "ip_proto": _ICMP, "icmpv4_type": 5}, "ICMP redirect"),
)

# As Open vSwitch shows what it could not read (measured with 3.1): the fields that it did not find are zero. The switch
# is told to show those of first fragments, and a later IPv6 fragment has the protocol 44.
_UNREADABLE: tuple[tuple[_Terms, str], ...] = (
    ({"eth_type": _IPV4, "ip_proto": 0}, "an IPv4 header that cannot be read"),
    ({"eth_type": _IPV6, "ip_proto": 0}, "IPv6 headers that do not end in this packet"),
    (
        {"eth_type": _IPV4, "ip_proto": _UDP, "ip_frag": _FIRST, "udp_dst": 0},
        "a first fragment of UDP without a port, or of a switch that was told not to look into fragments",
    ),
    ({"eth_type": _IPV6, "ip_proto": _UDP, "udp_dst": 0}, "UDP without a port, or with one in a later fragment"),
    (_icmpv6(0), "ICMPv6 without a type, or with one in a later fragment"),
    ({**_icmpv6(_SOLICITATION), "ipv6_nd_target": "::"}, "a neighbour solicitation that cannot be read"),
    ({**_icmpv6(_ADVERTISEMENT), "ipv6_nd_target": "::"}, "a neighbour advertisement that cannot be read"),
)


class SpoofGuard(App):
    tables = (SPOOF_GUARD, SERVER_GUARD, NEIGHBOUR_GUARD, ADDRESS_GUARD)

    def fleet(self, fabric: Reader) -> Iterator[Flow]:
        for terms, what in _UNREADABLE:
            yield SERVER_GUARD.flow(Priority.EXCEPTION, match(source=Source.VNIC, **terms), why=what)
        for _, terms, what in _SERVERS:
            why = f"{what}: no vNIC sends that unless it is allowed to"
            yield SERVER_GUARD.flow(Priority.ANYWHERE, match(source=Source.VNIC, **terms), why=why)

    def local(self, port: PortView, fabric: Reader) -> Iterator[Flow]:
        if not port.memberships:
            return  # passthrough: its frames never come here
        own: _Terms = {"in_port": port.ofport}
        yield from _mac(port, own)
        yield from _servers(port, own)
        yield from _casts(port, own)
        yield from _arp(port, own)
        yield from _nd(port, own)
        yield from _ipv4(port, own)
        yield from _ipv6(port, own)
        network = fabric.network(port.network)
        if network is not None and network.gateway is not None and network.gateway.ipv6:
            yield from _asking(port, own)
        yield from _rarp(port, own)
        yield from _shape(port, own)


def _mac(port: PortView, own: _Terms) -> Iterator[Flow]:
    if "mac" in port.checks:
        allowed, why = match(**own, eth_src=port.mac), "sent from its own MAC"
    else:
        allowed, why = match(**own), "may send from any MAC"
    yield SPOOF_GUARD.flow(Priority.ANYWHERE, allowed, goto(NEXT), why=why)
    if port.checks - {"mac", "dhcp_server", "dhcpv6_server", "router"}:  # what is inside is checked
        for eth_type in _TAGS:
            why = "a tag inside the first one: nobody can see what is behind it"
            yield SPOOF_GUARD.flow(Priority.HERE, match(**own, eth_type=eth_type), why=why)


def _servers(port: PortView, own: _Terms) -> Iterator[Flow]:
    for check, terms, what in _SERVERS:
        if check in port.checks:
            yield SERVER_GUARD.flow(Priority.HERE, match(**own, **terms), goto(NEXT), why=f"{what}: it is allowed to")


def _casts(port: PortView, own: _Terms) -> Iterator[Flow]:
    """Broadcast and multicast that a filter refuses, and what must get through it all the same."""
    refused: list[tuple[str, _Terms]] = []
    needed: list[_Terms] = []
    if "no_ipv4_broadcast" in port.checks:
        refused.append(("IPv4 broadcast", {"eth_dst": _BROADCAST, "eth_type": _IPV4}))
        needed.append({"eth_dst": _BROADCAST, **_DHCP_CLIENT})
    if "no_ipv4_multicast" in port.checks:
        refused.append(("IPv4 multicast", {"eth_type": _IPV4, "ipv4_dst": "224.0.0.0/4"}))
    if "no_ipv6_multicast" in port.checks:
        refused.append(("IPv6 multicast", {"eth_type": _IPV6, "ipv6_dst": "ff00::/8"}))
        needed += [_icmpv6(kind) for kind in (*_MLD, _ROUTER_SOLICITATION, _SOLICITATION, _ADVERTISEMENT)]
        needed.append(_DHCPV6_CLIENT)
    for what, terms in refused:
        yield SERVER_GUARD.flow(Priority.ANYWHERE, match(**own, **terms), why=f"its filter allows no {what}")
    for terms in needed:
        yield SERVER_GUARD.flow(Priority.HERE, match(**own, **terms), goto(NEXT), why="without it there is no network")


def _arp(port: PortView, own: _Terms) -> Iterator[Flow]:
    if not {"arp_mac", "arp_ip"} & port.checks:
        return
    arp: _Terms = {**own, "eth_type": _ARP}
    if "arp_mac" in port.checks:
        arp["arp_sha"] = port.mac
    senders: list[_Terms] = [{}]
    if "arp_ip" in port.checks:
        senders = [{"arp_spa": address} for address in port.ipv4]
        senders.append({"arp_spa": "0.0.0.0", "arp_op": _ARP_REQUEST})  # noqa: S104
    for sender in senders:
        why = f"ARP in its own name: {sender.get('arp_spa', 'any address')}"
        then = goto(NEXT if sender == {} else Stage.EGRESS_POLICY)
        yield NEIGHBOUR_GUARD.flow(Priority.HERE, match(**arp, **sender), then, why=why)
    others: _Terms = {**own, "eth_type": _ARP}
    if "arp_ip" in port.checks and port.may_learn:
        claims = match(**others, arp_sha=port.mac)
        yield NEIGHBOUR_GUARD.flow(Priority.ANYWHERE + 1, claims, _claim(port), why="ARP: may claim an address")
    yield NEIGHBOUR_GUARD.flow(Priority.ANYWHERE, match(**others), why="ARP in somebody else's name")


def _nd(port: PortView, own: _Terms) -> Iterator[Flow]:
    if "no_ipv6" in port.checks or not {"nd_mac", "ipv6"} & port.checks:
        return
    macs = (port.mac, _NO_MAC) if "nd_mac" in port.checks else (None,)
    targets = with_link_local(port.ipv6, port.mac) if "ipv6" in port.checks else (None,)
    for mac in macs:
        for target in targets:
            about: _Terms = {"ipv6_nd_target": target} if target is not None else {}
            if mac is not None:
                about["ipv6_nd_tll"] = mac
            yield NEIGHBOUR_GUARD.flow(
                Priority.HERE, match(**own, **_icmpv6(_ADVERTISEMENT), **about), goto(NEXT),
                why=f"ND in its own name: {target or 'any address'}",
            )  # fmt: skip
        if mac is not None:
            yield NEIGHBOUR_GUARD.flow(
                Priority.HERE, match(**own, **_icmpv6(_SOLICITATION), ipv6_nd_sll=mac), goto(NEXT),
                why="asks, and wants the answer at its own MAC",
            )  # fmt: skip
    if "ipv6" in port.checks and port.may_learn:
        claims = match(**own, **_icmpv6(_ADVERTISEMENT), ipv6_nd_tll=port.mac)
        yield NEIGHBOUR_GUARD.flow(Priority.ANYWHERE + 1, claims, _claim(port), why="ND: may claim an address")
    for kind in (_ADVERTISEMENT, _SOLICITATION) if "nd_mac" in port.checks else (_ADVERTISEMENT,):
        yield NEIGHBOUR_GUARD.flow(Priority.ANYWHERE, match(**own, **_icmpv6(kind)), why="ND in somebody else's name")


def _claim(port: PortView) -> Controller:
    return metered_punt(_CLAIM_BYTES, port.ofport)


def _ipv4(port: PortView, own: _Terms) -> Iterator[Flow]:
    if "ipv4" not in port.checks:
        return
    for address in port.ipv4:
        allowed = match(**own, eth_type=_IPV4, ipv4_src=address)
        yield ADDRESS_GUARD.flow(Priority.HERE, allowed, goto(Stage.EGRESS_POLICY), why=f"from its own {address}")
    asks = match(**own, **_DHCP_CLIENT, ipv4_src="0.0.0.0")  # noqa: S104
    yield ADDRESS_GUARD.flow(Priority.HERE, asks, goto(Stage.EGRESS_POLICY), why="asks for an address")
    yield ADDRESS_GUARD.flow(Priority.ANYWHERE, match(**own, eth_type=_IPV4), why="from somebody else's IPv4 address")


def _ipv6(port: PortView, own: _Terms) -> Iterator[Flow]:
    if "no_ipv6" in port.checks:
        yield ADDRESS_GUARD.flow(Priority.ANYWHERE, match(**own, eth_type=_IPV6), why="its filter allows no IPv6")
        return
    if "ipv6" not in port.checks:
        return
    unspecified: list[_Terms] = [_icmpv6(kind) for kind in (_ROUTER_SOLICITATION, *_MLD)]
    for address in with_link_local(port.ipv6, port.mac):
        allowed = match(**own, eth_type=_IPV6, ipv6_src=address)
        yield ADDRESS_GUARD.flow(Priority.HERE, allowed, goto(Stage.EGRESS_POLICY), why=f"from its own {address}")
        unspecified.append({**_icmpv6(_SOLICITATION), "ipv6_nd_target": address})
    for terms in unspecified:
        allowed = match(**own, **terms, ipv6_src="::")
        yield ADDRESS_GUARD.flow(Priority.HERE, allowed, goto(Stage.EGRESS_POLICY), why="has no address yet")
    if port.may_learn:
        claims = match(**own, **_icmpv6(_SOLICITATION))
        yield ADDRESS_GUARD.flow(Priority.ANYWHERE + 1, claims, _claim(port), why="ND: may claim an address")
    yield ADDRESS_GUARD.flow(Priority.ANYWHERE, match(**own, eth_type=_IPV6), why="from somebody else's IPv6 address")


def _asking(port: PortView, own: _Terms) -> Iterator[Flow]:
    """A link-local address need not come of the MAC (RFC 7217), and a client asks from it until it has another. The
    network itself answers, at the vNIC: whose address it is does not matter."""
    if "ipv6" not in port.checks or "no_ipv6" in port.checks:
        return
    for terms, what in ((_icmpv6(_ROUTER_SOLICITATION), "routers"), (_DHCPV6_CLIENT, "an address")):
        allowed = match(**own, **terms, ipv6_src=_LINK_LOCAL)
        yield ADDRESS_GUARD.flow(Priority.HERE - 1, allowed, goto(Stage.EGRESS_POLICY), why=f"asks for {what}")


def _rarp(port: PortView, own: _Terms) -> Iterator[Flow]:
    if "own_rarp" in port.checks:
        announces = match(**own, **_announces(port))
        yield ADDRESS_GUARD.flow(Priority.HERE, announces, goto(NEXT), why="QEMU announces it")
    if {"own_rarp", "no_rarp"} & port.checks:
        yield ADDRESS_GUARD.flow(Priority.ANYWHERE, match(**own, eth_type=_RARP), why="RARP that its filter refuses")


def _announces(port: PortView) -> _Terms:
    """The RARP with which QEMU announces that the guest has arrived (net/announce.c)."""
    return {"eth_type": _RARP, "arp_op": _RARP_REQUEST, "arp_sha": port.mac}


def _shape(port: PortView, own: _Terms) -> Iterator[Flow]:
    """Kinds of frames that are refused whatever their addresses."""
    if "ip_only" not in port.checks:
        return
    kinds: tuple[_Terms, ...] = ({"eth_type": _ARP}, {"eth_type": _IPV4}, {"eth_type": _IPV6}, _announces(port))
    for terms in kinds:
        allowed = match(**own, **terms)
        yield ADDRESS_GUARD.flow(Priority.FALLBACK, allowed, goto(NEXT), why="IP, ARP or QEMU's RARP")
    yield ADDRESS_GUARD.flow(Priority.FALLBACK - 1, match(**own), why="neither IP nor ARP")


def with_link_local(addresses: tuple[str, ...], mac: str) -> tuple[str, ...]:
    """IPv6 addresses, and the link-local one that the MAC makes.

    No other link-local address: a guest that could take any could take its router's.
    """
    return tuple(dict.fromkeys((*addresses, link_local(mac))))
