"""The page to try the API: it is there, it is its own, and nothing of it runs what others wrote."""

from __future__ import annotations

import configparser
import re
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from controller.options import DEFAULT_API_SOCKET
from tests.api.fake_fleet import Served
from tests.api.http_talk import ask

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "controller/api/page"
PATHS = {"/api": "text/html", "/api/page.js": "text/javascript", "/api/page.css": "text/css"}


@pytest.mark.parametrize("path", PATHS)
def test_the_page_is_served_with_a_policy_that_lets_it_load_its_own_files_alone(served: Served, path: str) -> None:
    answer = ask(served.port, "GET", path)
    assert (answer.status, answer.headers["content-type"]) == (200, f"{PATHS[path]}; charset=utf-8")
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_what_the_page_refers_to_is_served(served: Served) -> None:
    found = re.findall(r'(?:src|href)="(/[^"]*)"', (PAGE / "index.html").read_text())
    assert set(found) > set(PATHS) - {"/api"}
    for path in found:
        assert ask(served.port, "GET", path).status == 200


def test_the_page_asks_nothing_of_the_internet_and_makes_no_html_of_answers() -> None:
    for file in PAGE.iterdir():
        text = file.read_text().replace("http://localhost", "")
        assert not re.search(r"https?://|@import|\burl\(", text), file.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval|new Function", text), file.name
        assert not re.search(r"<script>|<style|\son\w+=|\sstyle=", text), f"{file.name} has what its policy forbids"


def test_every_name_in_the_script_is_in_the_page() -> None:
    html = (PAGE / "index.html").read_text()
    there = set(re.findall(r'id="([\w-]+)"', html)) | {"body"}  # which the script makes
    assert set(re.findall(r'element\("([\w-]+)"\)', (PAGE / "page.js").read_text())) <= there


def test_the_document_says_what_the_page_needs_of_each_operation(served: Served) -> None:
    document: dict[str, Any] = ask(served.port, "GET", "/openapi.json").json
    assert document["info"]["version"]
    for methods in document["paths"].values():
        for operation in methods.values():
            assert operation["operationId"]
            assert operation["summary"]
            for parameter in operation["parameters"]:
                assert parameter["in"] in {"path", "query", "header"}
                assert parameter["schema"]["type"] in {"string", "boolean", "number", "integer"}


def test_the_commands_that_the_page_writes_go_to_the_socket_of_the_controller() -> None:
    assert f'const SOCKET = "{DEFAULT_API_SOCKET}";' in (PAGE / "page.js").read_text()


def test_the_page_is_part_of_the_package() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    pattern = setup["options.package_data"]["controller.api"]
    assert all(fnmatch(str(file.relative_to(PAGE.parent)), pattern) for file in PAGE.iterdir())
