"""External address: what a host is to the machines outside, and how it finds them.

The switch answers ARP and ping for the host's address, and learns from the ARP of others where they are. Only when it
does not know a next hop, the controller asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network

from apps.l2 import FLOOD, copies
from apps.neighbours import BACK, arp_reply
from apps.ownership import ADDRESS_OWNER, NEIGHBOUR_OWNER
from controller.openflow.actions import Controller
from controller.openflow.match import Value
from controller.pipeline.actions import LearnInto, goto, learned_load, learned_match, load, match, move, resubmit
from controller.pipeline.app import App
from controller.pipeline.cookies import next_hop_cookie
from controller.pipeline.fields import NEXT_HOP, RESOLVED, Source
from controller.pipeline.tables import DROP, GATEWAY, HOP, HOP_KNOWN, NEXT, Flow, Priority, Stage, Table
from controller.reader import Reader
from controller.views import ExternalView, HostView, NetworkView, PortView

HOPS = Table("hops", Stage.TRANSLATE_OUT, DROP, "written by the switch itself: machines outside", learned=True)

_UNICAST = ("00:00:00:00:00:00", "01:00:00:00:00:00")
MAX_HOPS = 4096  # machines outside that a host remembers
_ARP, _IPV4, _ICMP, _REQUEST, _ECHO, _ECHO_REPLY, _TTL = 0x0806, 0x0800, 1, 1, 8, 0, 64


class External(App):
    tables = (GATEWAY, HOP, HOP_KNOWN, HOPS)

    def fleet(self, fabric: Reader) -> Iterator[Flow]:
        yield HOP.flow(
            Priority.ANYWHERE, match(eth_type=_IPV4), resubmit(HOPS), goto(HOP_KNOWN), why="where is the next hop?"
        )
        yield HOP_KNOWN.flow(Priority.HERE, match(resolved=1), goto(Stage.FORWARD), why="its next hop is known")

    def network(self, network: NetworkView, fabric: Reader) -> Iterator[Flow]:
        """Where the outside is a network with guests: none of them is a host, and none its router unless registered."""
        if network.uplink is None:
            return
        outsides = [h.external for h in fabric.hosts() if h.external is not None and h.external.network == network.name]
        hosts = {each.address: each for each in outsides}
        for segment, gateway in sorted({(each.segment, each.gateway) for each in outsides}):
            yield from _not_a_guests(segment, gateway, Priority.FALLBACK, f"{gateway} is the router outside")
        for address, each in sorted(hosts.items()):
            why = f"{address} is a host's external address"
            yield from _not_a_guests(each.segment, address, Priority.FORBIDDEN, why)
            sender = match(segment=each.segment, source=Source.VNIC, eth_src=each.mac)
            yield NEIGHBOUR_OWNER.flow(Priority.FORBIDDEN, sender, why=why)

    def local(self, port: PortView, fabric: Reader) -> Iterator[Flow]:
        network = fabric.network(port.network)
        if network is not None and network.gateway is not None and network.gateway.nat and not port.arriving:
            yield HOP_KNOWN.flow(
                Priority.HERE, match(in_port=port.ofport, resolved=0, eth_type=_IPV4), Controller(meter_id=port.ofport),
                why="the next hop of this vNIC's packet is not known: the controller asks who that is",
            )  # fmt: skip

    def host(self, host: HostView, fabric: Reader) -> Iterator[Flow]:
        if (outside := host.external) is None:
            return
        yield HOP_KNOWN.flow(
            Priority.ANYWHERE, match(eth_type=_IPV4), Controller(meter_id=outside.uplink),
            why="its next hop is not known: the controller asks who that is",
        )  # fmt: skip
        yield from _arp(outside)
        yield _ping(outside)
        mine: dict[str, Value] = {"segment": outside.segment, "eth_dst": outside.mac}
        yield GATEWAY.flow(
            Priority.ANYWHERE + 1, match(**mine, eth_type=_IPV4), goto(Stage.TRANSLATE_IN),
            why=f"by way of {outside.address}: perhaps for a guest",
        )  # fmt: skip
        yield GATEWAY.flow(Priority.ANYWHERE, match(**mine), why="the host has no answer to that")
        yield FLOOD.flow(
            Priority.FALLBACK, match(segment=outside.segment, out=0), *copies([outside.uplink]), goto(NEXT),
            why="nobody knows where it is: to the wire",
        )  # fmt: skip


def _arp(outside: ExternalView) -> Iterator[Flow]:
    """Who asks is answered; where a machine is, is learned of single ones in the subnet alone."""
    about: dict[str, Value] = {"segment": outside.segment, "eth_type": _ARP, "arp_tpa": outside.address}
    subnet = IPv4Network(outside.subnet)
    near: dict[str, Value] = {
        **about, "arp_spa": (str(subnet.network_address), str(subnet.netmask)), "arp_sha": _UNICAST,
    }  # fmt: skip
    answer = (*arp_reply(outside.mac, outside.address), *BACK, goto(Stage.DELIVER))
    why = f"ARP: {outside.address} is this host's"
    yield GATEWAY.flow(Priority.HERE + 1, match(**near, arp_op=_REQUEST), _learn(outside), *answer, why=why)
    yield GATEWAY.flow(Priority.HERE, match(**about, arp_op=_REQUEST), *answer, why=why)
    yield GATEWAY.flow(
        Priority.ANYWHERE + 1, match(**near), _learn(outside), Controller(meter_id=outside.uplink),
        why="a machine outside says where it is",
    )  # fmt: skip
    yield GATEWAY.flow(Priority.ANYWHERE, match(**about), why="no machine of the subnet outside")


def _not_a_guests(segment: int, address: str, priority: int, why: str) -> Iterator[Flow]:
    """No vNIC speaks as that address."""
    guest: dict[str, Value] = {"segment": segment, "source": Source.VNIC}
    yield NEIGHBOUR_OWNER.flow(priority, match(**guest, eth_type=_ARP, arp_spa=address), why=why)
    yield ADDRESS_OWNER.flow(priority, match(**guest, eth_type=_IPV4, ipv4_src=address), why=why)


def _learn(outside: ExternalView) -> LearnInto:
    """What is for the sender of this ARP goes to its MAC, until it says something else: without a controller nobody
    would ask again for one that was forgotten."""
    told = (
        learned_match(NEXT_HOP, "arp_spa"), learned_load("eth_dst", "arp_sha"), learned_load(RESOLVED, 1),
    )  # fmt: skip
    return LearnInto(HOPS, Priority.ANYWHERE, 0, next_hop_cookie(outside.segment), told, limit=MAX_HOPS)


def _ping(outside: ExternalView) -> Flow:
    asked: dict[str, Value] = {"eth_type": _IPV4, "ip_proto": _ICMP, "icmpv4_type": _ECHO, "ipv4_dst": outside.address}
    return GATEWAY.flow(
        Priority.HERE, match(segment=outside.segment, eth_dst=outside.mac, **asked),
        move("eth_src", "eth_dst"), load("eth_src", outside.mac), move("ipv4_src", "ipv4_dst"),
        load("ipv4_src", outside.address), load("nw_ttl", _TTL), load("icmpv4_type", _ECHO_REPLY),
        *BACK, goto(Stage.DELIVER), why=f"ping: {outside.address} is this host's",
    )  # fmt: skip
