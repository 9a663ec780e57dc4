"""Run one case in this process, or several, each in one of its own, and tell their figures."""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from labkit.program import run_program
from labkit.run import LabError, say

from . import plot, report
from .figures import Figure

CASES = {"guests": "guests", "reads": "reads", "api": "api", "dhcp": "dhcp", "packet-in": "packet_in",
         "forward": "forward", "peers": "peers", "sync-null": "sync_null", "sync": "sync",
         "change": "change", "restart": "restart", "fleet": "fleet", "memory": "memory"}  # fmt: skip
"""Each case's module, in the order in which all are run."""

_PATIENCE = 400.0  # seconds for one case of several
_END = 60.0  # seconds in which one that is told to end takes its lab away


def main(argv: Sequence[str] | None = None) -> int:
    args, others = _parser().parse_known_args(argv)
    for name in args.case:
        if name not in CASES:
            raise LabError(f"{name!r} is no case: one of {', '.join(CASES)}")
    earlier = report.read(args.against) if args.against else []
    begun = time.monotonic()
    broken: list[str] = []
    if len(args.case) == 1:
        figures = _one(args.case[0], others)
    elif others:
        raise LabError(f"{' '.join(others)}: options of a case go with that case alone: scripts/bench CASE --help")
    else:
        figures, broken = _several(args.case or list(CASES))
    report.print_figures(figures, earlier)
    say(f"taken in {time.monotonic() - begun:.0f} s")
    if args.json:
        report.write(args.json, figures)
    if args.plot:
        for path in plot.plot(args.plot, figures):
            say(f"drawn: {path}")
    return _judged(figures, broken, args.judge)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__, add_help=False)
    parser.add_argument("case", nargs="*", metavar="CASE")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--against", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="DIR")
    parser.add_argument("--judge", action="store_true")
    return parser


def _one(name: str, words: Sequence[str]) -> list[Figure]:
    case = importlib.import_module(f".{CASES[name]}", __package__)
    parser = argparse.ArgumentParser(prog=f"scripts/bench {name}", description=case.__doc__)
    case.options(parser)
    figures: list[Figure] = case.measure(parser.parse_args(words))
    return figures


def _several(names: Sequence[str]) -> tuple[list[Figure], list[str]]:
    """Figures of the cases that could be measured, and the names of the others."""
    figures: list[Figure] = []
    broken = []
    for name in names:
        say(name)
        with tempfile.TemporaryDirectory(prefix="fleetswitch-bench-") as folder:
            told = Path(folder) / "figures.json"
            child = subprocess.Popen([sys.executable, "-m", __package__ or "benchkit", name, "--json", str(told)],
                                     stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)  # fmt: skip
            try:
                code = child.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                say(f"{name}: not done after {_PATIENCE:.0f} s, ended")
                code = -1
            finally:
                _end(child)
            if code == 0:
                figures += report.read(told)
            else:
                broken.append(name)
    return figures, broken


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()  # it takes its lab away
    try:
        child.wait(_END)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _judged(figures: Sequence[Figure], broken: Sequence[str], judge: bool) -> int:
    """Exit code 1 when a case could not be measured, or, being asked, when a goal is missed; it is said which."""
    missed = [said for figure in figures if (said := figure.missed())]
    for name in broken:
        say(f"{name}: could not be measured")
    for said in missed:
        say(f"missed: {said}")
    if any(figure.goal for figure in figures) and not missed:
        say("every goal is reached")
    return 1 if broken or (judge and missed) else 0


if __name__ == "__main__":
    sys.exit(run_program("bench", main))
