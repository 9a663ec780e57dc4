"""The topology follows the rows: what many small updates leave is what one update with all rows makes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.model.host import HostSpec
from controller.model.network import NetworkSpec
from controller.model.port import PortSpec, PortStatus
from tests.graph.graph_fleets import FleetRows, links, two_hosts, uuid_of
from topology.graph.live import LiveTopology
from topology.graph.nodes import BridgeNode, HostNode, Links, NetworkNode, TunnelNode, UplinkNode, VnicNode

HOSTS = st.sampled_from(["kvm01", "kvm02", "kvm03"])
NETWORKS = st.sampled_from(["lan", "backend", "local"])
VMS = st.sampled_from(["web1", "db1", uuid_of("web1")])
PORTS = st.sampled_from(["p1", "p2", "p3", "p4"])

host_specs = st.builds(
    HostSpec,
    ovsdb=st.just("unix:/run/db.sock"),
    tunnel_ip=st.sampled_from([None, "192.0.2.1", "2001:db8::1"]),
    underlay_mtu=st.sampled_from([1500, 1400]),
    bridge=st.sampled_from(["br-int", "br-fleet"]),
    uplinks=st.dictionaries(st.sampled_from(["physnet1", "physnet2"]), st.just({"interface": "ens1"}), max_size=1),
)
network_specs = st.sampled_from([
    NetworkSpec(mode="isolated"),
    NetworkSpec(mode="isolated", span="host"),
    NetworkSpec(mode="bridge", physical_network="physnet1", portgroups={"office": {"vlan": 10}}),
    NetworkSpec(mode="bridge", physical_network="physnet2", vlan=7, portgroups={"w": {"isolation": "passthrough"}}),
])  # fmt: skip
port_specs = st.builds(PortSpec, vm=VMS, mac=st.just("52:54:00:00:00:01"), network=NETWORKS)
statuses = st.builds(
    PortStatus,
    vm_uuid=st.sampled_from([uuid_of("web1"), uuid_of("db1"), uuid_of("another")]),
    vm=st.sampled_from([None, "web1", "db1"]),
    mac=st.just("52:54:00:00:00:01"),
    host=st.none() | HOSTS,
    ofport=st.none() | st.just(3),
    network=st.none() | NETWORKS,
    portgroup=st.sampled_from(["default", "office", "w", "gone"]),
    state=st.sampled_from(["absent", "pending", "active", "quarantined", "down", "unmanaged"]),
)
changes = st.one_of(
    st.tuples(st.just("hosts"), HOSTS, st.none() | host_specs),
    st.tuples(st.just("leaving"), HOSTS, host_specs),
    st.tuples(st.just("networks"), NETWORKS, st.none() | network_specs),
    st.tuples(st.just("registered"), PORTS, st.none() | port_specs),
    st.tuples(st.just("statuses"), PORTS, st.none() | statuses),
)
KINDS = {"hosts": "Host", "leaving": "Host", "networks": "Network", "registered": "Port", "statuses": "Port"}


def change(fleet: FleetRows, what: str, name: str, spec: Any) -> tuple[str, str]:
    """One row becomes another, or none."""
    if KINDS[what] == "Host":
        fleet.hosts.pop(name, None)
        fleet.leaving.pop(name, None)
    table = getattr(fleet, what)
    table.pop(name, None)
    if spec is not None:
        table[name] = spec
    return KINDS[what], name


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(changes, min_size=1, max_size=4), max_size=12))
def test_small_updates_leave_what_one_large_makes(batches: list[list[tuple[str, str, Any]]]) -> None:
    fleet, live = FleetRows(), LiveTopology()
    live.update(fleet.rows())
    for batch in batches:
        changed = {change(fleet, *each) for each in batch}
        live.update(fleet.rows(), changed)
        incremental, whole = live.snapshot(1, {}), fleet.topology()
        assert incremental.nodes == whole.nodes
        assert incremental.edges == whole.edges
        assert all(end in whole.nodes for edge in whole.edges for end in edge)


def test_a_full_update_forgets_what_is_gone() -> None:
    live, empty = LiveTopology(), FleetRows()
    live.update(two_hosts().rows())
    assert live.snapshot(1, {}).nodes
    live.update(empty.rows())
    assert (live.snapshot(1, {}).nodes, live.snapshot(1, {}).edges) == ({}, {})


def test_a_snapshot_stays_as_it_was() -> None:
    fleet, live = two_hosts(), LiveTopology()
    live.update(fleet.rows())
    before = live.snapshot(7, {})
    nodes, edges = dict(before.nodes), dict(before.edges)
    fleet.hosts.clear()
    live.update(fleet.rows(), [("Host", "kvm01"), ("Host", "kvm02"), ("Host", "kvm03")])
    assert (before.sequence, before.nodes, before.edges) == (7, nodes, edges)
    assert live.snapshot(8, {}).nodes != nodes


def test_a_registered_vnic_belongs_to_the_guest_that_has_its_name() -> None:
    fleet = two_hosts()
    fleet.registered["web1-extra"] = PortSpec(vm="web1", mac="52:54:00:00:00:77", network="backend")
    topology = fleet.topology()
    web1, web3 = f"guest:{uuid_of('web1')}", "guest:web3"
    assert topology.near(web1)["vnic:web1-extra"].relation == "has"
    assert topology.near(web3).keys() == {"vnic:web3-lan"}
    assert topology.nodes[web1].state == "running"
    assert topology.nodes[web3].state == "absent"


@pytest.mark.parametrize(
    ("parts", "state", "reason"),
    [
        ({}, "up", ""),
        ({"openflow": ("down", "timed out")}, "degraded", "openflow: timed out"),
        (dict.fromkeys(("openflow", "ovsdb", "libvirt"), ("down", "")), "down",
         "openflow: down; ovsdb: down; libvirt: down"),
    ],
)  # fmt: skip
def test_connections_are_what_they_are_at_the_moment(
    parts: dict[str, tuple[str, str]], state: str, reason: str
) -> None:
    fleet = two_hosts()
    topology = fleet.topology(links=links(fleet, kvm01=parts))
    host = topology.nodes["host:kvm01"]
    assert isinstance(host, HostNode)
    assert (host.state, host.reason) == (state, reason)
    assert (host.openflow, host.ovsdb) == tuple(parts.get(p, ("up", ""))[0] for p in ("openflow", "ovsdb"))
    assert topology.nodes["host:kvm02"].state == "up"


def test_a_host_that_leaves_says_so_whatever_its_connections_are() -> None:
    fleet = two_hosts()
    fleet.leaving["kvm01"] = fleet.hosts.pop("kvm01")
    topology = fleet.topology(links=links(fleet))
    assert topology.nodes["host:kvm01"].state == "leaving"


def test_uplinks_have_the_state_of_their_interface() -> None:
    fleet = two_hosts()
    topology = fleet.topology(links={"kvm01": Links({}, {"ens224": "down"}), "gone": Links({})})
    states = {n.host: n.state for n in topology.nodes.values() if isinstance(n, UplinkNode)}
    assert states == {"kvm01": "down", "kvm02": "unknown"}
    topology = fleet.topology(links={"kvm01": Links({}, {}), "kvm02": Links({}, {"ens224": "unknown"})})
    states = {n.host: n.state for n in topology.nodes.values() if isinstance(n, UplinkNode)}
    assert states == {"kvm01": "missing", "kvm02": "unknown"}


def standing(fleet: FleetRows, host: str, link: Links | None) -> dict[str, tuple[str, Any]]:
    """State and ports of the host's bridges and its tunnels' end."""
    nodes = fleet.topology(links={host: link} if link is not None else {}).nodes
    own = [node for node in nodes.values() if getattr(node, "host", None) == host]
    found = {node.name: (node.state, node.patch_ports) for node in own if isinstance(node, BridgeNode)}
    [tunnel] = [node for node in own if isinstance(node, TunnelNode)]
    return found | {"tunnel": (tunnel.state, tunnel.ports)}


def test_bridges_and_tunnels_are_what_the_hosts_ovsdb_has() -> None:
    fleet = two_hosts()
    pair, whole = ("fs-int1", "fs-ext1"), links(fleet)["kvm01"]
    has = dict(whole.interfaces or {})
    assert standing(fleet, "kvm01", None) == {
        "br-int": ("unknown", ()), "fs-up1": ("unknown", pair), "tunnel": ("unknown", ())}  # fmt: skip
    right = {"br-int": ("up", ()), "fs-up1": ("up", pair), "tunnel": ("up", ("vxlan", "geneve", "gre"))}
    assert {n: (s, sorted(p)) for n, (s, p) in standing(fleet, "kvm01", whole).items()} == {
        n: (s, sorted(p)) for n, (s, p) in right.items()}  # fmt: skip
    for wrong, name, state in (
        ({"interfaces": has | {"fs-ext1": "missing"}}, "fs-up1", "degraded"),
        ({"bridges": {"br-int"}}, "fs-up1", "missing"),
        ({"bridges": {"fs-up1"}}, "br-int", "missing"),
        ({"interfaces": has | {"fs-geneve": "missing"}}, "tunnel", "missing"),
        ({"interfaces": {n: s for n, s in has.items() if n != "fs-geneve"}}, "tunnel", "missing"),
        ({"interfaces": has | {"fs-geneve": "unknown"}}, "tunnel", "unknown"),
    ):
        found = standing(fleet, "kvm01", replace(whole, **wrong))
        assert found.pop(name)[0] == state
        assert {each for each, _ in found.values()} == {"up"}
    found = standing(fleet, "kvm01", replace(whole, interfaces={n: s for n, s in has.items() if n != "fs-gre"}))
    assert (found["tunnel"][0], set(found["tunnel"][1])) == ("up", {"geneve", "vxlan"})


def test_networks_are_what_the_hosts_libvirts_have() -> None:
    def states(**has: set[str] | None) -> dict[str, tuple[str, tuple[str, ...]]]:
        nodes = two_hosts().topology(links={host: Links({}, networks=names) for host, names in has.items()}).nodes
        return {n.name: (n.state, n.missing_on) for n in nodes.values() if isinstance(n, NetworkNode)}

    every = {"lan", "backend", "local"}
    assert set(states(kvm01=None).values()) == {("unknown", ())}
    assert set(states(kvm01=every, kvm02=None, gone=set()).values()) == {("up", ())}
    assert states(kvm01=every, kvm02={"lan"}, kvm03={"lan", "local"}) == {
        "lan": ("up", ()), "backend": ("degraded", ("kvm02", "kvm03")), "local": ("degraded", ("kvm02",))}  # fmt: skip


def test_what_is_kept_out_is_plugged_in_and_no_member() -> None:
    topology = two_hosts().topology()
    names = {n.guest: f"vnic:{n.name}" for n in topology.nodes.values() if isinstance(n, VnicNode)}
    assert {e.relation for e in topology.near(names["bad1"]).values()} == {"has", "plugged", "asks"}
    assert {e.relation for e in topology.near(names["tap1"]).values()} == {"has"}
    assert {e.relation for e in topology.near(names["db1"]).values()} == {"has", "plugged", "member"}


def test_narrowed() -> None:
    topology = two_hosts().topology()
    lan = topology.narrowed(network="lan")
    assert {n for n in lan.nodes if n.split(":")[0] in {"host", "network", "physical", "tunnel", "underlay"}} == {
        "host:kvm01", "host:kvm02", "network:lan", "physical:physnet1"}  # fmt: skip
    assert {n.guest for n in lan.nodes.values() if isinstance(n, VnicNode)} == {
        "web1", "guest1", "web2", "bad1", "web3"}  # fmt: skip
    backend = topology.narrowed(network="backend")
    assert "underlay:ipv4" in backend.nodes
    assert not any(n.startswith(("physical:", "uplink:")) for n in backend.nodes)
    kvm02 = topology.narrowed(host="kvm02")
    assert {n for n in kvm02.nodes if n.startswith(("host:", "network:"))} == {
        "host:kvm02", "network:lan", "network:backend"}  # fmt: skip
    assert {n.guest for n in kvm02.nodes.values() if isinstance(n, VnicNode)} == {"web2", "db1", "bad1", "tap1"}
    both = topology.narrowed(network="lan", host="kvm02")
    assert {n.guest for n in both.nodes.values() if isinstance(n, VnicNode)} == {"web2", "bad1"}
