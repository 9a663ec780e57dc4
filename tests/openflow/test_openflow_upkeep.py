"""What somebody sets on a switch beside its flows is set right again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
from openflow_vswitch import DEADLINE, Vswitch
from test_openflow_real_switch import with_switch

from controller import upkeep
from controller.openflow.connection import Connection, Handlers


async def until(what: str, condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < end, what
        await asyncio.sleep(0.02)


def test_ports_and_fragments_are_set_right(vswitch: Vswitch, monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = f"unix:{vswitch.bridge('kept')}"
    told: list[tuple[int, tuple[str, ...], frozenset[str]]] = []
    kept = upkeep.Upkeep("kvm1", lambda: told.append((kept.repairs, kept.repaired, kept.down)))

    def shows(word: str) -> bool:
        return word in vswitch.ofctl("show", bridge)

    def fragments(mode: str) -> bool:
        return vswitch.ofctl("get-frags", bridge).strip() == mode

    async def work(connection: Connection) -> None:
        keeping = asyncio.create_task(kept.run(connection))
        await until("the mode is set", lambda: fragments("nx-match"))
        for word in ("no-forward", "no-receive", "no-packet-in"):
            await asyncio.to_thread(vswitch.ofctl, "mod-port", bridge, "keptp1", word)
        await until("it is told", lambda: kept.repairs >= 2 and "keptp1" in kept.repaired[0])
        await until("the port takes and gives frames", lambda: not shows("NO_"))
        monkeypatch.setattr(upkeep, "_CHECK_SECONDS", 0.05)
        kept.look()
        await asyncio.to_thread(vswitch.ofctl, "set-frags", bridge, "normal")
        await until("the mode is set again", lambda: fragments("nx-match"))
        await asyncio.to_thread(vswitch.ofctl, "mod-port", bridge, "keptp2", "down")
        await until("it is told", lambda: kept.down == {"keptp2"})
        assert shows("PORT_DOWN"), "whoever set it down may have a reason"
        await asyncio.to_thread(vswitch.ofctl, "mod-port", bridge, "keptp2", "up")
        await until("it is told", lambda: kept.down == frozenset())
        quiet, asked = kept.repairs, connection.next_xid()
        await until("it has looked again", lambda: connection.next_xid() > asked + 20)
        assert kept.repairs == quiet, "what is right is left alone"
        keeping.cancel()

    with_switch(bridge.removeprefix("unix:"), work, Handlers(port_status=lambda connection, status: kept.look()))
    assert [down for _, _, down in told if down] == [frozenset({"keptp2"})]
