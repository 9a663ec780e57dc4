"""The routes that read switches: what the query means, rates of two readings, explanations."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from controller.api.inspection import Cause, Explanation, FlowFilter, GroupInfo, MeterInfo, Placement
from controller.api.readers import MOST_OF_ONE, MOST_READING
from controller.api.reading import rated
from controller.api.tracing import Question, Trace
from tests.api.fake_fleet import Served, flow
from tests.api.http_talk import Answer, ask

OWN = "0xf5000000000000ab"


def test_filters_reach_the_controller_as_they_were_meant(served: Served) -> None:
    served.fleet.flow_rows["kvm01"] = [flow(cookie=OWN), flow()]
    query = f"?guest=web1&network=web&port=p&state=extra&raw=1&cookie={int(OWN, 0)}"
    answer = ask(served.port, "GET", f"/api/v1/hosts/kvm01/flows{query}")
    assert answer.status == 200
    assert served.fleet.asked == [
        FlowFilter(guest="web1", network="web", port="p", state="extra", raw=True, cookie=OWN)
    ]
    for wrong in ("cookie=x", "cookie=-1", f"cookie={1 << 64}", "state=new", "rate=31", "raw=maybe"):
        answer = ask(served.port, "GET", f"/api/v1/hosts/kvm01/flows?{wrong}")
        assert answer.status in {400, 422}, wrong


def test_rates_come_from_two_readings(served: Served) -> None:
    served.fleet.flow_rows["kvm01"] = [flow(packets=5, bytes=100)]
    served.fleet.later["kvm01"] = [flow(packets=1005, bytes=50100)]
    [item] = ask(served.port, "GET", "/api/v1/hosts/kvm01/flows?rate=0.3").json["items"]
    assert item["packets"] == 1005
    assert 0 < item["packet_rate"] <= 1000 / 0.3
    assert item["byte_rate"] == pytest.approx(item["packet_rate"] * 50)
    assert len(served.fleet.asked) == 2


def test_a_flow_that_is_new_or_was_replaced_counts_from_zero() -> None:
    old = flow(packets=100, bytes=1000)
    fresh, replaced, gone = flow("forward", packets=6, bytes=60), replace(old, packets=4, bytes=40), flow("flood")
    rates = [(f.packet_rate, f.byte_rate) for f in rated([old, gone], [fresh, replaced], 2.0)]
    assert rates == [(3, 30), (2, 20)]


def test_a_cookie_is_explained_in_any_spelling(served: Served) -> None:
    cause = Cause("l2", "L2: a frame reaches", "for each vNIC", "Port", "web1", "Port web1", "it is here", ["kvm01"])
    place = Placement("kvm01", True, None, 0, 0, 0, "is not connected")
    told = Explanation(OWN, "fleetswitch", ["It drops them."], [cause], [place], [flow(cookie=OWN)])
    served.fleet.explanations[int(OWN, 0)] = told
    for spelling in (OWN, str(int(OWN, 0)), OWN.upper().replace("X", "x")):
        found = ask(served.port, "GET", f"/api/v1/flows/{spelling}").json
        assert (found["cookie"], found["causes"][0]["name"], found["hosts"][0]["installed"]) == (OWN, "web1", None)
    assert ask(served.port, "GET", "/api/v1/flows/0x1").status == 404
    assert ask(served.port, "GET", "/api/v1/flows/web1").status == 422


def test_groups_and_meters_are_lists(served: Served) -> None:
    served.fleet.group_rows = [GroupInfo(1, "all", ["bucket=actions=output:1"], 2, 3, 0, 1.5, "group_id=1")]
    served.fleet.meter_rows = [MeterInfo(n, "kbps", [1000], [0], 2, 3, 1, 0, 1.5) for n in (1, 2)]
    assert ask(served.port, "GET", "/api/v1/hosts/kvm01/groups").json["items"][0]["raw"] == "group_id=1"
    found = ask(served.port, "GET", "/api/v1/hosts/kvm01/meters?offset=1").json
    assert ([meter["meter_id"] for meter in found["items"]], found["total"]) == ([2], 2)


def test_who_reads_a_switch_that_hangs_keeps_nobody_from_being_answered(served: Served) -> None:
    hosts = [f"kvm{n}" for n in range(5)]
    served.fleet.flow_rows |= {host: [flow()] for host in hosts}
    served.fleet.hanging |= set(hosts[:3])
    refused: list[Answer] = []
    told: list[Answer] = []

    def read(host: str) -> None:
        answer = ask(served.socket, "GET", f"/api/v1/hosts/{host}/flows")
        (refused if answer.status == 503 else told).append(answer)

    def crowd(hosts: Sequence[str], most: int) -> list[threading.Thread]:
        """More readers than there are places; returns when those without one were refused."""
        before, readers = len(refused), [threading.Thread(target=read, args=(host,)) for host in hosts]
        for reader in readers:
            reader.start()
        deadline = time.monotonic() + 10
        while len(refused) - before < len(hosts) - most and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(refused) - before == len(hosts) - most
        return readers

    readers = crowd(hosts[:1] * 10, MOST_OF_ONE)
    assert "wait for kvm0 already" in refused[0].json["detail"]
    read(hosts[4])
    assert [answer.status for answer in told] == [200]
    readers += crowd(hosts[1:3] * 10, MOST_READING - MOST_OF_ONE)
    assert ask(served.socket, "GET", "/api/v1/hosts").status == 200
    assert ask(served.socket, "GET", "/healthz").status == 200
    served.confirm()
    for reader in readers:
        reader.join()
    assert [answer.status for answer in told] == [200] * (1 + MOST_READING)
    read(hosts[4])
    assert len(told) == 2 + MOST_READING


@pytest.mark.parametrize("path", ["hosts/kvm0/walk", "trace?from=kvm0&to=db1"])
def test_nor_does_who_asks_for_a_trace_or_a_walk_there(served: Served, path: str) -> None:
    served.fleet.hanging.add("kvm0")
    served.fleet.traced = TRACED
    found: list[int] = []
    readers = [
        threading.Thread(target=lambda: found.append(ask(served.socket, "GET", f"/api/v1/{path}").status))
        for _ in range(10)
    ]
    for reader in readers:
        reader.start()
    deadline = time.monotonic() + 10
    while len(found) < 10 - MOST_OF_ONE and time.monotonic() < deadline:
        time.sleep(0.01)
    before = list(found)
    served.confirm()
    for reader in readers:
        reader.join()
    assert before == [503] * (10 - MOST_OF_ONE)
    assert sorted(found) == [200] * MOST_OF_ONE + before


TRACED = Trace("web1", "db1", "icmp", [], [], "dropped", "web1 and db1 are in different networks", [])


def test_a_trace_is_asked_in_the_words_of_the_query(served: Served) -> None:
    served.fleet.traced = TRACED
    answer = ask(served.port, "GET", "/api/v1/trace?from=web1&to=db1&protocol=tcp&port=80&vlan=7&ipv6=1&from_mac=m")
    assert (answer.status, answer.json["verdict"]) == (200, TRACED.verdict)
    ask(served.port, "GET", "/api/v1/trace?from=outside&to=10.0.0.1")
    assert served.fleet.questions == [
        Question("web1", "db1", "tcp", 80, ipv6=True, vlan=7, from_mac="m"), Question("outside", "10.0.0.1"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "query",
    ["from=web1", "to=web1", "from=a&to=b&protocol=sctp", "from=a&to=b&protocol=tcp",
     "from=a&to=b&port=80", "from=a&to=b&protocol=udp&port=65536", "from=a&to=b&vlan=4095", "from=a&to=b&hop=1"],
)  # fmt: skip
def test_traces_that_mean_nothing_are_refused(served: Served, query: str) -> None:
    served.fleet.traced = TRACED
    assert ask(served.port, "GET", f"/api/v1/trace?{query}").status == 400
    assert served.fleet.questions == []
