"""The verb trace through the real server."""

from __future__ import annotations

import json

import pytest

from controller.api.tracing import Hop, Question, Trace, TraceStep
from tests.api.fake_fleet import Served
from tests.cli.conftest import Run


def step(table: str, leads: bool, depth: int = 0, **more: str) -> TraceStep:
    about = {"match": "in_port=vnet1", "actions": "drop", "cookie": "0xf5", "owner": "fleetswitch", "app": "l2",
             "source": "Port web1", "why": "to the vNIC"}  # fmt: skip
    return TraceStep(table, depth, leads, 100, **(about | more))  # type: ignore[arg-type]


STEPS = [
    step("classify", True), step("deliver", False, 1),
    step("origin", True, app="pipeline", actions="goto_table:x"),
    step("learn", True, app="pipeline", actions="goto_table:y"),
    step("learned", True, 1, app="", source="", why="", owner="foreign"),
    step("flood", True, 0, match="", actions="", cookie="", owner="", app="", source="", why="no flow takes it"),
]  # fmt: skip
TRACED = Trace(
    "web1", "db1", "icmp 10.0.0.1 → 10.0.0.2", ["the tag is 10"],
    [Hop("kvm1", "from web1 (vnet1)", "icmp", STEPS, ["to phys1"], ["table=learned"], "output to \x1bNORMAL")],
    "unknown", "it cannot be told", [],
)  # fmt: skip


def test_a_trace_is_read_from_top_to_bottom(run: Run, served: Served) -> None:
    served.fleet.traced = TRACED
    assert run("trace", "web1", "db1").stdout == (
        "web1 → db1: icmp 10.0.0.1 → 10.0.0.2\n"
        "  taken for granted: the tag is 10\n"
        "\n"
        "kvm1, from web1 (vnet1)\n"
        "  classify   l2: Port web1: to the vNIC\n"
        "               priority=100,in_port=vnet1 actions=drop\n"
        "  no flow of its own in origin, learn\n"
        "    learned  foreign, cookie 0xf5\n"
        "               priority=100,in_port=vnet1 actions=drop\n"
        "  flood      no flow takes it\n"
        "  and 1 more look-ups of other copies: --all shows them\n"
        "  learns: table=learned\n"
        "  goes to phys1\n"
        "  not known any further: output to \\x1bNORMAL\n"
        "\n"
        "unknown: it cannot be told\n"
    )
    assert "    deliver  l2: Port web1: to the vNIC\n" in run("trace", "web1", "db1", "--all").stdout
    assert json.loads(run("trace", "web1", "db1", "-o", "json").stdout)["hops"][0]["steps"][5]["table"] == "flood"


@pytest.mark.parametrize(
    ("words", "question"),
    [
        (["--tcp", "80"], Question("web1", "db1", "tcp", 80)),
        (["--udp", "0", "--from-port", "68"], Question("web1", "db1", "udp", 0, 68)),
        (["--arp", "--ipv6", "--vlan", "10"], Question("web1", "db1", "arp", ipv6=True, vlan=10)),
        (["--icmp", "--from-address", "10.0.0.9", "--from-mac", "m", "--to-mac", "n"],
         Question("web1", "db1", from_address="10.0.0.9", from_mac="m", to_mac="n")),
    ],
)  # fmt: skip
def test_the_packet_is_what_was_asked_for(run: Run, served: Served, words: list[str], question: Question) -> None:
    served.fleet.traced = TRACED
    assert run("trace", "web1", "db1", *words).exit_code == 0
    assert served.fleet.questions == [question]


def test_one_protocol_at_a_time(run: Run) -> None:
    assert run("trace", "web1", "db1", "--tcp", "80", "--icmp").exit_code == 2
    assert run("trace", "web1", "db1", "--tcp", "65536").exit_code == 2
    assert run("trace", "web1", "db1").exit_code == 1
