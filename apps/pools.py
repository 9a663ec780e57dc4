"""Pools: addresses outside as which guests of a nat network leave, each host with one of its own.

An answer has to come back to the host that translated, so a host answers ARP for its address of each pool, by the MAC
of its external one. Nobody outside begins anything towards it, and no guest has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network

from apps.external import answers_arp, not_a_guests
from apps.nat import FROM_OUTSIDE, NAT_IN_STATE, ZONE
from controller.openflow.conntrack import Nat
from controller.pipeline.actions import Track, match
from controller.pipeline.app import App
from controller.pipeline.ip import packets
from controller.pipeline.tables import GATEWAY, HOP, Flow, Priority
from controller.reader import Reader
from controller.views import HostView, NetworkView


class Pools(App):
    tables = (GATEWAY, FROM_OUTSIDE, NAT_IN_STATE, HOP)

    def network(self, network: NetworkView, fabric: Reader) -> Iterator[Flow]:
        """Where the outside is a network with guests: none of them takes an address of a pool, whoever has it."""
        if network.uplink is None or network.implicit:
            return
        outsides = [h.external for h in fabric.hosts() if h.external is not None and h.external.network == network.name]
        wires = sorted({(each.segment, each.subnet) for each in outsides})
        for other in fabric.networks():
            for part in other.gateway.pool if other.gateway is not None else ():
                for segment in sorted({seg for seg, subnet in wires if part.overlaps(IPv4Network(subnet))}):
                    why = f"{part} is of network {other.name}'s pool"
                    yield from not_a_guests(segment, str(part), Priority.FORBIDDEN, why)

    def host(self, host: HostView, fabric: Reader) -> Iterator[Flow]:
        if (outside := host.external) is None:
            return
        for network, address in sorted(fabric.nat_addresses(host.name).items()):
            why = f"{address} is this host's of network {network}'s pool"
            there = match(**packets("dst", address))
            yield from answers_arp(outside, outside.mac, address, f"ARP: {why}")
            yield FROM_OUTSIDE.flow(
                Priority.ANYWHERE,
                there,
                Track(NAT_IN_STATE, ZONE, Nat()),
                why=f"for {address}: does it answer a guest?",
            )
            yield NAT_IN_STATE.flow(Priority.HERE, there, why=f"{why}: nobody outside begins anything towards it")
            yield HOP.flow(Priority.HERE, there, why=f"{why}, where nothing listens")
