"""Classify: which frames of a port and of an uplink belong to which segment."""

from __future__ import annotations

from fleets import FleetRows
from golden_flows import check


def test_access_port() -> None:
    fleet = FleetRows().host("kvm1").network("web", vlan=10, portgroups={"db": {"vlan": 20}})
    check("classify_access", "classify", fleet.port("a", "kvm1", "web").port("b", "kvm1", "web", "db"))


def test_trunk_without_native_vlan() -> None:
    fleet = FleetRows().host("kvm1").network("web", portgroups={"all": {"trunk": [10, 20]}})
    check("classify_trunk", "classify", fleet.port("a", "kvm1", "web", "all"))


def test_native_vlan_untagged_and_tagged() -> None:
    plain, tagged = {"trunk": [10, 20], "native": 10}, {"trunk": [10], "native": 30, "native_mode": "tagged"}
    fleet = FleetRows().host("kvm1").network("web", portgroups={"plain": plain, "tagged": tagged})
    check("classify_native", "classify", fleet.port("a", "kvm1", "web", "plain").port("b", "kvm1", "web", "tagged"))


def test_marks_of_isolated_and_private_ports() -> None:
    groups = {"quiet": {"isolation": "isolated"}, "alone": {"isolation": "private"}}
    fleet = (
        FleetRows().host("kvm1", None, "phys1").network("lan", "bridge", physical_network="phys1", portgroups=groups)
    )
    check("classify_marks", "classify", fleet.port("a", "kvm1", "lan", "quiet").port("b", "kvm1", "lan", "alone"))


def test_vlans_of_a_physical_network() -> None:
    fleet = FleetRows().host("kvm1", None, "phys1")
    fleet.network("lan", "bridge", physical_network="phys1", portgroups={"db": {"vlan": 20}})
    check("classify_uplink", "classify", fleet.port("a", "kvm1", "lan"))


def test_passthrough_belongs_to_no_segment() -> None:
    fleet = FleetRows().host("kvm1", None, "phys1")
    fleet.network("lan", "bridge", physical_network="phys1", vlan=7, portgroups={"raw": {"isolation": "passthrough"}})
    check("classify_passthrough", "classify", fleet.port("a", "kvm1", "lan", "raw"))
