"""The loop of the whole: rows in, flows and bridges and libvirt networks out, observations back into rows.

Runs on one asyncio loop. An edge carries no command, only "this row changed"; everything is derived from the rows.
"""

from __future__ import annotations

import asyncio
import logging
import platform
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence

from controller.admission import Admission
from controller.agent import HostAgent, Watchers
from controller.arrivals import Arrivals
from controller.bgp.speaker import Speaker
from controller.chronicle import Chronicle
from controller.claims import Claims
from controller.contents import Contents
from controller.desired import HOSTS, LEASES, PHYSICAL_NETWORKS, Desired
from controller.engine import Engine
from controller.errors import FleetError, StoreError
from controller.history import History
from controller.lateness import Lateness
from controller.lldp import Lldp
from controller.model.host import HostSpec, HostStatus
from controller.model.network import DEFAULT_PORTGROUP, network_uuid
from controller.nested import Nested
from controller.openflow.decode import PacketIn
from controller.ovsdb.host import Connect, HookRow, VnicRow
from controller.ovsdb.wanted import wanted_bridges
from controller.pipeline.pipeline import Pipeline
from controller.pipeline.tables import ARRIVED, CLASSIFY, LEARNED
from controller.recorder import Recorder
from controller.services.services import Services
from controller.store.rows import Change, PutStatus, Remove, Write
from controller.store.store import Store
from controller.sweeper import Sweeper
from controller.switch import Switch
from controller.troubles import Troubles
from topology.guests import Guests, HostView, Wanted, strays
from topology.hook import published
from topology.host_networks import WantedNetwork
from topology.judgement import Witness
from topology.libvirt_host import LibvirtHost

log = logging.getLogger(__name__)

_OWNER_POOL = "fleet"
_RETRY_SECONDS = 0.5
_SWEEP_SECONDS = 5.0
_LEFT_BEHIND_SWEEPS = 2  # a guest that starts has its row before it has its device


class Coordinator:
    """``start()`` it before any switch may connect: what a switch has is compared with what all rows say.

    ``controllers`` is what hosts are told to connect to, such as ``tcp:10.0.0.1:6653``; ``epoch`` that of the lease.
    """

    def __init__(
        self, store: Store, pipeline: Pipeline, connect: Connect, controllers: Sequence[str], epoch: int
    ) -> None:
        self.store = store
        self.desired = Desired(store)
        self.engine = Engine(pipeline)
        self.guests = Guests()
        self.agents: dict[str, HostAgent] = {}
        self.undriven: dict[str, str] = {}  # hosts that could not be given what they should have, and why
        self.history = History()
        self.recorder = Recorder(self.history)
        self.lateness = Lateness()
        self.troubles = Troubles()
        self._chronicle = Chronicle(store, self.history)
        self.admission = Admission(self.desired, self.agents, controllers, self.recorder.turned_away)
        self.lldp = Lldp(self.desired, self.agents)
        self.services = Services(store, self.desired, self.engine, self._send)
        self.claims = Claims(
            self.desired, self.engine.fabric, self.guests, lambda host: self._judge({host}), time.monotonic
        )
        self.bgp = Speaker(self.desired, self.engine.fabric, self.history, self._notify)
        self.sequence = 0  # counts changes of rows
        self.settled = 0  # the last of them that concerned bridges and libvirt networks
        self.judged = 0  # up to here every vNIC was judged by what the rows say
        self.changing = asyncio.Lock()  # held from the check of a change to its commit
        self._connect = connect
        self._controllers = tuple(controllers)
        self._epoch = epoch
        self._owner = ""
        self._watchers = Watchers(self._on_vnics, self._on_domains, self._on_moved, self._on_state)
        self._waiting: set[asyncio.Event] = set()
        self._stale: set[str] | None = set()  # hosts whose guests are to be judged anew; None: all
        self._asked = self._answered = 0  # how often vNICs were to be judged, and which of these calls is dealt with
        self._publish_wake = asyncio.Event()
        self._stop_watching: Callable[[], None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._contents = Contents()
        self._arrivals = Arrivals(pipeline.number[ARRIVED], self.agents, self._on_arrived)
        self._nested = Nested(pipeline.number[LEARNED], self.engine.fabric, self.agents)
        self._sweeper = Sweeper(store, self.desired, self._confirmed_everywhere)
        self._left_behind: dict[tuple[str, str, VnicRow | str], int] = {}
        self._forced: set[str] = set()  # hosts that leave whatever their libvirt says

    async def start(self) -> None:
        """Read everything, compute everything, begin to connect to the hosts. Raises StoreError."""
        self._owner = await self._fleet_id()
        self.desired.load()
        self.services.leases_changed()
        await self._chronicle.load()
        self.recorder.begin(self.desired.hosts, platform.node())
        self._stop_watching = self.store.watch(self._on_rows)
        self._arrivals.expect(self.desired.statuses, self.desired.statuses)
        self.sequence = 1
        self._recompute(None)
        self._nested.changed(self.desired.statuses, self.desired.statuses)
        self._settle_hosts()
        self._stale = None
        self._publish_wake.set()
        self._spawn(self._publish(), "publish")
        self._spawn(self._sweep(), "sweep")
        self._spawn(self._chronicle.run(), "chronicle")
        self._spawn(self.lldp.run(self._owner), "lldp")
        self._spawn(self.lateness.run(), "lateness")
        self._spawn(self.bgp.run(), "bgp")
        for name, work in self.services.work().items():
            self._spawn(work, name)

    async def stop(self) -> None:
        """Let go of every host. They keep what they have and go on forwarding."""
        if self._stop_watching is not None:
            self._stop_watching()
        await self._arrivals.stop()
        await self._nested.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.recorder.end(platform.node())
        agents = [agent.stop() for agent in self.agents.values()]
        await asyncio.gather(self._chronicle.finish(), *agents, return_exceptions=True)

    async def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until the condition holds; it is asked again whenever a host's state or a row changes."""
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    await event.wait()
                    event.clear()
                return True
        except TimeoutError:
            return condition()
        finally:
            self._waiting.discard(event)

    # Rows changed.

    def _on_rows(self, changes: Sequence[Change]) -> None:
        changed = self.desired.take(changes)
        self.services.changed(changes)
        leases = [change for change in changes if change.kind == LEASES]
        changes = [change for change in changes if change.kind != LEASES]
        specs = {(c.kind, c.name) for c in changes if (c.old and c.old.spec) != (c.new and c.new.spec)
                 or (c.old is not None and c.new is not None and c.old.deleting != c.new.deleting)}  # fmt: skip
        if leases:
            self._judge(self.services.leases_changed(leases))
        self.sequence += 1
        self._arrivals.expect((name for kind, name in changed if kind == "Port"), self.desired.statuses)
        # A host or network may come with new numbers, which other objects' flows hold as well.
        fundamental = any(kind in {"Host", "Network"} for kind, _ in specs)
        self._recompute(None if fundamental else changed)
        self._nested.changed((name for kind, name in changed if kind == "Port"), self.desired.statuses)
        if fundamental:
            self._settle_hosts()
            self._sweeper.look(self.sequence)
        if specs:
            self._judge(None)
        elif not self._stale:
            self._publish_wake.set()  # so that the rows just written are seen to be as judged
        self._notify()
        self.recorder.rows(changes)

    def _recompute(self, changed: set[tuple[str, str]] | None) -> None:
        deltas = self.engine.update(self.desired.rows(), changed)
        for name, agent in self.agents.items():
            table = self.engine.tables.get(name)
            if table is not None:
                agent.switch.change(table, deltas.get(name), self.sequence)
        self.bgp.look()

    def _settle_hosts(self) -> None:
        """Agents for the hosts that there are, and what their OVSDB and libvirt should have."""
        desired, self.settled = self.desired, self.sequence
        networks = {
            bridge: self._libvirt_networks(bridge) for bridge in {spec.bridge for spec in desired.hosts.values()}
        }
        self._forced &= desired.leaving.keys()
        for name in self.guests.hosts.keys() - desired.hosts.keys() - desired.leaving.keys():
            self.troubles.forget(name)
            self.guests.forget(name)
            if (agent := self.agents.pop(name, None)) is not None:
                self._spawn(agent.stop(), f"let go {name}")
        self.undriven = dict(desired.senseless("Host"))
        for name, spec in {**desired.leaving, **desired.hosts}.items():
            try:
                self._settle_host(name, spec, networks)
            except Exception as error:  # whatever is the matter with one host, the others are driven
                self._not_driven(name, error)

    def _not_driven(self, name: str, error: Exception) -> None:
        log.error("Host %s cannot be driven", name, exc_info=error)
        self.undriven[name] = f"cannot be driven: {error if isinstance(error, FleetError) else repr(error)}"

    def _settle_host(self, name: str, spec: HostSpec, networks: Mapping[str, Sequence[WantedNetwork]]) -> None:
        agent = self.agents.get(name)
        if agent is None:
            agent = HostAgent(name, spec, self._new_switch(name), self._owner, self._connect, self._watchers)
            self.agents[name] = agent
            self.guests.hosts[name] = HostView(Witness.NONE if spec.libvirt is None else Witness.AWAY)
            table = self.engine.tables.get(name)
            if table is not None:
                agent.switch.change(table, None, self.sequence)
        elif agent.spec != spec:
            self.troubles.forget(name)  # whatever is wrong with it may come of this change
            self.troubles.look(agent, self.sequence)
            self._spawn(self._respec(agent), f"respec {name}")
        self._want(agent, networks)

    def _new_switch(self, host: str) -> Switch:
        pipeline = self.engine.pipeline
        # The switch itself writes to a table that somebody learns into; that is no drift.
        watched = [number for table, number in pipeline.number.items() if not table.learned]
        services = {pipeline.number[CLASSIFY]: self.lldp.take, **self.services.tables()}

        def on_packet(packet: PacketIn) -> None:
            # What else is punted comes from the guards of vNICs that learn their addresses.
            services.get(packet.table, self.claims.take)(host, packet)

        return Switch(
            host,
            self._epoch,
            watched,
            lambda: self._on_state(host),
            lambda: self._ports_known(host),
            on_packet,
            self._contents,
        )

    def _send(self, host: str, message: bytes) -> bool:
        """Whether the host's switch could be told."""
        agent = self.agents.get(host)
        return agent is not None and agent.switch.send(message)

    def _want(self, agent: HostAgent, networks: Mapping[str, Sequence[WantedNetwork]]) -> None:
        name, desired = agent.name, self.desired
        if name in desired.leaving:
            agent.ovsdb.want(None, self.sequence)
            agent.want_networks((), self.sequence)
            return
        self._want_bridges(agent)
        agent.want_networks(networks[desired.hosts[name].bridge], self.sequence)

    def _want_bridges(self, agent: HostAgent) -> None:
        desired = self.desired
        bridges = wanted_bridges(
            desired.hosts[agent.name], desired.numbers(HOSTS)[agent.name], desired.numbers(PHYSICAL_NETWORKS),
            self._controllers, published(desired.networks), agent.guarded,
        )  # fmt: skip
        agent.ovsdb.want(bridges, self.sequence)

    def _libvirt_networks(self, bridge: str) -> list[WantedNetwork]:
        return [
            WantedNetwork(name, network_uuid(name, spec), bridge, spec.portgroup_names(), DEFAULT_PORTGROUP)
            for name, spec in sorted(self.desired.networks.items())
        ]

    async def _respec(self, agent: HostAgent) -> None:
        spec = self.desired.hosts.get(agent.name) or self.desired.leaving.get(agent.name)
        if spec is None:
            return
        # What the host told stays until its new connections tell otherwise: guests are not cut off in between.
        try:
            await agent.respec(spec)
        except Exception as error:
            if self.agents.get(agent.name) is agent:
                del self.agents[agent.name]  # the next change tries it anew
                self._not_driven(agent.name, error)
                await agent.stop()
        if agent.name in self.agents:
            self._want(agent, {spec.bridge: self._libvirt_networks(spec.bridge)})

    # Hosts tell.

    def _on_vnics(self, host: str, vnics: Mapping[str, VnicRow], hook: HookRow) -> None:
        view = self.guests.hosts.get(host)
        if view is None:
            return
        fresh = {row.vm_uuid for name, row in vnics.items() if view.vnics.get(name) != row}
        view.vnics, view.hook, view.reached = vnics, hook, True
        agent = self.agents.get(host)
        if view.witness in {Witness.NONE, Witness.HOOK}:
            view.without_libvirt(host)
        if agent is not None and agent.libvirt is not None and view.witness is Witness.AWAY and fresh:
            agent.libvirt.retry()  # a guest has started, so its libvirtd runs
        elif agent is not None and agent.libvirt is not None and view.witness is Witness.PRESENT:
            # OVSDB shows a vNIC before libvirt's event tells of its guest: ask, rather than wait.
            for domain in self.guests.unknown_to_libvirt(host) & fresh - view.asking:
                view.asking.add(domain)
                self._spawn(self._ask(host, domain, agent.libvirt), f"ask {host} about {domain}")
        self._judge({host})

    async def _ports_known(self, host: str) -> None:
        """Return when the rows say of the host's vNICs what its OVSDB says now; at once where they know of none."""
        agent = self.agents.get(host)
        if agent is None or not self.desired.names_ports_of(host):
            return
        await agent.read_anew()
        self._judge({host})
        asked = self._asked
        while not await self.until(lambda: self._answered >= asked, _SWEEP_SECONDS):
            log.debug("%s: its vNICs cannot be judged yet", host)

    def _on_domains(self, host: str) -> None:
        agent, view = self.agents.get(host), self.guests.hosts.get(host)
        if agent is None or view is None:
            return
        if agent.libvirt is None:
            view.without_libvirt(host)
        else:
            view.witness = Witness.PRESENT if agent.libvirt.state == "up" else Witness.AWAY
            view.domains = {uuid: domain for uuid, domain in agent.libvirt.domains.items() if domain.live}
        self._judge({host})

    def _on_arrived(self, host: str, ofports: frozenset[int]) -> None:
        if (view := self.guests.hosts.get(host)) is not None:
            view.arrived = ofports
            self._judge({host})

    def _on_moved(self, host: str, domain: str) -> None:
        self.guests.places.settled[domain] = host

    def _on_state(self, host: str) -> None:
        agent, view = self.agents.get(host), self.guests.hosts.get(host)
        if agent is not None:
            self.recorder.host(agent)
            self.troubles.look(agent, self.sequence)
        if agent is not None and view is not None:
            before = view.alive, view.reached
            view.alive = any(part.state in {"up", "degraded"} for part in agent.parts().values())
            view.reached = view.reached or agent.ovsdb.seen
            if before != (view.alive, view.reached):
                self._judge({host})
            if not agent.guarded and agent.switch.state.confirmed >= 0 and host in self.desired.hosts:
                agent.guarded = True
                self._want_bridges(agent)
        if host in self.desired.leaving:
            self._spawn(self._remove_host(host), f"remove {host}")
        self._notify()

    async def _ask(self, host: str, domain: str, libvirt: LibvirtHost) -> None:
        try:
            await libvirt.domain(domain)
        except FleetError as error:
            log.info("%s", error)
        finally:
            if (view := self.guests.hosts.get(host)) is not None:
                view.asking.discard(domain)
            self._on_domains(host)

    # Observations become rows.

    def _judge(self, hosts: set[str] | None) -> None:
        self._asked += 1
        self._stale = None if hosts is None or self._stale is None else self._stale | hosts
        self._publish_wake.set()

    async def _publish(self) -> None:
        while True:
            await self._publish_wake.wait()
            self._publish_wake.clear()
            stale, self._stale = self._stale, set()
            try:
                await self._publish_once(stale, self._asked)
            except FleetError as error:
                log.warning("observations wait for the store: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)
                self._judge(None)
            except Exception:
                log.exception("the vNICs could not be judged; trying again")
                await asyncio.sleep(_SWEEP_SECONDS)
                self._judge(None)

    async def _publish_once(self, stale: set[str] | None, asked: int) -> None:
        """Write what differs. When nothing does, everything up to this sequence was judged, and all that was asked."""
        sequence = self.sequence
        wanted = Wanted(self.desired.hosts, self.desired.networks, self.desired.registered, self.services.leased)
        changes = self.guests.evaluate(wanted, self.desired.statuses, stale)
        writes: list[Write] = [
            PutStatus("Port", name, status.model_dump(mode="json", exclude_defaults=True), create=True)
            for name, status in changes.statuses.items()
        ]
        writes += self._observed_strays(stale)
        # Somebody may be registering it at this moment: then it is not to be removed, and Conflict says so.
        rows = self.store.rows("Port")
        writes += [Remove("Port", name, rows[name].generation) for name in changes.gone if name in rows]
        if writes:
            await self.store.commit(writes)
        else:
            self.judged, self._answered = sequence, asked
            self._notify()

    def _observed_strays(self, stale: set[str] | None) -> Iterator[Write]:
        """Interfaces that are no guest's, of the hosts that told something new."""
        for name in self.desired.hosts if stale is None else self.desired.hosts.keys() & stale:
            view = self.guests.hosts.get(name)
            if view is None or not view.reached:
                continue
            found = {each: ofport for each in strays(view) if (ofport := view.vnics[each].ofport) is not None}
            if found != self.desired.strays.get(name, {}):
                yield PutStatus("Host", name, HostStatus(strays=found).model_dump(mode="json"))

    # Hosts that leave, numbers that nobody uses.

    async def _remove_host(self, name: str) -> None:
        """Its row goes once nothing of ours is left there."""
        agent = self.agents.get(name)
        if agent is None or name not in self.desired.leaving:
            return
        waits = {what for what, part in agent.parts().items() if part.confirmed < self.settled} - {"openflow"}
        if waits - ({"libvirt"} if name in self._forced else set()):
            return
        try:
            await self.store.commit([Remove("Host", name)])
        except StoreError as error:
            log.warning("%s", error)
        else:
            self._sweeper.host_cleaned(name)
            self._sweeper.look(self.sequence)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            try:
                for name in list(self.desired.leaving):
                    await self._remove_host(name)
                self._drop_left_behind()
                self.recorder.settle(asyncio.get_running_loop().time())
                if left := self.guests.places.left:
                    self._judge(left)  # what stays too long where it was left is told
                self._read_on()
                if ended := self.services.leases_changed():
                    self._judge(ended)
                await self.services.forget()
                async with self.changing:
                    await self._sweeper.sweep()
            except FleetError as error:
                log.warning("%s", error)
            except Exception:
                log.exception("the sweep failed; it goes on")

    def _confirmed_everywhere(self) -> int:
        if self.undriven:
            return -1  # what they have is not known
        states = [(a.switch.state.confirmed, a.ovsdb.state.confirmed) for a in self.agents.values()]
        return min((min(pair) for pair in states), default=self.sequence)

    def _read_on(self) -> None:
        """Hooks that wrote more than is read at once."""
        for name, view in self.guests.hosts.items():
            if view.witness is Witness.HOOK and view.reader.behind:
                view.without_libvirt(name)
                self._judge({name})

    def _drop_left_behind(self) -> None:
        """Rows of guests that do not run any more, once they have been so for a while: whoever gets the name of one
        meanwhile is another."""
        seen = {(host, *left) for host in self.agents for left in self.guests.left_behind(host).items()}
        self._left_behind = {key: self._left_behind.get(key, 0) + 1 for key in seen}
        for name, agent in self.agents.items():
            agent.ovsdb.drop_stale(
                {i: row for (host, i, row), n in self._left_behind.items() if host == name and n > _LEFT_BEHIND_SWEEPS}
            )

    async def _fleet_id(self) -> str:
        """The mark on everything that is ours on hosts; made once, and the same for every controller of the store."""
        known = self.store.numbers(_OWNER_POOL)
        if not known:
            try:
                await self.store.number(_OWNER_POOL, uuid.uuid4().hex[:12], 1, 1)
            except StoreError:
                if not self.store.numbers(_OWNER_POOL):
                    raise
        return next(iter(self.store.numbers(_OWNER_POOL)))

    def _spawn(self, work: object, name: str) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work, name=name)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed", task.get_name(), exc_info=error)

    def unlock_removal(self, host: str) -> None:
        """The operator forces it: a libvirt that does not answer holds the host back no longer."""
        self._forced.add(host)

    def _notify(self) -> None:
        for event in self._waiting:
            event.set()
