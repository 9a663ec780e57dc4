"""Routes: what each answers, over the real server."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from controller.api.operations import Unconfirmed
from controller.errors import HostError, StoreError
from tests.api.fake_fleet import Served, flow, observed_port
from tests.api.http_talk import Answer, ask

HOST = {"kind": "Host", "name": "kvm01", "ovsdb": "tcp:192.0.2.1:6640", "tunnel_ip": "192.0.2.1"}
WEB = {"kind": "Network", "name": "web", "mode": "isolated"}
PORT = {"kind": "Port", "name": "web1", "vm": "web1", "mac": "52:54:00:00:00:0a", "network": "web"}
SLOW = Unconfirmed("kvm02", "openflow", "no answer since 12 s")


def apply(served: Served, *objects: Any, query: str = "") -> Answer:
    return ask(served.socket, "POST", f"/api/v1/apply{query}", list(objects))


def words(answer: Answer) -> list[str]:
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["status"] == answer.status
    return [f"{item['where']}: {item['what']} ({item['remedy']})" for item in answer.json["problems"]]


def test_apply_creates_all_and_says_that_nobody_waited(served: Served) -> None:
    answer = apply(served, HOST, WEB)
    assert answer.status == 202
    assert [(item["kind"], item["action"]) for item in answer.json["outcomes"]] == [
        ("Host", "created"), ("Network", "created")]  # fmt: skip
    assert answer.json["confirmed"] is None
    assert answer.json["sequence"] == 2


def test_apply_of_yaml(served: Served) -> None:
    text = b"kind: Network\nname: web\nmode: isolated\n---\nkind: Network\nname: db\nmode: isolated\n"
    for action in ("created", "unchanged"):
        answer = ask(served.socket, "POST", "/api/v1/apply?wait=5", text, {"Content-Type": "application/yaml"})
        assert answer.status == 200, answer.body
        assert [item["action"] for item in answer.json["outcomes"]] == [action, action]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_over_tcp_everything_can_be_read_and_nothing_changed(served: Served, method: str) -> None:
    apply(served, WEB)
    path = "/api/v1/apply" if method == "POST" else "/api/v1/networks/web"
    answer = ask(served.port, method, path, {**WEB, "mtu": 1400})
    assert answer.status == 403
    assert "unix socket" in answer.json["problems"][0]["remedy"]
    assert "mtu" not in ask(served.port, "GET", "/api/v1/networks/web").json


def test_changes_are_logged_with_who_may_have_made_them(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "controller.api"):
        apply(served, WEB)
        apply(served, {**WEB, "mtu": 1400}, query="?dry_run=1")
        ask(served.socket, "DELETE", "/api/v1/networks/web")
    told = [record.getMessage() for record in caplog.records if record.name == "controller.api.routes"]
    assert told == [
        "change 1 through unix socket: Network web created",
        "change 2 through unix socket: Network web deleted",
    ]


def test_dry_run_shows_the_difference_and_changes_nothing(served: Served) -> None:
    apply(served, WEB)
    answer = apply(served, {**WEB, "mtu": 1400}, query="?dry_run=1&wait=5")
    assert answer.status == 200
    assert "+mtu: 1400" in answer.json["outcomes"][0]["diff"]
    assert answer.json["sequence"] == 0
    assert served.fleet.waits == []
    assert "mtu" not in ask(served.socket, "GET", "/api/v1/networks/web").json


def test_wait_answers_200_when_confirmed_and_202_naming_who_is_missing(served: Served) -> None:
    assert apply(served, WEB, query="?wait=5").status == 200
    served.fleet.unconfirmed = (SLOW,)
    answer = apply(served, {**WEB, "mtu": 1400}, query="?wait=0.1")
    assert answer.status == 202
    assert answer.json["confirmed"] is False
    assert answer.json["unconfirmed"] == [{"host": "kvm02", "what": "openflow", "reason": "no answer since 12 s"}]


def test_wait_goes_on_in_slices_until_the_switches_confirm(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.api.routes.WAIT_SLICE", 0.05)
    apply(served, WEB)
    served.fleet.unconfirmed = (SLOW,)
    answers: list[Answer] = []
    waiting = threading.Thread(target=lambda: answers.append(ask(served.socket, "GET", "/api/v1/wait?wait=15")))
    waiting.start()
    deadline = time.monotonic() + 10
    while len(served.fleet.waits) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    served.confirm()
    waiting.join()
    assert answers[0].status == 200
    assert answers[0].json == {"sequence": 1, "confirmed": True, "unconfirmed": [], "troubles": []}
    assert all(seconds <= 0.05 for _, seconds, _ in served.fleet.waits)


def test_who_waits_does_not_keep_others_from_being_answered(served: Served) -> None:
    apply(served, WEB)
    served.fleet.unconfirmed = (SLOW,)
    answers: list[Answer] = []
    waiting = [threading.Thread(target=lambda: answers.append(ask(served.socket, "GET", "/api/v1/wait?wait=15")))
               for _ in range(10)]  # fmt: skip
    for thread in waiting:
        thread.start()
    deadline = time.monotonic() + 10
    while len(answers) < 4 and time.monotonic() < deadline:  # six wait, four are refused
        time.sleep(0.01)
    assert [answer.status for answer in answers] == [503] * 4
    assert "nothing was changed" in words(answers[0])[0]
    assert ask(served.socket, "GET", "/healthz").status == 200
    assert apply(served, {**WEB, "mtu": 1300}, query="?wait=5").status == 503
    assert ask(served.socket, "GET", "/api/v1/networks/web").json["generation"] == 1
    served.confirm()
    for thread in waiting:
        thread.join()
    assert sorted(answer.status for answer in answers) == [200] * 6 + [503] * 4


def test_what_is_wrong_between_objects_is_named(served: Served) -> None:
    answer = apply(served, PORT)
    assert answer.status == 422
    said = "there is no Network 'web' (apply it first or in the same set; there are: none yet)"
    assert words(answer) == [f"Port web1: network: {said}"]


def test_what_is_wrong_in_several_objects_is_named_together(served: Served) -> None:
    answer = apply(served, {"kind": "Netwrok", "name": "a"}, {**WEB, "mtuu": 3}, 7)
    assert answer.status == 422
    assert words(answer) == [
        "body[0]: kind 'Netwrok' is not known (did you mean Network?)",
        "body[1]: Network web: mtuu: is not known (did you mean mtu?)",
        "body[2]: is no object but 7 (write kind: and name: and the fields)",
    ]


def test_get_carries_the_generation_as_etag_and_put_honours_it(served: Served) -> None:
    apply(served, WEB)
    found = ask(served.port, "GET", "/api/v1/networks/web")
    assert (found.status, found.headers["etag"]) == (200, '"1"')
    assert list(found.json)[:2] == ["kind", "name"]
    put = ask(served.socket, "PUT", "/api/v1/networks/web", {"mode": "isolated", "mtu": 1400}, {"If-Match": '"1"'})
    assert put.status == 202
    late = ask(served.socket, "PUT", "/api/v1/networks/web", {"mode": "isolated", "mtu": 1300}, {"If-Match": '"1"'})
    assert late.status == 409
    assert words(late) == ["Network web: is generation 2, not 1 (read it again)"]
    assert ask(served.port, "GET", "/api/v1/networks/web").json["mtu"] == 1400


def test_what_was_read_can_be_put_back(served: Served) -> None:
    apply(served, HOST)
    found = ask(served.port, "GET", "/api/v1/hosts/kvm01").json
    answer = ask(served.socket, "PUT", "/api/v1/hosts/kvm01?wait=1", found)
    assert (answer.status, answer.json["outcomes"][0]["action"]) == (200, "unchanged")


@pytest.mark.parametrize("body", [WEB, [WEB, WEB], [], 3, {"kind": "Host", "name": "other"}])
def test_put_of_something_else_than_the_path_names_is_refused(served: Served, body: Any) -> None:
    answer = ask(served.socket, "PUT", "/api/v1/networks/other", body)
    assert answer.status == 422
    assert served.fleet.rows == {}


def test_delete_names_who_still_uses_it_unless_forced(served: Served) -> None:
    apply(served, WEB, PORT)
    answer = ask(served.socket, "DELETE", "/api/v1/networks/web")
    assert answer.status == 422
    assert words(answer) == ["Network web: is used by Port web1 (delete it first, or --force)"]
    assert ask(served.socket, "DELETE", "/api/v1/networks/web?force=1&generation=7").status == 409
    assert ask(served.socket, "DELETE", "/api/v1/networks/web?force=1&dry_run=1").status == 200
    assert ("Network", "web") in served.fleet.rows
    assert ask(served.socket, "DELETE", "/api/v1/networks/web?force=1&wait=1").status == 200
    gone = ask(served.socket, "DELETE", "/api/v1/networks/web")
    assert gone.status == 404
    assert words(gone) == ["Network web: does not exist (there are: none)"]


def test_several_objects_are_deleted_together(served: Served) -> None:
    apply(served, WEB, PORT)
    assert ask(served.socket, "POST", "/api/v1/delete", [{"kind": "Network"}]).status == 422
    answer = ask(served.socket, "POST", "/api/v1/delete?wait=1", [WEB, PORT])
    assert (answer.status, len(answer.json["outcomes"])) == (200, 2)
    assert served.fleet.rows == {}


def test_two_generations_in_one_request_are_refused(served: Served) -> None:
    apply(served, WEB)
    answer = ask(served.socket, "DELETE", "/api/v1/networks/web?generation=1", headers={"If-Match": '"2"'})
    assert answer.status == 400
    assert ask(served.socket, "DELETE", "/api/v1/networks/web", headers={"If-Match": "W/x"}).status == 400
    assert ("Network", "web") in served.fleet.rows


def test_lists_page_and_count(served: Served) -> None:
    apply(served, *({**WEB, "name": f"n{number:02}"} for number in range(7)))
    page = ask(served.port, "GET", "/api/v1/networks?limit=3&offset=5").json
    assert (page["total"], page["limit"], page["offset"]) == (7, 3, 5)
    assert [item["name"] for item in page["items"]] == ["n05", "n06"]
    assert ask(served.port, "GET", "/api/v1/networks?limit=0").json["items"] == []
    assert len(ask(served.port, "GET", "/api/v1/networks").json["items"]) == 7


def test_lists_filter_by_what_was_written_and_by_what_was_seen(served: Served) -> None:
    apply(served, HOST, WEB, PORT)
    port = observed_port("db1", "52:54:00:00:00:0b", state="quarantined", host="kvm02")
    served.fleet.observed[port["name"]] = port

    def names(query: str) -> list[str]:
        return [item["name"] for item in ask(served.port, "GET", f"/api/v1/{query}").json["items"]]

    assert names("ports?network=web") == ["web1", port["name"]]
    assert names("ports?vm=db1") == [port["name"]]
    assert names(f"ports?vm={port['status']['vm_uuid']}") == [port["name"]]
    assert names("ports?host=kvm02&state=quarantined") == [port["name"]]
    assert names("ports?host=kvm02&state=active") == []
    assert names("hosts?libvirt=down") == ["kvm01"]
    assert names("hosts?openflow=up") == ["kvm01"]
    assert names("networks?hosts=kvm01") == ["web"]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("networks?mod=x", "?mod is not known (did you mean mode?)"),
        ("networks?limit=x", "?limit 'x' is not possible (0 to 5000)"),
        ("networks?limit=5001", "?limit '5001' is not possible (0 to 5000)"),
        ("networks?limit=1&limit=2", "?limit is given twice (give it once)"),
        ("networks?offset=-1", "?offset '-1' is not possible (a count)"),
        ("wait?wait=nan", "?wait 'nan' is not possible (seconds, 0 to 600)"),
        ("wait?wait=1e9", "?wait '1e9' is not possible (seconds, 0 to 600)"),
        ("hosts/kvm01/flows?owner=me", "?owner 'me' is not possible (one of: fleetswitch, learned, foreign)"),
        ("hosts/kvm01?x=1", "?x is not known (known are: none)"),
    ],
)
def test_queries_that_mean_nothing_are_refused(served: Served, query: str, said: str) -> None:
    answer = ask(served.port, "GET", f"/api/v1/{query}")
    assert answer.status == 400
    assert words(answer)[0].partition(": ")[2] == said


def test_flows_filter_and_keep_the_order_of_tables(served: Served) -> None:
    served.fleet.flow_rows["kvm01"] = [
        flow("spoof_guard", match="in_port=3,dl_src=52:54:00:00:00:0a", app="guard"), flow("classify"),
        flow("classify", owner="foreign", app="", source="", why="")]  # fmt: skip

    def tables(query: str) -> list[str]:
        return [item["table"] for item in ask(served.port, "GET", f"/api/v1/hosts/kvm01/flows{query}").json["items"]]

    assert tables("") == ["spoof_guard", "classify", "classify"]
    assert tables("?table=classify") == ["classify", "classify"]
    assert tables("?match=00:00:0a") == ["spoof_guard"]
    assert tables("?owner=foreign") == ["classify"]
    assert tables("?app=guard&table=classify") == []
    assert ask(served.port, "GET", "/api/v1/hosts/kvm09/flows").status == 404


def test_failures_of_host_and_store_are_told_apart(served: Served) -> None:
    served.fleet.flow_rows["kvm01"] = []
    served.fleet.failure = HostError("no OpenFlow connection", where="Host kvm01", remedy="see its log")
    answer = ask(served.port, "GET", "/api/v1/hosts/kvm01/flows")
    assert (answer.status, words(answer)) == (502, ["Host kvm01: no OpenFlow connection (see its log)"])
    served.fleet.failure = StoreError("is not reached", where="store")
    assert apply(served, WEB).status == 503


def test_a_mistake_of_the_controller_is_logged_and_not_shown(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    served.fleet.failure = ZeroDivisionError("secret detail")
    answer = apply(served, WEB)
    assert answer.status == 500
    assert b"secret" not in answer.body
    assert b"Traceback" not in answer.body
    assert "secret detail" in caplog.text


def test_a_controller_that_does_not_answer_in_time_is_told(served: Served) -> None:
    served.fleet.failure = TimeoutError()
    answer = apply(served, WEB)
    assert answer.status == 504
    assert "may or may not have been made" in words(answer)[0]


def test_health_and_readiness(served: Served) -> None:
    assert ask(served.port, "GET", "/readyz").status == 200
    served.fleet.ready = False
    assert ask(served.port, "GET", "/healthz").status == 200
    answer = ask(served.port, "GET", "/readyz")
    assert (answer.status, answer.json["reasons"]) == (503, ["the store is not reached"])


def test_unknown_paths_and_methods(served: Served) -> None:
    assert words(ask(served.port, "GET", "/api/v1/nothing")) == [
        "GET /api/v1/nothing: there is no /api/v1/nothing (see /openapi.json for what there is)"]  # fmt: skip
    answer = ask(served.socket, "DELETE", "/api/v1/apply")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert ask(served.port, "OPTIONS", "/api/v1/apply").status == 405
