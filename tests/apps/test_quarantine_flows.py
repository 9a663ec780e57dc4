"""Quarantine: who is kept out has a flow that drops and counts, on its own host, and below everybody else's flows."""

from __future__ import annotations

import pytest
from fleets import FleetRows
from golden_flows import check, flows_of

from apps import APPS
from controller.engine import Engine
from controller.pipeline.pipeline import Pipeline


def two_hosts() -> FleetRows:
    return FleetRows().host("kvm1", "192.0.2.1").host("kvm2", "192.0.2.2").network("web").port("a", "kvm1", "web")


def test_who_is_kept_out() -> None:
    fleet = two_hosts()
    fleet.port("b", "kvm1", "web", state="quarantined", reason="there is no Network wob", vm="db1")
    fleet.port("c", "kvm1", "web", state="pending").port("d", "kvm1", "web", state="down", reason="its link is down")
    fleet.port("e", "kvm1", "web", state="absent").port("f", "kvm2", "web", state="quarantined")
    rivals = ({"host": "kvm1", "tap": "vnet8", "ofport": 8}, {"host": "kvm2", "tap": "vnet7", "ofport": 7})
    fleet.port("g", "kvm1", "web", vm="web1", ofport=9, rivals=rivals)
    fleet.strays["kvm2"] = {"by-hand": 12}
    check("quarantine", "quarantine", fleet)


def test_an_interface_of_nobody_comes_and_goes() -> None:
    fleet, engine = two_hosts(), Engine(Pipeline(APPS))
    engine.update(fleet.rows())
    fleet.strays["kvm2"] = {"by-hand": 12}
    delta = engine.update(fleet.rows(), {("Host", "kvm2")})
    assert set(delta) == {"kvm2"}
    [added] = delta["kvm2"].adds.values()
    fleet.strays.clear()
    assert engine.update(fleet.rows(), {("Host", "kvm2")})["kvm2"].removes == {added.identity}


@pytest.mark.parametrize("state", ["pending", "quarantined", "down"])
def test_who_is_let_in_loses_that_flow_and_gets_the_others(state: str) -> None:
    fleet = two_hosts().port("b", "kvm1", "web", state=state, ofport=9)
    engine = Engine(Pipeline(APPS))
    engine.update(fleet.rows())
    [kept_out] = [e for b, made in engine.blocks.items() if b.app == "quarantine" for e in made.entries]
    fleet.put("Port", "b", fleet.ports["b"].model_copy(update={"state": "active"}))
    delta = engine.update(fleet.rows(), {("Port", "b")})["kvm1"]
    assert kept_out.identity in delta.removes
    assert any(entry.table == kept_out.table for entry in delta.adds.values()), "its own flows in classify"
    fresh = Engine(Pipeline(APPS))
    fresh.update(fleet.rows())
    assert {e.identity for e in engine.tables["kvm1"]} == {e.identity for e in fresh.tables["kvm1"]}


def test_one_who_moves_or_goes_takes_its_flow_along() -> None:
    fleet = two_hosts().port("b", "kvm1", "web", state="quarantined")
    assert "in_port=2 actions=drop" in flows_of("quarantine", fleet)
    fleet.put("Port", "b", fleet.ports["b"].model_copy(update={"host": "kvm2"}))
    engine = Engine(Pipeline(APPS))
    engine.update(fleet.rows())
    fleet.put("Port", "b", None)
    assert set(engine.update(fleet.rows(), {("Port", "b")})) == {"kvm2"}
