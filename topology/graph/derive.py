"""What each row contributes to the topology: pure functions from rows to nodes and edges.

A part belongs to one row (a host, a network, a vNIC), or to what several rows speak of together (a guest, a physical
network, the underlay). ``uses`` are the keys of what it was made with, so that it is made again when that changes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from controller.model.host import HostSpec
from controller.model.kinds import network_mtu
from controller.model.network import DEFAULT_PORTGROUP, NetworkSpec, PortGroup, network_uuid
from controller.model.port import PortSpec, PortStatus
from controller.ovsdb.wanted import datapath_id, patch_pair, uplink_bridge
from topology.graph.nodes import (
    BridgeNode,
    Edge,
    EdgeKey,
    GuestNode,
    HostNode,
    NetworkNode,
    Node,
    PhysicalNode,
    Relation,
    TunnelNode,
    UnderlayNode,
    UplinkNode,
    VnicNode,
    edge_key,
    node_id,
)

Key = tuple[str, ...]

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class GraphRows:
    """Everything that the topology is made of. ``leaving`` are hosts that are being deleted; numbers are the store's,
    by the name of a host or physical network."""

    hosts: Mapping[str, HostSpec]
    leaving: Mapping[str, HostSpec]
    networks: Mapping[str, NetworkSpec]
    registered: Mapping[str, PortSpec]
    statuses: Mapping[str, PortStatus]
    host_numbers: Mapping[str, int]
    physical_numbers: Mapping[str, int]

    def host(self, name: str | None) -> HostSpec | None:
        """A host of the fleet, or one that is being deleted."""
        return None if name is None else self.hosts.get(name) or self.leaving.get(name)


@dataclass(slots=True)
class Part:
    """Nodes and edges that one owner contributes; without nodes there is no such owner."""

    nodes: dict[str, Node] = field(default_factory=dict)
    edges: dict[EdgeKey, Edge] = field(default_factory=dict)
    uses: frozenset[Key] = frozenset()

    def join(self, one: str, other: str, edge: Edge) -> None:
        self.edges[edge_key(one, other)] = edge


def family(address: str) -> str:
    """Tunnels of one address family never reach an endpoint of the other."""
    return "ipv6" if ":" in address else "ipv4"


def host_part(name: str, rows: GraphRows) -> Part:
    """A host, its bridges, its uplinks and its end of the tunnels."""
    spec, number = rows.host(name), rows.host_numbers.get(name)
    part = Part()
    if spec is None:
        return part
    host, inner = node_id("host", name), node_id("bridge", name, spec.bridge)
    uses: set[Key] = set()
    part.nodes[host] = HostNode(
        name=name,
        state="leaving" if name in rows.leaving else "unknown",
        datapath_id=f"{datapath_id(number):016x}" if number is not None else None,
    )
    part.nodes[inner] = BridgeNode(host=name, name=spec.bridge, role="integration", datapath_type=spec.datapath_type)
    part.join(host, inner, Edge(relation="has"))
    for physical, uplink in spec.uplinks.items():
        uplink_number = rows.physical_numbers.get(physical)
        if uplink_number is None:
            continue  # the row is there before its number only when somebody edited the store by hand
        outer, port = node_id("bridge", name, uplink_bridge(uplink_number)), node_id("uplink", name, physical)
        part.nodes[outer] = BridgeNode(
            host=name, name=uplink_bridge(uplink_number), role="uplink", datapath_type=spec.datapath_type,
            patch_ports=patch_pair(uplink_number),
        )  # fmt: skip
        part.nodes[port] = UplinkNode(host=name, interface=uplink.interface, physical_network=physical)
        part.join(host, outer, Edge(relation="has"))
        part.join(inner, outer, Edge(relation="patch"))
        part.join(outer, port, Edge(relation="has"))
        part.join(port, node_id("physical", physical), Edge(relation="wire"))
        uses.add(("physical", physical))
    if spec.tunnel_ip is not None:
        tunnel, over = node_id("tunnel", name), family(spec.tunnel_ip)
        part.nodes[tunnel] = TunnelNode(host=name, type=spec.tunnel, address=spec.tunnel_ip)
        part.join(inner, tunnel, Edge(relation="has"))
        part.join(tunnel, node_id("underlay", over), Edge(relation="wire"))
        uses.add(("underlay", over))
    part.uses = frozenset(uses)
    return part


def network_part(name: str, rows: GraphRows, underlays: Iterable[str], overlay_limit: int | None) -> Part:
    """A network, and what it goes over. ``overlay_limit``: ``overlay_mtu`` of the fleet's hosts."""
    spec = rows.networks.get(name)
    part = Part()
    if spec is None:
        return part
    network = node_id("network", name)
    part.nodes[network] = NetworkNode(
        name=name, mode=spec.mode, span=spec.span, physical_network=spec.physical_network,
        vlans=tuple(sorted(spec.vlans())), mtu=network_mtu(spec, overlay_limit), uuid=network_uuid(name, spec),
    )  # fmt: skip
    if spec.physical_network is not None:
        part.join(network, node_id("physical", spec.physical_network), Edge(relation="over"))
        part.uses = frozenset({("physical", spec.physical_network)})
    elif spec.span == "fleet":
        for each in underlays:
            part.join(network, node_id("underlay", each), Edge(relation="over"))
    return part


def port_part(name: str, rows: GraphRows, guest: str) -> Part:
    """A vNIC of the guest with that node id, where it is plugged in and what it is a member of."""
    status, spec = rows.statuses.get(name), rows.registered.get(name)
    part = Part()
    if status is not None:
        node = _observed(name, status, spec, rows)
    elif spec is not None:
        node = _expected(name, spec, rows)
    else:
        return part
    vnic = node_id("vnic", name)
    part.nodes[vnic] = node
    part.join(guest, vnic, Edge(relation="has"))
    uses: set[Key] = {("guest", guest)}
    host = rows.host(node.host)
    if node.host is not None:
        uses.add(("host", node.host))
        if host is not None and node.ofport is not None and node.state != "unmanaged":
            part.join(vnic, node_id("bridge", node.host, host.bridge), Edge(relation="plugged"))
    if node.network is not None:
        uses.add(("network", node.network))
        if node.network in rows.networks:
            relation: Relation = "member" if node.state == "active" else "asks"
            edge = Edge(relation=relation, vlans=node.vlans, portgroup=node.portgroup)
            part.join(vnic, node_id("network", node.network), edge)
    if status is not None and status.vm is not None:
        uses.add(("called", status.vm, status.vm_uuid))
    elif status is None and spec is not None:
        uses.add(("waiting", spec.vm))
    part.uses = frozenset(uses)
    return part


def guest_of(name: str, rows: GraphRows, uuids: Mapping[str, Mapping[str, int]]) -> str:
    """The node id of a vNIC's guest. One that was never seen belongs to the only guest that has the name, if there is
    one; ``uuids`` are those that each name is known by."""
    status = rows.statuses.get(name)
    if status is not None:
        return node_id("guest", status.vm_uuid)
    vm = rows.registered[name].vm
    known = uuids.get(vm, {})
    if len(known) == 1:
        return node_id("guest", next(iter(known)))
    return node_id("guest", vm.lower() if _UUID.fullmatch(vm.lower()) else vm)


def guest_part(guest: str, ports: Iterable[str], rows: GraphRows) -> Part:
    """A guest, from its vNICs' rows."""
    part = Part()
    names = sorted(ports)
    if not names:
        return part
    seen = [status for name in names if (status := rows.statuses.get(name)) is not None]
    called = [status.vm for status in seen if status.vm is not None]
    called += [spec.vm for name in names if (spec := rows.registered.get(name)) is not None]
    called = [name for name in called if not _UUID.fullmatch(name.lower())]
    key = guest.partition(":")[2]
    hosts = sorted({status.host for status in seen if status.host is not None})
    part.nodes[guest] = GuestNode(
        name=called[0] if called else None,
        uuid=key if seen or _UUID.fullmatch(key) else None,
        state="running" if hosts else "absent",
        hosts=tuple(hosts),
    )
    for host in hosts:
        if rows.host(host) is not None:
            part.join(node_id("host", host), guest, Edge(relation="runs"))
    return part


def shared_part(key: Key, used: bool) -> Part:
    """A physical network or an underlay, as long as something uses it."""
    part = Part()
    if used:
        kind, name = key
        if kind == "physical":
            part.nodes[node_id("physical", name)] = PhysicalNode(name=name)
        else:
            part.nodes[node_id("underlay", name)] = UnderlayNode(name=name)
    return part


def _observed(name: str, status: PortStatus, spec: PortSpec | None, rows: GraphRows) -> VnicNode:
    group, vlans = _group(status.network, status.portgroup, rows)
    return VnicNode(
        name=name, guest=status.vm or status.vm_uuid, mac=status.mac, state=status.state, reason=status.reason,
        host=status.host, interface=status.tap, ofport=status.ofport, network=status.network,
        portgroup=status.portgroup, vlans=vlans, isolation=group.isolation if group is not None else "none",
        addresses=status.addresses or (spec.addresses if spec is not None else ()), mtu=status.mtu,
        registered=spec is not None,
    )  # fmt: skip


def _expected(name: str, spec: PortSpec, rows: GraphRows) -> VnicNode:
    """A registered vNIC of which nothing was seen yet."""
    group, vlans = _group(spec.network, spec.portgroup, rows)
    return VnicNode(
        name=name, guest=spec.vm, mac=spec.mac, state="absent", network=spec.network, portgroup=spec.portgroup,
        vlans=vlans, isolation=group.isolation if group is not None else "none", addresses=spec.addresses,
        registered=True,
    )  # fmt: skip


def _group(network: str | None, portgroup: str | None, rows: GraphRows) -> tuple[PortGroup | None, tuple[int, ...]]:
    """The portgroup, and the VLANs that it gives; passthrough hands out none, it has the whole uplink."""
    spec = rows.networks.get(network or "")
    group = spec.portgroup(portgroup or DEFAULT_PORTGROUP) if spec is not None else None
    if spec is None or group is None or group.isolation == "passthrough":
        return group, ()
    return group, tuple(sorted(group.vlans(spec.untagged_vlan)))
