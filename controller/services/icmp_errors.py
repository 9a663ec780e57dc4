"""ICMP errors for what cannot be routed, or is too large: who sent it is told why."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_interface

from controller.errors import OpenFlowError, PacketError
from controller.openflow.actions import Action, Resubmit, encode_actions
from controller.openflow.decode import PacketIn
from controller.openflow.messages import packet_out
from controller.pipeline.actions import load
from controller.pipeline.fields import OUT, RESOLVED, SEGMENT, SOURCE, Source
from controller.reader import Reader
from controller.services.announcements import answered
from controller.services.icmp_message import Quoted, Why, decode, encode
from controller.services.prefixes import Prefixes
from controller.views import ExternalView, GatewayView

log = logging.getLogger(__name__)

_TRACKED = 0x20  # of ct_state (ovs-fields(7)): the packet went through the tracker

Send = Callable[[str, bytes], bool]


@dataclass(frozen=True, slots=True)
class Ways:
    """Numbers of tables by which an error leaves: ``deliver`` hands a packet to a vNIC; ``hop`` leads to the wire;
    ``translate`` does so too, for what the tracker knows, whose addresses it puts back inside the error as well."""

    deliver: int
    hop: int
    translate: int


class Networks:
    """The networks, by the addresses of their guests: those that are routed come before isolated ones, whose addresses
    need not be theirs alone."""

    def __init__(self, fabric: Reader) -> None:
        gateways = [each.gateway for each in fabric.networks() if each.gateway is not None]
        self._routed = Prefixes(each for each in gateways if each.sends)
        self._isolated = Prefixes(each for each in gateways if not each.sends)

    def reason(self, about: Quoted) -> Why | None:
        """Why it cannot be routed (RFC 1812, 5.2.7 and 5.3.1); None where silence is right."""
        if about.ttl <= 1:
            return Why.TIME_IS_OVER
        found = self._routed.of(about.destination) or self._isolated.of(about.destination)
        if found is None:
            return Why.NO_NETWORK
        subnet, gateway = found
        ends = {subnet.network_address, subnet.broadcast_address}
        if subnet.version == 4 and subnet.num_addresses > 2 and about.destination in ends:
            return None
        return Why.NO_HOST if gateway.takes else Why.PROHIBITED

    def room(self, about: Quoted, outside: ExternalView | None) -> int | None:
        """Bytes that a packet for there may have; None where nobody knows."""
        if (found := self._routed.of(about.destination)) is not None:
            return found[1].mtu
        return outside.mtu if outside is not None else None


def gateway_address(about: Quoted, gateway: GatewayView) -> str:
    """The gateway's address in the sender's subnet, or another of its own. Raises PacketError where it has none."""
    own = [each for each in map(ip_interface, gateway.addresses) if each.version == about.source.version]
    by = next((each for each in own if about.source in each.network), own[0] if own else None)
    if by is None:
        raise PacketError(f"no gateway that could tell {about.source}")
    return str(by.ip)


class IcmpErrors:
    """Everything on the loop. ``fabric`` reads the fleet as it is now, ``send`` gives a message to a host's switch."""

    def __init__(self, fabric: Callable[[], Reader], ways: Ways, send: Send) -> None:
        self._fabric = fabric
        self._ways = ways
        self._send = send
        self._known: Networks | None = None

    def changed(self) -> None:
        """Networks or hosts are other ones from now on."""
        self._known = None

    def unrouted(self, host: str, packet_in: PacketIn) -> None:
        """A packet of a vNIC that its host cannot route. The answer goes to that vNIC and to nobody else."""
        fabric = self._fabric()
        try:
            about = decode(packet_in.data)
            if (why := self._networks(fabric).reason(about)) is not None:
                self._tell_vnic(fabric, host, packet_in, about, why)
        except (OpenFlowError, PacketError) as error:
            log.debug("%s: ICMP error: %s", host, error)

    def too_big(self, host: str, packet_in: PacketIn) -> None:
        """A packet of a vNIC, or from outside, that is larger than what fits where it goes."""
        fabric = self._fabric()
        view = fabric.host(host)
        outside = view.external if view is not None else None
        try:
            about = decode(packet_in.data)
            mtu = _behind(fabric, host, about) or self._networks(fabric).room(about, outside)
            if mtu is None or about.size <= mtu:
                return  # it has become another since
            if outside is not None and packet_in.in_port == outside.uplink:
                self._tell_outside(host, packet_in, about, outside, mtu)
            else:
                self._tell_vnic(fabric, host, packet_in, about, Why.TOO_BIG, mtu)
        except (OpenFlowError, PacketError) as error:
            log.debug("%s: ICMP error: %s", host, error)

    def _networks(self, fabric: Reader) -> Networks:
        if self._known is None:
            self._known = Networks(fabric)
        return self._known

    def _tell_vnic(self, fabric: Reader, host: str, packet_in: PacketIn, about: Quoted, why: Why, mtu: int = 0) -> None:
        """Raises OpenFlowError, PacketError."""
        fields = packet_in.fields()
        ofport, segment = fields.get("in_port", 0), (fields.get("reg0", 0) & SEGMENT.mask) >> SEGMENT.start
        port = next((each for each in fabric.members(segment, host) if each.ofport == ofport), None)
        network = fabric.network(port.network) if port is not None else None
        if network is None or network.gateway is None:
            raise PacketError(f"no vNIC of segment {segment} is known at OpenFlow port {ofport}")
        gateway = network.gateway
        frame = encode(about, gateway.mac, gateway_address(about, gateway), why, mtu)
        way: list[Action] = [load(SEGMENT, segment), load(SOURCE, Source.SWITCH), load(OUT, ofport)]
        self._send(host, packet_out(frame, encode_actions([*way, Resubmit(self._ways.deliver)])))

    def _tell_outside(self, host: str, packet_in: PacketIn, about: Quoted, outside: ExternalView, mtu: int) -> None:
        """To the machine that handed the packet to the host. Raises OpenFlowError, PacketError."""
        own = next((way.address for way in outside.ways if way.version == about.source.version), None)
        if own is None:
            raise PacketError(f"no address by which {about.source} could be told")
        frame = encode(about, outside.mac, own, Why.TOO_BIG, mtu)
        tracked = packet_in.fields().get("ct_state", 0) & _TRACKED
        way: list[Action] = [load(SEGMENT, outside.segment), load(SOURCE, Source.VNIC), load(RESOLVED, 1)]
        table = self._ways.translate if tracked else self._ways.hop
        self._send(host, packet_out(frame, encode_actions([*way, Resubmit(table)])))


def _behind(fabric: Reader, host: str, about: Quoted) -> int | None:
    """Bytes that a packet for a floating address may have at the host that has it; None where it has none such."""
    address = str(about.destination)
    for place in answered(fabric, lambda each: each.address == address):
        network = fabric.network(place.port.network) if place.host.name == host else None
        if network is not None and network.gateway is not None:
            return network.gateway.mtu
    return None
