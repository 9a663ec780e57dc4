"""Isolation: each kind of it, on the vNIC's host and elsewhere."""

from __future__ import annotations

import pytest
from fleets import FleetRows
from golden_flows import check


@pytest.mark.parametrize("kind", ["none", "isolated", "private", "vepa", "passthrough"])
def test_beside_an_uplink(kind: str) -> None:
    fleet = FleetRows().host("kvm1", None, "phys1").host("kvm2", None, "phys1")
    fleet.network("lan", "bridge", physical_network="phys1", portgroups={"special": {"isolation": kind}})
    check(f"isolation_{kind}", "isolation", fleet.port("a", "kvm1", "lan", "special").port("b", "kvm2", "lan"))


def test_isolated_over_the_overlay() -> None:
    fleet = FleetRows().host("kvm1", "192.0.2.1").host("kvm2", "192.0.2.2")
    fleet.network("web", portgroups={"quiet": {"isolation": "isolated"}})
    fleet.port("a", "kvm1", "web", "quiet").port("b", "kvm2", "web", "quiet")
    check("isolation_overlay", "isolation", fleet)
