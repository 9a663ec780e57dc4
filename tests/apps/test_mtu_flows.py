"""What is too large for where it goes."""

from __future__ import annotations

from fleets import FleetRows
from golden_flows import PIPELINE, check, flows_of

from controller.engine import Engine


def fleet(**more: int) -> FleetRows:
    """``more`` are fields of kvm1's external address."""
    made = FleetRows().host("kvm1", "192.0.2.1", "phys1").host("kvm2", "192.0.2.2", tunnel="gre")
    made.outside("kvm1", "phys1", "203.0.113.11", mac="02:f5:00:00:01:00", **more)
    made.network("web", "nat", subnets=["10.1.0.0/24"], gateway_mac="02:f5:00:00:00:01", mtu=1400)
    made.network("api", "route", subnets=["10.2.0.0/24", "fd02::/64"], gateway_mac="02:f5:00:00:00:02")
    made.network("big", "open", span="host", mtu=9000, subnets=["10.3.0.0/24"], gateway_mac="02:f5:00:00:00:03")
    made.network("inner", subnets=["10.4.0.0/24"], gateway_mac="02:f5:00:00:00:04")
    made.port("a", "kvm1", "web", addresses=("10.1.0.5",)).port("b", "kvm2", "api", addresses=("10.2.0.5",))
    return made.port("c", "kvm1", "inner", addresses=("10.4.0.5",))


def test_networks_and_wires_of_several_sizes() -> None:
    check("mtu", "mtu", fleet(mtu=9000))


def test_when_tunnels_carry_less_routed_networks_do_so_too() -> None:
    made = fleet()
    engine = Engine(PIPELINE)
    engine.update(made.rows())
    made.put("Host", "kvm2", made.hosts["kvm2"].model_copy(update={"underlay_mtu": 1300}))
    engine.update(made.rows(), [("Host", "kvm2")])
    assert "check_pkt_larger(1272)->too_big" in flows_of("mtu", made)  # 1300 - 42, and Ethernet's 14
    texts = [PIPELINE.text(flow) for block in engine.blocks for flow in engine.flows(block)]
    assert any("check_pkt_larger(1272)->too_big" in text for text in texts)
