"""What a process has used so far, from proc(5)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from labkit.run import LabError


def cpu(pids: Iterable[int]) -> float:
    """Seconds of processor time, of a process's own and the kernel's for it, of all of them together."""
    return sum(map(_cpu, pids))


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int, what: str = "VmRSS") -> int:
    """Bytes; ``what`` is a line of /proc/PID/status, VmHWM for the most so far. Raises LabError when it is not told."""
    found = re.search(rf"^{what}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    if found is None:
        raise LabError(f"process {pid} tells no {what}")
    return int(found[1]) * 1024


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def family(pid: int) -> list[int]:
    """The process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]
