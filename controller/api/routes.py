"""The routes under /api/v1: requests in, calls of Operations, answers out."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from http import HTTPStatus
from typing import Any

from flask import Response, jsonify, request
from flask.typing import ResponseReturnValue

from controller.api import endpoints as e
from controller.api.bodies import read_document, read_documents, read_targets
from controller.api.definitions import DefinitionRoutes
from controller.api.endpoints import PREFIX, Endpoint, plural
from controller.api.guard import through
from controller.api.operations import Applied, Listing, Operations, Unconfirmed
from controller.api.pages import flat, page
from controller.api.problems import Refused
from controller.api.queries import Parameter, Query, read_if_match, read_query, select
from controller.api.reading import ReadingRoutes
from controller.api.statuses import STATUSES
from controller.errors import Conflict
from controller.model.kinds import KINDS

log = logging.getLogger(__name__)

Call = Callable[[Coroutine[Any, Any, Any]], Any]

# Who waits holds a thread of the server, as does who reads a switch: others must find one, health above all.
MOST_WAITING = 6
# One call into the controller is short however long the client waits, so that it may have a deadline of its own.
WAIT_SLICE = 2.0

_MOST_LOGGED = 8
_NOT_ASKED: Mapping[str, Any] = {"confirmed": None, "unconfirmed": [], "troubles": []}
_DOCTOR = (
    Parameter("host", "text", "of this host alone"),
    Parameter("severity", "text", "as bad as this", choices=("error", "warning", "info")),
    Parameter("check", "text", "found by this check, such as connection or mtu"),
    e.LIMIT,
    e.OFFSET,
)


class Routes:
    """The views, over one controller. ``call`` runs a coroutine on the controller's loop and returns its result."""

    def __init__(self, call: Call, operations: Operations) -> None:
        self._call = call
        self._operations = operations
        self._waiting = threading.BoundedSemaphore(MOST_WAITING)

    def endpoints(self) -> list[Endpoint]:
        """Every route, those of each kind included."""
        found = [
            Endpoint("POST", f"{PREFIX}/apply", "apply", "Make these objects as described, all or none", self.apply,
                     "Applied", body="Documents", query=(e.DRY_RUN, e.WAIT), statuses=(200, 202, 409, 413, 415)),
            Endpoint("POST", f"{PREFIX}/delete", "delete", "Delete these objects, all or none", self.delete_all,
                     "Applied", body="Targets", query=(e.FORCE, e.DRY_RUN, e.WAIT),
                     statuses=(200, 202, 404, 409, 413, 415)),
            Endpoint("GET", f"{PREFIX}/wait", "wait", "Wait until every switch has confirmed a change", self.wait,
                     "Confirmation", query=(e.SEQUENCE, e.WAIT), statuses=(200, 202)),
        ]  # fmt: skip
        for kind in KINDS:
            found += self._of_kind(kind)
        unknown = Endpoint("GET", f"{PREFIX}/unknown-switches", "listUnknownSwitches", "Switches that were turned away",
                           self.unknown_switches, "UnknownSwitch", listed=True, query=(e.LIMIT, e.OFFSET))  # fmt: skip
        doctor = Endpoint("GET", f"{PREFIX}/doctor", "doctor", "What is wrong, where, and what to type", self.doctor,
                          "Finding", listed=True, query=_DOCTOR, statuses=(200, 404))  # fmt: skip
        reading = ReadingRoutes(self._call, self._operations, self._place_to_wait)
        definitions = DefinitionRoutes(self._call, self._operations, self._change)
        return [*found, *definitions.endpoints(), *reading.endpoints(), unknown, doctor]

    def _of_kind(self, kind: str) -> list[Endpoint]:
        path = f"{PREFIX}/{plural(kind)}"
        one = f"{path}/<name>"
        query = (*filters(kind), e.LIMIT, e.OFFSET, e.AS_OF)
        return [
            Endpoint("GET", path, f"list{kind}s", f"All {kind}s", partial(self.list, kind, query), kind, listed=True,
                     query=query, statuses=(200, 409)),
            Endpoint("GET", one, f"get{kind}", f"One {kind}", partial(self.get, kind), kind, statuses=(200, 404)),
            Endpoint("PUT", one, f"put{kind}", f"Make a {kind} as described", partial(self.put, kind), "Applied",
                     body=f"{kind}Body", query=(e.DRY_RUN, e.WAIT), if_match=True,
                     statuses=(200, 202, 409, 413, 415)),
            Endpoint("DELETE", one, f"delete{kind}", f"Delete a {kind}", partial(self.delete, kind), "Applied",
                     query=(e.FORCE, e.DRY_RUN, e.WAIT, e.GENERATION), if_match=True, statuses=(200, 202, 404, 409)),
        ]  # fmt: skip

    def apply(self) -> ResponseReturnValue:
        query = read_query((e.DRY_RUN, e.WAIT))
        documents = read_documents()
        dry_run = query.flag("dry_run")
        return self._change(query, lambda: self._operations.apply(documents, dry_run))

    def put(self, kind: str, name: str) -> ResponseReturnValue:
        query = read_query((e.DRY_RUN, e.WAIT))
        document = read_document(kind, name)
        document = replace(document, generation=_one_generation(read_if_match(), document.generation))
        dry_run = query.flag("dry_run")
        return self._change(query, lambda: self._operations.apply([document], dry_run))

    def delete(self, kind: str, name: str) -> ResponseReturnValue:
        query = read_query((e.FORCE, e.DRY_RUN, e.WAIT, e.GENERATION))
        wanted = query.count("generation", -1)
        generation = _one_generation(read_if_match(), wanted if wanted >= 0 else None)
        force, dry_run = query.flag("force"), query.flag("dry_run")
        return self._change(query, lambda: self._operations.delete([(kind, name)], generation, force, dry_run))

    def delete_all(self) -> ResponseReturnValue:
        query = read_query((e.FORCE, e.DRY_RUN, e.WAIT))
        targets = read_targets()
        force, dry_run = query.flag("force"), query.flag("dry_run")
        return self._change(query, lambda: self._operations.delete(targets, None, force, dry_run))

    def wait(self) -> ResponseReturnValue:
        query = read_query((e.SEQUENCE, e.WAIT))
        with self._place_to_wait():
            sequence = since = query.count("sequence", -1)
            if sequence < 0:
                sequence, since = self._call(self._operations.apply((), False)).sequence, 0
            answer = self._confirmation(sequence, query.number("wait"), since)
        return jsonify({"sequence": sequence, **answer}), _status(answer)

    def list(self, kind: str, known: Sequence[Parameter]) -> ResponseReturnValue:
        query = read_query(known)
        listing: Listing = self._call(self._operations.list(kind))
        wanted = query.count("sequence", listing.sequence)
        if wanted != listing.sequence:
            raise Conflict(f"the list was read at change {wanted}, and it is as of change {listing.sequence} now",
                           where="?sequence", remedy="read it from its first page on, or without sequence")  # fmt: skip
        return page(select(listing.documents, query.texts()), query, sequence=listing.sequence)

    def get(self, kind: str, name: str) -> ResponseReturnValue:
        read_query(())
        document = self._call(self._operations.get(kind, name))
        response = jsonify(document)
        response.set_etag(str(document["generation"]))
        return response

    def unknown_switches(self) -> ResponseReturnValue:
        query = read_query((e.LIMIT, e.OFFSET))
        return page([asdict(switch) for switch in self._call(self._operations.unknown_switches())], query)

    def doctor(self) -> ResponseReturnValue:
        query = read_query(_DOCTOR)
        given = query.texts()
        found = [*map(flat, self._call(self._operations.doctor(given.pop("host", None))))]
        return page(select(found, given), query)

    def _change(
        self, query: Query, change: Callable[[], Coroutine[Any, Any, Applied]], also: Mapping[str, Any] | None = None
    ) -> ResponseReturnValue:
        """Make a change and, when the client asked for it, wait for the switches. ``also`` stands in the answer too.

        200: confirmed, or a dry run; 202: stored, but nobody waited, or not every switch confirmed in time.
        """
        if query.flag("dry_run"):
            return _applied(self._call(change()), _NOT_ASKED, also), HTTPStatus.OK
        seconds = query.number("wait")
        if not seconds:
            return _applied(_logged(self._call(change())), _NOT_ASKED, also), HTTPStatus.ACCEPTED
        with self._place_to_wait():  # before the change: a refusal must mean that nothing was done
            applied = _logged(self._call(change()))
            # Where nothing was changed, nothing that is wrong came with it.
            is_change = any(outcome.action != "unchanged" for outcome in applied.outcomes)
            answer = self._confirmation(applied.sequence, seconds, applied.sequence + (not is_change))
        return _applied(applied, answer, also), _status(answer)

    def _confirmation(self, sequence: int, seconds: float, since: int) -> dict[str, Any]:
        missing = self._confirm(sequence, seconds, since)
        troubles = self._call(self._operations.troubles(since))
        return {
            "confirmed": not missing,
            "unconfirmed": [asdict(item) for item in missing],
            "troubles": [asdict(item) for item in troubles],
        }

    def _confirm(self, sequence: int, seconds: float, since: int) -> Sequence[Unconfirmed]:
        deadline = time.monotonic() + seconds
        gone = request.environ.get("waitress.client_disconnected", bool)
        stopping = request.environ.get(e.STOPPING, bool)
        while True:
            left = max(0.0, deadline - time.monotonic())
            missing: Sequence[Unconfirmed] = self._call(self._operations.wait(sequence, min(left, WAIT_SLICE), since))
            if not missing or left <= WAIT_SLICE or gone() or stopping():
                return missing

    @contextmanager
    def _place_to_wait(self) -> Iterator[None]:
        if not self._waiting.acquire(blocking=False):
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "busy", f"{MOST_WAITING} requests are waiting already; "
                          "nothing was changed", "ask again later, or without wait")  # fmt: skip
        try:
            yield
        finally:
            self._waiting.release()


def filters(kind: str) -> tuple[Parameter, ...]:
    """The fields by whose value a list of this kind can be filtered: the operator's and the observed ones."""
    names = dict.fromkeys(
        ["name", *KINDS[kind].model_fields, *(STATUSES[kind].model_fields if kind in STATUSES else ())]
    )
    return tuple(Parameter(name, "text", f"whose {name} is this") for name in names)


def _applied(applied: Applied, confirmation: Mapping[str, Any], also: Mapping[str, Any] | None = None) -> Response:
    outcomes = [asdict(outcome) for outcome in applied.outcomes]
    return jsonify({"outcomes": outcomes, "sequence": applied.sequence, **confirmation, **(also or {})})


def _status(confirmation: Mapping[str, Any]) -> HTTPStatus:
    return HTTPStatus.OK if confirmation["confirmed"] else HTTPStatus.ACCEPTED


def _logged(applied: Applied) -> Applied:
    done = [f"{item.kind} {item.name} {item.action}" for item in applied.outcomes if item.action != "unchanged"]
    more = f" and {len(done) - _MOST_LOGGED} more" if len(done) > _MOST_LOGGED else ""
    log.info("change %d through %s: %s%s", applied.sequence, through(), ", ".join(done[:_MOST_LOGGED]) or "none", more)
    return applied


def _one_generation(header: int | None, other: int | None) -> int | None:
    if header is not None and other is not None and header != other:
        raise Refused(HTTPStatus.BAD_REQUEST, "malformed", f"If-Match says {header}, and the request says {other}",
                      "name one generation", "If-Match")  # fmt: skip
    return header if header is not None else other
