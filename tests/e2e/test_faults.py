"""Whatever happens, in whatever order: within ten seconds everybody hears whom they should, and nobody else, ever.

Every kind of fault happens once, alone or beside another. `FLEETSWITCH_FAULT_ROUNDS=20 scripts/test
tests/e2e/test_faults.py -s` makes a long history of twenty of each; FLEETSWITCH_FAULT_SEED chooses another order.
"""

from __future__ import annotations

import os

import pytest
from e2e_faults import NETWORKS, World
from e2e_fleet import Fleet
from labkit import LabError

pytestmark = pytest.mark.lab
HOSTS = 3

ROUNDS = int(os.environ.get("FLEETSWITCH_FAULT_ROUNDS", "1"))
SEED = int(os.environ.get("FLEETSWITCH_FAULT_SEED", "1"))
RIGHT_AGAIN = 10.0  # seconds, from the end of a fault


def test_after_every_fault_the_fleet_is_right_again(fleet: Fleet) -> None:
    fleet.apply(fleet.lab.fleet_yaml(tcp=True) + "---" + NETWORKS)
    world, told = World(fleet, SEED), [f"seed {SEED}"]
    world.populate()
    with world.judge as judge:
        judge.agree(30.0)
        world.hear_the_real(30.0)
        judge.lost.clear()
        for _ in range(ROUNDS):
            while True:
                faults = world.choose()
                told.append(" and ".join(fault.name for fault in faults))
                try:
                    took = world.strike(faults, RIGHT_AGAIN)
                except LabError as error:
                    raise AssertionError(f"after {'; '.join(told[-4:])}: {error}") from error
                print(f"{told[-1]}: right after {took:.1f} s")
                assert not judge.breaches, f"{told[-4:]}: {len(judge.breaches)} breaches: {judge.breaches[:6]}"
                assert not judge.lost, f"{told[-4:]}: {len(judge.lost)} rounds lost frames: {judge.lost[:3]}"
                if world.round_is_over:
                    break
        judge.agree(RIGHT_AGAIN)
    fleet.lab.stop_lights(list(world.guests.values()))
