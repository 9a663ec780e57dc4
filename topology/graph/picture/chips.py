"""Chips: a vNIC each, its state told by outline and sign."""

from __future__ import annotations

from collections.abc import Mapping

from topology.graph.picture.boxes import CHIP_SIZE, SIGNS, Chip
from topology.graph.picture.canvas import Canvas


def draw_chip(canvas: Canvas, chip: Chip, x: float, y: float, colours: Mapping[str, str]) -> None:
    with canvas.group(chip.title):
        chip_outline(canvas, x, y, chip.width, colours.get(chip.network or ""), chip.look)
        inset = 9.0
        if chip.look in SIGNS:
            kind = {"quarantined": "bad", "remark": "warn", "down": "bad"}.get(chip.look, "soft")
            canvas.sign(SIGNS[chip.look], x + 8, y + 3.5, 8.5, kind)
            inset += 13
        struck = ' text-decoration="line-through"' if chip.look == "down" else ""
        quiet = chip.look in {"down", "unmanaged", "absent", "pending"}
        canvas.text(x + inset, y + 11.5, chip.text, CHIP_SIZE, "soft" if quiet else "ink", struck.strip())


def chip_outline(canvas: Canvas, x: float, y: float, wide: float, tint: str | None, look: str) -> None:
    """By state: full, hatched, dashed, dotted or bare; the swatch at the left is the network's."""
    if look in {"active", "remark"}:
        canvas.rect(x, y, wide, 16, f'fill="{tint}" fill-opacity=".17" stroke="{tint}"', 4)
    elif look == "quarantined":
        canvas.rect(x, y, wide, 16, 'fill="url(#hatch)"', 4)
        canvas.rect(x, y, wide, 16, 'class="s-bad" stroke-width="1.5"', 4)
    else:
        dash = {"pending": "4 3", "unmanaged": "1 3", "absent": "2 4"}.get(look, "none")
        canvas.rect(x, y, wide, 16, f'class="s-soft" stroke-dasharray="{dash}"', 4)
    if tint is not None:
        canvas.rect(x, y, 5, 16, f'fill="{tint}"', 2)
