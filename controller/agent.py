"""One host of the fleet: its OVSDB, its OpenFlow and its libvirt, started together and asked together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from controller.errors import LibvirtError
from controller.model.host import HostSpec
from controller.ovsdb.host import Connect, HookRow, HostOvsdb, VnicRow
from controller.switch import Switch
from topology.domain_xml import DomainView
from topology.host_networks import NetworkOnHost, NetworksReport, WantedNetwork
from topology.libvirt_host import LibvirtHost

log = logging.getLogger(__name__)

Part = Literal["openflow", "ovsdb", "libvirt"]

# After these a guest runs on this host and on no other; started/migrated is one that is only being copied here.
_RUNS_HERE = frozenset(
    {"started/booted", "started/restored", "resumed/migrated", "resumed/unpaused", "resumed/from-snapshot"}
)


@dataclass(frozen=True, slots=True)
class PartState:
    """How one of a host's three connections stands. ``confirmed``: the last sequence that it has in full."""

    state: str
    reason: str
    confirmed: int


@dataclass(frozen=True, slots=True)
class Watchers:
    """Who is told what a host tells; all on the loop."""

    vnics: Callable[[str, Mapping[str, VnicRow], HookRow], None]
    domains: Callable[[str], None]
    moved: Callable[[str, str], None]
    state: Callable[[str], None]


class HostAgent:
    """Everything on the loop."""

    def __init__(
        self, name: str, spec: HostSpec, switch: Switch, owner: str, connect: Connect, watchers: Watchers
    ) -> None:
        self.name = name
        self.spec = spec
        self._owner = owner
        self._connect = connect
        self._watchers = watchers
        self.switch = switch
        self.ovsdb = self._open_ovsdb()
        self.libvirt = self._open_libvirt()
        self._changing = asyncio.Lock()
        self.guarded = False  # its switch has had all of its flows since we know it
        self._networks: tuple[WantedNetwork, ...] | None = None
        self._networks_wanted = 0
        self._networks_confirmed = -1
        self._networks_tried = -1  # as confirmed, but for what the host refused
        self._networks_task: asyncio.Task[None] | None = None

    def parts(self) -> Mapping[Part, PartState]:
        """How its connections stand."""
        flows, rows = self.switch.state, self.ovsdb.state
        found: dict[Part, PartState] = {
            "ovsdb": PartState(rows.state, rows.reason, rows.confirmed),
            "openflow": PartState(flows.state, flows.reason, flows.confirmed),
        }
        if self.libvirt is not None:
            refused = self.libvirt.networks_report.refused
            reason = self.libvirt.reason or "; ".join(f"network {n}: {why}" for n, why in sorted(refused.items()))
            state = "degraded" if reason and self.libvirt.state == "up" else str(self.libvirt.state)
            # A network that the host refuses keeps no other from being confirmed; the reason tells of it. A host that
            # is left has confirmed when nothing is left there.
            confirmed = self._networks_tried if self._networks else self._networks_confirmed
            found["libvirt"] = PartState(state, reason, confirmed)
        return found

    def networks(self) -> frozenset[str] | None:
        """Networks of ours that its libvirt has running as they are wanted; None while nobody can tell."""
        if self.libvirt is None or self.libvirt.state != "up" or self._networks_wanted == 0:
            return None
        refused = self.libvirt.networks_report.refused
        found = (net for net in self.libvirt.networks if net.live is not None and net.owned_by(self._owner))
        return frozenset(net.name for net in found if net.name not in refused)

    def foreign_networks(self) -> tuple[NetworkOnHost, ...]:
        """Networks of its libvirt, as last read, that are not ours."""
        found = self.libvirt.networks if self.libvirt is not None else ()
        return tuple(network for network in found if not network.owned_by(self._owner))

    async def respec(self, spec: HostSpec) -> None:
        """The operator changed the host: connect anew where the address is another one."""
        async with self._changing:
            await self._respec(spec)

    async def _respec(self, spec: HostSpec) -> None:
        old, self.spec = self.spec, spec
        if spec.ovsdb != old.ovsdb:
            await self.ovsdb.stop()
            self.ovsdb = self._open_ovsdb()
        if spec.libvirt != old.libvirt:
            if self.libvirt is not None:
                await self.libvirt.stop()
            self.libvirt = self._open_libvirt()
            self._networks_confirmed = self._networks_tried = -1
            self._watchers.domains(self.name)

    async def read_anew(self) -> None:
        """Return when all has been told that the host's OVSDB holds now, at whatever address the host has by then."""
        asked = None
        while asked is not self.ovsdb:
            asked = self.ovsdb
            await asked.read_anew()

    def want_networks(self, networks: Sequence[WantedNetwork], sequence: int) -> None:
        """The host's libvirt shall have these networks of ours and no others."""
        wanted = tuple(networks)
        if wanted == self._networks and self._networks_confirmed == self._networks_wanted:
            self._networks_wanted = self._networks_confirmed = self._networks_tried = sequence
            return
        self._networks, self._networks_wanted = wanted, sequence
        self._converge_networks()

    async def stop(self) -> None:
        """Let go of the host; what it has stays as it is."""
        if self._networks_task is not None:
            self._networks_task.cancel()
            await asyncio.gather(self._networks_task, return_exceptions=True)
        await asyncio.gather(
            self.switch.stop(), self.ovsdb.stop(), *([self.libvirt.stop()] if self.libvirt is not None else [])
        )

    def _open_ovsdb(self) -> HostOvsdb:
        return HostOvsdb(
            self.name, self.spec.ovsdb, self._owner, self._connect,
            lambda vnics, hook: self._watchers.vnics(self.name, vnics, hook),
            lambda: self._watchers.state(self.name),
        )  # fmt: skip

    def _open_libvirt(self) -> LibvirtHost | None:
        if self.spec.libvirt is None:
            return None
        libvirt = LibvirtHost(
            self.name, self.spec.libvirt, asyncio.get_running_loop(),
            on_state=self._libvirt_state, on_domains=lambda domains: self._watchers.domains(self.name),
            on_domain=self._domain, on_networks=self._networks_changed,
        )  # fmt: skip
        libvirt.start()
        return libvirt

    def _libvirt_state(self, up: bool, reason: str) -> None:
        if up:
            self._converge_networks()
        self._watchers.domains(self.name)
        self._watchers.state(self.name)

    def _networks_changed(self, networks: Sequence[NetworkOnHost]) -> None:
        if self._networks_confirmed < self._networks_wanted:
            self._converge_networks()

    def _domain(self, uuid: str, view: DomainView | None, event: str) -> None:
        if _RUNS_HERE & set(event.split(",")):
            self._watchers.moved(self.name, uuid)
        self._watchers.domains(self.name)

    def _converge_networks(self) -> None:
        if self._networks is None or self.libvirt is None:
            return
        if self._networks_task is None or self._networks_task.done():
            self._networks_task = asyncio.get_running_loop().create_task(
                self._bring_networks(), name=f"networks {self.name}"
            )

    async def _bring_networks(self) -> None:
        """Until the host has what is wanted now; when it is away, its next connection starts this again."""
        while self._networks is not None and self.libvirt is not None:
            networks, sequence = self._networks, self._networks_wanted
            try:
                report: NetworksReport = await self.libvirt.converge_networks(networks, self._owner)
            except LibvirtError as error:
                log.debug("%s: networks wait: %s", self.name, error)
                return
            self._networks_tried = max(self._networks_tried, sequence)
            if not report.refused:
                self._networks_confirmed = max(self._networks_confirmed, sequence)
            self._watchers.state(self.name)
            if self._networks_wanted == sequence:
                return
