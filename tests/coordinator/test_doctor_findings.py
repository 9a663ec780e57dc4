"""What doctor finds in fleets that are wrong in one way each."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest
from coordinated import Fleet, coordinated, hosts_thread, plug
from ovsdb_servers import idl_thread, run, until, vswitch
from plugs_in import PlugsIn

from controller.api.operations import Finding
from controller.doctor import _about_ovs
from controller.errors import NotFound
from controller.services.askers import Vnic

HOST = "{{kind: Host, name: {}, ovsdb: '{}'{}}}"
WEB = "{kind: Network, name: web, mode: isolated}"


async def found(fleet: Fleet, host: str | None = None) -> dict[str, list[Finding]]:
    """By check, without what is only good to know."""
    findings: dict[str, list[Finding]] = {}
    for finding in await fleet.operations.doctor(host):
        if finding.severity != "info":
            findings.setdefault(finding.check, []).append(finding)
    return findings


def test_a_fleet_of_which_nothing_can_be_reached(tmp_path: Path) -> None:
    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            await fleet.apply(HOST.format("kvm1", "tcp:192.0.2.1:6640", ", tunnel_ip: 192.0.2.1, underlay_mtu: 9000"))
            await fleet.apply(HOST.format("kvm2", "tcp:192.0.2.2:6640", ", tunnel_ip: 192.0.2.2"))
            findings = await found(fleet)
            assert set(findings) == {"connection", "mtu"}
            assert sorted(each.place for each in findings["connection"]) == [
                "Host kvm1: openflow", "Host kvm1: ovsdb", "Host kvm2: openflow", "Host kvm2: ovsdb",
            ]  # fmt: skip
            assert all(each.remedy and each.host in {"kvm1", "kvm2"} for each in findings["connection"])
            assert "lets 1450 bytes through its tunnels, others 8950" in findings["mtu"][0].what
            assert {each.host for each in (await found(fleet, "kvm2"))["connection"]} == {"kvm2"}
            clocks = [each for each in await fleet.operations.doctor(None) if each.check == "clock"]
            assert "unknown" in clocks[0].what
            with pytest.raises(NotFound, match="did you mean kvm2"):
                await fleet.operations.doctor("kwm2")

    run(main())


def test_a_guest_that_asks_more_than_its_share(tmp_path: Path) -> None:
    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            for _ in range(3):
                fleet.coordinator.services.excess.note("DHCP", Vnic("kvm1", 5, "web1-0"))
            await fleet.apply(HOST.format("kvm1", "tcp:192.0.2.1:6640", ""))
            await fleet.apply(HOST.format("kvm2", "tcp:192.0.2.2:6640", ""))
            for host in (None, "kvm1"):
                (finding,) = (await found(fleet, host))["services"]
                assert (finding.place, finding.host) == ("Port web1-0", "kvm1")
                assert "asks DHCP more than its share: 3 of its requests" in finding.what
            assert "services" not in await found(fleet, "kvm2")

    run(main())


def test_a_host_that_is_right_and_then_is_not(tmp_path: Path) -> None:
    async def main() -> None:
        with vswitch(tmp_path / "kvm1") as server, hosts_thread() as connect, idl_thread() as thread:
            async with coordinated(tmp_path, connect) as fleet:
                vswitchd = PlugsIn(server, thread)
                applied = await fleet.apply(f"{HOST.format('kvm1', server.remote, '')}\n---\n{WEB}")
                switch = fleet.connect("kvm1")
                await fleet.confirmed(applied)
                assert await found(fleet) == {}

                def type_there(*words: str) -> None:
                    subprocess.run(["ovs-vsctl", "--no-wait", f"--db={server.remote}", *words], check=True)

                plug(server)
                await asyncio.to_thread(type_there, "set-fail-mode", "br-int", "standalone")
                await asyncio.to_thread(type_there, "add-port", "br-int", "stray0")
                agent = fleet.coordinator.agents["kvm1"]
                await until(lambda: agent.ovsdb.repairs, "it is put right")
                ids = ["vm-id=00000000-0000-4000-8000-000000000009", 'attached-mac="52:54:00:00:00:09"']
                lost = ['error="could not open network device lost0 (No such device)"', "ofport=-1"]
                words = [f"external_ids:{each}" for each in ids] + lost
                await asyncio.to_thread(
                    type_there, "add-port", "br-int", "lost0", "--", "set", "Interface", "lost0", *words
                )
                await until(lambda: "lost0" in fleet.coordinator.guests.hosts["kvm1"].vnics, "the row is seen")
                await until(lambda: "stray0" in fleet.coordinator.guests.hosts["kvm1"].vnics, "the stray is seen")
                switch.disconnect()
                await until(lambda: agent.switch.peer is None, "the switch is gone")
                applied = await fleet.apply(HOST.format("kvm2", "tcp:192.0.2.2:6640", ""))
                await until(lambda: fleet.coordinator.observer.judged >= applied, "the guest is judged")
                agent.switch.upkeep.down = frozenset({"vnet7"})
                findings = await found(fleet, "kvm1")
                assert set(findings) == {"connection", "drift", "port", "rows", "strays", "tunnel", "vnic"}
                assert "vnet7" in findings["port"][0].what
                assert "ip link set vnet7 up" in findings["port"][0].remedy
                assert "lost0" in findings["rows"][0].what
                assert "del-port br-int lost0" in findings["rows"][0].remedy
                assert [each.place for each in findings["connection"]] == ["Host kvm1: openflow"]
                assert "stray0" in findings["strays"][0].what
                assert "del-port br-int stray0" in findings["strays"][0].remedy
                await vswitchd.stop()

    run(main())


def test_tunnels_and_wires_that_join_nobody(tmp_path: Path) -> None:
    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            for name, address in (("kvm1", "192.0.2.1"), ("kvm2", "192.0.2.2"), ("kvm3", "2001:db8::3")):
                await fleet.apply(HOST.format(name, f"unix:/{name}", f", tunnel_ip: '{address}', underlay_mtu: 9000"))
            await fleet.apply("{kind: Network, name: lan, mode: bridge, physical_network: phys9}")
            findings = await found(fleet)
            assert [each.place for each in findings["tunnel"]] == ["Host kvm3"]
            assert "has a tunnel address of IPv6, others of IPv4" in findings["tunnel"][0].what
            assert [(each.place, each.what) for each in findings["network"]] == [
                ("Network lan", "no host has an uplink to phys9")
            ]

    run(main())


def test_a_row_that_makes_no_sense_is_found(tmp_path: Path) -> None:
    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            await fleet.apply(WEB)
            row = {"name": "bad", "spec": '{"mode": "no such"}', "status": "{}", "generation": 1, "deleting": False}
            await fleet.store.execute([{"op": "insert", "table": "Network", "row": row}], 5)
            await until(lambda: "bad" in fleet.store.rows("Network"), "the row is seen")
            [finding] = (await found(fleet))["store"]
            assert finding.place == "Network bad"

    run(main())


@pytest.mark.parametrize(
    ("version", "told"),
    [("2.13.1", 2), ("2.17.5", 2), ("2.17.6", 1), ("3.1.0", 1), ("3.1.1", 0), ("3.3.0", 0), ("what?", 0)],
)
def test_versions_that_are_known_to_be_bad(version: str, told: int) -> None:
    assert len(list(_about_ovs(version))) == told


def test_an_uplink_that_lets_less_through_than_its_networks_carry(tmp_path: Path) -> None:
    async def main() -> None:
        with vswitch(tmp_path / "kvm1") as server, hosts_thread() as connect, idl_thread() as thread:
            async with coordinated(tmp_path, connect) as fleet:
                vswitchd = PlugsIn(server, thread)
                outside = "{uplink: phys1, vlan: 9, address: 203.0.113.11/24, gateway: 203.0.113.1}"
                uplink = f", uplinks: {{phys1: {{interface: ens1}}}}, external: {outside}"
                lan = "{kind: Network, name: lan, mode: bridge, physical_network: phys1}"
                applied = await fleet.apply(f"{HOST.format('kvm1', server.remote, uplink)}\n---\n{lan}")
                fleet.connect("kvm1")
                await fleet.confirmed(applied)
                assert "mtu" not in await found(fleet), "nobody knows its MTU"
                ovsdb = fleet.coordinator.agents["kvm1"].ovsdb
                for mtu, wrong in ((1500, False), (1400, True), (9000, False)):
                    command = [
                        "ovs-vsctl",
                        "--no-wait",
                        f"--db={server.remote}",
                        "set",
                        "interface",
                        "ens1",
                        f"mtu={mtu}",
                    ]
                    await asyncio.to_thread(subprocess.run, command, check=True)
                    await until(lambda mtu=mtu: ovsdb.own().mtus.get("ens1") == mtu, "it is seen")
                    assert ("mtu" in await found(fleet)) == wrong
                    if wrong:
                        finding, other = (await found(fleet))["mtu"]
                        assert (finding.place, finding.host) == ("Host kvm1: ens1", "kvm1")
                        assert finding.what == "has an MTU of 1400, and guests of lan may send 1500"
                        assert (other.place, other.host) == ("Host kvm1: external.mtu", "kvm1")
                        assert other.what == "is 1500, and ens1 has 1400: larger packets of guests vanish there"
                await vswitchd.stop()

    run(main())
