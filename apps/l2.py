"""L2: a frame reaches the one port that its destination is at, and every member of the segment when that is not known.

vNICs are known from the rows and never learned. What is behind an uplink or a learning vNIC is learned by the switch
itself: 300 s in which it sends nothing forget it, whoever sends to it, and one frame from elsewhere moves it.

A destination that nobody knows can only be behind an uplink, or a vNIC that is not held to its own MAC: nobody else
gets the frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from controller.pipeline.actions import (
    LearnInto,
    goto,
    learned_load,
    learned_match,
    load,
    match,
    output,
    pop_vlan,
    push_vlan,
    resubmit,
)
from controller.pipeline.app import App
from controller.pipeline.cookies import learned_cookie
from controller.pipeline.fields import LEARNED_SENDER, OUT, SEGMENT, RegisterField, Source
from controller.pipeline.tables import (
    ARRIVED,
    DELIVER,
    FORWARD,
    LEARNED,
    NEXT,
    Action,
    Flow,
    Priority,
    Stage,
    Table,
)
from controller.reader import Reader
from controller.views import HostView, NetworkView, PortView

LEARN = Table("learn", Stage.FORWARD, FORWARD, "remembers who is behind an uplink or a learning vNIC")
LEARN_LIMIT = Table("learn_limit", Stage.FORWARD, FORWARD, "drops who is one too many behind a learning vNIC")
FLOOD = Table("flood", Stage.FLOOD, Stage.INGRESS_POLICY, "a copy to each member of the segment on this host")

AGEING_SECONDS = 300  # IEEE 802.1Q-2018, table 8-6: the recommended ageing time
MAX_LEARNED = 8192  # a segment, a host: whoever floods a wire with senders shall not fill the switch
_UNICAST = ("00:00:00:00:00:00", "01:00:00:00:00:00")


class L2(App):
    tables = (LEARN, LEARN_LIMIT, FORWARD, LEARNED, FLOOD, DELIVER)

    def fleet(self, fabric: Reader) -> Iterator[Flow]:
        yield FORWARD.flow(
            Priority.FALLBACK,
            match(eth_dst=_UNICAST),
            resubmit(LEARNED),
            goto(Stage.FLOOD),
            why="no vNIC of ours; perhaps the switch has learned where it is",
        )

    def network(self, network: NetworkView, fabric: Reader) -> Iterator[Flow]:
        if network.uplink is None:
            return
        for vlan, segment in network.segments:
            yield LEARN.flow(
                Priority.ANYWHERE,
                match(source=Source.UPLINK, segment=segment, eth_src=_UNICAST),
                _learn(learned_cookie(segment), MAX_LEARNED),
                goto(FORWARD),
                why=f"its sender is behind {network.physical_network}",
            )
            yield DELIVER.flow(
                Priority.ANYWHERE,
                match(out=network.uplink, segment=segment),
                *_send(output(network.uplink), vlan or None),
                why=f"to {network.physical_network}, {f'VLAN {vlan}' if vlan else 'untagged'}",
            )

    def port(self, port: PortView, fabric: Reader) -> Iterator[Flow]:
        network = fabric.network(port.network)
        if network is None or network.uplink is None:
            return
        for part in port.memberships:
            yield FORWARD.flow(
                Priority.ANYWHERE,
                match(segment=part.segment, eth_dst=port.mac),
                load(OUT, network.uplink),
                goto(Stage.INGRESS_POLICY),
                why=f"this vNIC is on host {port.host}, which {network.physical_network} leads to",
            )

    def local(self, port: PortView, fabric: Reader) -> Iterator[Flow]:
        if port.mac_limit:
            yield from _learning(port)
        for part in port.memberships:
            # What is for a vepa vNIC goes by the physical switch as well, so only a frame from there comes in here.
            source = {"source": Source.UPLINK} if port.isolation == "vepa" else {}
            yield FORWARD.flow(
                Priority.HERE,
                match(segment=part.segment, eth_dst=port.mac, **source),
                load(OUT, port.ofport),
                goto(Stage.INGRESS_POLICY),
                why=f"this vNIC {'comes to' if port.arriving else 'is on'} this host",
            )
            way = resubmit(ARRIVED) if port.arriving else output(port.ofport)
            yield DELIVER.flow(
                Priority.ANYWHERE,
                match(out=port.ofport, segment=part.segment),
                *_send(way, part.tag_out),
                why=f"to the vNIC, {f'VLAN {part.tag_out}' if part.tag_out else 'untagged'}",
            )

    def member(self, network: NetworkView, host: HostView, fabric: Reader) -> Iterator[Flow]:
        for vlan, segment in network.segments:
            members = fabric.members(segment, host.name)
            if not members:
                continue
            where = f"{f'VLAN {vlan}' if vlan else 'this network'} on this host"
            uplink = [network.uplink] if network.uplink is not None else []
            yield FLOOD.flow(
                Priority.ANYWHERE,
                match(segment=segment, out=0),
                *copies([port.ofport for port in members] + uplink),
                goto(NEXT),
                why=f"every member of {where}",
            )
            yield FLOOD.flow(
                Priority.HERE,
                match(segment=segment, out=0, eth_dst=_UNICAST),
                *copies([port.ofport for port in members if port.open] + uplink),
                goto(NEXT),
                why=f"nobody knows where it is: members of {where} behind whom there may be others",
            )


def _learning(port: PortView) -> Iterator[Flow]:
    """Who is behind the vNIC, as many as its portgroup allows."""
    own = match(in_port=port.ofport, eth_src=port.mac)
    yield LEARN.flow(Priority.EXCEPTION, own, goto(FORWARD), why="the vNIC itself, which is known")
    for part in port.memberships:
        yield LEARN.flow(
            Priority.HERE,
            match(in_port=port.ofport, segment=part.segment),
            load(LEARNED_SENDER, 1),  # ofproto/trace learns nothing, and writes no result
            _learn(learned_cookie(part.segment, port.ofport), port.mac_limit, LEARNED_SENDER),
            goto(LEARN_LIMIT),
            why="its sender is behind this vNIC",
        )
    refused = match(in_port=port.ofport, learned_sender=0)
    yield LEARN_LIMIT.flow(Priority.HERE, refused, why=f"more than {port.mac_limit} MACs behind this vNIC")


def _learn(cookie: int, limit: int, result: RegisterField | None = None) -> LearnInto:
    """Frames for the sender of this one go to where it came from."""
    where = (learned_match(SEGMENT), learned_match("eth_dst", "eth_src"), learned_load(OUT, "in_port"))
    return LearnInto(LEARNED, Priority.ANYWHERE, AGEING_SECONDS, cookie, where, limit=limit, result=result)


def copies(ports: Iterable[int]) -> tuple[Action, ...]:
    """One for each port, and then as if nothing had been decided."""
    copies: list[Action] = []
    for port in ports:
        copies += [load(OUT, port), resubmit(Stage.INGRESS_POLICY)]
    return (*copies, load(OUT, 0)) if copies else ()


def _send(way: Action, tag: int | None) -> tuple[Action, ...]:
    """Out with this tag; the packet is left as it was, for the next copy."""
    return (way,) if tag is None else (*push_vlan(tag), way, pop_vlan())
