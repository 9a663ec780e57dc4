"""What hosts tell of guests, in few words."""

from __future__ import annotations

from typing import Any

from controller.model.host import HostSpec, Uplink
from controller.model.network import NetworkSpec, PortGroup
from controller.model.port import PortSpec, PortStatus
from controller.ovsdb.host import VnicRow
from topology.domain_xml import DomainView, VnicView
from topology.guests import Changes, Guests, HostView
from topology.index import Wanted
from topology.judgement import Witness

WEB1 = "00000000-0000-4000-8000-000000000001"
WEB2 = "00000000-0000-4000-8000-000000000002"
MAC1, MAC2 = "52:54:00:00:00:01", "52:54:00:00:00:02"

NETWORKS = {
    "web": NetworkSpec(mode="isolated", portgroups={"db": PortGroup(vlan=20)}),
    "lan": NetworkSpec(
        mode="bridge", physical_network="phys1",
        portgroups={kind: PortGroup(isolation=kind) for kind in ("private", "vepa", "passthrough", "isolated")},
    ),
    "lab": NetworkSpec(mode="isolated", span="host"),
}  # fmt: skip


def host(number: int = 1, **fields: Any) -> HostSpec:
    usual = {"tunnel_ip": f"192.0.2.{number}", "uplinks": {"phys1": Uplink(interface="e0")}}
    return HostSpec(ovsdb=f"unix:/{number}", **{**usual, **fields})


def row(uuid: str | None = WEB1, mac: str | None = MAC1, interface: str = "vnet0", **fields: Any) -> VnicRow:
    usual = {"ofport": 5, "iface_id": "i1", "profile": "web:default", "error": None}
    return VnicRow(interface=interface, mac=mac, vm_uuid=uuid, **{**usual, **fields})


def vnic(mac: str = MAC1, tap: str | None = "vnet0", network: str | None = "web", **fields: Any) -> VnicView:
    usual: dict[str, Any] = {
        "type": "bridge", "portgroup": "default", "bridge": "br-int", "virtualport": "openvswitch", "iface_id": "i1",
        "profileid": None, "vlan_tags": (), "vlan_trunk": False, "native": None, "mtu": 1450, "link_up": True,
        "alias": "net0", "trust_guest_rx_filters": False, "unmanaged": "",
    }  # fmt: skip
    return VnicView(mac=mac, tap=tap, network=network, **{**usual, **fields})


def domain(*vnics: VnicView, uuid: str = WEB1, name: str = "web1") -> DomainView:
    return DomainView(uuid, name, True, vnics)


class Fleet:
    """Guests, and rows that are written as the store would."""

    def __init__(self, hosts: int = 2) -> None:
        self.hosts = {f"kvm{n}": host(n) for n in range(1, hosts + 1)}
        self.restart()
        self.networks = dict(NETWORKS)
        self.registered: dict[str, PortSpec] = {}
        self.known: dict[str, PortStatus] = {}
        self.leased: dict[tuple[str, str], tuple[str, ...]] = {}
        self.floating: list[str] = []
        self._wanted: object = None

    def register(self, name: str, vm: str, mac: str = MAC1, network: str = "web", **fields: Any) -> None:
        self.registered[name] = PortSpec(vm=vm, mac=mac, network=network, **fields)

    def tell(self, name: str, *rows: VnicRow, domains: tuple[DomainView, ...] | None = None, **fields: Any) -> Changes:
        """A host says what it has; ``domains`` None is a host without libvirt. Returns what was written then."""
        view = self.guests.hosts[name]
        view.alive = view.reached = True
        view.vnics = {each.interface: each for each in rows}
        view.witness = fields.get("witness", Witness.NONE if domains is None else Witness.PRESENT)
        view.domains = {each.uuid: each for each in domains or ()}
        return self.evaluate({name})

    def evaluate(self, stale: set[str] | None = None) -> Changes:
        wanted = Wanted(self.hosts, self.networks, self.registered, self.leased, self.floating)
        now = dict(self.hosts), dict(self.networks), dict(self.registered), list(self.floating)
        if now != self._wanted:
            self._wanted, stale = now, None  # as the observer does
        changes = self.guests.evaluate(wanted, self.known, stale)
        self.known.update(changes.statuses)
        for name in changes.gone:
            del self.known[name]
        return changes

    def restart(self) -> None:
        """The controller starts again; what the store has stays. Every host has a libvirt that was not heard yet."""
        self.guests = Guests()
        self.guests.hosts = {name: HostView(Witness.AWAY) for name in self.hosts}
