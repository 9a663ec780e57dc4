"""Neighbours: who is answered about whom."""

from __future__ import annotations

import pytest
from fleets import FleetRows
from golden_flows import check


def test_ipv4_and_ipv6() -> None:
    fleet = FleetRows().host("kvm1", "192.0.2.1").host("kvm2", "192.0.2.2").network("web")
    fleet.port("a", "kvm1", "web", addresses=("10.0.0.1", "fd00::1")).port("b", "kvm2", "web")
    check("neighbours_both", "neighbours", fleet)


def test_a_trunk_is_known_in_each_of_its_vlans() -> None:
    fleet = FleetRows().host("kvm1").network("web", portgroups={"all": {"trunk": [10, 20]}})
    check("neighbours_trunk", "neighbours", fleet.port("a", "kvm1", "web", "all", addresses=("10.0.0.1",)))


def test_span_host_tells_its_own_host_only() -> None:
    fleet = FleetRows().host("kvm1", "192.0.2.1").host("kvm2", "192.0.2.2").network("lab", span="host")
    fleet.port("a", "kvm1", "lab", addresses=("10.0.0.1",)).port("b", "kvm2", "lab")
    check("neighbours_span_host", "neighbours", fleet)


@pytest.mark.parametrize("kind", ["isolated", "private", "vepa"])
def test_nobody_answers_for_one_who_may_not_meet_everybody(kind: str) -> None:
    fleet = FleetRows().host("kvm1", None, "phys1")
    fleet.network("lan", "bridge", physical_network="phys1", portgroups={"special": {"isolation": kind}})
    check(f"neighbours_{kind}", "neighbours", fleet.port("a", "kvm1", "lan", "special", addresses=("10.0.0.1",)))
