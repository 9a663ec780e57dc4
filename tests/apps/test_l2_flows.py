"""L2: forwarding, flooding, learning, tags on the way out."""

from __future__ import annotations

from fleets import FleetRows
from golden_flows import check


def test_two_vnics_on_one_host() -> None:
    fleet = FleetRows().host("kvm1").network("web").port("a", "kvm1", "web").port("b", "kvm1", "web")
    check("l2_one_host", "l2", fleet)


def test_trunk_and_access_share_a_vlan() -> None:
    groups = {"all": {"trunk": [10, 20], "native": 20}, "db": {"vlan": 10}}
    fleet = FleetRows().host("kvm1").network("web", portgroups=groups)
    check("l2_trunk", "l2", fleet.port("a", "kvm1", "web", "all").port("b", "kvm1", "web", "db"))


def test_native_vlan_that_is_sent_tagged() -> None:
    group = {"trunk": [10], "native": 30, "native_mode": "tagged"}
    fleet = FleetRows().host("kvm1").network("web", portgroups={"all": group})
    check("l2_native_tagged", "l2", fleet.port("a", "kvm1", "web", "all"))


def test_bridge_over_two_hosts() -> None:
    fleet = FleetRows().host("kvm1", None, "phys1").host("kvm2", None, "phys1")
    fleet.network("lan", "bridge", physical_network="phys1", vlan=100)
    check("l2_bridge", "l2", fleet.port("a", "kvm1", "lan").port("b", "kvm2", "lan"))


def test_untagged_network_of_an_uplink() -> None:
    fleet = FleetRows().host("kvm1", None, "phys1").network("lan", "bridge", physical_network="phys1")
    check("l2_untagged", "l2", fleet.port("a", "kvm1", "lan"))


def test_vepa_hears_the_uplink_only() -> None:
    fleet = FleetRows().host("kvm1", None, "phys1")
    fleet.network("lan", "bridge", physical_network="phys1", portgroups={"out": {"isolation": "vepa"}})
    check("l2_vepa", "l2", fleet.port("a", "kvm1", "lan", "out"))


def test_a_learning_vnic() -> None:
    groups = {"nested": {"learning": True, "max_macs": 5}, "many": {"learning": True, "trunk": [10, 20]}}
    fleet = FleetRows().host("kvm1").network("web", portgroups=groups)
    check("l2_learning", "l2", fleet.port("a", "kvm1", "web", "nested").port("b", "kvm1", "web", "many"))


def test_each_host_by_itself() -> None:
    fleet = FleetRows().host("kvm1", "192.0.2.1").host("kvm2", "192.0.2.2").network("lab", span="host")
    check("l2_span_host", "l2", fleet.port("a", "kvm1", "lab").port("b", "kvm2", "lab"))
