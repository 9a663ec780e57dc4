"""What a controller tells Prometheus of its hosts, vNICs, store and loop is what is so."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from coordinated import coordinated, hosts_thread, plug
from ovsdb_servers import idl_thread, run, until, vswitch
from plugs_in import PlugsIn

from controller.api.exposition import exposition
from controller.api.metrics import METRICS, REQUESTS
from controller.lateness import Lateness
from tests.api.prometheus_text import Family, read

FLEET = """\
{{kind: Host, name: kvm1, ovsdb: "{}", tunnel_ip: 192.0.2.1}}
---
{{kind: Host, name: kvm2, ovsdb: "unix:/nonexistent/kvm2", tunnel_ip: 192.0.2.2}}
---
{{kind: Network, name: web, mode: isolated}}
---
{{kind: BgpPeer, name: tor, address: 192.0.2.9, remote_as: 64512, local_as: 64513}}
"""


def test_a_fleet_is_told_in_numbers(tmp_path: Path) -> None:
    async def main() -> None:
        with vswitch(tmp_path / "kvm1") as server, hosts_thread() as connect, idl_thread() as thread:
            async with coordinated(tmp_path, connect) as fleet:

                async def measured() -> dict[str, Family]:
                    return read("".join(exposition(await fleet.operations.metrics())))

                vswitchd = PlugsIn(server, thread)
                await fleet.apply(FLEET.format(server.remote))
                switch = fleet.connect("kvm1")
                vnics, agent = fleet.coordinator.desired.statuses, fleet.coordinator.agents["kvm1"]
                await until(lambda: agent.ovsdb.state.state == "up", lambda: agent.ovsdb.state.reason)
                plug(server)
                await until(lambda: any(vnic.state == "active" for vnic in vnics.values()), "a guest runs")
                await until(lambda: agent.switch.state.confirmed == fleet.coordinator.sequence, "all is there")
                found = await measured()
                for host, state in ("kvm1", "up"), ("kvm2", "down"):
                    for each in ("up", "degraded", "down"):
                        labels = {"host": host, "connection": "openflow", "state": each}
                        assert found["fleetswitch_host_connection"].value(**labels) == (each == state)
                wanted = found["fleetswitch_host_flows_wanted"]
                assert wanted.value(host="kvm1") == len(switch.flows) > 10
                assert wanted.value(host="kvm2") > 10
                assert found["fleetswitch_host_flows_installed"].value(host="kvm1") == len(switch.flows)
                assert found["fleetswitch_host_flows_installed"].value(host="kvm2") == 0
                assert found["fleetswitch_vnics"].value(state="active") == 1
                assert found["fleetswitch_vnics"].value(state="quarantined") == 0
                assert found["fleetswitch_objects"].value(kind="Host") == 2
                assert found["fleetswitch_bgp_established"].value(peer="tor") == 0
                assert found["fleetswitch_store_up"].value() == 1
                assert found["fleetswitch_events_total"].value(kind="Host", event="created") == 2
                assert found["fleetswitch_changes_total"].value() == fleet.coordinator.sequence
                assert found.keys() >= {one.name for one in METRICS if one.name.startswith("fleetswitch")} - {
                    REQUESTS.name
                }

                refused = sorted(switch.flows)[0]
                switch.disconnect()
                switch.flows.discard(refused)
                switch.refuses = lambda flow: flow == refused
                switch.connect(agent.switch)
                await until(lambda: agent.switch.state.state == "degraded", "one flow is refused")
                found = await measured()
                labels = {"host": "kvm1", "connection": "openflow", "state": "degraded"}
                assert found["fleetswitch_host_connection"].value(**labels) == 1
                assert found["fleetswitch_host_flows_refused"].value(host="kvm1") == 1
                installed = found["fleetswitch_host_flows_installed"].value(host="kvm1")
                assert found["fleetswitch_host_flows_wanted"].value(host="kvm1") == installed + 1
                await fleet.delete("Host", "kvm2", force=True)
                await until(lambda: "kvm2" not in fleet.coordinator.agents, "the host is gone")
                assert {dict(labels)["host"] for found in [await measured()]
                        for _, labels in found["fleetswitch_host_flows_wanted"].samples} == {"kvm1"}  # fmt: skip
                await vswitchd.stop()

    run(main())


def test_a_loop_that_stood_still_is_seen_to_have_been_late() -> None:
    async def main() -> None:
        lateness = Lateness()
        looking = asyncio.create_task(lateness.run())
        await asyncio.sleep(0)
        time.sleep(0.9)  # noqa: ASYNC251  # longer than between two looks, by more than half a second
        await until(lambda: lateness.total > 0.5, "it was seen")
        looking.cancel()
        longer = lateness.at_most[float("inf")] - lateness.at_most[0.5]
        assert longer >= 1

    run(main())
