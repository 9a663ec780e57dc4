"""What the schema of GEXF 1.2draft (gexf.xsd, data.xsd, viz.xsd) allows of what is static and flat: elements with their
children, and attributes with their values. What is not listed is forbidden, as it is there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element

GEXF, VIZ = "{http://www.gexf.net/1.2draft}", "{http://www.gexf.net/1.2draft/viz}"
_XSI = "{http://www.w3.org/2001/XMLSchema-instance}schemaLocation"

_ANY = r"(?s).*"
_COUNT, _FLOAT = r"\d+", r"-?\d+(\.\d+)?([eE][-+]?\d+)?"
_CHANNEL = r"\d|[1-9]\d|1\d\d|2[0-4]\d|25[0-5]"


@dataclass(frozen=True)
class Rule:
    """``children`` are the elements that may stand inside, with how often at most (None: as often as you like);
    attributes map to a pattern of their value."""

    children: Mapping[str, int | None] = field(default_factory=dict)
    required: Mapping[str, str] = field(default_factory=dict)
    optional: Mapping[str, str] = field(default_factory=dict)
    text: bool = False


_EDGE_TYPE, _MODE = "directed|undirected|mutual", "static|dynamic"
_VALUES = {
    "integer": r"-?\d+", "long": r"-?\d+", "double": _FLOAT, "float": _FLOAT, "boolean": "true|false|1|0",
    "string": _ANY, "liststring": _ANY, "anyURI": _ANY,
}  # fmt: skip
RULES: Mapping[str, Rule] = {
    f"{GEXF}gexf": Rule({"meta": 1, "graph": 1}, {"version": r"1\.2"}, {"variant": _ANY, _XSI: _ANY}),
    f"{GEXF}meta": Rule({"creator": None, "keywords": None, "description": None},
                        optional={"lastmodifieddate": r"\d{4}-\d\d-\d\d"}),
    f"{GEXF}creator": Rule(text=True),
    f"{GEXF}keywords": Rule(text=True),
    f"{GEXF}description": Rule(text=True),
    f"{GEXF}graph": Rule({"attributes": None, "nodes": None, "edges": None},
                         optional={"defaultedgetype": _EDGE_TYPE, "idtype": "integer|string", "mode": _MODE}),
    f"{GEXF}attributes": Rule({"attribute": None}, {"class": "node|edge"}, {"mode": _MODE}),
    f"{GEXF}attribute": Rule({"default": 1, "options": 1}, {"id": _ANY, "title": _ANY, "type": "|".join(_VALUES)}),
    f"{GEXF}default": Rule(text=True),
    f"{GEXF}options": Rule(text=True),
    f"{GEXF}nodes": Rule({"node": None}, optional={"count": _COUNT}),
    f"{GEXF}edges": Rule({"edge": None}, optional={"count": _COUNT}),
    f"{GEXF}node": Rule({"attvalues": 1, "viz:color": 1, "viz:position": 1, "viz:size": 1, "viz:shape": 1},
                        {"id": _ANY}, {"label": _ANY}),
    f"{GEXF}edge": Rule({"attvalues": 1, "viz:color": 1, "viz:thickness": 1, "viz:shape": 1},
                        {"id": _ANY, "source": _ANY, "target": _ANY},
                        {"type": _EDGE_TYPE, "label": _ANY, "weight": _FLOAT}),
    f"{GEXF}attvalues": Rule({"attvalue": None}),
    f"{GEXF}attvalue": Rule({}, {"for": _ANY, "value": _ANY}),
    f"{VIZ}color": Rule({}, {"r": _CHANNEL, "g": _CHANNEL, "b": _CHANNEL}, {"a": r"0(\.\d+)?|1(\.0+)?"}),
    f"{VIZ}size": Rule({}, {"value": r"\d+(\.\d+)?"}),
}  # fmt: skip


def faults(root: Element) -> list[str]:
    """What the schema would say of the document; and what it cannot say: ids, and values of their type."""
    return [*_elements(root, f"{GEXF}gexf"), *_references(root)]


def _elements(element: Element, tag: str) -> Iterator[str]:
    rule = RULES.get(element.tag)
    if element.tag != tag or rule is None:
        yield f"{element.tag} stands where {tag} should"
        return
    known = {**rule.required, **rule.optional}
    yield from (f"{tag} lacks {name}" for name in rule.required.keys() - element.attrib.keys())
    for name, value in element.attrib.items():
        if not re.fullmatch(known.get(name, "(?!)"), value):
            yield f"{tag}: {name}={value!r}"
    if not rule.text and (element.text or "").strip():
        yield f"{tag} has text"
    counts: dict[str, int] = {}
    for child in element:
        short = child.tag.replace(VIZ, "viz:").replace(GEXF, "")
        counts[short] = counts.get(short, 0) + 1
        if short not in rule.children:
            yield f"{tag}: {short} may not stand there"
        yield from _elements(child, child.tag)
    for name, most in rule.children.items():
        if most is not None and counts.get(name, 0) > most:
            yield f"{tag}: {counts[name]} times {name}"


def _references(root: Element) -> Iterator[str]:
    nodes, edges = list(root.iter(f"{GEXF}node")), list(root.iter(f"{GEXF}edge"))
    ids = {node.get("id") for node in nodes}
    for what, found in (("node", nodes), ("edge", edges)):
        if len({each.get("id") for each in found}) != len(found):
            yield f"two {what}s have one id"
        types = {each.get("id"): each.get("type", "") for declared in root.iter(f"{GEXF}attributes")
                 if declared.get("class") == what for each in declared}  # fmt: skip
        for each in found:
            for value in each.iter(f"{GEXF}attvalue"):
                if not re.fullmatch(_VALUES.get(types.get(value.get("for"), ""), "(?!)"), value.get("value", "")):
                    yield f"{what} {each.get('id')}: {value.attrib} is not of its type"
    for edge in edges:
        if not {edge.get("source"), edge.get("target")} <= ids:
            yield f"edge {edge.get('id')} ends nowhere"
