"""What libvirt and interrupted hosts leave on the integration bridge, put right.

libvirt writes VLANs and bandwidth of a vNIC where a switch that decides by itself (``NORMAL``) would find them. Ours is
told by flows: a tag there plays no part, but a queue or policer would act, and what one guest left behind acts on the
next guest that gets the same tap (measured: a guest came up in another guest's VLAN after a power loss).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any
from uuid import UUID

from controller.errors import OvsdbError
from controller.ovsdb.plan import Step
from controller.ovsdb.rows import BridgeRow, Mirror, PortRow
from controller.ovsdb.wanted import HOOK_PORT, MARK

# ovs-ctl(8) deletes such ports when the host boots: no guest runs then.
_TRANSIENT = {"transient": "true"}


def neutralise(bridge_name: str, mirror: Mirror) -> list[Step]:
    """Steps that take VLANs, queues and policing off the vNICs of a bridge; none when there are none."""
    bridge = mirror.bridge(bridge_name)
    if bridge is None:
        return []
    steps = [step for port in _vnics(bridge, mirror) for step in _neutralise(port, mirror)]
    return [*steps, *_orphans(bridge, mirror)]


def remove_ports(bridge_name: str, names: Iterable[str], mirror: Mirror) -> list[Step]:
    """Steps that delete those vNICs' rows, as far as they are still there and have no device."""
    bridge = mirror.bridge(bridge_name)
    if bridge is None:
        return []
    ports = mirror.ports_of(bridge)
    return [
        Step(
            f"delete port {name} of {bridge_name}, which a guest left behind",
            lambda api, n=name: _delete(api, n, bridge_name, ports[n], mirror),  # type: ignore[misc]
        )
        for name in names
        if name in ports and is_stale(ports[name], mirror)
    ]


def _delete(api: Any, name: str, bridge_name: str, port: PortRow, mirror: Mirror) -> Iterator[Any]:
    """libvirt uses the row again for the next guest of that tap, perhaps at this moment: then the server refuses."""
    for interface in api.lookup("Port", name).interfaces:
        left = mirror.interfaces.get(interface.uuid)
        if left is None or left.external_ids != interface.external_ids:
            raise OvsdbError(f"port {name} changed while it was to be deleted", remedy="it is looked at again")
        for column in ("external_ids", "ofport", "ifindex"):
            interface.verify(column)
    yield api.del_port(name, bridge=bridge_name, if_exists=True)


def remove_reports(bridge_name: str, keys: Iterable[str], mirror: Mirror) -> list[Step]:
    """Steps that take the hook's words on vNICs off a bridge, as far as they are still there; others are left alone."""
    bridge = mirror.bridge(bridge_name)
    found = sorted(
        key for key in keys if bridge is not None and key.startswith(HOOK_PORT) and key in bridge.external_ids
    )
    return [
        Step(
            f"forget {key}, which the hook left on {bridge_name}",
            lambda api, k=key: [api.db_remove("Bridge", bridge_name, "external_ids", k)],  # type: ignore[misc]
        )
        for key in found
    ]


def is_stale(port: PortRow, mirror: Mirror) -> bool:
    """Whether a vNIC's row has no device behind it: Open vSwitch could not open it, or it went away."""
    rows = mirror.interfaces_of(port)
    return bool(rows) and all(
        "vm-id" in row.external_ids and (row.ofport is None or row.ofport < 0 or row.ifindex == 0) for row in rows
    )


def _vnics(bridge: BridgeRow, mirror: Mirror) -> Iterator[PortRow]:
    for port in mirror.ports_of(bridge).values():
        if MARK in port.external_ids:
            continue
        if any("vm-id" in interface.external_ids for interface in mirror.interfaces_of(port)):
            yield port


def _neutralise(port: PortRow, mirror: Mirror) -> Iterator[Step]:
    name = port.name
    dirty = [c for c in ("tag", "vlan_mode", "qos") if getattr(port, c) is not None] + (
        ["trunks"] if port.trunks else []
    )
    if dirty:
        yield Step(
            f"clear {', '.join(dirty)} of port {name}",
            lambda api: [api.db_clear("Port", name, column) for column in dirty],
        )
    if not _TRANSIENT.items() <= port.other_config.items():
        yield Step(
            f"mark port {name} as transient", lambda api: [api.db_set("Port", name, ("other_config", _TRANSIENT))]
        )
    if any(interface.policing for interface in mirror.interfaces_of(port)):
        columns = (("ingress_policing_rate", 0), ("ingress_policing_burst", 0))
        yield Step(f"clear the policing of interface {name}", lambda api: [api.db_set("Interface", name, *columns)])


def _orphans(bridge: BridgeRow, mirror: Mirror) -> Iterator[Step]:
    """libvirt's QoS and Queue rows of the bridge's vNICs that no port refers to; both are root tables, so nobody else
    collects them. The like of another bridge's guests may be in use in ways that are not ours to know."""
    vnics = {row.name for port in _vnics(bridge, mirror) for row in mirror.interfaces_of(port)}
    used = {port.qos for port in mirror.ports.values() if port.qos is not None}
    for uuid, qos in mirror.qos.items():
        if uuid not in used and _is_of(qos.external_ids, vnics):
            yield _destroy("QoS", uuid, qos.external_ids["ifname"])
    queued = {queue for uuid, qos in mirror.qos.items() for queue in qos.queues}
    for uuid, external_ids in mirror.queues.items():
        if uuid not in queued and _is_of(external_ids, vnics):
            yield _destroy("Queue", uuid, external_ids["ifname"])


def _is_of(external_ids: Mapping[str, str], vnics: Set[str]) -> bool:
    return "vm-id" in external_ids and external_ids.get("ifname") in vnics


def _destroy(table: str, uuid: UUID, interface: str) -> Step:
    def commands(api: Any) -> list[Any]:
        return [api.db_destroy(table, uuid)]

    return Step(f"delete the {table} row that {interface} left", commands)
