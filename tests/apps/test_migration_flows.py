"""Migration: the flows of a vNIC that is being copied to another host."""

from __future__ import annotations

from fleets import FleetRows
from golden_flows import check, flows_of

from controller.model.port import Incoming

TO_KVM2 = Incoming(host="kvm2", tap="vnet9", ofport=9)


def fleet() -> FleetRows:
    groups = {"raw": {"isolation": "passthrough"}, "out": {"isolation": "vepa"}, "bare": {"trunk": [10]}}
    found = FleetRows().host("kvm1", "192.0.2.1", "phys1").host("kvm2", "192.0.2.2", "phys1")
    return found.network("web", portgroups={"bare": {"trunk": [10]}}).network(
        "lan", "bridge", physical_network="phys1", portgroups=groups
    )  # fmt: skip


def test_of_an_overlay() -> None:
    found = fleet().port("a", "kvm1", "web", incoming=TO_KVM2)
    check("migration_overlay", "migration", found)
    check("migration_peers", "overlay", found)
    check("migration_delivery", "l2", found)


def test_of_a_physical_network() -> None:
    check("migration_lan", "migration", fleet().port("a", "kvm1", "lan", incoming=TO_KVM2))


def test_of_a_trunk_without_an_untagged_vlan() -> None:
    check("migration_trunk", "migration", fleet().port("a", "kvm1", "web", "bare", incoming=TO_KVM2))


def test_of_vepa() -> None:
    check("migration_vepa", "migration", fleet().port("a", "kvm1", "lan", "out", incoming=TO_KVM2))


def test_of_passthrough() -> None:
    check("migration_passthrough", "migration", fleet().port("a", "kvm1", "lan", "raw", incoming=TO_KVM2))


def test_to_a_host_that_is_none_of_the_fleets() -> None:
    elsewhere = Incoming(host="kvm9", tap="vnet9", ofport=9)
    assert flows_of("migration", fleet().port("a", "kvm1", "web", incoming=elsewhere)).strip() == ""
