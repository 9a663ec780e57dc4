"""The lane of one host's blocking calls: order, deadlines, one thread and no more."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine

import pytest

from controller.errors import LibvirtError
from topology import lane as lane_module
from topology.lane import Beat, Lane


def on_loop(test: Callable[[Lane], Coroutine[None, None, None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(test(Lane("host kvm01", asyncio.get_running_loop())), 20)

    asyncio.run(main())


def test_results_and_exceptions_come_back_in_order() -> None:
    async def test(lane: Lane) -> None:
        order: list[int] = []

        def call(number: int) -> Callable[[Beat], int]:
            def work(_beat: Beat) -> int:
                order.append(number)
                if number == 3:
                    raise KeyError(number)
                return number

            return work

        results = await asyncio.gather(*(lane.run("x", call(n), 5) for n in range(6)), return_exceptions=True)
        assert order == list(range(6))
        assert results[:3] + results[4:] == [0, 1, 2, 4, 5]
        assert isinstance(results[3], KeyError)

    on_loop(test)


def test_a_late_call_sticks_the_lane_and_starts_no_other_thread() -> None:
    async def test(lane: Lane) -> None:
        release = threading.Event()
        started: list[str] = []

        def blocked(_beat: Beat) -> None:
            started.append("blocked")
            release.wait()

        def next_one(_beat: Beat) -> str:
            started.append("next")
            return "done"

        late = asyncio.create_task(lane.run("reading domain g1", blocked, 0.1))
        queued = asyncio.create_task(lane.run("reading domain g2", next_one, 5))
        for task in (late, queued):
            with pytest.raises(LibvirtError, match=r"reading domain g1 has not returned within 0\.1 s") as caught:
                await task
            assert caught.value.where == "host kvm01"
        assert "reading domain g1" in lane.stuck
        with pytest.raises(LibvirtError, match="hangs"):
            await lane.run("again", next_one, 5)
        assert started == ["blocked"]
        release.set()
        await lane.freed()
        assert lane.stuck == ""
        assert await lane.run("again", next_one, 5) == "done"

    on_loop(test)


def test_a_call_that_advances_is_not_late() -> None:
    async def test(lane: Lane) -> None:
        steps = threading.Semaphore(0)

        def slow(beat: Beat) -> int:
            for _ in range(6):
                steps.acquire()
                beat()
            return 6

        call = asyncio.create_task(lane.run("listing", slow, 0.3))
        for _ in range(6):
            await asyncio.sleep(0.1)  # six of them are twice the deadline
            steps.release()
        assert await call == 6

    on_loop(test)


def test_a_cancelled_callers_call_keeps_its_place_and_its_deadline() -> None:
    async def test(lane: Lane) -> None:
        release = threading.Event()
        running = asyncio.Event()
        loop = asyncio.get_running_loop()

        def blocked(_beat: Beat) -> None:
            loop.call_soon_threadsafe(running.set)
            release.wait()

        first = asyncio.create_task(lane.run("first", blocked, 0.2))
        second = asyncio.create_task(lane.run("second", lambda _beat: 2, 5))
        third = asyncio.create_task(lane.run("third", lambda _beat: 3, 5))
        await running.wait()
        first.cancel()
        second.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        with pytest.raises(LibvirtError, match="first has not returned"):
            await third
        release.set()
        await lane.freed()
        assert await lane.run("fourth", lambda _beat: 4, 5) == 4

    on_loop(test)


def test_a_waiter_cancelled_as_its_turn_comes_hands_it_on() -> None:
    async def test(lane: Lane) -> None:
        release = threading.Event()
        first = asyncio.create_task(lane.run("first", lambda _beat: release.wait(), 5))
        second = asyncio.create_task(lane.run("second", lambda _beat: 2, 5))
        third = asyncio.create_task(lane.run("third", lambda _beat: 3, 5))
        await asyncio.sleep(0)
        first.add_done_callback(lambda _task: second.cancel())
        release.set()
        assert await first is True
        assert await third == 3
        await asyncio.gather(second, return_exceptions=True)

    on_loop(test)


def test_a_stuck_host_delays_no_other() -> None:
    async def test(lane: Lane) -> None:
        other = Lane("host kvm02", asyncio.get_running_loop())
        release = threading.Event()
        stuck = asyncio.create_task(lane.run("stuck", lambda _beat: release.wait(), 0.2))
        assert await other.run("other", lambda _beat: 1, 5) == 1
        assert not stuck.done()
        with pytest.raises(LibvirtError, match="stuck has not returned"):
            await stuck
        release.set()
        await lane.freed()

    on_loop(test)


def test_so_many_lanes_work_at_once_and_one_that_waits_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "AT_ONCE", 3)
    monkeypatch.setattr(lane_module, "WAITS", 0.2)

    async def test(first: Lane) -> None:
        lanes = [Lane(f"host kvm{n}", asyncio.get_running_loop()) for n in range(20)]
        release, guard, under_way, most = threading.Event(), threading.Lock(), 0, 0

        def work(beat: Beat) -> None:
            nonlocal under_way, most
            with guard:
                under_way += 1
                most = max(most, under_way)
            for _ in range(5):
                time.sleep(0.01)
                beat()
            with guard:
                under_way -= 1

        hung = [asyncio.create_task(lane.run("listing", lambda _: release.wait(), 15)) for lane in lanes[:3]]
        await asyncio.gather(*(lane.run("listing", work, 15) for lane in lanes[3:]))
        assert most <= 3, "of 17 hosts no more than three are asked at once, though three others hang"
        release.set()
        await asyncio.gather(*hung)

    on_loop(test)


def test_a_host_that_answers_piece_by_piece_without_end_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "AT_ONCE", 2)
    monkeypatch.setattr(lane_module, "LONGEST", 0.3)

    async def test(first: Lane) -> None:
        lanes = [Lane(f"host kvm{n}", asyncio.get_running_loop()) for n in range(4)]
        release = threading.Event()

        def slow(beat: Beat) -> None:
            while not release.wait(0.01):
                beat()

        endless = [asyncio.create_task(lane.run("listing", slow, 15)) for lane in lanes[:2]]
        try:
            async with asyncio.timeout(10):
                assert [await lane.run("listing", lambda _beat: 1, 15) for lane in lanes[2:]] == [1, 1]
            assert not any(task.done() for task in endless)
        finally:
            release.set()
        await asyncio.gather(*endless)

    on_loop(test)
