"""When a switch forgets a MAC that it has learned: the flows of the apps on a running Open vSwitch."""

from __future__ import annotations

import asyncio
import subprocess
import time

import pytest
from fleets import FleetRows
from inspected import Inspected, LiveSwitch, connected
from openflow_vswitch import DEADLINE, Vswitch

from apps import APPS, l2
from controller.pipeline.pipeline import Pipeline

AGEING = 3  # seconds
TALKS, SILENT, OWN = "52:54:00:aa:00:01", "52:54:00:aa:00:02", "52:54:00:00:00:02"


def send(vswitch: Vswitch, port: str, source: str, target: str) -> None:
    frame = f"in_port(1),eth(src={source},dst={target}),eth_type(0x88b5)"
    command = ["ovs-appctl", "-t", str(vswitch.folder / "vs.ctl"), "netdev-dummy/receive", port, frame]
    subprocess.run(command, check=True, capture_output=True)


def learned(vswitch: Vswitch, path: str) -> set[str]:
    table = Pipeline(APPS).number[l2.LEARNED]
    said = vswitch.ofctl("dump-flows", path, f"table={table}")
    return {mac for mac in (TALKS, SILENT) if f"dl_dst={mac}" in said}


def test_who_is_silent_is_forgotten_though_others_send_to_it_and_who_talks_is_not(
    vswitch: Vswitch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(l2, "AGEING_SECONDS", AGEING)
    path = vswitch.bridge("age")
    fleet = FleetRows().host("kvm1").network("web", portgroups={"nested": {"learning": True, "max_macs": 8}})
    fleet.port("a", "kvm1", "web", "nested", ofport=1).port("b", "kvm1", "web", ofport=2, mac=OWN)

    async def install() -> None:
        async with connected(path) as connection:
            await Inspected(fleet, {"kvm1": LiveSwitch(connection)}).install("kvm1")

    asyncio.run(install())
    end = time.monotonic() + DEADLINE
    while learned(vswitch, path) != {TALKS, SILENT}:
        for mac in (TALKS, SILENT):
            send(vswitch, "agep1", mac, OWN)
        assert time.monotonic() < end
    silent_since = last = steady = time.monotonic()
    while SILENT in (found := learned(vswitch, path)) or time.monotonic() - silent_since < 2 * AGEING:
        now = time.monotonic()
        steady, last = (steady if now - last < AGEING / 3 else now), now  # a machine that stood still proves nothing
        assert TALKS in found or now - steady < AGEING / 3, "it talks, and is forgotten"
        assert now - silent_since < 4 * AGEING, "others send to it, and it is not forgotten"
        send(vswitch, "agep1", TALKS, OWN)
        send(vswitch, "agep2", OWN, SILENT)
        time.sleep(0.05)
