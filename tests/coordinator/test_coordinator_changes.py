"""Changes that meet: each is judged by what the one before left. And what has to be there before one is confirmed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from coordinated import MAC1, NAME, WEB1, coordinated, hosts_thread, plug, unplug
from ovsdb_servers import idl_thread, raises, run, until, vswitch
from plugs_in import PlugsIn

from controller import observer as observer_module
from controller.errors import InvalidInput, StoreError
from controller.store.rows import Change
from topology.guests import Changes
from topology.judgement import Witness
from topology.libvirt_host import LibvirtHost

LAN = "{{kind: Network, name: {}, mode: bridge, physical_network: phys1, portgroups: {{default: {{vlan: 10}}}}}}"
WEB = "{kind: Network, name: web, mode: isolated}"
HOST = "{{kind: Host, name: kvm1, ovsdb: '{}'{}}}"


def test_two_that_claim_one_vlan_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            names = ["lan1", "lan2", "lan3"]
            outcomes = await asyncio.gather(*(fleet.apply(LAN.format(n)) for n in names), return_exceptions=True)
            assert sum(isinstance(outcome, int) for outcome in outcomes) == 1
            assert sum(isinstance(outcome, InvalidInput) for outcome in outcomes) == 2
            assert len(fleet.store.rows("Network")) == 1
            assert fleet.coordinator.desired.fleet().problems() == []

    run(main())


def test_a_network_goes_while_somebody_registers_a_vnic_in_it(tmp_path: Path) -> None:
    port = f"{{kind: Port, name: front, vm: web1, mac: '{MAC1}', network: web}}"

    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            for first_deletes in (False, True):
                await fleet.apply(WEB)
                both: list[Any] = [fleet.apply(port), fleet.delete("Network", "web")]
                outcomes = await asyncio.gather(*both[:: -1 if first_deletes else 1], return_exceptions=True)
                assert [type(outcome) for outcome in outcomes] == [int, InvalidInput]
                assert list(fleet.coordinator.desired.fleet().problems()) == []
                if not first_deletes:
                    await fleet.delete("Port", "front")

    run(main())


def test_a_change_waits_until_no_flow_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        with vswitch(tmp_path / "kvm1") as server, hosts_thread() as connect, idl_thread() as thread:
            async with coordinated(tmp_path, connect) as fleet:
                vswitchd = PlugsIn(server, thread)
                applied = await fleet.apply(HOST.format(server.remote, ""))
                switch = fleet.connect("kvm1")
                await fleet.confirmed(applied)
                switch.disconnect()
                refused = next(iter(sorted(switch.flows)))
                switch.flows.clear()
                switch.refuses = lambda flow: flow == refused
                switch.connect(fleet.coordinator.agents["kvm1"].switch)
                await until(lambda: switch.flows, "the others are there")
                applied = await fleet.apply(WEB)
                [left] = await fleet.operations.wait(applied, 0.3)
                assert (left.host, left.what) == ("kvm1", "openflow")
                assert "refuses 1 flows" in left.reason
                switch.disconnect()
                switch.refuses = lambda flow: False
                switch.connect(fleet.coordinator.agents["kvm1"].switch)
                await fleet.confirmed(applied)
                assert refused in switch.flows
                await vswitchd.stop()

    run(main())


def test_a_change_waits_until_the_vnics_are_judged_by_it(tmp_path: Path) -> None:
    async def main() -> None:
        with vswitch(tmp_path / "kvm1") as server, hosts_thread() as connect, idl_thread() as thread:
            async with coordinated(tmp_path, connect) as fleet:
                vswitchd = PlugsIn(server, thread)
                applied = await fleet.apply(HOST.format(server.remote, ""))
                switch = fleet.connect("kvm1")
                await fleet.confirmed(applied)
                plug(server)
                await until(lambda: fleet.status(NAME).get("state") == "quarantined", lambda: str(fleet.status(NAME)))
                await fleet.confirmed(fleet.coordinator.sequence)
                before = set(switch.flows)
                await fleet.confirmed(await fleet.apply(WEB))
                assert fleet.status(NAME)["state"] == "active"
                assert len(before - switch.flows) == 1, "the flow that counted what it sent while it was kept out"
                assert len(switch.flows - before) > 1, "its own flows"
                await vswitchd.stop()

    run(main())


def test_a_running_guest_that_is_registered_no_more_stays_known(tmp_path: Path) -> None:
    front = f"{{kind: Port, name: front, vm: {WEB1}, mac: '{MAC1}', network: web}}"

    async def main() -> None:
        with vswitch(tmp_path / "kvm1") as server, hosts_thread() as connect, idl_thread() as thread:
            async with coordinated(tmp_path, connect) as fleet:
                vswitchd = PlugsIn(server, thread)
                applied = await fleet.apply("\n---\n".join((HOST.format(server.remote, ""), WEB, front)))
                switch = fleet.connect("kvm1")
                await fleet.confirmed(applied)
                plug(server)
                await until(lambda: fleet.status("front").get("state") == "active", lambda: str(fleet.status("front")))
                await fleet.confirmed(fleet.coordinator.sequence)
                before = set(switch.flows)
                on: list[bool] = []
                ports = fleet.store.rows("Port")
                fleet.store.watch(lambda _: on.append("active" in {p.status.get("state") for p in ports.values()}))
                await fleet.confirmed(await fleet.delete("Port", "front"))
                await until(lambda: fleet.status(NAME).get("state") == "active", lambda: str(fleet.status(NAME)))
                await fleet.confirmed(fleet.coordinator.sequence)
                assert list(ports) == [NAME]
                assert all(on), "at no moment is it cut off"
                assert len(switch.flows) == len(before)
                await vswitchd.stop()

    run(main())


def test_the_bridge_of_a_host_with_running_guests_stays(tmp_path: Path) -> None:
    async def main() -> None:
        with vswitch(tmp_path / "kvm1") as server, hosts_thread() as connect, idl_thread() as thread:
            async with coordinated(tmp_path, connect) as fleet:
                vswitchd = PlugsIn(server, thread)
                applied = await fleet.apply(HOST.format(server.remote, "") + "\n---\n" + WEB)
                fleet.connect("kvm1")
                await fleet.confirmed(applied)
                renamed = HOST.format(server.remote, ", bridge: br-new")
                plug(server)
                await until(lambda: fleet.status(NAME).get("state") == "active", lambda: str(fleet.status(NAME)))
                text = await raises(InvalidInput, fleet.apply(renamed))
                assert "cannot become br-new while guests are plugged into br-int" in text
                unplug(server)
                await until(lambda: not fleet.status(NAME), lambda: str(fleet.status(NAME)))
                await fleet.confirmed(await fleet.apply(renamed))
                await vswitchd.stop()

    run(main())


def test_a_host_with_libvirt_is_not_judged_by_its_ovsdb_alone(tmp_path: Path) -> None:
    libvirt = f", libvirt: 'qemu+unix:///system?socket={tmp_path}/none'"

    async def main() -> None:
        with vswitch(tmp_path / "kvm1") as server, hosts_thread() as connect, idl_thread() as thread:
            async with coordinated(tmp_path, connect) as fleet:
                vswitchd = PlugsIn(server, thread)
                states: list[str] = []
                fleet.store.watch(lambda changes: states.extend(
                    c.new.status["state"] for c in changes if c.kind == "Port" and c.new is not None
                ))  # fmt: skip
                await fleet.apply(HOST.format(server.remote, libvirt) + "\n---\n" + WEB)
                assert fleet.coordinator.guests.hosts["kvm1"].witness is Witness.AWAY
                agent = fleet.coordinator.agents["kvm1"]
                await until(lambda: agent.ovsdb.state.confirmed >= 0, lambda: str(agent.ovsdb.state))
                plug(server)
                await until(lambda: states, "it is judged")
                assert fleet.status(NAME)["reason"] == "waits for the host's libvirt to confirm it"
                assert set(states) == {"pending"}
                await vswitchd.stop()

    run(main())


def test_a_guest_that_starts_says_that_its_libvirt_is_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    libvirt = f", libvirt: 'qemu+unix:///system?socket={tmp_path}/none'"
    retried: list[str] = []
    monkeypatch.setattr(LibvirtHost, "retry", lambda self: retried.append(self.name))

    async def main() -> None:
        with vswitch(tmp_path / "kvm1") as server, hosts_thread() as connect, idl_thread() as thread:
            async with coordinated(tmp_path, connect) as fleet:
                vswitchd = PlugsIn(server, thread)
                await fleet.apply(HOST.format(server.remote, libvirt) + "\n---\n" + WEB)
                agent = fleet.coordinator.agents["kvm1"]
                await until(lambda: agent.ovsdb.state.confirmed >= 0, lambda: str(agent.ovsdb.state))
                assert retried == []
                plug(server)
                await until(lambda: retried, "its libvirt is asked at once")
                assert set(retried) == {"kvm1"}
                await vswitchd.stop()

    run(main())


def test_guests_stay_on_when_their_host_gets_a_libvirt(tmp_path: Path) -> None:
    libvirt = f", libvirt: 'qemu+unix:///system?socket={tmp_path}/none'"

    async def main() -> None:
        with vswitch(tmp_path / "kvm1") as server, hosts_thread() as connect, idl_thread() as thread:
            async with coordinated(tmp_path, connect) as fleet:
                vswitchd = PlugsIn(server, thread)
                applied = await fleet.apply(HOST.format(server.remote, "") + "\n---\n" + WEB)
                fleet.connect("kvm1")
                await fleet.confirmed(applied)
                plug(server)
                await until(lambda: fleet.status(NAME).get("state") == "active", lambda: str(fleet.status(NAME)))
                seen: list[dict[str, Any]] = []
                fleet.store.watch(lambda changes: seen.extend(
                    dict(c.new.status) if c.new is not None else {} for c in changes if c.kind == "Port"
                ))  # fmt: skip
                applied = await fleet.apply(HOST.format(server.remote, libvirt))
                agent, view = fleet.coordinator.agents["kvm1"], fleet.coordinator.guests.hosts["kvm1"]
                await until(lambda: agent.libvirt is not None and view.witness is Witness.AWAY, lambda: str(view))
                fleet.coordinator.observer.judge(None)
                await until(lambda: not fleet.coordinator.observer._wake.is_set(), "judged")
                await until(lambda: fleet.coordinator.observer.judged >= applied, "judged")
                assert seen == []
                assert fleet.coordinator.guests.hosts["kvm1"].witness is Witness.AWAY
                await vswitchd.stop()

    run(main())


def test_guests_stay_on_when_their_host_is_reached_at_another_address(tmp_path: Path) -> None:
    other = f"unix:{tmp_path}/other"

    async def main() -> None:
        with (
            vswitch(tmp_path / "kvm1", f"p{other}") as server,
            hosts_thread() as connect,
            idl_thread() as thread,
        ):
            async with coordinated(tmp_path, connect) as fleet:
                vswitchd = PlugsIn(server, thread)
                applied = await fleet.apply(HOST.format(server.remote, "") + "\n---\n" + WEB)
                fleet.connect("kvm1")
                await fleet.confirmed(applied)
                plug(server)
                await until(lambda: fleet.status(NAME).get("state") == "active", lambda: str(fleet.status(NAME)))
                seen: list[str] = []
                fleet.store.watch(lambda changes: seen.extend(c.name for c in changes if c.kind == "Port"))
                agent = fleet.coordinator.agents["kvm1"]
                before = agent.ovsdb
                applied = await fleet.apply(HOST.format(other, ""))
                fleet.coordinator._on_state("kvm1")  # a host may say something at any moment
                await until(lambda: agent.ovsdb is not before, "it is connected to anew")
                await fleet.confirmed(applied)
                assert seen == []
                unplug(server)
                await until(lambda: not fleet.status(NAME), "it is watched there as well")
                await vswitchd.stop()

    run(main())


@pytest.mark.parametrize("error", [RuntimeError("a fault"), StoreError("away"), KeyError("kvm1")])
def test_what_hosts_tell_is_judged_again_after_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(observer_module, "_FAULT_SECONDS", 0.02)
    monkeypatch.setattr(observer_module, "_RETRY_SECONDS", 0.02)

    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            guests, faults = fleet.coordinator.guests, [error, error]
            evaluate = guests.evaluate

            def faulty(*args: Any) -> Changes:
                if faults:
                    raise faults.pop()
                return evaluate(*args)

            monkeypatch.setattr(guests, "evaluate", faulty)
            applied = await fleet.apply(WEB)
            assert await fleet.coordinator.until(lambda: fleet.coordinator.observer.judged >= applied, 10)
            assert not faults

    run(main())


def test_a_host_that_goes_and_comes_again_in_one_moment_is_watched(tmp_path: Path) -> None:
    """Somebody else may write to the store; what it tells then comes in one turn of the loop."""

    async def main() -> None:
        with vswitch(tmp_path / "kvm1") as server, hosts_thread() as connect, idl_thread() as thread:
            async with coordinated(tmp_path, connect) as fleet:
                vswitchd = PlugsIn(server, thread)
                await fleet.apply(f"{WEB}\n---\n{HOST.format(server.remote, '')}")
                fleet.connect("kvm1")
                row = fleet.store.rows("Host")["kvm1"]
                fleet.coordinator._on_rows([Change("Host", "kvm1", row, None)])
                fleet.coordinator._on_rows([Change("Host", "kvm1", None, row)])
                agent = fleet.coordinator.agents["kvm1"]
                await until(lambda: agent.ovsdb.state.state == "up", lambda: str(agent.ovsdb.state))
                plug(server)
                await until(lambda: fleet.status(NAME).get("state") == "active", lambda: str(fleet.status(NAME)))
                await vswitchd.stop()

    run(main())


def test_a_guest_that_starts_has_only_its_host_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its new row says nothing that somebody wants."""

    async def main() -> None:
        with vswitch(tmp_path / "kvm1") as server, hosts_thread() as connect, idl_thread() as thread:
            async with coordinated(tmp_path, connect) as fleet:
                vswitchd = PlugsIn(server, thread)
                applied = await fleet.apply(f"{WEB}\n---\n{HOST.format(server.remote, '')}")
                fleet.connect("kvm1")
                await fleet.confirmed(applied)
                coordinator, judged = fleet.coordinator, []
                await coordinator.until(lambda: coordinator.observer.answered >= coordinator.observer.asked, 10)
                evaluate = coordinator.guests.evaluate

                def watched(*args: Any) -> Changes:
                    judged.append(args[2])
                    return evaluate(*args)

                monkeypatch.setattr(coordinator.guests, "evaluate", watched)
                plug(server)
                await until(lambda: fleet.status(NAME).get("state") == "active", lambda: str(fleet.status(NAME)))
                await coordinator.until(lambda: coordinator.observer.answered >= coordinator.observer.asked, 10)
                assert {"kvm1"} in judged
                assert all(stale is not None and stale <= {"kvm1"} for stale in judged), judged
                await vswitchd.stop()

    run(main())


def test_a_registration_whose_row_makes_no_sense_any_more_counts_no_longer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever part of the row it is that somebody else broke."""
    port = f"{{kind: Port, name: front, vm: web1, mac: '{MAC1}', network: web}}"

    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            applied = await fleet.apply(f"{WEB}\n---\n{port}")
            coordinator = fleet.coordinator
            assert await coordinator.until(lambda: coordinator.observer.judged >= applied, 10)
            row, judged = fleet.store.rows("Port")["front"], coordinator.observer.asked
            for status in ({"state": "nonsense"}, {}):
                coordinator._on_rows([Change("Port", "front", row, replace(row, status=status))])
                assert ("front" in coordinator.desired.registered) == (not status)
                assert coordinator.observer._stale is None, "all are to be judged"
                assert await coordinator.until(lambda: coordinator.observer.judged == coordinator.sequence, 10)
            assert coordinator.observer.asked >= judged + 2

    run(main())
