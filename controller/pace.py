"""When to look again at something that goes on."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """Soon after a quiet while, and twice as long after each look that was followed by a reason to look again.

    ``least`` and ``most`` in seconds; quiet is four times as long as the last pause. ``clock`` gives seconds.
    """

    def __init__(self, least: float, most: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._least, self._most, self._clock = least, most, clock
        self._pause = least
        self._due = self._looked = float("-inf")

    def plan(self) -> None:
        """There is a reason to look."""
        now = self._clock()
        quiet = now - self._looked > 4 * self._pause
        self._pause = self._least if quiet else min(2 * self._pause, self._most)
        self._due = now + self._pause

    def left(self) -> float:
        """Seconds until then; 0 when it is time."""
        return max(0.0, self._due - self._clock())

    def done(self) -> None:
        """It was looked at."""
        self._looked = self._clock()
