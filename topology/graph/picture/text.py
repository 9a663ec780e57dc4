"""Text in a drawing: how wide it is about, cut to fit, and escaped."""

from __future__ import annotations

import re
from xml.sax.saxutils import escape, quoteattr

from topology.graph.xml_exports import printable

# Widths in em of DejaVu Sans, the widest of the fonts that are asked for; what is set in another is narrower.
_NARROW, _MEDIUM, _WIDE = "iIjl|!.,:;'` ", 'frt()[]{}/\\-"*', "mwMW@%&"


def width(text: str, size: float, bold: bool = False) -> float:
    """About how wide a line is, never much less than that; ``size`` in pixels, as is the answer."""
    return sum(map(_em, text)) * size * (1.12 if bold else 1.0)


def fit(text: str, room: float, size: float, bold: bool = False) -> str:
    """As much of a line as fits, with an ellipsis in the middle where something is left out: what tells names of one
    fleet apart stands at their ends as often as at their beginnings."""
    text = one_line(text)
    if width(text, size, bold) <= room:
        return text
    left = room - width("…", size, bold)
    head, tail = 0, len(text)
    while head < tail:
        last = tail - 1 if head > len(text) - tail else head
        left -= width(text[last], size, bold)
        if left < 0:
            break
        head, tail = (head, tail - 1) if last == tail - 1 and last != head else (head + 1, tail)
    return f"{text[:head].rstrip()}…{text[tail:].lstrip()}"


def one_line(text: str) -> str:
    """Text that can stand in one line: what no font shows, or turns the line round, as ``\\x1b``."""
    text = printable(text)
    return text if text.isprintable() else "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def content(text: str) -> str:
    """As the content of an element."""
    return escape(printable(text))


def attribute(text: str) -> str:
    """As an attribute's value, with its quotes."""
    return quoteattr(printable(text))


def natural(text: str) -> list[tuple[int, int, str]]:
    """A key that sorts web2 before web10."""
    parts = re.findall(r"[0-9]+|[^0-9]+", text)
    return [(0, int(part), "") if part.isascii() and part.isdigit() and len(part) < 19 else (1, 0, part.lower())
            for part in parts]  # fmt: skip


def _em(character: str) -> float:
    if character in _NARROW:
        return 0.34
    if character in _MEDIUM:
        return 0.44
    if character in _WIDE:
        return 0.96
    if character < "\x7f":
        return 0.75 if character.isupper() else 0.64
    return 0.75 if character < "\u1100" else 1.25  # Han and emoji are square, and then some
