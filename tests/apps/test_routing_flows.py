"""Routing: which packets go on to whom, and which hosts have the flows for it."""

from __future__ import annotations

from fleets import FleetRows
from golden_flows import PIPELINE, check

from controller.engine import Engine
from controller.pipeline.app import Scope


def fleet(*networks: tuple[str, str, str]) -> FleetRows:
    """Networks (name, mode, subnet), each with a vNIC of address 5 on a host of its own: NAME on kvm-NAME."""
    made = FleetRows()
    for number, (name, mode, subnet) in enumerate(networks, 1):
        made.host(f"kvm-{name}", f"192.0.2.{number}").network(
            name, mode, subnets=[f"{subnet}.0/24"], gateway_mac=f"02:f5:00:00:00:{number:02x}"
        )
        made.port(name, f"kvm-{name}", name, addresses=(f"{subnet}.5",))
    return made


def outside(made: FleetRows, host: str) -> FleetRows:
    """With an external address for that host, which is made if it is not there."""
    ip = made.hosts[host].tunnel_ip if host in made.hosts else None
    return made.host(host, ip, "phys1").outside(host, "phys1", "203.0.113.11", mac="02:f5:00:00:01:00")


WEB, API, LAB, INNER = (
    ("web", "nat", "10.1.0"), ("api", "route", "10.2.0"), ("lab", "open", "10.3.0"), ("inner", "isolated", "10.4.0"),
)  # fmt: skip


def test_modes_side_by_side() -> None:
    made = outside(fleet(WEB, API, INNER), "kvm-api")
    check("routing_modes", "routing", made)
    check("nat_modes", "nat", made)


def test_ipv6_beside_and_without_ipv4() -> None:
    made = FleetRows().host("kvm1", "192.0.2.1").host("kvm2", "192.0.2.2")
    made.network("web", "nat", subnets=["10.1.0.0/24", "fd01::/64"], gateway_mac="02:f5:00:00:00:01")
    made.network("lab", "open", subnets=["fd03::/64"], gateway_mac="02:f5:00:00:00:03")
    made.port("a", "kvm1", "web", addresses=("10.1.0.5", "fd01::5"))
    made.port("b", "kvm2", "lab", addresses=("fd03::5", "fe80::5"))
    check("routing_ipv6", "routing", made)
    check("gateway_ipv6", "gateway", made)


def test_what_a_gateway_takes_for_elsewhere() -> None:
    check("gateway_modes", "gateway", fleet(WEB, API, LAB, INNER))


def test_each_host_by_itself() -> None:
    made = FleetRows().host("kvm1", "192.0.2.1")
    made.network("api", "route", span="host", subnets=["10.2.0.0/24"], gateway_mac="02:f5:00:00:00:01")
    check("routing_span_host", "routing", made.port("a", "kvm1", "api", addresses=("10.2.0.5",)))


def test_subnets_behind_guests() -> None:
    made = FleetRows().host("kvm1", "192.0.2.1").host("kvm2", "192.0.2.2")
    routes = [{"to": "10.50.0.0/16", "via": "10.3.0.9"}, {"to": "10.50.7.0/24", "via": "10.3.0.8"}]
    routes.append({"to": "fd50::/48", "via": "fd03::9"})
    subnets = ["10.3.0.0/24", "fd03::/64"]
    made.network("lab", "route", subnets=subnets, gateway_mac="02:f5:00:00:00:01", routes=routes)
    made.port("router", "kvm1", "lab", addresses=("10.3.0.9", "fd03::9")).port(
        "other", "kvm2", "lab", addresses=("10.3.0.5",)
    )
    check("routing_routes", "routing", made)
    check("gateway_routes", "gateway", made)


def test_nobody_is_the_gateway() -> None:
    made = FleetRows().host("kvm1", "192.0.2.1")
    made.network("web", subnets=["10.1.0.0/24", "fd00::/64"], gateway_mac="02:f5:00:00:00:01")
    check("ownership_gateway", "ownership", made.port("a", "kvm1", "web"))


def carriers(engine: Engine) -> dict[str, set[str]]:
    """Network → hosts that have its vNIC's flows."""
    return {
        block.objects[0]: set(made.hosts) for block, made in engine.blocks.items()
        if block.app == "overlay" and block.scope is Scope.PORT
    }  # fmt: skip


def test_hosts_have_the_flows_of_guests_whom_theirs_may_reach_or_answer() -> None:
    made = outside(fleet(WEB, API, LAB, INNER), "kvm-out")
    engine = Engine(PIPELINE)
    engine.update(made.rows())
    everybody = {"kvm-web", "kvm-api", "kvm-lab", "kvm-out"}
    assert carriers(engine) == {
        "api": everybody, "lab": everybody, "web": {"kvm-web", "kvm-api", "kvm-lab"}, "inner": {"kvm-inner"},
    }  # fmt: skip


def test_nat_networks_alone_are_on_their_own_hosts_only() -> None:
    engine = Engine(PIPELINE)
    engine.update(outside(fleet(WEB, ("shop", "nat", "10.5.0"), INNER), "kvm-out").rows())
    assert carriers(engine) == {"web": {"kvm-web"}, "shop": {"kvm-shop"}, "inner": {"kvm-inner"}}


def test_others_networks_are_untouched_when_guests_come_and_modes_change() -> None:
    made = fleet(WEB, API, INNER, ("apart", "isolated", "10.6.0")).host("kvm-new", "192.0.2.9")
    engine = Engine(PIPELINE)
    engine.update(made.rows())
    made.port("guest", "kvm-new", "web", addresses=("10.1.0.9",))
    deltas = engine.update(made.rows(), [("Port", "guest")])
    assert {host for host, delta in deltas.items() if delta.adds or delta.removes} == {"kvm-web", "kvm-api", "kvm-new"}
    assert carriers(engine)["api"] == {"kvm-web", "kvm-api", "kvm-new"}
    made.network("api", "isolated", subnets=["10.2.0.0/24"], gateway_mac="02:f5:00:00:00:02")
    engine.update(made.rows(), [("Network", "api")])
    assert carriers(engine) == {
        "web": {"kvm-web"}, "guest": {"kvm-new"}, "api": {"kvm-api"}, "inner": {"kvm-inner"}, "apart": {"kvm-apart"},
    } | {"web": {"kvm-web", "kvm-new"}, "guest": {"kvm-web", "kvm-new"}}  # fmt: skip
