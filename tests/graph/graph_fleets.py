"""Fleets of which the topology is drawn and asked: rows, as the store would have them."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from controller.model.host import HostSpec
from controller.model.network import NetworkSpec
from controller.model.port import PortSpec, PortStatus, port_name
from controller.ovsdb.wanted import patch_pair, tunnel_port, uplink_bridge
from controller.pipeline.ports import TUNNEL_PORTS
from topology.graph.derive import GraphRows
from topology.graph.live import LiveTopology
from topology.graph.nodes import Links
from topology.graph.topology import Topology


@dataclass
class FleetRows:
    """Rows that a test changes as it likes."""

    hosts: dict[str, HostSpec] = field(default_factory=dict)
    leaving: dict[str, HostSpec] = field(default_factory=dict)
    networks: dict[str, NetworkSpec] = field(default_factory=dict)
    registered: dict[str, PortSpec] = field(default_factory=dict)
    statuses: dict[str, PortStatus] = field(default_factory=dict)
    numbers: dict[str, dict[str, int]] = field(default_factory=lambda: {"host": {}, "physical": {}})

    def rows(self) -> GraphRows:
        known = {**self.hosts, **self.leaving}
        physical = {name for spec in known.values() for name in spec.uplinks}
        physical |= {n.physical_network for n in self.networks.values() if n.physical_network is not None}
        for pool, names in (("host", known), ("physical", physical)):
            for name in sorted(names):
                self.numbers[pool].setdefault(name, len(self.numbers[pool]) + 1)
        return GraphRows(
            self.hosts, self.leaving, self.networks, self.registered, self.statuses,
            self.numbers["host"], self.numbers["physical"],
        )  # fmt: skip

    def topology(self, sequence: int = 1, links: dict[str, Links] | None = None) -> Topology:
        live = LiveTopology()
        live.update(self.rows())
        return live.snapshot(sequence, links or {})

    def host(self, name: str, number: int, *physical: str, **fields: Any) -> None:
        uplinks = {p: {"interface": f"ens{224 + n}"} for n, p in enumerate(physical)}
        about = {"ovsdb": f"tcp:192.0.2.{number}:6640", "tunnel_ip": f"192.0.2.{number}", "uplinks": uplinks} | fields
        self.hosts[name] = HostSpec(**about)

    def vnic(self, vm: str, number: int, host: str | None, network: str | None, **fields: Any) -> str:
        """A vNIC of the guest with that name, observed; returns the name of its row."""
        mac = f"52:54:00:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"
        about = {"vm_uuid": uuid_of(vm), "vm": vm, "mac": mac, "host": host, "tap": f"vnet{number}", "ofport": number,
                 "network": network, "portgroup": "default", "state": "active"} | fields  # fmt: skip
        name = port_name(about["vm_uuid"], mac)
        self.statuses[name] = PortStatus(**about)
        return name


def uuid_of(vm: str) -> str:
    return f"00000000-0000-4000-8000-{sum(ord(c) << 8 * (n % 5) for n, c in enumerate(vm)) & (1 << 48) - 1:012x}"


UP = ("up", "")


def links(fleet: FleetRows, **wrong: dict[str, tuple[str, str]]) -> dict[str, Links]:
    """Every connection up, but for what is wrong: host → part → (state, reason)."""
    found = {}
    for name, spec in {**fleet.hosts, **fleet.leaving}.items():
        parts = {"openflow": UP, "ovsdb": UP, "libvirt": UP} | wrong.get(name, {})
        found[name] = whole(fleet, spec, parts)
    return found


def whole(fleet: FleetRows, spec: HostSpec, parts: dict[str, tuple[str, str]]) -> Links:
    """A host that has everything that is wanted of it."""
    fleet.rows()
    numbers = [fleet.numbers["physical"][name] for name in spec.uplinks]
    names = [uplink.interface for uplink in spec.uplinks.values()]
    names += [port for number in numbers for port in patch_pair(number)]
    names += [tunnel_port(kind) for kind in TUNNEL_PORTS] if spec.tunnel_ip is not None else []
    bridges = {spec.bridge, *map(uplink_bridge, numbers)}
    return Links(parts, dict.fromkeys(names, "up"), {}, bridges, set(fleet.networks))


def two_hosts() -> FleetRows:
    """Two VLANs of a physical network, an overlay, and one host without an uplink."""
    fleet = FleetRows()
    fleet.host("kvm01", 1, "physnet1")
    fleet.host("kvm02", 2, "physnet1")
    fleet.host("kvm03", 3)
    fleet.networks["lan"] = NetworkSpec(
        mode="bridge", physical_network="physnet1",
        portgroups={"office": {"vlan": 10}, "guests": {"vlan": 20}, "router": {"trunk": [10, 20]},
                    "quiet": {"vlan": 30, "isolation": "isolated"}, "whole": {"isolation": "passthrough"}},
    )  # fmt: skip
    fleet.networks["backend"] = NetworkSpec(mode="isolated")
    fleet.networks["local"] = NetworkSpec(mode="isolated", span="host")
    fleet.vnic("web1", 1, "kvm01", "lan", portgroup="office", addresses=("10.0.10.11",))
    fleet.vnic("web1", 2, "kvm01", "backend")
    fleet.vnic("guest1", 3, "kvm01", "lan", portgroup="guests")
    fleet.vnic("web2", 4, "kvm02", "lan", portgroup="office")
    fleet.vnic("db1", 5, "kvm02", "backend")
    fleet.vnic("far1", 6, "kvm03", "backend")
    fleet.vnic("bad1", 7, "kvm02", "lan", state="quarantined", reason="no such portgroup", portgroup="gone")
    fleet.vnic("tap1", 8, "kvm02", None, state="unmanaged", reason="macvtap", ofport=None, portgroup=None)
    fleet.registered["web3-lan"] = PortSpec(vm="web3", mac="52:54:00:00:00:99", network="lan", portgroup="office")
    return fleet


def many(hosts: int, guests: int, networks: int = 6, seed: int = 1) -> FleetRows:
    """A fleet of a size, with a few things amiss."""
    dice = random.Random(seed)
    fleet = FleetRows()
    for number in range(1, hosts + 1):
        physical = ["physnet1", *(["storage"] if number % 3 == 0 else [])]
        fleet.host(f"kvm{number:02}", number, *physical, ovsdb=f"tcp:10.{number >> 8}.{number & 255}.1:6640",
                   tunnel_ip=f"10.{number >> 8}.{number & 255}.1")  # fmt: skip
    fleet.networks["lan"] = NetworkSpec(
        mode="bridge", physical_network="physnet1",
        portgroups={"office": {"vlan": 10}, "guests": {"vlan": 20}, "router": {"trunk": [10, 20]}},
    )  # fmt: skip
    fleet.networks["san"] = NetworkSpec(mode="bridge", physical_network="storage", vlan=50)
    for number in range(networks - 2):
        word = ("backend", "metrics", "build", "tenant-a", "tenant-b", "lab")[number % 6]
        fleet.networks[f"{word}{number // 6 + 1}" if number > 5 else word] = NetworkSpec(mode="isolated")
    overlays = [name for name in fleet.networks if name not in {"lan", "san"}]
    names = sorted(fleet.hosts)
    number = 0
    for index in range(guests):
        role = dice.choice(["web", "db", "cache", "mail", "ci", "build", "proxy", "desktop"])
        vm, host = f"{role}{index + 1}", names[index % len(names)] if index % 3 else dice.choice(names)
        wanted = [("lan", dice.choice(["office", "office", "guests", "router"]))]
        wanted += [(dice.choice(overlays), "default")] if overlays and dice.random() < 0.6 else []
        wanted += [("san", "default")] if "storage" in fleet.hosts[host].uplinks and dice.random() < 0.4 else []
        for network, portgroup in wanted:
            number += 1
            fate = dice.random()
            about: dict[str, Any] = {}
            if fate < 0.02:
                about = {"state": "quarantined", "reason": "OVSDB says lan, the guest's XML says backend"}
            elif fate < 0.03:
                about = {"state": "pending", "reason": "it has no OpenFlow port yet", "ofport": None}
            elif fate < 0.05:
                about = {"state": "down", "reason": "its link is set down"}
            fleet.vnic(vm, number, host, network, portgroup=portgroup, **about)
        if dice.random() < 0.02:
            number += 1
            fleet.vnic(vm, number, host, None, state="unmanaged", ofport=None, portgroup=None,
                       reason="macvtap: its frames never meet Open vSwitch")  # fmt: skip
    return fleet
