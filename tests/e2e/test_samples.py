"""The judge of the topology's lag: what it calls late, and what it cannot know."""

from __future__ import annotations

from e2e_reality import Fact
from e2e_samples import Sample, Sampler, behind

A: Fact = ("vnic", "h1")
B: Fact = ("vnic", "h2")


def history(*moments: tuple[float, float, set[Fact]]) -> list[Sample]:
    return [Sample(begun, ended, frozenset(facts)) for begun, ended, facts in moments]


# A goes and B comes between 2.5 and 3.4.
REAL = history(*((n / 2, n / 2 + 0.4, {A} if n < 6 else {B}) for n in range(16)))


def test_what_is_told_in_time_is_right() -> None:
    told = history((2.0, 2.1, {A}), (3.2, 3.3, {A}), (3.9, 4.0, {A}), (3.9, 4.0, {B}), (5.0, 5.1, {B}))
    assert behind(REAL, told, 1.0) == []


def test_what_is_told_too_late_or_never_is_named() -> None:
    assert behind(REAL, history((5.5, 5.6, {A, B})), 1.0) == [(5.6, A, "told and not there")]
    assert behind(REAL, history((5.5, 5.6, set())), 1.0) == [(5.6, B, "there and not told")]
    assert behind(REAL, history((1.5, 1.6, {A, B})), 1.0) == [(1.6, B, "told and not there")]


def test_nothing_is_said_of_what_nobody_read() -> None:
    assert behind(REAL, history((0.5, 0.6, set()), (7.8, 7.9, set())), 1.0) == []
    assert behind([], history((0.5, 0.6, {A})), 1.0) == []


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


def test_what_was_told_otherwise_a_moment_ago_is_no_delay() -> None:
    told = history((5.3, 5.4, {B}), (5.4, 5.5, set()), (5.5, 5.6, set()), (5.6, 5.7, {B}))
    assert behind(REAL, told, 1.0) == []
    told = history((4.0, 4.1, {B}), (4.5, 4.6, set()), (5.0, 5.1, set()), (5.5, 5.6, set()))
    assert [moment for moment, *_ in behind(REAL, told, 1.0)] == [5.6]
