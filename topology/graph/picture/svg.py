"""The fleet as a picture that can hang on a wall: SVG, drawn without any help."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from topology.graph.picture.boxes import (
    CHIP_SIZE,
    COLUMN,
    GAP,
    HEAD,
    HEARS_SIZE,
    LINE,
    NAME_SIZE,
    PAD,
    TAB,
    Box,
    Row,
    Tab,
    boxes,
)
from topology.graph.picture.canvas import Canvas
from topology.graph.picture.chips import draw_chip
from topology.graph.picture.head import draw_cards, draw_head, draw_legend, head_height
from topology.graph.picture.plan import Placed, lanes, network_names, plan
from topology.graph.picture.style import colour
from topology.graph.picture.text import fit, width
from topology.graph.picture.wires import draw_lanes, draw_wires, ends_height
from topology.graph.topology import Topology

_LEAST = 840.0
_WRONG = frozenset({"down", "degraded", "leaving"})


def write_svg(topology: Topology) -> Iterator[str]:
    """SVG 1.1 in pieces; light, or dark where the reader's screen is."""
    canvas = Canvas()
    colours = {name: colour(number) for number, name in enumerate(network_names(topology))}
    found, known = boxes(topology), lanes(topology)
    # How wide the grid is depends on nothing above it, and how high the head is on the grid's width.
    wide = plan(found, known, 0, _LEAST).width
    grid = plan(found, known, head_height(len(colours), wide), _LEAST)
    draw_head(canvas, topology, wide)
    draw_cards(canvas, topology, colours, wide)
    draw_lanes(canvas, grid, topology, colours)
    for placed in grid.placed:
        draw_wires(canvas, placed, grid)
    for placed in grid.placed:
        _draw_box(canvas, placed, colours)
    height = draw_legend(canvas, grid.bottom + ends_height(grid), wide)
    yield from canvas.pieces(wide, height, f"fleetswitch topology, change {topology.sequence}")


def _draw_box(canvas: Canvas, placed: Placed, colours: Mapping[str, str]) -> None:
    box, x, y = placed.box, placed.x, placed.y
    with canvas.group(box.title):
        dotted = "" if box.state else ' stroke-dasharray="2 4"'
        canvas.rect(x, y, box.width, placed.height, f'class="box"{dotted}', 7)
        canvas.rect(x + 1, y + 1, box.width - 2, HEAD - 2, 'class="f-head"', 6)
        if box.state in _WRONG:
            dashed = 'class="s-bad" stroke-width="2" stroke-dasharray="7 4"'
            canvas.rect(x, y, box.width, placed.height, dashed, 7)
        room = _draw_state(canvas, box, x, y)
        name = fit(box.name, room - 10, 14, True)
        canvas.text(x + 10, y + 19, name, 14, "ink" if box.state else "soft", 'font-weight="700"')
    for number, column in enumerate(box.columns):
        at = y + HEAD + PAD
        for row in column:
            _draw_row(canvas, row, x + number * (COLUMN + GAP), at, colours)
            at += row.height
    if not any(box.columns):
        canvas.text(x + 14, y + HEAD + PAD + 12, "no guests", NAME_SIZE, "soft")
    for tab, at, _ in placed.wires:
        _draw_tab(canvas, tab, at, y + placed.height, box.tab_height)


def _draw_state(canvas: Canvas, box: Box, x: float, y: float) -> float:
    """What is wrong with a host, or a check; returns the room that is left at its left."""
    if box.state == "up" and not box.note:
        canvas.sign("check", x + box.width - 22, y + 9.5, 9.5, "good")
        return box.width - 30
    if not box.state:
        return box.width - 10
    kind = "bad" if box.state in _WRONG or box.note else "soft"
    note = fit(f"{box.state}: {box.note}" if box.note else box.state, box.width * 0.6, 10.5)
    canvas.text(x + box.width - 10, y + 18.5, note, 10.5, kind, 'text-anchor="end"')
    left = box.width - 10 - width(note, 10.5) - 13
    canvas.sign("cross" if kind == "bad" else "wait", x + left, y + 9.5, 9.5, kind)
    return left - 8


def _draw_tab(canvas: Canvas, tab: Tab, wire: float, bottom: float, high: float) -> None:
    x, line = wire - 9, bottom - high + TAB - 5.5
    with canvas.group(tab.title):
        canvas.rect(x, bottom - high + 2, tab.width, high - 2, 'class="f-head"', 4)
        inset = 6.0
        if tab.bad:
            canvas.sign("cross", x + 6, line - 8, 8.5, "bad")
            inset += 13
        canvas.text(x + inset, line, tab.text, CHIP_SIZE, "bad" if tab.bad else "soft")
        if tab.hears:
            canvas.text(x + 6, bottom - 5.5, tab.hears, HEARS_SIZE, "wire")


def _draw_row(canvas: Canvas, row: Row, x: float, y: float, colours: Mapping[str, str]) -> None:
    spine = colours.get(row.network or "")
    if spine is not None:
        canvas.rect(x + 6, y, 2.5, row.height, f'fill="{spine}" opacity=".55"')
    with canvas.group(row.title):
        canvas.text(x + 14, y + 12.5, row.label, NAME_SIZE)
    for number, line in enumerate(row.lines):
        at = x + 14 + row.room + 6
        for chip in line:
            draw_chip(canvas, chip, at, y + 1 + number * LINE, colours)
            at += chip.width + 4
