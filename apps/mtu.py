"""MTU: who sends more than fits where it is to go is told so, instead of hearing nothing for ever.

Routed packets are compared with the MTU of the network, or of the wire outside, where they go, before anything of them
is changed: an error quotes a packet as its sender knows it. What networks say to their guests is not relied on: a
guest may send more than it was told. Whom nobody could tell is not held to it.
"""

from __future__ import annotations

from collections.abc import Iterator

from apps.routing import ROUTE
from controller.openflow.actions import Controller
from controller.pipeline.actions import check_size, goto, match
from controller.pipeline.app import App
from controller.pipeline.fields import TOO_BIG, Source
from controller.pipeline.ip import ethertype, packets
from controller.pipeline.ports import OUTSIDE_ERRORS
from controller.pipeline.tables import OVERSIZED, Flow, Priority, Stage, Table
from controller.reader import Reader
from controller.views import HostView, PortView

SIZE = Table("size", Stage.ROUTE, ROUTE, "for a gateway, or from outside: is it larger than fits where it goes?")


class Mtu(App):
    tables = (SIZE, OVERSIZED)

    def fleet(self, fabric: Reader) -> Iterator[Flow]:
        for network in fabric.networks():
            if (gateway := network.gateway) is None or not gateway.sends:
                continue
            for subnet in gateway.prefixes:
                yield SIZE.flow(
                    Priority.ANYWHERE + subnet.prefixlen, match(**packets("dst", subnet)),
                    check_size(gateway.mtu, TOO_BIG), goto(OVERSIZED),
                    why=f"network {network.name} carries {gateway.mtu} bytes",
                )  # fmt: skip

    def local(self, port: PortView, fabric: Reader) -> Iterator[Flow]:
        network = fabric.network(port.network)
        if network is None or network.gateway is None or not network.gateway.sends or port.arriving:
            return
        for kind in map(ethertype, network.gateway.versions if port.memberships else ()):
            yield OVERSIZED.flow(
                Priority.ANYWHERE, match(in_port=port.ofport, too_big=1, eth_type=kind),
                Controller(meter_id=port.ofport), why="the controller tells this vNIC what would fit",
            )  # fmt: skip

    def host(self, host: HostView, fabric: Reader) -> Iterator[Flow]:
        if (outside := host.external) is None:
            return
        for kind in (ethertype(way.version) for way in outside.ways):
            yield SIZE.flow(
                Priority.FALLBACK, match(source=Source.VNIC, eth_type=kind), check_size(outside.mtu, TOO_BIG),
                goto(OVERSIZED), why=f"the wire outside carries {outside.mtu} bytes",
            )  # fmt: skip
            yield OVERSIZED.flow(
                Priority.ANYWHERE, match(in_port=outside.uplink, too_big=1, eth_type=kind),
                Controller(meter_id=OUTSIDE_ERRORS), why="the controller tells a machine outside what would fit",
            )  # fmt: skip
