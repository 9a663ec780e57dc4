"""Which prefixes are announced by which host: always what the rows say, whatever happened before."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from changes import HOSTS, NETWORKS, PORTS, Change, hosts, named, ports
from fleets import FleetRows
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.bgp.routes import in_order, routes
from controller.fabric import Fabric
from controller.model.network import NetworkSpec
from controller.model.port import PortStatus


def fleet() -> FleetRows:
    rows = FleetRows().host("a", "192.0.2.1", "wan").host("b", "192.0.2.2", "wan").host("c", "192.0.2.3", "lan")
    rows.outside("a", "wan", "203.0.113.11").outside("b", "wan", "203.0.113.12").outside("c", "lan", "203.0.113.13")
    return rows.host("d", "192.0.2.4").network("api", "route", subnets=["10.20.0.0/24"])


def told(rows: FleetRows, uplink: str | None = None) -> list[str]:
    fabric = Fabric()
    fabric.update(rows.rows())
    return in_order(routes(fabric, uplink))


def test_each_guest_by_its_own_host_and_the_subnet_by_one_of_them() -> None:
    rows = fleet().port("one", "a", "api", ofport=5, addresses=("10.20.0.5",))
    assert told(rows) == ["10.20.0.0/24 via 203.0.113.11", "10.20.0.5/32 via 203.0.113.11"]
    rows.port("two", "b", "api", ofport=5, addresses=("10.20.0.6", "10.99.0.1", "fd00::1"))
    assert told(rows)[1:] == ["10.20.0.5/32 via 203.0.113.11", "10.20.0.6/32 via 203.0.113.12"]
    assert told(rows)[0] in {"10.20.0.0/24 via 203.0.113.11", "10.20.0.0/24 via 203.0.113.12"}


def test_ipv6_by_hosts_that_have_an_address_of_it() -> None:
    rows = fleet().network("api", "route", subnets=["10.20.0.0/24", "fd20::/64"])
    rows.outside("a", "wan", "203.0.113.11", address6="2001:db8::11/64", gateway6="fe80::1")
    rows.port("one", "a", "api", ofport=5, addresses=("10.20.0.5", "fd20::5", "fe80::5"))
    rows.port("two", "b", "api", ofport=5, addresses=("fd20::6",))
    assert told(rows) == ["10.20.0.0/24 via 203.0.113.11", "10.20.0.5/32 via 203.0.113.11",
                          "fd20::/64 via 2001:db8::11", "fd20::5/128 via 2001:db8::11"]  # fmt: skip


def test_a_guest_that_moves_takes_its_route_along() -> None:
    rows = fleet().port("one", "a", "api", ofport=5, addresses=("10.20.0.5",))
    rows.port("one", "b", "api", ofport=7, addresses=("10.20.0.5",))
    assert told(rows) == ["10.20.0.0/24 via 203.0.113.12", "10.20.0.5/32 via 203.0.113.12"]


def test_what_has_no_way_in_is_not_announced() -> None:
    rows = fleet()
    assert told(rows) == []  # nobody there
    rows.port("one", "a", "api", ofport=5)  # no address
    rows.port("two", "d", "api", ofport=5, addresses=("10.20.0.6",))  # no external address
    rows.network("shop", "nat", subnets=["10.30.0.0/24"]).port("buys", "a", "shop", addresses=("10.30.0.5",))
    rows.network("in", "isolated", subnets=["10.40.0.0/24"]).port("idles", "a", "in", addresses=("10.40.0.5",))
    assert told(rows) == []


def test_what_is_behind_a_guest_is_where_the_guest_is() -> None:
    rows = fleet().network("lab", "open", subnets=["10.77.0.0/24"], routes=[{"to": "10.50.0.0/16", "via": "10.77.0.9"}])
    rows.port("one", "a", "lab", ofport=5, addresses=("10.77.0.5",))
    assert not [each for each in told(rows) if each.startswith("10.50.")]
    rows.port("router", "b", "lab", ofport=5, addresses=("10.77.0.9",))
    assert "10.50.0.0/16 via 203.0.113.12" in told(rows)


def test_a_router_on_one_wire_gets_the_hosts_on_that_wire() -> None:
    rows = fleet().port("one", "a", "api", ofport=5, addresses=("10.20.0.5",))
    rows.port("two", "c", "api", ofport=5, addresses=("10.20.0.6",))
    assert told(rows, "wan") == ["10.20.0.0/24 via 203.0.113.11", "10.20.0.5/32 via 203.0.113.11"]
    assert told(rows, "lan") == ["10.20.0.0/24 via 203.0.113.13", "10.20.0.6/32 via 203.0.113.13"]
    assert told(rows, "moon") == []


def test_the_way_to_a_subnet_changes_only_with_its_host() -> None:
    rows = fleet()
    for number in range(8):
        rows.host(f"h{number}", f"192.0.2.{20 + number}", "wan").outside(
            f"h{number}", "wan", f"203.0.113.{20 + number}"
        )
        rows.port(f"p{number}", f"h{number}", "api", ofport=5, addresses=(f"10.20.0.{20 + number}",))
    subnet = told(rows)[0]
    for number in range(8):
        if not subnet.endswith(f".{20 + number}"):
            rows.put("Port", f"p{number}", None)
            assert told(rows)[0] == subnet


def check(rows: FleetRows, uplink: str | None, found: dict[str, str]) -> None:
    """By the rows alone: of two guests with one address the first by name counts."""
    hops = {
        (name, ip_address(ip).version): ip
        for name, host in rows.hosts.items()
        if host.external is not None and uplink in {None, host.external.uplink}
        for ip in host.external.ips
    }
    expected: dict[str, str] = {}
    subnets: dict[str, set[str]] = {}
    for network_name, network in sorted(rows.networks.items()):
        if network.mode not in {"route", "open"}:
            continue
        own = [ip_interface(each).network for each in network.subnets]
        places: dict[str, str] = {}
        for _, port in sorted(rows.ports.items()):
            group = network.portgroup(port.portgroup or "")
            switched = port.state == "active" and port.ofport is not None and port.host in rows.hosts
            if not switched or port.network != network_name or group is None or group.isolation == "passthrough":
                continue
            for address in port.addresses:
                if any(ip_address(address) in subnet for subnet in own):
                    places.setdefault(address, str(port.host))
        ways = {address: hops.get((host, ip_address(address).version)) for address, host in places.items()}
        reached = {address: hop for address, hop in ways.items() if hop is not None}
        expected |= {str(ip_network(address)): hop for address, hop in reached.items()}
        expected |= {route.to: reached[route.via] for route in network.routes if route.via in reached}
        for subnet in own:
            for hop in (each for each in reached.values() if ip_address(each).version == subnet.version):
                subnets.setdefault(str(subnet), set()).add(hop)
    assert {prefix: hop for prefix, hop in found.items() if prefix not in subnets} == expected
    assert subnets.keys() <= found.keys()
    assert all(found[subnet] in its for subnet, its in subnets.items())


ROUTED: list[dict[str, Any]] = [
    {"mode": "route", "subnets": ("10.0.0.1/24",)},
    {"mode": "open", "subnets": ("10.0.0.1/24",), "routes": ({"to": "10.50.0.0/16", "via": "10.0.0.5"},)},
    {"mode": "route", "span": "host", "subnets": ("10.0.0.1/29", "fd00::1/64")},
    {"mode": "nat", "subnets": ("10.0.0.1/24",)},
]


def changes() -> st.SearchStrategy[Change]:
    """Changes that most often leave guests with addresses in one network that is reached from outside."""

    def port(number: int) -> st.SearchStrategy[PortStatus]:
        here = {"network": NETWORKS[0], "portgroup": "default", "ofport": number + 1}
        addresses = st.sampled_from([(), ("10.0.0.5",), ("10.0.0.5", "fd00::5"), ("10.0.0.6", "10.0.0.9")])
        return st.builds(
            lambda value, own: value.model_copy(update={**here, "addresses": own}), ports(number), addresses
        )

    def host(number: int) -> st.SearchStrategy[Change]:
        outside = hosts(number).filter(lambda spec: spec.external is not None)
        return named("Host", HOSTS[number], st.one_of(outside, outside, hosts(number)), 9)

    return st.one_of(
        st.integers(0, 2).flatmap(host),
        st.integers(0, 4).flatmap(lambda n: named("Port", PORTS[n], port(n), 9)),
        named("Network", NETWORKS[0], st.sampled_from(ROUTED).map(NetworkSpec.model_validate), 9),
    )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(changes(), min_size=1, max_size=8), min_size=1, max_size=8),
    st.sampled_from([None, None, "phys1", "phys2"]),
)
def test_random_fleets(history: list[list[Change]], uplink: str | None) -> None:
    rows, fabric = FleetRows().network(NETWORKS[0], **ROUTED[1]), Fabric()
    fabric.update(rows.rows())
    for step in history:
        for kind, name, value in step:
            rows.put(kind, name, value)
        changed = {(kind, name) for kind, name, _ in step}
        fabric.update(rows.rows(), None if any(kind in {"Host", "Network"} for kind, _ in changed) else changed)
        check(rows, uplink, routes(fabric, uplink))
