"""The routes under /api/v1/topology: the graph in several formats, and what can be asked of it.

The controller gives a value of one moment; formats and answers are made from it here, in the server's threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from http import HTTPStatus
from typing import Any

from flask import Response, jsonify
from flask.typing import ResponseReturnValue

from controller.api.endpoints import PREFIX, Endpoint
from controller.api.operations import Operations
from controller.api.problems import Refused
from controller.api.queries import Parameter, read_query
from topology.graph import queries
from topology.graph.exports import write_dot, write_json
from topology.graph.picture.svg import write_svg
from topology.graph.topology import Topology
from topology.graph.xml_exports import write_gexf, write_graphml

Call = Callable[[Coroutine[Any, Any, Any]], Any]
Write = Callable[[Topology], Iterator[str]]

PATH = f"{PREFIX}/topology"

MOST_AT_ONCE = 2
PATIENCE = 3.0  # seconds that a request waits for its turn

_CHUNK = 64 * 1024

_FORMATS: Mapping[str, tuple[str, Write]] = {
    "json": ("application/json", write_json),
    "graphml": ("application/graphml+xml", write_graphml),
    "gexf": ("application/gexf+xml", write_gexf),
    "dot": ("text/vnd.graphviz", write_dot),
    "svg": ("image/svg+xml", write_svg),
}
# A drawing has its style sheet in it, and nothing else that a browser would obey.
DRAWING = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"}
_QUERY = (
    Parameter(
        "format", "text", "json (node-link) when absent; a PNG is made of svg, by rsvg-convert", choices=tuple(_FORMATS)
    ),
    Parameter("network", "text", "only what concerns this Network"),
    Parameter("host", "text", "only what concerns this Host"),
)
_ENDS = (
    Parameter("from", "text", "a node, by any of its names", required=True),
    Parameter("to", "text", "a node, by any of its names", required=True),
)

_ASKED: tuple[tuple[str, str, str, Callable[[Topology, str], Any]], ...] = (
    ("neighbours", "Neighbours", "What a node is connected with", queries.neighbours),
    ("shares", "Shared", "Who is in a segment with a node's vNICs", queries.shares),
    ("fails", "Failure", "What fails when a node does", queries.fails),
)


class TopologyRoutes:
    """The views, over one controller. ``call`` runs a coroutine on the controller's loop and returns its result."""

    def __init__(self, call: Call, operations: Operations) -> None:
        self._call = call
        self._operations = operations
        self._turns = threading.BoundedSemaphore(MOST_AT_ONCE)

    def endpoints(self) -> list[Endpoint]:
        """Every route."""
        found = [
            Endpoint("GET", PATH, "topology", "The fleet as a graph", self.export, "Topology", query=_QUERY,
                     statuses=(200, 404), media=tuple(media for media, _ in _FORMATS.values())),
            Endpoint("GET", f"{PATH}/path", "topologyPath", "The way between two nodes", self.path, "Way", query=_ENDS,
                     statuses=(200, 404)),
        ]  # fmt: skip
        for word, answer, summary, ask in _ASKED:
            name = f"topology{word.capitalize()}"
            found.append(Endpoint("GET", f"{PATH}/{word}/<path:name>", name, summary, partial(self.ask, ask), answer,
                                  statuses=(200, 404)))  # fmt: skip
        return found

    def export(self) -> ResponseReturnValue:
        query = read_query(_QUERY).texts()
        form = query.get("format", "json")
        media, write = _FORMATS[form]
        with self._turn():
            topology = self._now()
            if "network" in query or "host" in query:
                topology = topology.narrowed(query.get("network"), query.get("host"))
            chunks = list(_chunks(write(topology)))
        charset = "" if form == "json" else "; charset=utf-8"
        headers = DRAWING if form == "svg" else {}
        return Response(chunks, content_type=media + charset, headers=headers)

    def path(self) -> ResponseReturnValue:
        query = read_query(_ENDS).texts()
        with self._turn():
            return jsonify(asdict(queries.path(self._now(), query["from"], query["to"])))

    def ask(self, query: Callable[[Topology, str], Any], name: str) -> ResponseReturnValue:
        read_query(())
        with self._turn():
            return jsonify(asdict(query(self._now(), name)))

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """A large fleet keeps the interpreter busy for a second or two: only so many at once, for the loop's sake."""
        if not self._turns.acquire(timeout=PATIENCE):
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "busy", f"{MOST_AT_ONCE} others ask for the topology already",
                          "ask again in a moment")  # fmt: skip
        try:
            yield
        finally:
            self._turns.release()

    def _now(self) -> Topology:
        found: Topology = self._call(self._operations.topology())
        return found


def _chunks(pieces: Iterable[str]) -> Iterator[str]:
    """The same text in pieces of some size: each is a call of the server's."""
    chunk: list[str] = []
    size = 0
    for piece in pieces:
        chunk.append(piece)
        size += len(piece)
        if size > _CHUNK:
            yield "".join(chunk)
            chunk, size = [], 0
    yield "".join(chunk)
