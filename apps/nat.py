"""NAT: guests speak to the outside by their host's external address, and hear what answers that.

Open vSwitch's connection tracker does it on the host itself. What no guest began gets nowhere, unless a port forward
leads it to one.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntFlag

from controller.openflow.conntrack import Nat as Translation
from controller.pipeline.actions import Track, goto, load, match
from controller.pipeline.app import App
from controller.pipeline.fields import SOURCE, Source
from controller.pipeline.ip import ETHERTYPES, NOBODYS, ethertype, packets
from controller.pipeline.tables import DROP, HOP, NAT_OUT, NEXT, Flow, Priority, Stage, Table
from controller.reader import Reader
from controller.views import HostView

NAT_IN = Table("nat_in", Stage.TRANSLATE_IN, Stage.FORWARD, "from outside: translated back, when it is an answer")
FROM_OUTSIDE = Table(
    "from_outside", Stage.TRANSLATE_IN, DROP, "for a host's external MAC: routed as it is, or looked up"
)
NAT_IN_STATE = Table("nat_in_state", Stage.TRANSLATE_IN, DROP, "lets in what answers a guest")
NAT_OUT_STATE = Table(
    "nat_out_state", Stage.TRANSLATE_OUT, DROP, "a new connection gets the host's address, or the guest's floating one"
)

ZONE = 0xF5F5  # bridges of one userspace datapath share the tracker: a zone that nobody else is likely to use


class CtState(IntFlag):
    """What the connection tracker says of a packet (ovs-fields(7), ct_state)."""

    NEW = 0x01
    ESTABLISHED = 0x02
    RELATED = 0x04
    REPLY = 0x08
    INVALID = 0x10
    TRACKED = 0x20


KNOWN = (CtState.ESTABLISHED, CtState.RELATED)


def tracked(state: CtState) -> tuple[int, int]:
    """The packet went through the tracker, which says this of it, and finds nothing wrong with it."""
    wanted = state | CtState.TRACKED
    return int(wanted), int(wanted | CtState.INVALID)


class Nat(App):
    tables = (NAT_IN, FROM_OUTSIDE, NAT_IN_STATE, NAT_OUT, NAT_OUT_STATE)

    def fleet(self, fabric: Reader) -> Iterator[Flow]:
        for state in KNOWN:
            known = match(ct_state=tracked(state))
            yield NAT_IN_STATE.flow(
                Priority.ANYWHERE + state, known, load(SOURCE, Source.OUTSIDE), goto(Stage.ROUTE),
                why="belongs to a connection that a guest began",
            )  # fmt: skip
            yield NAT_OUT_STATE.flow(
                Priority.ANYWHERE + state, known, goto(HOP), why="belongs to a connection that is known"
            )
        for kind in ETHERTYPES:
            yield NAT_OUT.flow(
                Priority.ANYWHERE, match(eth_type=kind), Track(NEXT, ZONE, Translation()), why="which connection is it?"
            )

    def host(self, host: HostView, fabric: Reader) -> Iterator[Flow]:
        if (outside := host.external) is None:
            return
        for way in outside.ways:
            kind = ethertype(way.version)
            yield NAT_IN.flow(
                Priority.ANYWHERE, match(segment=outside.segment, eth_dst=outside.mac, eth_type=kind),
                goto(FROM_OUTSIDE), why=f"by way of {way.address}",
            )  # fmt: skip
            for subnet in (each for each in NOBODYS if each.version == way.version):
                from_nobody = match(**packets("src", subnet))
                yield FROM_OUTSIDE.flow(Priority.EXCEPTION, from_nobody, why=f"{subnet} means nobody elsewhere")
            yield FROM_OUTSIDE.flow(
                Priority.ANYWHERE, match(**packets("dst", way.address)),
                Track(NAT_IN_STATE, ZONE, Translation()), why=f"for {way.address}: does it answer a guest?",
            )  # fmt: skip
            yield NAT_OUT_STATE.flow(
                Priority.ANYWHERE, match(ct_state=tracked(CtState.NEW), eth_type=kind),
                Track(HOP, ZONE, Translation("src", way.address), commit=True),
                why=f"a guest begins: from here on it speaks as {way.address}",
            )  # fmt: skip
