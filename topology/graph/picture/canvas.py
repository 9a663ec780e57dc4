"""A small writer of SVG 1.1: shapes in the order in which they are drawn, all text escaped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from topology.graph.picture.style import css
from topology.graph.picture.text import attribute, content

_SIGNS = {
    "cross": "M1.5 1.5 8.5 8.5M8.5 1.5 1.5 8.5",
    "check": "M1 5.5 4 8.5 9 1.5",
    "wait": "M1.2 5h.1M4.9 5h.1M8.6 5h.1",
    "low": "M5 1v7.5M1.8 5.3 5 8.5 8.2 5.3",
    "mark": "M5 .8v5.4M5 9h.1",
    "away": "M1 5h8",
    "none": "M5 1a4 4 0 1 0 .01 0M2.2 7.8 7.8 2.2",
}
"""Ten pixels square."""


class Canvas:
    """Lengths in pixels, y downwards."""

    def __init__(self) -> None:
        self._parts: list[str] = []

    def rect(self, x: float, y: float, w: float, h: float, style: str, radius: float = 0) -> None:
        """``style``: attributes, such as ``class="box"``; made by this program, never of what came from outside."""
        rounded = f' rx="{_n(radius)}"' if radius else ""
        self._parts.append(f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(w)}" height="{_n(h)}"{rounded} {style}/>')

    def line(self, x1: float, y1: float, x2: float, y2: float, style: str) -> None:
        self._parts.append(f'<path d="M{_n(x1)} {_n(y1)}L{_n(x2)} {_n(y2)}" {style}/>')

    def arrow(self, x: float, y: float, to: str, kind: str) -> None:
        """An arrow's head with its point there, ``to`` the left, right or down."""
        back, wide = {"left": ((6, -3.5), (6, 3.5)), "right": ((-6, -3.5), (-6, 3.5)), "down": ((-3.5, -6), (3.5, -6))}[
            to
        ]
        path = f"M{_n(x)} {_n(y)}L{_n(x + back[0])} {_n(y + back[1])}L{_n(x + wide[0])} {_n(y + wide[1])}Z"
        self._parts.append(f'<path d="{path}" class="f-{kind}"/>')

    def dot(self, x: float, y: float, radius: float, style: str) -> None:
        self._parts.append(f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}" {style}/>')

    def sign(self, name: str, x: float, y: float, size: float, kind: str) -> None:
        """A sign with its upper left corner there, in the colour of that kind."""
        scale = size / 10
        self._parts.append(
            f'<path d="{_SIGNS[name]}" transform="translate({_n(x)} {_n(y)}) scale({scale:g})" class="s-{kind}" '
            'stroke-width="2" stroke-linecap="round" stroke-linejoin="round"/>'
        )

    def text(self, x: float, y: float, text: str, size: float, kind: str = "ink", style: str = "") -> None:
        """One line, on that baseline."""
        how = f'x="{_n(x)}" y="{_n(y)}" font-size="{_n(size)}" class="f-{kind}"{style and " " + style}'
        self._parts.append(f"<text {how}>{content(text)}</text>")

    @contextmanager
    def group(self, title: str) -> Iterator[None]:
        """What is drawn inside has this tooltip."""
        self._parts.append(f"<g><title>{content(title)}</title>")
        yield
        self._parts.append("</g>")

    def pieces(self, w: float, h: float, title: str) -> Iterator[str]:
        """The document, in pieces of which none is long."""
        yield '<?xml version="1.0" encoding="UTF-8"?>\n'
        yield f'<svg xmlns="http://www.w3.org/2000/svg" width="{w:.0f}" height="{h:.0f}" viewBox="0 0 {w:.0f} {h:.0f}" '
        yield f'role="img" aria-label={attribute(title)}>\n<title>{content(title)}</title>\n<style>{css()}</style>\n'
        yield '<defs><pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse" '
        yield 'patternTransform="rotate(45)"><path d="M0 0V5" class="s-bad" stroke-width="1.6" opacity=".25"/>'
        yield f'</pattern></defs>\n<rect width="{w:.0f}" height="{h:.0f}" class="f-paper"/>\n'
        for part in self._parts:
            yield part + "\n"
        yield "</svg>\n"


def _n(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
