"""Two histories of one fleet, what its hosts have and what the topology says: how far the one is behind the other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from e2e_reality import Fact


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
            while not self._done.wait(0.02):
                begun = time.monotonic()
                facts = frozenset(self._read())
                self.samples.append(Sample(begun, time.monotonic(), facts))
        except Exception as error:
            self._fault = error


def behind(real: Sequence[Sample], told: Sequence[Sample], seconds: float) -> list[tuple[float, Fact, str]]:
    """What was told although it has not been so for that long, and what was not told although it has been so for that
    long, with the moment. How long reading takes is nobody's delay: what is so somewhere between two readings of the
    hosts counts for as long as it may have been. Nor is it one when it was told otherwise within that time: what comes
    and goes faster than the hosts are read is seen by nobody else.
    """
    found = []
    for number, sample in enumerate(told):
        first = max((n for n, each in enumerate(real) if each.ended <= sample.begun - seconds), default=None)
        last = min((n for n, each in enumerate(real) if each.begun >= sample.ended), default=None)
        if first is None or last is None:
            continue  # nobody knows what was before or after
        around = [each.facts for each in real[first : last + 1]]
        ever, always = frozenset[Fact]().union(*around), around[0].intersection(*around)
        recent = [each.facts for each in told[:number] if each.ended > sample.begun - seconds] or [sample.facts]
        steady, absent = sample.facts.intersection(*recent), sample.facts.union(*recent)
        found += [(sample.ended, fact, "told and not there") for fact in steady - ever]
        found += [(sample.ended, fact, "there and not told") for fact in always - absent]
    return found
