"""What is remembered of those who were turned away."""

from __future__ import annotations

from controller.strangers import FORGET_SECONDS, MOST, MOST_OF_ONE, Strangers


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_attempts_of_one_are_counted_in_one_entry() -> None:
    clock = Clock()
    strangers = Strangers(clock)
    assert strangers.note("192.0.2.1", 7, "no Host's", "type this")
    clock.now += 5
    assert not strangers.note("192.0.2.1", 7, "no Host's", "type this")
    assert strangers.note("192.0.2.1", 7, "now for another reason")
    [one] = strangers.all()
    assert (one.count, one.first, one.last, one.reason) == (3, 1000.0, 1005.0, "now for another reason")


def test_the_latest_stands_first_and_old_ones_are_forgotten() -> None:
    clock = Clock()
    strangers = Strangers(clock)
    for address in ("a", "b", "a"):
        clock.now += 1
        strangers.note(address, 1, "x")
    assert [one.address for one in strangers.all()] == ["a", "b"]
    clock.now += FORGET_SECONDS - 0.5
    assert [one.address for one in strangers.all()] == ["a"]
    clock.now += 1
    assert strangers.all() == []


def test_whoever_invents_datapath_ids_displaces_his_own_alone() -> None:
    strangers = Strangers()
    strangers.note("honest", 1, "x")
    for dpid in range(100_000):
        strangers.note("liar", dpid, "x" * 10_000)
    found = strangers.all()
    assert len(found) == MOST_OF_ONE + 1
    assert found[-1].address == "honest"
    assert {one.dpid for one in found[:-1]} == set(range(100_000 - MOST_OF_ONE, 100_000))
    assert all(len(one.reason) <= 300 for one in found)


def test_the_list_is_bounded_whatever_addresses_there_are() -> None:
    strangers = Strangers()
    for number in range(10_000):
        strangers.note(f"address {number}", number % 3, "x")
    assert len(strangers.all()) == MOST
    assert len(strangers._of) == MOST
