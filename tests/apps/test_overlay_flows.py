"""Overlay: tunnels between hosts."""

from __future__ import annotations

from fleets import FleetRows
from golden_flows import PIPELINE, check

from controller.engine import Engine
from controller.pipeline.app import Scope


def test_three_hosts_of_which_two_carry_the_network() -> None:
    fleet = FleetRows().host("kvm1", "192.0.2.1").host("kvm2", "192.0.2.2", tunnel="vxlan").host("kvm3", "192.0.2.3")
    fleet.network("web", portgroups={"db": {"vlan": 20}})
    check("overlay_three_hosts", "overlay", fleet.port("a", "kvm1", "web").port("b", "kvm2", "web"))


def test_ipv6_underlay() -> None:
    fleet = FleetRows().host("kvm1", "fd00:1::1").host("kvm2", "fd00:1::2").network("web")
    check("overlay_ipv6", "overlay", fleet.port("a", "kvm1", "web").port("b", "kvm2", "web"))


def test_both_families_and_a_host_without_tunnels() -> None:
    fleet = FleetRows().host("kvm1", "192.0.2.1").host("kvm2", "fd00:1::2").host("kvm3")
    fleet.network("web").port("a", "kvm1", "web").port("b", "kvm2", "web").port("c", "kvm3", "web")
    check("overlay_mixed", "overlay", fleet)


def test_networks_that_need_no_tunnel() -> None:
    fleet = FleetRows().host("kvm1", "192.0.2.1", "phys1").host("kvm2", "192.0.2.2", "phys1")
    fleet.network("lab", span="host").network("lan", "bridge", physical_network="phys1")
    fleet.port("a", "kvm1", "lab").port("b", "kvm2", "lab").port("c", "kvm1", "lan").port("d", "kvm2", "lan")
    check("overlay_not_needed", "overlay", fleet)


def test_a_network_with_learning_vnics() -> None:
    fleet = FleetRows().host("kvm1", "192.0.2.1").host("kvm2", "192.0.2.2")
    fleet.network("web", portgroups={"nested": {"learning": True}})
    check("overlay_learning", "overlay", fleet.port("a", "kvm1", "web", "nested").port("b", "kvm2", "web"))


def peers(engine: Engine) -> dict[str, frozenset[str]]:
    """Of each host, the others that have its tunnel flows."""
    return {name.objects[0]: block.hosts for name, block in engine.blocks.items() if name.scope is Scope.PEER}


def test_hosts_know_of_each_other_while_they_share_a_network() -> None:
    fleet, engine = FleetRows(), Engine(PIPELINE)
    fleet.host("kvm1", "192.0.2.1").host("kvm2", "192.0.2.2").network("web").network("db")
    engine.update(fleet.port("a", "kvm1", "web").port("b", "kvm2", "db").rows())
    assert peers(engine) == {"kvm1": frozenset(), "kvm2": frozenset()}
    engine.update(fleet.port("c", "kvm2", "web").rows(), {("Port", "c")})
    assert peers(engine) == {"kvm1": {"kvm2"}, "kvm2": {"kvm1"}}
    fleet.put("Port", "c", None)
    engine.update(fleet.rows(), {("Port", "c")})
    assert peers(engine) == {"kvm1": frozenset(), "kvm2": frozenset()}


def test_hosts_know_of_each_other_where_packets_are_routed_between_them() -> None:
    fleet, engine = FleetRows(), Engine(PIPELINE)
    fleet.host("kvm1", "192.0.2.1").host("kvm2", "192.0.2.2").host("kvm3", "192.0.2.3")
    for name, number in (("web", 1), ("db", 2)):
        fleet.network(name, "route", subnets=(f"10.0.{number}.0/24",))
    fleet.network("lab").port("a", "kvm1", "web").port("b", "kvm2", "db").port("c", "kvm3", "lab")
    engine.update(fleet.rows())
    assert peers(engine) == {"kvm1": {"kvm2"}, "kvm2": {"kvm1"}, "kvm3": frozenset()}
