"""What uplinks hear by LLDP: in the graph as it was said, and without a say in where frames go or what fails."""

from __future__ import annotations

from dataclasses import asdict, replace

from tests.graph.graph_fleets import FleetRows, links, two_hosts
from topology.graph.exports import write_dot
from topology.graph.names import resolve
from topology.graph.nodes import DeviceNode, Heard, Links
from topology.graph.picture.svg import write_svg
from topology.graph.queries import fails, neighbours, path, shares
from topology.graph.topology import Topology

SWITCH = Heard("00:1b:21:00:00:01", "Gi1/0/1", "to kvm01", "sw1", "a switch", 20, 120)
DEVICE = "device:00:1b:21:00:00:01"


def hearing(fleet: FleetRows, found: dict[str, list[Heard]]) -> dict[str, Links]:
    """Everything is up; the uplinks to physnet1 of these hosts hear something."""
    return {
        name: replace(link, heard={"physnet1": found.get(name, [])}) for name, link in links(fleet).items()
    }  # fmt: skip


def both() -> Topology:
    """Both hosts are on one switch, and hear each other."""
    fleet = two_hosts()
    other = {
        name: Heard(f"f/{name}", "ens224", "", name, "", None, 121, (name, "physnet1")) for name in ("kvm01", "kvm02")
    }
    found = {"kvm01": [SWITCH, other["kvm02"]], "kvm02": [replace(SWITCH, port="Gi1/0/2"), other["kvm01"]]}
    return fleet.topology(9, hearing(fleet, found))


def test_a_switch_and_its_ports() -> None:
    topology = both()
    assert topology.nodes[DEVICE] == DeviceNode(name="sw1", chassis="00:1b:21:00:00:01", description="a switch")
    edges = topology.near(DEVICE)
    assert {name: edge.port for name, edge in edges.items()} == {
        "uplink:kvm01/physnet1": "Gi1/0/1", "uplink:kvm02/physnet1": "Gi1/0/2"}  # fmt: skip
    edge = edges["uplink:kvm01/physnet1"]
    assert (edge.relation, edge.port_description, edge.port_vlan, edge.ttl) == ("hears", "to kvm01", 20, 120)
    assert topology.near("uplink:kvm01/physnet1")["uplink:kvm02/physnet1"].relation == "hears"
    found = neighbours(topology, "kvm01/ens224").neighbours
    assert {each.place.label for each in found if each.relation == "hears"} == {"sw1", "kvm02/ens224"}
    assert [hop.place.label for hop in path(topology, "sw1", "kvm01").hops] == [
        "sw1", "kvm01/ens224", "kvm01/fs-up1", "kvm01"]  # fmt: skip


def test_it_changes_no_other_answer() -> None:
    heard, silent = both(), two_hosts().topology(9, links(two_hosts()))
    assert set(heard.nodes) - set(silent.nodes) == {DEVICE}
    for one in silent.nodes:
        assert asdict(shares(heard, one)) == asdict(shares(silent, one))
        if not one.startswith("network:"):
            assert asdict(fails(heard, one)) == asdict(fails(silent, one))
        for other in silent.nodes:
            assert asdict(path(heard, one, other)) == asdict(path(silent, one, other)), (one, other)
    assert fails(heard, "sw1").segments == ()


def test_part_of_it() -> None:
    topology = both()
    assert DEVICE in topology.narrowed(network="lan").nodes
    assert DEVICE not in topology.narrowed(network="backend").nodes
    kvm01 = topology.narrowed(host="kvm01").nodes
    assert DEVICE in kvm01
    assert "uplink:kvm02/physnet1" not in kvm01


def test_a_wire_without_a_link_has_nobody_on_it() -> None:
    fleet = two_hosts()
    other = Heard("f/kvm01", "ens224", "", "kvm01", "", None, 121, ("kvm01", "physnet1"))
    found = hearing(fleet, {"kvm01": [SWITCH], "kvm02": [other]})
    found["kvm01"] = replace(found["kvm01"], interfaces={"ens224": "down"})
    topology = fleet.topology(9, found)
    assert DEVICE not in topology.nodes
    assert not any(edge.relation == "hears" for edge in topology.edges.values())
    found = hearing(fleet, {"kvm03": [SWITCH], "kvm02": [replace(other, uplink=("gone", "physnet1"))]})
    topology = fleet.topology(9, found)
    assert DEVICE not in topology.nodes, "kvm03 has no such uplink"
    assert not any(edge.relation == "hears" for edge in topology.edges.values())


def test_a_device_takes_nobodys_name_away() -> None:
    fleet = two_hosts()
    liars = [replace(SWITCH, chassis=f"liar{n}", system_name=name) for n, name in enumerate(("kvm02", "web1", "lan"))]
    topology = fleet.topology(9, hearing(fleet, {"kvm01": [*liars, SWITCH]}))
    assert [resolve(topology, name).partition(":")[0] for name in ("kvm02", "web1", "lan")] == [
        "host", "guest", "network"]  # fmt: skip
    assert resolve(topology, "sw1") == resolve(topology, "00:1B:21:00:00:01") == DEVICE


def test_an_id_is_plain_whatever_it_calls_itself() -> None:
    fleet, odd = two_hosts(), 'a "b" \N{SNOWMAN}'
    topology = fleet.topology(9, hearing(fleet, {"kvm01": [replace(SWITCH, chassis=odd)]}))
    assert f"device:{odd.encode().hex()}" in topology.nodes
    assert topology.of(resolve(topology, odd)).label == "sw1"


def test_it_is_drawn() -> None:
    topology = both()
    assert "hears sw1, port Gi1/0/1" in "".join(write_svg(topology))
    assert f'"{DEVICE}" -- ' in "".join(write_dot(topology)) or f'-- "{DEVICE}"' in "".join(write_dot(topology))
