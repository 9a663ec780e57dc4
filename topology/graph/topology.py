"""The topology at one moment: nodes and edges as values, and the networkx graph of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from controller.errors import NotFound
from topology.graph.nodes import (
    Edge,
    EdgeKey,
    GuestNode,
    NetworkNode,
    Node,
    UplinkNode,
    VnicNode,
    attributes,
    node_id,
)


@dataclass(frozen=True)  # without slots, which leave no place for what is computed once
class Topology:
    """Nodes by id and edges by their two nodes' ids, in order. All of one moment: ``sequence`` counts the changes of
    rows until then."""

    sequence: int
    nodes: Mapping[str, Node]
    edges: Mapping[EdgeKey, Edge]

    @cached_property
    def around(self) -> Mapping[str, Mapping[str, Edge]]:
        """Of each node its neighbours, and what it has with them."""
        found: dict[str, dict[str, Edge]] = defaultdict(dict)
        for (one, other), edge in self.edges.items():
            found[one][other] = found[other][one] = edge
        return found

    def near(self, node: str) -> Mapping[str, Edge]:
        """The neighbours of one node."""
        return self.around.get(node, {})

    def of(self, node: str) -> Node:
        """The node of that id."""
        return self.nodes[node]

    def vnic(self, node: str) -> VnicNode:
        """The vNIC of that id. Raises NotFound for a node that is none."""
        found = self.nodes.get(node)
        if not isinstance(found, VnicNode):
            raise NotFound(f"{node} is no vNIC")
        return found

    @cached_property
    def sorted_nodes(self) -> Sequence[tuple[str, Node]]:
        """By kind and name: the same fleet gives the same text."""
        return sorted(self.nodes.items())

    @cached_property
    def sorted_edges(self) -> Sequence[tuple[EdgeKey, Edge]]:
        return sorted(self.edges.items(), key=lambda item: item[0])

    def graph(self) -> Any:
        """As a ``networkx.Graph``, with attributes as JSON has them."""
        import networkx  # large, and a controller of which nobody asks for ways does without: 10 MiB

        graph = networkx.Graph(name="fleetswitch", sequence=self.sequence)
        graph.add_nodes_from((name, attributes(node)) for name, node in self.sorted_nodes)
        graph.add_edges_from((*key, attributes(edge)) for key, edge in self.sorted_edges)
        return graph

    def way(self, nodes: Iterable[str], start: str, end: str, hearing: Collection[str] = ()) -> list[str] | None:
        """A shortest way over these nodes, both ends included; None when there is none."""
        import networkx

        try:
            return list(networkx.shortest_path(self._wires(nodes, hearing), start, end))
        except networkx.NetworkXNoPath:
            return None

    def components(self, nodes: Iterable[str]) -> Iterator[set[str]]:
        """Of these nodes those that reach each other over them, together."""
        import networkx

        yield from networkx.connected_components(self._wires(nodes))

    def _wires(self, nodes: Iterable[str], hearing: Collection[str] = ()) -> Any:
        """These nodes and what is between them, as a ``networkx.Graph`` without attributes. Who hears whom is told by
        neighbours, and is a wire only for those of ``hearing``."""
        import networkx

        kept, graph = set(nodes), networkx.Graph()
        for name in sorted(kept):  # of two ways that are equally short the same one every time
            graph.add_node(name)
            graph.add_edges_from(
                (name, near) for near, edge in sorted(self.near(name).items(), key=lambda item: item[0])
                if near in kept and (edge.relation != "hears" or name in hearing or near in hearing)
            )  # fmt: skip
        return graph

    def narrowed(self, network: str | None = None, host: str | None = None) -> Topology:
        """What concerns a network, a host, or that network on that host. Raises NotFound."""
        keep = set(self.nodes)
        if network is not None:
            keep &= self._of_network(self._known(node_id("network", network), "Network", network))
        if host is not None:
            keep &= self._of_host(self._known(node_id("host", host), "Host", host))
        return self.only(keep)

    def only(self, keep: Iterable[str]) -> Topology:
        """These nodes, and the edges between them."""
        kept = set(keep)
        nodes = {name: node for name, node in self.nodes.items() if name in kept}
        edges = {key: edge for key, edge in self.edges.items() if key[0] in kept and key[1] in kept}
        return Topology(self.sequence, nodes, edges)

    def _known(self, node: str, kind: str, name: str) -> str:
        if node not in self.nodes:
            prefix = f"{kind.lower()}:"
            known = sorted(each.removeprefix(prefix) for each in self.nodes if each.startswith(prefix))
            raise NotFound(f"there is no {kind} {name}", remedy=f"there are: {', '.join(known[:8]) or 'none'}")
        return node

    def _of_network(self, network: str) -> set[str]:
        """The network, its vNICs with their guests, hosts and bridges, and what it goes over."""
        keep = {network}
        spec = self.nodes[network]
        for vnic, edge in self.near(network).items():
            keep.add(vnic)
            if edge.relation == "over":
                continue
            for near, how in self.near(vnic).items():
                if how.relation == "has":
                    keep |= {near, *(node_id("host", name) for name in self._hosts(near))}
                elif how.relation == "plugged":
                    keep.add(near)
        physical = spec.physical_network if isinstance(spec, NetworkNode) else None
        for bridge in [name for name in keep if name.startswith("bridge:")]:
            keep |= self._carriers(bridge, physical)
        return keep & self.nodes.keys()

    def _hosts(self, guest: str) -> tuple[str, ...]:
        node = self.nodes[guest]
        return node.hosts if isinstance(node, GuestNode) else ()

    def _carriers(self, bridge: str, physical: str | None) -> set[str]:
        """Between an integration bridge and the physical network, or the underlay where there is no physical one."""
        found: set[str] = set()
        for near, edge in self.near(bridge).items():
            if physical is None and near.startswith("tunnel:"):
                found.add(near)
            if physical is not None and edge.relation == "patch":
                uplinks = {u for u in self.near(near) if _leads_to(self.nodes[u], physical)}
                found |= uplinks | ({near} if uplinks else set())
                found |= {name for uplink in uplinks for name in self.near(uplink) if name.startswith("device:")}
        return found

    def _of_host(self, host: str) -> set[str]:
        """The host, what it has, its guests with the vNICs that are there, and the networks of those."""
        own = {host, *self.near(host)}
        for name in [name for name in own if name.startswith("bridge:")]:
            own |= {near for near, edge in self.near(name).items() if edge.relation in {"has", "plugged"}}
        for guest in [name for name in own if name.startswith("guest:")]:
            own |= {near for near in self.near(guest) if node_id("host", self.vnic_host(near) or "") == host}
        beyond = {near for name in own for near, edge in self.near(name).items()
                  if edge.relation in {"member", "asks", "wire"} or near.startswith("device:")}  # fmt: skip
        return own | beyond

    def vnic_host(self, node: str) -> str | None:
        """Where a vNIC is; None for other nodes."""
        found = self.nodes[node]
        return found.host if isinstance(found, VnicNode) else None


def _leads_to(node: Node, physical: str) -> bool:
    return isinstance(node, UplinkNode) and node.physical_network == physical
