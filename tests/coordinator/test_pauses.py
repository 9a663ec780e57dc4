"""Full garbage collections leave out what they looked at before, and miss nothing for ever."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from controller.pauses import ShortPauses


class Clock:
    """Seconds, and how many pass with each look."""

    def __init__(self) -> None:
        self.now = 0.0
        self.step = 0.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now


class Knot:
    """Garbage that only a collection finds."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pauses(clock: Clock) -> Iterator[ShortPauses]:
    found = ShortPauses(long=1.0, thorough=100.0, clock=clock)
    found.install()
    yield found
    found.remove()


def test_what_a_long_collection_left_is_not_looked_at_again(clock: Clock, pauses: ShortPauses) -> None:
    gc.collect()
    assert gc.get_freeze_count() == 0, "a short one changes nothing"
    kept = [Knot()]
    clock.step = 1.0
    gc.collect(1)
    assert gc.get_freeze_count() == 0, "only full ones count"
    gc.collect()
    assert gc.get_freeze_count() > 1000
    assert kept[0] not in gc.get_objects()


def test_garbage_is_found_before_it_is_set_aside_and_after(clock: Clock, pauses: ShortPauses) -> None:
    before, after = Knot(), Knot()
    gone, later = weakref.ref(before), weakref.ref(after)
    clock.step = 1.0
    del before
    gc.collect()
    assert gone() is None
    first = gc.get_freeze_count()
    del after
    gc.collect()
    assert later() is not None, "it was set aside while somebody had it"
    clock.now += 100.0
    gc.collect()
    assert later() is not None, "little came: everything is not looked at again for that"
    crowd = [Knot() for _ in range(first)]
    gc.collect()
    assert gc.get_freeze_count() >= 2 * first
    assert later() is not None, "too soon"
    clock.now += 100.0
    gc.collect()
    assert later() is None
    del crowd


def test_removed_it_leaves_the_collector_as_it_was(clock: Clock) -> None:
    callbacks = list(gc.callbacks)
    pauses = ShortPauses(long=0.0, clock=clock)
    pauses.install()
    gc.collect()
    assert gc.get_freeze_count() > 0
    pauses.remove()
    assert gc.get_freeze_count() == 0
    assert gc.callbacks == callbacks
