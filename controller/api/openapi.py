"""The OpenAPI 3.1 document, made from the routes and the pydantic models."""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from pydantic import TypeAdapter

from controller.api.endpoints import AS_OF, Endpoint
from controller.api.events import EventInfo
from controller.api.inspection import Explanation, FlowInfo, GroupInfo, MeterInfo, TableWalk
from controller.api.operations import Finding, Health, Outcome, Trouble, Unconfirmed, UnknownSwitch
from controller.api.problems import MEDIA_TYPE
from controller.api.queries import GENERATION, MOST_COUNT, MOST_SECONDS, Parameter
from controller.api.statuses import STATUSES
from controller.api.tracing import Trace
from controller.api.whereabouts import Counters, Fdb, LeaseInfo
from controller.model.kinds import KINDS
from topology.graph.answers import Failure, Neighbours, Shared, Way
from topology.graph.nodes import NODES, Edge

Json = dict[str, Any]

_REF = "#/components/schemas/"
_PART = re.compile(r"<(?:path:)?(\w+)>")
_OBSERVED_PORT = "ObservedPort"
_ALWAYS = (400, 422, 503, 504)
_VALUES = (
    Explanation, FlowInfo, GroupInfo, MeterInfo, TableWalk, Trace, Health, Outcome, Trouble, Unconfirmed,
    UnknownSwitch, Failure, Neighbours, Shared, Way, EventInfo, Finding, Fdb, LeaseInfo, Counters,
)  # fmt: skip


def openapi(endpoints: Sequence[Endpoint], version: str) -> Json:
    """The document for these routes."""
    paths: dict[str, Json] = {}
    for endpoint in endpoints:
        path = _PART.sub(r"{\1}", endpoint.path)
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "fleetswitch",
            "version": version,
            "description": "One virtual switch over a fleet of KVM hosts.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": _schemas()},
    }


def _operation(endpoint: Endpoint) -> Json:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PART.findall(endpoint.path)
    ]
    parameters += [_parameter(parameter) for parameter in endpoint.query]
    if endpoint.if_match:
        parameters.append({"name": "If-Match", "in": "header", "schema": {"type": "string", "pattern": GENERATION},
                           "description": "the generation that was read, in quotes"})  # fmt: skip
    operation: Json = {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "parameters": parameters,
        "responses": {str(status): _response(endpoint, status) for status in sorted({*endpoint.statuses, *_ALWAYS})},
    }
    if endpoint.body:
        content = {"application/json": {"schema": _ref(endpoint.body)}}
        if endpoint.body == "NetworkXml":
            content = {"application/xml": {"schema": {"type": "string", "description": "a <network> of libvirt's"}}}
        elif endpoint.body != "Targets":
            content["application/yaml"] = {"schema": {"type": "string", "description": "a stream of YAML documents"}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _parameter(parameter: Parameter) -> Json:
    schemas: dict[str, Json] = {
        "flag": {"type": "boolean"},
        "seconds": {"type": "number", "minimum": 0, "maximum": MOST_SECONDS},
        "count": {"type": "integer", "minimum": 0, "maximum": MOST_COUNT},
        "text": {"type": "string"},
    }
    schema = schemas[parameter.type]
    if parameter.choices:
        schema["enum"] = list(parameter.choices)
    if parameter.default is not None:
        schema["default"] = parameter.default
    if parameter.most is not None:
        schema["maximum"] = parameter.most
    about: Json = {"name": parameter.name, "in": "query", "description": parameter.description, "schema": schema}
    return {**about, "required": True} if parameter.required else about


def _response(endpoint: Endpoint, status: int) -> Json:
    description = HTTPStatus(status).phrase
    if endpoint.answer == "Health" and status == HTTPStatus.SERVICE_UNAVAILABLE:
        return {"description": description, "content": {"application/json": {"schema": _ref("Health")}}}
    if status >= HTTPStatus.BAD_REQUEST:
        return {"description": description, "content": {MEDIA_TYPE: {"schema": _ref("Problem")}}}
    schema = _ref(endpoint.answer)
    if endpoint.answer == "Port":
        schema = {"anyOf": [schema, _ref(_OBSERVED_PORT)]}
    if endpoint.listed:
        counts = {name: {"type": "integer"} for name in ("total", "limit", "offset")}
        schema = _object({**counts, "items": {"type": "array", "items": schema}})
        if AS_OF in endpoint.query:
            about = "the change that the whole list is as of; pages that say the same belong together"
            schema["properties"]["sequence"] = {"type": "integer", "description": about}
            schema["required"].append("sequence")
    text = {"schema": {"type": "string"}}
    content = {media: {"schema": schema} if media == "application/json" else text for media in endpoint.media}
    return {"description": description, "content": content}


def _schemas() -> Json:
    models = [*KINDS.values(), *STATUSES.values(), *_VALUES, *NODES, Edge]
    found, shared = TypeAdapter.json_schemas(
        [(model.__name__, "validation", TypeAdapter(model)) for model in models], ref_template=_REF + "{model}"
    )
    schemas: Json = {name: schema for (name, _), schema in found.items() if schema.get("$ref") != _REF + str(name)}
    schemas |= shared.get("$defs", {})
    for kind, model in KINDS.items():
        _add_kind(schemas, kind, schemas[model.__name__])
    schemas[_OBSERVED_PORT] = _observed_port(schemas["Port"])
    _add_topology(schemas)
    text = {"type": "string"}
    schemas["Any"] = {"type": "object"}
    schemas["Documents"] = {
        "oneOf": [_any_kind(), {"type": "array", "items": _any_kind()}],
        "description": "one object, or a list of them",
    }
    target = _object({"kind": {"enum": list(KINDS)}, "name": text})
    schemas["Targets"] = {"oneOf": [target, {"type": "array", "items": target}]}
    schemas["Confirmation"] = _confirmation({"type": "boolean"})
    schemas["Applied"] = _confirmation({"type": ["boolean", "null"], "description": "null: nobody waited"})
    schemas["Applied"]["properties"]["outcomes"] = {"type": "array", "items": _ref("Outcome")}
    schemas["Applied"]["required"].append("outcomes")
    told = {"where": text, "what": text, "remedy": text}
    defined = {
        "taken": {"type": "array", "items": _object({"where": text, "values": {"type": "array", "items": text}})},
        "warnings": {"type": "array", "items": _object(told)},
        "unchecked": {"type": "string", "description": "why libvirt's schema was not asked; empty when it was"},
    }
    schemas["Defined"] = {
        "type": "object",
        "properties": schemas["Applied"]["properties"] | defined,
        "required": [*schemas["Applied"]["required"], *defined],
    }
    schemas["Problem"] = _object({
        "type": {"type": "string", "format": "uri"}, "title": text, "status": {"type": "integer"}, "detail": text,
        "problems": {"type": "array", "items": _object(told)},
    })  # fmt: skip
    return schemas


def _add_kind(schemas: Json, kind: str, spec: Json) -> None:
    """A kind as a flat document, and as the body of a PUT, where the path says kind and name."""
    unseen = {"type": "object", "maxProperties": 0, "description": "nothing was observed yet"}
    observed: Json = {"anyOf": [_ref(STATUSES[kind].__name__), unseen]} if kind in STATUSES else {"type": "object"}
    status = {"status": observed}
    named = {"kind": {"const": kind}, "name": {"type": "string"}}
    properties = {**named, **spec.get("properties", {}), "generation": {"type": "integer", "minimum": 0}, **status}
    required = spec.get("required", [])
    about = {"type": "object", "description": spec.get("description", ""), "properties": properties}
    schemas[kind] = {**about, "required": ["kind", "name", *required], "additionalProperties": False}
    schemas[f"{kind}Body"] = {**about, "required": required, "additionalProperties": False}


def _observed_port(port: Json) -> Json:
    """A vNIC that runs, and that nobody registered: it has nothing that an operator wrote."""
    found = _object({name: port["properties"][name] for name in ("kind", "name", "generation", "status")})
    return {**found, "description": "A vNIC that nobody registered.", "additionalProperties": False}


def _add_topology(schemas: Json) -> None:
    """Node-link JSON: nodes of each kind, edges between two of them by their ids."""
    text = {"type": "string"}
    for node in NODES:
        schema = schemas[node.__name__]
        schema["properties"] = {"id": text, "kind": {"const": node.kind}, "label": text, **schema["properties"]}
        schema["required"] = ["id", "kind", "label", *schema.get("required", ())]
    edge = schemas["Edge"]
    edge["properties"] = {"source": text, "target": text, **edge["properties"]}
    edge["required"] = ["source", "target", *edge["required"]]
    schemas["Topology"] = _object({
        "directed": {"const": False}, "multigraph": {"const": False},
        "graph": _object({"name": text, "sequence": {"type": "integer", "description": "of the last change of rows"}}),
        "nodes": {"type": "array", "items": {"oneOf": [_ref(node.__name__) for node in NODES]}},
        "edges": {"type": "array", "items": _ref("Edge")},
    })  # fmt: skip


def _confirmation(confirmed: Json) -> Json:
    return _object({
        "sequence": {"type": "integer", "description": "of the change; 0 for a dry run"},
        "confirmed": confirmed,
        "unconfirmed": {"type": "array", "items": _ref("Unconfirmed")},
        "troubles": {"type": "array", "items": _ref("Trouble")},
    })  # fmt: skip


def _any_kind() -> Json:
    return {"oneOf": [_ref(kind) for kind in KINDS]}


def _object(properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _ref(name: str) -> Json:
    return {"$ref": _REF + name}
