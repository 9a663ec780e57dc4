"""LLDP in a running coordinator: what is heard is shown for as long as it holds, and no flood of it has an effect."""

from __future__ import annotations

import asyncio
import struct
import subprocess
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from coordinated import Fleet, coordinated, hosts_thread
from ovsdb_servers import idl_thread, run, until, vswitch
from played_switch import PlayedSwitch
from plugs_in import PlugsIn

from controller import lldp
from controller.openflow.decode import PacketIn
from controller.pipeline.ports import uplink_port
from topology.graph.nodes import DeviceNode
from topology.lldp import Announcement, decode, encode

HOSTS = """\
{kind: Host, name: kvm1, ovsdb: 'unix:/1', uplinks: {phys1: {interface: ens1}, phys2: {interface: ens2}}}
---
{kind: Host, name: kvm2, ovsdb: 'unix:/2', uplinks: {phys1: {interface: ens1}}}
"""
OURS, LEARNED = 0xF5 << 56, 0xF6 << 56
SOURCE = bytes.fromhex("020000000001")


def packet(said: Announcement | bytes, uplink: int = 1, cookie: int = OURS) -> PacketIn:
    data = said if isinstance(said, bytes) else encode(SOURCE, said)
    in_port = struct.pack("!HBBI", 0x8000, 0, 4, uplink_port(uplink))
    return PacketIn(0, 1, cookie, len(data), in_port, data)


def hear(switch: PlayedSwitch, *packets: PacketIn) -> None:
    for each in packets:
        switch.handlers.packet_in(switch.connection, each)


async def started(fleet: Fleet) -> dict[str, PlayedSwitch]:
    await fleet.apply(HOSTS)
    switches = {name: fleet.connect(name) for name in ("kvm1", "kvm2")}
    await until(lambda: said_by(switches["kvm1"]).keys() == {"phys1", "phys2"}, "both uplinks have spoken")
    await until(lambda: said_by(switches["kvm2"]).keys() == {"phys1"}, "the other one too")
    return switches


def said_by(switch: PlayedSwitch) -> dict[str, Announcement]:
    """What was sent out of each physical network's uplink."""
    found = {}
    for message in switch.sent:
        if message[1] == 13:  # packet-out (OpenFlow 1.5.1, 7.3.6)
            [port] = struct.unpack_from("!I", message, message.index(b"\0\0\0\x10", 24) + 4)
            frame = message[message.index(bytes.fromhex("0180c200000e")) :]
            found[f"phys{port - uplink_port(1) + 1}"] = decode(frame, len(frame))
    return found


async def shown(fleet: Fleet, host: str = "kvm1") -> list[tuple[Any, ...]]:
    hears = (await fleet.operations.get("Host", host))["status"]["hears"]
    return [(each["uplink"], each["system_name"], each["port"], each["host"]) for each in hears]


def test_hosts_say_who_they_are_and_know_each_other(tmp_path: Path) -> None:
    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            switches = await started(fleet)
            said = said_by(switches["kvm1"])
            assert {(each.port, each.port_description) for each in said.values()} == {
                ("ens1", "uplink to phys1"), ("ens2", "uplink to phys2")}  # fmt: skip
            assert {(each.system_name, each.ttl) for each in said.values()} == {("kvm1", 121)}
            assert {each.chassis.partition("/")[2] for each in said.values()} == {"kvm1"}

            hear(switches["kvm2"], packet(said["phys1"]))
            assert await shown(fleet, "kvm2") == [("phys1", "kvm1", "ens1", "kvm1")]
            topology = await fleet.operations.topology()
            assert topology.near("uplink:kvm2/phys1")["uplink:kvm1/phys1"].relation == "hears"

            # What a wire gives back to its sender says nothing, and neither does a name of another fleet's.
            hear(switches["kvm1"], packet(said["phys1"]))
            stranger = Announcement("another/kvm2", "ens1", 121, system_name="kvm2")
            hear(switches["kvm1"], packet(stranger))
            assert await shown(fleet) == [("phys1", "kvm2", "ens1", None)]

            await fleet.delete("Host", "kvm1", force=True)
            assert await shown(fleet, "kvm2") == []
            topology = await fleet.operations.topology()
            assert topology.near("uplink:kvm2/phys1").keys() == {"bridge:kvm2/fs-up1", "physical:phys1"}

    run(main())


def test_a_host_that_shall_be_silent_listens(tmp_path: Path) -> None:
    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            await fleet.apply(HOSTS.replace("name: kvm2,", "name: kvm2, lldp: false,"))
            switches = {name: fleet.connect(name) for name in ("kvm1", "kvm2")}
            await until(lambda: said_by(switches["kvm1"]), "the other one speaks")
            await until(lambda: fleet.coordinator.agents["kvm2"].switch.state.state == "up", "this one is driven")
            said = len(switches["kvm1"].sent)
            for switch in switches.values():
                hear(switch, packet(Announcement("core", "Gi1", 600)))
            await until(lambda: len(switches["kvm1"].sent) > said, "the other one answers who is new on its wire")
            assert said_by(switches["kvm2"]) == {}
            assert await shown(fleet, "kvm2") == [("phys1", "", "Gi1", None)]
            await fleet.apply(HOSTS)
            await until(lambda: said_by(switches["kvm2"]), "it speaks as soon as it may")

    run(main())


def test_a_device_is_there_until_its_time_is_over_or_it_takes_it_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            switch = (await started(fleet))["kvm1"]
            core = Announcement("00:1b:21:00:00:01", "Gi1", 600, "to kvm1", "core", "a switch", 20)
            short = Announcement("edge", "Gi2", 3, system_name="edge")
            hear(switch, packet(core), packet(core, uplink=2), packet(short, uplink=2))
            assert await shown(fleet) == [
                ("phys1", "core", "Gi1", None), ("phys2", "core", "Gi1", None), ("phys2", "edge", "Gi2", None),
            ]  # fmt: skip
            topology = await fleet.operations.topology()
            [name] = [n for n, each in topology.nodes.items() if isinstance(each, DeviceNode) and each.name == "core"]
            edge = topology.near(name)["uplink:kvm1/phys2"]
            assert (edge.port, edge.port_description, edge.ttl) == ("Gi1", "to kvm1", 600)

            heard = fleet.coordinator.lldp.heard
            await until(lambda: "edge" not in {each.chassis for each in heard("kvm1")["phys2"]}, "edge is forgotten")
            hear(switch, packet(Announcement(core.chassis, "Gi1", 0)))
            assert await shown(fleet) == [("phys2", "core", "Gi1", None)]

    run(main())


def test_nothing_that_is_not_understood_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            switch = (await started(fleet))["kvm2"]
            caplog.clear()
            core = Announcement("core", "Gi1", 600)
            frame = encode(SOURCE, core)
            for odd in (b"", b"\x80", b"\x80\0\0\x09\0", b"\xff" * 8):  # where it came in, in bytes that are no field
                hear(switch, packet(core)._replace(oxms=odd))
            hear(
                switch, packet(b""), packet(frame[:20]), packet(frame[:13]), packet(core, uplink=2),
                packet(core, uplink=300), packet(core, cookie=LEARNED), packet(core, cookie=0),
            )  # fmt: skip
            assert await shown(fleet, "kvm2") == []
            assert not caplog.records, "nothing of it is worth a word"
            hear(switch, packet(core))
            assert await shown(fleet, "kvm2") == [("phys1", "", "Gi1", None)]

    run(main())


def test_a_flood_is_bounded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            switches = await started(fleet)
            flood = [packet(Announcement(f"liar{n}", "p", 600)) for n in range(lldp.MOST_FRAMES * 4)]
            hear(switches["kvm1"], *flood)
            assert len(await shown(fleet)) == lldp.MOST_NEIGHBOURS
            assert sum("LLDP frames in a second" in line for line in caplog.messages) == 1
            said = len(switches["kvm1"].sent)
            for switch in switches.values():
                hear(switch, packet(Announcement("core", "Gi1", 600)))
            await until(lambda: len(switches["kvm1"].sent) > said, "the other one answers who is new on its wire")
            assert await shown(fleet, "kvm2") == [("phys1", "", "Gi1", None)], "another host is heard all the same"
            assert fleet.status("any") == {}
            generation = (await fleet.operations.get("Host", "kvm1"))["generation"]
            hear(switches["kvm1"], *flood)
            assert (await fleet.operations.get("Host", "kvm1"))["generation"] == generation, "no row was written"

    run(main())


def test_no_uplink_is_opened_before_the_switch_drops_what_is_reserved(tmp_path: Path) -> None:
    async def main() -> None:
        with vswitch(tmp_path / "kvm1") as server, hosts_thread() as connect, idl_thread() as thread:
            async with coordinated(tmp_path, connect) as fleet:
                vswitchd = PlugsIn(server, thread)
                host = f"{{kind: Host, name: kvm1, ovsdb: '{server.remote}', uplinks: {{phys1: {{interface: ens1}}}}}}"
                sequence = await fleet.apply(host)
                parts = fleet.coordinator.agents["kvm1"].parts
                await until(lambda: parts()["ovsdb"].confirmed >= sequence, "the bridges are there")

                def opened() -> bool:
                    command = [
                        "ovs-vsctl",
                        "--no-wait",
                        f"--db={server.remote}",
                        "get",
                        "bridge",
                        "fs-up1",
                        "other_config",
                    ]
                    return "forward-bpdu" in subprocess.run(command, check=True, capture_output=True, text=True).stdout

                assert not opened()
                switch = PlayedSwitch()
                switch.answering.clear()
                switch.connect(fleet.coordinator.agents["kvm1"].switch)
                await asyncio.sleep(0)
                assert not opened()
                assert not switch.flows
                switch.answering.set()
                await until(opened, "it has its flows: LLDP may come in")
                await fleet.confirmed(sequence)
                # Whatever the switch is like later: what is open stays so, and is no drift.
                switch.disconnect()
                await fleet.apply("{kind: Network, name: lan, mode: isolated}")
                await until(lambda: parts()["ovsdb"].confirmed > sequence, "the change has come")
                assert opened()
                await vswitchd.stop()

    run(main())


def test_hosts_that_connect_together_do_not_speak_together_for_ever() -> None:
    said: list[float] = []
    names = [f"kvm{number}" for number in range(300)]
    spec = SimpleNamespace(lldp=True, uplinks={"phys1": SimpleNamespace(interface="ens1")})
    desired = SimpleNamespace(hosts=dict.fromkeys(names, spec), numbers=lambda pool: {"phys1": 1})
    up = SimpleNamespace(state=SimpleNamespace(state="up"), send=lambda frame: said.append(now) or True)
    ovsdb = SimpleNamespace(state=SimpleNamespace(ovs_version="3.1.0"), links=dict)
    agents = dict.fromkeys(names, SimpleNamespace(switch=up, ovsdb=ovsdb))
    speaker = lldp.Lldp(cast(Any, desired), cast(Any, agents))
    for now in range(1000, 1121):
        speaker._tick(float(now))
    seconds = Counter(said)
    assert seconds.pop(1000) == len(names), "each speaks as soon as it can"
    for begin in (1001, 1031, 1061, 1091):
        assert sum(seconds[moment] for moment in range(begin, begin + 30)) == len(names), "and twice a minute then"
    assert max(seconds.values()) < 4 * len(names) / 30


def test_nothing_is_made_for_hosts_that_are_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            await fleet.apply(HOSTS)
            made: list[Announcement] = []
            monkeypatch.setattr(lldp, "encode", lambda mac, said: made.append(said) or encode(mac, said))
            fleet.coordinator.lldp._tick(asyncio.get_running_loop().time())
            assert made == []
            fleet.connect("kvm1")
            await until(lambda: len(made) == 2, "both uplinks of the one that came have spoken")
            assert {said.system_name for said in made} == {"kvm1"}

    run(main())
