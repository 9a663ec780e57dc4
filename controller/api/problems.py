"""Errors as ``application/problem+json`` (RFC 9457), with the project's own where, what and remedy of each problem."""

from __future__ import annotations

import concurrent.futures
import json
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from controller.errors import (
    Conflict,
    FleetError,
    HostError,
    InvalidInput,
    NotConfirmed,
    NotFound,
    Problem,
    StoreError,
)

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
MOST_PROBLEMS = 100  # of one answer; a body of a million mistakes is not answered with a million sentences
MOST_CHARACTERS = 1000  # of one text

_STATUS: Sequence[tuple[type[FleetError], HTTPStatus, str]] = (
    (InvalidInput, HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-input"),
    (NotFound, HTTPStatus.NOT_FOUND, "not-found"),
    (Conflict, HTTPStatus.CONFLICT, "conflict"),
    (NotConfirmed, HTTPStatus.GATEWAY_TIMEOUT, "not-confirmed"),
    (StoreError, HTTPStatus.SERVICE_UNAVAILABLE, "store"),
    (HostError, HTTPStatus.BAD_GATEWAY, "host"),
)


class Refused(Exception):
    """A request that is refused for its form, before anything is asked of the controller. ``where`` is the part of it
    that is wrong; the request as a whole when it is not named."""

    def __init__(self, status: HTTPStatus, kind: str, what: str, remedy: str = "", where: str = "") -> None:
        super().__init__(what)
        self.status = status
        self.kind = kind
        self.problem = Problem(where, what, remedy)


def problem_document(status: int, kind: str, detail: str, problems: Sequence[Problem] = ()) -> dict[str, Any]:
    """The JSON object of RFC 9457, section 3; ``problems`` is our extension of it."""
    shown = [_plain(problem) for problem in problems[:MOST_PROBLEMS]]
    if len(problems) > MOST_PROBLEMS:
        more = f"and {len(problems) - MOST_PROBLEMS} problems more"
        shown.append(
            _plain(Problem(problems[MOST_PROBLEMS].where, more, "mend those before; the next answer tells on"))
        )
    return {
        "type": f"urn:fleetswitch:problem:{kind}",
        "title": HTTPStatus(status).phrase,
        "status": int(status),
        "detail": _short(detail),
        "problems": shown,
    }


def install(app: Flask) -> None:
    """Answer every error of the application in this form."""
    app.register_error_handler(Refused, _refused)
    app.register_error_handler(FleetError, _fleet_error)
    app.register_error_handler(HTTPException, _http_error)
    for late in (TimeoutError, concurrent.futures.CancelledError):
        app.register_error_handler(late, _too_late)
    app.register_error_handler(Exception, _unexpected)


def _refused(error: Refused) -> Response:
    problem = error.problem
    placed = Problem(problem.where or _here(), problem.what, problem.remedy)
    return _answer(error.status, error.kind, placed.what, [placed])


def _fleet_error(error: FleetError) -> Response:
    found = error.problems if isinstance(error, InvalidInput) else (Problem(error.where, error.what, error.remedy),)
    for kind, status, name in _STATUS:
        if isinstance(error, kind):
            return _answer(status, name, str(error.what), found)
    log.error("%s %s: %s", request.method, request.path, error)
    return _answer(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", str(error.what), found)


def _http_error(error: HTTPException) -> Response:
    status = HTTPStatus(error.code or 500)
    what = {
        HTTPStatus.NOT_FOUND: f"there is no {request.path}",
        HTTPStatus.METHOD_NOT_ALLOWED: f"{request.method} is not possible here",
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "the body is too large",
    }.get(status, error.description or status.phrase)
    remedy = {
        HTTPStatus.NOT_FOUND: "see /openapi.json for what there is",
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "send it in parts",
    }.get(status, "see /openapi.json for what is possible")
    headers = {name: value for name, value in error.get_headers() if name in {"Allow", "Retry-After"}}
    return _answer(status, "http", what, [Problem(_here(), what, remedy)], headers)


def _too_late(_: BaseException) -> Response:
    log.warning("%s %s: the controller did not answer in time", request.method, request.path)
    what, remedy = "the controller is busy or stopping and did not answer in time", "try again"
    if request.method != "GET":
        what, remedy = f"{what}; a change may or may not have been made", "look with GET, then try again"
    return _answer(HTTPStatus.GATEWAY_TIMEOUT, "busy", what, [Problem(_here(), what, remedy)])


def _unexpected(error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.path, exc_info=error)
    what = "the controller made a mistake; its log says more"
    return _answer(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", what, [Problem(_here(), what, "please report it")])


def _answer(
    status: HTTPStatus, kind: str, detail: str, problems: Sequence[Problem], headers: Mapping[str, str] | None = None
) -> Response:
    body = json.dumps(problem_document(status, kind, detail, problems))
    return Response(body, status, dict(headers or {}), content_type=MEDIA_TYPE)


def _here() -> str:
    return f"{request.method} {request.path}"


def _plain(problem: Problem) -> dict[str, str]:
    return {"where": _short(problem.where), "what": _short(problem.what), "remedy": _short(problem.remedy)}


def _short(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "…"
