"""What guests ask is done in turns: who asks without end waits, and nobody else does."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.services import intake
from controller.services.askers import Asker, Vnic
from controller.services.excess import FORGET_SECONDS, MOST, Excess
from controller.services.intake import Intake
from controller.services.turns import Turns


def test_a_newcomer_goes_before_those_who_ask_without_end() -> None:
    turns: Turns[str, int] = Turns(1000, 100)
    for number in range(100):
        for flooder in ("a", "b"):
            turns.put(flooder, (flooder, number), number)
    assert list(turns.take(4)) == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    turns.put("quiet", "please", 1)
    assert next(iter(turns.take(1))) == "please"


@given(st.integers(1, 6), st.integers(1, 4))
def test_who_asks_anew_whenever_it_was_served_keeps_nobody_waiting(others: int, things: int) -> None:
    turns: Turns[str, int] = Turns(1000, 100)
    for thing in range(things):
        turns.put("honest", f"honest {thing}", thing)
    for turn in range(2 * (others + 1) * (things + 1)):
        for other in map(str, range(others)):
            if turns.owner(other) is None:  # it never has more than one waiting, and so is new each time
                turns.put(other, other, turn)
        turns.take(1)
    assert [turns.owner(f"honest {thing}") for thing in range(things)] == [None] * things


def test_where_there_is_no_room_those_lose_who_have_most_waiting() -> None:
    turns: Turns[str, int] = Turns(10, 8)
    assert [turns.put("a", n, n) for n in range(9)] == [None] * 8 + ["a"]
    assert [turns.put("b", f"b{n}", n) for n in range(2)] == [None, None]
    assert [turns.put("c", f"c{n}", n) for n in range(4)] == ["a", "a", "a", "a"]
    assert turns.put("a", 99, 99) == "a"
    assert len(turns) == 10
    assert Counter(map(str, turns.take(99).values())) == Counter(map(str, [*range(4), *range(2), *range(4)]))


def test_to_drop_costs_the_same_however_many_flood() -> None:
    def calls(flooders: int) -> int:
        """Calls that Python makes for one thing of each who floods, where there is no room."""
        turns: Turns[int, int] = Turns(4 * flooders, 32)
        for number in range(4 * flooders):
            turns.put(number % flooders, number, number)
        counted = 0

        def count(frame: object, event: str, arg: object) -> None:
            nonlocal counted
            counted += event == "call"

        sys.setprofile(count)
        try:
            for whose in range(flooders):
                turns.put(whose, ("more", whose), 0)
        finally:
            sys.setprofile(None)
        return counted

    assert calls(400) < 2 * 40 * calls(10)


def test_what_is_asked_again_takes_no_place_more() -> None:
    turns: Turns[str, str] = Turns(2, 1)
    assert [turns.put("a", 1, "old"), turns.put("a", 1, "new")] == [None, None]
    assert (turns.owner(1), turns.take(9), turns.owner(1)) == ("a", {1: "new"}, None)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 9)) | st.integers(0, 3), max_size=60))
def test_nothing_is_lost_without_a_word_and_no_bound_is_passed(steps: list[tuple[str, int] | int]) -> None:
    turns: Turns[str, tuple[str, int]] = Turns(6, 3)
    waiting: Counter[str] = Counter()
    for step in steps:
        if isinstance(step, int):
            taken = turns.take(step)
            assert len(taken) == min(step, sum(waiting.values()))
            waiting -= Counter(whose for whose, _ in taken.values())
            continue
        is_new = turns.owner(step) is None
        dropped = turns.put(step[0], step, step)
        waiting[step[0]] += is_new
        if dropped is not None:
            waiting[dropped] -= 1
        assert len(turns) == sum(waiting.values()) <= 6
        assert max(waiting.values()) <= 3


def asker(number: int, segment: int = 1) -> Asker:
    return Asker("h", number, segment, f"p{number}", "web")


def test_a_quiet_guest_is_answered_next_while_many_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        excess, answered, told = Excess(), list[str](), asyncio.Event()

        def answer(who: Asker, what: int) -> None:
            answered.append(who.port)
            if who.port == "p99":
                told.set()

        taking: Intake[int] = Intake("DNS", 200.0, 5.0, answer, excess)
        for number in range(40):
            for flooder in range(30):
                taking.put(asker(flooder, segment=number % 4), number, number)
        assert len(answered) == 5  # at once; then they wait
        taking.put(asker(99), 0, 0)
        work = asyncio.create_task(taking.run())
        async with asyncio.timeout(20.0):
            await told.wait()
        work.cancel()
        # Among the first that waited, though more than nine hundred came before it.
        assert answered.index("p99") <= 5 + 30
        dropped = excess.recent()
        assert {each.vnic.port for each in dropped} <= {f"p{n}" for n in range(30)}
        assert sum(each.count for each in dropped) == excess.total["DNS"] > 0

    monkeypatch.setattr(intake, "_MOST", 900)
    asyncio.run(main())


def test_a_question_that_fails_keeps_nobody_from_being_answered() -> None:
    async def main() -> list[int]:
        answered, told = list[int](), asyncio.Event()

        def answer(who: Asker, what: int) -> None:
            if what == 1:
                raise ValueError(what)
            answered.append(what)
            if what == 2:
                told.set()

        taking: Intake[int] = Intake("DNS", 1000.0, 1.0, answer, Excess())
        for number in range(3):
            taking.put(asker(1), number, number)
        work = asyncio.create_task(taking.run())
        async with asyncio.timeout(20.0):
            await told.wait()
        work.cancel()
        return answered

    assert asyncio.run(main()) == [0, 2]


def test_however_many_guests_ask_too_much_the_log_stays_short(caplog: pytest.LogCaptureFixture) -> None:
    now = [1000.0]
    excess = Excess(lambda: now[0])
    guests = [Vnic("h", number, f"p{number}") for number in range(MOST + 50)]
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            for guest in guests:
                excess.note("DHCP", guest)
        assert len(caplog.records) == MOST
        now[0] += FORGET_SECONDS + 1
        excess.note("DHCP", guests[0])
        assert len(caplog.records) == MOST + 1


def test_the_operator_is_told_once_of_each_guest(caplog: pytest.LogCaptureFixture) -> None:
    now = [1000.0]
    excess = Excess(lambda: now[0])
    with caplog.at_level(logging.WARNING):
        for _ in range(500):
            excess.note("DHCP", Vnic("h", 5, "p5"))
        excess.note("DHCP", Vnic("h", 6, "p6"))
    assert [record.getMessage().split(" asks")[0] for record in caplog.records] == ["h: Port p5", "h: Port p6"]
    assert [(each.vnic.port, each.count) for each in excess.recent()] == [("p6", 1), ("p5", 500)]
    assert excess.total["DHCP"] == 501
    for number in range(1000):
        excess.note("DNS", Vnic("h", number, f"q{number}"))
    assert len(excess.recent()) == MOST
    now[0] += FORGET_SECONDS + 1
    assert excess.recent() == []
