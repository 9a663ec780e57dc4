"""The process behind labkit.stream: sends numbered packets at a steady rate, and counts what comes of them.

It never makes good for time in which the machine kept it waiting: a burst would overrun the switch's socket, and what
is lost there would be its own doing.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import sys
import time
from dataclasses import dataclass, field
from typing import Any

_SIZE = 60
_SILENT = 0.05  # seconds without a frame that are worth telling
_TURNS = 4.0  # so many behind its time, a frame is left out rather than sent late
_BEGIN = 20.0  # seconds in which the first frame of each stream has to come
_PATIENCE = 3.0  # seconds without a frame, after the sending, from which what is missing is lost


@dataclass
class _Stream:
    """One stream as it is counted. ``came`` has a byte for each number: how often it came, at most twice."""

    out: socket.socket
    into: socket.socket
    head: bytes
    seen: bytes
    sent: int = 0
    came: bytearray = field(default_factory=bytearray)
    highest: int = -1
    doubled: int = 0
    disordered: int = 0
    last: float = 0.0
    silences: list[tuple[float, float]] = field(default_factory=list)

    def send(self) -> None:
        """One frame; a full queue of the sender's own is no loss, the number stays for the next time."""
        try:
            self.out.send((self.head + struct.pack("!Q", self.sent)).ljust(_SIZE, b"\0"))
        except (BlockingIOError, OSError):
            return
        self.sent += 1

    def take(self) -> None:
        """Everything that has come."""
        while True:
            try:
                frame = self.into.recv(256)
            except OSError:
                return
            if frame.startswith(self.seen) and len(frame) >= len(self.seen) + 8:
                self._count(struct.unpack_from("!Q", frame, len(self.seen))[0])

    def _count(self, number: int) -> None:
        now = time.monotonic()
        if self.last and now - self.last > _SILENT:
            self.silences.append((self.last, now))
        self.last = now
        self.came.extend(bytes(max(0, number + 1 - len(self.came))))
        self.doubled += self.came[number]
        self.disordered += number < self.highest and not self.came[number]
        self.came[number] = 1
        self.highest = max(self.highest, number)

    @property
    def complete(self) -> bool:
        return len(self.came) == self.sent and 0 not in self.came

    def report(self, seconds: float) -> dict[str, Any]:
        self.came.extend(bytes(self.sent - len(self.came)))
        lost, at = [], self.came.find(0)
        while at >= 0:
            end = self.came.find(1, at)
            lost.append((at, (end if end >= 0 else self.sent) - at))
            at = self.came.find(0, end) if end >= 0 else -1
        return {"sent": self.sent, "lost": lost, "doubled": self.doubled, "disordered": self.disordered,
                "silences": self.silences, "seconds": seconds}  # fmt: skip


def _flow(streams: list[_Stream], every: float, until: float) -> bool:
    """Send every so many seconds, and take, until told to stop; False when nothing came of a stream by ``until``."""
    began = due = time.monotonic()
    told = False
    watched = [0, *(stream.into.fileno() for stream in streams)]
    while True:
        ready = select.select(watched, [], [], max(0.0, due - time.monotonic()))[0]
        now = time.monotonic()
        if now >= due:
            for stream in streams:
                stream.send()
            due = (due if now - due < _TURNS * every else now) + every
        for stream in streams:
            stream.take()
        if not told and all(stream.came for stream in streams):
            told = True
            print("flowing", flush=True)
        if 0 in ready or (not told and now > until):
            break
    _drain(streams)
    print(json.dumps([stream.report(now - began) for stream in streams]))
    return told


def _drain(streams: list[_Stream]) -> None:
    """What is under way arrives, or nothing has come for a while."""
    last = time.monotonic()
    while time.monotonic() - last < _PATIENCE and not all(stream.complete for stream in streams):
        before = [len(stream.came) for stream in streams]
        select.select([stream.into for stream in streams], [], [], 0.1)
        for stream in streams:
            stream.take()
        if before != [len(stream.came) for stream in streams]:
            last = time.monotonic()


def main() -> int:
    """The rate, and descriptors and heads of each stream, come as JSON; a line on standard input ends it."""
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))  # the rate holds on a busy machine as well
    rate, plan = json.loads(sys.argv[1])
    streams = [
        _Stream(socket.socket(fileno=out), socket.socket(fileno=into), bytes.fromhex(head), bytes.fromhex(seen))
        for out, into, head, seen in plan
    ]
    return 0 if _flow(streams, 1 / rate, time.monotonic() + _BEGIN) else 1


if __name__ == "__main__":
    sys.exit(main())
