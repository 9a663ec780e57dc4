"""The judge of the topology's lag: what it calls late and by how much, and what it cannot know."""

from __future__ import annotations

from collections.abc import Callable

from e2e_reality import Fact
from e2e_samples import Follower, Lag, Sample, Sampler, lags

A: Fact = ("vnic", "h1")
B: Fact = ("vnic", "h2")
LIMIT = 1.0


def history(*moments: tuple[float, float, set[Fact]]) -> list[Sample]:
    return [Sample(begun, ended, frozenset(facts)) for begun, ended, facts in moments]


def every(step: float, facts: Callable[[float], set[Fact]], until: float = 20.0) -> list[Sample]:
    """Samples that take no time."""
    moments = (n * step for n in range(round(until / step)))
    return [Sample(moment, moment, frozenset(facts(moment))) for moment in moments]


# A goes and B comes between 2.5 and 3.4.
REAL = history(*((n / 2, n / 2 + 0.4, {A} if n < 6 else {B}) for n in range(16)))
MOVES = every(0.05, lambda t: {A} if t < 5 else {B})  # A goes and B comes at 5


def late(real: list[Sample], told: list[Sample]) -> list[Lag]:
    return [lag for lag in lags(real, told) if lag.seconds > LIMIT]


def said(found: list[Lag]) -> list[tuple[Fact, bool, float]]:
    return [(lag.fact, lag.told, round(lag.seconds, 1)) for lag in found]


def test_what_is_told_in_time_is_right() -> None:
    told = history((2.0, 2.1, {A}), (3.2, 3.3, {A}), (3.9, 4.0, {A}), (3.9, 4.0, {B}), (5.0, 5.1, {B}))
    assert late(REAL, told) == []
    assert lags(MOVES, MOVES) == []


def test_what_is_told_too_late_or_never_is_named() -> None:
    assert said(lags(REAL, history((5.5, 5.6, {A, B})))) == [(A, True, 2.1)]
    assert said(lags(REAL, history((5.5, 5.6, set())))) == [(B, False, 2.1)]
    assert said(lags(REAL, history((1.2, 1.3, {A, B})))) == [(B, True, 1.2)]


def test_nothing_is_said_of_what_nobody_read() -> None:
    assert late(REAL, history((0.5, 0.6, set()), (7.8, 7.9, set()))) == []
    assert lags([], history((0.5, 0.6, {A}))) == []


def test_a_graph_that_is_stuck_is_as_late_as_it_is_stuck() -> None:
    told = every(0.05, lambda t: {A} if t < 8 else {B})
    assert sorted(said(late(MOVES, told))) == [(A, True, 3.0), (B, False, 3.0)]


def test_a_removed_thing_that_is_told_on_is_late() -> None:
    told = every(0.05, lambda t: {A} if t < 5 else {A, B} if t < 8 else {B})
    assert said(late(MOVES, told)) == [(A, True, 3.0)]


def test_what_is_never_told_is_late_for_ever() -> None:
    [lag] = late(MOVES, every(0.05, lambda t: {A} if t < 5 else set()))
    assert (lag.fact, lag.told) == (B, False)
    assert lag.seconds > 14


def test_a_graph_that_flaps_is_late_each_time() -> None:
    told = every(0.05, lambda t: {A} if t < 5 else {B} if round(t / 0.05) % 4 else set())
    found = late(MOVES, told)
    assert {(lag.fact, lag.told) for lag in found} == {(B, False)}
    assert len(found) > 60


def test_one_wrong_moment_while_nothing_changes_is_late() -> None:
    [lag] = late(MOVES, every(0.05, lambda t: {A} if t < 5 else set() if 10 < t < 10.06 else {B}))
    assert (lag.fact, lag.told) == (B, False)


def test_what_comes_and_goes_at_once_may_be_told_for_as_long_as_it_may_be_late() -> None:
    real = history(*((moment, moment, facts) for moment, facts in (
        (0, {A}), (5, {A}), (5, set()), (5.01, set()), (5.01, {A}), (20, {A}),
    )))  # fmt: skip

    def gap(ended: float) -> list[Sample]:
        return every(0.05, lambda t: set() if 5.1 < t < ended else {A})

    assert late(real, gap(5.92)) == []
    assert said(late(real, gap(7.92))) == [(A, False, 2.9)]


def test_a_follower_knows_what_was_so_for_no_time_at_all() -> None:
    follower = Follower(lambda _: iter([{A}, {B}, {A}]))
    with follower.running():
        pass
    assert [sample.facts for sample in follower.samples] == [*({A}, {A}), *({B}, {B}), *({A}, {A})]
    begun, ended = follower.samples[2:4]
    assert begun.begun <= ended.begun


def test_a_sampler_reads_until_it_is_told_to_stop_and_hides_no_fault() -> None:
    sampler = Sampler(lambda: {A})
    with sampler.running():
        while len(sampler.samples) < 3:
            pass
    assert {sample.facts for sample in sampler.samples} == {frozenset({A})}
    broken = Sampler(lambda: 1 // 0)  # type: ignore[arg-type, return-value]
    try:
        with broken.running():
            pass
    except ZeroDivisionError:
        return
    assert not broken.samples, "it was ended before it read"
