"""The difference between what a host's OVSDB should have of ours and what it has, as steps.

Pure: rows in, steps out. A row is ours when it carries our mark; no step touches another. A step is a sentence and
the ovsdbapp commands that do it; all steps of a plan are one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from controller.errors import OvsdbError
from controller.ovsdb.rows import BridgeRow, InterfaceRow, Mirror
from controller.ovsdb.wanted import (
    ALL_VLANS,
    HOOK,
    HOOK_NETWORKS,
    MARK,
    PROTOCOLS,
    RELEASED,
    WantedBridge,
    WantedInterface,
)

Commands = Callable[[Any], Iterable[Any]]

_CONTROLLER = {
    "connection_mode": "out-of-band", "inactivity_probe": 5000, "max_backoff": 1000,
    # Meters bound what each vNIC and wire may say; this is what all of a host may. As many as the burst wait, each
    # port's in its turn (ofproto/pinsched.c): what guests ask that boot at once.
    "controller_rate_limit": 1000, "controller_burst_limit": 500,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to put right. ``commands(api)`` gives ovsdbapp commands."""

    what: str
    commands: Commands


def plan(wanted: Iterable[WantedBridge], mirror: Mirror, owner: str, host: str) -> list[Step]:
    """Steps that make the host's OVSDB right; none when it is.

    What is to go goes first, in a plan of its own: an interface can only join a bridge when it has left the other.
    ``owner`` is the value of our mark. Raises OvsdbError when something of somebody else stands in the way.
    """
    wanted = tuple(wanted)
    for bridge in wanted:
        _refuse_foreign(bridge, mirror, owner, host)
    names = {bridge.name for bridge in wanted}
    steps = [
        _take_away(row, mirror, owner)
        for row in mirror.bridges.values()
        if row.external_ids.get(MARK) == owner and row.name not in names
    ]
    for bridge in wanted:
        if (row := mirror.bridge(bridge.name)) is not None:
            steps += _stale_ports(bridge, row, mirror, owner)
    return steps or [step for bridge in wanted for step in _bridge(bridge, mirror, owner)]


def removal(mirror: Mirror, owner: str) -> list[Step]:
    """Steps that take everything of ours away. A bridge that guests are still plugged into stays, without our mark."""
    return [_take_away(row, mirror, owner) for row in mirror.bridges.values() if row.external_ids.get(MARK) == owner]


def _take_away(row: BridgeRow, mirror: Mirror, owner: str) -> Step:
    if guests(row, mirror, owner):
        return Step(f"release bridge {row.name}, which guests are plugged into", _release(row, mirror, owner))

    def commands(api: Any) -> Iterator[Any]:
        # A guest may be plugged in at this moment: then the server refuses, and the bridge is looked at again.
        bridge = api.lookup("Bridge", row.name)
        if {port.uuid for port in bridge.ports} != row.ports:
            raise OvsdbError(f"bridge {row.name} changed while it was to be deleted", remedy="it is tried again")
        bridge.verify("ports")
        yield api.del_br(row.name)

    return Step(f"delete bridge {row.name}", commands)


def guests(bridge: BridgeRow, mirror: Mirror, owner: str) -> list[str]:
    """Ports of a bridge that are not ours, its own internal one left out."""
    ports = mirror.ports_of(bridge)
    return sorted(n for n, port in ports.items() if n != bridge.name and port.external_ids.get(MARK) != owner)


def _release(row: BridgeRow, mirror: Mirror, owner: str) -> Commands:
    ours = [name for name, port in mirror.ports_of(row).items() if port.external_ids.get(MARK) == owner]

    def commands(api: Any) -> Iterator[Any]:
        for name in ours:
            yield api.del_port(name, bridge=row.name, if_exists=True)
        yield api.db_clear("Bridge", row.name, "controller")
        for key in {MARK, HOOK_NETWORKS} & row.external_ids.keys():
            yield api.db_remove("Bridge", row.name, "external_ids", key)
        yield api.db_set("Bridge", row.name, ("external_ids", {RELEASED: owner}))

    return commands


def _refuse_foreign(bridge: WantedBridge, mirror: Mirror, owner: str, host: str) -> None:
    row = mirror.bridge(bridge.name)
    if row is not None and owner not in {row.external_ids.get(MARK), row.external_ids.get(RELEASED)}:
        whose = "another fleetswitch's" if MARK in row.external_ids else "not fleetswitch's"
        raise OvsdbError(
            f"bridge {bridge.name} exists and is {whose}", where=f"Host {host}",
            remedy=f"name another, or hand it over: ovs-vsctl set bridge {bridge.name} external_ids:{MARK}={owner}",
        )  # fmt: skip
    for interface in bridge.interfaces:
        other = mirror.bridge_of(interface.name)
        if other is not None and other.name != bridge.name and other.external_ids.get(MARK) != owner:
            raise OvsdbError(
                f"{interface.name} is a port of bridge {other.name}, which is not fleetswitch's", where=f"Host {host}",
                remedy=f"name another interface, or free it: ovs-vsctl del-port {other.name} {interface.name}",
            )  # fmt: skip


def _bridge(bridge: WantedBridge, mirror: Mirror, owner: str) -> Iterator[Step]:
    row = mirror.bridge(bridge.name)
    if row is None:
        yield Step(f"add bridge {bridge.name}", lambda api: _create_bridge(api, bridge, owner))
    else:
        yield from _bridge_settings(bridge, row, owner)
        yield from _for_hook(bridge, row)
    present = mirror.ports_of(row) if row is not None else {}
    for interface in bridge.interfaces:
        port = present.get(interface.name)
        rows = mirror.interfaces_of(port) if port is not None else []
        if port is None or not rows:
            yield Step(
                f"add port {interface.name} to {bridge.name}",
                lambda api, i=interface: _create_port(api, bridge.name, i, owner),  # type: ignore[misc]
            )
        else:
            yield from _interface(interface, rows[0], owner)
            if port.external_ids.get(MARK) != owner or port.tag is not None or port.trunks or port.vlan_mode:
                yield Step(
                    f"mend port {interface.name}",
                    lambda api, n=interface.name: [  # type: ignore[misc]
                        *(api.db_clear("Port", n, column) for column in ("tag", "trunks", "vlan_mode")),
                        api.db_set("Port", n, ("external_ids", {MARK: owner})),
                    ],
                )
    yield from _controllers(bridge, row, mirror, owner)


def _settings(bridge: WantedBridge) -> list[tuple[str, Any]]:
    other_config = {"disable-in-band": "true"}
    if bridge.datapath_id is not None:
        other_config["datapath-id"] = bridge.datapath_id
    columns: list[tuple[str, Any]] = [("fail_mode", bridge.fail_mode), ("other_config", other_config)]
    if bridge.datapath_id is not None:
        columns.append(("protocols", sorted(PROTOCOLS)))
    if bridge.floods:
        # Its two ports are all it has, and a MAC learned on the wrong one (a guest that migrated, a frame that the
        # physical switch sends back) would be dropped: NORMAL does not learn on these VLANs.
        columns.append(("flood_vlans", list(range(ALL_VLANS))))
    if bridge.opens:
        # Otherwise it would keep LLDP; what else passes by this the integration bridge drops (apps/reserved.py).
        other_config["forward-bpdu"] = "true"
    return columns


def _create_bridge(api: Any, bridge: WantedBridge, owner: str) -> Iterator[Any]:
    # Somebody else may be making one of that name at this moment: the server refuses the second, nobody's is marked.
    yield api.add_br(bridge.name, may_exist=False, datapath_type=bridge.datapath_type)
    yield api.db_set("Bridge", bridge.name, ("external_ids", {MARK: owner}), *_settings(bridge))


def _bridge_settings(bridge: WantedBridge, row: BridgeRow, owner: str) -> Iterator[Step]:
    wrong: list[tuple[str, Any]] = []
    if row.external_ids.get(MARK) != owner:
        wrong.append(("external_ids", {MARK: owner}))
    for column, value in _settings(bridge):
        match column:
            case "other_config":
                right = value.items() <= row.other_config.items()
            case "protocols":
                right = row.protocols == PROTOCOLS
            case "flood_vlans":
                right = row.flood_vlans == ALL_VLANS
            case _:
                right = getattr(row, column) == value
        if not right:
            wrong.append((column, value))
    if row.datapath_type != bridge.datapath_type:
        wrong.append(("datapath_type", bridge.datapath_type))
    if not wrong:
        return

    def commands(api: Any) -> Iterator[Any]:
        yield api.db_set("Bridge", bridge.name, *wrong)
        if RELEASED in row.external_ids:
            yield api.db_remove("Bridge", bridge.name, "external_ids", RELEASED)

    yield Step(f"mend {', '.join(column for column, _ in wrong)} of bridge {bridge.name}", commands)


def _for_hook(bridge: WantedBridge, row: BridgeRow) -> Iterator[Step]:
    """A hook that is not there is told nothing: what it found later would be out of date."""
    told = bridge.for_hook if HOOK in row.external_ids else None
    if row.external_ids.get(HOOK_NETWORKS) == told:
        return

    def commands(api: Any) -> Iterator[Any]:
        if told is None:
            yield api.db_remove("Bridge", bridge.name, "external_ids", HOOK_NETWORKS)
        else:
            yield api.db_set("Bridge", bridge.name, ("external_ids", {HOOK_NETWORKS: told}))

    yield Step(f"tell the hook of bridge {bridge.name} which networks there are", commands)


def _stale_ports(bridge: WantedBridge, row: BridgeRow, mirror: Mirror, owner: str) -> Iterator[Step]:
    names = {interface.name for interface in bridge.interfaces}
    for name, port in mirror.ports_of(row).items():
        if port.external_ids.get(MARK) == owner and name not in names and name != bridge.name:
            yield Step(
                f"delete port {name} of {bridge.name}",
                lambda api, n=name: [api.del_port(n, bridge=bridge.name, if_exists=True)],  # type: ignore[misc]
            )


def _columns(interface: WantedInterface) -> list[tuple[str, Any]]:
    columns: list[tuple[str, Any]] = []
    if interface.type:
        columns.append(("type", interface.type))
    if interface.ofport:
        columns.append(("ofport_request", interface.ofport))
    if interface.options:
        columns.append(("options", dict(interface.options)))
    return columns


def _create_port(api: Any, bridge: str, interface: WantedInterface, owner: str) -> Iterator[Any]:
    yield api.add_port(bridge, interface.name, may_exist=False)
    yield api.db_set("Port", interface.name, ("external_ids", {MARK: owner}))
    yield api.db_set("Interface", interface.name, ("external_ids", {MARK: owner}), *_columns(interface))


def _interface(interface: WantedInterface, row: InterfaceRow, owner: str) -> Iterator[Step]:
    right = (
        row.external_ids.get(MARK) == owner
        and (not interface.type or row.type == interface.type)
        and (not interface.ofport or row.ofport_request == interface.ofport)
        and interface.options.items() <= row.options.items()
    )
    if not right:
        yield Step(
            f"mend interface {interface.name}",
            lambda api: [
                api.db_set("Interface", interface.name, ("external_ids", {MARK: owner}), *_columns(interface))
            ],
        )


def _controllers(bridge: WantedBridge, row: BridgeRow | None, mirror: Mirror, owner: str) -> Iterator[Step]:
    have = [c for uuid in row.controllers if (c := mirror.controllers.get(uuid)) is not None] if row is not None else []
    right = {c.target for c in have} == set(bridge.controllers) and len(have) == len(bridge.controllers)
    right = right and all(getattr(c, column) == value for c in have for column, value in _CONTROLLER.items())
    if right:
        return

    def commands(api: Any) -> Iterator[Any]:
        if have:
            yield api.db_clear("Bridge", bridge.name, "controller")
        for target in bridge.controllers:
            create = api.db_create("Controller", target=target, external_ids={MARK: owner}, **_CONTROLLER)
            yield create
            yield api.db_add("Bridge", bridge.name, "controller", create)

    yield Step(f"set the controllers of bridge {bridge.name}", commands)
