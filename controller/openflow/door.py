"""How many strangers may stand at a listener: in all, from one source, and how often."""

from __future__ import annotations

import ipaddress
import itertools
import time
from collections.abc import Callable

_BURST = 512.0  # a rack of switches behind one address comes back at once
_PER_SECOND = 100.0
_MOST_SOURCES = 4096


def source_of(name: object) -> str:
    """Who a socket's peer is taken for: its IPv4 address, the /64 of its IPv6 address, ``unix``."""
    if not isinstance(name, tuple):
        return "unix"
    try:
        address = ipaddress.ip_address(str(name[0]).partition("%")[0])
    except ValueError:
        return str(name[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return str(ipaddress.ip_network((address, 64), strict=False))
        return str(address.ipv4_mapped)
    return str(address)


class Door:
    """``most`` peers may be in the handshake at once, ``most_of_one`` of them of one source. Whoever comes beyond that
    takes the place of the one that has stood there longest, of the same source or of the one that has most: an honest
    switch needs its place for milliseconds. A source may come 512 times at once, and then 100 times a second."""

    def __init__(self, most: int, most_of_one: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._clock = clock
        self._places: dict[str, dict[int, Callable[[], None]]] = {}  # by source and ticket: how to end it
        self._tickets = itertools.count()
        self._tokens: dict[str, tuple[float, float]] = {}  # how many are left, as of when; the latest stands last
        self.inside = 0
        """Peers in the handshake."""

    def may_come(self, source: str) -> bool:
        """False: it comes too often."""
        now = self._clock()
        left, since = self._tokens.pop(source, (_BURST, now))
        left = min(_BURST, left + (now - since) * _PER_SECOND)
        if len(self._tokens) >= _MOST_SOURCES:
            del self._tokens[next(iter(self._tokens))]
        self._tokens[source] = (left - 1.0 if left >= 1.0 else left, now)
        return left >= 1.0

    def enter(self, source: str, end: Callable[[], None]) -> tuple[int, bool]:
        """Counts a peer in; ``end`` is called when it has to make room. Returns its ticket, and whether somebody had to
        make room for it."""
        crowded = True
        if len(self._places.get(source, ())) >= self._most_of_one:
            self._evict(source)
        elif self.inside >= self._most:
            self._evict(max(self._places, key=lambda each: len(self._places[each])))
        else:
            crowded = False
        ticket = next(self._tickets)
        self._places.setdefault(source, {})[ticket] = end
        self.inside += 1
        return ticket, crowded

    def leave(self, source: str, ticket: int) -> None:
        """A peer is through the handshake, or gone; whoever made room has left already."""
        if self._places.get(source, {}).pop(ticket, None) is None:
            return
        self.inside -= 1
        if not self._places[source]:
            del self._places[source]

    def _evict(self, source: str) -> None:
        ticket, end = next(iter(self._places[source].items()))
        self.leave(source, ticket)
        end()
