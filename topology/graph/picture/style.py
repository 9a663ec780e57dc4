"""Colours and classes of a drawing. States differ in outline and sign too, never in colour alone."""

from __future__ import annotations

# Told apart by most eyes, also colour-blind ones (after Okabe and Ito), on white and on black.
COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#c05a94", "#b8860b", "#3f9ad6", "#8064c8", "#7f8c3b", "#b5485d", "#00868b",
)  # fmt: skip
FONT = "Inter, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"

_LIGHT = {
    "paper": "#ffffff", "ink": "#18202a", "soft": "#56616e", "panel": "#f6f8fa", "head": "#e4eaf0", "rim": "#b9c3ce",
    "bad": "#c21f1f", "warn": "#a65f00", "good": "#2c7a3f", "wire": "#8a6d4b", "tunnel": "#3d7186",
}  # fmt: skip
_DARK = {
    "paper": "#11151b", "ink": "#e8edf3", "soft": "#9ba8b6", "panel": "#191f28", "head": "#262f3b", "rim": "#435061",
    "bad": "#ff7a7a", "warn": "#ffb454", "good": "#6fcf87", "wire": "#cbab82", "tunnel": "#7fbdd4",
}  # fmt: skip


def colour(number: int) -> str:
    """Of the network with that place in the order of names; after the last they begin anew, and names tell."""
    return COLOURS[number % len(COLOURS)]


def css() -> str:
    """The style sheet: light, and dark where the reader's screen is."""
    return f"text{{font-family:{FONT}}}{_rules(_LIGHT)}@media (prefers-color-scheme:dark){{{_rules(_DARK)}}}"


def _rules(c: dict[str, str]) -> str:
    filled = "".join(f".f-{name}{{fill:{value}}}" for name, value in c.items())
    drawn = "".join(f".s-{name}{{stroke:{value};fill:none}}" for name, value in c.items())
    return f"{filled}{drawn}.box{{fill:{c['panel']};stroke:{c['rim']}}}"
