"""The history by itself: bounded, paced, in order, and waited for."""

from __future__ import annotations

import asyncio

from controller.history import (
    BURST,
    HOST_BURST,
    HOST_REFILL_SECONDS,
    MOST_CHARACTERS,
    MOST_EVENTS,
    REFILL_SECONDS,
    EventFilter,
    History,
)


class Clock:
    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


def words(history: History) -> list[str]:
    return [event.event for event in history.find(EventFilter()).events]


def test_it_keeps_the_last_ones_and_short_sentences() -> None:
    history = History(most=3)
    for number in range(5):
        history.add("Port", f"p{number}", "active", "x" * 5000)
    found = history.find(EventFilter()).events
    assert [event.name for event in found] == ["p2", "p3", "p4"]
    assert all(len(event.message) == MOST_CHARACTERS for event in found)
    assert len(history.unwritten(10)) == 3


def test_ids_grow_also_when_the_clock_is_set_back_and_after_a_restart() -> None:
    clock = Clock()
    history = History(clock)
    history.add("Host", "kvm1", "created", "")
    clock.now -= 3600
    history.add("Host", "kvm2", "created", "")
    later = History(clock)
    later.load(reversed(history.find(EventFilter()).events))
    later.add("Host", "kvm3", "created", "")
    found = later.find(EventFilter()).events
    assert [event.name for event in found] == ["kvm1", "kvm2", "kvm3"]
    assert found[0].id < found[1].id < found[2].id
    assert [event.name for event in later.unwritten(10)] == ["kvm3"]


def test_an_object_that_flaps_fills_no_history_and_its_last_word_is_told() -> None:
    clock = Clock()
    history = History(clock)
    for _ in range(500):
        history.add("Host", "kvm1", "openflow-down", "lost")
        history.add("Host", "kvm1", "openflow-up", "is up")
    history.add("Host", "kvm1", "ovsdb-down", "another connection")
    history.add("Host", "kvm2", "openflow-up", "another host")
    assert len(words(history)) == BURST + 2
    history.catch_up()
    assert len(words(history)) == BURST + 2
    clock.now += REFILL_SECONDS
    history.catch_up()
    last = history.find(EventFilter()).events[-1]
    assert (last.name, last.event) == ("kvm1", "openflow-up")
    assert "979 events of it before this one are left out" in last.message


def test_switches_that_are_turned_away_are_paced_together() -> None:
    history = History(Clock())
    for number in range(1000):
        history.add("Switch", f"192.0.2.{number}", "turned-away", "")
    assert len(words(history)) == BURST


def test_a_host_that_invents_guests_displaces_nothing() -> None:
    clock = Clock()
    history = History(clock)
    history.add("Host", "kvm2", "drift", "another host")
    for number in range(MOST_EVENTS * 2):
        history.add("Port", f"p{number}", "quarantined", "", host="kvm1")
    history.add("Port", "p0", "active", "", host="kvm2")
    assert words(history)[0] == "drift"
    assert words(history)[-1] == "active"
    clock.now += HOST_REFILL_SECONDS
    history.catch_up()
    last = history.find(EventFilter()).events[-1]
    assert (last.kind, last.name, last.event) == ("Host", "kvm1", "left-out")
    assert f"({MOST_EVENTS * 2 - HOST_BURST - 1} events of it before this one are left out)" in last.message


def test_what_is_waited_for_comes_and_other_things_do_not() -> None:
    async def main() -> None:
        history = History()
        history.add("Port", "p1", "active", "")
        waiting = asyncio.create_task(history.wait(EventFilter(kind="Host"), 20))
        await asyncio.sleep(0)
        history.add("Port", "p2", "active", "")
        await asyncio.sleep(0)
        history.add("Host", "kvm1", "created", "")
        assert [event.name for event in (await waiting).events] == ["kvm1"]
        nothing = await history.wait(EventFilter(kind="Network"), 0.01)
        assert (nothing.events, nothing.last) == ([], history.last)

    asyncio.run(main())
