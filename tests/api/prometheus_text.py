"""A strict reader of Prometheus' text format 0.0.4: what it does not allow, fails."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

Labels = tuple[tuple[str, str], ...]

_SAMPLE = re.compile(
    r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-zA-Z_]\w*="(?:[^"\\]|\\.)*"(?:,(?!\})|(?=\})))*)\})? (\S+)'
)
_LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')
_ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}
_PARTS = ("_bucket", "_sum", "_count")


@dataclass
class Family:
    kind: str
    about: str
    samples: dict[tuple[str, Labels], float] = field(default_factory=dict)

    def value(self, **labels: str) -> float:
        """Of the series with exactly these labels."""
        [found] = [value for (_, have), value in self.samples.items() if dict(have) == labels]
        return found


def read(text: str) -> dict[str, Family]:
    """The families by name."""
    assert text.endswith("\n")
    families: dict[str, Family] = {}
    about: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith("# HELP "):
            _, _, name, sentence = line.split(" ", 3)
            assert name not in about, f"{name} is told twice"
            about[name] = sentence
        elif line.startswith("# TYPE "):
            _, _, typed, kind = line.split(" ")
            assert typed == name, "TYPE stands behind HELP"
            assert kind in {"counter", "gauge", "histogram"}
            families[name] = Family(kind, about[name])
        else:
            _add(families[name], name, line)
    for family in families.values():
        _check(family)
    return families


def _add(family: Family, name: str, line: str) -> None:
    found = _SAMPLE.fullmatch(line)
    assert found, line
    part = found[1].removeprefix(name)
    assert part in (_PARTS if family.kind == "histogram" else {""}), f"{line} stands among {name}"
    labels = tuple(sorted((key, _unescaped(value)) for key, value in _LABEL.findall(found[2] or "")))
    assert len(dict(labels)) == len(labels), line
    assert (part, labels) not in family.samples, f"{line} is told twice"
    family.samples[part, labels] = float(found[3].replace("Inf", "inf"))


def _unescaped(text: str) -> str:
    return re.sub(r"\\.", lambda found: _ESCAPES[found[0]], text)


def _check(family: Family) -> None:
    if family.kind == "counter":
        assert all(value >= 0 for value in family.samples.values())
    if family.kind == "histogram":
        buckets = [(float(dict(labels)["le"].replace("Inf", "inf")), value)
                   for (part, labels), value in family.samples.items() if part == "_bucket"]  # fmt: skip
        assert buckets == sorted(buckets)
        assert [value for _, value in buckets] == sorted(value for _, value in buckets), "buckets count what is below"
        assert buckets[-1] == (math.inf, family.samples["_count", ()])
