"""GET /topology and what is asked of it, through the real server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import networkx
import pytest
from pydantic import TypeAdapter

from controller.api import topology as api_topology
from controller.errors import StoreError
from tests.api.fake_fleet import Served
from tests.api.http_talk import Answer, ask
from tests.graph.graph_fleets import links, many, two_hosts
from topology.graph.answers import Failure, Neighbours, Shared, Way
from topology.graph.exports import write_dot
from topology.graph.nodes import Heard
from topology.graph.topology import Topology

PATH = "/api/v1/topology"


@pytest.fixture(autouse=True)
def _fleet(served: Served) -> None:
    served.fleet.graph = two_hosts()
    served.fleet.sequence = 12


def get(served: Served, rest: str = "") -> Answer:
    return ask(served.port, "GET", PATH + rest)


def test_json_is_the_default_and_says_of_which_moment_it_is(served: Served) -> None:
    answer = get(served)
    assert answer.headers["content-type"] == "application/json"
    graph = networkx.node_link_graph(answer.json, edges="edges")
    assert graph.graph["sequence"] == 12
    assert graph.nodes["host:kvm01"]["state"] == "up"
    fleet = two_hosts()
    assert dict(graph.nodes(data=True)) == dict(fleet.topology(12, links(fleet)).graph().nodes(data=True))


def test_every_format(served: Served) -> None:
    assert get(served, "?format=json").json == get(served).json
    for name, media in (("graphml", "application/graphml+xml"), ("gexf", "application/gexf+xml")):
        answer = get(served, f"?format={name}")
        assert answer.headers["content-type"].startswith(media)
        ElementTree.fromstring(answer.body)
    assert get(served, "?format=dot").body.startswith(b'graph "fleetswitch" {')


def test_a_drawing_for_a_browser(served: Served) -> None:
    answer = get(served, "?format=svg&network=lan")
    assert answer.headers["content-type"] == "image/svg+xml; charset=utf-8"
    # its style sheet may count, and nothing else in it
    assert answer.headers["content-security-policy"] == (
        "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
    )
    assert ElementTree.fromstring(answer.body).tag == "{http://www.w3.org/2000/svg}svg"
    assert "style-src" not in get(served).headers["content-security-policy"]


@pytest.mark.parametrize("form", ["visio", "png"])
def test_a_format_that_does_not_exist(served: Served, form: str) -> None:
    answer = get(served, f"?format={form}")
    assert answer.status == 400
    assert answer.json["problems"][0]["remedy"] == "one of: json, graphml, gexf, dot, svg"


def test_filters(served: Served) -> None:
    nodes = {node["id"] for node in get(served, "?network=lan&host=kvm02").json["nodes"]}
    assert {"network:lan", "host:kvm02", "physical:physnet1"} <= nodes
    assert not nodes & {"network:backend", "host:kvm01", "tunnel:kvm02"}
    missing = get(served, "?host=kvm09")
    assert (missing.status, missing.json["detail"]) == (404, "there is no Host kvm09")


@pytest.mark.parametrize(
    ("rest", "kind"),
    [
        ("/neighbours/kvm01", Neighbours),
        ("/neighbours/kvm01/ens224", Neighbours),
        (f"/shares/{quote('web1/backend', safe='')}", Shared),
        ("/fails/kvm01", Failure),
        ("/path?from=web1&to=db1", Way),
        ("/path?from=web2&to=db1", Way),
    ],
)
def test_answers_are_those_that_are_described(served: Served, rest: str, kind: type[Any]) -> None:
    answer = get(served, rest)
    assert answer.status == 200, answer.body
    found = TypeAdapter(kind).validate_json(answer.body)
    assert found.sequence == 12
    described = ask(served.port, "GET", "/openapi.json").json["components"]["schemas"][kind.__name__]
    assert set(answer.json) == set(described["properties"])


def test_nodes_and_edges_are_those_that_are_described(served: Served) -> None:
    schemas = ask(served.port, "GET", "/openapi.json").json["components"]["schemas"]
    kinds = {schema["properties"]["kind"]["const"]: schema for name, schema in schemas.items()
             if name.endswith("Node")}  # fmt: skip
    heard = Heard("00:1b:21:00:00:01", "Gi1/0/1", "to kvm01", "sw1", "a switch", 20, 121)
    served.fleet.heard = {"kvm01": {"physnet1": [heard]}}
    answer = get(served).json
    assert {node["kind"] for node in answer["nodes"]} == set(kinds)
    for node in answer["nodes"]:
        assert set(node) == set(kinds[node["kind"]]["properties"])
    assert all(set(edge) == set(schemas["Edge"]["properties"]) for edge in answer["edges"])
    assert set(answer) == set(schemas["Topology"]["properties"])


@pytest.mark.parametrize(
    ("rest", "status", "what"),
    [
        ("/neighbours/nobody", 404, "nothing is called 'nobody'"),
        ("/fails/lan", 422, "is a network, which does not fail by itself"),
        ("/path?from=web1", 400, "?to is missing"),
        ("/path?from=web1&to=nobody", 404, "nothing is called 'nobody'"),
        ("/shares/web1?host=kvm01", 400, "?host is not known"),
    ],
)
def test_what_cannot_be_answered(served: Served, rest: str, status: int, what: str) -> None:
    answer = get(served, rest)
    assert (answer.status, answer.json["problems"][0]["what"]) == (status, what)


def test_a_controller_that_fails(served: Served) -> None:
    served.fleet.failure = StoreError("is away", where="store")
    assert get(served).status == 503
    assert get(served, "/fails/kvm01").status == 503


def test_only_so_many_at_once(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_topology, "PATIENCE", 0.05)
    begun, go_on = threading.Semaphore(0), threading.Event()

    def slow(topology: Topology) -> Iterator[str]:
        begun.release()
        assert go_on.wait(20)
        yield from write_dot(topology)

    monkeypatch.setitem(api_topology._FORMATS, "dot", ("text/vnd.graphviz", slow))  # type: ignore[arg-type]
    answers: list[int] = []
    asking = [threading.Thread(target=lambda: answers.append(get(served, "?format=dot").status)) for _ in range(2)]
    for thread in asking:
        thread.start()
    assert all(begun.acquire(timeout=20) for _ in asking)
    busy = get(served, "/shares/web1")
    assert (busy.status, busy.json["type"]) == (503, "urn:fleetswitch:problem:busy")
    assert ask(served.port, "GET", "/healthz").status == 200
    go_on.set()
    for thread in asking:
        thread.join(20)
    assert answers == [200, 200]
    assert get(served, "/shares/web1").status == 200


def test_a_large_fleet_is_whole(served: Served) -> None:
    served.fleet.graph = many(40, 400)
    assert len(get(served).json["nodes"]) == len(served.fleet.graph.topology().nodes)


def test_hostile_names_come_through(served: Served, tmp_path: Path) -> None:
    name = 'evil"<&>\x1b[2J😀'
    served.fleet.graph.vnic(name, 90, "kvm01", "backend")
    assert name in {node["label"] for node in json.loads(get(served).body)["nodes"]}
    found = get(served, f"/neighbours/{quote(name, safe='')}").json
    assert found["place"]["label"] == name
