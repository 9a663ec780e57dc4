"""What people ask the graph: neighbours, the way between two, who shares a segment, what fails with something.

All of it is wiring and membership. What the flows make of a single frame (isolation, for one) is told as a remark.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise

from controller.errors import InvalidInput, Problem
from topology.graph.answers import (
    CutOff,
    Failure,
    Hop,
    Member,
    Neighbour,
    Neighbours,
    Place,
    SegmentLoss,
    Shared,
    SharedSegment,
    Way,
)
from topology.graph.names import resolve
from topology.graph.nodes import GuestNode, NetworkNode, VnicNode
from topology.graph.segments import SegmentKey, Wiring, order, segment_text, segments, segments_of, vnics_of
from topology.graph.topology import Topology


def neighbours(topology: Topology, text: str) -> Neighbours:
    """Raises NotFound, InvalidInput (the name is ambiguous)."""
    node = resolve(topology, text)
    found = [Neighbour(edge.relation, place(topology, name), edge.port) for name, edge in topology.near(node).items()]
    found.sort(key=lambda each: (each.relation, each.place.label, each.place.id))
    return Neighbours(topology.sequence, place(topology, node), tuple(found))


def shares(topology: Topology, text: str) -> Shared:
    """Who is in a segment with the vNICs of a node. Raises NotFound, InvalidInput."""
    node = resolve(topology, text)
    own = vnics_of(topology, node)
    members = segments(topology)
    keys = sorted({key for name in own for key in segments_of(topology.vnic(name))}, key=order)
    found = [SharedSegment(key[0], key[1], tuple(_members(topology, members[key]))) for key in keys]
    out = [vnic for name in own if (vnic := topology.vnic(name)).state != "active"]
    kept = sorted(f"{vnic.label}: {vnic.reason or vnic.state}" for vnic in out)
    return Shared(topology.sequence, place(topology, node), tuple(found), tuple(kept))


def path(topology: Topology, start: str, end: str) -> Way:
    """The shortest way; from guests and vNICs the way that their frames take. Raises NotFound, InvalidInput."""
    one, other = resolve(topology, start, "from"), resolve(topology, end, "to")
    if one != other and any(isinstance(topology.of(node), (GuestNode, VnicNode)) for node in (one, other)):
        return _way_of_frames(topology, one, other)
    # Guests are no routers, hosts and networks are not on the wire; but they may be what was asked for.
    ways = []
    # Who hears whom is the way to a device only; between hosts it is the physical network's.
    devices = {end for end in (one, other) if end.startswith("device:")}
    off = ("host:", "network:", "guest:", "vnic:", "device:")
    for beyond in (("underlay:",), ("physical:", "uplink:")):  # nothing goes from a tunnel to an uplink
        wires = {name for name in topology.nodes if not name.startswith((*off, *beyond))}
        if (found := topology.way(wires | {one, other}, one, other, devices)) is not None:
            ways.append(found)
    if not ways:
        return _no_way(topology, f"nothing connects {topology.of(one).label} and {topology.of(other).label}")
    return _way(topology, min(ways, key=len))


def fails(topology: Topology, text: str) -> Failure:
    """What is lost when a node is. Raises NotFound, InvalidInput (a network does not fail by itself)."""
    node = resolve(topology, text)
    if isinstance(topology.of(node), NetworkNode):
        remedy = "ask for a host, bridge, uplink, tunnel end, physical network or guest"
        raise InvalidInput([Problem(text, "is a network, which does not fail by itself", remedy)])
    gone = _gone_with(topology, node)
    wiring, losses = Wiring(topology), []
    for key, members in sorted(segments(topology).items(), key=lambda item: order(item[0])):
        nodes = wiring.nodes(key[0], members)
        if nodes & gone:
            before, after = wiring.reached(nodes, members), wiring.reached(nodes - gone, members)
            loss = _loss(topology, key, members, gone, before, after)
            losses += [loss] if loss.stopped or loss.cut else []
    stopped = sorted((place(topology, name) for name in gone if name.startswith("guest:")), key=lambda each: each.label)
    return Failure(topology.sequence, place(topology, node), tuple(stopped), tuple(losses))


def place(topology: Topology, node: str) -> Place:
    """A node as answers show it."""
    value = topology.of(node)
    return Place(node, value.kind, value.label, getattr(value, "state", ""))


def _members(topology: Topology, names: Iterable[str]) -> list[Member]:
    return sorted((_member(topology, name) for name in names), key=lambda each: (each.guest, each.host or "", each.mac))


def _member(topology: Topology, name: str) -> Member:
    vnic = topology.vnic(name)
    return Member(name, vnic.guest, vnic.mac, vnic.host, vnic.isolation, vnic.addresses)


def _way_of_frames(topology: Topology, one: str, other: str) -> Way:
    """Where one end at least is a guest or vNIC: over the wiring of a segment that it is in."""
    wiring, members = Wiring(topology), segments(topology)
    ways: list[tuple[list[str], SegmentKey]] = []
    apart: list[SegmentKey] = []
    for start, end in ((start, end) for start in _ends(topology, one) for end in _ends(topology, other)):
        for key in sorted(_common(topology, start, end), key=order):
            found = topology.way(wiring.nodes(key[0], members[key]) | {start, end}, start, end)
            if found is None:
                apart.append(key)
            else:
                ways.append((found, key))
    if not ways:
        return _no_way(topology, _why_not(topology, one, other, apart))
    nodes, key = min(ways, key=lambda way: (len(way[0]), order(way[1])))
    remark = _remark(topology, nodes[0], nodes[-1])
    whole = [*([one] if one != nodes[0] else []), *nodes, *([other] if other != nodes[-1] else [])]
    return _way(topology, whole, key, remark)


def _ends(topology: Topology, node: str) -> list[str]:
    """Where frames of a guest begin; of other nodes, the node."""
    return vnics_of(topology, node) if isinstance(topology.of(node), GuestNode) else [node]


def _common(topology: Topology, *ends: str) -> set[SegmentKey]:
    """The segments that all of these are in which are vNICs. A passthrough vNIC meets no other."""
    vnics = [vnic for node in ends if isinstance(vnic := topology.of(node), VnicNode)]
    found = set.intersection(*(set(segments_of(vnic)) for vnic in vnics))
    return found if len(vnics) == 1 else {key for key in found if key[1] is not None}


def _way(topology: Topology, nodes: Sequence[str], key: SegmentKey | None = None, remark: str = "") -> Way:
    relations = ["", *(topology.near(one)[other].relation for one, other in pairwise(nodes))]
    hops = tuple(Hop(by, place(topology, name)) for by, name in zip(relations, nodes, strict=True))
    network, vlan = key if key is not None else (None, None)
    return Way(topology.sequence, True, "", network, vlan, remark, hops)


def _no_way(topology: Topology, reason: str) -> Way:
    return Way(topology.sequence, False, reason, None, None, "", ())


def _why_not(topology: Topology, one: str, other: str, apart: Sequence[SegmentKey]) -> str:
    labels = [topology.of(node).label for node in (one, other)]
    if apart:
        return f"nothing carries {segment_text(apart[0])} between {labels[0]} and {labels[1]}"
    said = []
    for node, label in zip((one, other), labels, strict=True):
        if not isinstance(topology.of(node), (GuestNode, VnicNode)):
            continue
        vnics = [topology.vnic(name) for name in vnics_of(topology, node)]
        keys = sorted({key for vnic in vnics for key in segments_of(vnic)}, key=order)
        if keys:
            said.append(f"{label} is in {', '.join(map(segment_text, keys))}")
        else:
            reasons = [f"{vnic.state}{f': {vnic.reason}' if vnic.reason else ''}" for vnic in vnics]
            said.append(f"{label} is in no segment ({'; '.join(reasons) or 'it has no vNIC'})")
    return f"{labels[0]} and {labels[1]} share no segment: {'; '.join(said)}"


def _remark(topology: Topology, one: str, other: str) -> str:
    """What the portgroups' isolation makes of it (docs/features/isolation.md)."""
    vnics = [vnic for node in (one, other) if isinstance(vnic := topology.of(node), VnicNode)]
    if len(vnics) < 2:
        return ""
    kinds = {vnic.isolation for vnic in vnics}
    if kinds == {"isolated"}:
        return "both are isolated: the switches pass nothing between them"
    if "private" in kinds:
        return "one is private: it reaches the uplink only, and no other vNIC"
    if "vepa" in kinds:
        return "one is vepa: its frames leave by the uplink, and the physical switch decides"
    return ""


def _gone_with(topology: Topology, node: str) -> set[str]:
    """What is there no more when the node is: a host takes its guests with it, a guest its vNICs."""
    gone = {node}
    if node.startswith("host:"):
        gone |= set(topology.near(node)) | set(vnics_of(topology, node))
        gone |= {near for name in topology.near(node) if name.startswith("bridge:")
                 for near, edge in topology.near(name).items() if edge.relation == "has"}  # fmt: skip
    for guest in [name for name in gone if name.startswith("guest:")]:
        gone |= {near for near, edge in topology.near(guest).items() if edge.relation == "has"}
    return gone


def _loss(
    topology: Topology,
    key: SegmentKey,
    members: Sequence[str],
    gone: set[str],
    before: Mapping[str, frozenset[str]],
    after: Mapping[str, frozenset[str]],
) -> SegmentLoss:
    """Who of a segment stops, and who loses somebody that runs on."""
    # Members that reach each other share one set: it is counted once.
    had = {reached: (_vnics(reached, gone), _outside(reached)) for reached in set(before.values())}
    keeps = {reached: (_vnics(reached), _outside(reached)) for reached in set(after.values())}
    cut = []
    for name in members:
        if name not in gone:
            (peers, had_outside), (left, outside) = had[before[name]], keeps[after[name]]
            if peers != left or outside != had_outside:
                cut.append(CutOff(_member(topology, name), peers - 1, left - 1, outside != had_outside))
    return SegmentLoss(key[0], key[1], len(members), sum(name in gone for name in members), tuple(cut))


def _vnics(reached: Iterable[str], gone: Collection[str] = ()) -> int:
    return sum(name.startswith("vnic:") and name not in gone for name in reached)


def _outside(reached: Iterable[str]) -> bool:
    return any(name.startswith("physical:") for name in reached)
