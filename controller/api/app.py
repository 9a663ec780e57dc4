"""The Flask application: routes, guards, errors, health and the OpenAPI document."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from http import HTTPStatus

from flask import Flask, Response, jsonify
from flask.typing import ResponseReturnValue

from controller.api import guard, problems
from controller.api.bodies import MAX_BODY
from controller.api.endpoints import Endpoint
from controller.api.events import EventRoutes
from controller.api.measuring import MetricsRoutes
from controller.api.openapi import openapi
from controller.api.operations import Health, Operations
from controller.api.routes import Call, Routes
from controller.api.topology import TopologyRoutes
from controller.api.trying import page_endpoints


def create_app(call: Call, operations: Operations) -> Flask:
    """The application over a controller.

    ``call`` runs a coroutine of ``operations`` on the controller's loop, waits for it and returns its result; it may
    raise TimeoutError. It is called from several threads at once.
    """
    app = Flask("fleetswitch", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.json.sort_keys = False  # type: ignore[attr-defined]  # kind and name stand first
    app.url_map.merge_slashes = False
    app.before_request(guard.check_request)
    app.after_request(guard.protect)
    problems.install(app)

    def health() -> Health:
        found: Health = call(operations.health())
        return found

    def healthz() -> ResponseReturnValue:
        found = health()
        return jsonify(asdict(found)), HTTPStatus.OK if found.live else HTTPStatus.SERVICE_UNAVAILABLE

    def readyz() -> ResponseReturnValue:
        found = health()
        return jsonify(asdict(found)), HTTPStatus.OK if found.ready else HTTPStatus.SERVICE_UNAVAILABLE

    @cache
    def made(of: str) -> str:
        return json.dumps(openapi(endpoints, of))

    def document() -> ResponseReturnValue:
        return Response(made(health().version), content_type="application/json")

    endpoints = [
        *Routes(call, operations).endpoints(),
        *TopologyRoutes(call, operations).endpoints(),
        *EventRoutes(call, operations).endpoints(),
        *page_endpoints(),
        *MetricsRoutes(call, operations, app).endpoints(),
        Endpoint("GET", "/healthz", "healthz", "Whether the controller works", healthz, "Health", statuses=(200, 503)),
        Endpoint("GET", "/readyz", "readyz", "Whether it drives its hosts, and what is missing", readyz, "Health",
                 statuses=(200, 503)),
        Endpoint("GET", "/openapi.json", "openapi", "This document", document, "Any"),
    ]  # fmt: skip
    for endpoint in endpoints:
        app.add_url_rule(endpoint.path, endpoint.name, endpoint.view, methods=[endpoint.method])
    return app
