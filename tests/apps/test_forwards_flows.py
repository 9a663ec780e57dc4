"""Port forwards: who translates, and how answers find the way back; where each leads, whatever changes."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from fleets import FleetRows
from golden_flows import PIPELINE, check
from hypothesis import given
from hypothesis import strategies as st

from apps.forwards import _blocks
from controller.engine import Engine
from controller.pipeline.app import BlockId, Scope
from controller.views import ForwardView


def two_hosts(**network: object) -> FleetRows:
    """Guests a and b of network web, each on a host with an address outside; a third host has neither."""
    fleet = FleetRows().host("kvm1", "192.0.2.1", "phys1").host("kvm2", "192.0.2.2", "phys1").host("kvm3", "192.0.2.3")
    fleet.outside("kvm1", "phys1", "203.0.113.11", mac="02:f5:00:00:01:01")
    fleet.outside("kvm2", "phys1", "203.0.113.12", mac="02:f5:00:00:01:02")
    fleet.network("web", "nat", **{"subnets": ["10.0.0.0/24"], "gateway_mac": "02:f5:00:00:00:01", **network})
    return fleet.port("a", "kvm1", "web", addresses=("10.0.0.5",)).port("b", "kvm2", "web", addresses=("10.0.0.6",))


def where(fleet: FleetRows, name: str = "one") -> ForwardView | None:
    engine = Engine(PIPELINE)
    engine.update(fleet.rows())
    return engine.fabric.reader().forward(name)


def test_flows() -> None:
    fleet = two_hosts().forward("one", "web", {"port": 8080}, {"vnic": "a", "port": 80})
    fleet.forward("two", "web", {"port": "5000-5009", "protocol": "udp", "host": "kvm1"}, {"address": "10.0.0.6"})
    fleet.forward("three", "web", {"port": "90-91", "protocol": "sctp"}, {"vnic": "a", "port": "91-92"})
    check("forwards", "forwards", fleet)


def test_flows_of_ipv6() -> None:
    """Only the first host has an address of IPv6, and the second guest alone is forwarded to by it."""
    ipv6 = {"address6": "2001:db8::11/64", "gateway6": "fe80::1", "mac": "02:f5:00:00:01:01"}
    fleet = two_hosts(subnets=["10.0.0.0/24", "fd00::/64"]).outside("kvm1", "phys1", "203.0.113.11", **ipv6)
    fleet.port("b", "kvm2", "web", addresses=("10.0.0.6", "fd00::6"), ofport=2)
    fleet.forward("one", "web", {"port": 8080, "family": "ipv6"}, {"vnic": "b", "port": 80})
    fleet.forward("two", "web", {"port": "5000-5009", "protocol": "udp"}, {"address": "fd00::6"})
    view = where(fleet)
    assert view is not None
    assert (view.hosts, view.address) == (("kvm1",), "fd00::6")
    check("forwards_ipv6", "forwards", fleet)


def test_a_network_of_each_host_by_itself_is_reached_where_the_guest_is() -> None:
    fleet = two_hosts(span="host").forward("one", "web", {"port": 8080}, {"vnic": "a"})
    view = where(fleet)
    assert view is not None
    assert view.hosts == ("kvm1",)
    check("forwards_span_host", "forwards", fleet)


def test_without_forwards_there_is_nothing() -> None:
    check("forwards_none", "forwards", two_hosts().forward("one", "web", {"port": 8080}, {"vm": "nobody"}))


@pytest.mark.parametrize(
    ("target", "port"),
    [
        ({"vm": "00000000-0000-0000-0000-000000000002"}, "b"),
        ({"vm": "web1"}, "c"),
        ({"vnic": "a"}, "a"),
        ({"address": "10.0.0.6"}, "b"),
        ({"address": "10.0.0.9"}, None),
        ({"vm": "web2"}, None),
    ],
)
def test_targets(target: dict[str, str], port: str | None) -> None:
    fleet = two_hosts().port("c", "kvm3", "web", vm="web1", addresses=("fd00::7", "192.0.2.9", "10.0.0.7"))
    view = where(fleet.forward("one", "web", {"port": 8080}, target))
    assert (view and view.port) == port
    assert view is None or IPv4Address(view.address) in (IPv4Address("10.0.0.5"), IPv4Address("10.0.0.6"),
                                                         IPv4Address("10.0.0.7"))  # fmt: skip


def test_it_follows_its_target() -> None:
    fleet, engine = two_hosts().forward("one", "web", {"port": 8080}, {"vnic": "a"}), Engine(PIPELINE)
    engine.update(fleet.rows())
    block = BlockId("forwards", Scope.FORWARD, ("one",))
    assert engine.blocks[block].hosts == {"kvm1", "kvm2"}
    for change in ({"addresses": ("10.0.0.55",)}, {"host": "kvm3"}, {"state": "down"}, {"state": "active"}):
        fleet.put("Port", "a", fleet.ports["a"].model_copy(update=change))
        engine.update(fleet.rows(), {("Port", "a")})
        view = engine.fabric.reader().forward("one")
        assert (view and view.address) == (None if change == {"state": "down"} else "10.0.0.55")
        local = engine.blocks.get(BlockId("forwards", Scope.LOCAL, ("a",)))
        assert (local and local.hosts) == (None if view is None else {fleet.ports["a"].host})


def test_both_places_of_a_target_that_migrates_answer_the_way_it_came() -> None:
    fleet = two_hosts().forward("one", "web", {"port": 8080}, {"vnic": "a"})
    incoming = {"host": "kvm3", "tap": "vnet9", "ofport": 50}
    fleet.put(
        "Port", "a", type(fleet.ports["a"]).model_validate({**fleet.ports["a"].model_dump(), "incoming": incoming})
    )
    check("forwards_migration", "forwards", fleet)


def test_a_host_that_only_forwards_carries_the_network() -> None:
    """It has to reach the guest, and to hear its answers."""
    fleet = two_hosts().forward("one", "web", {"port": 8080, "host": "kvm1"}, {"vnic": "b"})
    fleet.put("Port", "a", None)
    engine = Engine(PIPELINE)
    engine.update(fleet.rows())
    assert engine.fabric.reader().hosts_of_network("web") == ("kvm1", "kvm2")
    fleet.put("PortForward", "one", None)
    engine.update(fleet.rows(), {("PortForward", "one")})
    assert engine.fabric.reader().hosts_of_network("web") == ("kvm2",)


@given(st.integers(1, 65535), st.integers(0, 3000))
def test_a_range_is_covered_exactly(low: int, length: int) -> None:
    high = min(low + length, 65535)
    covered = [value + n for value, mask in _blocks(low, high) for n in range(0x10000 - mask)]
    assert covered == list(range(low, high + 1))
