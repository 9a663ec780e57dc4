"""A small fleet for the page about the topology: that of scripts/quickstart with a host more and a few things amiss."""

from __future__ import annotations

from controller.model.host import HostSpec, Uplink
from controller.model.network import NetworkSpec, PortGroup
from controller.model.port import PortSpec, PortStatus
from controller.ovsdb.wanted import patch_pair, tunnel_port, uplink_bridge
from controller.pipeline.ports import TUNNEL_PORTS
from topology.graph.derive import GraphRows
from topology.graph.live import LiveTopology
from topology.graph.nodes import Heard, Links
from topology.graph.topology import Topology

_NETWORKS = {
    "backend": NetworkSpec(mode="isolated"),
    "lan": NetworkSpec(
        mode="bridge", physical_network="physnet1",
        portgroups={"office": PortGroup(vlan=10), "guests": PortGroup(vlan=20), "router": PortGroup(trunk=(10, 20))},
    ),
}  # fmt: skip

_BRIDGES = ("br-int", uplink_bridge(1))
_INTERFACES = dict.fromkeys(("ens224", *patch_pair(1), *map(tunnel_port, TUNNEL_PORTS)), "up")

# guest, host, network, portgroup, and what is amiss: state and reason
_VNICS = (
    ("web1", 1, "lan", "office", ()),
    ("web1", 1, "backend", "default", ()),
    ("guest1", 1, "lan", "guests", ()),
    ("router", 1, "lan", "router", ()),
    ("web2", 2, "lan", "office", ()),
    ("db1", 2, "backend", "default", ()),
    ("guest2", 2, "lan", "guests", ("quarantined", "its MAC is guest1's")),
    ("db2", 3, "backend", "default", ("active", "MTU 1500 does not fit through the tunnels, which carry 1450")),
    ("batch", 3, "backend", "default", ("down", "its link is set down")),
    ("legacy", 3, None, None, ("unmanaged", "macvtap: its frames never meet Open vSwitch")),
)


def example() -> Topology:
    """The fleet as it is drawn in docs/topology.svg."""
    live = LiveTopology()
    hosts = {f"kvm0{number}": _host(number) for number in (1, 2, 3)}
    ports = {f"port{number}": _vnic(number, *about) for number, about in enumerate(_VNICS, 1)}
    waits = PortSpec(vm="db3", mac="52:54:00:00:50:23", network="backend")
    numbers = {name: number for number, name in enumerate(hosts, 1)}
    live.update(GraphRows(hosts, {}, _NETWORKS, {"db3-backend": waits}, ports, numbers, {"physnet1": 1}))
    up = {"openflow": ("up", ""), "ovsdb": ("up", ""), "libvirt": ("up", "")}
    links = {}
    for number, name in enumerate(("kvm01", "kvm02"), 1):
        port = Heard("00:1b:21:00:00:01", f"Gi1/0/{number}", name, "sw1", "the switch of the rack", None, 121)
        links[name] = Links(up, _INTERFACES, {"physnet1": [port]}, _BRIDGES, set(_NETWORKS))
    away = up | {"libvirt": ("down", "Connection refused")}
    links["kvm03"] = Links(away, _INTERFACES | {"ens224": "down"}, {}, _BRIDGES)
    return live.snapshot(42, links)


def _host(number: int) -> HostSpec:
    uplinks = {"physnet1": Uplink(interface="ens224")}
    address = f"192.0.2.1{number}"
    return HostSpec(ovsdb=f"tcp:{address}:6640", tunnel_ip=address, uplinks=uplinks)


def _vnic(
    number: int, vm: str, host: int, network: str | None, portgroup: str | None, amiss: tuple[str, ...]
) -> PortStatus:
    state, reason = amiss or ("active", "")
    observed = {
        "vm_uuid": f"00000000-0000-4000-8000-{sum(vm.encode()):012}", "vm": vm, "mac": f"52:54:00:00:10:{number:02x}",
        "host": f"kvm0{host}", "tap": f"vnet{number}", "ofport": None if state == "unmanaged" else number,
        "network": network, "portgroup": portgroup, "state": state, "reason": reason,
    }  # fmt: skip
    return PortStatus.model_validate(observed)
