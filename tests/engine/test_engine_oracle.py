"""Random fleets and frames: the flows bring every frame to whom the rows say, once, with the right tag, to nobody else.

FLEETSWITCH_TEST_EFFORT multiplies the number of fleets (1 in continuous integration).
"""

from __future__ import annotations

import os
from collections import Counter
from random import Random
from typing import Any, get_args

from fleets import FleetRows
from frames import AWAY, Sent, sent
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from oracle import Oracle
from switch_model import World

from apps import APPS
from controller.engine import Engine
from controller.model.guard import FilterName
from controller.pipeline.pipeline import Pipeline
from controller.pipeline.ports import uplink_port

EFFORT = int(os.environ.get("FLEETSWITCH_TEST_EFFORT", "1"))
PIPELINE = Pipeline(APPS)
PHYSICAL = ("phys1", "phys2")
FILTERS = get_args(FilterName)


def groups(dice: Random, base: int, bridged: bool) -> dict[str, Any]:
    """Portgroups over the VLANs ``base`` to ``base + 2``, each with filters of its own."""
    found: dict[str, Any] = {
        "default": {},
        "trunk": {"trunk": [base, base + 1], "native": base},
        "tagged": {"trunk": [base, base + 1], "native": base + 2, "native_mode": "tagged"},
        "bare": {"trunk": [base, base + 1]},
        "db": {"vlan": base},
        "quiet": {"isolation": "isolated"},
        "quiet-trunk": {"trunk": [base, base + 1], "native": base, "isolation": "isolated"},
    }
    if bridged:
        found |= {
            "private": {"isolation": "private"},
            "private-db": {"vlan": base, "isolation": "private"},
            "vepa": {"isolation": "vepa"},
            "vepa-trunk": {"trunk": [base, base + 1], "native": base, "isolation": "vepa"},
            "raw": {"isolation": "passthrough"},
        }
    for group in found.values():
        kind = dice.random()
        if group.get("isolation") == "passthrough" or kind < 0.3:
            continue
        group["filters"] = [] if kind < 0.65 else dice.sample(FILTERS, dice.choice([1, 1, 2, 3]))
    few = {"learning": True, "max_macs": dice.choice([1, 2, 8])}
    taught = {"learn_addresses": dice.choice([1, 2])}
    return found | {
        "nested": few, "nested-trunk": {"trunk": [base, base + 1], "native": base, **few},
        "taught": taught, "taught-trunk": {"trunk": [base, base + 1], "native": base, **taught},
    }  # fmt: skip


def random_fleet(dice: Random, reflective: bool) -> FleetRows:
    """A fleet that the store would take."""
    fleet = FleetRows()
    for each in PHYSICAL:
        fleet.uplink_numbers.of(each)
    for number in range(dice.choice([1, 2, 3, 3, 4])):
        ips = [f"192.0.2.{number + 1}"] * 4 + [f"fd00:1::{number + 1}", None]
        uplinks = dice.choice([(), ("phys1",), PHYSICAL, PHYSICAL])
        tunnel = dice.choice(["geneve", "geneve", "vxlan", "gre"])
        fleet.host(f"kvm{number}", dice.choice(ips), *uplinks, tunnel=tunnel)
    untagged: set[str] = set()
    for number in range(dice.choice([1, 1, 2, 3])):
        physical = dice.choice([None, None, *PHYSICAL])
        vlan = dice.choice([None, 100 + number])
        reserved = dice.choice([(), ("10.0.0.1", "10.0.0.2", "fd00::2")])
        if physical in untagged:
            vlan = 100 + number
        if physical is None:
            span = dice.choice(["fleet", "fleet", "host"])
            made = groups(dice, 10 * number + 10, False)
            fleet.network(f"net{number}", span=span, vlan=vlan, portgroups=made, reserved_addresses=reserved)
            continue
        if vlan is None:
            untagged.add(physical)
        made = groups(dice, 10 * number + 10, True)
        fleet.network(f"net{number}", "bridge", physical_network=physical, vlan=vlan, portgroups=made,
                      reserved_addresses=reserved)  # fmt: skip
    for number in range(dice.choice([2, 4, 6, 8])):
        _plug(dice, fleet, number, reflective)
    if dice.random() < 0.3:  # registered, and not running
        network = dice.choice(sorted(fleet.networks))
        name = dice.choice(sorted(fleet.networks[network].portgroups))
        fleet.register("away", network, name, mac="52:54:00:00:00:f0", addresses=AWAY)
    return fleet


def _plug(dice: Random, fleet: FleetRows, number: int, reflective: bool) -> None:
    """One more vNIC, unless where it would go it may not be."""
    host, network = dice.choice(sorted(fleet.hosts)), dice.choice(sorted(fleet.networks))
    spec = fleet.networks[network]
    names = sorted(spec.portgroups)
    if reflective and spec.mode == "bridge":
        names = ["vepa", "vepa-trunk"]
    name = dice.choice(names)
    group = spec.portgroup(name)
    assert group is not None
    no_uplink = spec.physical_network not in fleet.hosts[host].uplinks
    if group.isolation in {"private", "vepa", "passthrough"} and no_uplink:
        return
    beside = [
        port for port in fleet.ports.values()
        if port.host == host and fleet.networks[port.network or ""].physical_network == spec.physical_network
    ]  # fmt: skip
    oracle = Oracle(fleet)
    alone = group.isolation == "passthrough" or any(oracle.isolation(port) == "passthrough" for port in beside)
    if spec.mode == "bridge" and beside and alone:
        return
    addresses = dice.choice([(), (f"10.0.0.{number + 1}",), (f"10.0.0.{number + 1}", f"fd00::{number + 1}")])
    learned = addresses if group.learn_addresses and dice.random() < 0.7 else ()
    fleet.port(f"port{number}", host, network, name, addresses=addresses, learned=learned)


def run(fleet: FleetRows, frames: list[Sent], reflective: bool) -> None:
    engine = Engine(PIPELINE)
    engine.update(fleet.rows())
    uplinks = {name: uplink_port(number) for name, number in fleet.uplink_numbers.taken.items()}
    world, oracle = World(fleet.hosts, uplinks, reflective), Oracle(fleet, reflective)
    for host, table in engine.tables.items():
        assert table.conflicts == 0
        world.switches[host].install(table)
    for one in frames:
        port = fleet.ports.get(one.by)
        if port is None:
            got, wanted = world.from_outside(one.by, one.frame), oracle.from_wire(one.by, one.frame)
        else:
            got, wanted = world.from_vnic(*oracle.place(port), one.frame), oracle.from_vnic(port, one.frame)
        assert Counter(d.key() for d in got) == Counter(d.key() for d in wanted), f"{one}\n{described(fleet)}"


def described(fleet: FleetRows) -> str:
    """The fleet in few lines, for the message of a failure."""
    lines = [f"{n}: {h.tunnel_ip} {h.tunnel} {sorted(h.uplinks)}" for n, h in fleet.hosts.items()]
    lines += [f"{n}: {s.mode} {s.span} {s.physical_network} {s.vlan}" for n, s in fleet.networks.items()]
    oracle = Oracle(fleet)
    for name, port in fleet.ports.items():
        lines.append(f"{name}: {port.host}/{port.ofport} {port.network}:{port.portgroup} {port.mac} {port.addresses}")
        lines.append(f"    filters {oracle.group(port).filters}")
    return "\n".join(lines)


SEEDS = st.integers(0, 2**48)
# Seeds do not shrink: a smaller one is another fleet. The one that fails is printed with its frame.
BUDGET = settings(
    max_examples=250 * EFFORT, deadline=None, derandomize=EFFORT == 1, database=None, phases=[Phase.generate]
)


@BUDGET
@given(SEEDS)
def test_frames_reach_whom_the_rows_say(seed: int) -> None:
    dice = Random(seed)
    fleet = random_fleet(dice, False)
    assume(fleet.ports)
    run(fleet, [sent(dice, fleet) for _ in range(16)], False)


@BUDGET
@given(SEEDS)
def test_vepa_behind_a_switch_that_reflects(seed: int) -> None:
    dice = Random(seed)
    fleet = random_fleet(dice, True)
    assume(fleet.ports)
    run(fleet, [sent(dice, fleet) for _ in range(8)], True)


@BUDGET
@given(SEEDS)
def test_who_is_behind_a_learning_vnic_is_reached_wherever_it_goes(seed: int) -> None:
    dice = Random(seed)
    fleet = FleetRows()
    fleet.uplink_numbers.of("phys1")
    for number in range(3):
        fleet.host(f"kvm{number}", f"192.0.2.{number + 1}", "phys1")
    learning = {"nested": {"learning": True, "max_macs": dice.choice([1, 2, 8])}, "off": {"filters": []}}
    if dice.random() < 0.5:
        fleet.network("net", span=dice.choice(["fleet", "fleet", "host"]), portgroups=learning)
    else:
        fleet.network("net", "bridge", physical_network="phys1", portgroups=learning)
    for number in range(6):
        group = dice.choice(["nested", "nested", "off", "default"])
        fleet.port(f"port{number}", f"kvm{dice.randrange(3)}", "net", group)
    run(fleet, [sent(dice, fleet, 0.7) for _ in range(40)], False)
