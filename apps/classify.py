"""Classify: who sent a frame, and to which segment it belongs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from controller.pipeline.actions import goto, load, match, pop_vlan
from controller.pipeline.app import App
from controller.pipeline.fields import ISOLATED, PRIVATE, SEGMENT, SOURCE, Source
from controller.pipeline.tables import CLASSIFY, Action, Flow, Priority, Stage
from controller.reader import Reader
from controller.views import NetworkView, PortView

VLAN_PRESENT = 0x1000  # OpenFlow 1.5.1, 7.2.3.8: OFPVID_PRESENT
_PRIORITY_TAG = VLAN_PRESENT  # IEEE 802.1Q-2018, 6.9: VID 0 carries a priority and no VLAN


class Classify(App):
    """Access ports, trunks with native VLANs, and the VLANs of physical networks.

    A tag that a port is not a member of matches nothing, and the table drops it.
    """

    tables = (CLASSIFY,)

    def local(self, port: PortView, fabric: Reader) -> Iterator[Flow]:
        for way in ways_in(port):
            allowed = match(in_port=port.ofport, vlan_vid=way.vlan_vid)
            yield CLASSIFY.flow(Priority.ANYWHERE, allowed, *way.actions, why=way.why)

    def network(self, network: NetworkView, fabric: Reader) -> Iterator[Flow]:
        if network.uplink is None:
            return
        for vlan, segment in network.segments:
            for vid in (VLAN_PRESENT | vlan,) if vlan else (0, _PRIORITY_TAG):
                yield CLASSIFY.flow(
                    Priority.ANYWHERE,
                    match(in_port=network.uplink, vlan_vid=vid),
                    *((pop_vlan(),) if vid else ()),
                    load(SEGMENT, segment),
                    load(SOURCE, Source.UPLINK),
                    goto(Stage.EGRESS_POLICY),
                    why=f"{f'VLAN {vlan}' if vlan else 'untagged frames'} of {network.physical_network}",
                )


@dataclass(frozen=True, slots=True)
class WayIn:
    """One kind of frames that a vNIC may send: with which tag (OpenFlow's ``vlan_vid``), and what becomes of them."""

    vlan_vid: int
    actions: tuple[Action, ...]
    why: str


def ways_in(port: PortView) -> Iterator[WayIn]:
    """The frames of a vNIC that belong to a segment, with the way on into the pipeline."""
    for part in port.memberships:
        on = (*_marks(port, part.segment), goto(Stage.SPOOF_GUARD))
        if part.untagged_in:
            yield WayIn(0, on, "an untagged frame of this vNIC")
            why = "a frame of this vNIC that is tagged with a priority and no VLAN"
            yield WayIn(_PRIORITY_TAG, (pop_vlan(), *on), why)
        if part.tag_in is not None:
            yield WayIn(VLAN_PRESENT | part.tag_in, (pop_vlan(), *on), f"VLAN {part.tag_in} of this vNIC's trunk")


def _marks(port: PortView, segment: int) -> tuple[Action, ...]:
    """What is known of the vNIC's frames from here on."""
    marks = [load(SEGMENT, segment), load(SOURCE, Source.VNIC)]
    if port.isolation == "isolated":
        marks.append(load(ISOLATED, 1))
    if port.isolation == "private":
        marks.append(load(PRIVATE, 1))
    return tuple(marks)
