"""Switches are asked who has arrived, while somebody is expected there, and not one moment longer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from controller.agent import HostAgent
from controller.arrivals import Arrivals
from controller.errors import OpenFlowError
from controller.model.port import Incoming, PortStatus
from controller.pipeline.cookies import arrival_cookie, learned_cookie

TABLE = 18


class _Asked:
    """A switch with flows in the table of arrivals."""

    def __init__(self) -> None:
        self.cookies_there: set[int] = set()
        self.asked = 0
        self.away = False

    async def cookies(self, table: int, cookie: int, mask: int) -> set[int]:
        self.asked += 1
        if self.away:
            raise OpenFlowError("is not connected", where="Host h2")
        assert table == TABLE
        return {found for found in self.cookies_there if found & mask == cookie}


def coming(ofport: int, host: str = "h2") -> PortStatus:
    place = Incoming(host=host, tap="vnet9", ofport=ofport)
    return PortStatus(vm_uuid="u", mac="52:54:00:00:00:01", host="h1", state="active", incoming=place)


async def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 20.0
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


def play(scene: Callable[[Arrivals, _Asked, list[tuple[str, frozenset[int]]]], Any]) -> None:
    async def run() -> None:
        switch, told = _Asked(), cast(list[tuple[str, frozenset[int]]], [])
        agents = cast(dict[str, HostAgent], {"h2": SimpleNamespace(switch=switch)})
        arrivals = Arrivals(TABLE, agents, lambda *news: told.append(news))
        try:
            await scene(arrivals, switch, told)
        finally:
            await arrivals.stop()

    asyncio.run(run())


def test_who_has_arrived_is_told_once_and_forgotten_when_he_is_expected_no_more() -> None:
    async def scene(arrivals: Arrivals, switch: _Asked, told: list[tuple[str, frozenset[int]]]) -> None:
        arrivals.expect(["web1"], {"web1": coming(9)})
        arrivals.expect(["web2"], {"web2": coming(11)})
        await until(lambda: switch.asked > 2)
        assert told == []
        switch.cookies_there = {arrival_cookie(9), arrival_cookie(10), learned_cookie(9)}
        await until(lambda: told)
        asked = switch.asked
        await until(lambda: switch.asked > asked + 2)
        assert told == [("h2", frozenset({9}))]
        arrivals.expect(["web1"], {})
        await until(lambda: len(told) > 1)
        assert told[1:] == [("h2", frozenset())]
        arrivals.expect(["web2"], {"web2": coming(11).model_copy(update={"incoming": None})})
        await until(lambda: not arrivals._tasks)
        asked = switch.asked
        await asyncio.sleep(0.3)
        assert switch.asked == asked

    play(scene)


def test_a_switch_that_is_away_is_asked_again_and_a_host_that_is_none_harms_nobody() -> None:
    async def scene(arrivals: Arrivals, switch: _Asked, told: list[tuple[str, frozenset[int]]]) -> None:
        switch.away = True
        switch.cookies_there = {arrival_cookie(9)}
        arrivals.expect(["web1"], {"web1": coming(9)})
        arrivals.expect(["web3"], {"web3": coming(9, "h9")})
        await until(lambda: switch.asked > 1)
        assert told == []
        switch.away = False
        await until(lambda: told)
        assert told == [("h2", frozenset({9}))]

    play(scene)


def test_an_answer_that_cannot_be_dealt_with_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.arrivals._FAULT_SECONDS", 0.05)

    async def scene(arrivals: Arrivals, switch: _Asked, told: list[tuple[str, frozenset[int]]]) -> None:
        switch.cookies_there = cast(set[int], {"no cookie"})
        arrivals.expect(["web1"], {"web1": coming(9)})
        await until(lambda: switch.asked > 1)
        switch.cookies_there = {arrival_cookie(9)}
        await until(lambda: told)
        assert told == [("h2", frozenset({9}))]

    play(scene)


def test_one_who_turns_to_another_host_is_looked_for_there() -> None:
    async def scene(arrivals: Arrivals, switch: _Asked, told: list[tuple[str, frozenset[int]]]) -> None:
        switch.cookies_there = {arrival_cookie(9)}
        arrivals.expect(["web1"], {"web1": coming(9, "h3")})
        await asyncio.sleep(0.05)
        assert (switch.asked, told) == (0, [])
        arrivals.expect(["web1"], {"web1": coming(9)})
        await until(lambda: told)

    play(scene)
