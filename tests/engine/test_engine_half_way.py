"""In the middle of a change some hosts have the new flows and some the old: still nobody gets what is not for them.

One vNIC changes. Whoever gets a frame then is one that the same sender might reach before or after, by this frame or by
a broadcast: a frame for a vNIC that is on the move may be flooded within its segment, and goes no further.
"""

from __future__ import annotations

import copy
from random import Random

from fleets import FleetRows
from frames import sent
from hypothesis import assume, given
from oracle import BROADCAST, Oracle
from switch_model import Delivery, Frame, World
from test_engine_oracle import BUDGET, PIPELINE, SEEDS, described, random_fleet

from controller.engine import Engine
from controller.model.port import PortStatus
from controller.pipeline.ports import uplink_port

GROUPS = ("default", "quiet", "db", "trunk", "private", "vepa")


def with_one_change(dice: Random, fleet: FleetRows, name: str) -> FleetRows:
    """The fleet after the vNIC of that name is gone, has another portgroup, or is on another host."""
    changed, port = copy.deepcopy(fleet), fleet.ports[name]
    network, oracle = fleet.networks[port.network or ""], Oracle(fleet)
    match dice.choice(["gone", "portgroup", "host"]):
        case "gone":
            del changed.ports[name]
        case "portgroup":
            uplink = network.physical_network in fleet.hosts[port.host or ""].uplinks
            groups = [g for g in GROUPS if network.portgroup(g) and (uplink or g not in {"private", "vepa"})]
            changed.ports[name] = port.model_copy(update={"portgroup": dice.choice(groups)})
        case "host":
            uplinks = [h for h, s in fleet.hosts.items() if network.physical_network in s.uplinks]
            free = [h for h in uplinks or fleet.hosts if not alone(fleet, oracle, h)]
            if free:
                changed.ports[name] = port.model_copy(update={"host": dice.choice(free), "ofport": 50})
    return changed


def alone(fleet: FleetRows, oracle: Oracle, host: str) -> bool:
    return any(port.host == host and oracle.isolation(port) == "passthrough" for port in fleet.ports.values())


def reached(fleet: FleetRows, sender: PortStatus, frame: Frame) -> set[object]:
    """Places that a frame of the sender, or a broadcast in its stead, may get to; none if it may not send it."""
    oracle = Oracle(fleet)
    if not oracle.passes(sender, frame):
        return set()
    loud = Frame({**frame.fields, "eth_dst": BROADCAST}, frame.tags)
    plain = Frame({name: loud[name] for name in ("eth_src", "eth_dst", "eth_type")}, frame.tags)
    found: list[Delivery] = [*oracle.from_vnic(sender, frame), *Oracle(fleet, guard=False).from_vnic(sender, plain)]
    return {delivery.place for delivery in found}


@BUDGET
@given(SEEDS)
def test_nobody_gets_what_is_not_for_them_half_way(seed: int) -> None:
    dice = Random(seed)
    before = random_fleet(dice, False)
    assume(len(before.ports) > 1)
    name = dice.choice(sorted(before.ports))
    assume(Oracle(before).isolation(before.ports[name]) != "passthrough")
    after = with_one_change(dice, before, name)
    states = [before, after] if dice.random() < 0.5 else [after, before]
    engines = [Engine(PIPELINE), Engine(PIPELINE)]
    for engine, fleet in zip(engines, states, strict=True):
        engine.update(fleet.rows())
    uplinks = {each: uplink_port(number) for each, number in before.uplink_numbers.taken.items()}
    world = World(before.hosts, uplinks)
    for host, switch in world.switches.items():
        switch.install(dice.choice(engines).tables[host])
    for _ in range(8):
        one = sent(dice, before)
        sender = before.ports.get(one.by)
        if sender is None or one.by == name:
            continue
        got = {delivery.place for delivery in world.from_vnic(*Oracle(before).place(sender), one.frame)}
        allowed = reached(before, sender, one.frame) | reached(after, sender, one.frame)
        assert got <= allowed, f"{one}\n{described(before)}\n{described(after)}"
