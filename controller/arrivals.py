"""Who has come: switches are asked, while guests are being copied to their hosts, whether one has sent a frame.

The switch itself lets frames through to a guest from then on (apps/migration.py); here the controller hears of it. It
asks rather than listens: what the switch has learned is still there when the controller was not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping

from controller.agent import HostAgent
from controller.errors import OpenFlowError
from controller.model.port import PortStatus
from controller.pipeline.cookies import ARRIVALS, arrived_port

log = logging.getLogger(__name__)

_ASK_SECONDS = 0.1  # a small question, asked for the seconds of a copy
_FAULT_SECONDS = 5.0  # until it is asked again after a fault of ours


class Arrivals:
    """Everything on the loop. ``table`` is where arrivals are learned; ``arrived(host, ofports)`` is told whenever they
    have changed."""

    def __init__(
        self, table: int, agents: Mapping[str, HostAgent], arrived: Callable[[str, frozenset[int]], None]
    ) -> None:
        self._table = table
        self._agents = agents
        self._arrived = arrived
        self._expected: dict[str, dict[str, int]] = {}  # host to vNIC to OpenFlow port
        self._where: dict[str, str] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def expect(self, names: Iterable[str], statuses: Mapping[str, PortStatus]) -> None:
        """The rows of these vNICs are what ``statuses`` says now; one that is not in there is gone."""
        for name in names:
            self._expect(name, statuses.get(name))

    def _expect(self, name: str, status: PortStatus | None) -> None:
        if (old := self._where.pop(name, None)) is not None:
            del self._expected[old][name]
        if status is None or status.incoming is None:
            return
        host = status.incoming.host
        self._where[name] = host
        self._expected.setdefault(host, {})[name] = status.incoming.ofport
        if host not in self._tasks:
            self._tasks[host] = asyncio.get_running_loop().create_task(self._ask(host), name=f"arrivals {host}")

    async def stop(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _ask(self, host: str) -> None:
        """While somebody is expected there."""
        told: frozenset[int] = frozenset()
        try:
            while ports := set(self._expected[host].values()):
                pause = _ASK_SECONDS
                try:
                    found = frozenset(ports & await self._found(host))
                    if found != told:
                        told = found
                        self._arrived(host, found)
                except Exception:
                    log.exception("%s: who has arrived there is not known; asking again", host)
                    pause = _FAULT_SECONDS
                await asyncio.sleep(pause)
        finally:
            del self._tasks[host]
            if told:
                self._arrived(host, frozenset())

    async def _found(self, host: str) -> set[int]:
        agent = self._agents.get(host)
        if agent is None:
            return set()
        try:
            cookies = await agent.switch.cookies(self._table, *ARRIVALS)
        except OpenFlowError as error:
            log.debug("%s", error)
            return set()
        return {port for cookie in cookies if (port := arrived_port(cookie)) is not None}
