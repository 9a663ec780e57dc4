"""The routes that read switches: flows, explanations, groups and meters."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from http import HTTPStatus
from typing import Any, get_args

from flask import Response, jsonify, request
from flask.typing import ResponseReturnValue

from controller.api import endpoints as e
from controller.api.endpoints import PREFIX, Endpoint
from controller.api.inspection import FlowFilter, FlowInfo, Inspections
from controller.api.pages import flat, page
from controller.api.problems import Refused
from controller.api.queries import Parameter, Query, read_query
from controller.api.readers import Readers
from controller.api.topology import DRAWING
from controller.api.tracing import Protocol, Question
from controller.api.whereabouts import Counters, Fdb, LeaseInfo
from controller.pipeline.cookies import read_cookie
from controller.table_picture import write_walk

Call = Callable[[Coroutine[Any, Any, Any]], Any]

MOST_RATE = 30  # seconds between two readings: a thread of the server waits meanwhile
_SLICE = 0.2
_EVERY = "every host"

_FLOW_QUERY = (
    Parameter("table", "text", "of this table"),
    Parameter("app", "text", "of this app"),
    Parameter("owner", "text", "installed by", choices=("fleetswitch", "learned", "foreign")),
    Parameter("match", "text", "whose match contains this text"),
    Parameter("cookie", "text", "with this cookie"),
    Parameter("network", "text", "that have to do with this Network"),
    Parameter("guest", "text", "that have to do with this guest: its name or UUID"),
    Parameter("port", "text", "that have to do with this vNIC: its Port, MAC or interface"),
    Parameter("state", "text", "what is as it should be, what no row wants, what is wanted and not there",
              choices=("installed", "extra", "missing")),
    Parameter("raw", "flag", "with the text that ovs-ofctl takes"),
    Parameter("rate", "seconds", f"two readings so far apart, for rates; at most {MOST_RATE}"),
    e.ANY_LIMIT,
    e.OFFSET,
)  # fmt: skip
_TRACE_QUERY = (
    Parameter("from", "text", "who sends: a guest, Port, MAC, address, or outside", required=True),
    Parameter("to", "text", "who it is for: a guest, Port, MAC, address, or outside", required=True),
    Parameter("protocol", "text", "of the packet; icmp when absent", choices=get_args(Protocol)),
    Parameter("port", "count", "the TCP or UDP port that it is for", most=65535),
    Parameter("from_port", "count", "the TCP or UDP port that it comes from", most=65535),
    Parameter("ipv6", "flag", "IPv6; arp is a neighbour solicitation then"),
    Parameter("vlan", "count", "the tag that the sender puts on", most=4094),
    Parameter("from_address", "text", "an IP source other than the sender's own"),
    Parameter("from_mac", "text", "an Ethernet source other than the sender's own"),
    Parameter("to_mac", "text", "an Ethernet destination other than the target's"),
)
_SVG = "image/svg+xml"
_FORMAT = Parameter("format", "text", "json when absent", choices=("json", "svg"))
_HOST = Parameter("host", "text", "on this host alone")


class ReadingRoutes:
    """The views over ``Inspections``. ``place`` is one of the few places that waiting requests have; who reads a switch
    has one of its own kind."""

    def __init__(self, call: Call, inspections: Inspections, place: Callable[[], AbstractContextManager[None]]) -> None:
        self._call = call
        self._inspections = inspections
        self._place = place
        self._readers = Readers()

    def endpoints(self) -> list[Endpoint]:
        host = f"{PREFIX}/hosts/<name>"
        paged = (e.ANY_LIMIT, e.OFFSET)
        return [
            Endpoint("GET", f"{host}/flows", "flowsOfHost", "The flows that a host's switch has now", self.flows,
                     "FlowInfo", listed=True, query=_FLOW_QUERY, statuses=(200, 404, 502)),
            Endpoint("GET", f"{host}/groups", "groupsOfHost", "The groups of a host's bridge", self.groups, "GroupInfo",
                     listed=True, query=paged, statuses=(200, 404, 502)),
            Endpoint("GET", f"{host}/meters", "metersOfHost", "The meters of a host's bridge", self.meters, "MeterInfo",
                     listed=True, query=paged, statuses=(200, 404, 502)),
            Endpoint("GET", f"{host}/walk", "walkOfHost", "How many packets each table of a host sent to which",
                     self.walk, "TableWalk", query=(_FORMAT,), statuses=(200, 404, 502),
                     media=("application/json", _SVG)),
            Endpoint("GET", f"{PREFIX}/flows/<cookie>", "explainFlow", "What flows with a cookie do, why, and where",
                     self.explain, "Explanation", query=(_HOST,), statuses=(200, 404, 502)),
            Endpoint("GET", f"{PREFIX}/networks/<name>/fdb", "fdbOfNetwork", "Who is where in a network: vNICs, and "
                     "MACs that switches have learned", self.fdb, "Fdb", statuses=(200, 404)),
            Endpoint("GET", f"{PREFIX}/networks/<name>/leases", "leasesOfNetwork", "Addresses that guests have by DHCP",
                     self.leases, "LeaseInfo", listed=True, query=paged, statuses=(200, 404)),
            Endpoint("GET", f"{PREFIX}/counters", "listCounters", "What the ports of the switches have met",
                     self.counters, "Counters", query=(_HOST,), statuses=(200, 404)),
            Endpoint("GET", f"{PREFIX}/trace", "tracePacket", "Where a packet goes, by the flows that switches have",
                     self.trace, "Trace", query=_TRACE_QUERY, statuses=(200, 404, 502)),
        ]  # fmt: skip

    def flows(self, name: str) -> ResponseReturnValue:
        query = read_query(_FLOW_QUERY)
        wanted = _filter(query)
        found: Sequence[FlowInfo] = self._read(name, lambda: self._inspections.flows(name, wanted))
        if seconds := query.number("rate"):
            found = self._again(name, wanted, found, seconds)
        return page([*map(flat, found)], query, most=None)  # each page would be read from the switch again

    def explain(self, cookie: str) -> ResponseReturnValue:
        host = read_query((_HOST,)).texts().get("host")
        return jsonify(asdict(self._read(host or _EVERY, lambda: self._inspections.explain(read_cookie(cookie), host))))

    def fdb(self, name: str) -> ResponseReturnValue:
        read_query(())
        found: Fdb = self._read(_EVERY, lambda: self._inspections.fdb(name))
        return jsonify(flat(found) | {"entries": [*map(flat, found.entries)], "unread": [*map(flat, found.unread)]})

    def leases(self, name: str) -> ResponseReturnValue:
        query = read_query((e.ANY_LIMIT, e.OFFSET))
        found: Sequence[LeaseInfo] = self._read(_EVERY, lambda: self._inspections.leases(name))
        return page([*map(flat, found)], query, most=None)

    def counters(self) -> ResponseReturnValue:
        host = read_query((_HOST,)).texts().get("host")
        found: Counters = self._read(host or _EVERY, lambda: self._inspections.counters(host))
        return jsonify(flat(found) | {"ports": [*map(flat, found.ports)], "unread": [*map(flat, found.unread)]})

    def groups(self, name: str) -> ResponseReturnValue:
        query = read_query((e.ANY_LIMIT, e.OFFSET))
        return page(
            [asdict(group) for group in self._read(name, lambda: self._inspections.groups(name))], query, most=None
        )

    def meters(self, name: str) -> ResponseReturnValue:
        query = read_query((e.ANY_LIMIT, e.OFFSET))
        return page(
            [asdict(meter) for meter in self._read(name, lambda: self._inspections.meters(name))], query, most=None
        )

    def walk(self, name: str) -> ResponseReturnValue:
        form = read_query((_FORMAT,)).texts().get("format", "json")
        found = self._read(name, lambda: self._inspections.walk(name))
        if form == "json":
            return jsonify(asdict(found))
        return Response("".join(write_walk(found)), content_type=f"{_SVG}; charset=utf-8", headers=DRAWING)

    def trace(self) -> ResponseReturnValue:
        query = read_query(_TRACE_QUERY)
        question = _question(query)
        return jsonify(asdict(self._read(_EVERY, lambda: self._inspections.trace(question))))

    def _read(self, host: str, reading: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """What a host's switch says."""
        with self._readers.reading(host):
            return self._call(reading())

    def _again(self, name: str, wanted: FlowFilter, before: Iterable[FlowInfo], seconds: float) -> list[FlowInfo]:
        """The flows a while later, with what each has met meanwhile."""
        if seconds > MOST_RATE:
            raise Refused(HTTPStatus.BAD_REQUEST, "query", f"?rate {seconds:g} is too long", f"at most {MOST_RATE}",
                          "?rate")  # fmt: skip
        start = time.monotonic()
        stopping = request.environ.get(e.STOPPING, bool)
        with self._place():
            while (left := start + seconds - time.monotonic()) > 0 and not stopping():
                time.sleep(min(left, _SLICE))
            found: list[FlowInfo] = self._read(name, lambda: self._inspections.flows(name, wanted))
        return rated(before, found, time.monotonic() - start)


def rated(before: Iterable[FlowInfo], after: Iterable[FlowInfo], seconds: float) -> list[FlowInfo]:
    """The later reading with rates; one that is new since then, or began to count anew, has met what it counts."""
    known = {_key(flow): flow for flow in before}
    found = []
    for flow in after:
        old = known.get(_key(flow))
        fresh = old is None or old.packets > flow.packets
        packets = flow.packets - (0 if fresh or old is None else old.packets)
        octets = flow.bytes - (0 if fresh or old is None else old.bytes)
        found.append(replace(flow, packet_rate=packets / seconds, byte_rate=octets / seconds))
    return found


def _key(flow: FlowInfo) -> tuple[str, int, str, str]:
    return flow.table, flow.priority, flow.match, flow.cookie


def _filter(query: Query) -> FlowFilter:
    texts = query.texts()
    if "cookie" in texts:
        texts["cookie"] = f"{read_cookie(texts['cookie']):#x}"
    return FlowFilter(raw=query.flag("raw"), **texts)


def _question(query: Query) -> Question:
    """Raises Refused where a port is missing, or given where there are none."""
    texts = query.texts()
    numbers = {name: query.count(name, 0) for name in ("port", "from_port", "vlan") if name in query.values}
    with_ports = texts.get("protocol") in {"tcp", "udp"}
    if with_ports != ("port" in numbers):
        what = "is missing" if with_ports else "means nothing without protocol=tcp or udp"
        raise Refused(HTTPStatus.BAD_REQUEST, "query", f"?port {what}", "0 to 65535", "?port")
    source, target = texts.pop("from"), texts.pop("to")
    return Question(source, target, ipv6=query.flag("ipv6"), **texts, **numbers)  # type: ignore[arg-type]
