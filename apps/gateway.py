"""Gateway: every host answers for the gateway of its guests' networks, with the same MAC and addresses.

ARP, ND and ping are answered in the switch. A question from elsewhere than a vNIC of this host is answered where it was
asked, and goes no further here.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address

from apps.neighbours import ANSWER_ND, BACK, advertisement, arp_reply
from controller.openflow.match import Value
from controller.pipeline.actions import goto, load, match, move
from controller.pipeline.app import App
from controller.pipeline.fields import FOREIGN, NATTED, Source
from controller.pipeline.ip import NOBODYS, ethertype, packets
from controller.pipeline.tables import GATEWAY, Action, Flow, Priority, Stage
from controller.reader import Reader
from controller.views import GatewayView, NetworkView

_ARP, _IPV4, _IPV6, _ICMP, _ICMPV6 = 0x0806, 0x0800, 0x86DD, 1, 58
_REQUEST, _SOLICITATION = 1, 135
_ECHO, _ECHO_REPLY, _ECHO_V6, _ECHO_REPLY_V6 = 8, 0, 128, 129
_TTL = 64  # RFC 1700
_ROUTER_SOLICITED_OVERRIDE = 0xE0000000  # RFC 4861, 4.4: flags R, S and O

_Terms = dict[str, Value]


class Gateway(App):
    tables = (GATEWAY,)

    def network(self, network: NetworkView, fabric: Reader) -> Iterator[Flow]:
        if network.gateway is None:
            return
        for _, segment in network.segments:
            asked: _Terms = {"source": Source.VNIC, "segment": segment}
            yield from _neighbours(network.gateway, asked)
            yield from _pings(network.gateway, asked)
            yield from _elsewhere(network.gateway, asked)
            yield GATEWAY.flow(
                Priority.ANYWHERE,
                match(segment=segment, eth_dst=network.gateway.mac),
                why="the gateway has no answer to that",
            )


def _elsewhere(gateway: GatewayView, asked: _Terms) -> Iterator[Flow]:
    """Nobody sends in the name of another network, unless the mode is open (RFC 2827)."""
    if not gateway.sends:
        return
    sent: _Terms = {**asked, "eth_dst": gateway.mac}
    for subnet in gateway.prefixes:
        yield GATEWAY.flow(
            Priority.ANYWHERE + 2, match(**sent, **packets("src", subnet)),
            load(NATTED, int(gateway.nat)), goto(Stage.ROUTE), why="for elsewhere, by the gateway",
        )  # fmt: skip
    if gateway.mode != "open":
        return
    for subnet in (each for each in NOBODYS if each.version in gateway.versions):
        forbidden = match(**sent, **packets("src", subnet))
        yield GATEWAY.flow(Priority.ANYWHERE + 2, forbidden, why=f"{subnet} means nobody elsewhere")
    for kind in map(ethertype, gateway.versions):
        yield GATEWAY.flow(
            Priority.ANYWHERE + 1, match(**sent, eth_type=kind), load(FOREIGN, 1), goto(Stage.ROUTE),
            why="for elsewhere, by the gateway, from an address that is not the network's",
        )  # fmt: skip


def _neighbours(gateway: GatewayView, asked: _Terms) -> Iterator[Flow]:
    for address in gateway.ipv4:
        question: _Terms = {"eth_type": _ARP, "arp_op": _REQUEST, "arp_tpa": address}
        yield GATEWAY.flow(
            Priority.HERE, match(**asked, **question), *arp_reply(gateway.mac, address), *BACK,
            goto(Stage.DELIVER), why=f"ARP: {address} is the gateway's",
        )  # fmt: skip
    for address in gateway.ipv6:
        target = str(IPv6Address(address))
        asks: _Terms = {"eth_type": _IPV6, "ip_proto": _ICMPV6, "icmpv6_type": _SOLICITATION, "ipv6_nd_target": target}
        # RFC 4862, 5.4.3: no flow can answer one who is about to take an address, since its question has no option.
        yield GATEWAY.flow(
            Priority.EXCEPTION, match(**asked, **asks, ipv6_src="::"), why=f"nobody takes {address}, the gateway's"
        )
        answer = advertisement(gateway.mac, address, _ROUTER_SOLICITED_OVERRIDE)
        yield GATEWAY.flow(
            Priority.HERE, match(**asked, **asks), *answer, *BACK, goto(ANSWER_ND),
            why=f"ND: {address} is the gateway's",
        )  # fmt: skip


def _pings(gateway: GatewayView, asked: _Terms) -> Iterator[Flow]:
    mine = {**asked, "eth_dst": gateway.mac}
    for address in gateway.ipv4:
        question: _Terms = {"eth_type": _IPV4, "ip_proto": _ICMP, "icmpv4_type": _ECHO, "ipv4_dst": address}
        yield _pong(gateway, {**mine, **question}, "ipv4", address, load("icmpv4_type", _ECHO_REPLY))
    for address in gateway.ipv6:
        question = {"eth_type": _IPV6, "ip_proto": _ICMPV6, "icmpv6_type": _ECHO_V6, "ipv6_dst": address}
        yield _pong(gateway, {**mine, **question}, "ipv6", address, load("icmpv6_type", _ECHO_REPLY_V6))


def _pong(gateway: GatewayView, question: _Terms, family: str, address: str, reply: Action) -> Flow:
    """The question turned round."""
    return GATEWAY.flow(
        Priority.HERE, match(**question),
        move("eth_src", "eth_dst"), load("eth_src", gateway.mac),
        move(f"{family}_src", f"{family}_dst"), load(f"{family}_src", address),
        load("nw_ttl", _TTL), reply, *BACK, goto(Stage.DELIVER),
        why=f"ping: {address} is the gateway's",
    )  # fmt: skip
