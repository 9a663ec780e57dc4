"""Figures told: a table for people, a file for programs, and a comparison with an earlier file."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from labkit.run import LabError

from .figures import Figure, shown

FORMAT = 1
_HEAD = ["what", "with", "measured", "baseline", "of", "ratio", "goal", ""]


def print_figures(figures: Sequence[Figure], earlier: Sequence[Figure] = ()) -> None:
    """A table a case; with the earlier figures beside each that is the same."""
    was = {figure.key: figure for figure in earlier}
    for case, some in groupby(figures, key=lambda figure: figure.case):
        print(f"\n{case}")
        head = [*_HEAD, *(["earlier", "change"] if was else [])]
        print_table(head, [[*_words(each), *(_change(each, was.get(each.key)) if was else [])] for each in some])
    for gone in [figure for key, figure in was.items() if key not in {each.key for each in figures}]:
        print(f"not measured this time: {gone.case}: {gone.title}")


def _words(figure: Figure) -> list[str]:
    goal = figure.goal.words(figure.unit) if figure.goal else ""
    verdict = "" if figure.goal is None else "missed" if figure.missed() else "ok"
    baseline = "" if figure.baseline is None else shown(figure.baseline, figure.unit)
    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
    return [figure.what, figure.sized, shown(figure.value, figure.unit), baseline, figure.beside, ratio, goal, verdict]


def _change(figure: Figure, earlier: Figure | None) -> list[str]:
    """The ratios are compared where both have one, for they do not depend on the machine."""
    if earlier is None:
        return ["", "new"]
    if figure.ratio is not None and earlier.ratio:
        return [f"{earlier.ratio:.2f} x", f"{figure.ratio / earlier.ratio - 1:+.0%}"]
    change = f"{figure.value / earlier.value - 1:+.0%}" if earlier.value else ""
    return [shown(earlier.value, earlier.unit), change]


def print_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Words to the left, numbers to the right."""
    widths = [max(len(line[column]) for line in (head, *lines)) for column in range(len(head))]
    right = [all(not line[n] or line[n][0] in "0123456789+-≤≥" for line in lines) for n in range(len(head))]
    for line in (head, *lines):
        words = (word.rjust(width) if numbers else word.ljust(width)
                 for word, width, numbers in zip(line, widths, right, strict=True))  # fmt: skip
        print("  ".join(words).rstrip())


def write(path: Path, figures: Sequence[Figure]) -> None:
    """Raises LabError when the file cannot be written."""
    told = {"format": FORMAT, "machine": _machine(), "figures": [figure.to_json() for figure in figures]}
    try:
        path.write_text(json.dumps(told, indent=1) + "\n")
    except OSError as error:
        raise LabError(f"{path}: {error.strerror}") from None


def read(path: Path) -> list[Figure]:
    """Raises LabError when the file is none that ``write`` wrote."""
    try:
        told = json.loads(path.read_text())
        if told["format"] != FORMAT:
            raise LabError(f"{path}: its format is {told['format']}, this program reads {FORMAT}: measure again")
        return [Figure.from_json(each) for each in told["figures"]]
    except OSError as error:
        raise LabError(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise LabError(f"{path}: no file that scripts/bench --json wrote ({error!r})") from None


def _machine() -> dict[str, Any]:
    return {"when": datetime.now(UTC).isoformat(timespec="seconds"), "cores": os.cpu_count(),
            "python": platform.python_version(), "load": os.getloadavg()[0], **dict(_versions())}  # fmt: skip


def _versions() -> Iterator[tuple[str, str]]:
    for what, argv in (("ovs", ["ovs-vswitchd", "--version"]), ("commit", ["git", "rev-parse", "--short", "HEAD"])):
        done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
        yield what, done.stdout.split("\n")[0].split(" ")[-1]
