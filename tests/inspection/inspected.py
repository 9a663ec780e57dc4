"""Inspection of a fleet whose switches are bridges of a running Open vSwitch; all else is rows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

from fleets import FleetRows

from apps import APPS
from controller.coordinator import Coordinator
from controller.desired import HOSTS, PHYSICAL_NETWORKS, SEGMENTS
from controller.engine import Engine
from controller.errors import OpenFlowError
from controller.openflow import decode
from controller.openflow.connection import Connection
from controller.pipeline.pipeline import Pipeline
from controller.tracing.tracer import Tracing

SECONDS = 20.0


class LiveSwitch:
    """A bridge behind its management socket; None is a switch that is not connected."""

    def __init__(self, connection: Connection | None) -> None:
        self.connection = connection
        self.refused: dict[tuple[int, int], str] = {}

    async def read(self, request: bytes) -> bytes:
        if self.connection is None:
            raise OpenFlowError("is not connected: nobody is there", where="Host kvm9")
        return await self.connection.multipart(request, SECONDS)


class Inspected:
    """``engine`` says what is wanted; ``install`` brings it to the bridges."""

    def __init__(self, fleet: FleetRows, switches: Mapping[str, LiveSwitch]) -> None:
        self.fleet, self.switches = fleet, switches
        self.engine = Engine(Pipeline(APPS))
        self.engine.update(fleet.rows())
        pools = {
            HOSTS: fleet.host_numbers.taken, SEGMENTS: fleet.segment_numbers.taken,
            PHYSICAL_NETWORKS: fleet.uplink_numbers.taken,
        }  # fmt: skip
        vnics: dict[str, dict[str, Any]] = {name: {} for name in fleet.hosts}
        for port in fleet.ports.values():
            if port.host is not None:
                vnics[port.host][f"vnet{port.ofport}"] = SimpleNamespace(
                    ofport=port.ofport, interface=f"vnet{port.ofport}"
                )
        self.coordinator = cast(Coordinator, SimpleNamespace(
            engine=self.engine,
            agents={name: SimpleNamespace(switch=switch) for name, switch in switches.items()},
            guests=SimpleNamespace(hosts={name: SimpleNamespace(vnics=rows) for name, rows in vnics.items()}),
            desired=SimpleNamespace(
                networks=fleet.networks, statuses=fleet.ports, registered=fleet.registered, hosts=fleet.hosts,
                numbers=lambda pool: pools[pool],
            ),
        ))  # fmt: skip
        self.inspection = Tracing(self.coordinator)

    async def install(self, host: str, leave_out: Iterable[int] = ()) -> None:
        """Have the host's flows on its bridge, but for those with these cookies."""
        connection = self.switches[host].connection
        assert connection is not None
        wanted = [entry.bundled for entry in self.engine.tables[host] if entry.cookie not in set(leave_out)]
        await connection.bundle(wanted, SECONDS)


@asynccontextmanager
async def connected(path: str) -> AsyncIterator[Connection]:
    """A connection to a bridge's management socket."""
    ready = asyncio.Event()

    def on_ready(connection: Connection, features: decode.Features) -> bool:
        ready.set()
        return True

    _, connection = await asyncio.get_running_loop().create_unix_connection(lambda: Connection(on_ready), path)
    async with asyncio.timeout(SECONDS):
        await ready.wait()
    try:
        yield connection
    finally:
        connection.abort("the test is over")
