"""Floating addresses as rows: what they hold on to, and what is told of where they lead."""

from __future__ import annotations

from pathlib import Path

from coordinated import MAC1, NAME, WEB1, coordinated
from ovsdb_servers import raises, run

from controller.doctor import examine
from controller.errors import InvalidInput
from controller.store.rows import PutStatus
from topology.guests import Changes

FLEET = """\
kind: Host
name: kvm1
ovsdb: tcp:192.0.2.1:6640
libvirt: qemu+tcp://192.0.2.1/system
uplinks: {phys1: {interface: eth1}}
external: {uplink: phys1, address: 203.0.113.11/24, gateway: 203.0.113.1}
---
{kind: Host, name: kvm2, ovsdb: "tcp:192.0.2.2:6640", libvirt: "qemu+tcp://192.0.2.2/system"}
---
{kind: Network, name: web, mode: nat, subnets: [10.0.0.0/24]}
---
{kind: FloatingIP, name: front, network: web, address: 203.0.113.50, mac: "02:f1:00:00:00:50", target: {vm: web1}}
---
{kind: FloatingIP, name: second, network: web, address: 203.0.113.51, target: {address: 10.0.0.5}}
"""


def test_what_one_names_stays(tmp_path: Path) -> None:
    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            await fleet.apply(FLEET)
            for kind, name in (("Network", "web"), ("Host", "kvm1")):
                said = await raises(InvalidInput, fleet.delete(kind, name))
                assert f"{kind} {name}: is named by FloatingIPs: front, second (delete them as well)" in said
            await fleet.delete("Host", "kvm2")
            both = [("FloatingIP", "front"), ("FloatingIP", "second")]
            await fleet.operations.delete([*both, ("Network", "web")], None, False, False)
            assert not fleet.store.rows("FloatingIP")
            await fleet.delete("Host", "kvm1")

    run(main())


def test_its_status_says_where_it_leads(tmp_path: Path) -> None:
    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            await fleet.apply(FLEET)

            async def status(name: str) -> object:
                return (await fleet.operations.get("FloatingIP", name))["status"]

            assert await status("front") == {"reason": "its target is not there, or has no address"}
            seen = {"vm_uuid": WEB1, "vm": "web1", "mac": MAC1, "host": "kvm1", "ofport": 5, "network": "web",
                    "portgroup": "default", "addresses": ["10.0.0.5"], "state": "active"}  # fmt: skip
            fleet.coordinator.guests.evaluate = lambda *_: Changes()  # type: ignore[method-assign,assignment]
            await fleet.store.commit([PutStatus("Port", NAME, seen, create=True)])
            leads = {"target": "10.0.0.5", "host": "kvm1", "mac": "02:f1:00:00:00:50", "reason": ""}
            assert await status("front") == leads
            said = await status("second")
            assert isinstance(said, dict)
            assert said["reason"] == "10.0.0.5 has another floating address, whose name comes first"
            await fleet.store.commit([PutStatus("Port", NAME, {**seen, "host": "kvm2"})])
            reason = "Host kvm2, where its target is, has no external address in a subnet with 203.0.113.50"
            assert await status("front") == {**leads, "host": "kvm2", "reason": reason}
            told = [f"{each.place}: {each.what}" for each in await examine(fleet.coordinator, None)]
            assert f"FloatingIP front: nobody answers for 203.0.113.50: {reason}" in told

    run(main())
