"""How late the loop is: what is due now has to wait for what is running."""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_left
from collections.abc import Mapping
from itertools import accumulate

EVERY = 0.25
"""Seconds between two looks: a loop that stands still for longer is seen for sure."""
BOUNDS = (0.005, 0.025, 0.1, 0.5, 1.0, 5.0, math.inf)


class Lateness:
    """Seconds by which looks came too late, counted by size since the start."""

    def __init__(self) -> None:
        self._counts = [0] * len(BOUNDS)
        self.total = 0.0

    async def run(self) -> None:
        """Look for ever."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + EVERY
            await asyncio.sleep(EVERY)
            self.note(max(0.0, loop.time() - due))

    def note(self, seconds: float) -> None:
        """One look was so late."""
        self._counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    @property
    def at_most(self) -> Mapping[float, int]:
        """How many looks were at most so late, by bound."""
        return dict(zip(BOUNDS, accumulate(self._counts), strict=True))
