"""The drawing: everything is in it, nothing lies on something else, and no name breaks out of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import combinations, pairwise
from typing import get_args
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.model.port import PortState
from tests.graph.graph_fleets import FleetRows, links, many, two_hosts
from topology.graph.nodes import GuestNode, Heard, Links, NetworkNode, UplinkNode, VnicNode
from topology.graph.picture.boxes import COLUMN, SIGNS, boxes
from topology.graph.picture.plan import lanes, plan
from topology.graph.picture.svg import write_svg
from topology.graph.picture.text import fit, natural, one_line, width
from topology.graph.topology import Topology

SVG = "{http://www.w3.org/2000/svg}"


def crowded() -> Topology:
    """Hosts of all sizes: without guests, with one, with more than fit in a column."""
    fleet = many(7, 30)
    for number in range(90):
        fleet.vnic(f"crowd-of-long-names-{number}", 9000 + number, "kvm04", "lan", portgroup="office")
    fleet.host("kvm99", 99, "physnet1", "physnet2", "physnet3", tunnel_ip="2001:db8::99")
    return fleet.topology(2, links(fleet))


def wired(hosts: int, guests: int, networks: int) -> Topology:
    """Hosts of which each uplink hears a switch, by its own port."""
    fleet = many(hosts, guests, networks)
    return fleet.topology(3, wired_links(fleet))


def wired_links(fleet: FleetRows) -> dict[str, Links]:
    return {
        name: replace(link, heard={
            physical: [Heard("00:1b:21:00:00:01", f"Gi1/0/{number}-{physical}", name, "leaf1", "a switch", None, 121)]
            for physical in fleet.hosts[name].uplinks
        })
        for number, (name, link) in enumerate(links(fleet).items(), 1)
    }  # fmt: skip


FLEETS = {
    "two": wired(2, 10, 4),
    "three": two_hosts().topology(1, links(two_hosts())),
    "five": wired(5, 30, 6),
    "crowded": crowded(),
    "fifty": wired(50, 300, 14),
    "nothing": FleetRows().topology(0),
}


@pytest.fixture(params=FLEETS)
def topology(request: pytest.FixtureRequest) -> Topology:
    return FLEETS[request.param]


def drawn(topology: Topology) -> ElementTree.Element:
    return ElementTree.fromstring("".join(write_svg(topology)).encode())


def titles(root: ElementTree.Element) -> str:
    return "\n".join(element.text or "" for element in root.iter(f"{SVG}title"))


def test_everything_is_in_it(topology: Topology) -> None:
    told = titles(drawn(topology))
    texts = {element.text for element in drawn(topology).iter(f"{SVG}text")}
    for node in topology.nodes.values():
        match node:
            case VnicNode():
                assert f"{node.guest} {node.mac}" in told
            case GuestNode():
                assert f"guest {node.label}" in told
            case NetworkNode():
                assert node.name in texts


def test_nothing_lies_on_something_else(topology: Topology) -> None:
    grid = plan(boxes(topology), lanes(topology), 100, 840)
    assert len(grid.placed) == len({placed.box.name for placed in grid.placed})
    for one, other in combinations(grid.placed, 2):
        apart = (one.x + one.box.width <= other.x or other.x + other.box.width <= one.x
                 or one.y + one.height <= other.y or other.y + other.height <= one.y)  # fmt: skip
        assert apart, (one.box.name, other.box.name)
    for placed in grid.placed:
        assert placed.x >= grid.labels
        assert placed.x + placed.box.width <= grid.width
        for tab, x, y in placed.wires:
            [run] = [run for run in grid.runs if run.lane.id == tab.lane and run.y == y]
            assert run.lane.x < x <= run.end
            assert y > placed.y + placed.height
        ends = [x + tab.width for tab, x, _ in placed.wires]
        assert all(end <= after for end, (_, after, _) in zip(ends, placed.wires[1:], strict=False))
        assert all(end <= placed.x + placed.box.width for end in ends)
    levels = sorted({run.y for run in grid.runs})
    assert all(after - before >= 15 for before, after in pairwise(levels))


def test_chips_stay_in_their_columns(topology: Topology) -> None:
    for box in boxes(topology):
        for row in (row for column in box.columns for row in column):
            assert row.lines
            for line in row.lines:
                assert 14 + row.room + 6 + sum(chip.width + 4 for chip in line) <= COLUMN


def test_a_state_is_told_by_more_than_colour() -> None:
    assert set(SIGNS) >= set(get_args(PortState)) - {"active"}
    assert len(set(SIGNS.values())) == len(SIGNS)


def test_what_needs_a_look_is_said() -> None:
    fleet = two_hosts()
    wrong = links(fleet, kvm02={"libvirt": ("down", "Connection refused")})
    wrong["kvm01"].interfaces["ens224"] = "down"  # type: ignore[index]
    root = drawn(fleet.topology(1, wrong))
    texts = {element.text for element in root.iter(f"{SVG}text")}
    assert "needs a look: 1 host degraded, 1 uplink down, 1 vNIC quarantined" in texts
    assert {"degraded: libvirt down", "on no host", "physical network · 2 uplinks, 1 down"} <= texts
    assert "Connection refused" in titles(root)
    gone = links(fleet)
    gone["kvm01"] = replace(gone["kvm01"], bridges={"br-int"}, networks={"lan", "local"})
    del gone["kvm02"].interfaces["fs-geneve"]  # type: ignore[attr-defined]
    root = drawn(fleet.topology(1, gone))
    texts = {element.text for element in root.iter(f"{SVG}text")}
    assert "needs a look: 1 bridge missing, 1 network degraded, 1 tunnel missing, 1 vNIC quarantined" in texts
    assert {"underlay · 3 ends, 1 down", "not on kvm01", "up: fs-up1 missing"} <= texts
    assert "bridge fs-up1: missing" in titles(root)
    calm = FleetRows()
    calm.host("kvm01", 1)
    assert "everything is up and switched" in {e.text for e in drawn(calm.topology(1, links(calm))).iter(f"{SVG}text")}


@pytest.mark.parametrize("name", ["two", "five", "fifty"])
def test_each_uplink_tells_the_switch_and_port_at_its_other_end(name: str) -> None:
    topology = FLEETS[name]
    tabs = [tab for box in boxes(topology) for tab in box.tabs]
    uplinks = [node for node in topology.nodes.values() if isinstance(node, UplinkNode)]
    heard = [tab for tab in tabs if tab.hears]
    assert len(heard) == len(uplinks)
    texts = Counter(element.text for element in drawn(topology).iter(f"{SVG}text"))
    assert not Counter(tab.hears for tab in heard) - texts
    whole = {edge.port for edge in topology.edges.values() if edge.relation == "hears"}
    for tab in heard:
        head, _, tail = tab.hears.partition("…")
        assert any(f"leaf1 {port}".startswith(head) and (port or "").endswith(tail) for port in whole), tab.hears


def test_an_uplink_that_hears_many_names_a_switch_and_counts_the_others() -> None:
    fleet = two_hosts()
    found = links(fleet)
    switch = Heard("00:1b:21:00:00:01", "Gi1/0/1", "", "sw1", "", None, 121)
    others = [Heard(f"x/{n}", "", "", "", "", None, 121) for n in range(2)]
    known = Heard("fleet/kvm02", "ens224", "", "kvm02", "", None, 121, ("kvm02", "physnet1"))
    found["kvm01"] = replace(found["kvm01"], heard={"physnet1": [known, *others, switch]})
    told = {tab.hears for box in boxes(fleet.topology(1, found)) for tab in box.tabs}
    assert told == {"", "sw1 Gi1/0/1 +3", "kvm01/ens224"}


@settings(max_examples=80, deadline=None)
@given(st.text(st.characters(), min_size=1, max_size=40))
def test_no_name_breaks_out(name: str) -> None:
    fleet = two_hosts()
    fleet.vnic(name, 300, "kvm01", "backend", state="quarantined", reason=name, tap=name)
    root = drawn(fleet.topology(1, links(fleet, kvm01={"ovsdb": ("down", name)})))
    assert one_line(name) in titles(root)
    kinds = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert kinds <= {"svg", "title", "style", "defs", "pattern", "path", "rect", "circle", "g", "text"}
    known = {"id", "x", "y", "width", "height", "rx", "cx", "cy", "r", "d", "class", "fill", "stroke", "opacity",
             "viewBox", "role", "aria-label", "transform"}  # fmt: skip
    for element in root.iter():
        assert all(key in known or "-" in key or key.startswith("pattern") for key in element.attrib)
    assert all(line.isprintable() for element in root.iter(f"{SVG}text") for line in [element.text or ""])


@given(st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=60), st.floats(20, 300))
def test_what_is_cut_fits_and_keeps_both_ends(text: str, room: float) -> None:
    shown = fit(text, room, 11)
    assert width(shown, 11) <= max(room, width("…", 11)) + 0.001
    if shown != one_line(text):
        head, _, tail = shown.partition("…") if "…" not in text else (shown[:1], "", shown[-1:])
        assert one_line(text).startswith(head)
        assert one_line(text).endswith(tail)


def test_numbers_in_names_count() -> None:
    assert sorted(["web10", "web2", "db1", "web"], key=natural) == ["db1", "web", "web2", "web10"]
