"""The topology of the running fleet: from the rows, and from how the connections to hosts stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from controller.agent import HostAgent
from controller.coordinator import Coordinator
from controller.desired import HOSTS, PHYSICAL_NETWORKS
from controller.store.rows import Change
from topology.graph.derive import GraphRows
from topology.graph.live import LiveTopology
from topology.graph.nodes import Links
from topology.graph.topology import Topology

MOST_CHANGED = 10_000
"""Rows whose changes are remembered; where more change before somebody asks, all is made anew."""


class TopologyView:
    """On the loop. Nothing is made until somebody asks; from then on only what changed is made anew, when it is asked
    for again."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._live: LiveTopology | None = None
        self._last: tuple[Mapping[str, Links], Topology] | None = None
        self._changed: set[tuple[str, str]] = set()
        self._is_watching = False

    def now(self) -> Topology:
        """As of the last change of the rows, the same one for as long as nothing is different: what is made of it once
        (sorted, by neighbours) is there for whoever asks next. Nobody changes it: it may be read in any thread."""
        changed, self._changed = self._changed, set()
        live, self._live = self._live, None  # until it is right: after a fault all is made anew
        if live is None:
            live, self._last = LiveTopology(), None
            live.update(self._rows())
        elif changed:
            self._last = None
            live.update(self._rows(), changed)
        if not self._is_watching:
            self._coordinator.store.watch(self._note)
            self._is_watching = True
        self._live = live
        sequence, links = self._coordinator.sequence, self._links()
        if self._last is None or self._last[0] != links or self._last[1].sequence != sequence:
            self._last = links, live.snapshot(sequence, links)
        return self._last[1]

    def _note(self, changes: Sequence[Change]) -> None:
        if self._live is None:
            return
        self._changed |= {(change.kind, change.name) for change in changes}
        if len(self._changed) > MOST_CHANGED:
            self._live = None
            self._changed.clear()

    def _rows(self) -> GraphRows:
        desired = self._coordinator.desired
        return GraphRows(
            desired.hosts, desired.leaving, desired.networks, desired.registered, desired.statuses,
            desired.numbers(HOSTS), desired.numbers(PHYSICAL_NETWORKS),
        )  # fmt: skip

    def _links(self) -> dict[str, Links]:
        return {name: self._link(name, agent) for name, agent in self._coordinator.agents.items()}

    def _link(self, name: str, agent: HostAgent) -> Links:
        own = agent.ovsdb.own()
        return Links(
            {what: (part.state, part.reason) for what, part in agent.parts().items()},
            own.interfaces if own is not None else None,
            self._coordinator.lldp.heard(name),
            own.bridges if own is not None else None,
            agent.networks(),
        )
