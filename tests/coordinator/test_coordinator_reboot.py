"""A switch that lost its flows, and whose ports may have other numbers: it gets no flow for a number of before."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

from coordinated import MAC1, NAME, WEB1, Fleet, coordinated, hosts_thread, plug
from ovsdb_servers import Server, idl_thread, run, until, vswitch
from played_switch import PlayedSwitch
from plugs_in import PlugsIn

from controller.desired import Desired
from controller.model.port import Incoming, PortStatus
from controller.store import Store

WEB = "{kind: Network, name: web, mode: isolated}"


@contextlib.asynccontextmanager
async def a_guest_runs(folder: Path) -> AsyncIterator[tuple[Fleet, Server, PlayedSwitch]]:
    """One host with a guest at OpenFlow port 5, and all of it switched; then its OVSDB and its OpenFlow are gone."""
    with vswitch(folder / "kvm1") as server, hosts_thread() as connect, idl_thread() as thread:
        async with coordinated(folder, connect) as fleet:
            vswitchd = PlugsIn(server, thread)
            await fleet.apply(f"{{kind: Host, name: kvm1, ovsdb: '{server.remote}'}}\n---\n{WEB}")
            switch = fleet.connect("kvm1")
            await fleet.confirmed(fleet.coordinator.sequence)
            plug(server)
            await until(lambda: fleet.status(NAME).get("state") == "active", lambda: str(fleet.status(NAME)))
            await fleet.confirmed(fleet.coordinator.sequence)
            await vswitchd.stop()
            switch.disconnect()
            server.kill()
            agent = fleet.coordinator.agents["kvm1"]
            await until(lambda: agent.ovsdb.state.state == "down", "OVSDB is away")
            yield fleet, server, switch


def renumber(server: Server, ofport: int) -> None:
    """What a reboot does to vnet0 while nobody looks."""
    update = {"op": "update", "table": "Interface", "where": [["name", "==", "vnet0"]], "row": {"ofport": ofport}}
    words = ["ovsdb-tool", "transact", str(server.database), json.dumps(["Open_vSwitch", update])]
    assert '"count":1' in subprocess.run(words, check=True, capture_output=True, text=True).stdout


def test_a_switch_without_flows_gets_none_of_numbers_that_its_ports_had_before(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_guest_runs(tmp_path) as (fleet, server, switch):
            before = set(switch.flows)
            renumber(server, 6)
            switch.flows.clear()
            switch.taken.clear()
            agent = fleet.coordinator.agents["kvm1"]
            switch.connect(agent.switch)
            await until(lambda: switch.taken or "OVSDB" in agent.switch.state.reason, lambda: str(agent.switch.state))
            await fleet.apply("{kind: Network, name: other, mode: isolated}")
            assert not switch.taken
            assert agent.switch.state.state == "degraded"
            assert "OVSDB" in agent.switch.state.reason
            server.start()
            await fleet.confirmed(fleet.coordinator.sequence)
            assert agent.switch.state.state == "up"
            assert switch.flows
            assert before - switch.flows, "those of the number that it had"
            assert not switch.taken & (before - switch.flows)

    run(main())


def test_a_switch_that_kept_its_flows_gets_what_it_lacks_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_guest_runs(tmp_path) as (fleet, _, switch):
            wanted = set(switch.flows)
            switch.flows.pop()
            switch.connect(fleet.coordinator.agents["kvm1"].switch)
            await until(lambda: switch.flows == wanted, "the flow is back")
            assert fleet.coordinator.agents["kvm1"].ovsdb.state.state == "down"

    run(main())


def test_a_switch_that_goes_while_it_waits_is_driven_when_it_is_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_guest_runs(tmp_path) as (fleet, server, switch):
            wanted = set(switch.flows)
            switch.flows.clear()
            agent = fleet.coordinator.agents["kvm1"]
            for _ in range(3):
                switch.connect(agent.switch)
                await until(lambda: "OVSDB" in agent.switch.state.reason, lambda: str(agent.switch.state))
                switch.disconnect()
            assert agent.switch.state.state == "down"
            server.start()
            switch.connect(agent.switch)
            await until(lambda: switch.flows == wanted, "the flows are back")

    run(main())


def test_a_switch_that_waits_is_driven_when_its_host_gets_another_address(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_guest_runs(tmp_path) as (fleet, server, switch):
            wanted = set(switch.flows)
            switch.flows.clear()
            agent = fleet.coordinator.agents["kvm1"]
            switch.connect(agent.switch)
            await until(lambda: "OVSDB" in agent.switch.state.reason, lambda: str(agent.switch.state))
            other = Server(tmp_path / "other", database=server.database)
            try:
                await fleet.apply(f"{{kind: Host, name: kvm1, ovsdb: '{other.remote}'}}")
                await until(lambda: switch.flows == wanted, "the flows are back")
            finally:
                other.kill()

    run(main())


def test_a_guest_that_moves_has_a_port_at_both_places() -> None:
    desired = Desired(cast(Store, None))
    place = Incoming(host="kvm2", tap="vnet0", ofport=3)
    desired.statuses["p"] = PortStatus(vm_uuid=WEB1, mac=MAC1, host="kvm1", ofport=5, state="active", incoming=place)
    desired.statuses["absent"] = PortStatus(vm_uuid=WEB1, mac=MAC1, host="kvm3", state="absent")
    assert [name for name in ("kvm1", "kvm2", "kvm3") if desired.names_ports_of(name)] == ["kvm1", "kvm2"]
