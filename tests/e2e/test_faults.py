"""Whatever happens, in whatever order: within ten seconds everybody hears whom they should, and nobody else, ever.

`FLEETSWITCH_FAULT_MINUTES=30 scripts/test tests/e2e/test_faults.py -s` makes a long history; FLEETSWITCH_FAULT_SEED
chooses another.
"""

from __future__ import annotations

import os
import time

import pytest
from e2e_faults import NETWORKS, World
from e2e_fleet import Fleet
from labkit import LabError

pytestmark = pytest.mark.lab
HOSTS = 3

MINUTES = float(os.environ.get("FLEETSWITCH_FAULT_MINUTES", "0.4"))
SEED = int(os.environ.get("FLEETSWITCH_FAULT_SEED", "1"))
RIGHT_AGAIN = 10.0  # seconds


def test_after_every_fault_the_fleet_is_right_again(fleet: Fleet) -> None:
    fleet.apply(fleet.lab.fleet_yaml(tcp=True) + "---" + NETWORKS)
    world, told = World(fleet, SEED), [f"seed {SEED}"]
    until = time.monotonic() + 60.0 * MINUTES
    world.populate()
    with world.judge as judge:
        judge.agree(30.0)
        judge.lost.clear()
        while time.monotonic() < until:
            faults = world.choose()
            told.append(" and ".join(fault.name for fault in faults))
            try:
                took = world.strike(faults, RIGHT_AGAIN)
            except LabError as error:
                raise AssertionError(f"after {'; '.join(told[-4:])}: {error}") from error
            print(f"{told[-1]}: right after {took:.1f} s")
            assert not judge.breaches, f"{told[-4:]}: {len(judge.breaches)} breaches: {judge.breaches[:6]}"
            assert not judge.lost, f"{told[-4:]}: {len(judge.lost)} rounds lost frames: {judge.lost[:3]}"
        judge.agree(RIGHT_AGAIN)
    fleet.lab.stop_lights(list(world.guests.values()))
