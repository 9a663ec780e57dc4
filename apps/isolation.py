"""Isolation: vNICs that share a segment and still must not meet, and vNICs that own their uplink.

==============  =====================================================================================
isolated        exchanges nothing with other isolated vNICs, wherever they are
private         reaches the uplink only, never another vNIC
vepa            every frame leaves by the uplink; what comes back from there is delivered (IEEE 802.1Qbg)
passthrough     alone with the uplink: every frame as it is, tags included
==============  =====================================================================================

That a sender is isolated travels in the tunnel key. Across a physical network nothing can travel, so there a sender is
known by its MAC.
"""

from __future__ import annotations

from collections.abc import Iterator

from controller.pipeline.actions import goto, load, match, output
from controller.pipeline.app import App
from controller.pipeline.fields import ISOLATED, OUT, PRIVATE, Source
from controller.pipeline.tables import CLASSIFY, FORWARD, GATEWAY, Flow, Priority, Stage, Table
from controller.reader import Reader
from controller.views import NetworkView, PortView

ORIGIN = Table(
    "origin", Stage.EGRESS_POLICY, Stage.SERVICES, "frames from an uplink whose sender is a vNIC of ours: its isolation"
)
ISOLATION = Table("isolation", Stage.INGRESS_POLICY, Stage.DELIVER, "who may not reach this port")


class Isolation(App):
    tables = (ORIGIN, ISOLATION)

    def fleet(self, fabric: Reader) -> Iterator[Flow]:
        yield ISOLATION.flow(Priority.FALLBACK, match(private=1), why="a private vNIC reaches the uplink only")

    def network(self, network: NetworkView, fabric: Reader) -> Iterator[Flow]:
        if network.uplink is not None:
            yield ISOLATION.flow(
                Priority.ANYWHERE,
                match(private=1, out=network.uplink),
                goto(Stage.DELIVER),
                why=f"a private vNIC reaches {network.physical_network}",
            )

    def port(self, port: PortView, fabric: Reader) -> Iterator[Flow]:
        network = fabric.network(port.network)
        if network is None or network.uplink is None or port.isolation not in {"isolated", "private"}:
            return
        mark = load(ISOLATED, 1) if port.isolation == "isolated" else load(PRIVATE, 1)
        for part in port.memberships:
            yield ORIGIN.flow(
                Priority.ANYWHERE,
                match(source=Source.UPLINK, segment=part.segment, eth_src=port.mac),
                mark,
                goto(Stage.SERVICES),
                why=f"this vNIC is {port.isolation}, also when its frames come over {network.physical_network}",
            )

    def local(self, port: PortView, fabric: Reader) -> Iterator[Flow]:
        network = fabric.network(port.network)
        if network is None:
            return
        if port.isolation == "isolated":
            yield ISOLATION.flow(
                Priority.HERE, match(isolated=1, out=port.ofport), why="isolated vNICs do not meet each other"
            )
        if port.isolation in {"private", "vepa"}:
            yield ISOLATION.flow(
                Priority.HERE,
                match(source=Source.VNIC, out=port.ofport),
                why=f"this vNIC is {port.isolation}: it hears the uplink only",
            )
        if port.isolation == "vepa" and network.uplink is not None:
            yield FORWARD.flow(
                Priority.EXCEPTION,
                match(in_port=port.ofport),
                load(OUT, network.uplink),
                goto(Stage.INGRESS_POLICY),
                why="a vepa vNIC's frames all leave by the uplink",
            )
            yield GATEWAY.flow(
                Priority.EXCEPTION + 1,
                match(in_port=port.ofport),
                goto(Stage.FORWARD),
                why="a vepa vNIC is answered by the physical network alone; its frames all leave by the uplink",
            )
            yield ISOLATION.flow(
                Priority.HERE,
                match(out=port.ofport, eth_src=port.mac),
                why="its own frame, sent back by the physical switch",
            )
        if port.isolation == "passthrough" and network.uplink is not None and not port.arriving:
            yield CLASSIFY.flow(
                Priority.EXCEPTION,
                match(in_port=port.ofport),
                output(network.uplink),
                why=f"this vNIC has {network.physical_network} to itself",
            )
            yield CLASSIFY.flow(
                Priority.EXCEPTION,
                match(in_port=network.uplink),
                output(port.ofport),
                why=f"this vNIC has {network.physical_network} to itself",
            )
