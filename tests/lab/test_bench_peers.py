"""What scripts/bench peers measures of a fleet is real: flows that switch what they should, counted by the switches."""

from __future__ import annotations

import argparse
from dataclasses import replace

import pytest
from benchkit.figures import Figure
from benchkit.peers import beside_ovn, options
from benchkit.peers.fleet import fleetswitch
from benchkit.peers.tenants import SIZE, guests, newcomers

OVN = beside_ovn.Taken(own_cpu=9.0, switch_cpu=3.0, idle=0.3, ready=9.0, own_memory=800, switch_memory=500, flows=9000,
                       boots=[0.1, 0.3, 0.2], boot_cpu=0.2)  # fmt: skip


def test_a_small_fleet_is_measured_and_switches_what_it_should() -> None:
    taken = beside_ovn.taken("fleetswitch", fleetswitch, hosts=2, ports=2 * SIZE, boots=2)
    assert taken.own_cpu > taken.idle > 0
    assert taken.flows > 2 * SIZE
    assert len(taken.boots) == 2
    assert all(0 < seconds < taken.ready + 20 for seconds in taken.boots)


def test_every_goal_is_judged_by_the_ratio_to_ovn() -> None:
    third = replace(OVN, own_cpu=2.0, switch_cpu=1.9, own_memory=60, switch_memory=200, flows=2900, boots=[0.09])
    assert [figure.missed() for figure in beside_ovn.figures(2, 40, third, OVN)] == [None] * 10
    missed = [figure.what for figure in beside_ovn.figures(2, 40, OVN, OVN) if figure.missed()]
    assert missed == ["cold start: CPU of all processes", "memory of all processes", "flows a host",
                      "a guest boots: last flow in, median"]  # fmt: skip
    assert Figure.from_json(next(beside_ovn.figures(2, 40, third, OVN)).to_json()).ratio == pytest.approx(0.325)


def test_newcomers_join_tenants_that_are_there_and_are_nobody_else() -> None:
    there, later = guests(8, 200), newcomers(8, 200, 30)
    for each in (lambda g: g.mac, lambda g: g.address, lambda g: g.tap, lambda g: g.iface_id):
        assert len({each(guest) for guest in [*there, *later]}) == 230
    assert {guest.tenant for guest in later} == {guest.tenant for guest in there}


@pytest.mark.parametrize(
    "words", [["--fleets", "8"], ["--fleets", "8x19"], ["--fleets", "0x20"], ["--switches", "3"], ["--switches", "x"]]
)
def test_sizes_that_are_none_are_refused(words: list[str]) -> None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    options(parser)
    with pytest.raises(argparse.ArgumentError):
        parser.parse_args(words)


def test_several_sizes_or_none_may_be_asked_for() -> None:
    parser = argparse.ArgumentParser()
    options(parser)
    args = parser.parse_args(["--fleets", "8x200,16x800", "--switches", ""])
    assert (args.fleets, args.switches) == ([(8, 200), (16, 800)], [])
