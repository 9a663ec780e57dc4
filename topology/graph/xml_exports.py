"""The topology as GraphML and GEXF, written piece by piece: a tree of XML of a large fleet takes seconds to make.

XML 1.0 cannot carry every character (section 2.2): what it cannot carry stands there as ``\\x1b``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from topology.graph.nodes import EdgeKey, Scalar, flat_attributes
from topology.graph.topology import Topology

_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SPECIAL = re.compile('[&<>"\t\n\r]')  # blanks but the plain one: a parser would change them (sections 2.11, 3.3.3)
_TYPES: Mapping[type, str] = {bool: "boolean", int: "long", float: "double", str: "string"}
_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
_XSI = 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
_GRAPHML = "http://graphml.graphdrawing.org/xmlns"
_GEXF = "http://www.gexf.net/1.2draft"

_SIZES: Mapping[str, float] = {
    "host": 12.0, "bridge": 5.0, "uplink": 4.0, "physical": 20.0, "tunnel": 4.0, "underlay": 20.0, "network": 18.0,
    "guest": 7.0, "vnic": 3.0, "device": 12.0,
}  # fmt: skip
_COLOURS: Mapping[str, tuple[int, int, int]] = {
    "host": (68, 84, 106), "bridge": (127, 139, 155), "uplink": (176, 124, 39), "physical": (120, 82, 20),
    "tunnel": (60, 125, 150), "underlay": (30, 90, 115), "network": (0, 114, 178), "guest": (0, 158, 115),
    "vnic": (150, 200, 180), "device": (90, 90, 90),
}  # fmt: skip

_Attributes = Mapping[str, Scalar]


def printable(text: str) -> str:
    """Text that XML and DOT can carry."""
    return _NO_XML.sub(lambda found: _escaped(found[0]), text)


def write_graphml(topology: Topology) -> Iterator[str]:
    """GraphML, in pieces."""
    nodes, edges = _nodes(topology), _edges(topology)
    yield f'{_HEAD}<graphml xmlns="{_GRAPHML}" {_XSI} xsi:schemaLocation="{_GRAPHML} {_GRAPHML}/1.0/graphml.xsd">\n'
    keys: dict[str, dict[str, str]] = {}
    graph: _Attributes = {"name": "fleetswitch", "sequence": topology.sequence}
    for what, found in (("graph", [graph]), ("node", [n for _, n in nodes]), ("edge", [e for _, e in edges])):
        keys[what] = {}
        for name, kind in _kinds(found).items():
            keys[what][name] = key = f"{what[0]}{len(keys[what])}"
            yield f'  <key id="{key}" for="{what}" attr.name="{name}" attr.type="{kind}"/>\n'
    yield f'  <graph edgedefault="undirected">\n{_data(graph, keys["graph"])}'
    for node, attributes in nodes:
        yield f'    <node id="{_xml(node)}">\n{_data(attributes, keys["node"])}    </node>\n'
    for (one, other), about in edges:
        data = _data(about, keys["edge"])
        yield f'    <edge source="{_xml(one)}" target="{_xml(other)}">\n{data}    </edge>\n'
    yield "  </graph>\n</graphml>\n"


def write_gexf(topology: Topology) -> Iterator[str]:
    """GEXF 1.2draft, which Gephi opens, in pieces. Colours and sizes are by kind."""
    nodes, edges = _nodes(topology), _edges(topology)
    labels = [str(attributes["label"]) for _, attributes in nodes]
    bare = [{name: value for name, value in about.items() if name != "label"} for _, about in nodes]
    yield f'{_HEAD}<gexf xmlns="{_GEXF}" xmlns:viz="{_GEXF}/viz" {_XSI} '
    yield f'xsi:schemaLocation="{_GEXF} {_GEXF}/gexf.xsd" version="1.2">\n'
    yield "  <meta>\n    <creator>fleetswitch</creator>\n"
    yield f"    <description>the fleet as of change {topology.sequence}</description>\n  </meta>\n"
    yield '  <graph defaultedgetype="undirected" mode="static">\n'
    keys: dict[str, dict[str, str]] = {}
    for what, found in (("node", bare), ("edge", [each for _, each in edges])):
        keys[what] = {}
        yield f'    <attributes class="{what}" mode="static">\n'
        for name, kind in _kinds(found).items():
            keys[what][name] = key = f"{what[0]}{len(keys[what])}"
            yield f'      <attribute id="{key}" title="{name}" type="{kind}"/>\n'
        yield "    </attributes>\n"
    yield "    <nodes>\n"
    for (node, _), attributes, label in zip(nodes, bare, labels, strict=True):
        yield f'      <node id="{_xml(node)}" label="{_xml(label)}">\n{_look(str(attributes["kind"]))}'
        yield f"{_attvalues(attributes, keys['node'])}      </node>\n"
    yield "    </nodes>\n    <edges>\n"
    for number, ((one, other), about) in enumerate(edges):
        yield f'      <edge id="{number}" source="{_xml(one)}" target="{_xml(other)}">\n'
        yield f"{_attvalues(about, keys['edge'])}      </edge>\n"
    yield "    </edges>\n  </graph>\n</gexf>\n"


def _nodes(topology: Topology) -> list[tuple[str, _Attributes]]:
    return [(name, flat_attributes(node)) for name, node in topology.sorted_nodes]


def _edges(topology: Topology) -> list[tuple[EdgeKey, _Attributes]]:
    return [(key, flat_attributes(edge)) for key, edge in topology.sorted_edges]


def _kinds(found: Sequence[_Attributes]) -> dict[str, str]:
    """The type of each attribute; text for one that has several."""
    kinds: dict[str, str] = {}
    for attributes in found:
        for name, value in attributes.items():
            kind = _TYPES[type(value)]
            if kinds.setdefault(name, kind) != kind:
                kinds[name] = "string"
    return kinds


def _data(attributes: _Attributes, keys: Mapping[str, str]) -> str:
    return "".join(f'      <data key="{keys[name]}">{_xml(value)}</data>\n' for name, value in attributes.items())


def _attvalues(attributes: _Attributes, keys: Mapping[str, str]) -> str:
    found = (f'          <attvalue for="{keys[name]}" value="{_xml(value)}"/>\n' for name, value in attributes.items())
    return f"        <attvalues>\n{''.join(found)}        </attvalues>\n"


def _look(kind: str) -> str:
    red, green, blue = _COLOURS[kind]
    colour = f'        <viz:color r="{red}" g="{green}" b="{blue}"/>\n'
    return f'{colour}        <viz:size value="{_SIZES[kind]}"/>\n'


def _xml(value: Scalar) -> str:
    """As text and as an attribute's value."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return _SPECIAL.sub(lambda found: f"&#{ord(found[0])};", printable(value)) if isinstance(value, str) else str(value)


def _escaped(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
