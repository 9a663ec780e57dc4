"""Who was turned away at the OpenFlow port, and why: kept for the operator, bounded whoever connects."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

MOST = 256
MOST_OF_ONE = 16
"""Of one address: somebody who invents datapath ids displaces nobody else's."""
FORGET_SECONDS = 3600.0
_LONGEST = 300


@dataclass(frozen=True, slots=True)
class Stranger:
    """``dpid`` is None for a peer that did not get as far as telling it; ``host`` is the Host whose id it claims.
    ``address`` has no port: that is another one at each attempt. ``first`` and ``last`` are seconds since 1970."""

    address: str
    dpid: int | None
    host: str | None
    reason: str
    remedy: str
    first: float
    last: float
    count: int = 1


class Strangers:
    """One entry for each (address, datapath id). When there are too many, the one not seen for longest goes."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._found: dict[tuple[str, int | None], Stranger] = {}  # the one seen last stands last
        self._of: dict[str, int] = {}

    def note(self, address: str, dpid: int | None, reason: str, remedy: str = "", host: str | None = None) -> bool:
        """Remembers one attempt. True when it is the first of this peer, or is refused for another reason than before:
        worth a line in the log."""
        now, key = self._clock(), (address, dpid)
        reason = reason[:_LONGEST]
        old = self._take(key)
        if old is None:
            self._make_room(address)
            old = Stranger(address, dpid, host, "", "", now, now, 0)
        self._found[key] = replace(old, host=host, reason=reason, remedy=remedy, last=now, count=old.count + 1)
        self._of[address] = self._of.get(address, 0) + 1
        return old.reason != reason

    def all(self) -> list[Stranger]:
        """Those that were seen in the last hour, the latest first."""
        oldest = self._clock() - FORGET_SECONDS
        for key in [key for key, stranger in self._found.items() if stranger.last < oldest]:
            self._take(key)
        return list(reversed(self._found.values()))

    def _make_room(self, address: str) -> None:
        if self._of.get(address, 0) >= MOST_OF_ONE:
            self._take(next(key for key in self._found if key[0] == address))
        elif len(self._found) >= MOST:
            self._take(next(iter(self._found)))

    def _take(self, key: tuple[str, int | None]) -> Stranger | None:
        found = self._found.pop(key, None)
        if found is not None:
            self._of[key[0]] -= 1
            if not self._of[key[0]]:
                del self._of[key[0]]
        return found
