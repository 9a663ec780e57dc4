"""What happened: as a list, and as server-sent events (HTML standard, 9.2) that go on where the client was.

A stream that waits holds a thread of the server, so few wait at once, and each for a while: then it ends, and the
client comes again with Last-Event-ID, as every EventSource does by itself. Who finds no place is answered at once with
what there is, and comes again a little later: it hears the same, and keeps nobody from being answered.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from flask import Response, request
from flask.typing import ResponseReturnValue

from controller.api import endpoints as e
from controller.api.endpoints import PREFIX, Endpoint
from controller.api.operations import Operations
from controller.api.pages import page
from controller.api.problems import Refused
from controller.api.queries import Parameter, Query, read_query
from controller.history import Event, EventFilter, Found

Call = Callable[[Coroutine[Any, Any, Any]], Any]

STREAM = "text/event-stream"
MOST_FOLLOWING = 6
STREAM_SECONDS = 60.0
COMMENT_SECONDS = 10.0  # the server closes what is silent for longer than 30 s
SLICE = 2.0
GAP = "Gap"  # an event that says that others between are not kept any more
_SOON, _LATER = 200, 2000  # milliseconds after which a client comes again

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_AGO = re.compile(r"(\d{1,9})([smhd])", re.ASCII)
_ID = re.compile(r"\d{1,17}", re.ASCII)

_FILTERS = (
    Parameter("kind", "text", "of objects of this kind: Host, Network, Port, Switch, Controller"),
    Parameter("name", "text", "of the object or the guest of this name"),
    Parameter("event", "text", "with this word, such as quarantined"),
    Parameter("host", "text", "that have to do with this Host"),
    Parameter("network", "text", "that have to do with this Network"),
    Parameter("about", "text", "that have to do with the Host, Network, Port or guest of this name"),
)
_QUERY = (
    *_FILTERS,
    Parameter("since", "text", "not before this time (RFC 3339), or so long ago: 90s, 15m, 2h, 7d"),
    Parameter("after", "count", "with a higher id than this"),
    Parameter("last", "count", "only the last so many of them"),
    e.LIMIT,
    e.OFFSET,
)


@dataclass(frozen=True, slots=True)
class EventInfo:
    """One thing that happened. ``id`` grows; ``time`` is RFC 3339, UTC. ``event`` is a word, ``message`` a sentence;
    ``generation`` the object's where it has one; ``host``, ``network`` and ``vm`` what it has to do with."""

    id: int
    time: str
    kind: str
    name: str
    event: str
    message: str
    generation: int | None
    host: str | None
    network: str | None
    vm: str | None


class EventRoutes:
    """The view over ``Operations.events``."""

    def __init__(self, call: Call, operations: Operations) -> None:
        self._call = call
        self._operations = operations
        self._places = threading.BoundedSemaphore(MOST_FOLLOWING)

    def endpoints(self) -> list[Endpoint]:
        return [Endpoint("GET", f"{PREFIX}/events", "listEvents", "What happened, the oldest first; or, with Accept: "
                         f"{STREAM}, what happens from now on or after Last-Event-ID", self.events, "EventInfo",
                         listed=True, query=_QUERY, media=("application/json", STREAM))]  # fmt: skip

    def events(self) -> ResponseReturnValue:
        query = read_query(_QUERY)
        wanted = _filter(query)
        if request.accept_mimetypes.best_match(("application/json", STREAM)) == STREAM:
            return self._stream(wanted)
        found = self._find(wanted, 0.0).events
        last = query.count("last", len(found))
        return page([event_document(event) for event in found[max(0, len(found) - last) :]], query)

    def _find(self, wanted: EventFilter, seconds: float) -> Found:
        found: Found = self._call(self._operations.events(wanted, seconds))
        return found

    def _stream(self, wanted: EventFilter) -> Response:
        """From Last-Event-ID on; without one from ``after`` or ``since`` on; without these, from now on."""
        if (last := request.headers.get("Last-Event-ID")) is not None:
            if not _ID.fullmatch(last):
                raise Refused(HTTPStatus.BAD_REQUEST, "malformed", f"{last!r:.80} is no id of an event",
                              "send the id of the last event that was read", "Last-Event-ID")  # fmt: skip
            wanted = replace(wanted, after=int(last))
        elif not wanted.after and not wanted.since:
            wanted = replace(wanted, after=self._find(replace(wanted, since=float("inf")), 0.0).last)
        gone = request.environ.get("waitress.client_disconnected", bool)
        stopping = request.environ.get(e.STOPPING, bool)
        return Response(self._pieces(wanted, lambda: gone() or stopping()), content_type=STREAM)

    def _pieces(self, wanted: EventFilter, is_over: Callable[[], bool]) -> Iterator[str]:
        has_place = self._places.acquire(blocking=False)
        try:
            seconds = STREAM_SECONDS if has_place else 0.0
            # An id without data moves the client's Last-Event-ID, and nothing else.
            yield f"retry: {_SOON if has_place else _LATER}\nid: {wanted.after}\n\n"
            start = spoken = time.monotonic()
            while True:
                found = self._find(wanted, min(SLICE, seconds))
                if 0 < wanted.after < found.oldest:
                    gap = {"after": wanted.after, "oldest": found.oldest}
                    yield f"event: {GAP}\ndata: {json.dumps(gap)}\n\n"
                for event in found.events:
                    yield f"id: {event.id}\nevent: {event.kind}\ndata: {json.dumps(event_document(event))}\n\n"
                wanted = replace(wanted, after=max(wanted.after, found.last))
                now = time.monotonic()
                if is_over() or now - start >= seconds:
                    break
                if found.events:
                    spoken = now
                elif now - spoken >= COMMENT_SECONDS:
                    yield ": nothing happened\n\n"
                    spoken = now
            yield f"id: {wanted.after}\n\n"
        finally:
            if has_place:
                self._places.release()


def event_document(event: Event) -> dict[str, Any]:
    """The event as the API shows it."""
    moment = datetime.fromtimestamp(event.time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {**asdict(event), "time": moment}


def _filter(query: Query) -> EventFilter:
    given: Mapping[str, str] = query.texts()
    texts = {parameter.name: given.get(parameter.name, "") for parameter in _FILTERS}
    since = _moment(given["since"]) if given.get("since") else 0.0
    return EventFilter(**texts, since=since, after=query.count("after", 0))


def _moment(text: str) -> float:
    """Seconds since 1970 of a time, or of so long ago. Raises Refused."""
    if ago := _AGO.fullmatch(text):
        return time.time() - int(ago[1]) * _UNITS[ago[2]]
    try:
        found = datetime.fromisoformat(text.replace(" ", "+"))  # the plus of an offset, as a query carries it
        return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise Refused(HTTPStatus.BAD_REQUEST, "query", f"?since {text!r:.80} is no time",
                      "2026-01-31T08:00:00Z, or so long ago: 90s, 15m, 2h, 7d", "?since") from None  # fmt: skip
