"""Processes that the lab started, known by pid and start time, so that a reused pid is never taken for one of ours."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from .run import LabError, wait_for


def start_time(pid: int) -> int | None:
    """Clock ticks from the boot to the start of the process (field 22 of proc(5) stat); None if it is dead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, threads, start = fields[0], int(fields[17]), int(fields[19])
    # a killed process's first thread is a zombie while its others still hold files and their locks
    return None if state in "ZX" and threads <= 1 else start


@dataclass(frozen=True, slots=True)
class Process:
    """One process: what it is for ("h1 ovs-vswitchd"), its pid and its start time."""

    what: str
    pid: int
    start: int

    @classmethod
    def of(cls, what: str, pid: int) -> Process:
        """The process that runs under this pid now. Raises LabError when none does."""
        start = start_time(pid)
        if start is None:
            raise LabError(f"{what}: process {pid} ended at once")
        return cls(what, pid, start)

    @property
    def alive(self) -> bool:
        return start_time(self.pid) == self.start

    def signal(self, number: int) -> None:
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def from_pidfile(what: str, path: Path, timeout: float = 10.0) -> Process:
    """The process whose pid stands in a file that it may still be about to write."""

    def read() -> int | None:
        with contextlib.suppress(FileNotFoundError, ValueError):
            return int(path.read_text().split()[0]) if path.stat().st_size else None
        return None

    return Process.of(what, wait_for(f"{path} of {what}", read, timeout))


def end(processes: Iterable[Process], grace: float = 3.0) -> None:
    """SIGTERM to all at once, SIGKILL after `grace` s to those that stay. Returns when all are gone."""
    left = [process for process in processes if process.alive]
    for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 10.0)):
        for process in left:
            process.signal(number)
            process.signal(signal.SIGCONT)  # a stopped one takes its SIGTERM when it goes on
        deadline = time.monotonic() + patience
        while left and time.monotonic() < deadline:
            left = [process for process in left if process.alive]
            if left:
                time.sleep(0.01)
    if left:
        raise LabError("still running after SIGKILL: " + ", ".join(f"{p.what} ({p.pid})" for p in left))


def matching(what: str, wanted: Callable[[list[str]], bool]) -> list[Process]:
    """Every process with command-line words that are wanted."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                start = start_time(int(entry.name))
                words = (entry / "cmdline").read_text(errors="replace").split("\0")
                if start is not None and wanted(words):
                    found.append(Process(what, int(entry.name), start))
    return found


def inside(namespaces: Iterable[Path]) -> list[Process]:
    """Every process that lives in one of these network namespaces (paths under /run/netns)."""
    wanted = set()
    for path in namespaces:
        with contextlib.suppress(FileNotFoundError):
            found = path.stat()
            wanted.add((found.st_dev, found.st_ino))
    processes = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with contextlib.suppress(OSError):
            found = (entry / "ns/net").stat()
            start = start_time(int(entry.name))
            if (found.st_dev, found.st_ino) in wanted and start is not None:
                processes.append(Process((entry / "comm").read_text().strip(), int(entry.name), start))
    return processes
