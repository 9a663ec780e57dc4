"""Hosts whose OVSDB lies: what they say harms neither the store nor another host's guests."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from coordinated import MAC1, WEB1, Fleet, coordinated, hosts_thread, plug
from hook_host import IFACE, VM, domain, interface
from hostile_ovsdb import ROOT, HostileOvsdb, a_map, a_set, hostile, vnics
from ovsdb_servers import Server, idl_thread, run, until, vswitch
from plugs_in import PlugsIn

from controller import coordinator as coordinator_module
from topology import hook_reports

FLEET = """\
{{kind: Host, name: kvm1, ovsdb: '{good}'}}
---
{{kind: Host, name: liar, ovsdb: '{bad}'}}
---
{{kind: Network, name: web, mode: isolated}}
"""
WEB2 = WEB1[:-1] + "2"


def identity(**ids: str) -> list[Any]:
    return a_map(**{"attached_mac": "52:54:00:00:00:02", "vm_id": WEB2, "iface_id": "i2", "port_profile": "web:default",
                    **ids})  # fmt: skip


async def good_is_right(fleet: Fleet, server: Server) -> None:
    """A guest that starts on the good host now is switched."""
    agent = fleet.coordinator.agents["kvm1"]
    await until(lambda: agent.ovsdb.state.state == "up", lambda: str(agent.ovsdb.state), 20)
    await until(lambda: (own := agent.ovsdb.own()) is not None and "br-int" in own.bridges, "it has its bridge", 20)
    plug(server)
    name = f"{WEB1}.{MAC1.replace(':', '')}"
    await until(lambda: fleet.status(name).get("state") == "active", lambda: str(fleet.status(name)), 20)


def stored(fleet: Fleet) -> int:
    """Bytes of all rows."""
    return sum(len(json.dumps(row.status)) for kind in fleet.store.kinds() for row in fleet.store.rows(kind).values())


def with_a_liar(folder: Path, then: Any, rows: Any, raw: bytes = b"") -> None:
    """``then(fleet, liar)`` with a fleet of one good host and one that says ``rows``; the good one is well after it."""

    async def main() -> None:
        with vswitch(folder / "kvm1") as server, hosts_thread() as connect, idl_thread() as thread:
            vswitchd = PlugsIn(server, thread)
            async with hostile(rows, raw) as liar, coordinated(folder, connect) as fleet:
                await fleet.apply(FLEET.format(good=server.remote, bad=liar.remote))
                fleet.connect("kvm1")
                await then(fleet, liar)
                begin = time.monotonic()
                await good_is_right(fleet, server)
                assert time.monotonic() - begin < 10
                assert fleet.coordinator.agents["kvm1"].ovsdb.state.state == "up"
                assert stored(fleet) < 100_000
            await vswitchd.stop()

    run(main(), 90)


def reason(fleet: Fleet) -> str:
    return fleet.coordinator.agents["liar"].ovsdb.state.reason


WRONG_TYPES = [
    {"ofport": "five"}, {"ofport": [1, 2]}, {"ofport": a_set(1, 2, 3)}, {"ofport": 1.5}, {"name": 7},
    {"external_ids": "none"}, {"external_ids": ["map", [["a"]]]}, {"external_ids": ["map", [["a", {"b": []}]]]},
    {"no_such_column": 1}, {"ingress_policing_rate": a_set()},
]  # fmt: skip


@pytest.mark.parametrize("change", WRONG_TYPES, ids=json.dumps)
def test_values_of_a_wrong_type(tmp_path: Path, change: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """They are as good as absent, or the host is not believed; the reason says so."""

    async def then(fleet: Fleet, liar: HostileOvsdb) -> None:
        agent = fleet.coordinator.agents["liar"]
        await until(lambda: agent.ovsdb.seen or "cannot be understood" in reason(fleet), lambda: reason(fleet))
        assert len(reason(fleet)) < 1000
        # A vNIC whose OpenFlow port makes no sense has none; what else is wrong of it takes nothing from its identity.
        ports = {row.status.get("ofport") for row in fleet.store.rows("Port").values()}
        assert ports <= ({None} if "ofport" in change else {None, 5})

    with_a_liar(tmp_path, then, vnics({"name": "vnet0", "external_ids": identity(), **change}))
    assert "listener failed" not in caplog.text


GARBAGE = {
    "not UTF-8": b'{"method":"update\xff\xfe","params":[],"id":null}',
    "never ends": b'{"id":[[[',
    "no object": b"}{",
    "zeros": b"\0" * 99,
    "no update": b'{"method":"update","params":[null,7],"id":null}',
    "deep": b'{"method":"update","params":' + b"[" * 100_000 + b"]" * 100_000 + b',"id":null}',
}


@pytest.mark.parametrize("raw", list(GARBAGE.values()), ids=list(GARBAGE))
def test_garbage_behind_what_is_right(tmp_path: Path, raw: bytes) -> None:
    async def then(fleet: Fleet, liar: HostileOvsdb) -> None:
        await until(lambda: liar.watched, "it was asked")
        await asyncio.sleep(0)
        assert len(reason(fleet)) < 1000

    with_a_liar(tmp_path, then, vnics({"name": "vnet0", "external_ids": identity()}), raw)


LONG = "x" * 7_000_000


@pytest.mark.parametrize(
    "change",
    [
        {"external_ids": identity(iface_id=LONG)},
        {"external_ids": identity(port_profile=LONG)},
        {"external_ids": identity(vm_id=LONG, attached_mac=LONG)},
        {"external_ids": identity(junk=LONG)},
        {"name": LONG[:1_000_000]},
        {"error": LONG, "ofport": a_set()},
        {"ofport": 1 << 62},
        {"ofport": -(1 << 62)},
        {"name": "a\x1b[2J\nb\0c", "external_ids": identity(iface_id="\0\x1b[2J", port_profile="\ud800:\n")},
    ],
    ids=["iface-id", "profile", "identity", "junk", "name", "error", "ofport", "negative ofport", "control characters"],
)
def test_values_that_cannot_be(tmp_path: Path, change: dict[str, Any]) -> None:
    """They are right by their type, and are shown short, or not at all."""

    async def then(fleet: Fleet, liar: HostileOvsdb) -> None:
        agent = fleet.coordinator.agents["liar"]
        await until(lambda: agent.ovsdb.seen, lambda: reason(fleet), 30)
        assert len(json.dumps(await fleet.operations.get("Host", "liar"))) < 5000
        for row in fleet.store.rows("Port").values():
            assert all(len(str(value)) <= 600 for value in row.status.values()), row.status
            assert row.status.get("ofport") in {None, 5}

    with_a_liar(tmp_path, then, vnics({"name": "vnet0", "external_ids": identity(), **change}))


def test_a_database_that_refuses_everything(tmp_path: Path) -> None:
    async def then(fleet: Fleet, liar: HostileOvsdb) -> None:
        liar.on_transact = lambda params: (None, {"error": "no", "details": LONG})
        await until(lambda: liar.transactions >= 2 and "refused" in reason(fleet), lambda: reason(fleet), 30)
        assert len(reason(fleet)) < 1000
        assert liar.transactions < 10, "it is asked again and again"

    with_a_liar(tmp_path, then, {"Open_vSwitch": {ROOT: {}}})


def test_rows_without_end(tmp_path: Path) -> None:
    """A host is given up when it has more than a host can have."""

    async def then(fleet: Fleet, liar: HostileOvsdb) -> None:
        agent = fleet.coordinator.agents["liar"]
        await until(lambda: agent.ovsdb.seen, lambda: reason(fleet))
        with contextlib.suppress(ConnectionError):
            while "more than" not in reason(fleet):
                ids = a_map(junk="y" * 4_000_000)
                await liar.update({"Interface": {str(uuid.uuid4()): {"name": "v", "external_ids": ids}}})
                await asyncio.sleep(0.02)
        await until(lambda: "more than" in reason(fleet), lambda: reason(fleet), 30)

    with_a_liar(tmp_path, then, vnics({"name": "vnet0", "external_ids": identity()}))


def test_a_hook_that_writes_more_than_is_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was left is read on, though the host says nothing more."""
    monkeypatch.setattr(coordinator_module, "_SWEEP_SECONDS", 0.02)
    monkeypatch.setattr(hook_reports, "PER_SECOND", 1 << 21)
    rows = []
    for number in range(10):
        mac, uuid_, tap = f"52:54:00:00:01:{number:02x}", f"{WEB2[:-2]}{number:02}", f"vnet{number}"
        xml = domain(interface(tap, mac=mac), more=f"<description>{'x' * 200_000}</description>").replace(VM, uuid_)
        ids = {"attached_mac": mac, "vm_id": uuid_, "iface_id": IFACE, "port_profile": "web:default"}
        report = base64.b64encode(gzip.compress(xml.encode())).decode()
        rows.append({"name": tap, "ofport": 10 + number, "external_ids": identity(**ids, fleetswitch_xml=report)})

    async def then(fleet: Fleet, liar: HostileOvsdb) -> None:
        def switched() -> int:
            return sum(row.status.get("state") == "active" for row in fleet.store.rows("Port").values())

        await until(lambda: switched() == 10, lambda: str(switched()), 30)

    with_a_liar(tmp_path, then, vnics(*rows, bridge={"external_ids": a_map(fleetswitch_hook="1 no")}))
