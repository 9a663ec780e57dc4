"""Observations into rows: what hosts tell of their guests is judged, and what comes of it written."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping

from controller.agent import HostAgent
from controller.desired import Desired
from controller.errors import FleetError
from controller.model.host import HostStatus
from controller.ovsdb.host import HookRow, VnicRow
from controller.store.rows import PutStatus, Remove, Write
from controller.store.store import Store
from controller.tasks import Tasks
from topology.guests import Guests, strays
from topology.index import Wanted
from topology.judgement import Witness
from topology.libvirt_host import LibvirtHost

log = logging.getLogger(__name__)

_RETRY_SECONDS = 0.5
_FAULT_SECONDS = 5.0  # until it is tried again after a fault of ours


class Observer:
    """Everything on the loop. ``leased()`` are addresses by network and MAC; ``allot()`` gives hosts what
    they need for the guests that are there, and says whether that was anything; ``notify()``: all was judged."""

    def __init__(
        self,
        store: Store,
        desired: Desired,
        guests: Guests,
        agents: Mapping[str, HostAgent],
        leased: Callable[[], Mapping[tuple[str, str], tuple[str, ...]]],
        tasks: Tasks,
        allot: Callable[[], Awaitable[bool]],
        notify: Callable[[], None],
    ) -> None:
        self.judged = 0  # up to this sequence every vNIC was judged by what the rows say
        self.asked = self.answered = 0  # how often vNICs were to be judged, and which of these calls is dealt with
        self._store = store
        self._desired = desired
        self._guests = guests
        self._agents = agents
        self._leased = leased
        self._tasks = tasks
        self._allot = allot
        self._notify = notify
        self._stale: set[str] | None = None  # hosts whose guests are to be judged anew; None: all
        self._wake = asyncio.Event()

    # Hosts tell.

    def vnics(self, host: str, vnics: Mapping[str, VnicRow], hook: HookRow) -> None:
        """What the host's OVSDB has of vNICs, and of its hook."""
        view = self._guests.hosts.get(host)
        if view is None:
            return
        fresh = {row.vm_uuid for name, row in vnics.items() if view.vnics.get(name) != row}
        view.vnics, view.hook, view.reached = vnics, hook, True
        agent = self._agents.get(host)
        if view.witness in {Witness.NONE, Witness.HOOK}:
            view.without_libvirt(host)
        if agent is not None and agent.libvirt is not None and view.witness is Witness.AWAY and fresh:
            agent.libvirt.retry()  # a guest has started, so its libvirtd runs
        elif agent is not None and agent.libvirt is not None and view.witness is Witness.PRESENT:
            # OVSDB shows a vNIC before libvirt's event tells of its guest: ask, rather than wait.
            for domain in self._guests.unknown_to_libvirt(host) & fresh - view.asking:
                view.asking.add(domain)
                self._tasks.spawn(self._ask(host, domain, agent.libvirt), f"ask {host} about {domain}")
        self.judge({host})

    async def _ask(self, host: str, domain: str, libvirt: LibvirtHost) -> None:
        try:
            await libvirt.domain(domain)
        except FleetError as error:
            log.info("%s", error)
        finally:
            if (view := self._guests.hosts.get(host)) is not None:
                view.asking.discard(domain)
            self.domains(host)

    def domains(self, host: str) -> None:
        """Its libvirt told something of its guests, came or went."""
        agent, view = self._agents.get(host), self._guests.hosts.get(host)
        if agent is None or view is None:
            return
        if agent.libvirt is None:
            view.without_libvirt(host)
        else:
            view.witness = Witness.PRESENT if agent.libvirt.state == "up" else Witness.AWAY
            view.domains = {uuid: domain for uuid, domain in agent.libvirt.domains.items() if domain.live}
        self.judge({host})

    def arrived(self, host: str, ofports: frozenset[int]) -> None:
        """Guests that were copied there have sent their first frames, from these OpenFlow ports."""
        if (view := self._guests.hosts.get(host)) is not None:
            view.arrived = ofports
            self.judge({host})

    def moved(self, host: str, domain: str) -> None:
        """By the word of the host's libvirt, the guest runs there and on no other."""
        self._guests.places.settled[domain] = host

    def connected(self, host: str, agent: HostAgent) -> None:
        """A connection to the host came or went."""
        if (view := self._guests.hosts.get(host)) is None:
            return
        before = view.alive, view.reached
        view.alive = any(part.state in {"up", "degraded"} for part in agent.parts().values())
        view.reached = view.reached or agent.ovsdb.seen
        if before != (view.alive, view.reached):
            self.judge({host})

    def read_on(self) -> None:
        """Hooks that wrote more than is read at once."""
        for name, view in self._guests.hosts.items():
            if view.witness is Witness.HOOK and view.reader.behind:
                view.without_libvirt(name)
                self.judge({name})

    # It becomes rows.

    def judge(self, hosts: set[str] | None) -> None:
        """Judge these hosts' vNICs anew, soon; None: all."""
        self.asked += 1
        self._stale = None if hosts is None or self._stale is None else self._stale | hosts
        self._wake.set()

    def look(self) -> None:
        """Rows changed by which no vNIC is judged: see that those just written are as judged."""
        self._wake.set()

    async def run(self) -> None:
        """Write what differs from the rows, for as long as it is not cancelled."""
        self.judge(None)
        while True:
            await self._wake.wait()
            self._wake.clear()
            stale, self._stale = self._stale, set()
            try:
                await self._publish(stale, self.asked)
            except FleetError as error:
                log.warning("observations wait for the store: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)
                self.judge(None)
            except Exception:
                log.exception("the vNICs could not be judged; trying again")
                await asyncio.sleep(_FAULT_SECONDS)
                self.judge(None)

    async def _publish(self, stale: set[str] | None, asked: int) -> None:
        """Write what differs. When nothing does, everything up to this sequence was judged, and all that was asked."""
        desired, sequence = self._desired, self._desired.sequence
        floating = [spec.address for spec in desired.floating.values()]
        wanted = Wanted(desired.hosts, desired.networks, desired.registered, self._leased(), floating)
        changes = self._guests.evaluate(wanted, desired.statuses, stale)
        writes: list[Write] = [
            PutStatus("Port", name, status.model_dump(mode="json", exclude_defaults=True), create=True)
            for name, status in changes.statuses.items()
        ]
        writes += self._strays(stale)
        # Somebody may be registering it at this moment: then it is not to be removed, and Conflict says so.
        rows = self._store.rows("Port")
        writes += [Remove("Port", name, rows[name].generation) for name in changes.gone if name in rows]
        if writes:
            await self._store.commit(writes)
        elif await self._allot():
            self._wake.set()
        else:
            self.judged, self.answered = sequence, asked
            self._notify()

    def _strays(self, stale: set[str] | None) -> Iterator[Write]:
        """Interfaces that are no guest's, of the hosts that told something new."""
        for name in self._desired.hosts if stale is None else self._desired.hosts.keys() & stale:
            view = self._guests.hosts.get(name)
            if view is None or not view.reached:
                continue
            found = {each: ofport for each in strays(view) if (ofport := view.vnics[each].ofport) is not None}
            if found != self._desired.strays.get(name, {}):
                yield PutStatus("Host", name, HostStatus(strays=found).model_dump(mode="json"))
