"""What is exported is read back as it was: by networkx, by Graphviz, by the rules of GEXF; hostile names included."""

from __future__ import annotations

import io
import json
import re
import subprocess
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import networkx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.graph.gexf_rules import GEXF, faults
from tests.graph.graph_fleets import FleetRows, links, many, two_hosts
from topology.graph.exports import write_dot, write_json
from topology.graph.nodes import Heard
from topology.graph.topology import Topology
from topology.graph.xml_exports import printable, write_gexf, write_graphml

EVIL = 'a"b\\"<c>&amp;&#65;\x1b[2J\x00\u202e\ud800 😀\\N\\n--{}; \\'


def hostile(name: str = EVIL) -> Topology:
    fleet = two_hosts()
    fleet.vnic(name, 200, "kvm01", "backend", reason=name, state="quarantined", tap=name)
    found = links(fleet, kvm01={"ovsdb": ("down", name)})
    heard = Heard(name, name, name, name, name, 20, 120)
    found["kvm01"] = replace(found["kvm01"], heard={"physnet1": [heard]})
    return fleet.topology(5, found)


FLEETS = {
    "small": two_hosts().topology(3),
    "larger": many(8, 60).topology(4, links(many(8, 60))),
    "hostile": hostile(),
    "empty": FleetRows().topology(0),
}


@pytest.fixture(params=FLEETS)
def topology(request: pytest.FixtureRequest) -> Topology:
    return FLEETS[request.param]


def plain(topology: Topology) -> Any:
    """The graph with what XML can carry of each text."""
    graph = topology.graph()
    for data in (*(each[1] for each in graph.nodes(data=True)), *(each[2] for each in graph.edges(data=True))):
        for key, value in list(data.items()):
            if value is None:
                del data[key]
            elif isinstance(value, list):
                data[key] = " ".join(map(str, value))
            elif isinstance(value, str):
                data[key] = printable(value)
    return graph


def same(one: Any, other: Any) -> bool:
    return (dict(one.nodes(data=True)) == dict(other.nodes(data=True))
            and {frozenset(e[:2]): e[2] for e in one.edges(data=True)}
            == {frozenset(e[:2]): e[2] for e in other.edges(data=True)})  # fmt: skip


def test_json_is_read_by_networkx(topology: Topology) -> None:
    text = "".join(write_json(topology)).encode()
    graph = networkx.node_link_graph(json.loads(text), edges="edges")
    assert same(graph, topology.graph())
    assert graph.graph == {"name": "fleetswitch", "sequence": topology.sequence}


def test_graphml_is_read_by_networkx(topology: Topology) -> None:
    data = io.BytesIO("".join(write_graphml(topology)).encode())
    graph = networkx.read_graphml(data)
    assert same(graph, plain(topology))
    assert graph.graph["sequence"] == topology.sequence


def test_gexf_is_read_by_networkx(topology: Topology) -> None:
    graph = networkx.read_gexf(io.BytesIO("".join(write_gexf(topology)).encode()))
    for _, data in graph.nodes(data=True):
        assert data.pop("viz").keys() >= {"color", "size"}
    for *_, data in graph.edges(data=True):
        del data["id"]
    assert same(graph, plain(topology))


def test_gexf_follows_the_rules_of_its_schema(topology: Topology) -> None:
    root = ElementTree.fromstring("".join(write_gexf(topology)).encode())
    assert faults(root) == []
    assert len(list(root.iter(f"{GEXF}node"))) == len(topology.nodes)
    assert len(list(root.iter(f"{GEXF}edge"))) == len(topology.edges)
    assert all(node.get("label") for node in root.iter(f"{GEXF}node"))
    assert f"change {topology.sequence}" in (root.findtext(f"{GEXF}meta/{GEXF}description") or "")
    graph = root.find(f"{GEXF}graph")
    assert graph is not None
    assert (graph.get("defaultedgetype"), graph.get("mode")) == ("undirected", "static")


def test_the_rules_find_what_is_wrong() -> None:
    text = "".join(write_gexf(two_hosts().topology(3)))
    for right, wrong in (
        ('mode="static">\n    <attributes', 'mode="static" name="x">\n    <attributes'), ('r="68"', 'r="256"'),
        ('type="string"', 'type="text"'), ("<nodes>", "<nodes><graph/>"), ('value="12.0"', 'value="-1"'),
        ('source="', 'source="x'), ('id="1" source', 'id="0" source'), ("</attvalues>", "<viz:size/></attvalues>"),
    ):  # fmt: skip
        assert right in text
        assert faults(ElementTree.fromstring(text.replace(right, wrong, 1).encode())), wrong


def test_dot_is_read_by_graphviz(topology: Topology) -> None:
    text = "".join(write_dot(topology))
    done = subprocess.run(["dot", "-Tdot_json"], input=text, capture_output=True, encoding="utf-8", timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout, strict=False)
    nodes = {each["name"] for each in found.get("objects", ()) if not each["name"].startswith("cluster ")}
    assert nodes == set(topology.nodes)
    assert len(found.get("edges", ())) == len(topology.edges)


def test_lines_go_from_left_to_right(topology: Topology) -> None:
    # dot gives up on large drawings in which some go back
    order = ["host", "guest", "vnic", "bridge", "uplink", "tunnel", "physical", "device", "underlay", "network"]
    found = re.findall(r'^  "(\w+):.*" -- "(\w+):', "".join(write_dot(topology)), re.MULTILINE)
    assert len(found) == len(topology.edges)
    assert all(order.index(one) <= order.index(other) for one, other in found)


def test_graphviz_shows_hostile_names_as_they_are() -> None:
    name = 'a"b\\N<c>&amp;&#65; 😀\\'
    dot = "".join(write_dot(hostile(name)))
    done = subprocess.run(["dot", "-Tsvg"], input=dot, capture_output=True, encoding="utf-8", check=True, timeout=60)
    texts = {element.text for element in ElementTree.fromstring(done.stdout).iter() if element.tag.endswith("text")}
    assert name in {(text or "").replace("\xa0", " ") for text in texts}


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(), min_size=1, max_size=30))
def test_no_name_breaks_a_format(name: str) -> None:
    topology = hostile(name)
    assert same(networkx.node_link_graph(json.loads("".join(write_json(topology))), edges="edges"), topology.graph())
    for write in (write_graphml, write_gexf):
        root = ElementTree.fromstring("".join(write(topology)).encode())
        # a parser of XML makes one line end of several kinds (XML 1.0, 2.11)
        shown = re.sub("\r\n?", "\n", printable(name))
        texts = {element.text for element in root.iter()} | {
            v for element in root.iter() for v in element.attrib.values()
        }
        assert {shown, shown.replace("\n", " ").replace("\t", " ")} & {re.sub("\r\n?", "\n", t) for t in texts if t}
