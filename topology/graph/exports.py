"""The topology in the formats of others: JSON (node-link) and DOT; ``xml_exports`` has GraphML and GEXF.

Names come from guests' owners. DOT cannot carry every character: what it cannot stands there as ``\\x1b``. JSON carries
all.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping

from topology.graph.nodes import BridgeNode, Edge, Kind, Node, UplinkNode, VnicNode, attributes, flat_attributes
from topology.graph.topology import Topology
from topology.graph.xml_exports import printable

_CHUNK = 200  # nodes that are encoded at once: json holds the interpreter, and others need it too

_SHAPES: Mapping[str, str] = {
    "host": "box3d", "bridge": "box", "uplink": "cds", "physical": "hexagon", "tunnel": "cds", "underlay": "hexagon",
    "network": "ellipse", "guest": "component", "vnic": "box", "device": "box3d",
}  # fmt: skip
_STYLES: Mapping[str, str] = {"member": "solid", "asks": "dotted", "over": "dashed", "hears": "dashed"}
_RANKS: tuple[Kind, ...] = (
    "host", "guest", "vnic", "bridge", "uplink", "tunnel", "physical", "device", "underlay", "network",
)  # fmt: skip
_TROUBLE = frozenset({"quarantined", "down", "missing", "degraded"})
_MUTED = frozenset({"unmanaged", "absent", "pending", "unknown"})


def write_json(topology: Topology) -> Iterator[str]:
    """Node-link JSON in pieces, as ``networkx.node_link_graph(data, edges="edges")`` reads it."""
    head = {"directed": False, "multigraph": False, "graph": {"name": "fleetswitch", "sequence": topology.sequence}}
    yield json.dumps(head)[:-1]
    nodes = [{"id": name, **attributes(node)} for name, node in topology.sorted_nodes]
    edges = [{"source": one, "target": two, **attributes(edge)} for (one, two), edge in topology.sorted_edges]
    for name, items in (("nodes", nodes), ("edges", edges)):
        yield f', "{name}": ['
        for start in range(0, len(items), _CHUNK):
            yield (", " if start else "") + json.dumps(items[start : start + _CHUNK])[1:-1]
        yield "]"
    yield "}\n"


def write_dot(topology: Topology) -> Iterator[str]:
    """DOT for Graphviz, lines, a cluster a host."""
    yield 'graph "fleetswitch" {\n'
    yield f'  graph [label="fleetswitch, change {topology.sequence}", rankdir=LR, fontname="sans-serif"];\n'
    yield '  node [fontname="sans-serif", fontsize=10]; edge [fontname="sans-serif", fontsize=8, color="#888888"];\n'
    groups: dict[str, list[str]] = defaultdict(list)
    for name, node in topology.sorted_nodes:
        groups[_home(node)].append(f"  {_dot_text(name)} [{_dot_node(node)}];\n")
    for host, lines in sorted(groups.items()):
        if not host:
            yield from lines
            continue
        yield f"  subgraph {_dot_text(f'cluster {host}')} {{\n    label={_dot_label(host)};\n"
        yield from (f"  {line}" for line in lines)
        yield "  }\n"
    for key, edge in topology.sorted_edges:
        one, other = sorted(key, key=lambda name: _rank(topology.nodes[name]))
        yield f"  {_dot_text(one)} -- {_dot_text(other)} [{_dot_edge(edge)}];\n"
    yield "}\n"


def _home(node: Node) -> str:
    """The host in whose cluster a node stands; empty for none."""
    if node.kind in {"host", "bridge", "uplink", "tunnel", "vnic", "guest"}:
        hosts = getattr(node, "hosts", None)
        if hosts is not None:
            return hosts[0] if hosts else ""
        return getattr(node, "host", None) or (node.label if node.kind == "host" else "")
    return ""


def _dot_node(node: Node) -> str:
    label, state = node.label, str(getattr(node, "state", ""))
    if isinstance(node, VnicNode):
        label = "\n".join(filter(None, (node.mac, node.network, "" if state == "active" else state)))
    elif isinstance(node, UplinkNode):
        label = node.interface
    elif state in _TROUBLE:
        label = f"{label}\n{state}"
    style = "dashed" if state in _TROUBLE else "dotted" if state in _MUTED else "solid"
    tip = "\n".join(f"{name}: {value}" for name, value in flat_attributes(node).items() if value != "")
    colour = ', color="#c0392b"' if state in _TROUBLE else ""
    how = f"shape={_SHAPES[node.kind]}, style={style}{colour}"
    return f"label={_dot_label(label)}, {how}, tooltip={_dot_label(tip)}"


def _rank(node: Node) -> int:
    """From left to right; edges that go against it make large drawings fail in dot ("trouble in init_rank")."""
    if isinstance(node, BridgeNode) and node.role == "uplink":
        return _RANKS.index("uplink")
    return _RANKS.index(node.kind)


def _dot_edge(edge: Edge) -> str:
    vlans = " ".join(str(vlan) for vlan in edge.vlans if vlan)
    label = f", label={_dot_label(vlans)}" if vlans else ""
    if edge.relation in {"member", "asks", "runs"}:  # seen in the drawing, and no matter for who stands where
        label += ", constraint=false"
    return f"style={_STYLES.get(edge.relation, 'solid')}, tooltip={_dot_label(edge.relation)}{label}"


def _dot_text(text: str) -> str:
    """A quoted ID. There a backslash stands for itself, except before a quote, also the closing one (Graphviz, "The DOT
    Language"): so none is left."""
    return '"' + printable(text).replace("%", "%25").replace("\\", "%5c").replace('"', '\\"') + '"'


def _dot_label(text: str) -> str:
    """A quoted label: in these a backslash begins an escape (escString), and ``&`` an entity of HTML."""
    escaped = printable(text).replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;").replace("\n", "\\n")
    return f'"{escaped}"'
