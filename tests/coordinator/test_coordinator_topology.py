"""The topology of a running coordinator: made when it is asked for, current ever after."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from coordinated import NAME, WEB1, coordinated, hosts_thread, plug, unplug
from ovsdb_servers import Server, idl_thread, run, until, vswitch
from plugs_in import PlugsIn

from controller.store.rows import Change
from controller.topology_view import MOST_CHANGED
from topology.graph import live
from topology.graph.live import LiveTopology
from topology.graph.nodes import BridgeNode, HostNode, TunnelNode, UplinkNode, VnicNode
from topology.graph.topology import Topology

FLEET = """\
{{kind: Network, name: web, mode: isolated}}
---
{{kind: Host, name: kvm1, ovsdb: '{}', tunnel_ip: 192.0.2.1, uplinks: {{phys1: {{interface: ens1}}}}}}
"""


def test_it_follows_the_rows_and_the_connections(tmp_path: Path) -> None:
    async def main() -> None:
        with vswitch(tmp_path / "kvm1") as server, hosts_thread() as connect, idl_thread() as thread:
            async with coordinated(tmp_path, connect) as fleet:
                topology = fleet.operations.topology
                assert (await topology()).nodes == {}
                vswitchd = PlugsIn(server, thread)
                applied = await fleet.apply(FLEET.format(server.remote))
                switch = fleet.connect("kvm1")
                await fleet.confirmed(applied)

                now = await topology()
                assert now.sequence == fleet.coordinator.sequence
                host, uplink = now.nodes["host:kvm1"], now.nodes["uplink:kvm1/phys1"]
                assert isinstance(host, HostNode)
                assert isinstance(uplink, UplinkNode)
                assert (host.state, host.openflow, host.ovsdb, host.libvirt) == ("up", "up", "up", None)
                assert uplink.state == "down"  # nobody has set its link up
                assert standing(now) == {"kvm1/br-int": "up", "kvm1/fs-up1": "up", "kvm1/geneve": "up"}
                assert (await topology()) is now, "nothing is made anew while nothing changes"

                plug(server)
                await until(lambda: fleet.status(NAME).get("state") == "active", lambda: str(fleet.status(NAME)))
                now = await topology()
                vnic = now.nodes[f"vnic:{NAME}"]
                assert isinstance(vnic, VnicNode)
                assert (vnic.state, vnic.host, vnic.network) == ("active", "kvm1", "web")
                assert now.near(f"vnic:{NAME}").keys() == {"bridge:kvm1/br-int", "network:web", f"guest:{WEB1}"}

                whole = LiveTopology()
                whole.update(fleet.operations._topology._rows())
                made = whole.snapshot(now.sequence, fleet.operations._topology._links())
                assert (now.nodes, now.edges) == (made.nodes, made.edges)

                switch.disconnect()
                host = (await topology()).nodes["host:kvm1"]
                assert isinstance(host, HostNode)
                assert (host.state, host.openflow) == ("degraded", "down")
                unplug(server)
                await until(lambda: not fleet.status(NAME), "the row is gone")
                assert f"vnic:{NAME}" not in (await topology()).nodes
                await vswitchd.stop()

    run(main())


def vsctl(server: Server, *what: str) -> None:
    subprocess.run(["ovs-vsctl", "--no-wait", "--timeout=10", f"--db={server.remote}", *what], check=True)


def standing(topology: Topology) -> dict[str, str]:
    return {n.label: n.state for n in topology.nodes.values() if isinstance(n, (BridgeNode, TunnelNode))}


def test_what_a_host_does_not_have_stands_there_as_missing(tmp_path: Path) -> None:
    async def main() -> None:
        with vswitch(tmp_path / "kvm1") as server, hosts_thread() as connect:
            vsctl(server, "add-br", "br-int")  # somebody else's
            async with coordinated(tmp_path, connect) as fleet:
                await fleet.apply(FLEET.format(server.remote))
                ovsdb = fleet.coordinator.agents["kvm1"].ovsdb
                assert set(standing(await fleet.operations.topology()).values()) <= {"unknown", "missing"}
                await until(lambda: "is not fleetswitch's" in ovsdb.state.reason, lambda: str(ovsdb.state))
                assert set(standing(await fleet.operations.topology()).values()) == {"missing"}
                vsctl(server, "del-br", "br-int")
                await until(lambda: (own := ovsdb.own()) is not None and "br-int" in own.bridges, "it is made")
                # There is no ovs-vswitchd here that would plug anything in.
                assert standing(await fleet.operations.topology()) == {
                    "kvm1/br-int": "up", "kvm1/fs-up1": "degraded", "kvm1/geneve": "unknown"}  # fmt: skip

    run(main())


def test_what_changes_while_nobody_asks_takes_no_room(tmp_path: Path) -> None:
    """Guests without a name of their own come and go for years; somebody asked for the topology once."""

    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            await fleet.operations.topology()
            view = fleet.operations._topology
            for number in range(3 * MOST_CHANGED):
                view._note([Change("Port", f"p{number}", None, None)])
            assert len(view._changed) <= MOST_CHANGED
            await fleet.apply("{kind: Network, name: web, mode: isolated}")
            assert "network:web" in (await fleet.operations.topology()).nodes
            await fleet.apply("{kind: Network, name: db, mode: isolated}")
            assert "network:db" in (await fleet.operations.topology()).nodes

    run(main())


def test_a_fault_is_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was half made is made anew when it is asked for again."""

    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            for network in ("web", "db"):
                with monkeypatch.context() as faulty:
                    faulty.setattr(live, "network_part", lambda *_: 1 // 0)
                    await fleet.apply(f"{{kind: Network, name: {network}, mode: isolated}}")
                    with pytest.raises(ZeroDivisionError):
                        await fleet.operations.topology()
                assert f"network:{network}" in (await fleet.operations.topology()).nodes
            await fleet.apply("{kind: Network, name: more, mode: isolated}")
            assert "network:more" in (await fleet.operations.topology()).nodes

    run(main())
