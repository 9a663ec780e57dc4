"""NAT: guests speak to the outside by an address of their host's, and hear what answers that.

Open vSwitch's connection tracker does it on the host itself. What no guest began gets nowhere, unless a port forward
leads it to one. The address is the host's external one, or the host's own out of the network's pool (see Pools).

All guests of a host share the tracker's table: each begins only so many connections a second. What is begun is labelled
as such, since a stream that nobody answers stays new for the tracker.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from enum import IntFlag

from controller.openflow.actions import Meter
from controller.openflow.conntrack import Nat as Translation
from controller.openflow.match import Value
from controller.pipeline.actions import Track, goto, load, match
from controller.pipeline.app import App
from controller.pipeline.fields import SOURCE, Source
from controller.pipeline.ip import ETHERTYPES, NOBODYS, ethertype, packets
from controller.pipeline.ports import connections_meter
from controller.pipeline.tables import DROP, HOP, NAT_OUT, NEXT, Action, Flow, Priority, Stage, Table
from controller.pipeline.zones import TRANSLATED
from controller.reader import Reader
from controller.views import GatewayView, HostView, PortView

NAT_IN = Table("nat_in", Stage.TRANSLATE_IN, Stage.FORWARD, "from outside: translated back, when it is an answer")
FROM_OUTSIDE = Table(
    "from_outside", Stage.TRANSLATE_IN, DROP, "for a host's external MAC: routed as it is, or looked up"
)
NAT_IN_STATE = Table("nat_in_state", Stage.TRANSLATE_IN, DROP, "lets in what answers a guest")
NAT_OUT_STATE = Table(
    "nat_out_state", Stage.TRANSLATE_OUT, DROP, "a new connection gets an address of the host, or a floating one"
)

ZONE = TRANSLATED


class CtState(IntFlag):
    """What the connection tracker says of a packet (ovs-fields(7), ct_state)."""

    NEW = 0x01
    ESTABLISHED = 0x02
    RELATED = 0x04
    REPLY = 0x08
    INVALID = 0x10
    TRACKED = 0x20
    TO_ANOTHER = 0x80  # "dnat": its destination was translated before this flow looks at it


KNOWN = (CtState.ESTABLISHED, CtState.RELATED)


BEGUN = 1  # the label of a connection that has passed the meter


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

    def local(self, port: PortView, fabric: Reader) -> Iterator[Flow]:
        network, host = fabric.network(port.network), fabric.host(port.host)
        if network is None or network.gateway is None or not network.gateway.nat or not port.memberships:
            return
        gateway, outside = network.gateway, host.external if host is not None else None
        for way in outside.ways if outside is not None else ():
            if way.version not in gateway.versions:
                continue
            sent: dict[str, Value] = {"in_port": port.ofport, "eth_type": ethertype(way.version)}
            address, meter = way.address, connections_meter(port.ofport)
            if way.version == 4 and gateway.pool:
                address = fabric.nat_address(network.name, port.host) or ""
            if address:
                why = f"a guest begins: from here on it speaks as {address}"
                yield from begins(NAT_OUT_STATE, sent, meter, Track(HOP, ZONE, _as(address, gateway)), why)
            else:
                why = f"no address of network {network.name}'s pool is left for host {port.host}"
                yield NAT_OUT_STATE.flow(Priority.ANYWHERE, match(**sent, ct_state=tracked(CtState.NEW)), why=why)


def begins(
    table: Table, terms: dict[str, Value], meter: int, track: Track, why: str, *before: Action
) -> Iterator[Flow]:
    """A connection is noted, as often as the meter lets through. One that is noted goes on, though nobody has answered
    yet."""
    new: dict[str, Value] = {**terms, "ct_state": tracked(CtState.NEW)}
    noted = replace(track, commit=True, label=BEGUN)
    yield table.flow(Priority.ANYWHERE + 1, match(**new, ct_label=0), Meter(meter), *before, noted, why=why)
    yield table.flow(
        Priority.ANYWHERE, match(**new), *before, replace(track, commit=True), why=f"{why}; not answered yet"
    )


def _as(address: str, gateway: GatewayView) -> Translation:
    low, high = gateway.ports or (0, 0)
    return Translation("src", address, port_min=low, port_max=high)
