"""Two histories of one fleet, what its hosts have and what the topology says: how far the one is behind the other."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby

from e2e_reality import Fact

HEARD = 0.5  # seconds, by when a thread of ours has heard of a change, on a machine that others use as well


@dataclass(frozen=True)
class Sample:
    """Facts that were read between two moments: each of them was so at some moment between those."""

    begun: float
    ended: float
    facts: frozenset[Fact]


class Sampler:
    """Reads again and again, in a thread of its own."""

    def __init__(self, read: Callable[[], Iterable[Fact]]) -> None:
        self.samples: list[Sample] = []
        self._read = read
        self._done = threading.Event()
        self._fault: Exception | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Raises what the reading raised."""
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield
        finally:
            self._done.set()
            thread.join()
        if self._fault is not None:
            raise self._fault

    def _run(self) -> None:
        try:
            self._record()
        except Exception as error:
            self._fault = error

    def _record(self) -> None:
        while not self._done.wait(0.02):
            begun = time.monotonic()
            facts = frozenset(self._read())
            self.samples.append(Sample(begun, time.monotonic(), facts))


class Follower(Sampler):
    """Told of every change, in a thread of its own: it has a sample where facts end, and one where others begin."""

    def __init__(self, follow: Callable[[Callable[[], bool]], Iterator[Iterable[Fact]]]) -> None:
        """``follow(done)`` gives the facts now and after each change, until ``done()``."""
        super().__init__(frozenset)
        self._follow = follow

    def _record(self) -> None:
        for facts in self._follow(self._done.is_set):
            self._until_now()
            now = time.monotonic()
            self.samples.append(Sample(now, now, frozenset(facts)))
        self._until_now()

    def _until_now(self) -> None:
        if self.samples:
            now = time.monotonic()
            self.samples.append(Sample(now, now, self.samples[-1].facts))


@dataclass(frozen=True)
class Lag:
    """The topology told, or did not tell, a fact when that was untrue, as far as it can be known, for so long."""

    seconds: float
    moment: float
    fact: Fact
    told: bool


def lags(real: Sequence[Sample], told: Sequence[Sample]) -> list[Lag]:
    """Each stretch of time in which a fact was told otherwise than the hosts had it, the worst first: what came late is
    in it once, what flaps as often as it flaps.

    A fact that was read may have been so since the reading before and until the one after, or at any time before the
    first and after the last: how long a reading takes is nobody's delay. Nor is it one when the controller, which also
    follows the hosts, has heard of something a moment before us.
    """
    found = []
    for fact in frozenset[Fact]().union(*(sample.facts for sample in (*real, *told))):
        for (is_late, _), stretch in groupby(_judged(real, told, fact), lambda each: (each.seconds > 0, each.told)):
            if is_late:
                found.append(max(stretch, key=lambda each: each.seconds))
    return sorted(found, key=lambda each: -each.seconds)


def _judged(real: Sequence[Sample], told: Sequence[Sample], fact: Fact) -> Iterator[Lag]:
    maybe = {state: _when(real, fact, state) for state in (True, False)}
    for sample in told:
        state = fact in sample.facts
        last = max(ended for begun, ended in maybe[state] if begun <= sample.ended + HEARD)
        yield Lag(max(0.0, sample.begun - last), sample.ended, fact, state)


def _when(real: Sequence[Sample], fact: Fact, state: bool) -> list[tuple[float, float]]:
    """The spans of time in which the fact may have been so, or not so."""
    if not real:
        return [(-math.inf, math.inf)]
    spans = [(-math.inf, real[0].begun)]
    for before, now, after in zip([real[0], *real], real, [*real[1:], real[-1]], strict=False):
        if (fact in now.facts) is state:
            if before.begun <= spans[-1][1]:
                spans[-1] = (spans[-1][0], max(spans[-1][1], after.ended))
            else:
                spans.append((before.begun, after.ended))
    return [*spans, (real[-1].ended, math.inf)]
