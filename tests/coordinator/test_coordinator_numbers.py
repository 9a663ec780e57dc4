"""Fleet-wide numbers: given back once nobody refers to them and every host has forgotten them, and not before."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from coordinated import NAME, Fleet, coordinated, hosts_thread, plug
from ovsdb_servers import idl_thread, run, until, vswitch
from plugs_in import PlugsIn

from apps import APPS
from controller import coordinator as coordinator_module
from controller.coordinator import Coordinator
from controller.desired import HOSTS, PHYSICAL_NETWORKS, SEGMENTS, Desired
from controller.model.documents import dump_spec
from controller.model.network import NetworkSpec
from controller.pipeline.pipeline import Pipeline
from controller.rows import segment_name
from controller.store import NumberRequest, PrivateServer, Put, Remove, Store
from controller.sweeper import Sweeper

WEB = Put("Network", "web", dump_spec(NetworkSpec(mode="isolated")))
SEGMENT = segment_name("web", min(NetworkSpec(mode="isolated").vlans()))


@contextlib.asynccontextmanager
async def swept(folder: Path) -> AsyncIterator[tuple[Store, Sweeper, list[int]]]:
    """A sweeper on a store with a network of number 1 that is gone again; and what is confirmed."""
    private = PrivateServer(folder)
    await private.start()
    try:
        with idl_thread() as thread:
            store = Store(private.remote, thread)
            await store.start()
            desired, confirmed = Desired(store), [0]
            store.watch(lambda changes: desired.take(changes) and None)
            sweeper = Sweeper(store, desired, lambda: confirmed[0])
            await store.commit([WEB], numbers=[NumberRequest(SEGMENTS, SEGMENT, 1, 9)])
            sweeper.look(1)
            await store.commit([Remove("Network", "web")])
            sweeper.look(2)
            yield store, sweeper, confirmed
            store.close()
    finally:
        await private.stop()


def test_a_number_goes_back_when_all_have_confirmed_that_nobody_uses_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with swept(tmp_path) as (store, sweeper, confirmed):
            confirmed[0] = 1
            await sweeper.sweep()
            assert store.numbers(SEGMENTS) == {SEGMENT: 1}
            confirmed[0] = 2
            await sweeper.sweep()
            assert store.numbers(SEGMENTS) == {}

    run(main())


def test_a_number_that_is_used_again_between_look_and_sweep_is_kept(tmp_path: Path) -> None:
    async def main() -> None:
        async with swept(tmp_path) as (store, sweeper, confirmed):
            confirmed[0] = 9
            await store.commit([WEB])  # and nobody looked since
            await sweeper.sweep()
            assert store.numbers(SEGMENTS) == {SEGMENT: 1}

    run(main())


def test_a_number_that_was_used_again_waits_anew(tmp_path: Path) -> None:
    async def main() -> None:
        async with swept(tmp_path) as (store, sweeper, confirmed):
            await store.commit([WEB])
            sweeper.look(3)
            await store.commit([Remove("Network", "web")])
            sweeper.look(4)
            confirmed[0] = 3
            await sweeper.sweep()
            assert store.numbers(SEGMENTS) == {SEGMENT: 1}
            confirmed[0] = 4
            await sweeper.sweep()
            assert store.numbers(SEGMENTS) == {}

    run(main())


def test_what_nobody_used_when_the_controller_began_goes_back_too(tmp_path: Path) -> None:
    """The last one ended before all hosts had confirmed."""

    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            await fleet.store.commit((), numbers=[NumberRequest(SEGMENTS, SEGMENT, 1, 9)])
            again = Coordinator(fleet.store, Pipeline(APPS), fleet.coordinator._connect, [], 2)
            await again.start()
            await again._sweeper.sweep()
            await again.stop()
            assert fleet.store.numbers(SEGMENTS) == {}

    run(main())


class Sweeps:
    """How often a coordinator has swept."""

    def __init__(self, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        sweeper = fleet.coordinator._sweeper
        sweep = sweeper.sweep

        async def counted() -> None:
            await sweep()
            self.count += 1

        monkeypatch.setattr(sweeper, "sweep", counted)

    async def again(self) -> None:
        """One that began after this call has ended."""
        wanted = self.count + 2
        await until(lambda: self.count >= wanted, "swept")


@pytest.fixture(autouse=True)
def _sweep_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator_module, "_SWEEP_SECONDS", 0.02)


HOST = "{{kind: Host, name: kvm1, ovsdb: '{}', uplinks: {{{}}}}}"


def test_a_physical_networks_number_waits_for_the_hosts_ovsdb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        with vswitch(tmp_path / "kvm1") as server, hosts_thread() as connect, idl_thread() as thread:
            async with coordinated(tmp_path, connect) as fleet:
                vswitchd, sweeps = PlugsIn(server, thread), Sweeps(fleet, monkeypatch)
                applied = await fleet.apply(HOST.format(server.remote, "phys1: {interface: ens1}"))
                switch = fleet.connect("kvm1")
                await fleet.confirmed(applied)
                agent = fleet.coordinator.agents["kvm1"]
                server.kill()
                await until(lambda: agent.ovsdb.state.state == "down", lambda: str(agent.ovsdb.state))
                applied = await fleet.apply(HOST.format(server.remote, ""))
                await until(lambda: agent.switch.state.confirmed >= applied, lambda: str(agent.switch.state))
                await sweeps.again()
                assert fleet.store.numbers(PHYSICAL_NETWORKS) == {"phys1": 1}, "its patch port is still there"
                server.start()
                await until(lambda: not fleet.store.numbers(PHYSICAL_NETWORKS), lambda: str(agent.ovsdb.state), 20)
                assert fleet.store.numbers(HOSTS) == {"kvm1": 1}
                switch.disconnect()
                await vswitchd.stop()

    run(main())


def test_a_segments_number_waits_for_the_hosts_switch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        with vswitch(tmp_path / "kvm1") as server, hosts_thread() as connect, idl_thread() as thread:
            async with coordinated(tmp_path, connect) as fleet:
                vswitchd, sweeps = PlugsIn(server, thread), Sweeps(fleet, monkeypatch)
                network = "{kind: Network, name: web, mode: isolated}"
                applied = await fleet.apply(HOST.format(server.remote, "") + "\n---\n" + network)
                switch = fleet.connect("kvm1")
                await fleet.confirmed(applied)
                plug(server)
                await until(lambda: fleet.status(NAME).get("state") == "active", lambda: str(fleet.status(NAME)))
                await fleet.confirmed(fleet.coordinator.sequence)
                agent, before = fleet.coordinator.agents["kvm1"], set(switch.flows)
                switch.answering.clear()
                applied = await fleet.delete("Network", "web", force=True)
                await until(lambda: agent.ovsdb.state.confirmed >= applied, lambda: str(agent.ovsdb.state))
                await sweeps.again()
                assert fleet.store.numbers(SEGMENTS) == {SEGMENT: 1}
                assert switch.flows == before, "it still sends with that number"
                switch.answering.set()
                await until(lambda: not fleet.store.numbers(SEGMENTS), lambda: str(agent.switch.state))
                await fleet.confirmed(fleet.coordinator.sequence)
                assert len(before - switch.flows) > 1, "flows of the network and its vNIC"
                assert len(switch.flows - before) == 1, "the one that counts what the vNIC sends, which is kept out now"
                await vswitchd.stop()

    run(main())


def test_nothing_goes_back_while_a_change_is_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            sweeps = Sweeps(fleet, monkeypatch)
            await fleet.apply("{kind: Network, name: web, mode: isolated}")
            released: list[bool] = []
            release = fleet.store.release

            async def watched(pool: str, name: str) -> None:
                released.append(fleet.coordinator.changing.locked())
                await release(pool, name)

            monkeypatch.setattr(fleet.store, "release", watched)
            await fleet.delete("Network", "web")
            await until(lambda: not fleet.store.numbers(SEGMENTS), lambda: str(fleet.store.numbers(SEGMENTS)))
            assert released == [True], "whoever changes something meanwhile waits"
            async with fleet.coordinator.changing:
                before = sweeps.count
                await fleet.store.commit([WEB], numbers=[NumberRequest(SEGMENTS, SEGMENT, 1, 9)])
            await sweeps.again()
            assert sweeps.count > before
            assert fleet.store.numbers(SEGMENTS) == {SEGMENT: 1}

    run(main())


def test_a_host_that_was_only_forgotten_keeps_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            sweeps = Sweeps(fleet, monkeypatch)
            await fleet.apply(HOST.format("unix:/kvm1", "phys1: {interface: ens1}"))
            await fleet.delete("Host", "kvm1", force=True)
            assert not fleet.store.rows("Host")
            await until(lambda: not fleet.store.numbers(PHYSICAL_NETWORKS), "nobody is left to confirm anything")
            await sweeps.again()
            assert fleet.store.numbers(HOSTS) == {"kvm1": 1}, "it may still run with the datapath id of that number"

    run(main())


def test_a_host_that_was_cleaned_gives_its_number_back(tmp_path: Path) -> None:
    async def main() -> None:
        with vswitch(tmp_path / "kvm1") as server, hosts_thread() as connect, idl_thread() as thread:
            async with coordinated(tmp_path, connect) as fleet:
                vswitchd = PlugsIn(server, thread)
                applied = await fleet.apply(HOST.format(server.remote, ""))
                fleet.connect("kvm1")
                await fleet.confirmed(applied)
                await fleet.delete("Host", "kvm1")
                await until(lambda: not fleet.store.rows("Host"), lambda: str(fleet.store.rows("Host")))
                await until(lambda: not fleet.store.numbers(HOSTS), lambda: str(fleet.store.numbers(HOSTS)))
                await vswitchd.stop()

    run(main())


def test_a_host_that_was_cleaned_once_and_forgotten_later_keeps_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        with vswitch(tmp_path / "kvm1") as server, hosts_thread() as connect, idl_thread() as thread:
            async with coordinated(tmp_path, connect) as fleet:
                sweeps = Sweeps(fleet, monkeypatch)
                vswitchd = PlugsIn(server, thread)
                applied = await fleet.apply(HOST.format(server.remote, ""))
                fleet.connect("kvm1")
                await fleet.confirmed(applied)
                await fleet.delete("Host", "kvm1")
                await until(lambda: not fleet.store.numbers(HOSTS), lambda: str(fleet.store.numbers(HOSTS)))
                await vswitchd.stop()
                await fleet.apply(HOST.format("unix:/nowhere", "phys1: {interface: ens1}"))
                await fleet.delete("Host", "kvm1", force=True)
                assert not fleet.store.rows("Host")
                await until(lambda: not fleet.store.numbers(PHYSICAL_NETWORKS), "nobody is left to confirm anything")
                await sweeps.again()
                assert fleet.store.numbers(HOSTS) == {"kvm1": 1}, "it may still run with the datapath id of that number"

    run(main())


def test_force_is_for_one_removal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host of the same name waits for its libvirt again."""
    host = "{{kind: Host, name: kvm1, ovsdb: '{}', libvirt: 'qemu+unix:///system?socket=/nowhere'}}"

    async def main() -> None:
        with vswitch(tmp_path / "kvm1") as server, hosts_thread() as connect, idl_thread() as thread:
            async with coordinated(tmp_path, connect) as fleet:
                sweeps = Sweeps(fleet, monkeypatch)
                vswitchd = PlugsIn(server, thread)
                for force in (True, False):
                    await fleet.apply(host.format(server.remote))
                    ovsdb = fleet.coordinator.agents["kvm1"].ovsdb
                    await until(lambda ovsdb=ovsdb: ovsdb.state.state == "up", "its bridge is there")
                    await fleet.delete("Host", "kvm1", force=force)
                    if force:
                        await until(lambda: not fleet.store.rows("Host"), lambda: str(fleet.store.rows("Host")))
                clean = fleet.coordinator.agents["kvm1"]
                await until(
                    lambda: clean.ovsdb.state.confirmed >= fleet.coordinator.driver.settled, "its bridge is gone"
                )
                await sweeps.again()
                assert fleet.store.rows("Host").keys() == {"kvm1"}
                await vswitchd.stop()

    run(main())
