"""One host's OVSDB, driven: kept equal to what is wanted, and watched for the vNICs on the integration bridge."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from controller.errors import FleetError, OvsdbError
from controller.idl import Database, Limits, Listener, OpenVswitchApi, OvsdbClient, RowChange, brief
from controller.ovsdb.hygiene import neutralise, remove_ports, remove_reports
from controller.ovsdb.plan import Step, plan, removal
from controller.ovsdb.rows import COLUMNS, READ, BridgeRow, InterfaceRow, Mirror, word
from controller.ovsdb.wanted import HOOK, HOOK_PORT, HOOK_XML, MARK, WantedBridge

log = logging.getLogger(__name__)

Connect = Callable[[str, Database, Listener], OvsdbClient]
"""Opens a client: remote, what is copied of it, who is told."""

HOST_LIMITS = Limits(message=16 << 20, contents=64 << 20)
"""A thousand vNICs are 3 MB. Whoever sends more holds up the thread that all hosts share."""

_RETRY_FIRST, _RETRY_MOST = 1.0, 30.0
_TRANSACTION_SECONDS = 10.0
_NAMED = 3  # steps of a repair
_NOTHING = {"op": "select", "table": "Open_vSwitch", "where": [], "columns": ["_uuid"]}  # RFC 7047, 5.2.2


@dataclass(frozen=True, slots=True)
class VnicRow:
    """What OVSDB says of a vNIC on the integration bridge. libvirt writes the external_ids (virnetdevopenvswitch), and
    ``report`` the host's hook, if it has one."""

    interface: str
    ofport: int | None
    mac: str | None
    iface_id: str | None
    vm_uuid: str | None
    profile: str | None
    error: str | None
    device: bool = True
    """False when Open vSwitch lost the device: the tap of a guest that ended is gone before its row."""

    report: str | None = None

    @property
    def is_plugged(self) -> bool:
        """Whether there is a device behind it."""
        return self.ofport is not None and self.device

    @property
    def is_lost(self) -> bool:
        """Whether Open vSwitch says that there is no device of this name on the host."""
        return not self.device or (self.ofport is None and "No such device" in (self.error or ""))


@dataclass(frozen=True, slots=True)
class HookRow:
    """What the host's hook wrote on the integration bridge: ``mark`` says that there is one, ``ports`` are its words on
    vNICs that were plugged in, by key."""

    mark: str | None = None
    ports: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Own:
    """What a host's OVSDB has of ours: bridges by name, and the state of interfaces: up, down, missing (Open vSwitch
    has no such device, or does not take it) or unknown (not plugged in yet); with the MTU of those that have one."""

    bridges: frozenset[str]
    interfaces: Mapping[str, str]
    mtus: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class OvsdbState:
    """How it stands. ``confirmed`` is the last wanted sequence that the host has in full."""

    state: str
    reason: str
    confirmed: int
    ovs_version: str | None = None


class HostOvsdb:
    """Everything on the loop. ``on_vnics`` gets all vNICs by interface name, and what the hook wrote, when any of it
    changed."""

    def __init__(
        self,
        host: str,
        remote: str,
        owner: str,
        connect: Connect,
        on_vnics: Callable[[Mapping[str, VnicRow], HookRow], None],
        on_state: Callable[[], None],
    ) -> None:
        self.host = host
        self._owner = owner
        self._on_vnics = on_vnics
        self._on_state = on_state
        self._mirror = Mirror()
        self._wanted: tuple[WantedBridge, ...] | None = None  # None: take everything of ours away
        self._sequence = 0
        self._confirmed = -1
        self._settled = False  # the host has what is wanted now
        self._up = False
        self._reachable = asyncio.Event()
        self._stopped = False
        self._seen = False
        self._reason = "not connected yet"
        self._told: tuple[Mapping[str, VnicRow], HookRow] | None = None  # None: nothing was told yet
        self._stale: Mapping[str, VnicRow | str] = {}
        self._committed: list[str] = []  # the steps of the last transaction, in words
        self.repairs = 0  # how often something was put right that others had changed
        self.repaired: tuple[str, ...] = ()  # the last time: what
        self._wake = asyncio.Event()
        database = Database(
            "Open_vSwitch", COLUMNS, f"Host {host}: OVSDB", READ, OpenVswitchApi, index=False, peer=host
        )
        self._client: OvsdbClient = connect(remote, database, self)
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"ovsdb {host}")

    @property
    def state(self) -> OvsdbState:
        """Up once it is right, with the reason of what is not."""
        if not self._up:
            return OvsdbState("down", self._client.state.error or self._reason, self._confirmed)
        version = next((row.ovs_version for row in self._mirror.system.values()), None)
        reason = self._reason or self._trouble()
        if not reason and self._wanted is not None and (waiting := self._unplugged(self._wanted)):
            reason = f"Open vSwitch has not plugged in {', '.join(waiting)} yet; does ovs-vswitchd run?"
        return OvsdbState("degraded" if reason else "up", brief(reason), self._confirmed, version)

    @property
    def seen(self) -> bool:
        """Whether its contents were read at least once, so that an absent vNIC is known to be absent."""
        return self._seen

    def links(self) -> dict[str, str]:
        """Of each physical interface that is ours: up, down, or missing where the host has no such device. Empty while
        nobody can tell."""
        ours = [row for row in self._mirror.interfaces.values() if row.external_ids.get(MARK) == self._owner]
        return {row.name: _link(row) for row in ours if row.type == "" and row.ofport is not None} if self._up else {}

    def own(self) -> Own | None:
        """What is really there of ours; None while nobody can tell."""
        if not self._up:
            return None
        bridges = (row.name for row in self._mirror.bridges.values() if row.external_ids.get(MARK) == self._owner)
        rows = [row for row in self._mirror.interfaces.values() if row.external_ids.get(MARK) == self._owner]
        mtus = {row.name: row.mtu for row in rows if row.mtu is not None}
        return Own(frozenset(bridges), {row.name: self._standing(row) for row in rows}, mtus)

    def want(self, bridges: Sequence[WantedBridge] | None, sequence: int) -> None:
        """From now on have these bridges; None: have nothing of ours. ``sequence`` is confirmed when it is so."""
        wanted = tuple(bridges) if bridges is not None else None
        self._sequence = sequence
        if wanted == self._wanted and self._settled:
            self._confirmed = sequence
            return
        self._wanted, self._settled = wanted, False
        self._committed = []  # to do the like of it again is no sign that it does not stay
        self._wake.set()

    async def read_anew(self) -> None:
        """Return when all has been told that the host's OVSDB holds at this moment; not before it can be asked, or
        after ``stop()``.

        ovsdb-server tells a client of every change before it answers it anything.
        """
        while not self._stopped:
            if not self._up:
                self._client.retry_now()
            await self._reachable.wait()
            try:
                await self._client.execute([_NOTHING], _TRANSACTION_SECONDS)
            except OvsdbError as error:
                log.debug("%s: asked in vain: %s", self.host, error)
                await asyncio.sleep(_RETRY_FIRST)
            else:
                return

    def drop_stale(self, left: Mapping[str, VnicRow | str]) -> None:
        """Delete the rows of these vNICs, whose guests do not run and which have no device, and these words of the
        hook, which are about no vNIC that is there; as long as they are what is said here."""
        if left != self._stale:
            self._stale = dict(left)
            self._wake.set()

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._client.close()
        self._stopped = True
        self._reachable.set()

    # The client's listener.

    def on_up(self) -> None:
        self._up, self._seen, self._reason = True, True, ""
        self._reachable.set()
        log.info("%s: OVSDB connected", self.host)
        self._wake.set()
        self._tell_vnics()
        self._on_state()

    def on_down(self, reason: str) -> None:
        self._up, self._settled, self._reason = False, False, reason
        self._reachable.clear()
        log.warning("%s: OVSDB lost: %s", self.host, reason)
        self._on_state()

    def on_change(self, changes: Sequence[RowChange]) -> None:
        self._mirror.take(changes)
        if self._up:
            self._tell_vnics()
            self._wake.set()

    # The loop that makes it so.

    async def _run(self) -> None:
        delay = _RETRY_FIRST
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not self._up:
                continue
            before = self._reason
            try:
                settled = await self._converge()
                self._reason = ""
                if settled:
                    delay = _RETRY_FIRST
            except FleetError as error:
                self._reason = str(error)
                settled = True
                if self._reason != before:
                    log.warning("%s", error)
                asyncio.get_running_loop().call_later(delay, self._wake.set)
                delay = min(delay * 2, _RETRY_MOST)
            except Exception:
                log.exception("%s: provisioning failed", self.host)
                self._reason, settled = "provisioning failed; see the controller's log", True
                asyncio.get_running_loop().call_later(_RETRY_MOST, self._wake.set)
            if not settled:
                self._wake.set()
            self._on_state()

    async def _converge(self) -> bool:
        """One transaction towards what is wanted. True when nothing was left to do."""
        wanted, sequence, was_settled = self._wanted, self._sequence, self._settled
        if sequence == 0:
            return True  # nobody has said yet what is wanted
        if wanted is None:
            ours = steps = removal(self._mirror, self._owner)
        else:
            bridge = wanted[0].name
            ours = plan(wanted, self._mirror, self._owner, self.host)
            stale = self._still_stale(bridge)
            steps = ours + neutralise(bridge, self._mirror) + remove_ports(bridge, stale, self._mirror)
            steps += remove_reports(bridge, stale, self._mirror)
        if not steps:
            self._committed = []
            if wanted is None or not self._unplugged(wanted):
                self._confirmed, self._settled = sequence, True
            return True
        self._settled = False
        words = [step.what for step in steps]
        if words == self._committed:
            self._committed = []
            raise OvsdbError(f"does not stay as it was made: {words[0]}", where=f"Host {self.host}",
                             remedy="see what else writes to this host's OVSDB")  # fmt: skip
        self._committed = words
        await self._client.transact(lambda api, txn: _add(api, txn, steps), _TRANSACTION_SECONDS)
        for step in steps:
            log.info("%s: %s", self.host, step.what)
        if ours and was_settled:
            self.repairs += 1
            self.repaired = tuple(step.what for step in ours[:_NAMED])
        return False

    def _still_stale(self, bridge_name: str) -> list[str]:
        """A guest that starts may have got the name by now, of an interface or of the hook's word."""
        bridge = self._mirror.bridge(bridge_name)
        if bridge is None or not self._stale:
            return []
        ports = self._mirror.ports_of(bridge)
        there: dict[str, VnicRow | str] = dict(bridge.external_ids)
        for name in self._stale.keys() & ports.keys():
            for interface in self._mirror.interfaces_of(ports[name]):
                there[name] = _vnic(interface)
        return [name for name, left in self._stale.items() if there.get(name) == left]

    def _unplugged(self, wanted: Sequence[WantedBridge]) -> list[str]:
        """Interfaces of ours that Open vSwitch has neither plugged in nor refused yet; it tells when it has."""
        names = {interface.name for bridge in wanted for interface in bridge.interfaces}
        return sorted(row.name for row in self._mirror.interfaces.values() if row.name in names and row.ofport is None)

    def _trouble(self) -> str:
        """What Open vSwitch says is wrong with what is ours."""
        wrong = []
        for interface in self._mirror.interfaces.values():
            if interface.external_ids.get(MARK) != self._owner:
                continue
            if interface.error and not self._is_joined(interface):
                wrong.append(f"{interface.name}: {interface.error}")
            elif interface.ofport_request and interface.ofport not in {None, interface.ofport_request}:
                wrong.append(f"{interface.name}: has OpenFlow port {interface.ofport}, not {interface.ofport_request}")
        return "; ".join(sorted(wrong))

    def _standing(self, row: InterfaceRow) -> str:
        if row.ofport is None and not row.error:
            return "unknown"
        if row.type == "":
            return _link(row)
        return "up" if row.ofport not in {None, -1} and (not row.error or self._is_joined(row)) else "missing"

    def _is_joined(self, interface: InterfaceRow) -> bool:
        """Whether it is a patch port whose peer is plugged in and names it. Open vSwitch leaves the error standing when
        a peer goes and comes back between two of its looks (bridge.c, STATUS_CHECK_AGAIN_MSEC)."""
        return interface.ofport is not None and any(
            peer.name == interface.options.get("peer") and peer.options.get("peer") == interface.name and peer.ofport
            for peer in self._mirror.interfaces.values()
            if peer.type == interface.type == "patch"
        )

    def _tell_vnics(self) -> None:
        vnics, hook = {}, HookRow()
        name = self._wanted[0].name if self._wanted else None
        bridge = self._mirror.bridge(name) if name is not None else None
        if bridge is not None:
            hook = _hook(bridge)
            for port in self._mirror.ports_of(bridge).values():
                for interface in self._mirror.interfaces_of(port):
                    foreign = MARK not in interface.external_ids and interface.name != bridge.name
                    if foreign and word(interface.name) is not None:
                        vnics[interface.name] = _vnic(interface)
        if (vnics, hook) != self._told:
            self._told = vnics, hook
            self._on_vnics(vnics, hook)


def _add(api: Any, txn: Any, steps: Sequence[Step]) -> None:
    for step in steps:
        for command in step.commands(api):
            txn.add(command)


def _link(interface: InterfaceRow) -> str:
    if interface.error or interface.ofport == -1:  # ovs-vswitchd.conf.db(5), "ofport"
        return "missing"
    return "up" if interface.link_up else "down"


def _vnic(interface: InterfaceRow) -> VnicRow:
    ids = interface.external_ids
    ofport = interface.ofport if interface.ofport is not None and 0 < interface.ofport <= 0xFFFF else None
    keys = ("attached-mac", "iface-id", "vm-id", "port-profile")
    mac, iface_id, vm_uuid, profile = (word(ids.get(key)) for key in keys)
    return VnicRow(
        interface.name, ofport, mac, iface_id, vm_uuid, profile,
        interface.error, interface.ifindex != 0, ids.get(HOOK_XML),
    )  # fmt: skip


def _hook(bridge: BridgeRow) -> HookRow:
    ids = bridge.external_ids
    return HookRow(ids.get(HOOK), {key: value for key, value in ids.items() if key.startswith(HOOK_PORT)})
