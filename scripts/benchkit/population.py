"""A large fleet in a controller's store: hosts of which only the switches may answer, networks, vNICs of before."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from labkit.run import LabError, run, wait_for

from .controller import Api, Controller
from .machines import Machine, Vnic
from .processes import cpu

NETWORKS = 20
_REST = 0.2  # seconds of CPU time in two of the clock, in which a controller counts as at rest
_BATCH = 150  # rows in a transaction: it is one argument, of 128 KiB at most
_PATIENCE = 180.0
_CONNECTING = 150.0  # seconds: each Network is made in the libvirt of every host


def hosts(count: int) -> list[dict[str, Any]]:
    """Hosts whose OVSDB refuses at once, and that have no libvirt."""
    return [
        {"kind": "Host", "name": f"kvm{n:03}", "ovsdb": f"unix:/nonexistent/fleetswitch-bench/{n}",
         "tunnel_ip": f"198.18.{n // 250}.{n % 250 + 1}", "uplinks": {"physnet1": {"interface": "ens224"}}}
        for n in range(count)
    ]  # fmt: skip


def networks() -> list[dict[str, Any]]:
    own = [{"kind": "Network", "name": f"net{n:02}", "mode": "isolated"} for n in range(NETWORKS)]
    groups = {f"vlan{n}": {"vlan": n} for n in range(1, NETWORKS + 1)}
    lan = {"kind": "Network", "name": "lan", "mode": "bridge", "physical_network": "physnet1", "portgroups": groups}
    return [*own, lan]


def datapaths(api: Api) -> list[int]:
    """The datapath id of each host."""
    return [int(host["status"]["datapath_id"], 16) for host in json.loads(api.ask("GET", "/hosts?limit=5000"))["items"]]


def _uuid(guest: int) -> str:
    return f"00000000-0000-4000-8000-{guest:012}"


def _mac(guest: int, nic: int) -> str:
    return f"52:54:00:{nic:02x}:{guest >> 8:02x}:{guest & 255:02x}"


def port_name(guest: int, nic: int) -> str:
    return f"{_uuid(guest)}.{_mac(guest, nic).replace(':', '')}"


def vnics(hosts: int, guests: int) -> list[dict[str, Any]]:
    """Rows of two vNICs of each guest, in tunnels and in a VLAN, as they were when its host went down."""
    found = []
    for guest in range(guests):
        number = guest % NETWORKS
        for nic, (network, group) in enumerate(((f"net{number:02}", "default"), ("lan", f"vlan{number + 1}"))):
            nth = 2 * (guest // hosts) + nic  # of its host
            status = {
                "vm_uuid": _uuid(guest), "vm": f"vm{guest:04}", "mac": _mac(guest, nic),
                "host": f"kvm{guest % hosts:03}", "tap": f"vnet{nth}", "ofport": nth + 1,
                "network": network, "portgroup": group, "mtu": 1450, "state": "active",
            }  # fmt: skip
            found.append({"name": port_name(guest, nic), "spec": "{}", "status": json.dumps(status)})
    return found


def tenants(hosts: int, guests: int, networks: int) -> dict[str, list[Vnic]]:
    """By host: its guests, each of which has one vNIC. A network has the guests of as many hosts as any other, and a
    host those of one network: every libvirt has every network, and so each of them costs as much as there are hosts."""
    found: dict[str, list[Vnic]] = {f"kvm{n:03}": [] for n in range(hosts)}
    for guest in range(guests):
        host = guest % hosts
        theirs = found[f"kvm{host:03}"]
        theirs.append(Vnic(f"vm{guest:05}", _uuid(guest), _mac(guest, 0), f"testnet{len(theirs)}", len(theirs) + 1,
                           f"t{host * networks // hosts:04}"))  # fmt: skip
    return found


def tenant_networks(count: int) -> list[dict[str, Any]]:
    return [
        {"kind": "Network", "name": f"t{n:04}", "mode": "isolated", "subnets": [f"10.{n >> 8}.{n & 255}.0/24"],
         "dhcp": {"range": [f"10.{n >> 8}.{n & 255}.100", f"10.{n >> 8}.{n & 255}.200"]}}
        for n in range(count)
    ]  # fmt: skip


def real_hosts(found: Sequence[Machine]) -> list[dict[str, Any]]:
    """Hosts whose OVSDB and libvirt are there."""
    return [
        {"kind": "Host", "name": machine.name, "ovsdb": f"unix:{machine.socket}", "libvirt": machine.libvirt,
         "tunnel_ip": f"198.18.{n // 250}.{n % 250 + 1}"}
        for n, machine in enumerate(found)
    ]  # fmt: skip


def fill(controller: Controller, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows of vNICs into the controller's store, as it would itself. Raises LabError when they are refused."""
    for first in range(0, len(rows), _BATCH):
        inserts = [{"op": "insert", "table": "Port", "row": row} for row in rows[first : first + _BATCH]]
        answer = run(
            ["ovsdb-client", "transact", f"unix:{controller.store}", json.dumps(["Fleetswitch", *inserts])]
        ).stdout
        if "error" in answer:
            raise LabError(f"the store refused rows: {answer[:500]}")


def connected(controller: Controller, count: int, parts: Sequence[str] = ("openflow", "ovsdb", "libvirt")) -> float:
    """Return when so many hosts stand with these parts; gives the seconds that the slowest answer took meanwhile."""
    slowest = 0.0

    def ready() -> bool:
        nonlocal slowest
        begun = time.monotonic()
        found = json.loads(controller.api.ask("GET", "/hosts?limit=5000"))["items"]
        slowest = max(slowest, time.monotonic() - begun)
        states = [[host["status"][part]["state"] for part in parts] for host in found]
        if states.count(["up"] * len(parts)) == count:
            return True
        time.sleep(0.3)  # asking costs as much as what is measured
        return False

    wait_for(f"{count} hosts connected", ready, _CONNECTING)
    return slowest


def confirmed(controller: Controller, sequence: int, what: str) -> None:
    """Return when that connection of every host has confirmed the change."""

    def ready() -> bool:
        missing = json.loads(controller.api.ask("GET", f"/wait?sequence={sequence}"))["unconfirmed"]
        return not any(each["what"] in {what, "ovsdb"} and each["host"] for each in missing)

    wait_for(f"change {sequence} confirmed by each {what}", ready, _CONNECTING, every=0.3)


def active(controller: Controller, count: int) -> None:
    """Return when the controller shows so many vNICs as active."""

    def ready() -> bool:
        return bool(json.loads(controller.api.ask("GET", "/ports?state=active&limit=1"))["total"] == count)

    wait_for(f"{count} active vNICs", ready, _PATIENCE, every=0.3)


def settle(controller: Controller, count: int) -> None:
    """Return when the controller shows so many vNICs as active, and computes next to nothing any more."""

    def ready() -> bool:
        total = json.loads(controller.api.ask("GET", "/ports?state=active&limit=1"))["total"]
        before = cpu([controller.process.pid])
        time.sleep(2.0)  # over which its CPU time is taken
        return total == count and cpu([controller.process.pid]) - before < _REST

    wait_for(f"{count} active vNICs in a controller at rest", ready, _PATIENCE)
