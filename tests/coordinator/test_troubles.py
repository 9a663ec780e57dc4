"""What was wrong with a host before a change does not keep the change from being confirmed; what came with it does."""

from __future__ import annotations

from pathlib import Path

import libvirt
import pytest
from coordinated import Fleet, coordinated, hosts_thread
from ovsdb_servers import Server, idl_thread, run, until, vswitch
from plugs_in import PlugsIn

from controller.api.operations import Trouble
from controller.idl import IdlThread
from topology.libvirt_events import LibvirtEvents

HOST = "{{kind: Host, name: kvm1, ovsdb: '{}', uplinks: {{phys1: {{interface: ens1}}, phys2: {{interface: ens2}}}}{}}}"
NETWORK = "{{kind: Network, name: {}, mode: isolated}}"
BROKEN = "ens1: no such device"
OTHER = "<network><name>other</name><forward mode='bridge'/><bridge name='br9'/></network>"


class WithoutUplinks(PlugsIn):
    def __init__(self, server: Server, thread: IdlThread, *refuses: str) -> None:
        super().__init__(server, thread)
        self.refuses = set(refuses)


async def wrong(fleet: Fleet, sequence: int, since: int | None = None, seconds: float = 0.5) -> list[str]:
    missing = await fleet.operations.wait(sequence, seconds, since)
    return [f"{one.host} {one.what}: {one.reason}" for one in missing]


def test_an_uplink_that_was_broken_before_is_told_and_confirms_what_comes_later(tmp_path: Path) -> None:
    async def main() -> None:
        with vswitch(tmp_path / "kvm1") as server, hosts_thread() as connect, idl_thread() as thread:
            async with coordinated(tmp_path, connect) as fleet:
                vswitchd = WithoutUplinks(server, thread, "ens1")
                agent_of = fleet.coordinator.agents
                host = await fleet.apply(HOST.format(server.remote, ""))
                fleet.connect("kvm1")
                await until(lambda: agent_of["kvm1"].ovsdb.state.reason == BROKEN, "it is seen", 20)
                assert await wrong(fleet, host) == [f"kvm1 ovsdb: {BROKEN}"], "the change that brought it"
                assert await fleet.operations.troubles(host) == ()

                later = await fleet.apply(NETWORK.format("web"))
                await fleet.confirmed(later)
                assert await fleet.operations.troubles(later) == (Trouble("kvm1", "ovsdb", BROKEN),)
                assert await wrong(fleet, later, since=0) == [f"kvm1 ovsdb: {BROKEN}"], "asked for all that is wrong"
                assert await wrong(fleet, host) == [f"kvm1 ovsdb: {BROKEN}"], "asked again for the change before"

                changed = await fleet.apply(HOST.format(server.remote, ", lldp: false"))
                await until(lambda: agent_of["kvm1"].ovsdb.state.confirmed >= changed, "it is confirmed", 20)
                assert await wrong(fleet, changed) == [f"kvm1 ovsdb: {BROKEN}"], "a change of the host itself"

                last = await fleet.apply(NETWORK.format("lan"))
                await fleet.confirmed(last)
                vswitchd.refuses.add("ens2")
                await fleet.coordinator.agents["kvm1"].ovsdb._client.transact(
                    lambda api, txn: [txn.add(api.db_clear("Interface", "ens2", "ofport"))], 5.0
                )
                await until(lambda: "ens2: no" in agent_of["kvm1"].ovsdb.state.reason, "it is seen", 20)
                assert await wrong(fleet, last) == [f"kvm1 ovsdb: {BROKEN}; ens2: no such device"], "what came after"
                await vswitchd.stop()

    run(main(), 60)


@pytest.fixture
def mock_libvirt() -> object:
    """libvirt's mock with a network of somebody else's; it keeps its state while this connection is open."""
    LibvirtEvents.start()
    connection = libvirt.open("test:///default")
    for network in connection.listAllNetworks(0):
        network.destroy()
        network.undefine()
    connection.networkDefineXML(OTHER)
    yield connection
    for network in connection.listAllNetworks(0):
        if network.isActive():
            network.destroy()
        network.undefine()
    connection.close()


@pytest.mark.usefixtures("mock_libvirt")
def test_a_network_that_a_host_refuses_keeps_no_other_from_being_confirmed(tmp_path: Path) -> None:
    async def main() -> None:
        with vswitch(tmp_path / "kvm1") as server, hosts_thread() as connect, idl_thread() as thread:
            async with coordinated(tmp_path, connect) as fleet:
                vswitchd = PlugsIn(server, thread)
                host = await fleet.apply(HOST.format(server.remote, ", libvirt: 'test:///default'"))
                fleet.connect("kvm1")
                await fleet.confirmed(host)
                refused = await fleet.apply(NETWORK.format("other"))
                [why] = await wrong(fleet, refused)
                assert why.startswith("kvm1 libvirt: network other: ")

                later = await fleet.apply(NETWORK.format("web"))
                await fleet.confirmed(later)
                [trouble] = await fleet.operations.troubles(later)
                assert (trouble.host, trouble.what) == ("kvm1", "libvirt")

                # what is left on a host that goes is waited for still
                await fleet.delete("Network", "other")
                await fleet.confirmed(await fleet.delete("Network", "web"))
                await fleet.delete("Host", "kvm1")
                await until(lambda: not fleet.store.rows("Host"), "it is clean", 20)
                await vswitchd.stop()

    run(main(), 60)
