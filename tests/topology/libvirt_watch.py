"""A LibvirtHost on a loop of its own for a test, with all that it told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Any

from topology.domain_xml import DomainView
from topology.host_networks import NetworkOnHost
from topology.libvirt_host import LibvirtHost, State
from topology.libvirt_pace import Deadlines

QUICK = Deadlines(open=2.0, call=1.0, audit=60.0, backoff_min=0.1, backoff_max=0.4)


class Watched:
    """``states``, ``snapshots``, ``events`` and ``networks``: each callback's arguments in order."""

    def __init__(self, name: str, uri: str, deadlines: Deadlines = QUICK) -> None:
        self.states: list[tuple[bool, str]] = []
        self.snapshots: list[dict[str, DomainView]] = []
        self.events: list[tuple[str, DomainView | None, str]] = []
        self.networks: list[list[str]] = []
        self._told = asyncio.Event()
        self.host = LibvirtHost(
            name,
            uri,
            asyncio.get_running_loop(),
            deadlines,
            on_state=self._state,
            on_domains=self._domains,
            on_domain=self._domain,
            on_networks=self._networks,
        )

    async def until(self, true: Callable[[], bool], what: str, within: float = 20.0) -> None:
        """Returns when ``true()`` holds, which is asked whenever something was told, and every 50 ms."""
        try:
            async with asyncio.timeout(within):
                while not true():
                    self._told.clear()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._told.wait(), 0.05)
        except TimeoutError:
            raise AssertionError(f"{what}: not within {within} s; {self.states=} {self.events=}") from None

    async def up(self) -> None:
        await self.until(lambda: self.host.state is State.UP, f"{self.host.name} is up")

    async def event(self, name: str, uuid: str, within: float = 20.0) -> DomainView | None:
        """The view that came with the first event ``name``; forgets it and those before, also of the joined ones."""

        def at() -> int | None:
            return next((n for n, (u, _, e) in enumerate(self.events) if u == uuid and name in e.split(",")), None)

        await self.until(lambda: at() is not None, f"event {name}", within)
        number = at()
        assert number is not None
        _, view, joined = self.events[number]
        rest = joined.split(",")[joined.split(",").index(name) + 1 :]
        self.events[: number + 1] = [(uuid, view, ",".join(rest))] if rest else []
        return view

    def _state(self, up: bool, reason: str) -> None:
        self.states.append((up, reason))
        self._told.set()

    def _domains(self, snapshot: Mapping[str, DomainView]) -> None:
        self.snapshots.append(dict(snapshot))
        self._told.set()

    def _domain(self, uuid: str, view: DomainView | None, event: str) -> None:
        self.events.append((uuid, view, event))
        self._told.set()

    def _networks(self, networks: Sequence[NetworkOnHost]) -> None:
        self.networks.append([network.name for network in networks])
        self._told.set()


@contextlib.asynccontextmanager
async def watched(name: str, uri: str, deadlines: Deadlines = QUICK) -> AsyncIterator[Watched]:
    """Started, and up; stopped afterwards."""
    watch = Watched(name, uri, deadlines)
    watch.host.start()
    try:
        await watch.up()
        yield watch
    finally:
        await watch.host.stop()


def run(test: Coroutine[Any, Any, None], timeout: float = 90.0) -> None:
    asyncio.run(asyncio.wait_for(test, timeout))
