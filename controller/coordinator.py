"""The loop of the whole: rows in, flows and bridges and libvirt networks out (driver.py), observations back into rows
(observer.py).

Runs on one asyncio loop. An edge carries no command, only "this row changed"; everything is derived from the rows.
"""

from __future__ import annotations

import asyncio
import logging
import platform
import time
import uuid
from collections.abc import Callable, Sequence

from controller.admission import Admission
from controller.agent import HostAgent, Watchers
from controller.arrivals import Arrivals
from controller.bgp.speaker import Speaker
from controller.chronicle import Chronicle
from controller.claims import Claims
from controller.contents import Contents
from controller.desired import LEASES, Desired
from controller.driver import Driver
from controller.engine import Engine
from controller.errors import FleetError, StoreError
from controller.history import History
from controller.lateness import Lateness
from controller.lldp import Lldp
from controller.model.host import HostSpec
from controller.nat_addresses import NatAddresses
from controller.nested import Nested
from controller.observer import Observer
from controller.openflow.decode import PacketIn
from controller.ovsdb.host import Connect
from controller.pipeline.pipeline import Pipeline
from controller.pipeline.tables import ARRIVED, CLASSIFY, LEARNED
from controller.recorder import Recorder
from controller.services.handovers import Handovers
from controller.services.services import Services
from controller.store.rows import Change, Row
from controller.store.store import Store
from controller.sweeper import Sweeper
from controller.switch import Switch
from controller.tasks import Tasks
from controller.troubles import Troubles
from topology.guests import Guests

log = logging.getLogger(__name__)

_OWNER_POOL = "fleet"
_SWEEP_SECONDS = 5.0


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
        self.history = History()
        self.recorder = Recorder(self.history)
        self.lateness = Lateness()
        self.troubles = Troubles()
        self._tasks = Tasks()
        self.driver = Driver(
            store, self.desired, self.engine, self.guests, self.troubles, self._tasks, controllers, self._new_agent
        )
        self.agents = self.driver.agents
        self.services = Services(store, self.desired, self.engine, self.driver.send)
        self.changing = asyncio.Lock()  # held from the check of a change to its commit
        self.nat_addresses = NatAddresses(store, self.desired, self.engine.fabric, self.changing, self._allotted)
        self.observer = Observer(
            store, self.desired, self.guests, self.agents, lambda: self.services.leased, self._tasks,
            self.nat_addresses.allot, self._notify,
        )  # fmt: skip
        self._chronicle = Chronicle(store, self.history)
        self.admission = Admission(self.desired, self.agents, controllers, self.recorder.turned_away)
        self.lldp = Lldp(self.desired, self.agents)
        self.claims = Claims(
            self.desired, self.engine.fabric, self.guests, lambda host: self.observer.judge({host}), time.monotonic
        )
        self.bgp = Speaker(self.desired, self.engine.fabric, self.history, self._notify)
        self.handovers = Handovers(
            self.engine.fabric, lambda: self.sequence, self.driver.confirmed_by, self.driver.send
        )
        self._connect = connect
        self._epoch = epoch
        self._owner = ""
        self._watchers = Watchers(self.observer.vnics, self.observer.domains, self.observer.moved, self._on_state)
        self._waiting: set[asyncio.Event] = set()
        self._stop_watching: Callable[[], None] | None = None
        self._contents = Contents()
        self._arrivals = Arrivals(pipeline.number[ARRIVED], self.agents, self.observer.arrived)
        self._nested = Nested(pipeline.number[LEARNED], self.engine.fabric, self.agents)
        self._sweeper = Sweeper(store, self.desired, self.driver.confirmed)

    @property
    def sequence(self) -> int:
        """Counts changes of rows."""
        return self.desired.sequence

    async def start(self) -> None:
        """Read everything, compute everything, begin to connect to the hosts. Raises StoreError."""
        self._owner = await self._fleet_id()
        self.desired.load()
        self.services.leases_changed()
        await self._chronicle.load()
        self.recorder.begin(self.desired.hosts, platform.node())
        self._stop_watching = self.store.watch(self._on_rows)
        self._arrivals.expect(self.desired.statuses, self.desired.statuses)
        self._recompute(None)
        self._nested.changed(self.desired.statuses, self.desired.statuses)
        self.driver.settle_hosts()
        self._sweeper.look(self.sequence)
        self._tasks.spawn(self.observer.run(), "observer")
        self._tasks.spawn(self._sweep(), "sweep")
        self._tasks.spawn(self._chronicle.run(), "chronicle")
        self._tasks.spawn(self.lldp.run(self._owner), "lldp")
        self._tasks.spawn(self.lateness.run(), "lateness")
        self._tasks.spawn(self.bgp.run(), "bgp")
        self._tasks.spawn(self.handovers.run(), "handovers")
        for name, work in self.services.work().items():
            self._tasks.spawn(work, name)

    async def stop(self) -> None:
        """Let go of every host. They keep what they have and go on forwarding."""
        if self._stop_watching is not None:
            self._stop_watching()
        await self._arrivals.stop()
        await self._nested.stop()
        await self._tasks.stop()
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
        senseless = self.desired.left_out
        changed = self.desired.take(changes)
        self.services.changed(changes)
        leases = [change for change in changes if change.kind == LEASES]
        changes = [change for change in changes if change.kind != LEASES]
        specs = {(change.kind, change.name) for change in changes if _wanted(change.old) != _wanted(change.new)}
        specs |= senseless ^ self.desired.left_out  # with its status, what was wanted by the row is left out
        if leases:
            self.observer.judge(self.services.leases_changed(leases))
        self._arrivals.expect((name for kind, name in changed if kind == "Port"), self.desired.statuses)
        self._recompute(changed)
        self._nested.changed((name for kind, name in changed if kind == "Port"), self.desired.statuses)
        if any(kind in {"Host", "Network"} for kind, _ in specs):
            self.driver.settle_hosts()
            self._sweeper.look(self.sequence)
        if specs:
            self.observer.judge(None)
        else:
            self.observer.look()
        self._notify()
        self.recorder.rows(changes)

    def _recompute(self, changed: set[tuple[str, str]] | None) -> None:
        self.driver.recompute(changed)
        self.bgp.look()
        self.handovers.look()

    def _allotted(self, names: set[tuple[str, str]]) -> None:
        self._recompute(names)
        self.services.allotted()

    def _new_agent(self, name: str, spec: HostSpec) -> HostAgent:
        return HostAgent(name, spec, self._new_switch(name), self._owner, self._connect, self._watchers)

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

    # Hosts tell.

    async def _ports_known(self, host: str) -> None:
        """Return when the rows say of the host's vNICs what its OVSDB says now; at once where they know of none."""
        agent = self.agents.get(host)
        if agent is None or not self.desired.names_ports_of(host):
            return
        await agent.read_anew()
        self.observer.judge({host})
        asked = self.observer.asked
        while not await self.until(lambda: self.observer.answered >= asked, _SWEEP_SECONDS):
            log.debug("%s: its vNICs cannot be judged yet", host)

    def _on_state(self, host: str) -> None:
        if (agent := self.agents.get(host)) is not None:
            self.recorder.host(agent)
            self.troubles.look(agent, self.sequence)
            self.observer.connected(host, agent)
            self.driver.guard(agent)
        if host in self.desired.leaving:
            self._tasks.spawn(self._remove_host(host), f"remove {host}")
        self._notify()

    # Hosts that leave, numbers that nobody uses.

    async def _remove_host(self, name: str) -> None:
        if await self.driver.remove(name):
            self._sweeper.host_cleaned(name)
            self._sweeper.look(self.sequence)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            try:
                for name in list(self.desired.leaving):
                    await self._remove_host(name)
                self.driver.drop_left_behind()
                self.recorder.settle(asyncio.get_running_loop().time())
                if left := self.guests.places.left:
                    self.observer.judge(left)  # what stays too long where it was left is told
                self.observer.read_on()
                if ended := self.services.leases_changed():
                    self.observer.judge(ended)
                await self.services.forget()
                async with self.changing:
                    await self._sweeper.sweep()
                if self.nat_addresses.lacking:
                    self.observer.look()  # what went back is given to who lacks one
            except FleetError as error:
                log.warning("%s", error)
            except Exception:
                log.exception("the sweep failed; it goes on")

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

    def _notify(self) -> None:
        for event in self._waiting:
            event.set()


def _wanted(row: Row | None) -> tuple[object, bool] | None:
    """What somebody wants by the row; None where it only says what was observed, or is none."""
    if row is None or (row.kind == "Port" and not row.spec):
        return None
    return row.spec, row.deleting
