"""Floating addresses: an address outside that is one guest's, answered at the host where the guest is.

One to one needs no memory: addresses are rewritten on their way in and out, and no connection is tracked, so none is
lost when the guest comes to another host. Fragments of IPv4 alone go through the tracker, in zones of their own. The
address has a MAC of its own, which goes with it: machines outside keep what they know of it. Only the physical switch
learns anew, by the first packet that the guest sends outside from there, or by the RARP with which QEMU announces the
guest.

What the guest began before, or was forwarded to it, is known to the tracker and stays as it is. What a guest of the
same host sends is led in before it would leave. Inside, the packets come from the floating MAC, not from the gateway's:
the place that a migrating guest is copied to takes them from a tunnel as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Literal

from apps.external import answers_arp, answers_nd, not_a_guests
from apps.forwards import HAIRPIN, HAIRPIN_STATE
from apps.mtu import SIZE
from apps.nat import FROM_OUTSIDE, KNOWN, NAT_IN_STATE, NAT_OUT_STATE, ZONE
from controller.openflow.actions import Controller
from controller.openflow.conntrack import CtClear, Nat
from controller.openflow.match import Value
from controller.pipeline.actions import Target, Track, check_size, dec_ttl, goto, load, match, resubmit
from controller.pipeline.app import App
from controller.pipeline.fields import ISOLATED, SEGMENT, SOURCE, TOO_BIG, Source
from controller.pipeline.ip import packets
from controller.pipeline.ports import FLOATING_ERRORS
from controller.pipeline.tables import ERROR_IN, ERROR_OUT, GATEWAY, HOP, OVERSIZED, Action, Flow, Priority, Stage
from controller.pipeline.zones import FRAGMENTS_IN, FRAGMENTS_OUT
from controller.reader import Reader
from controller.views import ExternalView, FloatingView, NetworkView, PortView, Way

_UNKNOWN = 0, sum(KNOWN)  # the tracker knows no connection that the packet belongs to
_ARP, _REQUEST = 0x0806, 1
# Protocol, field, and the errors: unreachable, too big, time exceeded, parameter problem (RFC 792; RFC 4443, 3).
_ERRORS = {4: (1, "icmpv4_type", (3, 11, 12)), 6: (58, "icmpv6_type", (1, 2, 3, 4))}
# Open vSwitch 3.1's userspace datapath adjusts the UDP checksum of later fragments of IPv4, too, which have none. A
# packet between two guests of a host is translated twice: what the tracker found in a zone it does not look for again
# there. Those of IPv6 are translated as they are: it lets none through that is smaller than 1280 bytes.
_FRAGMENTS: dict[str, int] = {"src": FRAGMENTS_OUT, "dst": FRAGMENTS_IN}
_FRAGMENT: dict[str, Value] = {"ip_frag": (1, 1)}
_QUOTED = "an ICMP error: the controller translates also what it quotes"


class Floating(App):
    tables = (GATEWAY, FROM_OUTSIDE, HAIRPIN, HAIRPIN_STATE, SIZE, NAT_OUT_STATE, HOP, ERROR_IN, ERROR_OUT)

    def network(self, network: NetworkView, fabric: Reader) -> Iterator[Flow]:
        """Where the outside is a network with guests: none of them takes the address, which may be nobody's for now."""
        if network.uplink is None or network.implicit:
            return
        outsides = [h.external for h in fabric.hosts() if h.external is not None and h.external.network == network.name]
        for address, mac in fabric.floating_addresses():
            for segment in sorted({each.segment for each in outsides if each.holds(address)}):
                why = f"{address} is a floating address"
                yield from not_a_guests(segment, address, Priority.FORBIDDEN, why, mac)

    def local(self, port: PortView, fabric: Reader) -> Iterator[Flow]:
        network, host = fabric.network(port.network), fabric.host(port.host)
        if network is None or network.gateway is None or host is None or host.external is None or not port.memberships:
            return
        for floating in fabric.floating_to(port):
            way = host.external.way(floating.version)
            if way is not None and host.external.holds(floating.address):
                inward = _inward(floating, port)
                if not port.arriving:  # where the guest is to come, an answer would draw its packets away
                    yield from _answers(floating, host.external, way)
                yield from _from_outside(floating, host.external, inward)
                yield from _sizes(floating, host.external, network.gateway.mtu)
                yield from _from_here(floating, inward)
                yield from _out(floating, port)
                pools = fabric.nat_addresses(host.name).values() if way.version == 4 else ()
                yield from _to_own_host(floating, port, (way.address, *pools), network.gateway.mac)
                yield from _errors(floating, port)


def announced(port: PortView, fabric: Reader) -> tuple[Action, ...]:
    """A broadcast frame of the vNIC goes to the outside as well, once from the MAC of each of its floating addresses;
    and is then as it was, and not classified."""
    host = fabric.host(port.host)
    if host is None or (outside := host.external) is None:
        return ()
    out = (load(SEGMENT, outside.segment), load(SOURCE, Source.SWITCH), resubmit(Stage.FORWARD))
    macs = [each.mac for each in fabric.floating_to(port) if outside.holds(each.address)]
    copies = [action for mac in macs for action in (load("eth_src", mac), *out)]
    back = (load("eth_src", port.mac), load(SEGMENT, 0), load(SOURCE, 0))
    return (*copies, *back) if copies else ()


def _inward(floating: FloatingView, port: PortView) -> tuple[Action, ...]:
    """To the guest, in its own segment."""
    into = (load(SEGMENT, port.memberships[0].segment), load(ISOLATED, 0), load(SOURCE, Source.VNIC))
    return *into, load("eth_src", floating.mac), load("eth_dst", port.mac)


def _answers(floating: FloatingView, outside: ExternalView, way: Way) -> Iterator[Flow]:
    address = floating.address
    why = f"{address} is a guest's of this host, a floating address"
    if floating.version == 6:  # it is announced by advertisements, which nobody answers
        yield from answers_nd(outside, way, floating.mac, address, f"ND: {why}")
        return
    yield from answers_arp(outside, floating.mac, address, f"ARP: {why}")
    # An answer would tell the physical switch that the address is still here.
    told: dict[str, Value] = {"segment": outside.segment, "eth_type": _ARP, "arp_op": _REQUEST}
    yield GATEWAY.flow(
        Priority.EXCEPTION,
        match(**told, arp_tpa=address, arp_sha=floating.mac),
        why=f"{address} is announced where its guest is now",
    )


def _from_outside(floating: FloatingView, outside: ExternalView, inward: tuple[Action, ...]) -> Iterator[Flow]:
    address, there = floating.address, packets("dst", floating.address)
    own: dict[str, Value] = {"segment": outside.segment, "eth_dst": floating.mac}
    yield GATEWAY.flow(Priority.ANYWHERE, match(**own), why=f"{address} is reached by IPv{floating.version} alone")
    yield FROM_OUTSIDE.flow(
        Priority.HERE + 1, match(**there), dec_ttl(), *inward, _become(floating, "dst", floating.inside),
        goto(Stage.FORWARD), why=f"{address} becomes {floating.inside}, this vNIC's",
    )  # fmt: skip
    for error in _icmp_errors(floating):
        yield FROM_OUTSIDE.flow(Priority.HERE + 2, match(**error, **there), goto(ERROR_IN), why=_QUOTED)
    if floating.version == 4:
        yield FROM_OUTSIDE.flow(
            Priority.HERE + 3, match(**_FRAGMENT, **there), dec_ttl(), *inward,
            _whole(Stage.FORWARD, "dst", floating.inside), why=f"a fragment: {address} becomes {floating.inside}",
        )  # fmt: skip


def _sizes(floating: FloatingView, outside: ExternalView, mtu: int) -> Iterator[Flow]:
    """What comes in is compared with what the guest's network carries (see Mtu), before anything of it is changed."""
    address, there = floating.address, packets("dst", floating.address)
    yield GATEWAY.flow(
        Priority.ANYWHERE + 1, match(segment=outside.segment, eth_dst=floating.mac, **there),
        check_size(mtu, TOO_BIG), goto(FROM_OUTSIDE), why=f"for {address}, a floating address",
    )  # fmt: skip
    yield FROM_OUTSIDE.flow(
        Priority.HERE + 4, match(in_port=outside.uplink, too_big=1, **there), goto(OVERSIZED),
        why=f"the network of {floating.inside} carries {mtu} bytes",
    )  # fmt: skip
    yield SIZE.flow(
        Priority.HERE, match(source=Source.VNIC, **there), check_size(mtu, TOO_BIG), goto(OVERSIZED),
        why=f"{address} is on this host, where the network of {floating.inside} carries {mtu} bytes",
    )  # fmt: skip


def _from_here(floating: FloatingView, inward: tuple[Action, ...]) -> Iterator[Flow]:
    """On its way out already: as from outside, also for the guest itself."""
    there = packets("dst", floating.address)
    yield HOP.flow(
        Priority.HERE, match(**there), *inward, load("in_port", 0), _become(floating, "dst", floating.inside),
        goto(Stage.FORWARD), why=f"{floating.address} is on this host: it becomes {floating.inside}",
    )  # fmt: skip
    for error in _icmp_errors(floating):
        yield HOP.flow(Priority.HERE + 1, match(**error, **there), goto(ERROR_IN), why=_QUOTED)
    if floating.version == 4:
        yield HOP.flow(
            Priority.HERE + 2, match(**_FRAGMENT, **there), *inward, load("in_port", 0),
            _whole(Stage.FORWARD, "dst", floating.inside), why=f"a fragment: it becomes {floating.inside}",
        )  # fmt: skip
    yield HOP.flow(
        Priority.HERE + 3, match(**there, source=Source.VNIC, natted=0),
        why=f"{floating.address} is in a nat network, to which guests that are not translated begin nothing",
    )  # fmt: skip


def _out(floating: FloatingView, port: PortView) -> Iterator[Flow]:
    sent: dict[str, Value] = {"in_port": port.ofport, "ct_state": _UNKNOWN, **packets("src", floating.inside)}
    for error in _icmp_errors(floating):
        yield NAT_OUT_STATE.flow(Priority.HERE + 1, match(**sent, **error), goto(ERROR_OUT), why=_QUOTED)
    yield NAT_OUT_STATE.flow(
        Priority.HERE, match(**sent), load("eth_src", floating.mac), _become(floating, "src", floating.address),
        goto(HOP), why=f"{floating.inside} becomes {floating.address}, its floating address",
    )  # fmt: skip
    if floating.version == 4:
        yield NAT_OUT_STATE.flow(
            Priority.HERE + 2, match(**sent, **_FRAGMENT), load("eth_src", floating.mac),
            _whole(HOP, "src", floating.address), why=f"a fragment: {floating.inside} becomes {floating.address}",
        )  # fmt: skip


def _to_own_host(floating: FloatingView, port: PortView, addresses: tuple[str, ...], gateway: str) -> Iterator[Flow]:
    """Whoever spoke to it as an address of the host's is a guest of the host, or it speaks to a forward."""
    sent: dict[str, Value] = {"in_port": port.ofport, **packets("src", floating.inside)}
    for part, address in product(port.memberships, addresses):
        yield GATEWAY.flow(
            Priority.HERE + 1, match(segment=part.segment, eth_dst=gateway, **{**sent, **packets("dst", address)}),
            Track(HAIRPIN, ZONE, Nat()), why="for its own host's address outside: perhaps a guest of it is meant",
        )  # fmt: skip
    for error in _icmp_errors(floating):
        unknown = match(**sent, **error, ct_state=_UNKNOWN)
        yield HAIRPIN.flow(Priority.FALLBACK + 2, unknown, goto(ERROR_OUT), why=_QUOTED)
    why = f"{floating.inside} becomes {floating.address}, its floating address"
    yield HAIRPIN.flow(
        Priority.FALLBACK + 1, match(**sent), _become(floating, "src", floating.address), goto(HAIRPIN_STATE), why=why
    )
    if floating.version == 4:
        yield HAIRPIN.flow(
            Priority.FALLBACK + 3, match(**sent, **_FRAGMENT), _whole(HAIRPIN_STATE, "src", floating.address), why=why
        )
    # Linux before 5.19 would take what it found of the packet as it was for what it is now, without ct_clear.
    yield HAIRPIN_STATE.flow(
        Priority.HERE + 1, match(in_port=port.ofport, **packets("src", floating.address)),
        CtClear(), load("in_port", 0), load(ISOLATED, 0), Track(NAT_IN_STATE, ZONE, Nat()),
        why="as from outside: is it an answer, or forwarded?",
    )  # fmt: skip


def _errors(floating: FloatingView, port: PortView) -> Iterator[Flow]:
    told = Controller(meter_id=port.ofport)
    into, others = match(**packets("dst", floating.address)), Controller(meter_id=FLOATING_ERRORS)
    yield ERROR_IN.flow(Priority.ANYWHERE, into, others, why=f"for {floating.address}: about {floating.inside}")
    out = match(in_port=port.ofport, **packets("src", floating.inside))
    yield ERROR_OUT.flow(Priority.ANYWHERE, out, told, why=f"of {floating.inside}: about {floating.address}")


def _whole(target: Target, end: Literal["src", "dst"], address: str) -> Track:
    """Through the tracker, which puts a datagram together, and translates it by itself."""
    return Track(target, _FRAGMENTS[end], Nat(end, address), commit=True)


def _become(floating: FloatingView, end: Literal["src", "dst"], address: str) -> Action:
    return load(f"ipv{floating.version}_{end}", address)


def _icmp_errors(floating: FloatingView) -> Iterator[dict[str, Value]]:
    protocol, field, kinds = _ERRORS[floating.version]
    for kind in kinds:
        yield {"ip_proto": protocol, field: kind}
