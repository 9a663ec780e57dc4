"""Rows into agents: every host has one, which is told what its switch, its bridges and its libvirt should have."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from controller.agent import HostAgent
from controller.desired import HOSTS, PHYSICAL_NETWORKS, Desired
from controller.engine import Engine
from controller.errors import FleetError, StoreError
from controller.model.host import HostSpec
from controller.model.network import DEFAULT_PORTGROUP, network_uuid
from controller.ovsdb.host import VnicRow
from controller.ovsdb.wanted import wanted_bridges
from controller.store.rows import Remove
from controller.store.store import Store
from controller.tasks import Tasks
from controller.troubles import Troubles
from topology.guests import Guests, HostView
from topology.hook import published
from topology.host_networks import WantedNetwork
from topology.judgement import Witness

log = logging.getLogger(__name__)

_LEFT_BEHIND_SWEEPS = 2  # a guest that starts has its row before it has its device


class Driver:
    """Everything on the loop. ``new_agent(name, spec)`` makes the agent of a host; ``controllers`` is what hosts are
    told to connect to."""

    def __init__(
        self,
        store: Store,
        desired: Desired,
        engine: Engine,
        guests: Guests,
        troubles: Troubles,
        tasks: Tasks,
        controllers: Sequence[str],
        new_agent: Callable[[str, HostSpec], HostAgent],
    ) -> None:
        self.agents: dict[str, HostAgent] = {}
        self.undriven: dict[str, str] = {}  # hosts that could not be given what they should have, and why
        self.settled = 0  # the last sequence that concerned bridges and libvirt networks
        self._store = store
        self._desired = desired
        self._engine = engine
        self._guests = guests
        self._troubles = troubles
        self._tasks = tasks
        self._controllers = tuple(controllers)
        self._new_agent = new_agent
        self._left_behind: dict[tuple[str, str, VnicRow | str], int] = {}
        self._forced: set[str] = set()  # hosts that leave whatever their libvirt says
        self._published: str | None = None  # what hooks are told of networks, made once for all hosts

    # What hosts should have.

    def recompute(self, changed: set[tuple[str, str]] | None) -> None:
        """The flows of every switch, after these rows (kind, name) changed; None: any may have."""
        deltas = self._engine.update(self._desired.rows(), changed)
        for name, agent in self.agents.items():
            table = self._engine.tables.get(name)
            if table is not None:
                agent.switch.change(table, deltas.get(name), self._desired.sequence)

    def settle_hosts(self) -> None:
        """Agents for the hosts that there are, and what their OVSDB and libvirt should have."""
        desired, self.settled = self._desired, self._desired.sequence
        networks = {
            bridge: self._libvirt_networks(bridge) for bridge in {spec.bridge for spec in desired.hosts.values()}
        }
        self._published = published(desired.networks)
        self._forced &= desired.leaving.keys()
        for name in self._guests.hosts.keys() - desired.hosts.keys() - desired.leaving.keys():
            self._troubles.forget(name)
            self._guests.forget(name)
            if (agent := self.agents.pop(name, None)) is not None:
                self._tasks.spawn(agent.stop(), f"let go {name}")
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
            agent = self.agents[name] = self._new_agent(name, spec)
            self._guests.hosts[name] = HostView(Witness.NONE if spec.libvirt is None else Witness.AWAY)
            table = self._engine.tables.get(name)
            if table is not None:
                agent.switch.change(table, None, self._desired.sequence)
        elif agent.spec != spec:
            self._troubles.forget(name)  # whatever is wrong with it may come of this change
            self._troubles.look(agent, self._desired.sequence)
            self._tasks.spawn(self._respec(agent), f"respec {name}")
        self._want(agent, networks)

    async def _respec(self, agent: HostAgent) -> None:
        spec = self._desired.hosts.get(agent.name) or self._desired.leaving.get(agent.name)
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

    def _want(self, agent: HostAgent, networks: Mapping[str, Sequence[WantedNetwork]]) -> None:
        name, desired = agent.name, self._desired
        if name in desired.leaving:
            agent.ovsdb.want(None, desired.sequence)
            agent.want_networks((), desired.sequence)
            return
        self._want_bridges(agent)
        agent.want_networks(networks[desired.hosts[name].bridge], desired.sequence)

    def _want_bridges(self, agent: HostAgent) -> None:
        desired = self._desired
        bridges = wanted_bridges(
            desired.hosts[agent.name], desired.numbers(HOSTS)[agent.name], desired.numbers(PHYSICAL_NETWORKS),
            self._controllers, self._published, agent.guarded,
        )  # fmt: skip
        agent.ovsdb.want(bridges, desired.sequence)

    def _libvirt_networks(self, bridge: str) -> list[WantedNetwork]:
        return [
            WantedNetwork(name, network_uuid(name, spec), bridge, spec.portgroup_names(), DEFAULT_PORTGROUP)
            for name, spec in sorted(self._desired.networks.items())
        ]

    # What they have of it.

    def guard(self, agent: HostAgent) -> None:
        """Let its uplinks' frames in, as soon as its switch has all of its flows."""
        if not agent.guarded and agent.switch.state.confirmed >= 0 and agent.name in self._desired.hosts:
            agent.guarded = True
            self._want_bridges(agent)

    def send(self, host: str, message: bytes) -> bool:
        """Whether the host's switch could be told."""
        agent = self.agents.get(host)
        return agent is not None and agent.switch.send(message)

    def confirmed_by(self, host: str) -> int:
        """The sequence that the host's switch has confirmed; -1 for none."""
        agent = self.agents.get(host)
        return agent.switch.state.confirmed if agent is not None else -1

    def confirmed(self) -> int:
        """The sequence that every host has confirmed in OpenFlow and OVSDB."""
        if self.undriven:
            return -1  # what they have is not known
        states = [(a.switch.state.confirmed, a.ovsdb.state.confirmed) for a in self.agents.values()]
        return min((min(pair) for pair in states), default=self._desired.sequence)

    def drop_left_behind(self) -> None:
        """Rows of guests that do not run any more, once they have been so for a while: whoever gets the name of one
        meanwhile is another."""
        seen = {(host, *left) for host in self.agents for left in self._guests.left_behind(host).items()}
        self._left_behind = {key: self._left_behind.get(key, 0) + 1 for key in seen}
        for name, agent in self.agents.items():
            agent.ovsdb.drop_stale(
                {i: row for (host, i, row), n in self._left_behind.items() if host == name and n > _LEFT_BEHIND_SWEEPS}
            )

    # Hosts that leave.

    def unlock_removal(self, host: str) -> None:
        """The operator forces it: a libvirt that does not answer holds the host back no longer."""
        self._forced.add(host)

    async def remove(self, name: str) -> bool:
        """Take away the row of a host that leaves, once nothing of ours is left there. Returns whether it went."""
        agent = self.agents.get(name)
        if agent is None or name not in self._desired.leaving:
            return False
        waits = {what for what, part in agent.parts().items() if part.confirmed < self.settled} - {"openflow"}
        if waits - ({"libvirt"} if name in self._forced else set()):
            return False
        try:
            await self._store.commit([Remove("Host", name)])
        except StoreError as error:
            log.warning("%s", error)
            return False
        return True
