"""Packets at a steady rate, each with a number: what is lost, doubled, or comes late is counted.

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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from . import netns as ns
from .light import LightGuest
from .ovs import Ovs
from .run import LabError

_ETHERTYPE = 0x88B5  # IEEE 802, 12: for local experiments; nobody answers it
_SO_RCVBUFFORCE = 33  # socket(7)
_PIDFD_GETFD = 438  # pidfd_getfd(2), the same number on every architecture
_ENDING = 60.0  # seconds that the process may take to count what is under way
RATE = 1000  # packets a second and stream


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


@dataclass(frozen=True, slots=True)
class Ends:
    """The sockets of a stream, which stay the caller's. A packet goes out as ``head`` and its number; it is known by
    ``seen``, with the number behind it, where it comes."""

    out: socket.socket
    into: socket.socket
    head: bytes
    seen: bytes


Way = tuple[LightGuest, LightGuest] | Ends
"""Of frames from one guest's first vNIC to another's; or of anything."""


class Streaming:
    """Streams by name while the block runs, at ``rate`` packets a second each; ``reports`` when it has ended.
    ``switches`` are those on the way, beside the guests' own hosts."""

    def __init__(self, ways: Mapping[str, Way], rate: int = RATE, switches: Iterable[Ovs] = ()) -> None:
        self.reports: dict[str, Report] = {}
        self._ways = dict(ways)
        self._rate = rate
        self._switches = list(switches)
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Streaming:
        guests = [guest for way in self._ways.values() if isinstance(way, tuple) for guest in way]
        on_the_way = [*self._switches, *(guest.host for guest in guests)]
        for switch in {each.owner: each for each in on_the_way}.values():
            _deepen_queues(switch.process("ovs-vswitchd").pid)
        ends = [_between(*way) if isinstance(way, tuple) else way for way in self._ways.values()]
        plan = [[each.out.fileno(), each.into.fileno(), each.head.hex(), each.seen.hex()] for each in ends]
        for each in ends:
            each.into.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 16 << 20)
            each.out.setblocking(False)
            each.into.setblocking(False)
        argv = [sys.executable, "-m", "labkit.streamer", json.dumps([self._rate, plan])]
        paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        try:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths},
                pass_fds=[side.fileno() for each in ends for side in (each.out, each.into)], process_group=0,
            )  # fmt: skip
        finally:
            for way, each in zip(self._ways.values(), ends, strict=True):
                if way is not each:
                    each.out.close()
                    each.into.close()
        assert self._process.stdout is not None
        if (said := self._process.stdout.readline()) != "flowing\n":
            self._process.communicate()
            lost = {name: each["lost"] for name, each in zip(self._ways, json.loads(said), strict=True)}
            missing = [name for name, gaps in lost.items() if gaps and gaps[0][0] == 0]
            raise LabError(f"nothing comes through of the streams {', '.join(missing)}")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        said, _error = self._process.communicate("stop\n", timeout=_ENDING)
        for name, report in zip(self._ways, json.loads(said), strict=True):
            lost, silences = (tuple(map(tuple, report.pop(key))) for key in ("lost", "silences"))
            self.reports[name] = Report(lost=lost, silences=silences, **report)

    def __str__(self) -> str:
        return "; ".join(f"{name}: {report}" for name, report in self.reports.items())


def _between(sender: LightGuest, receiver: LightGuest) -> Ends:
    """Frames from one guest's first vNIC to another's."""
    head = bytes.fromhex((receiver.nics[0].mac + sender.nics[0].mac).replace(":", ""))
    head += struct.pack("!H8s", _ETHERTYPE, secrets.token_bytes(8))
    return Ends(_socket(sender.netns), _socket(receiver.netns), head, head)


def _socket(netns: str) -> socket.socket:
    """A packet(7) socket on a guest's first vNIC that hears streams alone."""

    def work() -> socket.socket:
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        raw.bind(("eth0", _ETHERTYPE))
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
