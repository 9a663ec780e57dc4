"""How long a host's libvirtd is waited for, and how often it is asked."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds."""

    open: float = 10.0
    call: float = 5.0
    glance: float = 7.5
    """Between two looks at every running domain's XML and at which networks stand."""
    look: float = 30.0
    """For one domain's answer to such a look. One that is being started, stopped or moved gives it only afterwards, and
    nobody has asked for it: a connection is not given up for that. A libvirtd that died is noticed by the keepalive."""
    audit: float = 60.0
    """Between two readings of every network's XML."""
    backoff_min: float = 1.0
    backoff_max: float = 30.0


def about(seconds: float) -> float:
    """So many seconds, more or less: 400 hosts do not ask all at once."""
    return seconds * random.uniform(0.9, 1.1)  # noqa: S311


class Backoff:
    """The pauses between attempts to connect: each up to twice as long as the one before, until one succeeds."""

    def __init__(self, shortest: float, longest: float) -> None:
        """In seconds."""
        self._shortest, self._longest = shortest, longest
        self._next = shortest
        self._hurried = asyncio.Event()

    def reset(self) -> None:
        """It succeeded."""
        self._next = self._shortest
        self._hurried.clear()

    def hurry(self) -> None:
        """Something says that an attempt would succeed now: the pause ends, after the shortest time at least."""
        self._next = self._shortest
        self._hurried.set()

    async def pause(self) -> None:
        # 400 hosts that were lost together come back spread out: libvirtd takes 20 unauthenticated clients
        spread = random.uniform(0.5, 1.0)  # noqa: S311
        rest = self._next - self._shortest
        self._next = min(self._next * 2, self._longest)
        await asyncio.sleep(self._shortest * spread)
        # not wait_for(), which before Python 3.12 loses a cancellation that comes with the event
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(rest * spread):
                await self._hurried.wait()
        self._hurried.clear()
