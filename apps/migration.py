"""Migration: a guest that is copied to another host while it runs is switched there from its first frame on.

While the copy is made both places get the frames for the guest. The new one holds them back, until the switch itself
has seen a frame from there with the guest's MAC: the RARP of QEMU, as a rule, which it sends as it lets the guest run
(net/announce.c of QEMU). From that instant they are let through, whether the controller
is there or not. By then the guest has stopped in the old place, so that none hears anything twice.
"""

from __future__ import annotations

from collections.abc import Iterator

from apps.classify import ways_in
from apps.floating import announced
from apps.overlay import TUNNEL
from controller.openflow.match import Value
from controller.pipeline.actions import (
    LearnInto,
    goto,
    learned_match,
    learned_output,
    load,
    match,
    output,
    punt,
    resubmit,
)
from controller.pipeline.app import App
from controller.pipeline.cookies import arrival_cookie
from controller.pipeline.fields import OUT, PEER, Source
from controller.pipeline.tables import ARRIVED, CLASSIFY, FORWARD, Action, Flow, Priority, Stage
from controller.reader import Reader
from controller.views import PortView

_RARP, _BROADCAST = 0x8035, "ff:ff:ff:ff:ff:ff"

# What is learned holds for frames of known flows only when Open vSwitch's main thread looks, every 0.5 s at worst; a
# packet for the controller wakes it (ofproto_dpif_send_async_msg). No controller of ours takes it.
_WAKE = punt(64)


class Migration(App):
    tables = (CLASSIFY, FORWARD, ARRIVED)

    def local(self, port: PortView, fabric: Reader) -> Iterator[Flow]:
        if port.other is not None:
            yield from _copies(port, port.other, fabric)
        if port.arriving:
            yield from _arrival(port, fabric)
            yield from _passthrough(port, fabric)


def _copies(port: PortView, other: str, fabric: Reader) -> Iterator[Flow]:
    """A guest on either of the two hosts reaches both places. What comes from elsewhere was sent to both already."""
    network, host = fabric.network(port.network), fabric.host(other)
    if network is None or host is None or port.isolation == "vepa":
        return  # a vepa vNIC's frames all go by the physical switch, which finds it by its RARP
    onward: tuple[Action, ...]
    if network.overlay:
        onward = (load(PEER, host.number), goto(TUNNEL))
    elif network.uplink is not None:
        onward = (load(OUT, network.uplink), goto(Stage.INGRESS_POLICY))
    else:
        return
    for part in port.memberships:
        yield FORWARD.flow(
            Priority.HERE + 1,
            match(source=Source.VNIC, segment=part.segment, eth_dst=port.mac),
            load(OUT, port.ofport),
            resubmit(Stage.INGRESS_POLICY),
            *onward,
            why=f"this vNIC migrates: it is here, or on host {host.name}",
        )


def _arrival(port: PortView, fabric: Reader) -> Iterator[Flow]:
    """Its own frames open the gate, and go on as any other's."""
    if not port.memberships:
        return
    own: dict[str, Value] = {"in_port": port.ofport, "eth_src": port.mac}
    ways = {way.vlan_vid: way for way in ways_in(port)}
    for way in ways.values():
        yield CLASSIFY.flow(
            Priority.HERE, match(**own, vlan_vid=way.vlan_vid), _open(port), *way.actions, why=f"arrives with {way.why}"
        )
    # QEMU knows nothing of the guest's tags: it announces one on a trunk untagged as well, whatever becomes of that.
    onward = ways[0].actions if 0 in ways else ()
    yield CLASSIFY.flow(
        Priority.HERE + 1, match(**own, vlan_vid=0, eth_dst=_BROADCAST, eth_type=_RARP), _open(port), _WAKE,
        *announced(port, fabric), *onward, why="arrives: QEMU announces it",
    )  # fmt: skip


def _passthrough(port: PortView, fabric: Reader) -> Iterator[Flow]:
    network = fabric.network(port.network)
    if port.isolation != "passthrough" or network is None or network.uplink is None:
        return
    own: dict[str, Value] = {"in_port": port.ofport, "eth_src": port.mac}
    why = f"this vNIC has {network.physical_network} to itself"
    yield CLASSIFY.flow(
        Priority.EXCEPTION + 1, match(**own), _open(port), output(network.uplink), why=f"arrives; {why}"
    )
    yield CLASSIFY.flow(
        Priority.EXCEPTION + 2, match(**own, eth_type=_RARP), _open(port), _WAKE, output(network.uplink),
        why=f"arrives: QEMU announces it; {why}",
    )  # fmt: skip
    yield CLASSIFY.flow(Priority.EXCEPTION, match(in_port=port.ofport), output(network.uplink), why=why)
    yield CLASSIFY.flow(
        Priority.EXCEPTION, match(in_port=network.uplink), load(OUT, port.ofport), goto(ARRIVED),
        why=f"{why}, once it has arrived",
    )  # fmt: skip


def _open(port: PortView) -> LearnInto:
    """Deliver to this port from now on; forgotten when the flow goes that has this."""
    return LearnInto(
        ARRIVED, Priority.ANYWHERE, 0, arrival_cookie(port.ofport),
        (learned_match(OUT, "in_port"), learned_output("in_port")),
    )  # fmt: skip
