"""Segments: one VLAN of one network, the vNICs in it, and what carries their frames."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from topology.graph.nodes import (
    BridgeNode,
    HostNode,
    NetworkNode,
    PhysicalNode,
    TunnelNode,
    UnderlayNode,
    UplinkNode,
    VnicNode,
    node_id,
)
from topology.graph.topology import Topology

SegmentKey = tuple[str, int | None]
"""Network and VLAN; 0 is the untagged one, None is a passthrough vNIC's: the whole uplink."""


def segments_of(vnic: VnicNode) -> list[SegmentKey]:
    """The segments in which a vNIC takes part now."""
    if vnic.state != "active" or vnic.network is None:
        return []
    if vnic.isolation == "passthrough":
        return [(vnic.network, None)]
    return [(vnic.network, vlan) for vlan in vnic.vlans]


def segments(topology: Topology) -> Mapping[SegmentKey, list[str]]:
    """The vNICs of every segment."""
    found: dict[SegmentKey, list[str]] = defaultdict(list)
    for name, node in topology.sorted_nodes:
        if isinstance(node, VnicNode):
            for key in segments_of(node):
                found[key].append(name)
    return found


def order(key: SegmentKey) -> tuple[str, int]:
    """By network and VLAN, passthrough first."""
    return key[0], -1 if key[1] is None else key[1]


def segment_text(key: SegmentKey) -> str:
    """A segment in words."""
    network, vlan = key
    return f"{network} ({'passthrough' if vlan is None else f'VLAN {vlan}' if vlan else 'untagged'})"


def vnics_of(topology: Topology, node: str) -> list[str]:
    """The vNICs of a guest, host or network; those behind a bridge, uplink, tunnel or physical network; or the vNIC
    itself."""
    value, near = topology.of(node), topology.near(node)
    match value:
        case VnicNode():
            return [node]
        case UplinkNode():
            return _behind(topology, {value.host}, value.physical_network)
        case TunnelNode():
            return _behind(topology, {value.host}, None)
        case UnderlayNode():
            ends = (topology.of(name) for name in near)
            return _behind(topology, {end.host for end in ends if isinstance(end, TunnelNode)}, None)
        case PhysicalNode():
            ends = (topology.of(name) for name in near)
            return _behind(topology, {end.host for end in ends if isinstance(end, UplinkNode)}, value.name)
        case BridgeNode(role="uplink"):
            return sorted({vnic for name in near if name.startswith("uplink:") for vnic in vnics_of(topology, name)})
    if isinstance(value, HostNode):
        guests = [name for name in near if name.startswith("guest:")]
        near = {name: edge for guest in guests for name, edge in topology.near(guest).items()
                if topology.vnic_host(name) == value.name}  # fmt: skip
    return sorted(name for name in near if name.startswith("vnic:"))


def _behind(topology: Topology, hosts: Collection[str], physical: str | None) -> list[str]:
    """The vNICs of hosts whose networks go over a physical network, or over tunnels where it is None."""
    found = []
    for name, node in topology.sorted_nodes:
        if isinstance(node, VnicNode) and node.host in hosts and node.network is not None:
            network = topology.nodes.get(node_id("network", node.network))
            if isinstance(network, NetworkNode) and network.span == "fleet" and network.physical_network == physical:
                found.append(name)
    return found


class Wiring:
    """What connects the members of segments: bridges, and the tunnels or uplinks that a network goes over."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._bridges: dict[str, set[str]] = defaultdict(set)  # those and what hangs on them, by host
        self._uplinks: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._tunnels: dict[str, set[str]] = defaultdict(set)
        for name, node in topology.nodes.items():
            match node:
                case BridgeNode():
                    self._bridges[node.host].add(name)
                case UplinkNode():
                    self._uplinks[node.host, node.physical_network] |= {
                        name,
                        node_id("physical", node.physical_network),
                    }
                case TunnelNode():
                    self._tunnels[node.host] |= {name, *(n for n in topology.near(name) if n.startswith("underlay:"))}

    def nodes(self, network: str, members: Iterable[str]) -> set[str]:
        """The members of a segment of that network, and all that carries it between their hosts."""
        value, found = self._topology.nodes.get(node_id("network", network)), set(members)
        if not isinstance(value, NetworkNode):
            return found
        for host in {node.host for name in found if isinstance(node := self._topology.nodes[name], VnicNode)}:
            found |= self._bridges.get(host or "", set())
            if value.physical_network is not None:
                found |= self._uplinks.get((host or "", value.physical_network), set())
            elif value.span == "fleet":
                found |= self._tunnels.get(host or "", set())
        return found

    def reached(self, nodes: Iterable[str], members: Sequence[str]) -> dict[str, frozenset[str]]:
        """Of each member who it reaches over these nodes: itself, other members, the physical network."""
        ends = set(members)
        found: dict[str, frozenset[str]] = {}
        for component in self._topology.components(nodes):
            together = frozenset(name for name in component if name in ends or name.startswith("physical:"))
            found |= {name: together for name in together if name in ends}
        return found
