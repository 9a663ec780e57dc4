"""Who is behind a learning vNIC is known where its guest migrates to: our flows on a running Open vSwitch."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fleets import FleetRows
from inspected import Inspected, LiveSwitch, connected
from openflow_vswitch import DEADLINE, Vswitch

from controller import nested
from controller.agent import HostAgent
from controller.errors import OpenFlowError
from controller.model.port import Incoming
from controller.nested import Nested
from controller.pipeline.tables import LEARNED

MANY = [f"52:54:00:aa:01:{number:02x}" for number in range(8)]
IN_TEN = "52:54:00:aa:02:01"
OLD, NEW = 1, 2  # OpenFlow ports of the vNIC; bridges have both


class _Switch(LiveSwitch):
    """It counts what it is asked and sent, and may be deaf to questions."""

    deaf, asked, sent = False, 0, 0

    async def read(self, request: bytes) -> bytes:
        self.asked += 1
        if self.deaf:
            raise OpenFlowError("is not connected", where="Host kvm1")
        return await super().read(request)

    def send(self, message: bytes) -> bool:
        assert self.connection is not None
        self.sent += 1
        self.connection.send(message)
        return True


@dataclass
class _Moving:
    """A vNIC that is copied from kvm1 to kvm2; ``learned`` tells who is known behind it in each place."""

    fleet: FleetRows
    inspected: Inspected
    nested: Nested
    switches: dict[str, _Switch]
    bridges: dict[str, tuple[Vswitch, str, str]]

    @property
    def idle(self) -> bool:
        return not self.nested._tasks

    def say(self, host: str, port: int, source: str, vlan: int = 0) -> None:
        vswitch, bridge, _ = self.bridges[host]
        kind = f"eth_type(0x8100),vlan(vid={vlan},pcp=0),encap(eth_type(0x88b5))" if vlan else "eth_type(0x88b5)"
        frame = f"in_port({port}),eth(src={source},dst=ff:ff:ff:ff:ff:ff),{kind}"
        command = [
            "ovs-appctl",
            "-t",
            str(vswitch.folder / "vs.ctl"),
            "netdev-dummy/receive",
            f"{bridge}p{port}",
            frame,
        ]
        subprocess.run(command, check=True, capture_output=True)

    def learned(self, host: str, ofport: int) -> set[tuple[int, str]]:
        """Segment and MAC of those that are reached by this port."""
        vswitch, _, path = self.bridges[host]
        said = vswitch.ofctl("dump-flows", path, f"table={self.inspected.engine.pipeline.number[LEARNED]}")
        cookie = f"cookie=0xf6{ofport:04x}"
        return {
            (int(line.split("cookie=0x")[1].split(",")[0][-8:], 16), line.split("dl_dst=")[1][:17])
            for line in said.splitlines() if cookie in line
        }  # fmt: skip

    async def moves(self, **status: Any) -> None:
        self.fleet.ports["a"] = self.fleet.ports["a"].model_copy(update={"incoming": None, **status})
        self.inspected.engine.update(self.fleet.rows())
        for host in ("kvm1", "kvm2"):
            await self.inspected.install(host)
        self.nested.changed(["a"], self.fleet.ports)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nested, "_ASK_SECONDS", 0.05)
    monkeypatch.setattr(nested, "_ROUNDS", (0.0, 0.1))


@asynccontextmanager
async def moving(vswitch: Vswitch, name: str, **group: Any) -> AsyncIterator[_Moving]:
    place = Incoming(host="kvm2", tap="vnet9", ofport=NEW)
    fleet = FleetRows().host("kvm1").host("kvm2")
    fleet.network("web", portgroups={"nested": {"learning": True, "trunk": [10, 20], "native": 20, **group}})
    fleet.port("a", "kvm1", "web", "nested", ofport=OLD, incoming=place)
    bridges = {host: (vswitch, f"{name}{host[-1]}", vswitch.bridge(f"{name}{host[-1]}")) for host in ("kvm1", "kvm2")}
    async with connected(bridges["kvm1"][2]) as one, connected(bridges["kvm2"][2]) as two:
        switches = {"kvm1": _Switch(one), "kvm2": _Switch(two)}
        inspected = Inspected(fleet, switches)
        for host in switches:
            await inspected.install(host)
        agents = {host: cast(HostAgent, SimpleNamespace(switch=switch)) for host, switch in switches.items()}
        it = Nested(inspected.engine.pipeline.number[LEARNED], inspected.engine.fabric, agents)
        try:
            yield _Moving(fleet, inspected, it, switches, bridges)
        finally:
            await it.stop()


async def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


async def known(it: _Moving, macs: list[str]) -> set[tuple[int, str]]:
    """The old switch has learned these, and somebody in VLAN 10; it has been asked since."""
    for mac in macs:
        it.say("kvm1", OLD, mac)
    it.say("kvm1", OLD, IN_TEN, 10)
    await until(lambda: len(it.learned("kvm1", OLD)) == len(macs) + 1)
    it.nested.changed(["a"], it.fleet.ports)
    asked = it.switches["kvm1"].asked
    await until(lambda: it.switches["kvm1"].asked > asked + 1)
    return it.learned("kvm1", OLD)


def test_they_are_known_in_the_new_place_in_each_vlan(vswitch: Vswitch) -> None:
    async def run() -> None:
        async with moving(vswitch, "nea") as it:
            before = await known(it, MANY)
            assert len({segment for segment, _ in before}) == 2
            assert it.learned("kvm2", NEW) == set()
            await it.moves(host="kvm2", ofport=NEW)
            await until(lambda: it.learned("kvm2", NEW) == before)
            await until(lambda: it.idle)

    asyncio.run(run())


def test_a_copy_that_is_given_up_announces_nobody(vswitch: Vswitch) -> None:
    async def run() -> None:
        async with moving(vswitch, "neb") as it:
            await known(it, MANY[:1])
            await it.moves()
            await until(lambda: it.idle)
            assert it.learned("kvm2", NEW) == set()
            assert it.switches["kvm2"].sent == 0

    asyncio.run(run())


def test_what_was_known_last_counts_when_the_old_switch_is_gone_in_the_end(vswitch: Vswitch) -> None:
    async def run() -> None:
        async with moving(vswitch, "nec") as it:
            before = await known(it, MANY[:1])
            it.switches["kvm1"].deaf = True
            asked = it.switches["kvm1"].asked
            await until(lambda: it.switches["kvm1"].asked > asked + 1)
            await it.moves(host="kvm2", ofport=NEW)
            await until(lambda: it.learned("kvm2", NEW) == before)

    asyncio.run(run())


def test_of_many_some_are_announced_and_it_is_said(
    vswitch: Vswitch, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(nested, "MOST", 3)
    monkeypatch.setattr(nested, "_AT_ONCE", 2)

    async def run() -> None:
        async with moving(vswitch, "ned") as it:
            before = await known(it, MANY)
            await it.moves(host="kvm2", ofport=NEW)
            await until(lambda: it.idle)
            await until(lambda: len(it.learned("kvm2", NEW)) == 3)
            assert it.learned("kvm2", NEW) < before

    asyncio.run(run())
    assert "3 of the 9 behind it are announced on kvm2" in caplog.text


def test_a_vnic_with_nobody_behind_it_is_not_asked_about(vswitch: Vswitch) -> None:
    async def run() -> None:
        async with moving(vswitch, "nee", learning=False) as it:
            it.nested.changed(["a"], it.fleet.ports)
            await asyncio.sleep(0)
            assert it.idle
            assert it.switches["kvm1"].asked == 0

    asyncio.run(run())
