"""Short pauses: full garbage collections that do not look again and again at what stays.

CPython's collector stops every thread, and a full collection looks at each container that there is: at 400 hosts and
2,000 guests for 0.7 s (scripts/bench reads), in which no switch and no reader is served. Nearly all of those are
rows and flows that stay, and that go by reference counts when they go.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping

_FULL = 2  # the oldest generation of the gc module
LONG = 0.05  # seconds
THOROUGH = 3600.0
GROWN = 1.5


class ShortPauses:
    """After a full collection that took ``long`` seconds, what it left is set aside (gc.freeze): the next one looks at
    what came later. What is set aside and becomes garbage in cycles is found by a thorough one, every ``thorough``
    seconds at most, and only when half as much again is set aside as after the last one: it takes as long as full ones
    did before, and in a fleet that stays as it is there is none. ``clock`` gives seconds."""

    def __init__(
        self, long: float = LONG, thorough: float = THOROUGH, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._long, self._thorough, self._clock = long, thorough, clock
        self._begun = self._thoroughly = clock()
        self._left = 0  # set aside after the last thorough one
        self._is_thorough = True  # the first that sets aside looks at everything

    def install(self) -> None:
        """From now on, for the whole process."""
        gc.callbacks.append(self._observe)

    def remove(self) -> None:
        """Everything as it was before."""
        gc.callbacks.remove(self._observe)
        gc.unfreeze()

    def _observe(self, phase: str, info: Mapping[str, int]) -> None:
        if info["generation"] != _FULL:
            return
        now = self._clock()
        if phase == "start":
            self._begun = now
            if now - self._thoroughly >= self._thorough:
                self._thoroughly = now
                if gc.get_freeze_count() > GROWN * self._left:
                    self._is_thorough = True
                    gc.unfreeze()
        elif now - self._begun >= self._long:
            gc.freeze()
            if self._is_thorough:
                self._left, self._is_thorough = gc.get_freeze_count(), False
