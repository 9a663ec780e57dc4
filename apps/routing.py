"""Routing: which way a packet for a gateway goes on.

It is routed at the host where it comes from. What comes back from outside goes to the guest whose address it has, by a
tunnel if that guest is elsewhere. Guests of one nat network reach no guest of another: libvirt's rules for that mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, ip_interface

from apps.nat import NAT_OUT
from controller.fabric import Reader
from controller.openflow.match import Value
from controller.pipeline.actions import dec_ttl, goto, load, match, move
from controller.pipeline.app import App
from controller.pipeline.fields import ISOLATED, NEXT_HOP, SEGMENT, SOURCE, Source
from controller.pipeline.tables import DROP, Action, Flow, Priority, Stage, Table
from controller.views import ExternalView, HostView, NetworkView, PortView

ROUTE = Table("route", Stage.ROUTE, DROP, "for a gateway, or from outside: which way on")

_IPV4 = 0x0800


class Routing(App):
    tables = (ROUTE,)

    def fleet(self, fabric: Reader) -> Iterator[Flow]:
        for network in fabric.networks():
            for subnet in subnets(network):
                yield ROUTE.flow(
                    Priority.ANYWHERE, match(eth_type=_IPV4, ipv4_dst=masked(subnet)),
                    why=f"{subnet} is network {network.name}, which nobody else reaches",
                )  # fmt: skip

    def port(self, port: PortView, fabric: Reader) -> Iterator[Flow]:
        network = fabric.network(port.network)
        if network is None or network.gateway is None or not network.gateway.nat or not port.memberships:
            return
        for address in port.ipv4:
            if any(IPv4Address(address) in subnet for subnet in subnets(network)):
                yield ROUTE.flow(
                    Priority.HERE, match(source=Source.OUTSIDE, eth_type=_IPV4, ipv4_dst=address),
                    dec_ttl(), load(SEGMENT, port.memberships[0].segment), load(SOURCE, Source.VNIC),
                    load("eth_src", network.gateway.mac), load("eth_dst", port.mac), goto(Stage.FORWARD),
                    why=f"an answer from outside for this vNIC, {address}",
                )  # fmt: skip

    def member(self, network: NetworkView, host: HostView, fabric: Reader) -> Iterator[Flow]:
        if network.gateway is None or not network.gateway.nat or host.external is None:
            return
        outside = host.external
        for _, segment in network.segments:
            mine: dict[str, Value] = {
                "source": Source.VNIC, "segment": segment, "eth_dst": network.gateway.mac, "eth_type": _IPV4,
            }  # fmt: skip
            own = match(**mine, ipv4_dst=outside.address)
            yield ROUTE.flow(Priority.HERE, own, why=f"for host {host.name} itself, where nothing listens")
            near = match(**mine, ipv4_dst=masked(IPv4Network(outside.subnet)))
            yield ROUTE.flow(
                Priority.FALLBACK + 1, near, *outward(outside, move("ipv4_dst", NEXT_HOP)), goto(NAT_OUT),
                why=f"to a machine in {outside.subnet}",
            )  # fmt: skip
            yield ROUTE.flow(
                Priority.FALLBACK, match(**mine), *outward(outside, load(NEXT_HOP, int(IPv4Address(outside.gateway)))),
                goto(NAT_OUT), why=f"to anywhere else, by {outside.gateway}",
            )  # fmt: skip


def outward(outside: ExternalView, next_hop: Action) -> tuple[Action, ...]:
    """From the host's external address to the next hop."""
    onward = (load(SEGMENT, outside.segment), load(ISOLATED, 0), load("eth_src", outside.mac))
    return dec_ttl(), *onward, next_hop


def subnets(network: NetworkView) -> list[IPv4Network]:
    """Those whose guests reach the outside."""
    if network.gateway is None or not network.gateway.nat:
        return []
    found = [ip_interface(address).network for address in network.gateway.addresses]
    return [subnet for subnet in found if isinstance(subnet, IPv4Network)]


def masked(subnet: IPv4Network) -> tuple[str, str]:
    """The subnet's addresses, as a match takes them."""
    return str(subnet.network_address), str(subnet.netmask)
