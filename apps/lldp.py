"""LLDP: what a neighbour on the wire says of itself goes to the controller, and LLDP goes nowhere else.

Only an uplink is listened to: a guest could say that it is a switch. Of a frame the controller gets what is enough to
know the neighbour by, and no more of them than a meter of their own lets through.
"""

from __future__ import annotations

from collections.abc import Iterator

from controller.pipeline.actions import match, metered_punt
from controller.pipeline.app import App
from controller.pipeline.ports import NEIGHBOURS
from controller.pipeline.tables import CLASSIFY, Flow, Priority
from controller.reader import Reader
from controller.views import HostView

LLDP = 0x88CC
NEAREST_BRIDGE = "01:80:c2:00:00:0e"  # IEEE 802.1AB-2016, table 7-1: no bridge passes it on
MAX_BYTES = 1024  # what a switch tells first, and must, is in the first few hundred


class Lldp(App):
    tables = (CLASSIFY,)

    def fleet(self, fabric: Reader) -> Iterator[Flow]:
        yield CLASSIFY.flow(
            Priority.FORBIDDEN, match(eth_type=LLDP), why="LLDP is between neighbours on a wire, and no guest's"
        )

    def host(self, host: HostView, fabric: Reader) -> Iterator[Flow]:
        for physical_network, port in host.uplinks:
            heard = match(in_port=port, eth_dst=NEAREST_BRIDGE, eth_type=LLDP, vlan_vid=0)
            why = f"what the neighbour on {physical_network} says of itself"
            yield CLASSIFY.flow(Priority.FORBIDDEN + 1, heard, metered_punt(MAX_BYTES, NEIGHBOURS), why=why)
