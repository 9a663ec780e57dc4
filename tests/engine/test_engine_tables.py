"""The tables of the whole pipeline, filled by fleets that use every feature."""

from __future__ import annotations

from random import Random

from test_engine_oracle import PIPELINE, random_fleet

from controller.engine import Engine
from controller.model.port import Incoming
from controller.pipeline.actions import Track
from controller.pipeline.ip import ETHERTYPES
from controller.pipeline.tables import Flow


def test_every_table_is_reached_and_every_flow_has_a_reason() -> None:
    flows: list[Flow] = []
    for seed in range(20):
        engine = Engine(PIPELINE)
        fleet = random_fleet(Random(seed), False).with_nat()
        name, port = next(iter(fleet.ports.items()))
        incoming = Incoming(host=next(reversed(fleet.hosts)), tap="vnet9", ofport=50)
        fleet.ports[name] = port.model_copy(update={"incoming": incoming})
        engine.update(fleet.rows())
        flows += [flow for block, content in engine.blocks.items() if content.entries for flow in engine.flows(block)]
    assert PIPELINE.reached(flows) == set(PIPELINE.tables)
    assert all(flow.why for flow in flows)
    # Open vSwitch refuses to track what may be no IP (ovs-actions(7), ct).
    tracked = [flow for flow in flows if any(isinstance(action, Track) for action in flow.actions)]
    assert tracked
    assert [PIPELINE.text(flow) for flow in tracked if not _is_ip(flow)] == []


def _is_ip(flow: Flow) -> bool:
    return any(term.name == "eth_type" and value in ETHERTYPES for term, value, _ in flow.match.terms)
