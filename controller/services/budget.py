"""How much may be asked: so many a second and at once, of each asker and in all."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

_MOST_KNOWN = 4096


@dataclass(slots=True)
class Budget:
    """Token buckets, one for each asker. Time is in seconds of any clock that does not go back."""

    rate: float
    burst: float
    _left: dict[Hashable, tuple[float, float]] = field(default_factory=dict)

    def left(self, asker: Hashable, now: float) -> float:
        """How often the asker may ask now."""
        left, at = self._left.get(asker, (self.burst, now))
        return min(self.burst, left + (now - at) * self.rate)

    def spend(self, asker: Hashable, now: float, count: float = 1.0) -> bool:
        """Whether the asker may ask once more now; ``count`` is what that counts as."""
        left = self.left(asker, now)
        if left < count:
            return False
        self._left[asker] = (left - count, now)
        if len(self._left) > _MOST_KNOWN:
            self._forget(now)
        return True

    def _forget(self, now: float) -> None:
        """Those who have all that they can have are as good as unknown; when none is, everybody."""
        self._left = {
            asker: (left, at) for asker, (left, at) in self._left.items() if left + (now - at) * self.rate < self.burst
        }
        if len(self._left) > _MOST_KNOWN:
            self._left.clear()
