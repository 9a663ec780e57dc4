"""Pauses between attempts to connect to a libvirtd."""

from __future__ import annotations

import asyncio
import time

from topology.libvirt_pace import Backoff


async def _timed(backoff: Backoff) -> float:
    begun = time.monotonic()
    await asyncio.wait_for(backoff.pause(), 30)
    return time.monotonic() - begun


def test_each_pause_is_longer_than_the_one_before() -> None:
    async def test() -> None:
        backoff = Backoff(0.02, 0.32)
        for longest in (0.02, 0.04, 0.08, 0.16, 0.32, 0.32):
            assert await _timed(backoff) >= longest / 2

    asyncio.run(test())


def test_who_hears_that_the_host_is_back_ends_a_long_pause() -> None:
    async def test() -> None:
        backoff = Backoff(0.02, 1000.0)
        backoff._next = 1000.0
        pausing = asyncio.create_task(backoff.pause())
        await asyncio.sleep(0.1)
        assert not pausing.done()
        backoff.hurry()
        await asyncio.wait_for(pausing, 30)
        assert await _timed(backoff) < 30, "and the next one begins anew"

    asyncio.run(test())


def test_who_hurries_it_all_the_time_still_waits_a_little() -> None:
    async def test() -> None:
        backoff = Backoff(0.1, 1000.0)
        for _ in range(3):
            backoff.hurry()
            assert await _timed(backoff) >= 0.05

    asyncio.run(test())
