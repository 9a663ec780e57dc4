"""Reserved: what switches say to the switch next to them goes no further, whoever sends it.

A guest that speaks a spanning tree could close the port of its host on the physical switch, and one that hears it
learns what it need not know. Bridges never pass these addresses on (IEEE 802.1Q-2018, 8.6.3 and table 8-1); Open
vSwitch has some of vendors beside them (ovs-vswitchd.conf.db(5), ``forward-bpdu``), and uplink bridges leave all of
them to these flows, since they have to let LLDP through.
"""

from __future__ import annotations

from collections.abc import Iterator

from controller.openflow.match import Value
from controller.pipeline.actions import match
from controller.pipeline.app import App
from controller.pipeline.tables import CLASSIFY, Flow, Priority
from controller.reader import Reader

# Destination, with a mask where several are meant, and whose it is.
_RESERVED: tuple[tuple[Value, str], ...] = (
    (("01:80:c2:00:00:00", "ff:ff:ff:ff:ff:f0"), "a protocol between bridges: STP, LACP, 802.1X, LLDP"),
    (("01:00:0c:cc:cc:cc", "ff:ff:ff:ff:ff:fe"), "Cisco's CDP, VTP, DTP, PAgP, UDLD and PVST+"),
    (("01:00:0c:cc:cc:c0", "ff:ff:ff:ff:ff:f8"), "Cisco's CFM"),
    ("01:00:0c:cd:cd:cd", "Cisco's STP Uplink Fast"),
    ("01:00:0c:00:00:00", "Cisco's ISL"),
    ("00:e0:2b:00:00:00", "Extreme's EDP"),
    (("00:e0:2b:00:00:04", "ff:ff:ff:ff:ff:fd"), "Extreme's EAPS"),
)


class Reserved(App):
    tables = (CLASSIFY,)

    def fleet(self, fabric: Reader) -> Iterator[Flow]:
        for address, whose in _RESERVED:
            yield CLASSIFY.flow(Priority.FORBIDDEN, match(eth_dst=address), why=f"{whose}: for the next switch only")
