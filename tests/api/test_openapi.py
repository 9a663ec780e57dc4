"""The OpenAPI document: complete, closed, and true to what the models accept."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.api.app import create_app
from controller.model.kinds import KINDS
from tests.api.fake_fleet import FakeFleet, Served
from tests.api.http_talk import ask


@pytest.fixture
def document(served: Served) -> dict[str, Any]:
    found: dict[str, Any] = ask(served.port, "GET", "/openapi.json").json
    return found


def refs(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(ref := value.get("$ref"), str):
            yield ref
        for item in value.values():
            yield from refs(item)
    elif isinstance(value, list):
        for item in value:
            yield from refs(item)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    found = set(refs(document))
    assert len(found) > 10
    assert all(ref.removeprefix("#/components/schemas/") in document["components"]["schemas"] for ref in found)


def test_every_route_is_described(document: dict[str, Any], tmp_path: Path) -> None:
    app = create_app(lambda coroutine: coroutine.close(), FakeFleet())
    routes = {
        (rule.rule.replace("<path:", "<").replace("<", "{").replace(">", "}"), method.lower())
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    described = {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert routes == described


def test_operations_have_names_of_their_own_and_path_parameters(document: dict[str, Any]) -> None:
    operations = [(path, operation) for path, methods in document["paths"].items() for operation in methods.values()]
    names = [operation["operationId"] for _, operation in operations]
    assert len(set(names)) == len(names)
    for path, operation in operations:
        given = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"}
        assert given == set(re.findall(r"{(\w+)}", path))


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_have_the_fields_of_their_models(document: dict[str, Any], kind: str) -> None:
    schema = document["components"]["schemas"][kind]
    assert set(schema["properties"]) == {"kind", "name", "generation", "status", *KINDS[kind].model_fields}
    assert {"kind", "name"} <= set(schema["required"])
    assert schema["properties"]["kind"] == {"const": kind}


def test_answers_have_the_fields_that_are_described(served: Served, document: dict[str, Any]) -> None:
    web = {"kind": "Network", "name": "web", "mode": "isolated"}
    for schema, answer in (
        ("Applied", ask(served.socket, "POST", "/api/v1/apply", web)),
        ("Confirmation", ask(served.port, "GET", "/api/v1/wait")),
        ("Health", ask(served.port, "GET", "/healthz")),
        ("Problem", ask(served.port, "GET", "/api/v1/networks/none")),
    ):
        assert set(answer.json) == set(document["components"]["schemas"][schema]["properties"])


def test_what_the_document_says_of_numbers_and_generations_is_what_is_taken(
    served: Served, document: dict[str, Any]
) -> None:
    about = {each["name"]: each["schema"] for each in document["paths"]["/api/v1/networks"]["get"]["parameters"]}
    most = about["offset"]["maximum"]
    assert ask(served.port, "GET", f"/api/v1/networks?offset={most}").status == 200
    assert ask(served.port, "GET", f"/api/v1/networks?offset={most + 1}").status == 400
    put = document["paths"]["/api/v1/networks/{name}"]["put"]["parameters"]
    [pattern] = [each["schema"]["pattern"] for each in put if each["name"] == "If-Match"]
    for text in ('"7"', "7", "*", '"0"', 'W/"7"', "", '"7', "seven", "9" * 18, "9" * 19, "٣"):
        headers = {"If-Match": text.encode().decode("latin-1")}
        answer = ask(served.socket, "PUT", "/api/v1/networks/none?dry_run=1", {"mode": "isolated"}, headers)
        assert (answer.status != 400) == bool(re.search(pattern, text)), text
