"""Bytes that a controller sent once, written again by a loop that does nothing else: what it costs at least."""

from __future__ import annotations

import selectors
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from labkit.run import LabError

from .sinks import BARRIER, BUNDLE_ADD, BUNDLE_CONTROL, HELLO, ROLE, Sinks, message

WRITE = 1 << 16
_METER_MOD = 29
_ASKED = 0x7E57  # the transaction id of what is asked last
_PATIENCE = 120.0


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds: of the clock, and of this process's own and the kernel's for it."""

    wall: float
    cpu: float


def flows_alone(sent: bytes) -> bytes:
    """Of the bytes that a controller sent to a switch: its bundles and meters, and a question behind them that is
    answered when they are through."""
    found, at = [], 0
    while len(sent) - at >= 8:
        kind, size = sent[at + 1], sent[at + 2] << 8 | sent[at + 3]
        if kind in {BUNDLE_CONTROL, BUNDLE_ADD, _METER_MOD}:
            found.append(sent[at : at + size])
        at += size
    return b"".join((*found, message(BARRIER, xid=_ASKED)))


def write_all(told: Sequence[tuple[socket.socket, bytes]]) -> Cost:
    """Write to every socket what is for it, 64 KiB at a time, as soon as it takes any; returns when all have answered
    the question at the end. Raises LabError when one does not."""
    begun, spent = time.monotonic(), time.thread_time()
    with selectors.DefaultSelector() as selector:
        for each, data in told:
            each.setblocking(False)
            selector.register(each, selectors.EVENT_WRITE, memoryview(data))
        waiting = len(told)
        while waiting:
            if time.monotonic() - begun > _PATIENCE:
                raise LabError("not every switch took what was written to it")
            for key, _ in selector.select(1.0):
                sock: socket.socket = key.fileobj  # type: ignore[assignment]
                if key.data:
                    left = key.data[sock.send(key.data[:WRITE]) :]
                    selector.modify(sock, selectors.EVENT_WRITE if left else selectors.EVENT_READ, left)
                elif _answered(sock):
                    selector.unregister(sock)
                    waiting -= 1
    return Cost(time.monotonic() - begun, time.thread_time() - spent)


_ANSWER = struct.pack("!BBHI", 6, BARRIER + 1, 8, _ASKED)


def _answered(sock: socket.socket) -> bool:
    """Whether the last message that has arrived is the answer; raises LabError at the end of the stream."""
    data = sock.recv(WRITE)
    if not data:
        raise LabError("a switch closed its connection while it was written to")
    return data.endswith(_ANSWER)


@contextmanager
def connected(sinks: Sinks, count: int) -> Iterator[list[socket.socket]]:
    """The sinks, connected to nobody but us, in their order."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=count))
        come: list[socket.socket] = []

        def accept() -> None:
            for _ in range(count):
                sock = stack.enter_context(listening.accept()[0])
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.sendall(message(HELLO, xid=1) + message(ROLE, bytes(16), xid=2))
                come.append(sock)

        thread = threading.Thread(target=accept)
        thread.start()
        sinks.connect(listening.getsockname()[1], range(count))
        thread.join(_PATIENCE)
        yield come
