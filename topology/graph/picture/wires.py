"""Wires: lanes under the rows of the grid, their risers and ends, and what goes from each host to them."""

from __future__ import annotations

from collections.abc import Mapping

from topology.graph.picture.boxes import CHIP_SIZE
from topology.graph.picture.canvas import Canvas
from topology.graph.picture.chips import chip_outline
from topology.graph.picture.plan import LABEL_SIZE, Lane, Placed, Plan
from topology.graph.picture.text import one_line, width
from topology.graph.topology import Topology

_END = 40.0  # height of a lane's end at the bottom
_DASHES = ("none", "10 3", "2 2.5", "12 3 2 3")  # physical networks differ in these
_HALO = 'class="s-paper" stroke-width="6"'


def ends_height(grid: Plan) -> float:
    """What the lanes' ends take below the grid."""
    return len(grid.lanes) * (_END + 8) + 8


def draw_lanes(canvas: Canvas, grid: Plan, topology: Topology, colours: Mapping[str, str]) -> None:
    """Risers first, over them the runs of the rows, then the ends at the bottom.

    The leftmost riser ends lowest, so that none is crossed there.
    """
    for number, lane in enumerate(reversed(grid.lanes)):
        y = grid.bottom + 8 + number * (_END + 8)
        first = min((run.y for run in grid.runs if run.lane == lane), default=y)
        _stroke(canvas, lane, (lane.x, first), (lane.x, y + _END / 2))
        _stroke(canvas, lane, (lane.x, y + _END / 2), (grid.labels + 12, y + _END / 2), halo=False)
        _draw_end(canvas, lane, grid.labels + 12, y, topology, colours)
    for run in grid.runs:
        with canvas.group(f"{'underlay of the tunnels' if run.lane.tunnels else 'physical network'}: {run.lane.label}"):
            _stroke(canvas, run.lane, (run.lane.x, run.y), (run.end, run.y))
            canvas.dot(run.lane.x, run.y, 3, f'class="{_kind(run.lane, "f")}"')
            canvas.text(grid.labels, run.y - 4, run.lane.label, LABEL_SIZE, _kind(run.lane), 'font-weight="700"')


def _draw_end(canvas: Canvas, lane: Lane, x: float, y: float, topology: Topology, colours: Mapping[str, str]) -> None:
    """What a lane is, and the networks that go over it."""
    ends = [topology.nodes[near] for near, edge in topology.near(lane.id).items() if edge.relation == "wire"]
    wrong = sum(getattr(end, "state", "") in {"down", "missing"} for end in ends)
    about = f"{'underlay' if lane.tunnels else 'physical network'} · {len(ends)} {'end' if lane.tunnels else 'uplink'}"
    about += ("" if len(ends) == 1 else "s") + (f", {wrong} down" if wrong else "")
    wide = max(width(lane.label, 12.5, True), width(about, 10.5)) + 20
    canvas.rect(x, y, wide, _END, f'class="box {_kind(lane, "s")}" stroke-width="1.5"', 8 if lane.tunnels else 2)
    canvas.text(x + 10, y + 17, lane.label, 12.5, style='font-weight="700"')
    canvas.text(x + 10, y + 31, about, 10.5, "bad" if wrong else "soft")
    at = x + wide + 12
    for name in lane.over:
        text = one_line(name)
        size = width(text, CHIP_SIZE) + 16
        chip_outline(canvas, at, y + _END / 2 - 8, size, colours.get(name), "active")
        canvas.text(at + 10, y + _END / 2 + 3.5, text, CHIP_SIZE)
        at += size + 6


def draw_wires(canvas: Canvas, placed: Placed, grid: Plan) -> None:
    """From a host to the lanes below it; one that is down is broken."""
    known = {lane.id: lane for lane in grid.lanes}
    bottom = placed.y + placed.height
    for tab, x, y in placed.wires:
        lane = known[tab.lane]
        _stroke(canvas, lane, (x, bottom), (x, y - 3 if tab.bad else y), broken=tab.bad)
        if tab.bad:
            canvas.sign("cross", x - 5, (bottom + y) / 2 - 4, 9, "bad")
        else:
            canvas.dot(x, y, 3, f'class="{_kind(lane, "f")}"')


def _stroke(
    canvas: Canvas, lane: Lane, start: tuple[float, float], end: tuple[float, float], broken: bool = False,
    halo: bool = True,
) -> None:  # fmt: skip
    """A piece of a lane: tunnels are a double line. What it crosses is interrupted by it, as on a wiring plan."""
    (x1, y1), (x2, y2) = start, end
    if halo:
        canvas.line(x1, y1, x2, y2, _HALO)
    if broken:
        canvas.line(x1, y1, x2, y2, 'class="s-bad" stroke-width="1.6" stroke-dasharray="3 3"')
        return
    kind = _kind(lane, "s")
    dash = "" if lane.tunnels else f' stroke-dasharray="{_DASHES[lane.number % len(_DASHES)]}"'
    canvas.line(x1, y1, x2, y2, f'class="{kind}" stroke-width="{3.6 if lane.tunnels else 2}"{dash}')
    if lane.tunnels:
        canvas.line(x1, y1, x2, y2, 'class="s-paper" stroke-width="1.2"')


def _kind(lane: Lane, prefix: str = "") -> str:
    word = "tunnel" if lane.tunnels else "wire"
    return f"{prefix}-{word}" if prefix else word
