"""Routing: which way a packet for a gateway goes on, between networks, to the outside and from there.

It is routed at the host where it comes from, and goes by a tunnel where its guest is elsewhere. Who may reach whom is
what libvirt means by its modes:

=========  ========================  =======================================
mode       what its guests begin     what others begin towards its guests
=========  ========================  =======================================
isolated   goes nowhere              does not come in
nat        to route, open, outside   does not come in; answers do
route      to route, open, outside   from nat, route, open and outside
open       to route, open, outside   from nat, route, open and outside
=========  ========================  =======================================

Only on its way out of the fleet a packet of a nat guest is translated. What answers a nat guest is let in by its own
host, whose connection tracker has seen the beginning: a routed packet in a nat network is known by the gateway's MAC
as its sender, which no guest can have. What another host forwards (see Forwards) looks the same but for its sender's
address: so nobody in the fleet reaches a nat guest with an address that is not of its own network.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network

from apps.nat import FROM_OUTSIDE, KNOWN, NAT_IN, ZONE, begins, tracked
from controller.openflow.actions import Controller
from controller.openflow.match import Value
from controller.pipeline.actions import Track, dec_ttl, goto, load, match, move
from controller.pipeline.app import App
from controller.pipeline.fields import ISOLATED, NEXT_HOP, NEXT_HOP6, SEGMENT, SOURCE, Source
from controller.pipeline.ip import ETHERTYPES, LINK_LOCAL, MULTICAST6, ethertype, packets
from controller.pipeline.ports import connections_meter
from controller.pipeline.tables import DROP, HOP, ICMP_ERROR, NAT_OUT, Action, Flow, Priority, Stage, Table
from controller.reader import Reader
from controller.views import ExternalView, GatewayView, HostView, NetworkView, PortView, Way

ROUTE = Table("route", Stage.ROUTE, DROP, "for a gateway, or from outside: which way on")
NOTED = Table("noted", Stage.ROUTE, Stage.FORWARD, "from a guest of mode nat into another network: is it known there?")
INWARD = Table("inward", Stage.ROUTE, DROP, "from another network into one of mode nat: lets in what answers a guest")


class Routing(App):
    tables = (ROUTE, NOTED, INWARD, ICMP_ERROR)

    def fleet(self, fabric: Reader) -> Iterator[Flow]:
        for kind in ETHERTYPES:
            vnic: dict[str, Value] = {"source": Source.VNIC, "eth_type": kind}
            yield ROUTE.flow(Priority.EXCEPTION, match(**vnic, nw_ttl=1), goto(ICMP_ERROR), why="its time is over")
            yield ROUTE.flow(Priority.MISS + 1, match(**vnic), goto(ICMP_ERROR), why="no way leads there")
        for subnet in (LINK_LOCAL, MULTICAST6):
            near = match(source=Source.VNIC, **packets("dst", subnet))
            yield ROUTE.flow(Priority.EXCEPTION + 1, near, why=f"{subnet} is not routed")
        for state in KNOWN:
            yield INWARD.flow(
                Priority.HERE + state, match(ct_state=tracked(state), ct_mark=0), goto(Stage.FORWARD),
                why="belongs to a connection that a guest of the nat network began",
            )  # fmt: skip
        for network in fabric.networks():
            if network.gateway is not None:
                yield from _subnets(network.name, network.gateway)

    def network(self, network: NetworkView, fabric: Reader) -> Iterator[Flow]:
        if network.gateway is None or not network.gateway.nat or not network.overlay:
            return
        for _, segment in network.segments:
            routed: dict[str, Value] = {"source": Source.TUNNEL, "segment": segment, "eth_src": network.gateway.mac}
            for kind in map(ethertype, network.gateway.versions):
                yield NAT_IN.flow(
                    Priority.ANYWHERE + 1, match(**routed, eth_type=kind), Track(INWARD, ZONE, None),
                    why="routed here by another host: does it answer a guest?",
                )  # fmt: skip
            yield NAT_IN.flow(Priority.ANYWHERE, match(**routed), why="nothing else is routed")

    def port(self, port: PortView, fabric: Reader) -> Iterator[Flow]:
        network = fabric.network(port.network)
        if network is not None and not network.alone:
            yield from _reached(port, network, here=False)

    def local(self, port: PortView, fabric: Reader) -> Iterator[Flow]:
        network = fabric.network(port.network)
        if network is None or network.gateway is None or port.arriving:
            return
        yield from _reached(port, network, here=True)
        for kind in map(ethertype, network.gateway.versions if network.gateway.nat and port.memberships else ()):
            sent: dict[str, Value] = {"in_port": port.ofport, "eth_type": kind}
            note = Track(Stage.FORWARD, ZONE, None)
            why = "a guest begins: its answers are to be let in"
            yield from begins(NOTED, sent, connections_meter(port.ofport), note, why)
        tells = network.gateway.sends and port.memberships
        for kind in map(ethertype, network.gateway.versions if tells else ()):
            yield ICMP_ERROR.flow(
                Priority.ANYWHERE, match(in_port=port.ofport, eth_type=kind), Controller(meter_id=port.ofport),
                why="the controller tells this vNIC why it goes no further",
            )  # fmt: skip

    def member(self, network: NetworkView, host: HostView, fabric: Reader) -> Iterator[Flow]:
        if network.gateway is None or not network.gateway.sends or host.external is None:
            return
        outside, then = host.external, goto(NAT_OUT if network.gateway.nat else HOP)
        for _, segment in network.segments:
            mine: dict[str, Value] = {"source": Source.VNIC, "segment": segment, "eth_dst": network.gateway.mac}
            for way in (each for each in outside.ways if each.version in network.gateway.versions):
                own = match(**mine, **packets("dst", way.address))
                yield ROUTE.flow(Priority.HERE, own, why=f"for host {host.name} itself, where nothing listens")
                near = match(**mine, **packets("dst", ip_network(way.subnet)))
                yield ROUTE.flow(
                    Priority.FALLBACK + 1, near, *outward(outside, to_itself(way)), then,
                    why=f"to a machine in {way.subnet}",
                )  # fmt: skip
                yield ROUTE.flow(
                    Priority.FALLBACK, match(**mine, eth_type=ethertype(way.version)),
                    *outward(outside, to_router(way)), then, why=f"to anywhere else, by {way.gateway}",
                )  # fmt: skip


def to_itself(way: Way) -> Action:
    """The next hop is the destination."""
    return move("ipv6_dst", NEXT_HOP6) if way.version == 6 else move("ipv4_dst", NEXT_HOP)


def to_router(way: Way) -> Action:
    """The next hop is the router outside."""
    return load(NEXT_HOP6 if way.version == 6 else NEXT_HOP, int(ip_address(way.gateway)))


def _subnets(network: str, gateway: GatewayView) -> Iterator[Flow]:
    """What is for a network, and for no vNIC of it that is known or may be reached, goes nowhere else."""
    for subnet in gateway.prefixes:
        there = packets("dst", subnet)
        yield ROUTE.flow(
            Priority.ANYWHERE, match(**there), goto(ICMP_ERROR),
            why=f"{subnet} is network {network}: no guest there has this address, or is to be reached",
        )  # fmt: skip
        if gateway.sends:
            yield FROM_OUTSIDE.flow(
                Priority.EXCEPTION, match(**packets("src", subnet)),
                why=f"forged: {subnet} is network {network}, and nobody outside",
            )  # fmt: skip
            yield INWARD.flow(
                Priority.HERE, match(**packets("src", subnet)),
                why=f"{subnet} is network {network}, whose guests begin nothing towards a nat network",
            )  # fmt: skip
        if gateway.takes:
            yield FROM_OUTSIDE.flow(
                Priority.HERE, match(**there), goto(Stage.ROUTE),
                why=f"{subnet} is network {network}, which is reached from outside",
            )  # fmt: skip


def _reached(port: PortView, network: NetworkView, *, here: bool) -> Iterator[Flow]:
    """How a vNIC is reached by its addresses. ``here``: the flows of its own host, where these differ."""
    gateway = network.gateway
    if gateway is None or not gateway.sends or not port.memberships:
        return
    everywhere = here if network.alone else not here
    for address in port.addresses:
        if not any(ip_address(address) in subnet for subnet in gateway.subnets):
            continue
        to = packets("dst", address)
        way = _to(port, gateway)
        if gateway.takes and everywhere:
            yield from _taken(Priority.HERE, to, way, f"{address} is this vNIC's")
            for subnet in gateway.behind(address):
                behind = packets("dst", subnet)
                yield from _taken(Priority.ANYWHERE + subnet.prefixlen, behind, way, f"{subnet} is behind {address}")
        if gateway.nat and everywhere:
            yield ROUTE.flow(
                Priority.HERE, match(source=Source.OUTSIDE, **to), *way, goto(Stage.FORWARD),
                why=f"an answer from outside for this vNIC, {address}",
            )  # fmt: skip
        routed: dict[str, Value] = {"source": Source.VNIC, "natted": 0, "foreign": 0, **to}
        if gateway.nat and here:
            yield ROUTE.flow(
                Priority.HERE + 1, match(**routed), *way, Track(INWARD, ZONE, None),
                why=f"from another network for this vNIC, {address}: does it answer?",
            )  # fmt: skip
        elif gateway.nat:
            yield ROUTE.flow(
                Priority.HERE, match(**routed), *way, goto(Stage.FORWARD),
                why=f"from another network for this vNIC, {address}: its host looks whether it answers",
            )  # fmt: skip


def _taken(priority: int, to: dict[str, Value], way: tuple[Action, ...], why: str) -> Iterator[Flow]:
    """Whoever may send reaches it; of a nat guest's packet the tracker takes note."""
    yield ROUTE.flow(priority, match(natted=0, **to), *way, goto(Stage.FORWARD), why=why)
    yield ROUTE.flow(
        priority, match(natted=1, **to), *way, Track(NOTED, ZONE, None),
        why=f"{why}, whose answers are to be let in here",
    )  # fmt: skip


def _to(port: PortView, gateway: GatewayView) -> tuple[Action, ...]:
    """From the gateway to the vNIC, in its own segment."""
    into = (load(SEGMENT, port.memberships[0].segment), load(SOURCE, Source.VNIC))
    return dec_ttl(), *into, load("eth_src", gateway.mac), load("eth_dst", port.mac)


def outward(outside: ExternalView, next_hop: Action) -> tuple[Action, ...]:
    """From the host's external address to the next hop."""
    onward = (load(SEGMENT, outside.segment), load(ISOLATED, 0), load("eth_src", outside.mac))
    return dec_ttl(), *onward, next_hop
