"""Neighbours, ways, who shares a segment, what fails: on a fleet whose answers can be told by looking at it."""

from __future__ import annotations

import pytest

from controller.errors import InvalidInput, NotFound
from tests.graph.graph_fleets import FleetRows, two_hosts, uuid_of
from topology.graph.names import resolve
from topology.graph.queries import fails, neighbours, path, shares
from topology.graph.topology import Topology


@pytest.fixture(scope="module")
def topology() -> Topology:
    return two_hosts().topology(9)


def way(topology: Topology, one: str, other: str) -> list[str]:
    found = path(topology, one, other)
    assert found.found, found.reason
    return [hop.place.label for hop in found.hops]


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("kvm01", "host:kvm01"),
        ("host:kvm01", "host:kvm01"),
        ("lan", "network:lan"),
        ("physnet1", "physical:physnet1"),
        ("kvm01/ens224", "uplink:kvm01/physnet1"),
        ("kvm01/physnet1", "uplink:kvm01/physnet1"),
        ("kvm01/br-int", "bridge:kvm01/br-int"),
        ("kvm01/geneve", "tunnel:kvm01"),
        ("192.0.2.1", "tunnel:kvm01"),
        ("underlay", "underlay:ipv4"),
        ("web1", f"guest:{uuid_of('web1')}"),
        (uuid_of("web1").upper(), f"guest:{uuid_of('web1')}"),
        ("52-54-00-00-00-01", f"vnic:{uuid_of('web1')}.525400000001"),
        ("10.0.10.11", f"vnic:{uuid_of('web1')}.525400000001"),
        ("web1/backend", f"vnic:{uuid_of('web1')}.525400000002"),
        ("kvm01/vnet1", f"vnic:{uuid_of('web1')}.525400000001"),
        ("web3-lan", "vnic:web3-lan"),
    ],
)
def test_names_as_people_say_them(topology: Topology, text: str, node: str) -> None:
    assert resolve(topology, text) == node


def test_what_is_not_known_or_not_certain(topology: Topology) -> None:
    with pytest.raises(NotFound, match="did you mean kvm01"):
        resolve(topology, "kwm01")
    fleet = two_hosts()
    fleet.host("backend", 9)
    with pytest.raises(InvalidInput, match="host:backend, network:backend"):
        resolve(fleet.topology(), "backend")


def test_a_guest_and_its_vnic_of_the_same_name() -> None:
    fleet = two_hosts()
    fleet.registered["web3"] = fleet.registered.pop("web3-lan")
    assert resolve(fleet.topology(), "web3") == "guest:web3"


def test_neighbours(topology: Topology) -> None:
    found = neighbours(topology, "kvm01/br-int")
    assert found.sequence == 9
    assert {(each.relation, each.place.label) for each in found.neighbours} == {
        ("has", "kvm01"), ("has", "kvm01/geneve"), ("patch", "kvm01/fs-up1"), ("plugged", "web1 52:54:00:00:00:01"),
        ("plugged", "web1 52:54:00:00:00:02"), ("plugged", "guest1 52:54:00:00:00:03")}  # fmt: skip


def test_frames_go_by_the_uplinks_of_a_physical_network(topology: Topology) -> None:
    found = path(topology, "web1", "web2")
    assert (found.network, found.vlan, found.remark) == ("lan", 10, "")
    assert way(topology, "web1", "web2") == [
        "web1", "web1 52:54:00:00:00:01", "kvm01/br-int", "kvm01/fs-up1", "kvm01/ens224", "physnet1",
        "kvm02/ens224", "kvm02/fs-up1", "kvm02/br-int", "web2 52:54:00:00:00:04", "web2"]  # fmt: skip
    assert [hop.by for hop in found.hops][:4] == ["", "has", "plugged", "patch"]


def test_frames_go_by_the_tunnels_of_an_overlay(topology: Topology) -> None:
    assert way(topology, "web1", "db1")[2:-2] == [
        "kvm01/br-int", "kvm01/geneve", "underlay ipv4", "kvm02/geneve", "kvm02/br-int"]  # fmt: skip
    assert way(topology, "52:54:00:00:00:02", "52:54:00:00:00:06")[0] == "web1 52:54:00:00:00:02"


def test_frames_leave_by_their_own_network_only(topology: Topology) -> None:
    assert way(topology, "guest1", "physnet1")[1:] == [
        "guest1 52:54:00:00:00:03", "kvm01/br-int", "kvm01/fs-up1", "kvm01/ens224", "physnet1"]  # fmt: skip
    found = path(topology, "db1", "physnet1")
    assert (found.found, found.reason) == (False, "nothing carries backend (untagged) between db1 and physnet1")


def test_wires_between_other_things(topology: Topology) -> None:
    assert way(topology, "kvm01", "kvm03") == [
        "kvm01", "kvm01/br-int", "kvm01/geneve", "underlay ipv4", "kvm03/geneve", "kvm03/br-int", "kvm03"]  # fmt: skip
    assert way(topology, "lan", "kvm02/ens224") == ["lan", "physnet1", "kvm02/ens224"]
    assert way(topology, "kvm01", "kvm01") == ["kvm01"]
    assert path(topology, "kvm03", "physnet1").reason == "nothing connects kvm03 and physnet1"


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        ("web2", "db1", "web2 and db1 share no segment: web2 is in lan (VLAN 10); db1 is in backend (untagged)"),
        ("bad1", "web2", "bad1 and web2 share no segment: bad1 is in no segment (quarantined: no such portgroup); "
         "web2 is in lan (VLAN 10)"),
        ("web3", "web2", "web3 and web2 share no segment: web3 is in no segment (absent); web2 is in lan (VLAN 10)"),
        ("guest1", "web2", "guest1 and web2 share no segment: guest1 is in lan (VLAN 20); web2 is in lan (VLAN 10)"),
    ],
)  # fmt: skip
def test_why_there_is_no_way(topology: Topology, one: str, other: str, reason: str) -> None:
    found = path(topology, one, other)
    assert (found.found, found.reason, found.hops) == (False, reason, ())


def test_a_segment_that_nothing_carries_to_a_host() -> None:
    fleet = two_hosts()
    fleet.vnic("lost1", 50, "kvm03", "lan", portgroup="office")
    found = path(fleet.topology(), "lost1", "web1")
    assert found.reason == "nothing carries lan (VLAN 10) between lost1 and web1"


def test_each_host_by_itself() -> None:
    fleet = two_hosts()
    for number, (vm, host) in enumerate((("a", "kvm01"), ("b", "kvm01"), ("c", "kvm02")), 60):
        fleet.vnic(vm, number, host, "local")
    topology = fleet.topology()
    assert way(topology, "a", "b")[2] == "kvm01/br-int"
    assert path(topology, "a", "c").reason == "nothing carries local (untagged) between a and c"


def test_tunnels_of_two_address_families_do_not_meet() -> None:
    fleet = two_hosts()
    fleet.host("kvm06", 6, tunnel_ip="2001:db8::6")
    fleet.vnic("six", 66, "kvm06", "backend")
    assert not path(fleet.topology(), "six", "db1").found


@pytest.mark.parametrize(
    ("groups", "remark"),
    [
        (("quiet", "quiet"), "both are isolated: the switches pass nothing between them"),
        (("quiet", "office"), ""),
    ],
)
def test_what_the_flows_forbid_is_said(groups: tuple[str, str], remark: str) -> None:
    fleet = two_hosts()
    lan = fleet.networks["lan"].model_dump(exclude_defaults=True)
    lan["portgroups"]["quiet"]["vlan"] = 10
    fleet.networks["lan"] = type(fleet.networks["lan"])(**lan)
    for number, (vm, group) in enumerate(zip(("a", "b"), groups, strict=True), 70):
        fleet.vnic(vm, number, "kvm01", "lan", portgroup=group)
    assert path(fleet.topology(), "a", "b").remark == remark


def test_who_shares_a_segment(topology: Topology) -> None:
    found = shares(topology, "web1")
    assert [(s.network, s.vlan, [m.guest for m in s.members]) for s in found.segments] == [
        ("backend", 0, ["db1", "far1", "web1"]), ("lan", 10, ["web1", "web2"])]  # fmt: skip
    assert found.kept_out == ()
    kept = shares(topology, "kvm02")
    assert {(s.network, s.vlan) for s in kept.segments} == {("backend", 0), ("lan", 10)}
    assert kept.kept_out == ("bad1 52:54:00:00:00:07: no such portgroup", "tap1 52:54:00:00:00:08: macvtap")


@pytest.mark.parametrize(
    ("of", "segments"),
    [
        ("lan", {("lan", 10), ("lan", 20)}),
        ("physnet1", {("lan", 10), ("lan", 20)}),
        ("kvm02/ens224", {("lan", 10)}),
        ("kvm01/fs-up1", {("lan", 10), ("lan", 20)}),
        ("kvm01/br-int", {("lan", 10), ("lan", 20), ("backend", 0)}),
        ("kvm03/geneve", {("backend", 0)}),
        ("underlay", {("backend", 0)}),
    ],
)
def test_who_shares_a_segment_behind_something(topology: Topology, of: str, segments: set[tuple[str, int]]) -> None:
    assert {(s.network, s.vlan) for s in shares(topology, of).segments} == segments


def test_a_trunk_is_in_all_its_vlans_and_passthrough_in_none() -> None:
    fleet = two_hosts()
    fleet.vnic("router", 80, "kvm02", "lan", portgroup="router")
    fleet.vnic("alone", 81, "kvm03", "lan", portgroup="whole")
    topology = fleet.topology()
    assert {(s.vlan, len(s.members)) for s in shares(topology, "router").segments} == {(10, 3), (20, 2)}
    assert [(s.vlan, [m.guest for m in s.members]) for s in shares(topology, "alone").segments] == [(None, ["alone"])]


def lost(topology: Topology, of: str) -> dict[tuple[str, int | None], tuple[int, set[tuple[str, int, int, bool]]]]:
    found = fails(topology, of)
    return {(s.network, s.vlan): (s.stopped, {(c.member.guest, c.peers, c.left, c.outside) for c in s.cut})
            for s in found.segments}  # fmt: skip


def test_what_fails_with_a_host(topology: Topology) -> None:
    found = fails(topology, "kvm01")
    assert [guest.label for guest in found.guests] == ["guest1", "web1"]
    # who runs on elsewhere loses peers that stopped, and nobody that runs
    assert lost(topology, "kvm01") == {("backend", 0): (1, set()), ("lan", 10): (1, set()), ("lan", 20): (1, set())}


def test_what_fails_with_an_uplink(topology: Topology) -> None:
    assert fails(topology, "kvm01/ens224").guests == ()
    assert lost(topology, "kvm01/ens224") == {
        ("lan", 10): (0, {("web1", 1, 0, True), ("web2", 1, 0, False)}),
        ("lan", 20): (0, {("guest1", 0, 0, True)}),
    }


def test_what_fails_with_a_physical_network(topology: Topology) -> None:
    assert lost(topology, "physnet1") == {
        ("lan", 10): (0, {("web1", 1, 0, True), ("web2", 1, 0, True)}),
        ("lan", 20): (0, {("guest1", 0, 0, True)}),
    }


def test_what_fails_with_a_tunnel_end_and_with_a_guest(topology: Topology) -> None:
    assert lost(topology, "kvm03/geneve") == {
        ("backend", 0): (0, {("web1", 2, 1, False), ("db1", 2, 1, False), ("far1", 2, 0, False)})}  # fmt: skip
    assert lost(topology, "web2") == {("lan", 10): (1, set())}
    assert lost(topology, "bad1") == {}


def test_a_network_does_not_fail(topology: Topology) -> None:
    with pytest.raises(InvalidInput, match="does not fail by itself"):
        fails(topology, "lan")


def test_an_empty_fleet() -> None:
    with pytest.raises(NotFound):
        neighbours(FleetRows().topology(), "kvm01")
