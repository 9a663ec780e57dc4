"""Overlay: networks that span the fleet through tunnels.

Tunnel ports are flow-based and have the same OpenFlow numbers on every host, so what reaches a remote vNIC is the same
flow on every host. A packet from a tunnel never goes into a tunnel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from apps.l2 import AGEING_SECONDS, LEARN, MAX_LEARNED
from controller.pipeline.actions import (
    LearnInto,
    goto,
    learned_load,
    learned_match,
    load,
    match,
    move,
    output,
    resubmit,
)
from controller.pipeline.app import App
from controller.pipeline.cookies import learned_cookie
from controller.pipeline.fields import OUT, PEER, SEGMENT, SOURCE, TUNNEL_KEY_BITS, Source
from controller.pipeline.ports import TUNNEL_PORTS, TUNNELS
from controller.pipeline.tables import CLASSIFY, DELIVER, DROP, FORWARD, LEARNED, Action, Flow, Priority, Stage, Table
from controller.reader import Reader
from controller.views import HostView, NetworkView, PortView

TUNNEL_PEER = Table("tunnel_peer", Stage.CLASSIFY, DROP, "lets in what comes from a host of this fleet")
TUNNEL_SEGMENT = Table("tunnel_segment", Stage.CLASSIFY, DROP, "lets in keys of overlay networks that the host carries")
OVERLAY_FLOOD = Table("overlay_flood", Stage.FLOOD, DROP, "a copy to each other host of the segment")
_UNICAST = ("00:00:00:00:00:00", "01:00:00:00:00:00")
TUNNEL = Table("tunnel", Stage.DELIVER, DROP, "the peer's address and encapsulation")


class Overlay(App):
    tables = (TUNNEL_PEER, TUNNEL_SEGMENT, OVERLAY_FLOOD, TUNNEL)

    def fleet(self, fabric: Reader) -> Iterator[Flow]:
        for kind, ofport in TUNNEL_PORTS.items():
            yield CLASSIFY.flow(
                Priority.ANYWHERE,
                match(in_port=ofport),
                move("tunnel_id", SEGMENT, TUNNEL_KEY_BITS),
                load(SOURCE, Source.TUNNEL),
                goto(TUNNEL_PEER),
                why=f"from another host by {kind}; the key tells the segment, and whether the sender is isolated",
            )

    def peer(self, host: HostView, fabric: Reader) -> Iterator[Flow]:
        """Not on the host itself: no copy of a flood goes there, and nobody comes in with its own address."""
        if host.tunnel_ip is None:
            return
        yield TUNNEL_PEER.flow(
            Priority.ANYWHERE,
            match(**_outer(host.tunnel_ip, "src")),
            load(PEER, host.number),
            goto(TUNNEL_SEGMENT),
            why=f"from host {host.name}",
        )
        yield TUNNEL.flow(
            Priority.ANYWHERE,
            match(peer=host.number),
            *_encapsulate(host.tunnel_ip, fabric.tunnels_are_mixed()),
            output(TUNNEL_PORTS[host.tunnel]),
            why=f"to host {host.name} by {host.tunnel}",
        )

    def port(self, port: PortView, fabric: Reader) -> Iterator[Flow]:
        network, host = fabric.network(port.network), fabric.host(port.host)
        if network is None or host is None or not network.overlay:
            return
        copy: tuple[Action, ...] = ()
        why = f"this vNIC is on host {host.name}"
        if port.other is not None and (other := fabric.host(port.other)) is not None:
            copy = (load(PEER, other.number), resubmit(TUNNEL))
            why += f", and is being copied to {other.name}"
        for part in port.memberships:
            yield FORWARD.flow(
                Priority.ANYWHERE,
                match(source=Source.VNIC, segment=part.segment, eth_dst=port.mac),
                *copy,
                load(PEER, host.number),
                goto(TUNNEL),
                why=why,
            )
            if network.learning:
                yield LEARN.flow(
                    Priority.HERE,
                    match(source=Source.TUNNEL, segment=part.segment, eth_src=port.mac),
                    goto(FORWARD),
                    why="a vNIC, which is known",
                )

    def network(self, network: NetworkView, fabric: Reader) -> Iterator[Flow]:
        if not network.overlay:
            return
        for vlan, segment in network.segments:
            yield TUNNEL_SEGMENT.flow(
                Priority.ANYWHERE,
                match(segment=segment),
                goto(Stage.EGRESS_POLICY),
                why=f"{f'VLAN {vlan} of an' if vlan else 'an'} overlay network",
            )
            if network.learning:
                yield from _learning(segment)
            where = f"{f'VLAN {vlan}' if vlan else 'this network'}"
            if copies := _copies(fabric.hosts_of_segment(segment), fabric):
                yield OVERLAY_FLOOD.flow(
                    Priority.ANYWHERE,
                    match(source=Source.VNIC, segment=segment),
                    *copies,
                    why=f"flooded to every host with a vNIC in {where}",
                )
                yield OVERLAY_FLOOD.flow(
                    Priority.HERE,
                    match(source=Source.VNIC, segment=segment, eth_dst=_UNICAST),
                    *_copies(fabric.open_hosts_of_segment(segment), fabric),
                    why=f"nobody knows where it is: hosts with a vNIC in {where} behind which there may be others",
                )


def _learning(segment: int) -> Iterator[Flow]:
    """Who is behind a learning vNIC of another host: it is reached there, and not where it was before."""
    yield LEARN.flow(
        Priority.ANYWHERE,
        match(source=Source.TUNNEL, segment=segment, eth_src=_UNICAST),
        LearnInto(
            LEARNED,
            Priority.ANYWHERE,
            AGEING_SECONDS,
            learned_cookie(segment),
            (
                learned_match(SEGMENT),
                learned_match("eth_dst", "eth_src"),
                learned_load(PEER, PEER),
                learned_load(OUT, TUNNELS),
            ),
            limit=MAX_LEARNED,
        ),
        goto(FORWARD),
        why="its sender is behind a vNIC of another host",
    )
    yield DELIVER.flow(
        Priority.ANYWHERE,
        match(source=Source.VNIC, out=TUNNELS, segment=segment),
        goto(TUNNEL),
        why="to the host behind whose vNIC it is",
    )


def _copies(hosts: Iterable[str], fabric: Reader) -> tuple[Action, ...]:
    """One for each of these hosts that a tunnel reaches."""
    found = [host for name in hosts if (host := fabric.host(name)) is not None and host.tunnel_ip is not None]
    return tuple(action for host in found for action in (load(PEER, host.number), resubmit(TUNNEL)))


def _outer(address: str, end: str) -> dict[str, str]:
    return {f"tun_ipv6_{end}" if ":" in address else f"tun_ipv4_{end}": address}


def _encapsulate(address: str, mixed: bool) -> tuple[Action, ...]:
    """``mixed``: some hosts have IPv4 tunnel addresses and some IPv6, and the copy before this one may have left an
    address of the other family behind, which Open vSwitch would use."""
    [(field, value)] = _outer(address, "dst").items()
    clear = (load("tun_ipv4_dst", 0) if ":" in address else load("tun_ipv6_dst", 0),) if mixed else ()
    return *clear, load(field, value), move(SEGMENT, "tunnel_id", TUNNEL_KEY_BITS)
