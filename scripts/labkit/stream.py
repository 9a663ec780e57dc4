"""Frames at a steady rate between light guests, each with a number: what is lost, doubled, or comes late is counted.

A process of its own (labkit.streamer) sends and counts, so what else the test does cannot hold it up. The userspace
datapath reads each port from a socket that holds some 160 of such frames, less than a busy machine may keep
ovs-vswitchd waiting: while frames flow the sockets of the switches hold more.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import secrets
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from . import netns as ns
from .light import LightGuest
from .run import LabError

_ETHERTYPE = 0x88B5  # IEEE 802, 12: for local experiments; nobody answers it
_SO_RCVBUFFORCE = 33  # socket(7)
_PIDFD_GETFD = 438  # pidfd_getfd(2), the same number on every architecture
_ENDING = 60.0  # seconds that the process may take to count what is under way


@dataclass(frozen=True, slots=True)
class Report:
    """What became of one stream. ``lost`` are runs of missing frames as (first number, how many); ``silences`` are
    times without a frame as (from, to), in seconds of ``time.monotonic()``; ``seconds`` is how long it was sent."""

    sent: int
    lost: tuple[tuple[int, int], ...]
    doubled: int
    disordered: int
    silences: tuple[tuple[float, float], ...]
    seconds: float

    @property
    def missing(self) -> int:
        """Frames that never came."""
        return sum(count for _, count in self.lost)

    @property
    def whole(self) -> bool:
        """Whether each frame came, once, in order."""
        return not (self.lost or self.doubled or self.disordered)

    def back_after(self, moment: float) -> float:
        """Seconds from a moment in a silence, or before one, to the first frame behind it; 0 without a silence."""
        return max((end - moment for start, end in self.silences if end > moment), default=0.0)

    def __str__(self) -> str:
        rate = self.sent / self.seconds if self.seconds else 0.0
        worst = max((end - start for start, end in self.silences), default=0.0)
        return (
            f"{self.sent} sent at {rate:.0f}/s, {self.missing} lost in {len(self.lost)} gaps {self.lost[:4]}, "
            f"{self.doubled} twice, {self.disordered} out of order, longest silence {worst * 1000:.0f} ms"
        )


class Streaming:
    """Streams by name, sender → receiver (their first vNICs), while the block runs; ``reports`` when it has ended."""

    def __init__(self, ways: Mapping[str, tuple[LightGuest, LightGuest]]) -> None:
        self.reports: dict[str, Report] = {}
        self._ways = dict(ways)
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Streaming:
        for host in {guest.host.name: guest.host for way in self._ways.values() for guest in way}.values():
            _deepen_queues(host.process("ovs-vswitchd").pid)
        plan, sockets = [], []
        for sender, receiver in self._ways.values():
            out, into = (_socket(guest.netns) for guest in (sender, receiver))
            sockets += [out, into]
            head = bytes.fromhex((receiver.nics[0].mac + sender.nics[0].mac).replace(":", ""))
            head += struct.pack("!H8s", _ETHERTYPE, secrets.token_bytes(8))
            plan.append([out.fileno(), into.fileno(), head.hex()])
        argv = [sys.executable, "-m", "labkit.streamer", json.dumps(plan)]
        paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        try:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths},
                pass_fds=[each.fileno() for each in sockets], process_group=0,
            )  # fmt: skip
        finally:
            for each in sockets:
                each.close()
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "flowing\n":
            self._process.kill()
            raise LabError("the streams do not begin: no frame came through")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        said, _error = self._process.communicate("stop\n", timeout=_ENDING)
        for name, report in zip(self._ways, json.loads(said), strict=True):
            lost, silences = (tuple(map(tuple, report.pop(key))) for key in ("lost", "silences"))
            self.reports[name] = Report(lost=lost, silences=silences, **report)

    def __str__(self) -> str:
        return "; ".join(f"{name}: {report}" for name, report in self.reports.items())


def _socket(netns: str) -> socket.socket:
    """A packet(7) socket on a guest's first vNIC that hears streams alone."""

    def work() -> socket.socket:
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        raw.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 16 << 20)
        raw.bind(("eth0", _ETHERTYPE))
        raw.setblocking(False)
        return raw

    return ns.call_in(netns, work)


def _deepen_queues(pid: int) -> None:
    """Let every packet(7) socket of a process hold 16 MB, where ptrace(2) would be allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    process = os.pidfd_open(pid)
    try:
        for number in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                if not os.readlink(f"/proc/{pid}/fd/{number}").startswith("socket:"):
                    continue
            if (copy := libc.syscall(_PIDFD_GETFD, process, int(number), 0)) < 0:
                continue
            with socket.socket(fileno=copy) as each:
                if each.family == socket.AF_PACKET:
                    each.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 16 << 20)
    finally:
        os.close(process)
