"""What every script of the lab does around its work: errors in a line, exit codes, interrupts that let it clean up."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType

from .run import LabError

INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_program(name: str, work: Callable[[], int | None]) -> int:
    """Exit codes: 0 done (or what ``work`` returns), 1 failed, 130 interrupted. ``name`` stands before errors."""
    interruptible()
    try:
        return work() or 0
    except LabError as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130


def interruptible() -> None:
    """From now on Ctrl-C, SIGTERM and SIGHUP raise KeyboardInterrupt in the main thread, once; under nohup(1) SIGHUP
    does nothing. SIGINT is heard also where a shell that began this in the background had it ignored."""
    for number in INTERRUPTS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupted)


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    """Raise once; what follows is the teardown, which a second Ctrl-C must not cut short.

    Not SIG_IGN: programs would inherit that, and daemons that are just being started would not hear the teardown.
    """
    for number in INTERRUPTS:
        signal.signal(number, lambda _number, _frame: None)
    raise KeyboardInterrupt
