"""Ownership: what belongs to one vNIC of a segment, or is reserved, is refused from every other vNIC of it.

An address belongs to the vNIC that it is registered to, whether that runs or not, or that has learned it.

The spoof guard compares a vNIC with what is known of it. Of one without registered addresses nothing is known; here it
is kept from what is known of the others. Where every vNIC of a segment is compared there are no such flows.

To ask from the unspecified IPv6 address is a claim: an owner that is just checking the address itself would have to
give it up (RFC 4862, 5.4.3). An ARP probe is none (RFC 5227); the switch answers it. What comes by an uplink or a
tunnel was judged where it was sent, or is no vNIC of ours.

Behind a learning vNIC there are others with MACs of their own: any but those of vNICs that are known or registered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Address

from apps.spoof_guard import SPOOF_GUARD, with_link_local
from controller.model.guard import Check
from controller.openflow.match import Value
from controller.pipeline.actions import goto, match
from controller.pipeline.app import App
from controller.pipeline.fields import Source
from controller.pipeline.tables import NEXT, Flow, Priority, Stage, Table
from controller.reader import Reader
from controller.views import GatewayView, NetworkView, PortView, RegistrationView

MAC_OWNER = Table("mac_owner", Stage.SPOOF_GUARD, Stage.EGRESS_POLICY, "who is behind a learning vNIC is no known vNIC")
NEIGHBOUR_OWNER = Table("neighbour_owner", Stage.SPOOF_GUARD, NEXT, "ARP and ND for a registered address: its owner's")
ADDRESS_OWNER = Table("address_owner", Stage.SPOOF_GUARD, Stage.EGRESS_POLICY, "a registered source: its owner's")

_ARP, _IPV4, _IPV6, _ICMPV6 = 0x0806, 0x0800, 0x86DD, 58
_SOLICITATION, _ADVERTISEMENT = 135, 136
_GROUP = ("01:00:00:00:00:00", "01:00:00:00:00:00")  # IEEE 802-2014, 8.2.1

_LEARNED = Priority.ANYWHERE - 1  # what is registered comes first

_Terms = dict[str, Value]


class Ownership(App):
    tables = (NEIGHBOUR_OWNER, ADDRESS_OWNER, MAC_OWNER)

    def registration(self, registration: RegistrationView, fabric: Reader) -> Iterator[Flow]:
        network = fabric.network(registration.network)
        if network is not None and not network.alone:
            for segment in registration.segments:
                yield from _owned(segment, registration.addresses, registration.mac, fabric)
        if network is not None and network.learning:
            yield from _known(registration.segments, registration.mac)

    def network(self, network: NetworkView, fabric: Reader) -> Iterator[Flow]:
        for _, segment in network.segments:
            if network.gateway is not None:
                yield from _gateways(segment, network.gateway)
            for address in network.reserved:
                why = f"{address} is reserved in this network"
                for table, _, terms in claims(address):
                    yield table.flow(Priority.FALLBACK, match(segment=segment, source=Source.VNIC, **terms), why=why)

    def port(self, port: PortView, fabric: Reader) -> Iterator[Flow]:
        network = fabric.network(port.network)
        if network is not None and network.learning:
            yield from _known((part.segment for part in port.memberships), port.mac)
        if network is not None and not network.alone and not port.arriving:
            registered = fabric.registered(port)  # those are said whether it runs or not
            leased = tuple(a for a in port.addresses if a not in port.learned and a not in registered)
            for part in port.memberships:
                yield from _owned(part.segment, leased, port.mac, fabric)
                yield from _owned(part.segment, port.learned, port.mac, fabric, _LEARNED)

    def local(self, port: PortView, fabric: Reader) -> Iterator[Flow]:
        if not port.memberships:
            return  # passthrough: its frames never come here
        if port.mac_limit:
            yield from _trusted(port)
        elif not port.checks:
            why = "may speak for anybody: its filters are off"
            yield NEIGHBOUR_OWNER.flow(
                Priority.EXCEPTION, match(in_port=port.ofport), goto(Stage.EGRESS_POLICY), why=why
            )
        else:
            # Its registration is asked besides its row: who is registered while it runs goes on without a gap.
            addresses = (*port.addresses, *fabric.registered(port))
            yield from _own(port, tuple(dict.fromkeys(addresses)))
        network = fabric.network(port.network)
        if network is not None and network.alone:
            for part in port.memberships:
                others = tuple(a for a in port.addresses if a not in port.learned)
                yield from _owned(part.segment, others, port.mac, fabric)
                yield from _owned(part.segment, port.learned, port.mac, fabric, _LEARNED)


def _gateways(segment: int, gateway: GatewayView) -> Iterator[Flow]:
    """Nobody is the gateway, not even who may speak for anybody: by its MAC hosts know what was routed."""
    vnic: _Terms = {"source": Source.VNIC, "segment": segment}
    yield SPOOF_GUARD.flow(
        Priority.FORBIDDEN, match(**vnic, eth_src=gateway.mac), why=f"{gateway.mac} is the gateway's"
    )
    for address in (*gateway.ipv4, *map(str, map(IPv6Address, gateway.ipv6))):
        for _, _, terms in claims(address):
            yield NEIGHBOUR_OWNER.flow(Priority.FORBIDDEN, match(**vnic, **terms), why=f"{address} is the gateway's")


def _trusted(port: PortView) -> Iterator[Flow]:
    """Others speak through a learning vNIC, and they may be anybody but a vNIC that is known."""
    why = "may speak for anybody who is no known vNIC: it is learning"
    yield NEIGHBOUR_OWNER.flow(Priority.EXCEPTION, match(in_port=port.ofport), goto(MAC_OWNER), why=why)
    own = match(in_port=port.ofport, eth_src=port.mac)
    yield MAC_OWNER.flow(Priority.HERE, own, goto(Stage.EGRESS_POLICY), why="sent from its own MAC")
    group = match(in_port=port.ofport, eth_src=_GROUP)
    yield MAC_OWNER.flow(Priority.HERE, group, why="a group address is nobody's")


def _known(segments: Iterable[int], mac: str) -> Iterator[Flow]:
    """Nobody behind a learning vNIC takes the place of this one."""
    for segment in segments:
        yield MAC_OWNER.flow(Priority.ANYWHERE, match(segment=segment, eth_src=mac), why=f"{mac} is a known vNIC's")


def _own(port: PortView, addresses: tuple[str, ...]) -> Iterator[Flow]:
    """What the vNIC may claim where the spoof guard has not compared it already."""
    for address in _claimed(addresses, port.mac):
        for table, check, terms in claims(address):
            if check not in port.checks and (check != "ipv6" or "no_ipv6" not in port.checks):
                allowed = match(in_port=port.ofport, **terms)
                then = NEXT if table is NEIGHBOUR_OWNER else Stage.EGRESS_POLICY
                yield table.flow(Priority.HERE, allowed, goto(then), why=f"{address} is registered to it")


def _owned(
    segment: int, addresses: tuple[str, ...], mac: str, fabric: Reader, priority: int = Priority.ANYWHERE
) -> Iterator[Flow]:
    """Nobody in the segment claims these but who has them; only what somebody there could claim is said."""
    unheld = fabric.unheld(segment)
    for address in _claimed(addresses, mac):
        why = f"{address} is {'learned by' if priority == _LEARNED else 'that of'} another vNIC, {mac}"
        for table, check, terms in claims(address):
            if check in unheld:
                yield table.flow(priority, match(segment=segment, **terms), why=why)


def claims(address: str) -> tuple[tuple[Table, Check, _Terms], ...]:
    """The ways to say that one has the address, or one of an IPv4 subnet, and the check of the spoof guard that
    compares each."""
    if "." in address:
        subnet = IPv4Network(address)
        own: Value = address if subnet.prefixlen == 32 else (str(subnet.network_address), str(subnet.netmask))
        return (
            (NEIGHBOUR_OWNER, "arp_ip", {"eth_type": _ARP, "arp_spa": own}),
            (ADDRESS_OWNER, "ipv4", {"eth_type": _IPV4, "ipv4_src": own}),
        )
    told: _Terms = {"eth_type": _IPV6, "ip_proto": _ICMPV6, "ipv6_nd_target": address}
    return (
        (NEIGHBOUR_OWNER, "ipv6", {**told, "icmpv6_type": _ADVERTISEMENT}),
        (NEIGHBOUR_OWNER, "ipv6", {**told, "icmpv6_type": _SOLICITATION, "ipv6_src": "::"}),
        (ADDRESS_OWNER, "ipv6", {"eth_type": _IPV6, "ipv6_src": address}),
    )


def _claimed(addresses: tuple[str, ...], mac: str) -> tuple[str, ...]:
    """With the link-local address that goes with registered IPv6 ones."""
    ipv4 = tuple(address for address in addresses if "." in address)
    ipv6 = tuple(address for address in addresses if ":" in address)
    return (*ipv4, *(with_link_local(ipv6, mac) if ipv6 else ()))
