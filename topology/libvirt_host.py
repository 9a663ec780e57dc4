"""One host's libvirtd, seen from the asyncio loop: its running domains, its networks, and whether it answers.

    connecting ──► up ──► down ──► (backoff) ──► connecting
                    └───► hung: a call is past its deadline; nothing is asked until it has returned ──► connecting

Events only say what to read again; what is told is always what was read after them. Nothing is replayed by libvirt
after a connection was lost, so each connection begins with a full list. What libvirt tells nobody about (a link that is
set down, a live XML or an autostart that was changed) is found by a glance every few seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import TypeVar

from controller.errors import FleetError, LibvirtError
from topology import libvirt_calls as calls
from topology.domain_xml import DomainView
from topology.host_networks import NetworkOnHost, NetworksReport, WantedNetwork
from topology.lane import Beat, Lane
from topology.libvirt_events import LibvirtEvents
from topology.libvirt_pace import Backoff, Deadlines, about

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_JOINED = 16
"""Events of one domain that are named while they wait to be told as one."""

MAX_DIRTY = 4096
"""Domains that wait to be read after their events. A host has not so many; the next glance reads those beyond."""


class State(StrEnum):
    STOPPED = "stopped"
    CONNECTING = "connecting"
    UP = "up"
    DOWN = "down"
    HUNG = "hung"


class LibvirtHost:
    """All methods and all callbacks on the loop's thread.

    ``on_state(up, reason)``       at each change; up comes after the first lists of a connection
    ``on_domains(snapshot)``       every running or paused domain by UUID, after each connect and when a glance differs
    ``on_domain(uuid, view, event)``  after an event, the domain as read after it; None: it does not run here.
                                   ``event`` names all that were joined: ``started/migrated,resumed/migrated``
    ``on_networks(networks)``      all networks of the host, after each connect and when they changed
    """

    def __init__(
        self,
        host_name: str,
        uri: str,
        loop: asyncio.AbstractEventLoop,
        deadlines: Deadlines | None = None,
        *,
        on_state: Callable[[bool, str], None],
        on_domains: Callable[[Mapping[str, DomainView]], None],
        on_domain: Callable[[str, DomainView | None, str], None],
        on_networks: Callable[[Sequence[NetworkOnHost]], None],
    ) -> None:
        self.name = host_name
        self.uri = uri  # as controller.model.libvirt_uri lets it through
        self._loop = loop
        self._deadlines = deadlines or Deadlines()
        self._on_state, self._on_domains, self._on_domain = on_state, on_domains, on_domain
        self._on_networks = on_networks
        self._wake = asyncio.Event()
        self._backoff = Backoff(self._deadlines.backoff_min, self._deadlines.backoff_max)
        self._lane = Lane(f"host {host_name}", loop, self._wake_up)
        self._task: asyncio.Task[None] | None = None
        self._state, self._reason = State.STOPPED, ""
        self.version = ""  # of libvirt there, as the last connection told it
        self._told = (self._state, self._reason)
        self._connection: calls.Connection | None = None
        self._to_close: list[calls.Connection] = []
        self._generation = 0
        self._lost = ""
        self._dirty: dict[str, list[str]] = {}
        self._networks_dirty = False
        self._networks_due = False
        self._standing: bytes | None = None
        self._domains: dict[str, DomainView] = {}
        self._networks: tuple[NetworkOnHost, ...] = ()
        self._domain_errors: dict[str, LibvirtError] = {}
        self._network_errors: list[LibvirtError] = []
        self._wanted: tuple[tuple[WantedNetwork, ...], str] | None = None
        self._report = NetworksReport()

    # What is known

    @property
    def state(self) -> State:
        return self._state

    @property
    def reason(self) -> str:
        """Why it is not up; empty when it is."""
        return self._reason

    @property
    def domains(self) -> Mapping[str, DomainView]:
        """As last read; kept while the host does not answer."""
        return self._domains

    @property
    def networks(self) -> Sequence[NetworkOnHost]:
        return self._networks

    @property
    def networks_report(self) -> NetworksReport:
        """Of the last convergence, the audit's repairs included."""
        return self._report

    @property
    def not_understood(self) -> Sequence[str]:
        """Domains, interfaces and networks whose XML makes no sense, each with the place and what to do."""
        errors = [*self._domain_errors.values(), *self._network_errors]
        return sorted([*map(str, errors), *(str(p) for view in self._domains.values() for p in view.problems)])

    # What is asked

    def start(self) -> None:
        LibvirtEvents.start()
        if self._task is None:
            self._task = self._loop.create_task(self._run(), name=f"libvirt {self.name}")

    def retry(self) -> None:
        """Something says that libvirtd is back: connect now rather than after the pause."""
        self._backoff.hurry()

    async def stop(self) -> None:
        """Ends within two calls' deadlines, also when libvirtd hangs."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None
        self._disconnect()
        try:
            await self._lane.run("closing the connection", self._close_left, self._deadlines.call)
        except LibvirtError as error:
            log.warning("%s: its connection is closed when it answers again", error)
            closing = self._loop.create_task(self._close_later(), name=f"closing libvirt {self.name}")
            _CLOSING.add(closing)
            closing.add_done_callback(_CLOSING.discard)
        self._set_state(State.STOPPED, "stopped")

    async def domain(self, uuid: str) -> DomainView | None:
        """That domain as it is now; None when it does not run there. Raises LibvirtError when libvirtd cannot say."""
        view = await self._call(
            f"reading domain {uuid}", lambda connection, beat: calls.read_domain(connection, uuid, self.name)
        )
        self._remember(uuid, view)
        return view

    async def info(self) -> calls.HostInfo:
        return await self._call("asking what it is", lambda connection, beat: calls.host_info(connection, self.name))

    async def network_xml(self, name: str) -> str | None:
        """A network of the host as it is defined there; None when there is none of that name. Raises LibvirtError."""
        return await self._call(
            f"reading network {name}", lambda connection, beat: calls.network_xml(connection, name, self.name)
        )

    async def converge_networks(self, wanted: Sequence[WantedNetwork], owner_id: str) -> NetworksReport:
        """Brings the host's libvirt networks to ``wanted``, and keeps them there: events and the audit repair.

        What is wanted is remembered though the host is away (LibvirtError): the next connection begins with it.
        """
        self._wanted = (tuple(wanted), owner_id)
        return await self._converge()

    # The life of a connection

    async def _run(self) -> None:
        while True:
            try:
                await self._lane.freed()
                self._set_state(State.CONNECTING, self._reason or "not connected yet")
                await self._connect()
                await self._resync()
                self._backoff.reset()
                self._set_state(State.UP, "")
                await self._serve()
            except FleetError as error:
                self._set_state(State.HUNG if self._lane.stuck else State.DOWN, str(error))
            except Exception as error:
                log.exception("host %s: libvirt", self.name)
                self._set_state(State.DOWN, f"a fault of fleetswitch: {error!r}")
            self._disconnect()
            await self._backoff.pause()

    async def _connect(self) -> None:
        self._generation += 1
        self._lost = ""
        self._dirty.clear()
        self._networks_dirty = False
        callbacks = self._callbacks(self._generation)

        def connect(beat: Beat) -> calls.Connection:
            self._close_left(beat)
            connection = calls.open_connection(self.uri, f"host {self.name}", callbacks)
            self._to_close.append(connection)  # until the loop has taken it, which may have stopped waiting
            if self._state is State.STOPPED:
                self._close_left(beat)
            return connection

        connection = await self._lane.run(f"connecting to {self.uri}", connect, self._deadlines.open)
        self._to_close.remove(connection)
        self._connection, self.version = connection, connection.version

    def _disconnect(self) -> None:
        """Closing blocks: the next thread of the lane does it."""
        self._generation += 1
        if self._connection is not None:
            self._to_close.append(self._connection)
            self._connection = None

    def _close_left(self, beat: Beat) -> None:
        while self._to_close:
            calls.close_connection(self._to_close[-1])
            self._to_close.pop()
            beat()

    async def _close_later(self) -> None:
        """Nobody else may: a connection that is collected as garbage is closed too, on whatever thread that happens."""
        while self._to_close:
            await self._lane.freed()
            with contextlib.suppress(LibvirtError):
                await self._lane.run("closing the connection", self._close_left, self._deadlines.call)

    async def _resync(self) -> None:
        await self._read_domains(force=True)
        if self._wanted is None:
            await self._read_networks(force=True)
        else:
            await self._converge()

    async def _serve(self) -> None:
        """Until the connection is lost, or somebody's call hangs (LibvirtError)."""
        now = self._loop.time()
        glance, audit = now + about(self._deadlines.glance), now + about(self._deadlines.audit)
        while True:
            self._lane.refuse_if_stuck()
            if self._lost or self._connection is None or not calls.is_alive(self._connection):
                raise LibvirtError(f"connection lost: {self._lost or 'it is closed'}", where=f"host {self.name}")
            if self._dirty:
                uuid = next(iter(self._dirty))
                await self._read_domain(uuid, ",".join(self._dirty.pop(uuid)))
            elif self._networks_dirty:
                self._networks_dirty = False
                # our own changes raise events too: only a list that differs from what we left asks for work
                if await self._read_networks() or self._networks_due:
                    await self._converge()
            elif self._loop.time() >= audit:
                audit = self._loop.time() + about(self._deadlines.audit)
                await (self._read_networks() if self._wanted is None else self._converge())
            elif self._loop.time() >= glance:
                glance = self._loop.time() + about(self._deadlines.glance)
                await self._glance()
            else:
                await self._sleep_until(min(glance, audit))

    async def _sleep_until(self, when: float) -> None:
        self._wake.clear()
        if self._lost or self._dirty or self._networks_dirty or self._lane.stuck:
            return
        try:
            async with asyncio.timeout_at(when):
                await self._wake.wait()
        except TimeoutError:
            return

    # Reading

    async def _glance(self) -> None:
        await self._read_domains(within=self._deadlines.look)
        standing = await self._call(
            "listing networks", lambda connection, beat: calls.standing_networks(connection, self.name)
        )
        if standing != self._standing:
            self._standing, self._networks_dirty = standing, True

    async def _read_domains(self, force: bool = False, within: float | None = None) -> None:
        views, errors = await self._call(
            "listing domains", lambda connection, beat: calls.list_domains(connection, self.name, beat), within
        )
        # a domain that cannot be understood now is what it was: a fault must not take a guest off the network
        views |= {uuid: self._domains[uuid] for uuid in errors if uuid in self._domains}
        self._domain_errors = errors
        if force or views != self._domains:
            self._domains = views
            self._on_domains(dict(views))

    async def _read_domain(self, uuid: str, event: str) -> None:
        try:
            view = await self._call(
                f"reading domain {uuid}", lambda connection, beat: calls.read_domain(connection, uuid, self.name)
            )
        except LibvirtError as error:
            if self._lane.stuck or self._connection is None or not calls.is_alive(self._connection):
                raise
            log.warning("after %s: %s", event, error)
            self._domain_errors[uuid] = error
            return
        self._remember(uuid, view)
        self._on_domain(uuid, view, event)
        if view is None and self._report.refused:
            # it may have been the last guest of a network that waits for that
            self._networks_dirty = self._networks_due = True

    async def _read_networks(self, force: bool = False) -> bool:
        networks, errors = await self._call(
            "listing networks", lambda connection, beat: calls.list_networks(connection, self.name, beat)
        )
        self._network_errors = errors
        return self._tell_networks(networks, force)

    def _tell_networks(self, networks: tuple[NetworkOnHost, ...], force: bool = False) -> bool:
        changed = networks != self._networks
        self._networks = networks
        if changed or force:
            self._on_networks(networks)
        return changed

    async def _converge(self) -> NetworksReport:
        if self._wanted is None:
            return NetworksReport()
        self._networks_due = False
        wanted, owner_id = self._wanted
        plugged = {vnic.network for domain in self._domains.values() for vnic in domain.vnics if vnic.network}
        report, networks, errors = await self._call(
            "bringing networks up to date",
            lambda connection, beat: calls.converge_networks(connection, self.name, wanted, owner_id, plugged, beat),
        )
        self._network_errors = errors
        for name, done in report.changed.items():
            log.info("host %s: network %s: %s", self.name, name, done)
        for name, reason in report.refused.items():
            if self._report.refused.get(name) != reason:
                log.warning("host %s: network %s: %s", self.name, name, reason)
                # Somebody may have changed it meanwhile, whose event tells of what was read already; once, for a
                # libvirtd that shows it otherwise for ever tells of each change of ours.
                self._networks_due = True
        self._report = report
        self._tell_networks(networks)
        return report

    def _remember(self, uuid: str, view: DomainView | None) -> None:
        self._domain_errors.pop(uuid, None)
        if view is None:
            self._domains.pop(uuid, None)
        else:
            self._domains[uuid] = view

    async def _call(self, what: str, call: Callable[[calls.Connection, Beat], T], within: float | None = None) -> T:
        connection = self._connection
        if connection is None:
            raise LibvirtError(f"not connected: {self._reason or self._state}", where=f"host {self.name}")
        return await self._lane.run(what, lambda beat: call(connection, beat), within or self._deadlines.call)

    # From libvirt's event thread

    def _callbacks(self, generation: int) -> calls.Callbacks:
        def post(receive: Callable[[str, str], None], first: str, second: str) -> None:
            def receive_now() -> None:
                if generation == self._generation:  # else it is about a connection that was given up
                    receive(first, second)
                    self._wake_up()

            try:
                self._loop.call_soon_threadsafe(receive_now)
            except RuntimeError:
                return  # the loop is closed: the program ends

        return calls.Callbacks(
            domain=lambda uuid, event: post(self._domain_event, uuid, event),
            network=lambda name, event: post(self._network_event, name, event),
            closed=lambda reason: post(self._closed, reason, ""),
        )

    def _wake_up(self) -> None:
        self._wake.set()

    def _domain_event(self, uuid: str, event: str) -> None:
        if len(self._dirty) >= MAX_DIRTY and uuid not in self._dirty:
            return
        joined = self._dirty.setdefault(uuid, [])
        if len(joined) < MAX_JOINED:
            joined.append(event)

    def _network_event(self, name: str, event: str) -> None:
        log.debug("host %s: network %s: %s", self.name, name, event)
        self._networks_dirty = True

    def _closed(self, reason: str, _: str) -> None:
        self._lost = reason

    def _set_state(self, state: State, reason: str) -> None:
        self._state, self._reason = state, reason
        if state is State.CONNECTING or self._told == (state, reason):
            return
        self._told = (state, reason)
        level = logging.INFO if state in (State.UP, State.STOPPED) else logging.WARNING
        log.log(level, "host %s: libvirt is %s: %s", self.name, state, reason or self.uri)
        self._on_state(state is State.UP, reason)


_CLOSING: set[asyncio.Task[None]] = set()
"""The loop itself holds its tasks weakly."""
