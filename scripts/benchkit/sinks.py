"""Switches that take whatever they are sent, and only say that they have it: what is left is the controller's own cost.

They are in a process of their own, so that neither their time nor their turns are the controller's or the baseline's.
"""

from __future__ import annotations

import multiprocessing
import selectors
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from labkit.run import LabError

_VERSION = 6  # OpenFlow 1.5; numbers of messages are those of its specification, 7.1
HELLO, ECHO, FEATURES, GET_CONFIG, MULTIPART, BARRIER, ROLE = 0, 2, 5, 7, 18, 20, 24
BUNDLE_CONTROL, BUNDLE_ADD = 33, 34
COMMIT = 4  # of the types of BUNDLE_CONTROL (7.3.10)
_FLOW_DESC, _FLOW_MONITOR = 1, 16
LEFT_OVER = 0xF5 << 56 | 1
"""The cookie of the one flow that each has: of ours, and not wanted any more. Without any, the controller would ask the
host's OVSDB first, which nobody plays."""

_BURST = 200  # connections of one address: the controller lets a source come 512 times at once
_AT_ONCE = 100  # that are opened together
_READ = 1 << 18
_HEAD = struct.Struct("!BBHI")


def message(kind: int, body: bytes = b"", xid: int = 0) -> bytes:
    return _HEAD.pack(_VERSION, kind, 8 + len(body), xid) + body


@dataclass(slots=True)
class _Sink:
    sock: socket.socket
    dpid: int
    keep: bool
    rest: bytes = b""
    known: bool = False  # it is taken for the host's
    flows: int = 0
    commits: int = 0
    last: float = 0.0  # of the commits
    kept: list[bytes] = field(default_factory=list)

    def take(self, data: bytes) -> None:
        """Answers what there is to answer in it."""
        if self.keep:
            self.kept.append(data)
        if self.rest:
            data = self.rest + data
        at, end, out = 0, len(data), []
        while end - at >= 8:
            size = data[at + 2] << 8 | data[at + 3]
            if end - at < size:
                break
            if data[at + 1] == BUNDLE_ADD:
                self.flows += 1
            else:
                out.append(self._answer(data[at + 1], data[at + 4 : at + 8], data[at + 8 : at + size]))
            at += size
        self.rest = data[at:]
        if told := b"".join(out):
            self.sock.sendall(told)

    def _answer(self, kind: int, xid: bytes, body: bytes) -> bytes:
        told: bytes | None = None
        if kind in {ECHO, BARRIER}:
            told = body
        elif kind == ROLE:
            told, self.known = body, True
        elif kind == FEATURES:
            told = struct.pack("!QIBB2xII", self.dpid, 0, 254, 0, 0, 0)
        elif kind == GET_CONFIG:
            told = struct.pack("!HH", 3, 0xFFFF)
        elif kind == BUNDLE_CONTROL:
            bundle, what, flags = struct.unpack("!IHH", body)
            told = struct.pack("!IHH", bundle, what + 1, flags)
            if what == COMMIT:
                self.commits, self.last = self.commits + 1, time.monotonic()
        elif kind == MULTIPART and body[1] != _FLOW_MONITOR:
            told = body[:2] + bytes(6) + (_left_over() if body[1] == _FLOW_DESC else b"")
        return b"" if told is None else _HEAD.pack(_VERSION, kind + 1, 8 + len(told), 0)[:4] + xid + told


def _left_over() -> bytes:
    """A flow description: no match, no instruction (7.3.5.3)."""
    return struct.pack("!H2xB11xQ", 40, 0, LEFT_OVER) + struct.pack("!HHI", 1, 4, 0) + struct.pack("!HHI", 0, 4, 0)


@dataclass(frozen=True, slots=True)
class Taken:
    """What the sinks were told: flows in all, when the last bundle was committed (monotonic), and where
    that was asked for, all bytes of each."""

    flows: int
    commits: int
    last: float
    bytes: list[bytes]


class Sinks:
    """The other process, seen from this one."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def connect(self, port: int, datapaths: Sequence[int], keep: bool = False) -> float:
        """Connect to that port of loopback; what they were told before is forgotten. Returns when they begin
        (monotonic)."""
        begun = time.monotonic()
        self._ask("connect", port, list(datapaths), keep)
        return begun

    def committed(self, commits: int, seconds: float) -> Taken:
        """Wait until each has had so many bundles. Raises LabError when that is not so in time."""
        deadline = time.monotonic() + seconds
        while not self._ask("done", commits):
            if time.monotonic() > deadline:
                raise LabError(f"not every switch was told all within {seconds:.0f} s")
            time.sleep(0.02)
        return self.taken(True)

    def taken(self, with_bytes: bool = False) -> Taken:
        taken: Taken = self._ask("taken", with_bytes)
        return taken

    def close(self) -> None:
        self._ask("close")

    def _ask(self, *words: Any) -> Any:
        self._pipe.send(words)
        answer = self._pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer


@contextmanager
def sinks() -> Iterator[Sinks]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_run, args=(there,), daemon=True, name="sinks")
    process.start()
    there.close()
    try:
        yield Sinks(here)
    finally:
        here.close()  # which ends it
        process.join(10.0)


def _run(pipe: Connection) -> None:
    """Until the other end of the pipe is closed."""
    played: list[_Sink] = []
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.data is not None:
                    _read(selector, key.data)
                    continue
                try:
                    what, *args = pipe.recv()
                except (EOFError, ConnectionError):
                    return
                try:
                    pipe.send(_do(selector, played, what, *args))
                except (LabError, OSError) as error:
                    pipe.send(LabError(str(error)))


def _do(selector: selectors.BaseSelector, played: list[_Sink], what: str, *args: Any) -> Any:
    match what:
        case "connect":
            _connect(selector, played, *args)
        case "done":
            return all(sink.commits >= args[0] for sink in played)
        case "taken":
            kept = [b"".join(sink.kept) for sink in played] if args[0] else []
            return Taken(
                sum(s.flows for s in played), sum(s.commits for s in played), max(s.last for s in played), kept
            )
        case "close":
            _close(selector, played)
    return None


def _connect(
    selector: selectors.BaseSelector, played: list[_Sink], port: int, datapaths: list[int], keep: bool
) -> None:
    _close(selector, played)
    for first in range(0, len(datapaths), _AT_ONCE):
        some = []
        for number, dpid in enumerate(datapaths[first : first + _AT_ONCE], first):
            source = (f"127.1.{number // _BURST}.1", 0)
            sink = _Sink(socket.create_connection(("127.0.0.1", port), 10.0, source), dpid, keep)
            sink.sock.sendall(message(HELLO, xid=1))
            selector.register(sink.sock, selectors.EVENT_READ, sink)
            some.append(sink)
        played += some
        deadline = time.monotonic() + 60.0
        while not all(sink.known for sink in some):
            if time.monotonic() > deadline:
                raise LabError("the controller does not take the switches")
            for key, _ in selector.select(1.0):
                if key.data is not None:
                    _read(selector, key.data)


def _read(selector: selectors.BaseSelector, sink: _Sink) -> None:
    if data := sink.sock.recv(_READ):
        sink.take(data)
    else:
        selector.unregister(sink.sock)


def _close(selector: selectors.BaseSelector, played: list[_Sink]) -> None:
    for sink in played:
        if sink.sock in selector.get_map():
            selector.unregister(sink.sock)
        sink.sock.close()
    played.clear()
