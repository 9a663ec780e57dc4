"""Figures that were measured: what of, beside which baseline, and how good it has to be."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

UNITS = {"s": "seconds", "B": "bytes", "1/s": "a second", "": "a number"}


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound for a figure, or, ``of`` "ratio", for its ratio to the baseline. A machine that is busy with other things
    slows down both, so a bound of a ratio holds on any machine."""

    bound: float
    at_least: bool = False
    of: Literal["value", "ratio"] = "value"

    @classmethod
    def parse(cls, text: str) -> Goal:
        """At most "100ms", "1s", or "20x" for so many times the baseline. Raises ArgumentTypeError."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|x)", text)
        if match is None:
            raise argparse.ArgumentTypeError(f"{text!r} is no limit: 100ms, 1s, or 20x for times the baseline")
        return cls(float(match[1]) / (1000 if match[2] == "ms" else 1), of="ratio" if match[2] == "x" else "value")

    def words(self, unit: str) -> str:
        sign = "≥" if self.at_least else "≤"
        return f"{sign} {self.bound:g} x" if self.of == "ratio" else f"{sign} {shown(self.bound, unit)}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number.

    ``unit`` is one of ``UNITS``; ``size`` what it was measured with, as in ``{"hosts": 400, "guests": 2000}``;
    ``beside`` says what the baseline is of. Case, ``what`` and size together say which figure it is when two runs are
    compared.
    """

    case: str
    what: str
    value: float
    unit: str
    size: Mapping[str, int] = field(default_factory=dict)
    baseline: float | None = None
    beside: str = ""
    goal: Goal | None = None

    @property
    def ratio(self) -> float | None:
        return self.value / self.baseline if self.baseline else None

    @property
    def key(self) -> tuple[str, str, tuple[tuple[str, int], ...]]:
        return self.case, self.what, tuple(self.size.items())

    def missed(self) -> str | None:
        """What is wrong with it in one line; None when its goal is reached, or it has none."""
        if self.goal is None:
            return None
        judged = self.ratio if self.goal.of == "ratio" else self.value
        if judged is None:
            return f"{self.title}: no baseline was measured, so {self.goal.words(self.unit)} is not shown"
        if (judged >= self.goal.bound) if self.goal.at_least else (judged <= self.goal.bound):
            return None
        is_ = f"{judged:.2f} x {self.beside}" if self.goal.of == "ratio" else shown(judged, self.unit)
        return f"{self.title}: {is_}, and should be {self.goal.words(self.unit)}"

    @property
    def title(self) -> str:
        return f"{self.what} ({self.sized})" if self.size else self.what

    @property
    def sized(self) -> str:
        return ", ".join(f"{count:,} {what}" for what, count in self.size.items())

    def to_json(self) -> dict[str, Any]:
        goal = self.goal and {"bound": self.goal.bound, "at_least": self.goal.at_least, "of": self.goal.of}
        return {"case": self.case, "what": self.what, "size": dict(self.size), "value": self.value, "unit": self.unit,
                "baseline": self.baseline, "beside": self.beside, "goal": goal}  # fmt: skip

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Figure:
        """Raises KeyError or TypeError for what ``to_json`` did not write."""
        goal = found["goal"] and Goal(**found["goal"])
        return cls(found["case"], found["what"], float(found["value"]), found["unit"], dict(found["size"]),
                   found["baseline"], found["beside"], goal)  # fmt: skip


def shown(value: float, unit: str) -> str:
    """A value for people: "14.5 ms", "213 MiB", "12,400 /s"."""
    if unit == "s":
        for factor, name in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")):
            if value * factor >= 1 or name == "µs":
                return f"{_digits(value * factor)} {name}"
    if unit == "B":
        for exponent, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
            if value >= exponent:
                return f"{_digits(value / exponent)} {name}"
    return f"{_digits(value)} {'/s' if unit == '1/s' else unit}".rstrip()


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def p99(values: Sequence[float]) -> float:
    """The smallest value that 99 of 100 do not exceed; of fewer than 100 values the largest."""
    ordered = sorted(values)
    return ordered[-(-99 * len(ordered) // 100) - 1]
