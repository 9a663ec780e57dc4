"""The part of ovs-vswitchd that provisioning waits for, on an ovsdb-server that has no switch behind it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from ovsdb_servers import Server

from controller.errors import FleetError
from controller.idl import Database, IdlThread, OpenVswitchApi, RowChange
from controller.ovsdb.rows import COLUMNS, READ, Mirror
from controller.ovsdb.wanted import MARK


class PlugsIn:
    """What ovs-vswitchd writes into OVSDB that we wait for: a port number for every interface of ours. Guests' are left
    without a device."""

    def __init__(self, server: Server, thread: IdlThread) -> None:
        self.mirror = Mirror()
        self.runs = True
        self.refuses: set[str] = set()
        self._next = 1
        self._wake = asyncio.Event()
        database = Database("Open_vSwitch", COLUMNS, "ovs-vswitchd", READ, OpenVswitchApi, index=False)
        self._client = thread.connect(server.remote, database, self)
        self._task = asyncio.get_running_loop().create_task(self._run())

    def on_up(self) -> None:
        self._wake.set()

    def on_down(self, reason: str) -> None:
        pass

    def on_change(self, changes: Sequence[RowChange]) -> None:
        self.mirror.take(changes)
        self._wake.set()

    def resume(self) -> None:
        self.runs = True
        self._wake.set()

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._client.close()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            fresh = [row for row in self.mirror.interfaces.values() if row.ofport is None and MARK in row.external_ids]
            if not fresh or not self.runs:
                continue
            numbers: dict[str, tuple[tuple[str, int | str], ...]] = {}
            for row in fresh:
                if row.name in self.refuses:
                    numbers[row.name] = (("ofport", -1), ("error", "no such device"))
                else:
                    self._next += 1
                    numbers[row.name] = (("ofport", row.ofport_request or self._next),)
            # One that went away meanwhile, or a server that did, is seen to by the change that tells of it.
            with contextlib.suppress(FleetError):
                await self._client.transact(
                    lambda api, txn, numbers=numbers: [
                        txn.add(api.db_set("Interface", name, *columns, if_exists=True))
                        for name, columns in numbers.items()
                    ],
                    5.0,
                )
