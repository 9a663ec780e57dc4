"""A coordinator on a real store, with hosts of which as much is real as a test asks for."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from ovsdb_servers import Server, idl_thread
from played_switch import PlayedSwitch

from apps import APPS
from controller.coordinator import Coordinator
from controller.errors import OvsdbError
from controller.idl import Database, Listener, OvsdbClient
from controller.model.documents import Document, load_yaml
from controller.model.port import port_name
from controller.operations import FleetOperations
from controller.ovsdb.host import HOST_LIMITS, Connect
from controller.pipeline.pipeline import Pipeline
from controller.store import PrivateServer, Store

WEB1 = "00000000-0000-4000-8000-000000000001"
MAC1 = "52:54:00:00:00:01"
NAME = port_name(WEB1, MAC1)


def plug(server: Server, tap: str = "vnet0", ofport: int = 5) -> None:
    """What libvirt does when a guest of network web starts, and Open vSwitch after it."""
    ids = (f'attached-mac="{MAC1}"', "iface-id=i1", f"vm-id={WEB1}", 'port-profile="web:default"')
    command = ["ovs-vsctl", "--no-wait", "--timeout=10", f"--db={server.remote}", "add-port", "br-int", tap, "--",
               "set", "interface", tap, f"ofport={ofport}", *(f"external_ids:{each}" for each in ids)]  # fmt: skip
    subprocess.run(command, check=True)


def unplug(server: Server, tap: str = "vnet0") -> None:
    command = ["ovs-vsctl", "--no-wait", "--timeout=10", f"--db={server.remote}", "del-port", tap]
    subprocess.run(command, check=True)


class _Nobody:
    """A host's database that nobody can reach."""

    state = SimpleNamespace(error="no route to host", doing="connecting")

    async def transact(self, work: Any, within: float) -> None:
        raise OvsdbError("is not connected", where="host")

    def close(self) -> None:
        pass


def nobody(remote: str, database: Database, listener: Listener) -> OvsdbClient:
    return cast(OvsdbClient, _Nobody())


class Fleet:
    """``apply`` takes YAML."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.coordinator = coordinator
        self.store = coordinator.store
        self.operations = FleetOperations(coordinator)

    async def apply(self, text: str) -> int:
        applied = await self.operations.apply(documents(text), dry_run=False)
        return applied.sequence

    async def delete(self, kind: str, name: str, force: bool = False) -> int:
        applied = await self.operations.delete([(kind, name)], None, force, dry_run=False)
        return applied.sequence

    async def confirmed(self, sequence: int, seconds: float = 10.0) -> None:
        """Everything has confirmed the change."""
        assert await self.operations.wait(sequence, seconds) == ()

    def connect(self, host: str) -> PlayedSwitch:
        switch = PlayedSwitch()
        switch.connect(self.coordinator.agents[host].switch)
        return switch

    def status(self, port: str) -> dict[str, Any]:
        row = self.store.rows("Port").get(port)
        return dict(row.status) if row is not None else {}


def documents(text: str) -> list[Document]:
    return load_yaml(text, "fleet.yaml")


@contextlib.contextmanager
def hosts_thread() -> Iterator[Connect]:
    """Connects to hosts' real databases."""
    with idl_thread() as thread:
        yield partial(thread.connect, limits=HOST_LIMITS)


@contextlib.asynccontextmanager
async def coordinated(folder: Path, connect: Connect = nobody) -> AsyncIterator[Fleet]:
    private = PrivateServer(folder / "store")
    await private.start()
    try:
        with idl_thread() as thread:
            store = Store(private.remote, thread)
            await store.start()
            coordinator = Coordinator(store, Pipeline(APPS), connect, ["tcp:192.0.2.9:6653"], 1)
            await coordinator.start()
            try:
                yield Fleet(coordinator)
            finally:
                await coordinator.stop()
                store.close()
    finally:
        await private.stop()
