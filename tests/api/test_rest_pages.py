"""Pages of a list belong to one moment, or it is said that they do not."""

from __future__ import annotations

import pytest

from controller.cli import client as client_module
from controller.cli.client import Address, Client
from controller.errors import Conflict
from tests.api.fake_fleet import Served
from tests.api.http_talk import ask

PATH = "/api/v1/networks"


def networks(served: Served, *names: str) -> None:
    body = [{"kind": "Network", "name": name, "mode": "isolated"} for name in names]
    assert ask(served.socket, "POST", "/api/v1/apply", body).status == 202


def test_a_later_page_of_a_list_that_changed_is_refused(served: Served) -> None:
    networks(served, "a", "c")
    first = ask(served.port, "GET", f"{PATH}?limit=1").json
    again = f"{PATH}?limit=1&offset=1&sequence={first['sequence']}"
    assert [item["name"] for item in ask(served.port, "GET", again).json["items"]] == ["c"]
    networks(served, "b")
    answer = ask(served.port, "GET", again)
    assert answer.status == 409
    assert answer.json["problems"][0]["remedy"] == "read it from its first page on, or without sequence"
    assert ask(served.port, "GET", f"{PATH}?limit=1&offset=1").json["sequence"] == first["sequence"] + 1
    assert ask(served.port, "GET", f"{PATH}?sequence=x").status == 400


def test_the_client_reads_a_list_of_several_pages_as_of_one_moment(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "_PAGE", 2)
    networks(served, "a", "c", "e", "g")
    client = Client(Address(path=str(served.socket)))
    get, others = client.get, iter("bdf")

    def disturbed(path: str, **query: object) -> object:
        page = get(path, **query)
        if query["offset"] == 0 and (name := next(others, None)) is not None:
            networks(served, name)
        return page

    monkeypatch.setattr(client, "get", disturbed)
    assert [item["name"] for item in client.items("/networks")] == list("abcdefg")


def test_a_list_that_never_stands_still_is_told(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_PAGE", 2)
    networks(served, "a", "b", "c")
    client = Client(Address(path=str(served.socket)))
    get, numbers = client.get, iter(range(1000))

    def disturbed(path: str, **query: object) -> object:
        networks(served, f"n{next(numbers)}")
        return get(path, **query)

    monkeypatch.setattr(client, "get", disturbed)
    with pytest.raises(Conflict, match="the list was read at change"):
        list(client.items("/networks"))
