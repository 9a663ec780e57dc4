"""External address: what a host is to the machines outside, and how it finds them.

The switch answers ARP, ND and ping for the host's addresses, and learns from the ARP and ND of others where they are.
Only when it does not know a next hop, the controller asks for it. Who is known and says to all that it is elsewhere now
(a standby that takes an address over, another network card) is believed; strangers who say so are not remembered.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network

from apps.l2 import FLOOD, copies
from apps.neighbours import ANSWER_ND, BACK, SOLICITED_OVERRIDE, advertisement, arp_reply
from apps.ownership import claims
from apps.spoof_guard import SPOOF_GUARD
from controller.openflow.actions import Controller
from controller.openflow.match import Value
from controller.pipeline.actions import LearnInto, goto, learned_load, learned_match, load, match, move, resubmit
from controller.pipeline.app import App
from controller.pipeline.cookies import next_hop_cookie
from controller.pipeline.fields import NEXT_HOP, NEXT_HOP6, RESOLVED, RegisterField, Source
from controller.pipeline.ip import ETHERTYPES, IPV6, ethertype, packets
from controller.pipeline.ports import ROUTERS
from controller.pipeline.tables import DROP, GATEWAY, HOP, HOP_KNOWN, NEXT, Flow, Priority, Stage, Table
from controller.reader import Reader
from controller.views import ExternalView, HostView, NetworkView, PortView, Way

OVERHEARD = Table("overheard", Stage.TRANSLATE_OUT, DROP, "known machines outside that say to all where they are now")
HOPS = Table("hops", Stage.TRANSLATE_OUT, DROP, "written by the switch itself: machines outside", learned=True)

_SOLICITATION, _ADVERTISEMENT = 135, 136
_PINGS = {4: (1, "icmpv4_type", 8, 0), 6: (58, "icmpv6_type", 128, 129)}  # protocol, field, request, reply
_ROUTER_SOLICITED_OVERRIDE = 0xE0000000  # RFC 4861, 4.4: flags R, S and O
_NO_ROUTER_BETWEEN = 255  # RFC 4861, 7.1: the hop limit of ND
_NOBODY, _EVERYBODY = "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"
_ALL_NODES, _ALL_NODES_MAC = "ff02::1", "33:33:00:00:00:01"
_UNICAST = (_NOBODY, "01:00:00:00:00:00")
MAX_HOPS = 4096  # machines outside that a host remembers, by each version of IP
# Routers are apart from machines, of which somebody on the wire can pretend to be as many as a subnet has addresses.
_MACHINES, _MACHINES6, _ROUTERS = 0, 1, 2
_ARP, _ICMPV6, _REQUEST, _TTL = 0x0806, 58, 1, 64


class External(App):
    tables = (GATEWAY, HOP, HOP_KNOWN, OVERHEARD, HOPS)

    def fleet(self, fabric: Reader) -> Iterator[Flow]:
        for kind in ETHERTYPES:
            yield HOP.flow(
                Priority.ANYWHERE, match(eth_type=kind), resubmit(HOPS), goto(HOP_KNOWN), why="where is the next hop?"
            )
        yield HOP_KNOWN.flow(Priority.HERE, match(resolved=1), goto(Stage.FORWARD), why="its next hop is known")

    def network(self, network: NetworkView, fabric: Reader) -> Iterator[Flow]:
        """Where the outside is a network with guests: none of them is a host, and none its router unless registered."""
        if network.uplink is None:
            return
        outsides = [h.external for h in fabric.hosts() if h.external is not None and h.external.network == network.name]
        hosts = {way.address: each for each in outsides for way in each.ways}
        for segment, gateway in sorted({(each.segment, way.gateway) for each in outsides for way in each.ways}):
            yield from not_a_guests(segment, gateway, Priority.FALLBACK, f"{gateway} is the router outside")
        for address, each in sorted(hosts.items()):
            why = f"{address} is a host's external address"
            mac = each.mac if address == each.address else None
            yield from not_a_guests(each.segment, address, Priority.FORBIDDEN, why, mac)

    def local(self, port: PortView, fabric: Reader) -> Iterator[Flow]:
        network = fabric.network(port.network)
        if network is None or network.gateway is None or not network.gateway.sends or port.arriving:
            return
        for kind in map(ethertype, network.gateway.versions):
            yield HOP_KNOWN.flow(
                Priority.HERE, match(in_port=port.ofport, resolved=0, eth_type=kind), Controller(meter_id=port.ofport),
                why="the next hop of this vNIC's packet is not known: the controller asks who that is",
            )  # fmt: skip

    def host(self, host: HostView, fabric: Reader) -> Iterator[Flow]:
        if (outside := host.external) is None:
            return
        mine: dict[str, Value] = {"segment": outside.segment, "eth_dst": outside.mac}
        for way in outside.ways:
            kind = ethertype(way.version)
            yield HOP_KNOWN.flow(
                Priority.ANYWHERE, match(eth_type=kind), Controller(meter_id=outside.uplink),
                why="its next hop is not known: the controller asks who that is",
            )  # fmt: skip
            yield from _nd(outside, way) if way.version == 6 else _arp(outside)
            yield from _overheard(outside, way)
            yield _ping(outside, way)
            yield GATEWAY.flow(
                Priority.ANYWHERE + 1, match(**mine, eth_type=kind), goto(Stage.TRANSLATE_IN),
                why=f"by way of {way.address}: perhaps for a guest",
            )  # fmt: skip
        yield GATEWAY.flow(Priority.ANYWHERE, match(**mine), why="the host has no answer to that")
        yield FLOOD.flow(
            Priority.FALLBACK, match(segment=outside.segment, out=0), *copies([outside.uplink]), goto(NEXT),
            why="nobody knows where it is: to the wire",
        )  # fmt: skip


def answers_arp(outside: ExternalView, mac: str, address: str, why: str) -> Iterator[Flow]:
    """Who asks for an address of the outside is answered; where a machine is, is learned of single ones in the subnet
    alone."""
    about, known = _asked(outside, address)
    answer = (*arp_reply(mac, address), *BACK, goto(Stage.DELIVER))
    for number, (near, learn) in enumerate(known, start=1):
        yield GATEWAY.flow(Priority.HERE + number, match(**near, arp_op=_REQUEST), learn, *answer, why=why)
    yield GATEWAY.flow(Priority.HERE, match(**about, arp_op=_REQUEST), *answer, why=why)


def _asked(outside: ExternalView, address: str) -> tuple[dict[str, Value], list[tuple[dict[str, Value], LearnInto]]]:
    """ARP for the address; and that of a single machine in the subnet, and of the router, with what is learned."""
    about: dict[str, Value] = {"segment": outside.segment, "eth_type": _ARP, "arp_tpa": address}
    subnet = IPv4Network(outside.subnet)
    near: Value = (str(subnet.network_address), str(subnet.netmask))
    return about, [
        ({**about, "arp_spa": sender, "arp_sha": _UNICAST}, _learn(outside, NEXT_HOP, "arp_spa", "arp_sha", pool))
        for sender, pool in ((near, _MACHINES), (outside.gateway, _ROUTERS))
    ]


def _arp(outside: ExternalView) -> Iterator[Flow]:
    about, known = _asked(outside, outside.address)
    yield from answers_arp(outside, outside.mac, outside.address, f"ARP: {outside.address} is this host's")
    meters = outside.uplink, ROUTERS
    for number, ((near, learn), meter) in enumerate(zip(known, meters, strict=True), start=1):
        yield GATEWAY.flow(
            Priority.ANYWHERE + number, match(**near), learn, Controller(meter_id=meter),
            why="a machine outside says where it is",
        )  # fmt: skip
    yield GATEWAY.flow(Priority.ANYWHERE, match(**about), why="no machine of the subnet outside")


def answers_nd(
    outside: ExternalView, way: Way, mac: str, address: str, why: str, flags: int = SOLICITED_OVERRIDE
) -> Iterator[Flow]:
    """The same of IPv6; ``flags`` are RFC 4861, 4.4's. A router may be known by its link-local address alone."""
    asks: dict[str, Value] = {**_nd_near(outside), "icmpv6_type": _SOLICITATION, "ipv6_nd_target": address}
    answer = (*advertisement(mac, address, flags), *BACK, goto(ANSWER_ND))
    # As at a gateway: no flow can answer one who is about to take the address.
    yield GATEWAY.flow(Priority.EXCEPTION, match(**asks, ipv6_src="::"), why=f"nobody takes it; {why}")
    yield GATEWAY.flow(Priority.HERE + 3, match(**asks, ipv6_nd_sll=_NOBODY), *answer, why=f"{why}; who asks is known")
    for number, (machine, pool, _) in enumerate(_speakers(outside, way), start=1):
        learn = _learn(outside, NEXT_HOP6, "ipv6_src", "ipv6_nd_sll", pool)
        asked = match(**asks, ipv6_src=machine, ipv6_nd_sll=_UNICAST)
        yield GATEWAY.flow(Priority.HERE + number, asked, learn, *answer, why=why)
    yield GATEWAY.flow(Priority.HERE, match(**asks), *answer, why=why)


def _nd_near(outside: ExternalView) -> dict[str, Value]:
    """ICMPv6 of the wire that no router sent on."""
    return {"segment": outside.segment, "eth_type": IPV6, "ip_proto": _ICMPV6, "nw_ttl": _NO_ROUTER_BETWEEN}


def _speakers(outside: ExternalView, way: Way) -> tuple[tuple[Value, int, int], ...]:
    """Machines of the subnet, and the router: each with where it is remembered, and the meter of what it says."""
    subnet = IPv6Network(way.subnet)
    near: Value = (str(subnet.network_address), str(subnet.netmask))
    return (near, _MACHINES6, outside.uplink), (way.gateway, _ROUTERS, ROUTERS)


def _nd(outside: ExternalView, way: Way) -> Iterator[Flow]:
    why = f"ND: {way.address} is this host's"
    yield from answers_nd(outside, way, outside.mac, way.address, why, _ROUTER_SOLICITED_OVERRIDE)
    says: dict[str, Value] = {**_nd_near(outside), "icmpv6_type": _ADVERTISEMENT, "ipv6_dst": way.address}
    yield GATEWAY.flow(Priority.HERE + 3, match(**says, ipv6_nd_tll=_NOBODY), why="says of nobody where it is")
    for number, (machine, pool, meter) in enumerate(_speakers(outside, way), start=1):
        learn = _learn(outside, NEXT_HOP6, "ipv6_nd_target", "ipv6_nd_tll", pool)
        yield GATEWAY.flow(
            Priority.HERE + number, match(**says, ipv6_nd_target=machine, ipv6_nd_tll=_UNICAST), learn,
            Controller(meter_id=meter), why="a machine outside says where it is",
        )  # fmt: skip
    other: dict[str, Value] = {"segment": outside.segment, "eth_type": IPV6, "ip_proto": _ICMPV6}
    other |= {"icmpv6_type": _ADVERTISEMENT, "ipv6_dst": way.address}
    yield GATEWAY.flow(Priority.HERE, match(**other), why="no machine of the subnet outside")


def _overheard(outside: ExternalView, way: Way) -> Iterator[Flow]:
    """What machines outside say to all (RFC 5227, 3; RFC 4861, 7.2.6): a switch can only look whether it knows them by
    looking them up."""
    if way.version == 6:
        says: dict[str, Value] = {
            "eth_type": IPV6, "ip_proto": _ICMPV6, "nw_ttl": _NO_ROUTER_BETWEEN, "icmpv6_type": _ADVERTISEMENT,
            "ipv6_dst": _ALL_NODES,
        }  # fmt: skip
        everybody, next_hop, address, mac, machines = (
            _ALL_NODES_MAC,
            NEXT_HOP6,
            "ipv6_nd_target",
            "ipv6_nd_tll",
            _MACHINES6,
        )
        subnet6 = IPv6Network(way.subnet)
        near: Value = (str(subnet6.network_address), str(subnet6.netmask))
    else:
        says = {"eth_type": _ARP}
        everybody, next_hop, address, mac, machines = _EVERYBODY, NEXT_HOP, "arp_spa", "arp_sha", _MACHINES
        subnet = IPv4Network(way.subnet)
        near = (str(subnet.network_address), str(subnet.netmask))
    for number, (who, pool) in enumerate(((near, machines), (way.gateway, _ROUTERS))):
        told = {**says, "segment": outside.segment, address: who, mac: _UNICAST}
        yield GATEWAY.flow(
            Priority.FALLBACK + number, match(**told, eth_dst=everybody),
            move(address, next_hop), resubmit(HOPS), load("eth_dst", everybody), resubmit(OVERHEARD), goto(NEXT),
            why="a machine outside says to all where it is: is it known?",
        )  # fmt: skip
        yield OVERHEARD.flow(
            Priority.ANYWHERE + number, match(**told, resolved=1), _learn(outside, next_hop, address, mac, pool),
            why="it may be elsewhere now",
        )  # fmt: skip
    nowhere = match(**says, segment=outside.segment, **{mac: _NOBODY})
    yield OVERHEARD.flow(Priority.ANYWHERE + 2, nowhere, why="says of nobody where it is")


def not_a_guests(segment: int, address: str, priority: int, why: str, mac: str | None = None) -> Iterator[Flow]:
    """No vNIC speaks as that address, or from that MAC. Of what is forbidden none is asked whether it may, or learns
    it."""
    for owners, _, terms in claims(address):
        table = SPOOF_GUARD if priority == Priority.FORBIDDEN else owners
        yield table.flow(priority, match(segment=segment, source=Source.VNIC, **terms), why=why)
    if mac is not None:
        yield SPOOF_GUARD.flow(priority, match(segment=segment, source=Source.VNIC, eth_src=mac), why=why)


def _learn(outside: ExternalView, next_hop: RegisterField, address: str, mac: str, pool: int) -> LearnInto:
    """What is for the address in this ARP or ND goes to its MAC, until it says something else: without a controller
    nobody would ask again for one that was forgotten. ``address`` and ``mac`` are fields of the packet."""
    told = learned_match(next_hop, address), learned_load("eth_dst", mac), learned_load(RESOLVED, 1)
    return LearnInto(HOPS, Priority.ANYWHERE, 0, next_hop_cookie(outside.segment, pool), told, limit=MAX_HOPS)


def _ping(outside: ExternalView, way: Way) -> Flow:
    family, (protocol, kind, asked, reply) = f"ipv{way.version}", _PINGS[way.version]
    question: dict[str, Value] = {**packets("dst", way.address), "ip_proto": protocol, kind: asked}
    return GATEWAY.flow(
        Priority.HERE, match(segment=outside.segment, eth_dst=outside.mac, **question),
        move("eth_src", "eth_dst"), load("eth_src", outside.mac), move(f"{family}_src", f"{family}_dst"),
        load(f"{family}_src", way.address), load("nw_ttl", _TTL), load(kind, reply),
        *BACK, goto(Stage.DELIVER), why=f"ping: {way.address} is this host's",
    )  # fmt: skip
