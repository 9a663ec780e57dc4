"""What a controller says of itself and its hosts in numbers, from what it knows: no host is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from typing import get_args

from controller.api import metrics as m
from controller.api.exposition import Sample
from controller.coordinator import Coordinator
from controller.model.port import PortState
from controller.services.excess import SERVICES


def measure(coordinator: Coordinator) -> list[Sample]:
    """All of it, as of this moment; on the coordinator's loop."""
    return [*_controller(coordinator), *_fleet(coordinator), *_hosts(coordinator), *_routers(coordinator)]


def _controller(coordinator: Coordinator) -> Iterator[Sample]:
    store = coordinator.store
    yield m.BUILD.at(1, version("fleetswitch"))
    yield m.STORE_UP.at(store.is_up)
    yield m.STORE_SKIPPED.at(len(store.problems()))
    yield m.CHANGES.at(coordinator.sequence)
    yield m.FAULTS.at(len(coordinator.engine.faults))
    yield from m.LATENESS.spread(coordinator.lateness.at_most, coordinator.lateness.total)
    for (kind, event), count in sorted(coordinator.history.counted.items()):
        yield m.EVENTS.at(count, kind, event)


def _fleet(coordinator: Coordinator) -> Iterator[Sample]:
    for kind in coordinator.store.kinds():
        yield m.OBJECTS.at(len(coordinator.store.rows(kind)), kind)
    states = Counter(status.state for status in coordinator.desired.statuses.values())
    for state in get_args(PortState):
        yield m.VNICS.at(states[state], state)
    for service in SERVICES:
        yield m.ASKED_IN_VAIN.at(coordinator.services.excess.total[service], service)
    yield m.STRANGERS.at(len(coordinator.admission.strangers()))


def _hosts(coordinator: Coordinator) -> Iterator[Sample]:
    for name in sorted(coordinator.driver.undriven.keys() - coordinator.agents.keys()):
        for each in m.STATES:
            yield m.CONNECTION.at(each == "down", name, "ovsdb", each)
    for name, agent in sorted(coordinator.agents.items()):
        for what, part in agent.parts().items():
            state = part.state if part.state in m.STATES else "down"
            for each in m.STATES:
                yield m.CONNECTION.at(each == state, name, what, each)
        switch = agent.switch
        yield m.FLOWS_WANTED.at(len(coordinator.engine.tables.get(name, ())), name)
        yield m.FLOWS_INSTALLED.at(switch.state.flows, name)
        yield m.FLOWS_REFUSED.at(len(switch.refused), name)
        yield m.DRIFTS.at(switch.state.drifts, name)


def _routers(coordinator: Coordinator) -> Iterator[Sample]:
    for name, peer in sorted(coordinator.bgp.peers.items()):
        yield m.BGP_UP.at(peer.state == "established", name)
        yield m.BGP_ANNOUNCED.at(len(peer.announced), name)
        yield m.BGP_RECEIVED.at(peer.received, name)
