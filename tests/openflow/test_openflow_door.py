"""Who may stand at a listener: how many, from where, how often."""

from __future__ import annotations

import pytest

from controller.openflow.door import Door, source_of


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def nobody() -> None:
    pass


def test_places_are_counted_and_given_back() -> None:
    door = Door(3, 2)
    tickets = [door.enter(source, nobody) for source in ("a", "b", "c")]
    assert [crowded for _, crowded in tickets] == [False, False, False]
    assert door.inside == 3
    for _ in range(2):  # leaving twice counts once
        door.leave("b", tickets[1][0])
        assert door.inside == 2
    assert door.enter("b", nobody)[1] is False
    assert door.inside == 3


def test_the_longest_there_makes_room_in_its_own_source_or_in_the_one_that_has_most() -> None:
    door = Door(6, 4)
    ended: list[str] = []
    for number in range(5):
        door.enter("flood", lambda number=number: ended.append(f"flood {number}"))
    assert ended == ["flood 0"]
    for source in ("x", "y", "z"):
        door.enter(source, lambda source=source: ended.append(source))
    assert ended == ["flood 0", "flood 1"]
    assert door.inside == 6


def test_a_source_that_comes_too_often_waits_and_no_other_does() -> None:
    clock = Clock()
    door = Door(10_000, 10_000, clock)
    assert sum(door.may_come("flood") for _ in range(5000)) == 512
    assert not door.may_come("flood")
    assert door.may_come("good")
    clock.now += 0.5
    assert sum(door.may_come("flood") for _ in range(5000)) == 50
    clock.now += 3600
    assert sum(door.may_come("flood") for _ in range(5000)) == 512


def test_sources_without_end_cost_no_memory_without_end() -> None:
    door = Door(100, 100, Clock())
    for number in range(20_000):
        assert door.may_come(f"source {number}")
        door.enter(f"source {number}", nobody)
    assert len(door._tokens) <= 4096
    assert len(door._places) == door.inside == 100


@pytest.mark.parametrize(
    ("name", "source"),
    [
        (("192.0.2.1", 5), "192.0.2.1"),
        (("2001:db8:1:2:3::4", 5, 0, 0), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 5, 0, 2), "fe80::/64"),
        (("::ffff:192.0.2.1", 5, 0, 0), "192.0.2.1"),
        ("", "unix"),
    ],
)
def test_sources(name: object, source: str) -> None:
    assert source_of(name) == source
