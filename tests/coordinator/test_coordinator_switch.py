"""When a switch has confirmed, and what it is left with."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest
from ovsdb_servers import run, until
from played_switch import PlayedSwitch, at_once, described

from controller.engine import Delta, HostTable
from controller.openflow.actions import Output, instructions
from controller.openflow.decode import FlowUpdate
from controller.openflow.match import EVERYTHING
from controller.openflow.messages import Command, bundled, flow_mod
from controller.pipeline.cookies import OWNER_BITS, is_own, learned_cookie, own_cookie
from controller.pipeline.pipeline import Entry
from controller.switch import Switch, _own_identities


def entry(number: int) -> Entry:
    cookie = own_cookie(number.to_bytes(7, "big"))
    add = flow_mod(0, Command.ADD, cookie, 0, 100, EVERYTHING.encode(), b"")
    return Entry((0, cookie), (0, 100, b"%d" % number), bundled(add, cookie))


def table(*numbers: int) -> HostTable:
    made = HostTable()
    for number in numbers:
        made.add(entry(number), Delta())
    return made


def flows(*numbers: int) -> set[tuple[int, int]]:
    return {entry(number).identity for number in numbers}


def new() -> Switch:
    return Switch("kvm1", 1, [0], lambda: None, at_once)


async def connected(switch: Switch, wanted: HostTable) -> PlayedSwitch:
    played = PlayedSwitch()
    switch.change(wanted, None, 1)
    played.connect(switch)
    await until(lambda: switch.state.confirmed == 1, lambda: str(switch.state))
    return played


def test_nothing_is_confirmed_while_flows_are_refused() -> None:
    async def main() -> None:
        switch, played, wanted = new(), PlayedSwitch(), table(1, 2)
        played.refuses = lambda flow: flow in flows(2)
        switch.change(wanted, None, 1)
        played.connect(switch)
        await until(lambda: switch.state.state == "degraded" and played.flows == flows(1), lambda: str(switch.state))
        assert "refuses 1 flows" in switch.state.reason
        assert switch.state.confirmed == -1
        delta = Delta()
        wanted.add(entry(3), delta)
        switch.change(wanted, delta, 2)
        await until(lambda: played.flows == flows(1, 3), lambda: str(played.flows))
        switch.change(wanted, None, 3)
        assert switch.state.confirmed == -1
        delta = Delta()
        wanted.discard(entry(2), delta)
        switch.change(wanted, delta, 4)
        await until(lambda: switch.state.confirmed == 4, lambda: str(switch.state))
        assert switch.state.state == "up"
        await switch.stop()

    run(main())


def test_nothing_is_confirmed_while_strangers_changes_are_looked_at() -> None:
    async def main() -> None:
        switch, wanted = new(), table(1, 2)
        played = await connected(switch, wanted)
        played.flows -= flows(2)
        played.changed_by_somebody(FlowUpdate("removed", 0, 100, entry(2).cookie))
        switch.change(wanted, None, 2)
        assert switch.state.confirmed == 1
        await until(lambda: switch.state.confirmed == 2, lambda: str(switch.state))
        assert played.flows == flows(1, 2)
        await switch.stop()

    run(main())


def test_another_table_leaves_nothing_of_the_old_one() -> None:
    async def main() -> None:
        switch = new()
        played = await connected(switch, table(1, 2))
        switch.change(table(2, 3), None, 2)
        await until(lambda: switch.state.confirmed == 2, lambda: str(switch.state))
        assert played.flows == flows(2, 3)
        await switch.stop()

    run(main())


def test_another_table_that_comes_while_the_switch_is_busy_leaves_nothing_of_the_old_one() -> None:
    async def main() -> None:
        switch, wanted = new(), table(1)
        played = await connected(switch, wanted)
        played.answering.clear()
        delta = Delta()
        wanted.add(entry(2), delta)
        switch.change(wanted, delta, 2)
        await until(lambda: not switch._idle, "it is sending")
        switch.change(table(3), None, 3)
        played.answering.set()
        await until(lambda: switch.state.confirmed == 3, lambda: str(switch.state))
        assert played.flows == flows(3)
        await switch.stop()

    run(main())


class Full(PlayedSwitch):
    """It has more flows than anybody wants to wait for."""

    body = b"".join(described((1, entry(n).cookie), 100, EVERYTHING.encode(), b"") for n in range(1000)) * 1000

    async def multipart(self, data: bytes, within: float) -> bytes:
        return self.body


@pytest.mark.alone
def test_a_switch_with_a_host_of_flows_holds_up_nobody() -> None:
    async def main() -> None:
        switch, played = new(), Full()
        switch.change(table(1), None, 1)
        gaps: list[float] = []

        async def tick() -> None:
            last = time.perf_counter()
            while True:
                await asyncio.sleep(0.005)
                now = time.perf_counter()
                gaps.append(now - last)
                last = now

        begin = time.perf_counter()
        assert len(_own_identities(played.body)) == 1000
        took = time.perf_counter() - begin
        ticking = asyncio.create_task(tick())
        played.connect(switch)
        await until(lambda: switch.state.confirmed == 1 and gaps, lambda: str(switch.state))
        ticking.cancel()
        assert max(gaps) < took / 2, f"the loop stood still for {max(gaps):.2f} s, and reading takes {took:.2f}"
        await switch.stop()

    run(main())


def test_what_the_switch_has_learned_is_not_read() -> None:
    async def main() -> None:
        switch, played = new(), PlayedSwitch()
        foreign = {(7, learned_cookie(1)), (0, 0), (0, 0xABC)}
        played.flows |= flows(1, 9) | foreign
        switch.change(table(1, 2), None, 1)
        played.connect(switch)
        await until(lambda: switch.state.confirmed == 1, lambda: str(switch.state))
        [(cookie, mask)] = played.reads
        assert is_own(cookie)
        assert mask == OWNER_BITS
        assert played.told == [2]
        assert played.flows == flows(1, 2) | foreign
        await switch.stop()

    run(main())


NORMAL = 100, EVERYTHING.encode(), instructions([Output(0xFFFFFFFA)])


def test_a_flow_that_was_changed_while_nobody_listened_is_put_right_and_told() -> None:
    async def main() -> None:
        switch, played = new(), PlayedSwitch()
        played.flows, played.changed = flows(1, 2), {entry(2).identity: NORMAL}
        switch.change(table(1, 2), None, 1)
        played.connect(switch)
        await until(lambda: switch.state.confirmed == 1, lambda: str(switch.state))
        assert (played.flows, played.changed) == (flows(1, 2), {})
        assert played.taken == flows(2), "what is right is not sent"
        assert switch.state.drifts == 1
        played.changed = {entry(1).identity: NORMAL}
        played.disconnect()
        played.connect(switch)
        await until(lambda: switch.state.drifts == 2 and switch.state.state == "up", lambda: str(switch.state))
        await until(lambda: played.changed == {}, "put right again")
        await switch.stop()

    run(main())


def test_a_switch_of_which_every_flow_was_changed_has_not_started_anew() -> None:
    async def main() -> None:
        async def never() -> None:
            await asyncio.Event().wait()

        switch, played = Switch("kvm1", 1, [0], lambda: None, never), PlayedSwitch()
        played.flows, played.changed = flows(1, 2), {entry(n).identity: NORMAL for n in (1, 2)}
        switch.change(table(1, 2), None, 1)
        played.connect(switch)
        await until(lambda: switch.state.confirmed == 1, lambda: str(switch.state))
        assert (played.flows, played.changed) == (flows(1, 2), {})
        await switch.stop()

    run(main())


def test_a_flow_that_is_wrong_and_refused_is_taken_away() -> None:
    async def main() -> None:
        switch, played = new(), PlayedSwitch()
        played.flows, played.changed = flows(1, 2), {entry(2).identity: NORMAL}
        played.refuses = lambda flow: flow in flows(2)
        switch.change(table(1, 2, 3), None, 1)
        played.connect(switch)
        await until(lambda: played.flows == flows(1, 3), lambda: str(played.flows))
        assert switch.state.state == "degraded"
        await switch.stop()

    run(main())


def test_what_changes_while_the_switch_is_down_is_not_kept() -> None:
    async def main() -> None:
        switch, wanted = new(), table(1)
        played = await connected(switch, wanted)
        played.disconnect()
        for number in range(2, 50):
            delta = Delta()
            wanted.add(entry(number), delta)
            wanted.discard(entry(number - 1), delta)
            switch.change(wanted, delta, number)
        assert (switch._adds, switch._removes) == ({}, set())
        played.connect(switch)
        await until(lambda: switch.state.confirmed == 49, lambda: str(switch.state))
        assert played.flows == flows(49)
        played.answering.clear()
        delta = Delta()
        wanted.add(entry(50), delta)
        wanted.discard(entry(49), delta)
        switch.change(wanted, delta, 50)
        played.disconnect()
        assert (switch._adds, switch._removes) == ({}, set())
        await switch.stop()

    run(main())


def test_a_host_that_changes_flows_without_end_fills_no_log_and_is_read_ever_less(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        switch = new()
        played = await connected(switch, table(1, 2))
        begin, told = len(played.reads), 0
        caplog.clear()
        end = time.monotonic() + 2.0
        while time.monotonic() < end:
            for _ in range(50):
                played.changed_by_somebody(FlowUpdate("modified", 0, 100, own_cookie(told.to_bytes(7, "big"))))
                told += 1
            await asyncio.sleep(0.001)
        assert len(played.reads) - begin < 10, "twenty a second would be some 40"
        assert switch.state.drifts == told
        lines = [record for record in caplog.records if record.name.startswith("controller.")]
        assert len(lines) <= 10, f"{len(lines)} lines for {told} changes"
        assert len(switch._drift._distrusted or ()) <= 10_000
        played.flows, played.changed = flows(2), {entry(2).identity: NORMAL}
        played.changed_by_somebody(FlowUpdate("modified", 0, 100, entry(2).cookie))
        await until(lambda: (played.flows, played.changed) == (flows(1, 2), {}), "it is put right in the end")
        await switch.stop()

    caplog.set_level(logging.INFO)
    run(main())


def test_a_host_that_comes_and_goes_without_end_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        switch, wanted = new(), table(1)
        for number in range(100):
            played = await connected(switch, wanted)
            played.disconnect()
            await asyncio.sleep(0)
            switch._confirmed = -number - 2
        await switch.stop()

    caplog.set_level(logging.INFO)
    run(main())
    assert len(caplog.records) <= 20
