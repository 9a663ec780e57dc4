"""Rows of a host's OVSDB as plain values, and the mirror of them that the loop has (ovs-vswitchd.conf.db(5))."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from controller.idl import RowChange, brief

MAX_WORD = 255
_MAX_VALUE = 1 << 17

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "Open_vSwitch": ("bridges", "ovs_version", "external_ids"),
    "Bridge": (
        "name", "ports", "controller", "fail_mode", "datapath_type", "datapath_id", "protocols", "other_config",
        "external_ids", "flood_vlans",
    ),
    "Port": ("name", "interfaces", "tag", "trunks", "vlan_mode", "qos", "other_config", "external_ids"),
    "Interface": (
        "name", "type", "ofport", "ofport_request", "options", "external_ids", "error", "link_state", "admin_state",
        "ifindex", "mtu", "ingress_policing_rate", "ingress_policing_burst",
    ),
    "QoS": ("queues", "external_ids"),
    "Queue": ("external_ids",),
    "Controller": (
        "target", "connection_mode", "inactivity_probe", "max_backoff", "controller_rate_limit",
        "controller_burst_limit", "external_ids",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class BridgeRow:
    name: str
    ports: frozenset[UUID]
    controllers: frozenset[UUID]
    fail_mode: str | None
    datapath_type: str
    datapath_id: str | None
    protocols: frozenset[str]
    other_config: Mapping[str, str]
    external_ids: Mapping[str, str]
    flood_vlans: int


@dataclass(frozen=True, slots=True)
class PortRow:
    name: str
    interfaces: frozenset[UUID]
    tag: int | None
    trunks: frozenset[int]
    vlan_mode: str | None
    qos: UUID | None
    other_config: Mapping[str, str]
    external_ids: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class InterfaceRow:
    name: str
    type: str
    ofport: int | None
    ofport_request: int | None
    options: Mapping[str, str]
    external_ids: Mapping[str, str]
    error: str | None
    link_up: bool
    ifindex: int | None  # 0: the device is gone, though Open vSwitch may keep its port
    policing: int  # kbit/s and kbit of ingress_policing, added up: 0 is none
    mtu: int | None = None  # bytes of an IP packet


@dataclass(frozen=True, slots=True)
class ControllerRow:
    target: str
    connection_mode: str | None
    inactivity_probe: int | None
    max_backoff: int | None
    controller_rate_limit: int | None  # packets a second that are sent to it
    controller_burst_limit: int | None
    external_ids: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class QosRow:
    """``queues`` by UUID; libvirt marks the rows of a vNIC with its ``ifname`` and ``vm-id``."""

    queues: frozenset[UUID]
    external_ids: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SystemRow:
    ovs_version: str | None
    system_id: str | None


def _one(values: Any) -> Any:
    """The value of an optional column, which the Idl gives as a list of none or one."""
    return values[0] if isinstance(values, list) and values else (None if isinstance(values, list) else values)


def _uuids(rows: Iterable[Any]) -> frozenset[UUID]:
    return frozenset(row.uuid for row in rows)


def _ids(values: Mapping[str, str]) -> dict[str, str]:
    """What others wrote there, without what is longer than anybody who means well writes (the hook's reports are the
    longest: 64 KiB)."""
    return {key: value for key, value in values.items() if len(key) <= MAX_WORD and len(value) <= _MAX_VALUE}


def word(text: str | None) -> str | None:
    """A name or identifier as a host gives it; None for what can be none."""
    return text if isinstance(text, str) and len(text) <= MAX_WORD and text.isprintable() else None


def sentence(text: str | None) -> str | None:
    """What a host says to people, fit to be shown."""
    return brief(text) if text is not None else None


READ: Mapping[str, Callable[[Any], Any]] = {
    "Open_vSwitch": lambda r: SystemRow(word(_one(r.ovs_version)), r.external_ids.get("system-id")),
    "Bridge": lambda r: BridgeRow(
        r.name, _uuids(r.ports), _uuids(r.controller), _one(r.fail_mode), r.datapath_type, _one(r.datapath_id),
        frozenset(r.protocols), dict(r.other_config), _ids(r.external_ids), len(r.flood_vlans)),
    "Port": lambda r: PortRow(
        r.name, _uuids(r.interfaces), _one(r.tag), frozenset(r.trunks), _one(r.vlan_mode),
        next((row.uuid for row in r.qos), None), dict(r.other_config), _ids(r.external_ids)),
    "Interface": lambda r: InterfaceRow(
        r.name, r.type, _one(r.ofport), _one(r.ofport_request), dict(r.options), _ids(r.external_ids),
        sentence(_one(r.error)),
        _one(r.link_state) == "up", _one(r.ifindex), r.ingress_policing_rate + r.ingress_policing_burst, _one(r.mtu)),
    "QoS": lambda r: QosRow(_uuids(r.queues.values()), _ids(r.external_ids)),
    "Queue": lambda r: _ids(r.external_ids),
    "Controller": lambda r: ControllerRow(
        r.target, _one(r.connection_mode), _one(r.inactivity_probe), _one(r.max_backoff),
        _one(r.controller_rate_limit), _one(r.controller_burst_limit), _ids(r.external_ids)),
}  # fmt: skip


@dataclass(slots=True)
class Mirror:
    """What a host's OVSDB holds, as of the last change that was told."""

    system: dict[UUID, SystemRow] = field(default_factory=dict)
    bridges: dict[UUID, BridgeRow] = field(default_factory=dict)
    ports: dict[UUID, PortRow] = field(default_factory=dict)
    interfaces: dict[UUID, InterfaceRow] = field(default_factory=dict)
    controllers: dict[UUID, ControllerRow] = field(default_factory=dict)
    qos: dict[UUID, QosRow] = field(default_factory=dict)
    queues: dict[UUID, Mapping[str, str]] = field(default_factory=dict)

    def take(self, changes: Iterable[RowChange]) -> None:
        tables: Mapping[str, dict[UUID, Any]] = {
            "Open_vSwitch": self.system, "Bridge": self.bridges, "Port": self.ports,
            "Interface": self.interfaces, "Controller": self.controllers, "QoS": self.qos, "Queue": self.queues,
        }  # fmt: skip
        for change in changes:
            if change.value is None:
                tables[change.table].pop(change.uuid, None)
            else:
                tables[change.table][change.uuid] = change.value

    def bridge(self, name: str) -> BridgeRow | None:
        return next((bridge for bridge in self.bridges.values() if bridge.name == name), None)

    def ports_of(self, bridge: BridgeRow) -> dict[str, PortRow]:
        found = (self.ports.get(uuid) for uuid in bridge.ports)
        return {port.name: port for port in found if port is not None}

    def interfaces_of(self, port: PortRow) -> list[InterfaceRow]:
        found = (self.interfaces.get(uuid) for uuid in port.interfaces)
        return [interface for interface in found if interface is not None]

    def bridge_of(self, port_name: str) -> BridgeRow | None:
        """The bridge that has a port of that name."""
        for bridge in self.bridges.values():
            if port_name in self.ports_of(bridge):
                return bridge
        return None
