"""The tables of the whole pipeline, filled by fleets that use every feature."""

from __future__ import annotations

from random import Random

from test_engine_oracle import PIPELINE, random_fleet

from controller.engine import Engine
from controller.model.port import Incoming
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
        flows += [flow for block in engine.blocks.values() for flow in block.flows]
    assert PIPELINE.reached(flows) == set(PIPELINE.tables)
    assert all(flow.why for flow in flows)
