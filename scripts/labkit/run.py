"""Run programs, wait for conditions, say what happens: what every other module of the lab leans on."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")


class LabError(Exception):
    """Something that the lab tried did not work; the message says what, and what the program answered."""


def say(text: str) -> None:
    """One short line of progress on standard error, so that standard output stays data."""
    print(f"lab: {text}", file=sys.stderr, flush=True)


def run(
    argv: Sequence[str],
    *,
    check: bool = True,
    input: str | None = None,
    timeout: float = 60.0,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end. Raises LabError when it fails (unless check is False), is missing or takes too long."""
    try:
        done = subprocess.run(
            list(argv),
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env=env,
            process_group=0,  # a Ctrl-C on the terminal is for us alone: programs of a teardown run to their end
        )
    except FileNotFoundError as error:
        raise LabError(f"{argv[0]}: {error.strerror}; scripts/quickstart installs what the lab needs") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"no answer in {timeout:.0f} s: {' '.join(argv)}") from error
    if check and done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "no output")[-2000:]
        raise LabError(f"exit code {done.returncode}: {' '.join(argv)[:300]}\n{said}")
    return done


def run_shown(argv: Sequence[str], timeout: float) -> None:
    """The same for what takes long: on a terminal its own progress is seen, elsewhere it is as silent as `run`."""
    if not sys.stderr.isatty():
        run(argv, timeout=timeout)
        return
    done = subprocess.run(list(argv), stdin=subprocess.DEVNULL, stdout=sys.stderr, timeout=timeout, process_group=0)
    if done.returncode != 0:
        raise LabError(f"exit code {done.returncode}: {' '.join(argv)[:300]}")


def wait_for(what: str, probe: Callable[[], T | None], timeout: float, every: float = 0.02) -> T:
    """Call probe until it returns something true, and return that. Raises LabError naming `what` after `timeout` s."""
    deadline = time.monotonic() + timeout
    while True:
        if found := probe():
            return found
        if time.monotonic() >= deadline:
            raise LabError(f"{what}: not seen in {timeout:.0f} s")
        time.sleep(every)
