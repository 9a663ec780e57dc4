"""What a lab consists of, as JSON in its run directory: any later command works from this file alone."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .procs import Process
from .run import LabError

ROOT = Path("/run/fleetswitch-lab")


@dataclass
class HostState:
    """One host: `number` gives its addresses, `uuid` is libvirt's host_uuid, `libvirt` whether it runs libvirtd."""

    name: str
    number: int
    netns: str
    rundir: str
    mgmt: str
    tunnel_ip: str
    uuid: str
    libvirt: bool


@dataclass
class GuestState:
    """One guest: kind "real" (QEMU) or "light" (namespace); vnics are dicts as labkit.guest.Nic makes them."""

    name: str
    host: str
    kind: str
    vm_id: str
    netns: str | None = None
    vnics: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class LabState:
    """The whole lab. Networks are the first three octets of a /24."""

    prefix: str
    boot_id: str = ""
    mgmt_net: str = ""
    underlay_net: str = ""
    underlay_mtu: int = 1500
    physnets: int = 1
    tls: bool = False
    vlans: list[int] = field(default_factory=list)
    namespaces: list[str] = field(default_factory=list)
    processes: list[dict[str, Any]] = field(default_factory=list)
    hosts: dict[str, HostState] = field(default_factory=dict)
    guests: dict[str, GuestState] = field(default_factory=dict)
    controller: dict[str, Any] | None = None

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> LabState:
        data = dict(data)
        data["hosts"] = {name: HostState(**host) for name, host in data["hosts"].items()}
        data["guests"] = {name: GuestState(**guest) for name, guest in data["guests"].items()}
        return cls(**data)


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def check_prefix(prefix: str) -> str:
    """A prefix must leave room in the 15 characters of an interface's name."""
    if not re.fullmatch(r"[a-z][a-z0-9]{0,3}", prefix):
        raise LabError(f"name {prefix!r}: one to four lower-case letters and digits, a letter first")
    return prefix


def check_name(lab: LabState, name: str) -> None:
    """A new guest's name: fit for a file, a namespace and libvirt, and not taken. Raises LabError."""
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,39}", name):
        raise LabError(f"guest {name!r}: lower-case letters, digits and -, a letter first, up to 40 characters")
    if name in lab.guests or name in lab.hosts or f"{lab.prefix}-{name}" in lab.namespaces:
        raise LabError(f"the name {name!r} is taken in lab {lab.prefix!r}")


class StateFile:
    """The state and its file. Change it only inside `edit()`, which other processes and threads respect."""

    def __init__(self, prefix: str) -> None:
        self.dir = ROOT / check_prefix(prefix)
        self.path = self.dir / "state.json"
        self.pki = self.dir / "pki"
        self.now = LabState(prefix)
        self._lock = threading.RLock()

    def exists(self) -> bool:
        return self.path.exists()

    def load(self) -> LabState:
        """Read the file. Raises LabError when there is no such lab, or the file is not ours."""
        try:
            self.now = LabState.from_json(json.loads(self.path.read_text()))
        except FileNotFoundError:
            raise LabError(f"no lab {self.now.prefix!r} is up: scripts/lab up --name {self.now.prefix}") from None
        except (ValueError, TypeError, KeyError) as error:
            raise LabError(f"{self.path}: not a lab's state ({error}); scripts/lab down removes it") from error
        return self.now

    def save(self) -> None:
        """Write the file as a whole or not at all."""
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(dataclasses.asdict(self.now), indent=1))
        new.replace(self.path)

    @contextlib.contextmanager
    def edit(self) -> Iterator[LabState]:
        """Read, let the caller change, write; one at a time over all threads and processes."""
        with self._lock, locked(self.dir):
            state = self.load()
            yield state
            self.save()

    def remember(self, process: Process) -> Process:
        """Record a process that the lab started; one with the same purpose takes the place of the earlier."""
        with self.edit() as state:
            state.processes = [p for p in state.processes if p["what"] != process.what]
            state.processes.append(dataclasses.asdict(process))
        return process

    def processes(self) -> list[Process]:
        """Those recorded since this boot of the machine."""
        if self.now.boot_id != boot_id():
            return []
        return [Process(**p) for p in self.now.processes]


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold flock(2) on a directory."""
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def locked_root() -> Iterator[None]:
    """Hold the lock on the directory of all labs; it is made when missing, and removed when the last lab left it."""
    fd = _lock_root()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # a lab is in it
            ROOT.rmdir()
        os.close(fd)


def _lock_root() -> int:
    """A descriptor of the directory, locked. Who held it before may have removed it, and somebody made another one."""
    while True:
        with contextlib.suppress(FileExistsError, FileNotFoundError):  # it comes and goes between two steps
            ROOT.mkdir(parents=True, exist_ok=True)
            fd = os.open(ROOT, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(fd, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.fstat(fd).st_ino == ROOT.stat().st_ino:
                    return fd
            os.close(fd)
