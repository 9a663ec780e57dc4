"""Events as a list and as server-sent events, through the real server."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from controller.api import events as events_module
from controller.api.events import MOST_FOLLOWING
from tests.api.fake_fleet import Served
from tests.api.http_talk import ask

PATH = "/api/v1/events"


@pytest.fixture
def fleet(served: Served) -> Served:
    served.happens("Host", "kvm01", "openflow-up", "openflow is up", host="kvm01")
    served.happens("Port", "p1", "active", "vNIC of web1 is active", host="kvm01", network="web", vm="web1")
    served.happens("Network", "web", "changed", "changed: mtu", generation=2, network="web")
    return served


class Stream:
    """One stream of server-sent events."""

    def __init__(self, port: int, path: str, last: str | None = None) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last is not None else {})}
        self._connection.request("GET", path, headers=headers)
        self.response = self._connection.getresponse()

    def block(self) -> dict[str, str]:
        """The next block's fields; without any at the end of the stream."""
        found: dict[str, str] = {}
        while line := self.response.readline().decode():
            if line == "\n":
                return found
            name, _, value = line.rstrip("\n").partition(": ")
            found[name] = value
        return found

    def close(self) -> None:
        self._connection.close()


@contextmanager
def stream(served: Served, query: str = "", last: str | None = None) -> Iterator[Stream]:
    found = Stream(served.port, PATH + query, last)
    try:
        yield found
    finally:
        found.close()


def names(served: Served, query: str) -> list[str]:
    return [item["name"] for item in ask(served.port, "GET", PATH + query).json["items"]]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["kvm01", "p1", "web"]),
        ("?kind=Port", ["p1"]),
        ("?name=web1", ["p1"]),
        ("?event=changed", ["web"]),
        ("?host=kvm01", ["kvm01", "p1"]),
        ("?network=web", ["p1", "web"]),
        ("?about=web", ["p1", "web"]),
        ("?last=2", ["p1", "web"]),
        ("?last=0", []),
        ("?limit=1&offset=1", ["p1"]),
        ("?since=1h", ["kvm01", "p1", "web"]),
        ("?since=2099-01-01T00:00:00Z", []),
        ("?since=2001-01-01T00:00:00%2B02:00", ["kvm01", "p1", "web"]),
    ],
)
def test_a_list_of_what_happened(fleet: Served, query: str, found: list[str]) -> None:
    assert names(fleet, query) == found


def test_an_event_says_when_what_and_of_what_generation(fleet: Served) -> None:
    found = ask(fleet.port, "GET", f"{PATH}?kind=Network").json["items"][0]
    assert found.pop("id") > 0
    assert found.pop("time").endswith("Z")
    assert found == {"kind": "Network", "name": "web", "event": "changed", "message": "changed: mtu", "generation": 2,
                     "host": None, "network": "web", "vm": None}  # fmt: skip
    first = ask(fleet.port, "GET", PATH).json["items"][0]["id"]
    assert names(fleet, f"?after={first}") == ["p1", "web"]


@pytest.mark.parametrize("query", ["?since=yesterday", "?since=9999999999d1", "?after=x", "?colour=red", "?last=-1"])
def test_what_makes_no_sense_is_refused(fleet: Served, query: str) -> None:
    answer = ask(fleet.port, "GET", PATH + query)
    assert answer.status == 400
    assert answer.json["problems"][0]["remedy"]


def test_a_stream_tells_what_happens_from_now_on(fleet: Served) -> None:
    with stream(fleet, "?kind=Port") as found:
        assert found.response.getheader("Content-Type") == "text/event-stream"
        begin = found.block()
        assert begin["retry"] == "200"
        fleet.happens("Host", "kvm02", "created", "created")
        fleet.happens("Port", "p2", "gone", "vNIC is gone")
        told = found.block()
        assert (told["event"], json.loads(told["data"])["name"]) == ("Port", "p2")
        assert int(told["id"]) == json.loads(told["data"])["id"] > int(begin["id"])


def test_a_stream_goes_on_where_the_client_was(fleet: Served) -> None:
    first = ask(fleet.port, "GET", PATH).json["items"][0]["id"]
    with stream(fleet, last=str(first)) as found:
        found.block()
        assert [json.loads(found.block()["data"])["name"] for _ in range(2)] == ["p1", "web"]
    refused = ask(fleet.port, "GET", PATH, headers={"Accept": "text/event-stream", "Last-Event-ID": "x\u00e9"})
    assert refused.status == 400


def test_who_was_away_for_too_long_is_told_that_something_is_missing(fleet: Served) -> None:
    with stream(fleet, last="1") as found:
        found.block()
        gap = found.block()
        assert gap["event"] == "Gap"
        oldest = ask(fleet.port, "GET", PATH).json["items"][0]["id"]
        assert json.loads(gap["data"]) == {"after": 1, "oldest": oldest}
        assert json.loads(found.block()["data"])["id"] == oldest


def test_a_stream_ends_after_a_while_with_the_id_to_come_again_with(
    fleet: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_module, "STREAM_SECONDS", 0.2)
    with stream(fleet) as found:
        begin = found.block()
        fleet.happens("Host", "kvm02", "created", "created")
        while block := found.block():
            end = block
        assert end.keys() == {"id"}
        assert int(end["id"]) > int(begin["id"])


def test_followers_take_nobodys_turn_and_who_has_no_place_hears_all_as_well(fleet: Served) -> None:
    with ExitStack() as stack:
        for _ in range(MOST_FOLLOWING):
            assert stack.enter_context(stream(fleet)).block()["retry"] == "200"
        with stream(fleet) as late:
            begin = late.block()
            assert begin["retry"] == "2000"
            assert late.block() == {"id": begin["id"]}
            assert late.block() == {}
        fleet.happens("Host", "kvm02", "created", "created")
        with stream(fleet, last=begin["id"]) as again:
            again.block()
            assert json.loads(again.block()["data"])["name"] == "kvm02"
        assert ask(fleet.port, "GET", "/healthz").status == 200


def test_a_follower_that_goes_away_leaves_its_place(fleet: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "SLICE", 0.05)
    with ExitStack() as stack:
        for _ in range(MOST_FOLLOWING):
            stack.enter_context(stream(fleet)).block()
    for _ in range(400):
        with stream(fleet) as found:
            if found.block()["retry"] == "200":
                return
        threading.Event().wait(0.05)
    pytest.fail("no place became free")
