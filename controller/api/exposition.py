"""Metrics as Prometheus reads them: its text format 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_IN_LABEL = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_IN_HELP = str.maketrans({"\\": r"\\", "\n": r"\n"})


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its name, what kind of number it is, what it says, and the names of its labels."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    about: str
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in (self.name, *self.labels):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} cannot name a metric or a label")

    def at(self, value: float, *labels: str) -> Sample:
        """Its value for these labels, in the order of ``labels``."""
        return Sample(self, float(value), dict(zip(self.labels, labels, strict=True)))

    def spread(self, buckets: Mapping[float, int], total: float) -> Iterator[Sample]:
        """The samples of a histogram without labels: how many were at most each bound, and the sum of all. Its last
        bound is infinity."""
        for bound, count in buckets.items():
            yield Sample(self, float(count), {"le": _number(bound)}, "_bucket")
        yield Sample(self, total, {}, "_sum")
        yield Sample(self, float(buckets[math.inf]), {}, "_count")


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a metric. ``suffix`` is what a histogram's parts have behind the name."""

    metric: Metric
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)
    suffix: str = ""


def exposition(samples: Iterable[Sample]) -> Iterator[str]:
    """The text, a metric at a time. Samples of one metric stand together, whatever order they come in."""
    order: dict[str, int] = {}
    ordered = sorted(samples, key=lambda sample: order.setdefault(sample.metric.name, len(order)))
    for metric, values in groupby(ordered, key=lambda sample: sample.metric):
        lines = [f"# HELP {metric.name} {metric.about.translate(_IN_HELP)}", f"# TYPE {metric.name} {metric.kind}"]
        lines += map(_line, values)
        yield "\n".join(lines) + "\n"


def _line(sample: Sample) -> str:
    labels = ",".join(f'{name}="{value.translate(_IN_LABEL)}"' for name, value in sample.labels.items())
    shown = f"{{{labels}}}" if labels else ""
    return f"{sample.metric.name}{sample.suffix}{shown} {_number(sample.value)}"


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
