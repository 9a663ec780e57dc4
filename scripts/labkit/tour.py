"""The pages that walk through the quickstart's lab, walked: their commands are run, and compared with what they show.

A page is its own script. In its blocks a line that begins with ``$`` is a command, what follows is its output.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from .controller import PROGRAM, REPOSITORY
from .lab import Lab
from .quickstart import populate
from .run import LabError, wait_for

PAGES = (REPOSITORY / "docs/tour.md", REPOSITORY / "docs/getting-started.md")
_BLOCK = re.compile(r"(?<=^```\n)\$ .*?(?=^```$)", re.MULTILINE | re.DOTALL)
_STEP = re.compile(r"^\$ (?P<command>.*\n)(?P<output>(?:(?!\$ ).*\n)*)", re.MULTILINE)

# What may be asked again until it says what the page shows: a slow machine is a little behind.
_READS = (
    "fleetswitch host list",
    "fleetswitch port list",
    "fleetswitch topology",
    "fleetswitch events",
    "scripts/lab exec",
)
_PATIENCE = 20.0

# What is another each time, or with another Open vSwitch. Blanks go too: a column is as wide as what it holds.
_VOLATILE = (
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "UUID"),
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z"), "TIME"),
    (re.compile(r"\b172\.31\.\d+\."), "172.31.N."),
    (re.compile(r"\b(f1ee[0-9a-f]{12}) +\d+(\.\d+)+ +\d+"), r"\1 VERSION FLOWS"),
    (re.compile(r"as of change \d+"), "as of change N"),
    (re.compile(r"[\d./]+ ms"), "N ms"),
    (re.compile(r" +"), " "),
    (re.compile(r" +$", re.MULTILINE), ""),
)


def masked(text: str) -> str:
    """Output without what differs between two runs that went alike."""
    for pattern, word in _VOLATILE:
        text = pattern.sub(word, text)
    return text


def take(lab: Lab) -> dict[Path, str]:
    """Run the pages' commands in a lab that is up; the pages with what they said where that is something else.

    Raises LabError when a guest does not answer, or a page has no command.
    """
    populate(lab)
    wait_for("web1 reaches db1", lambda: lab.guest("web1").run("ping -c1 -W2 192.168.50.21")[0] == 0, 60.0)
    return {page: _walk(lab, page) for page in PAGES}


def _walk(lab: Lab, page: Path) -> str:
    text = page.read_text()
    if not _BLOCK.search(text):
        raise LabError(f"{page}: no block of commands that begin with $")
    return _BLOCK.sub(lambda block: _STEP.sub(_answered(lab), block[0]), text)


def _answered(lab: Lab) -> Callable[[re.Match[str]], str]:
    def answer(step: re.Match[str]) -> str:
        command, shown = step["command"].strip(), masked(step["output"])
        deadline = time.monotonic() + (_PATIENCE if command.startswith(_READS) else 0.0)
        while masked(output := _run(lab, command)) != shown:
            if time.monotonic() >= deadline:
                return f"$ {command}\n{output}"
            time.sleep(0.2)
        return step[0]

    return answer


def _run(lab: Lab, command: str) -> str:
    """What a terminal shows of a command: results and remarks in the order in which they were said."""
    program, *words = shlex.split(command)
    match program, words:
        case "fleetswitch", _:
            argv = [str(PROGRAM), *words]
        case "scripts/lab", [verb, *rest]:
            argv = [sys.executable, str(REPOSITORY / program), verb, "--name", lab.name, *rest]
        case _:
            raise LabError(f"$ {command}: neither fleetswitch nor scripts/lab")
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=90.0,
        cwd=REPOSITORY,
        env={**os.environ, "FLEETSWITCH_API": lab.controller.api},
    )
    return "".join(f"{line.rstrip()}\n" for line in done.stdout.rstrip().splitlines())
