"""Claims in a running coordinator: the first one has the address, fleet-wide, and a flood of them has no effect."""

from __future__ import annotations

import struct
import time
from ipaddress import IPv4Address
from pathlib import Path

from coordinated import Fleet, coordinated
from ovsdb_servers import run, until
from played_switch import PlayedSwitch

from controller import claims
from controller.desired import LEASES
from controller.model.lease import Lease
from controller.openflow.decode import PacketIn
from controller.ovsdb.host import HookRow, VnicRow
from controller.store.rows import Put

OURS = 0xF5 << 56
FLEET = """\
{kind: Host, name: kvm1, ovsdb: 'unix:/1', tunnel_ip: 192.0.2.1}
---
{kind: Host, name: kvm2, ovsdb: 'unix:/2', tunnel_ip: 192.0.2.2}
---
kind: Network
name: web
mode: isolated
reserved_addresses: [10.0.0.254]
portgroups: {default: {learn_addresses: 1}, plain: {}}
---
{kind: Port, name: reg, vm: away, mac: '52:54:00:00:00:99', network: web, portgroup: plain, addresses: [10.0.0.99]}
"""
MACS = {"kvm1": "52:54:00:00:00:01", "kvm2": "52:54:00:00:00:02"}


def announces(mac: str, address: str, ofport: int = 5) -> PacketIn:
    own, ip = bytes.fromhex(mac.replace(":", "")), IPv4Address(address).packed
    frame = b"\xff" * 6 + own + bytes.fromhex("08060001080006040001") + own + ip + bytes(6) + ip
    return PacketIn(250, 1, OURS, len(frame), struct.pack("!HBBI", 0x8000, 0, 4, ofport), frame)


async def started(fleet: Fleet) -> dict[str, PlayedSwitch]:
    await fleet.apply(FLEET)
    switches = {name: fleet.connect(name) for name in MACS}
    for name in MACS:
        await until(lambda name=name: fleet.coordinator.agents[name].switch.state.state == "up", "they are driven")
    for number, (name, mac) in enumerate(MACS.items(), start=1):
        uuid = f"00000000-0000-4000-8000-{number:012}"
        row = VnicRow("vnet0", 5, mac, f"i{number}", uuid, "web:default", None)
        fleet.coordinator.observer.vnics(name, {"vnet0": row}, HookRow())
    await until(lambda: all(status(fleet, mac).get("state") == "active" for mac in MACS.values()), "they are switched")
    await until(lambda: all(fleet.coordinator.engine.fabric.port_at(name, 5) for name in MACS), "they have flows")
    return switches


def status(fleet: Fleet, mac: str) -> dict[str, object]:
    return next((dict(row.status) for row in fleet.store.rows("Port").values() if row.status.get("mac") == mac), {})


def hear(switch: PlayedSwitch, *packets: PacketIn) -> None:
    for each in packets:
        switch.handlers.packet_in(switch.connection, each)


def test_the_first_to_claim_an_address_has_it_and_nobody_gets_what_is_anothers(tmp_path: Path) -> None:
    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            switches = await started(fleet)
            one, other = MACS["kvm1"], MACS["kvm2"]
            hear(switches["kvm1"], announces(one, "10.0.0.254"), announces(one, "10.0.0.99"))  # reserved, registered
            behind = Lease(network="web", ip="10.0.0.77", mac="52:54:00:00:00:77", expires=int(time.time() + 3600))
            await fleet.store.commit([Put(LEASES, behind.row, behind.model_dump(mode="json"))])
            hear(switches["kvm1"], announces(one, "10.0.0.77"))  # leased to one who is behind another
            hear(switches["kvm1"], announces(other, "10.0.0.1"), announces(one, "10.0.0.1", ofport=6))  # not its own
            hear(switches["kvm1"], announces(one, "10.0.0.1"))
            hear(switches["kvm2"], announces(other, "10.0.0.1"), announces(other, "10.0.0.2"))
            hear(switches["kvm1"], announces(one, "10.0.0.3"))  # it has one
            await until(lambda: status(fleet, other).get("learned") == ["10.0.0.2"], "the second one has its own")
            assert status(fleet, one)["learned"] == status(fleet, one)["addresses"] == ["10.0.0.1"]
            hear(switches["kvm2"], announces(other, "10.0.0.1"))
            hear(switches["kvm1"], announces(one, "10.0.0.3"))
            await until(lambda: not fleet.coordinator.guests.claimed, "nothing is under way")
            assert [status(fleet, mac)["learned"] for mac in (one, other)] == [["10.0.0.1"], ["10.0.0.2"]]

    run(main())


def test_a_flood_of_claims_is_not_looked_at(tmp_path: Path) -> None:
    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            switches = await started(fleet)
            looked: list[bytes] = []
            real, claims.read_claim = claims.read_claim, lambda frame: looked.append(frame)  # type: ignore[assignment]
            try:
                fleet.coordinator.claims._clock = lambda: 7.0
                hear(switches["kvm1"], *[announces(MACS["kvm1"], "10.0.0.254")] * 5000)
                assert len(looked) == claims.MOST_FRAMES
                fleet.coordinator.claims._clock = lambda: 8.0
                hear(switches["kvm1"], announces(MACS["kvm1"], "10.0.0.254"))
                assert len(looked) == claims.MOST_FRAMES + 1
            finally:
                claims.read_claim = real

    run(main())
