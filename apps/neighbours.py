"""Neighbours: ARP and ND are answered in the switch for every vNIC whose addresses are known.

Only what would be flooded is answered: a broadcast ARP request (RFC 826), a multicast neighbour solicitation
(RFC 4861, 7.2.2). A unicast probe goes to the guest itself, which alone knows whether it is alive. A guest's question
about its own address (RFC 5227 probe, RFC 4862 duplicate detection) is not answered but goes to all.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address

from controller.pipeline.actions import goto, load, match, move
from controller.pipeline.app import App
from controller.pipeline.fields import OUT, SOURCE, Source
from controller.pipeline.tables import Action, Flow, Priority, Stage, Table
from controller.reader import Reader
from controller.views import PortView

ANSWER_ND = Table(
    "answer_nd", Stage.SERVICES, Stage.TRANSLATE_IN, "turns a solicitation that is marked into its advertisement"
)
NEIGHBOURS = Table("neighbours", Stage.SERVICES, ANSWER_ND, "answers ARP and ND for vNICs whose addresses are known")

_ARP, _IPV6, _ICMPV6 = 0x0806, 0x86DD, 58
_REQUEST, _REPLY = 1, 2
_SOLICITATION, _ADVERTISEMENT = 135, 136
_TARGET_LINK_LAYER = 2
SOLICITED_OVERRIDE = 0x60000000  # RFC 4861, 4.4: flags S and O
_BROADCAST = "ff:ff:ff:ff:ff:ff"
_SOLICITED_NODES = ("33:33:ff:00:00:00", "ff:ff:ff:00:00:00")  # RFC 2464, 7

# Open vSwitch sends nothing back to the port that a packet came from, unless in_port no longer names it.
BACK: tuple[Action, ...] = (move("in_port", OUT), load("in_port", 0), load(SOURCE, Source.SWITCH))


class Neighbours(App):
    tables = (NEIGHBOURS, ANSWER_ND)

    def fleet(self, fabric: Reader) -> Iterator[Flow]:
        # The link-layer option of an advertisement may only be set where the flow matches one, hence a second table.
        yield ANSWER_ND.flow(
            Priority.ANYWHERE,
            match(eth_type=_IPV6, ip_proto=_ICMPV6, icmpv6_type=_ADVERTISEMENT, source=Source.SWITCH),
            move("eth_src", "ipv6_nd_tll"),
            goto(Stage.DELIVER),
            why="the advertisement's link-layer address",
        )

    def port(self, port: PortView, fabric: Reader) -> Iterator[Flow]:
        if _known_elsewhere(port, fabric):
            yield from self._answers(port)

    def _answers(self, port: PortView) -> Iterator[Flow]:
        """What others are told of the vNIC."""
        if port.isolation != "none":
            return
        for part in port.memberships:
            for address in port.ipv4:
                yield NEIGHBOURS.flow(
                    Priority.ANYWHERE,
                    match(**_asks(part.segment), **_arp_request(address)),
                    *arp_reply(port.mac, address),
                    *BACK,
                    goto(Stage.DELIVER),
                    why=f"ARP: {address} is this vNIC's",
                )
            for address in port.ipv6:
                yield NEIGHBOURS.flow(
                    Priority.ANYWHERE,
                    match(**_asks(part.segment), **_solicitation(address)),
                    *advertisement(port.mac, address),
                    *BACK,
                    goto(ANSWER_ND),
                    why=f"ND: {address} is this vNIC's",
                )
        # RFC 4862, 5.4.3: who asks from the unspecified address is about to take it; its owner answers that itself.
        for address in port.ipv6:
            for part in port.memberships:
                yield NEIGHBOURS.flow(
                    Priority.HERE,
                    match(segment=part.segment, ipv6_src="::", **_solicitation(address)),
                    goto(Stage.TRANSLATE_IN),
                    why=f"ND: somebody is about to take {address}; its owner shall object",
                )

    def local(self, port: PortView, fabric: Reader) -> Iterator[Flow]:
        if not _known_elsewhere(port, fabric) and not port.arriving:
            yield from self._answers(port)
        if port.isolation == "vepa":
            return  # its questions all leave by the uplink (see Isolation)
        for address in port.addresses:
            question = _solicitation(address) if ":" in address else _arp_request(address)
            yield NEIGHBOURS.flow(
                Priority.EXCEPTION,
                match(in_port=port.ofport, **question),
                goto(Stage.TRANSLATE_IN),
                why=f"asks whether anybody else has its own {address}",
            )


def _known_elsewhere(port: PortView, fabric: Reader) -> bool:
    """Whether its network leads to other hosts, whose vNICs may be told of it."""
    network = fabric.network(port.network)
    return network is not None and not network.alone


def _asks(segment: int) -> dict[str, int]:
    """A vNIC that may meet everybody in the segment."""
    return {"source": Source.VNIC, "isolated": 0, "private": 0, "segment": segment}


def _arp_request(address: str) -> dict[str, int | str]:
    return {"eth_dst": _BROADCAST, "eth_type": _ARP, "arp_op": _REQUEST, "arp_tpa": address}


def arp_reply(mac: str, address: str) -> tuple[Action, ...]:
    """Turns a request into its answer."""
    return (
        move("eth_src", "eth_dst"),
        load("eth_src", mac),
        load("arp_op", _REPLY),
        move("arp_sha", "arp_tha"),
        move("arp_spa", "arp_tpa"),
        load("arp_sha", mac),
        load("arp_spa", address),
    )


def _solicitation(address: str) -> dict[str, int | str | tuple[str, str]]:
    return {
        "eth_dst": _SOLICITED_NODES,
        "eth_type": _IPV6,
        "ip_proto": _ICMPV6,
        "icmpv6_type": _SOLICITATION,
        "ipv6_nd_target": str(IPv6Address(address)),
    }


def advertisement(mac: str, address: str, flags: int = SOLICITED_OVERRIDE) -> tuple[Action, ...]:
    """Turns a solicitation into the beginning of its answer; ``flags`` are RFC 4861, 4.4's."""
    return (
        move("eth_src", "eth_dst"),
        load("eth_src", mac),
        move("ipv6_src", "ipv6_dst"),
        load("ipv6_src", address),
        load("nd_options_type", _TARGET_LINK_LAYER),
        load("nd_reserved", flags),
        load("icmpv6_type", _ADVERTISEMENT),
    )
