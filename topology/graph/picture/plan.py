"""Where everything stands: boxes in a grid, and under each row of the grid the lanes that its hosts are wired to.

A lane is a physical network or the tunnels' underlay: one line for all, not one between each two. The lanes of the rows
come together in risers at the left, and end at the bottom.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from topology.graph.nodes import NetworkNode, PhysicalNode, UnderlayNode, node_id
from topology.graph.picture.boxes import COLUMN, GAP, TAB_EDGE, TAB_GAP, Box, Tab
from topology.graph.picture.text import fit, natural, width
from topology.graph.topology import Topology

MARGIN, LANE, RISER = 28.0, 19.0, 14.0
LABEL_SIZE = 10.5
_LONGEST_LABEL = 130.0
_AROUND = 300.0  # about what stands above and below the grid
_EMPTY = 0.6  # how much worse than another shape is a grid that is half empty
_SHAPE = 1.5  # width to height: of the paper on a wall, and of screens


@dataclass(frozen=True, slots=True)
class Lane:
    """``x`` is where its riser stands, ``tunnels`` says that it is an underlay, ``over`` which networks go there,
    ``number`` its place among them all."""

    id: str
    label: str
    tunnels: bool
    over: tuple[str, ...]
    x: float
    number: int


@dataclass(frozen=True, slots=True)
class Placed:
    """A box with its upper left corner; ``wires`` are its tabs with their x and the y of their lane."""

    box: Box
    x: float
    y: float
    height: float
    wires: tuple[tuple[Tab, float, float], ...]


@dataclass(frozen=True, slots=True)
class LaneRun:
    """A lane under one row of the grid."""

    lane: Lane
    y: float
    end: float


@dataclass(frozen=True, slots=True)
class Plan:
    """The grid from ``top`` to ``bottom``, ``width`` wide with its margins; ``labels`` is where lanes' names stand."""

    placed: tuple[Placed, ...]
    runs: tuple[LaneRun, ...]
    lanes: tuple[Lane, ...]
    labels: float
    width: float
    bottom: float


def network_names(topology: Topology) -> list[str]:
    """In the order in which they have colours."""
    return sorted((node.name for node in topology.nodes.values() if isinstance(node, NetworkNode)), key=natural)


def lanes(topology: Topology) -> list[Lane]:
    """Physical networks by name, then underlays; those that something is wired to."""
    ends = [n for n in topology.nodes.values() if isinstance(n, (PhysicalNode, UnderlayNode))]
    ends.sort(key=lambda n: (isinstance(n, UnderlayNode), natural(n.name)))
    families = sum(isinstance(n, UnderlayNode) for n in ends)
    found = []
    for number, node in enumerate(ends):
        name = node_id(node.kind, node.name)
        tunnels = isinstance(node, UnderlayNode)
        label = (f"tunnels {node.name}" if families > 1 else "tunnels") if tunnels else node.name
        nets = [topology.nodes[near] for near, edge in topology.near(name).items() if edge.relation == "over"]
        over = sorted((net.name for net in nets if isinstance(net, NetworkNode)), key=natural)
        found.append(
            Lane(
                name,
                fit(label, _LONGEST_LABEL, LABEL_SIZE, True),
                tunnels,
                tuple(over),
                MARGIN + RISER * number,
                number,
            )
        )
    return found


def plan(found: Sequence[Box], known: Sequence[Lane], top: float, least: float) -> Plan:
    """Place the boxes below ``top``; ``least`` is the width that the rest needs anyway."""
    labels = MARGIN + RISER * len(known)
    left = labels + max((width(lane.label, LABEL_SIZE, True) + 10 for lane in known), default=0.0)
    placed: list[Placed] = []
    runs: list[LaneRun] = []
    y, wide = top, least
    for row in _best(found, left, len(known)):
        height = max(box.height for box in row)
        used = [lane for lane in known if any(tab.lane == lane.id for box in row for tab in box.tabs)]
        levels = {lane.id: y + height + LANE * (number + 1) for number, lane in enumerate(used)}
        ends: dict[str, float] = {}
        x = left
        for box in row:
            wires = tuple(_wires(box, x, levels))
            ends |= {tab.lane: at for tab, at, _ in wires}
            placed.append(Placed(box, x, y, height, wires))
            x += box.width + GAP
        runs += [LaneRun(lane, levels[lane.id], ends[lane.id]) for lane in used]
        wide = max(wide, x - GAP + MARGIN)
        y += height + _below(len(used))
    return Plan(tuple(placed), tuple(runs), tuple(known), labels, wide, y)


def _wires(box: Box, x: float, levels: dict[str, float]) -> list[tuple[Tab, float, float]]:
    """Each tab with the x of its wire."""
    found = []
    at = x + TAB_EDGE
    for tab in box.tabs:
        found.append((tab, at + 9, levels[tab.lane]))
        at += tab.width + TAB_GAP
    return found


def _best(found: Sequence[Box], left: float, count: int) -> list[list[Box]]:
    """The boxes in rows of that width which comes nearest to the shape that is wanted."""
    best: list[list[Box]] = []
    nearest = float("inf")
    heights = {box.name: box.height for box in found}
    area = sum(box.width * (heights[box.name] + _below(count)) for box in found)
    guess = int(math.sqrt(area * _SHAPE) / COLUMN)
    for columns in range(max(1, guess // 2), guess * 2 + 3):
        rows = _rows(found, columns * (COLUMN + GAP))
        high = _AROUND + sum(max(heights[box.name] for box in row) + _below(count) for row in rows)
        wide = left + max((sum(box.width + GAP for box in row) for row in rows), default=0.0)
        room = columns * len(rows)
        empty = 1 - sum(len(box.columns) for box in found) / room if room else 0.0
        distance = abs(math.log(wide / high / _SHAPE)) + _EMPTY * empty
        if distance < nearest:
            best, nearest = rows, distance
    return best


def _rows(found: Sequence[Box], room: float) -> list[list[Box]]:
    rows: list[list[Box]] = []
    left = 0.0
    for box in found:
        if not rows or box.width + GAP > left:
            rows.append([])
            left = room
        rows[-1].append(box)
        left -= box.width + GAP
    return rows


def _below(count: int) -> float:
    """Height between the boxes of a row and the next row, with so many lanes in it."""
    return LANE * count + GAP + (8 if count else 0)
