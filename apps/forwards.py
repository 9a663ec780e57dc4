"""Port forwards: ports of hosts' external addresses that lead to a guest, on whichever host it is.

The host that is addressed translates the destination and leaves the client's address as it is. A guest elsewhere gets
the packet by a tunnel, from its gateway's MAC; its host remembers in the connection's mark from which host it came, and
sends the answers back there, where they are translated and leave by the uplink.

A guest that speaks to its own host's external address is first given that address itself, in a zone of its own: what it
says is then forwarded like anything from outside, and the answers find the way back.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

from apps.nat import FROM_OUTSIDE, KNOWN, NAT_IN, NAT_IN_STATE, ZONE, CtState, begins, tracked
from apps.overlay import TUNNEL
from apps.routing import INWARD, ROUTE, outward, to_itself, to_router
from controller.openflow.conntrack import Nat
from controller.openflow.match import Value
from controller.pipeline import zones
from controller.pipeline.actions import Track, goto, load, match, move
from controller.pipeline.app import App
from controller.pipeline.fields import NATTED, PEER, SOURCE, Source
from controller.pipeline.ip import ETHERTYPES, PROTOCOLS, ethertype, packets
from controller.pipeline.ports import FORWARDED, connections_meter
from controller.pipeline.tables import DROP, GATEWAY, NAT_OUT, Flow, Priority, Stage, Table
from controller.reader import Reader
from controller.views import ExternalView, ForwardView, HostView, NetworkView, PortView, Way

FORWARD_BACK = Table(
    "forward_back", Stage.TRANSLATE_IN, DROP, "what guests answer to forwarded connections: back by the same host"
)

HAIRPIN = Table("hairpin", Stage.TRANSLATE_IN, DROP, "what guests send to their own host's external address")
HAIRPIN_NEW = Table("hairpin_new", Stage.TRANSLATE_IN, DROP, "gives a guest that begins its host's address")
HAIRPIN_STATE = Table("hairpin_state", Stage.TRANSLATE_IN, DROP, "on to the forward, or back to the guest that began")

_ALL_PORTS = 0xFFFF
_NO_FIRST = 0, 0x02  # TCP flags (RFC 9293, 3.1): without SYN
_BY_MARK = move("ct_mark", PEER, PEER.width), goto(TUNNEL)
_TO_ITS_GUEST = (Track(HAIRPIN_STATE, zones.HAIRPIN, Nat()),)


class Forwards(App):
    tables = (NAT_IN, FROM_OUTSIDE, FORWARD_BACK, HAIRPIN, HAIRPIN_NEW, HAIRPIN_STATE, NAT_IN_STATE)

    def fleet(self, fabric: Reader) -> Iterator[Flow]:
        if not fabric.forwards_ports():
            return
        for state in KNOWN:
            yield from _back(state)
            for kind in ETHERTYPES:
                yield from _turned(state, kind)
            yield _turned_back(state)
            yield HAIRPIN_NEW.flow(
                Priority.HERE + state, match(ct_state=tracked(state)), goto(HAIRPIN_STATE),
                why="belongs to a connection that is known",
            )  # fmt: skip
        # The userspace tracker translates what follows before anybody has answered, and calls it new all the same.
        yield NAT_IN_STATE.flow(
            Priority.ANYWHERE + CtState.NEW, match(ct_state=tracked(CtState.NEW | CtState.TO_ANOTHER)),
            load(SOURCE, Source.OUTSIDE), goto(Stage.ROUTE),
            why="belongs to a forwarded connection that nobody has answered yet",
        )  # fmt: skip
        yield FORWARD_BACK.flow(
            Priority.FALLBACK, match(source=Source.VNIC), goto(Stage.ROUTE), why="the guest's own connection"
        )
        for kind in ETHERTYPES:
            yield HAIRPIN_STATE.flow(
                Priority.FALLBACK, match(eth_type=kind), load("in_port", 0), Track(NAT_IN_STATE, ZONE, Nat()),
                why="as from outside: is it forwarded?",
            )  # fmt: skip

    def forward(self, forward: ForwardView, fabric: Reader) -> Iterator[Flow]:
        for outside, inside in _translations(forward):
            address = f"[{forward.address}]" if forward.version == 6 else forward.address
            target = f"{address}:{inside}" if inside else forward.address
            called: dict[str, Value] = {
                "eth_type": ethertype(forward.version), **_port(forward.protocol, "dst", outside),
            }  # fmt: skip
            track = Track(Stage.ROUTE, ZONE, Nat("dst", forward.address, port_min=inside))
            why = f"a connection from outside, for {target}"
            yield from begins(NAT_IN_STATE, called, FORWARDED, track, why, load(SOURCE, Source.OUTSIDE))

    def network(self, network: NetworkView, fabric: Reader) -> Iterator[Flow]:
        if network.gateway is None or not network.overlay or not fabric.forwards_ports(network.name):
            return
        for _, segment in network.segments:
            answers: dict[str, Value] = {"source": Source.TUNNEL, "segment": segment, "eth_dst": network.gateway.mac}
            for kind in map(ethertype, network.gateway.versions):
                yield GATEWAY.flow(
                    Priority.HERE, match(**answers, eth_type=kind), Track(FORWARD_BACK, ZONE, None),
                    why="from another host: does it answer a connection that was forwarded here?",
                )  # fmt: skip

    def local(self, port: PortView, fabric: Reader) -> Iterator[Flow]:
        network, forwards = fabric.network(port.network), fabric.forwards_to(port)
        if network is None or network.gateway is None:
            return
        if network.gateway.nat and fabric.forwards_ports():
            yield from _to_own_host(port, fabric.host(port.host), network.gateway.versions)
        if not forwards:
            return
        versions = sorted({each.version for each in forwards})
        for part in port.memberships:
            sent: dict[str, Value] = {"in_port": port.ofport, "segment": part.segment, "eth_dst": network.gateway.mac}
            for subnet in (each for each in network.gateway.subnets if each.version in versions):
                yield GATEWAY.flow(
                    Priority.ANYWHERE + 3, match(**sent, **packets("src", subnet)),
                    load(NATTED, 1), Track(FORWARD_BACK, ZONE, None),
                    why="perhaps an answer to a connection that was forwarded",
                )  # fmt: skip
            came: dict[str, Value] = {"source": Source.TUNNEL, "segment": part.segment, "eth_dst": port.mac}
            for kind in map(ethertype, versions):
                yield INWARD.flow(
                    Priority.ANYWHERE, match(**came, eth_type=kind),
                    Track(Stage.FORWARD, ZONE, None, commit=True, mark=PEER),
                    why="from outside, another host forwarded it: answers go back there",
                )  # fmt: skip
        floating = {each.version for each in fabric.floating_to(port)}
        # Who speaks to its floating address is not known here either.
        lasting = {(each.version, *each.target_ports) for each in forwards if each.protocol == "tcp"}
        for version, low, high in sorted(each for each in lasting if each[0] not in floating):
            for ports in _blocks(low, high):
                lost = {"in_port": port.ofport, "tcp_flags": _NO_FIRST, **_port("tcp", "src", ports)}
                yield FORWARD_BACK.flow(
                    Priority.ANYWHERE, match(**lost, eth_type=ethertype(version), ct_state=tracked(CtState.NEW)),
                    why="of a connection that is not known here any more: it waits until the client sends",
                )  # fmt: skip

    def member(self, network: NetworkView, host: HostView, fabric: Reader) -> Iterator[Flow]:
        if network.gateway is None or not network.gateway.nat or host.external is None or not fabric.forwards_ports():
            return
        for _, segment in network.segments:
            sent: dict[str, Value] = {"source": Source.VNIC, "segment": segment, "eth_dst": network.gateway.mac}
            for subnet in network.gateway.subnets:
                if (way := host.external.way(subnet.version)) is None:
                    continue
                yield GATEWAY.flow(
                    Priority.HERE, match(**sent, **packets("src", subnet), **_to(way)),
                    Track(HAIRPIN, ZONE, Nat()), why="for its own host's external address, which may be forwarded",
                )  # fmt: skip

    def host(self, host: HostView, fabric: Reader) -> Iterator[Flow]:
        if (outside := host.external) is None or not fabric.forwards_ports():
            return
        for way in outside.ways:
            yield from _answers(outside, way)


def _to(way: Way) -> dict[str, Value]:
    return {f"ipv{way.version}_dst": way.address}


def _answers(outside: ExternalView, way: Way) -> Iterator[Flow]:
    """What comes back to the host that was addressed, and guests of its own that address it."""
    answers: dict[str, Value] = {"source": Source.TUNNEL, "eth_type": ethertype(way.version)}
    for state in KNOWN:
        yield FORWARD_BACK.flow(
            Priority.HERE + state, match(**answers, ct_state=tracked(state), **_to(way)),
            Track(HAIRPIN, ZONE, Nat()), why="answers a guest of this host that was forwarded",
        )  # fmt: skip
    yield HAIRPIN.flow(
        Priority.FALLBACK, match(source=Source.VNIC, eth_type=ethertype(way.version)),
        Track(HAIRPIN_NEW, zones.HAIRPIN, Nat()), why="for a forward: which connection is it?",
    )  # fmt: skip
    near = match(source=Source.TUNNEL, **packets("dst", ip_network(way.subnet)))
    yield ROUTE.flow(
        Priority.FALLBACK + 1, near, *outward(outside, to_itself(way)), goto(NAT_OUT),
        why=f"an answer to a machine in {way.subnet}",
    )  # fmt: skip
    yield ROUTE.flow(
        Priority.FALLBACK, match(**answers), *outward(outside, to_router(way)), goto(NAT_OUT),
        why=f"an answer to anywhere else, by {way.gateway}",
    )  # fmt: skip


def _to_own_host(port: PortView, host: HostView | None, versions: tuple[int, ...]) -> Iterator[Flow]:
    if host is None or host.external is None or not port.memberships:
        return
    for way in (each for each in host.external.ways if each.version in versions):
        sent: dict[str, Value] = {"in_port": port.ofport, "eth_type": ethertype(way.version)}
        as_host = Track(HAIRPIN_STATE, zones.HAIRPIN, Nat("src", way.address))
        why = f"a guest begins: to a forward it speaks as {way.address}"
        yield from begins(HAIRPIN_NEW, sent, connections_meter(port.ofport), as_host, why)


def _back(state: CtState) -> Iterator[Flow]:
    """Answers in a connection of this state, with their addresses as the guest wrote them."""
    known = tracked(state)
    yield FORWARD_BACK.flow(
        Priority.HERE + state, match(source=Source.VNIC, ct_state=known, ct_mark=0), goto(Stage.ROUTE),
        why="no host forwarded this connection to the guest",
    )  # fmt: skip
    yield FORWARD_BACK.flow(
        Priority.ANYWHERE + state, match(source=Source.VNIC, ct_state=known), *_BY_MARK,
        why="an answer: back to the host that forwarded the connection",
    )  # fmt: skip
    yield FORWARD_BACK.flow(
        Priority.ANYWHERE + state, match(source=Source.TUNNEL, ct_state=known), goto(Stage.ROUTE),
        why="answers a connection that this host forwarded",
    )  # fmt: skip


def _turned(state: CtState, kind: int) -> Iterator[Flow]:
    """Answers to the host's own external address: a guest of its has it for now."""
    answer: dict[str, Value] = {"eth_type": kind, "ct_state": tracked(state)}
    yield HAIRPIN.flow(
        Priority.HERE + state, match(**answer, source=Source.VNIC, ct_mark=0), *_TO_ITS_GUEST,
        why="answers a guest of this host that was forwarded",
    )  # fmt: skip
    yield HAIRPIN.flow(
        Priority.ANYWHERE + state, match(**answer, source=Source.VNIC), *_BY_MARK,
        why="an answer: back to the host that forwarded the connection",
    )  # fmt: skip
    yield HAIRPIN.flow(
        Priority.ANYWHERE + state, match(**answer, source=Source.TUNNEL), *_TO_ITS_GUEST,
        why="answers a guest of this host that was forwarded",
    )  # fmt: skip


def _turned_back(state: CtState) -> Flow:
    wanted, mask = tracked(state)
    reply = wanted | CtState.REPLY, mask | CtState.REPLY
    return HAIRPIN_STATE.flow(
        Priority.ANYWHERE + state, match(ct_state=reply), load(SOURCE, Source.OUTSIDE), load("in_port", 0),
        goto(Stage.ROUTE), why="an answer: back to the guest that began",
    )  # fmt: skip


def _translations(forward: ForwardView) -> Iterator[tuple[tuple[int, int], int]]:
    """Ports outside as value and mask, and the port at the guest that they become; 0 where they stay as they are."""
    (low, high), (first, _) = forward.ports, forward.target_ports
    if low == first:
        for part in _blocks(low, high):
            yield part, 0
        return
    for number in range(low, high + 1):
        yield (number, _ALL_PORTS), number - low + first


def _blocks(low: int, high: int) -> Iterator[tuple[int, int]]:
    """The range as values and masks, as few as there can be."""
    while low <= high:
        size = low & -low
        while low + size - 1 > high:
            size >>= 1
        yield low, _ALL_PORTS & ~(size - 1)
        low += size


def _port(protocol: str, end: str, ports: tuple[int, int]) -> dict[str, Value]:
    value: Value = ports[0] if ports[1] == _ALL_PORTS else ports
    return {"ip_proto": PROTOCOLS[protocol], f"{protocol}_{end}": value}
