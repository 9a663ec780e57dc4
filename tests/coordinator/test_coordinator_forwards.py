"""Port forwards as rows: what they hold on to, and what is told of where they lead."""

from __future__ import annotations

from pathlib import Path

from coordinated import MAC1, NAME, WEB1, coordinated
from ovsdb_servers import raises, run

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
{kind: Network, name: web, mode: nat, subnets: [10.0.0.0/24]}
---
kind: PortForward
name: front
network: web
listen: {port: 8080, address: 203.0.113.11}
target: {vm: web1, port: 80}
"""


def test_what_a_forward_names_stays(tmp_path: Path) -> None:
    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            await fleet.apply(FLEET)
            for kind, name in (("Network", "web"), ("Host", "kvm1")):
                said = await raises(InvalidInput, fleet.delete(kind, name))
                assert f"{kind} {name}: is named by PortForwards: front (delete them as well)" in said
            said = await raises(InvalidInput, fleet.apply("{kind: Host, name: kvm1, ovsdb: 'tcp:192.0.2.1:6640'}"))
            assert "PortForward front: listen.address: 203.0.113.11 is no host's external address" in said
            await fleet.operations.delete([("PortForward", "front"), ("Network", "web")], None, False, False)
            assert not fleet.store.rows("PortForward")
            await fleet.delete("Host", "kvm1")

    run(main())


def test_its_status_says_where_it_leads(tmp_path: Path) -> None:
    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            await fleet.apply(FLEET)
            status = (await fleet.operations.get("PortForward", "front"))["status"]
            assert status == {"reason": "its target is not there, or has no address"}
            seen = {"vm_uuid": WEB1, "vm": "web1", "mac": MAC1, "host": "kvm1", "ofport": 5, "network": "web",
                    "portgroup": "default", "addresses": ["10.0.0.5"], "state": "active"}  # fmt: skip
            fleet.coordinator.guests.evaluate = lambda *_: Changes()  # type: ignore[method-assign,assignment]
            await fleet.store.commit([PutStatus("Port", NAME, seen, create=True)])
            status = (await fleet.operations.get("PortForward", "front"))["status"]
            assert status == {"addresses": ["203.0.113.11"], "target": "10.0.0.5", "host": "kvm1", "reason": ""}
            subnets = "{kind: Network, name: web, mode: nat, subnets: [10.0.0.0/24, 'fd00::/64']}"
            six = "{kind: PortForward, name: six, network: web, listen: {port: 80, family: ipv6}, target: {vm: web1}}"
            await fleet.apply(f"{subnets}\n---\n{six}")
            await fleet.store.commit([PutStatus("Port", NAME, {**seen, "addresses": ["10.0.0.5", "fd00::5"]})])
            leads = {"addresses": [], "target": "fd00::5", "host": "kvm1",
                     "reason": "no host with an IPv6 address outside reaches its target"}  # fmt: skip
            assert (await fleet.operations.get("PortForward", "six"))["status"] == leads
            ways = "address: 203.0.113.11/24, gateway: 203.0.113.1", "address6: '2001:db8::11/64', gateway6: 'fe80::1'"
            await fleet.apply(FLEET.partition("---")[0].replace(ways[0], ", ".join(ways)))
            status = (await fleet.operations.get("PortForward", "six"))["status"]
            assert status == {**leads, "addresses": ["2001:db8::11"], "reason": ""}

    run(main())
