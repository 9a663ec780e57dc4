"""What stands in a drawing, measured but not placed: a box a host, a row a guest, a chip a vNIC, a tab an uplink."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from topology.graph.nodes import BridgeNode, DeviceNode, GuestNode, HostNode, TunnelNode, UplinkNode, VnicNode, node_id
from topology.graph.picture.text import fit, natural, one_line, width
from topology.graph.topology import Topology

COLUMN = 300.0
"""Width of a column of guests."""

HEAD, LINE, PAD, TAB, GAP = 28.0, 18.0, 10.0, 20.0, 18.0
_SHORT, _LONG = 84.0, 172.0  # room for the names of a host's guests, at least and at most

CHIP_SIZE, NAME_SIZE, HEARS_SIZE = 10.0, 11.5, 9.0
TAB_EDGE, TAB_GAP = 10.0, 6.0
_SPACE = 4.0
_ROWS = 22  # of a column; a host with more gets several
_MOST_COLUMNS = 4

SIGNS: Mapping[str, str] = {
    "quarantined": "cross", "pending": "wait", "down": "low", "unmanaged": "none", "absent": "away", "remark": "mark",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Chip:
    """A vNIC. ``look`` is its state, or ``remark`` for one that is active although something is amiss."""

    text: str
    network: str | None
    look: str
    title: str

    @property
    def width(self) -> float:
        return 9 + width(self.text, CHIP_SIZE) + 5 + (13 if self.look in SIGNS else 0)


@dataclass(frozen=True, slots=True)
class Row:
    """A guest with its vNICs of one host, in as many lines as they need; ``room`` is what its name may take."""

    label: str
    room: float
    title: str
    lines: tuple[tuple[Chip, ...], ...]

    @property
    def network(self) -> str | None:
        """That by which it is grouped."""
        return self.lines[0][0].network if self.lines else None

    @property
    def height(self) -> float:
        return LINE * max(1, len(self.lines)) + 3


@dataclass(frozen=True, slots=True)
class Tab:
    """Where a host's wire to a lane begins. ``hears`` is what stands at the other end, as far as it tells by LLDP."""

    text: str
    lane: str
    state: str
    title: str
    hears: str = ""

    @property
    def bad(self) -> bool:
        return self.state in {"down", "missing"}

    @property
    def width(self) -> float:
        own = width(self.text, CHIP_SIZE) + (13 if self.bad else 0)
        return max(own, width(self.hears, HEARS_SIZE)) + 14

    def within(self, room: float) -> Tab:
        """As much of it as fits."""
        left = room - 14
        text = fit(self.text, left - (13 if self.bad else 0), CHIP_SIZE)
        return replace(self, text=text, hears=fit(self.hears, left, HEARS_SIZE))


@dataclass(frozen=True, slots=True)
class Box:
    """A host, or (without a state) what is on none. ``columns`` of rows, each a column's."""

    name: str
    state: str
    note: str
    title: str
    columns: tuple[tuple[Row, ...], ...]
    tabs: tuple[Tab, ...]

    @property
    def width(self) -> float:
        """A multiple of what one column takes, with the gaps between: so boxes stand in columns."""
        return len(self.columns) * (COLUMN + GAP) - GAP

    @property
    def height(self) -> float:
        tallest = max((sum(row.height for row in column) for column in self.columns), default=0)
        return HEAD + PAD + max(tallest, LINE) + PAD + self.tab_height

    @property
    def tab_height(self) -> float:
        """Of all tabs: two lines where something is heard."""
        return 0 if not self.tabs else TAB + (HEARS_SIZE + 2 if any(tab.hears for tab in self.tabs) else 0)


def boxes(topology: Topology) -> list[Box]:
    """The hosts by name, and last what runs on none."""
    rows = _rows(topology)
    hosts = sorted((n for n in topology.nodes.values() if isinstance(n, HostNode)), key=lambda n: natural(n.name))
    known = {host.name for host in hosts}
    stray = [row for name, some in rows.items() if name not in known for row in some]
    found = [_box(topology, host, _columns(rows.get(host.name, ()))) for host in hosts]
    if stray:
        about = "Registered vNICs of guests that run on no host of the fleet"
        found.append(Box("on no host", "", "", about, _columns(sorted(stray, key=_row_order)), ()))
    return found


def _box(topology: Topology, host: HostNode, columns: tuple[tuple[Row, ...], ...]) -> Box:
    box = Box(host.name, host.state, _note(topology, host), _host_title(topology, host), columns, ())
    return replace(box, tabs=_side_by_side(_tabs(topology, host.name), box.width - 2 * TAB_EDGE))


def _side_by_side(tabs: Sequence[Tab], room: float) -> tuple[Tab, ...]:
    """The tabs in the width of their box: those that need more than their part of what is left are cut."""
    found: dict[int, Tab] = {}
    left = room - TAB_GAP * (len(tabs) - 1)
    for number in sorted(range(len(tabs)), key=lambda number: tabs[number].width):
        found[number] = tabs[number].within(left / (len(tabs) - len(found)))
        left -= found[number].width
    return tuple(found[number] for number in range(len(tabs)))


def _rows(topology: Topology) -> dict[str, list[Row]]:
    """The guests of each host ("" for none), those of a network together."""
    chips: dict[str, dict[GuestNode, list[Chip]]] = defaultdict(lambda: defaultdict(list))
    for name, guest in topology.sorted_nodes:
        if isinstance(guest, GuestNode):
            vnics = [topology.nodes[vnic] for vnic, edge in topology.near(name).items() if edge.relation == "has"]
            for vnic in sorted((v for v in vnics if isinstance(v, VnicNode)), key=_vnic_order):
                chips[vnic.host or ""][guest].append(_chip(vnic))
    return {host: _host_rows(guests) for host, guests in chips.items()}


def _host_rows(guests: Mapping[GuestNode, Sequence[Chip]]) -> list[Row]:
    """The names of a host's guests take what they need, and the chips what is left."""
    names = {guest: one_line(guest.label) for guest in guests}
    room = min(_LONG, max(_SHORT, *(width(name, NAME_SIZE) for name in names.values())))
    found = []
    for guest, chips in guests.items():
        title = "\n".join(filter(None, (f"guest {names[guest]}", guest.uuid)))
        lines = tuple(_lines(chips, COLUMN - room - 2 * PAD - 8))
        found.append(Row(fit(names[guest], room, NAME_SIZE), room, title, lines))
    return sorted(found, key=_row_order)


def _lines(chips: Iterable[Chip], room: float) -> Iterable[tuple[Chip, ...]]:
    line: list[Chip] = []
    left = room
    for chip in chips:
        if line and chip.width > left:
            yield tuple(line)
            line, left = [], room
        line.append(chip)
        left -= chip.width + _SPACE
    if line:
        yield tuple(line)


def _chip(vnic: VnicNode) -> Chip:
    tags = ",".join(str(vlan) for vlan in vnic.vlans if vlan)
    text = f"{vnic.network} {tags}".strip() if vnic.network is not None else vnic.state
    look = "remark" if vnic.state == "active" and vnic.reason else vnic.state
    lines = [
        f"{vnic.guest} {vnic.mac}", f"{vnic.state}{': ' if vnic.reason else ''}{vnic.reason}",
        f"network {vnic.network}, portgroup {vnic.portgroup}" if vnic.network else "",
        f"VLANs {tags}" if tags else "", f"isolation {vnic.isolation}" if vnic.isolation != "none" else "",
        f"interface {vnic.interface}, OpenFlow port {vnic.ofport}" if vnic.interface else "",
        f"addresses {', '.join(vnic.addresses)}" if vnic.addresses else "",
    ]  # fmt: skip
    room = COLUMN - _LONG - 2 * PAD - 8 - 9 - 5 - 13
    return Chip(fit(text, room, CHIP_SIZE), vnic.network, look, "\n".join(filter(None, map(one_line, lines))))


def _columns(rows: Sequence[Row]) -> tuple[tuple[Row, ...], ...]:
    count = min(_MOST_COLUMNS, -(-max(1, len(rows)) // _ROWS))
    size = max(1, -(-len(rows) // count))
    return tuple(tuple(rows[n * size : (n + 1) * size]) for n in range(count))


def _tabs(topology: Topology, host: str) -> list[Tab]:
    """Uplinks in the order of their physical networks, then the tunnels."""
    bridges = [node_id("bridge", host, bridge.name) for bridge in _bridges(topology, host)]
    ends = {name for bridge in bridges for name in topology.near(bridge) if name.startswith(("uplink:", "tunnel:"))}
    found = []
    for name in sorted(ends, key=lambda end: (end.startswith("tunnel:"), natural(end))):
        node, lane = topology.nodes[name], _lane(topology, name)
        if isinstance(node, UplinkNode):
            said = f"uplink {node.interface} to {node.physical_network}: {node.state}"
            title = "\n".join((said, *(f"hears {each}" for each in _hears(topology, name, ", port "))))
            found.append(Tab(one_line(node.interface), lane, node.state, title, _heard(topology, name)))
        elif isinstance(node, TunnelNode):
            title = f"others reach {host} by {node.type} at {node.address}: {node.state}"
            found.append(Tab(one_line(f"{node.type} {node.address}"), lane, node.state, title))
    return [tab for tab in found if tab.lane]


def _bridges(topology: Topology, host: str) -> list[BridgeNode]:
    near = (topology.nodes[name] for name in topology.near(node_id("host", host)))
    return sorted((node for node in near if isinstance(node, BridgeNode)), key=lambda bridge: bridge.name)


def _hears(topology: Topology, uplink: str, separator: str) -> list[str]:
    """What an uplink has heard, devices first, each with its port behind the separator."""
    heard = [(topology.nodes[near], edge) for near, edge in topology.near(uplink).items() if edge.relation == "hears"]
    heard.sort(key=lambda pair: (not isinstance(pair[0], DeviceNode), pair[0].label, pair[1].port or ""))
    return [one_line(node.label + (f"{separator}{edge.port}" if edge.port else "")) for node, edge in heard]


def _heard(topology: Topology, uplink: str) -> str:
    """The same in a word or two: a wire to a switch has one neighbour."""
    found = _hears(topology, uplink, " ")
    return f"{found[0]}{f' +{len(found) - 1}' if len(found) > 1 else ''}" if found else ""


def _lane(topology: Topology, end: str) -> str:
    """The physical network or underlay that an end is wired to."""
    return next((name for name, edge in topology.near(end).items() if edge.relation == "wire"), "")


def _note(topology: Topology, host: HostNode) -> str:
    """In words what is not up, or not there, where something else is."""
    if host.state == "down":
        return ""
    parts = {"OpenFlow": host.openflow, "OVSDB": host.ovsdb, "libvirt": host.libvirt}
    wrong = [f"{name} {state}" for name, state in parts.items() if state not in (None, "up")]
    wrong += [f"{b.name} {b.state}" for b in _bridges(topology, host.name) if b.state in {"missing", "degraded"}]
    return ", ".join(wrong)


def _host_title(topology: Topology, host: HostNode) -> str:
    parts = {"OpenFlow": host.openflow, "OVSDB": host.ovsdb, "libvirt": host.libvirt}
    lines = [f"host {host.name}: {host.state}", *(f"{name} {state}" for name, state in parts.items() if state)]
    lines += [f"bridge {bridge.name}: {bridge.state}" for bridge in _bridges(topology, host.name)]
    return "\n".join(filter(None, (*lines, host.reason, f"datapath id {host.datapath_id}")))


def _vnic_order(vnic: VnicNode) -> tuple[bool, list[tuple[int, int, str]], tuple[int, ...], str]:
    return vnic.network is None, natural(vnic.network or ""), vnic.vlans, vnic.mac


def _row_order(row: Row) -> tuple[bool, list[tuple[int, int, str]], list[tuple[int, int, str]]]:
    return row.network is None, natural(row.network or ""), natural(row.label)
