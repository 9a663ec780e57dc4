"""How figures grow with the fleet, drawn: a picture for each case, over hosts or guests, both axes logarithmic."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from labkit.run import LabError

from .figures import Figure, shown

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 900, 420, 90, 40, 60
_PLOT = 430  # pixels of the x axis; the legend is behind it
_COLOURS = (
    "#1f77b4",
    "#d62728",
    "#2ca02c",
    "#9467bd",
    "#ff7f0e",
    "#17becf",
    "#8c564b",
    "#e377c2",
    "#7f7f7f",
    "#bcbd22",
)

_Line = list[tuple[float, float]]


def plot(folder: Path, figures: Sequence[Figure]) -> list[Path]:
    """Write CASE-over-SIZE-UNIT.svg for all that was measured at two sizes or more. Raises LabError."""
    made = []
    for (case, over, unit), lines in sorted(_grouped(figures).items()):
        path = folder / f"{case}-over-{over}{f'-{unit}' if unit else ''}.svg".replace("1/s", "rate")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(_drawing(f"{case}: over {over}", unit, lines)) + "\n")
        except OSError as error:
            raise LabError(f"{path}: {error.strerror}") from None
        made.append(path)
    return made


def _grouped(figures: Sequence[Figure]) -> dict[tuple[str, str, str], dict[str, _Line]]:
    """Lines by what they are of, by case, size and unit; where only one of the sizes differs, it is that one's."""
    found: dict[tuple[str, str, str], dict[str, dict[float, float]]] = defaultdict(lambda: defaultdict(dict))
    for figure in figures:
        for over, count in figure.size.items():
            if count > 0 and figure.value > 0:
                found[figure.case, over, figure.unit][figure.what][count] = figure.value
    lines = {
        key: {what: sorted(points.items()) for what, points in whats.items() if len(points) > 1}
        for key, whats in found.items()
    }
    return {key: whats for key, whats in lines.items() if whats}


def _drawing(title: str, unit: str, lines: dict[str, _Line]) -> Iterator[str]:
    xs = [x for line in lines.values() for x, _ in line]
    ys = [y for line in lines.values() for _, y in line]
    low, high = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)))
    high = max(high, low + 1)

    def at_x(value: float) -> float:
        return _LEFT + _PLOT * math.log(value / min(xs)) / math.log(max(xs) / min(xs))

    def at_y(value: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (high - math.log10(value)) / (high - low)

    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif">'
    yield f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>'
    yield f'<text x="{_LEFT}" y="24" font-size="16">{escape(title)}</text>'
    for power in range(low, high + 1):
        y = at_y(10.0**power)
        yield f'<path d="M{_LEFT} {y:.1f}h{_PLOT}" stroke="#ddd"/>'
        yield _text(_LEFT - 8, y + 4, shown(10.0**power, unit), "end")
    for x in sorted(set(xs)):
        yield f'<path d="M{at_x(x):.1f} {_TOP}V{_HEIGHT - _BOTTOM}" stroke="#eee"/>'
        yield _text(at_x(x), _HEIGHT - _BOTTOM + 18, f"{x:,.0f}", "middle")
    for number, (what, line) in enumerate(lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        points = " ".join(f"{at_x(x):.1f},{at_y(y):.1f}" for x, y in line)
        yield f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        yield from (f'<circle cx="{at_x(x):.1f}" cy="{at_y(y):.1f}" r="3" fill="{colour}"/>' for x, y in line)
        yield f'<path d="M{_LEFT + _PLOT + 16} {_TOP + 20 * number}h14" stroke="{colour}" stroke-width="3"/>'
        yield _text(_LEFT + _PLOT + 36, _TOP + 20 * number + 4, what, "start")
    yield "</svg>"


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="11" text-anchor="{anchor}">{escape(words)}</text>'
