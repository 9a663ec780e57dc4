"""What happened: the last events in order, for whoever reads them, follows them, or writes them to the store.

Bounded in every direction: so many events, so long a sentence, so many of one object in a while.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import dropwhile

MOST_EVENTS = 4096
"""Kept in all: a controller that drives 400 hosts has a day of them on an ordinary day, and 2 MB."""
MOST_CHARACTERS = 500
BURST, REFILL_SECONDS = 20, 10.0
"""Of one object so many at once, and one more in so many seconds; what is between them is counted, the last is kept."""
HOST_BURST, HOST_REFILL_SECONDS = 1000, 1.0
"""Of all vNICs of one host together: one that invents guests shall not displace what happened elsewhere."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. ``id`` grows over the life of the store and ``time`` is seconds since 1970.

    ``kind`` and ``name`` are the object, ``event`` is a word, ``message`` a sentence. ``generation`` is the object's
    where it has one. ``host``, ``network`` and ``vm`` are what it has to do with.
    """

    id: int
    time: float
    kind: str
    name: str
    event: str
    message: str
    generation: int | None = None
    host: str | None = None
    network: str | None = None
    vm: str | None = None


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events are wanted; what is empty does not matter. ``since`` is seconds since 1970, ``after`` an id.

    ``name`` is an object's name or a guest's; ``about`` the name of an object, or of what it has to do with.
    """

    kind: str = ""
    name: str = ""
    event: str = ""
    host: str = ""
    network: str = ""
    about: str = ""
    since: float = 0.0
    after: int = 0

    def takes(self, event: Event) -> bool:
        """Whether the event is wanted."""
        return (
            event.id > self.after
            and event.time >= self.since
            and self.kind in {"", event.kind}
            and self.name in {"", event.name, event.vm}
            and self.event in {"", event.event}
            and self.host in {"", event.host}
            and self.network in {"", event.network}
            and self.about in {"", event.name, event.host, event.network, event.vm}
        )


@dataclass(frozen=True, slots=True)
class Found:
    """Events, and the ids of the last and the oldest that there are, wanted or not: who reads on goes on from the last
    one, and who was away since before the oldest has missed some."""

    events: list[Event]
    last: int
    oldest: int = 0


@dataclass(slots=True)
class _Pace:
    """Of one object: how many events it may still have, and the last one that it may not have yet."""

    burst: float
    seconds: float
    left: float
    at: float
    held: Event | None = None
    swallowed: int = 0

    def refill(self, now: float) -> None:
        """As the time that went by allows."""
        self.left = min(self.burst, self.left + max(0.0, now - self.at) / self.seconds)
        self.at = now


class History:
    """On the loop. ``clock`` gives seconds since 1970."""

    def __init__(self, clock: Callable[[], float] = time.time, most: int = MOST_EVENTS) -> None:
        self._clock = clock
        self._events: deque[Event] = deque(maxlen=most)
        self._unwritten: deque[Event] = deque(maxlen=most)
        self._paces: dict[tuple[str, str, str], _Pace] = {}
        self._last = 0
        self.counted: Counter[tuple[str, str]] = Counter()  # by kind and word since the start, told or not
        self._news = asyncio.Event()  # replaced at each event, so that everybody who waits is woken once

    def load(self, events: Iterable[Event]) -> None:
        """Events of before, which are in the store; to be called first."""
        self._events.extend(sorted(events, key=lambda event: event.id))
        self._last = self._events[-1].id if self._events else 0

    def add(
        self, kind: str, name: str, event: str, message: str, *, generation: int | None = None,
        host: str | None = None, network: str | None = None, vm: str | None = None,
    ) -> None:  # fmt: skip
        """Something happened. Of an object that has too many, this one may be told later or, when another follows,
        never."""
        self.counted[kind, event] += 1
        now = self._clock()
        found = Event(0, now, kind, name, event, _short(message), generation, host, network, vm)
        pace = self._pace(_paced(kind, name, event), BURST, REFILL_SECONDS, now)
        if pace.left < 1:
            pace.swallowed += pace.held is not None
            pace.held = found
            return
        if kind == "Port" and host is not None:
            vnics = self._pace(("Host", host, "vnics"), HOST_BURST, HOST_REFILL_SECONDS, now)
            if vnics.left < 1:
                vnics.swallowed += vnics.held is not None
                vnics.held = Event(0, now, "Host", host, "left-out", "its vNICs have too many events", host=host)
                return
            vnics.left -= 1
        pace.left -= 1
        self._tell(found)

    def catch_up(self) -> None:
        """Tell what was held back and may be told now; to be called every second or so."""
        now = self._clock()
        for key, pace in list(self._paces.items()):
            pace.refill(now)
            if pace.held is not None and pace.left >= 1:
                pace.left -= 1
                more = f" ({pace.swallowed} events of it before this one are left out)" if pace.swallowed else ""
                self._tell(replace(pace.held, message=pace.held.message + more))
                pace.held, pace.swallowed = None, 0
            elif pace.held is None and pace.left >= pace.burst:
                del self._paces[key]

    def find(self, wanted: EventFilter) -> Found:
        """What is there now."""
        return Found(self._find(wanted), self._last, self.oldest)

    def _find(self, wanted: EventFilter) -> list[Event]:
        """Those that are wanted, the oldest first."""
        if wanted.after:
            late: list[Event] = []
            for event in reversed(self._events):
                if event.id <= wanted.after:
                    break
                late.append(event)
            return [event for event in reversed(late) if wanted.takes(event)]
        return [event for event in self._events if wanted.takes(event)]

    async def wait(self, wanted: EventFilter, seconds: float) -> Found:
        """As ``find``, but for the first that come when there is none, or none when the time is over."""
        try:
            async with asyncio.timeout(seconds):
                while not (found := self._find(wanted)):
                    # What did not fit will not fit later: only younger ones are looked at again.
                    wanted = replace(wanted, after=max(wanted.after, self._last))
                    await self._news.wait()
                return Found(found, self._last, self.oldest)
        except TimeoutError:
            return Found([], self._last, self.oldest)

    @property
    def last(self) -> int:
        """The id of the last event, 0 when nothing ever happened."""
        return self._last

    @property
    def oldest(self) -> int:
        """The id of the first one that is kept."""
        return self._events[0].id if self._events else 0

    def unwritten(self, most: int) -> Sequence[Event]:
        """The oldest of those that are not in the store yet."""
        return [event for event, _ in zip(self._unwritten, range(most), strict=False)]

    def written(self, last: int) -> None:
        """Up to this id they are in the store."""
        self._unwritten = deque(dropwhile(lambda event: event.id <= last, self._unwritten), self._unwritten.maxlen)

    def _tell(self, event: Event) -> None:
        # Microseconds: a controller that comes after a crash goes on with higher ones, also where the last were lost.
        self._last = max(self._last + 1, int(self._clock() * 1e6))
        event = replace(event, id=self._last)
        self._events.append(event)
        self._unwritten.append(event)
        self._news.set()
        self._news = asyncio.Event()

    def _pace(self, key: tuple[str, str, str], burst: float, seconds: float, now: float) -> _Pace:
        pace = self._paces.setdefault(key, _Pace(burst, seconds, burst, now))
        pace.refill(now)
        return pace


def _paced(kind: str, name: str, event: str) -> tuple[str, str, str]:
    """Of what so many events may be told: of a connection of a host by itself, so that its last word is not lost to
    another's; of switches that are turned away all together, since whoever connects has many names."""
    part, dash, _ = event.partition("-")
    return kind, "" if kind == "Switch" else name, part if dash else ""


def rfc3339(seconds: float) -> str:
    """A time as RFC 3339 has it, in UTC, whole seconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _short(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "…"
