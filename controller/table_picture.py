"""A host's tables as a picture: from top to bottom as packets walk, with counts on the arrows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from controller.api.inspection import Arrow, TableInfo, TableWalk
from topology.graph.picture.canvas import Canvas
from topology.graph.picture.text import fit, width

_MARGIN, _TOP = 24.0, 64.0
_LEAST = 400.0, 44.0  # width and height of a box
_SLOT, _GAP, _LANE = 15.0, 20.0, 13.0
_LABEL = 58.0  # room for a count beside a box
_SIZE = 10.5
_PORT = 34.0
_CHIPS = 10.0  # between two of them
_RAIL = 8.0
_HEAD = 5.0  # of an arrow
_NOTE = "packets since each flow is there; dashed: looked up, and back for the next copy"


@dataclass(slots=True)
class _Node:
    """A box: a table, or the ports of a kind, which stand above as senders and below as receivers."""

    name: str
    x: float = 0.0
    y: float = 0.0
    w: float = _LEAST[0]
    h: float = _LEAST[1]
    table: TableInfo | None = None


@dataclass(slots=True)
class _Wire:
    """An arrow between two boxes, by its lane beside them."""

    source: _Node
    target: _Node
    arrow: Arrow
    lane: int = 0
    start: float = 0.0
    end: float = 0.0


def write_walk(walk: TableWalk) -> Iterator[str]:
    """SVG 1.1 in pieces; light, or dark where the reader's screen is."""
    canvas = Canvas()
    wide = max(_LEAST[0], sum(_chip(name) for name in walk.ports) + _CHIPS * (len(walk.ports) - 1))
    tables = [_Node(table.name, w=wide, table=table) for table in walk.tables]
    above, below = ([_Node(name, w=_chip(name), h=_PORT) for name in walk.ports] for _ in range(2))
    wires = list(_wires(walk, tables, above, below))
    beside = [w for w in wires if not w.arrow.returns and _far(w)]
    back = [w for w in wires if w.arrow.returns]
    for side in (beside, back):
        _lanes(side, [*above, *tables, *below])
    left = _MARGIN + _LABEL + _LANE * (1 + max((w.lane for w in back), default=0))
    bottom = _place((above, tables, below), (beside, back), left)
    right = left + wide + _LABEL + _LANE * (1 + max((w.lane for w in beside), default=0)) + _MARGIN
    canvas.text(_MARGIN, 28, f"Tables of {walk.host}", 16, "ink", 'font-weight="700"')
    canvas.text(_MARGIN, 46, _NOTE, _SIZE, "soft")
    for wire in sorted(wires, key=lambda w: w.arrow.packets > 0):
        if wire.arrow.returns or _far(wire):
            _draw_round(canvas, wire, left, wide)
        else:
            _draw_straight(canvas, wire)
    for node in (*above, *tables, *below):
        _draw_node(canvas, node)
    yield from canvas.pieces(right, bottom + _MARGIN, f"tables of {walk.host}")


def _chip(name: str) -> float:
    """How wide the box of a kind of ports is."""
    return min(160.0, width(name, 12, True) + 26)


def _wires(walk: TableWalk, tables: Sequence[_Node], above: Sequence[_Node], below: Sequence[_Node]) -> Iterator[_Wire]:
    by_name = {node.name: node for node in tables}
    senders, receivers = {n.name: n for n in above}, {n.name: n for n in below}
    for arrow in walk.arrows:
        source = by_name.get(arrow.source) or senders[arrow.source]
        target = by_name.get(arrow.target) or receivers[arrow.target]
        yield _Wire(source, target, arrow)


def _far(wire: _Wire) -> bool:
    """Whether it goes past another table, and so beside them."""
    if wire.source.table is None:
        return False
    return wire.target.table is None or wire.target.table.number != wire.source.table.number + 1


def _lanes(wires: Sequence[_Wire], order: Sequence[_Node]) -> None:
    """The short ones next to the boxes; no two in one lane side by side."""
    rank = {id(node): number for number, node in enumerate(order)}
    taken: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for wire in sorted(wires, key=lambda w: rank[id(w.target)] - rank[id(w.source)]):
        start, end = rank[id(wire.source)], rank[id(wire.target)]
        while any(start <= below and above <= end for above, below in taken[wire.lane]):
            wire.lane += 1
        taken[wire.lane].append((start, end))


def _place(rows: Sequence[Sequence[_Node]], sides: Sequence[Sequence[_Wire]], left: float) -> float:
    """Every box and every arrow's ends; gives the lowest edge."""
    above, tables, below = rows
    y = _TOP
    for node in above:
        node.y = y
    y += _PORT + _GAP + 6 if above else 0
    for node in tables:
        ends = max(sum(w.source is node for w in side) + sum(w.target is node for w in side) for side in sides)
        node.x, node.y, node.h = left, y, max(_LEAST[1], ends * _SLOT + 6)
        y += node.h + _GAP
    y += sum(w.target.table is None for w in sides[0]) * _RAIL
    for node in below:
        node.y = y
    for row in (above, below):
        x = left
        for node in row:
            node.x, x = x, x + node.w + _CHIPS
    for side in sides:
        _ends(side, y)
    return y + (_PORT if below else 0)


def _ends(side: Sequence[_Wire], ports: float) -> None:
    """Where arrows begin and end beside their boxes; those to ports run one below the other above them."""
    slots: dict[int, float] = defaultdict(float)
    rails = 0
    for wire in sorted(side, key=lambda w: (w.target.y, -w.source.y)):
        if wire.target.table is None:
            rails += 1
            wire.end = ports - 6 - rails * _RAIL
            continue
        wire.end = wire.target.y + 12 + slots[id(wire.target)]
        slots[id(wire.target)] += _SLOT
    for wire in sorted(side, key=lambda w: (w.source.y, -w.lane)):
        wire.start = wire.source.y + 12 + slots[id(wire.source)]
        slots[id(wire.source)] += _SLOT


def _draw_node(canvas: Canvas, node: _Node) -> None:
    if node.table is None:
        canvas.rect(node.x, node.y, node.w, node.h, 'class="box"', 14)
        canvas.text(node.x + 12, node.y + 21, fit(node.name, node.w - 20, 12, True), 12, "ink", 'font-weight="700"')
        return
    table = node.table
    kind = "ink" if table.packets else "soft"
    with canvas.group(f"{table.name}: {table.about}"):
        canvas.rect(node.x, node.y, node.w, node.h, 'class="box"', 6)
        canvas.text(node.x + 10, node.y + 18, f"{table.number}", _SIZE, "soft")
        canvas.text(node.x + 34, node.y + 18, fit(table.name, 150, 13, True), 13, kind, 'font-weight="700"')
        told = f"{_count(table.packets)} packets, {table.flows} flow{'s' if table.flows != 1 else ''}"
        canvas.text(node.x + node.w - 10, node.y + 18, told, _SIZE, "soft", 'text-anchor="end"')
        room = node.w - (150 if table.dropped else 44)
        canvas.text(node.x + 34, node.y + 35, fit(table.about, room, _SIZE), _SIZE, "soft")
        if table.dropped:
            text = f"{_count(table.dropped)} dropped"
            canvas.text(node.x + node.w - 10, node.y + 35, text, _SIZE, "bad", 'text-anchor="end" font-weight="700"')


def _draw_straight(canvas: Canvas, wire: _Wire) -> None:
    """Down to the next box."""
    upper = wire.source
    x, top, bottom = upper.x + upper.w / 2, upper.y + upper.h, wire.target.y
    canvas.line(x, top, x, bottom - _HEAD, _style(wire.arrow))
    canvas.arrow(x, bottom, "down", _kind(wire.arrow))
    canvas.text(x + 6, (top + bottom) / 2 + 3, _count(wire.arrow.packets), _SIZE, _kind(wire.arrow))


def _draw_round(canvas: Canvas, wire: _Wire, left: float, wide: float) -> None:
    """Beside the boxes: to the right what goes on, to the left what comes back."""
    sign, edge, point = (-1, left, "right") if wire.arrow.returns else (1, left + wide, "left")
    lane, style, kind = edge + sign * (_LABEL + wire.lane * _LANE), _style(wire.arrow), _kind(wire.arrow)
    canvas.line(edge, wire.start, lane, wire.start, style)
    canvas.line(lane, wire.start, lane, wire.end, style)
    if wire.target.table is None:
        x = wire.target.x + wire.target.w / 2
        canvas.line(lane, wire.end, x, wire.end, style)
        canvas.line(x, wire.end, x, wire.target.y - _HEAD, style)
        canvas.arrow(x, wire.target.y, "down", kind)
    else:
        canvas.line(lane, wire.end, edge + sign * _HEAD, wire.end, style)
        canvas.arrow(edge, wire.end, point, kind)
    text = _count(wire.arrow.packets)
    x = edge + sign * 6 - (width(text, _SIZE) if wire.arrow.returns else 0)
    canvas.text(x, wire.start - 3, text, _SIZE, kind)


def _kind(arrow: Arrow) -> str:
    return "tunnel" if arrow.packets else "rim"


def _style(arrow: Arrow) -> str:
    wide = 1.0 if not arrow.packets else 1.4 + min(2.2, len(str(arrow.packets)) * 0.3)
    dashes = ' stroke-dasharray="4 3"' if arrow.returns else ""
    return f'class="s-{_kind(arrow)}" stroke-width="{wide:.1f}"{dashes}'


def _count(number: int) -> str:
    """As people read large numbers: 1234, 56.7k, 8.9M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size * 10:
            return f"{number / size:.1f}{unit}"
    return str(number)
