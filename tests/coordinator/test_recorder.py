"""Rows that change and connections that come and go, as the words that people read."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from controller.agent import PartState
from controller.history import EventFilter, History
from controller.recorder import Recorder
from controller.store.rows import Change, Row

MAC = "52:54:00:00:00:01"
ACTIVE = {"vm_uuid": "u1", "vm": "web1", "mac": MAC, "host": "kvm1", "tap": "vnet0", "ofport": 5, "network": "web",
          "portgroup": "default", "state": "active"}  # fmt: skip
COMING = {"incoming": {"host": "kvm2", "tap": "vnet3", "ofport": 7}}


def row(status: dict[str, Any] | None) -> Row | None:
    return Row("Port", "p1", {}, status) if status is not None else None


def told(*statuses: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Words and sentences of a vNIC's row that goes through these states."""
    history = History()
    recorder = Recorder(history)
    for old, new in zip((None, *statuses), statuses, strict=False):
        recorder.rows([Change("Port", "p1", row(old), row(new))])
    return [(event.event, event.message) for event in history.find(EventFilter()).events]


@pytest.mark.parametrize(
    ("statuses", "words", "sentence"),
    [
        (
            [{**ACTIVE, "state": "pending"}, ACTIVE],
            ["active"],
            "on kvm1 is active: vnet0 in network web, portgroup def",
        ),
        ([{**ACTIVE, "state": "quarantined", "reason": "no portgroup"}], ["quarantined"], "quarantined: no portgroup"),
        ([{**ACTIVE, "state": "quarantined", "reason": why} for why in ("a", "b", "b")], ["quarantined"] * 2, "ed: b"),
        ([ACTIVE, {**ACTIVE, "state": "down", "reason": "its link is set down"}], ["active", "down"], "link is set"),
        ([ACTIVE, None], ["active", "gone"], "vNIC 52:54:00:00:00:01 of web1 is gone from kvm1"),
        ([ACTIVE, {**ACTIVE, "state": "absent", "host": None}], ["active", "gone"], "is gone from kvm1"),
        ([ACTIVE, ACTIVE | COMING, {**ACTIVE, "host": "kvm2"}], ["active", "migrating", "moved"], "from kvm1 to kvm2"),
        ([ACTIVE, ACTIVE | COMING, ACTIVE], ["active", "migrating", "stayed"], "stays on kvm1"),
        ([ACTIVE, {**ACTIVE, "addresses": ["10.0.0.1"]}], ["active"], "is active"),
        ([{"state": 7}, {"state": "down", "host": [], "incoming": "x", "vm": {}}], ["down"], "of None on None is down"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) and isinstance(value[0], str) else "",
)
def test_what_a_vnic_goes_through(statuses: list[dict[str, Any] | None], words: list[str], sentence: str) -> None:
    found = told(*statuses)
    assert [word for word, _ in found] == words
    assert sentence in found[-1][1]


class PlayedHost:
    """An agent whose connections stand as a test says."""

    name = "kvm1"

    def __init__(self) -> None:
        self.state = "down", "not connected yet"
        self.switch = SimpleNamespace(peer="192.0.2.1:4242", state=SimpleNamespace(drifts=0),
                                      upkeep=SimpleNamespace(repairs=0, repaired=()))  # fmt: skip
        self.ovsdb = SimpleNamespace(repairs=0, repaired=())

    def parts(self) -> dict[str, PartState]:
        return {"openflow": PartState(*self.state, -1)}


@pytest.mark.parametrize(
    ("old_hosts", "before", "states", "words"),
    [
        ([], [], ["up", "down", "down", "up"], ["openflow-up", "openflow-down", "openflow-up"]),
        (["kvm1"], [], ["up", "degraded"], ["openflow-degraded"]),
        (["kvm1"], ["openflow-down"], ["up"], ["openflow-up"]),
        (["kvm1"], ["openflow-down"], ["down"], []),
        (["kvm1"], ["openflow-up"], ["down"], ["openflow-down"]),
        ([], [], ["connecting", "hung"], ["openflow-down"]),
    ],
)
def test_a_connection_is_told_when_it_is_another_than_before(
    old_hosts: list[str], before: list[str], states: list[str], words: list[str]
) -> None:
    async def main() -> None:
        history = History()
        for word in before:
            history.add("Host", "kvm1", word, "before")
        recorder, host = Recorder(history), PlayedHost()
        recorder.begin(old_hosts, "here")
        last = history.last
        recorder.host(host)  # type: ignore[arg-type]
        for state in states:
            host.state = state, "" if state == "up" else "no answer"
            recorder.host(host)  # type: ignore[arg-type]
            recorder.settle(float("inf"))
        host.state = "down", "the controller stops"
        recorder.host(host)  # type: ignore[arg-type]
        assert [event.event for event in history.find(EventFilter(after=last)).events] == words

    asyncio.run(main())


def test_what_is_put_right_within_a_moment_is_no_event() -> None:
    async def main() -> None:
        history = History()
        recorder, host = Recorder(history), PlayedHost()
        for state, reason in (
            ("up", ""),
            ("degraded", "waits"),
            ("up", ""),
            ("degraded", "a"),
            ("degraded", "refuses"),
        ):
            host.state = state, reason
            recorder.host(host)  # type: ignore[arg-type]
            recorder.settle(asyncio.get_running_loop().time())
        assert [event.event for event in history.find(EventFilter()).events] == ["openflow-up"]
        recorder.settle(asyncio.get_running_loop().time() + 3)
        recorder.settle(asyncio.get_running_loop().time() + 6)
        assert [event.message for event in history.find(EventFilter()).events][1:] == ["openflow is degraded: refuses"]
        recorder.end("here")
        host.state = "down", "no answer"
        recorder.host(host)  # type: ignore[arg-type]
        assert history.find(EventFilter()).events[-1].event == "stopped"

    asyncio.run(main())


def test_a_vnic_that_gets_another_row_is_not_gone() -> None:
    history = History()
    recorder = Recorder(history)
    seen = Row("Port", "u1.525400000001", {}, ACTIVE)
    recorder.rows([Change("Port", seen.name, seen, None), Change("Port", "p1", None, Row("Port", "p1", {}, ACTIVE))])
    assert [(event.name, event.event) for event in history.find(EventFilter()).events] == [("p1", "active")]
    recorder.rows([Change("Port", "p1", Row("Port", "p1", {}, ACTIVE), None)])
    assert [event.event for event in history.find(EventFilter()).events] == ["active", "gone"]


def test_drift_of_flows_is_counted_from_each_connection_on() -> None:
    history = History()
    recorder, host = Recorder(history), PlayedHost()
    for drifts in (0, 3, 3, 0, 1):
        host.switch.state.drifts = drifts
        recorder.host(host)  # type: ignore[arg-type]
    found = history.find(EventFilter(event="drift")).events
    assert [event.message.partition(" of its switch")[0] for event in found] == [
        "somebody else changed 3 flows", "somebody else changed 1 flow",
    ]  # fmt: skip


def test_settings_of_a_switch_and_rows_that_were_put_right_are_told_once_each() -> None:
    history = History()
    recorder, host = Recorder(history), PlayedHost()
    for _ in range(2):
        recorder.host(host)  # type: ignore[arg-type]
        host.switch.upkeep = SimpleNamespace(repairs=1, repaired=("port vnet1 (no-forward)",))
        host.ovsdb = SimpleNamespace(repairs=1, repaired=("br-int: fail_mode",))
    recorder.host(host)  # type: ignore[arg-type]
    assert [event.message for event in history.find(EventFilter(event="drift")).events] == [
        "somebody else changed its OVSDB; put right: br-int: fail_mode",
        "somebody else changed its switch; put right: port vnet1 (no-forward)",
    ]


def test_who_was_turned_away_is_told_by_address() -> None:
    history = History()
    Recorder(history).turned_away("192.0.2.9", 0xABC, "kvm1", "claims to be it")
    [event] = history.find(EventFilter()).events
    assert (event.kind, event.name, event.host) == ("Switch", "192.0.2.9", "kvm1")
    assert event.message == "datapath id 0000000000000abc: claims to be it"
