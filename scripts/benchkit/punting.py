"""Played switches that send packets to a controller, and wait for what it does with them, as cbench does."""

from __future__ import annotations

import selectors
import socket
import struct
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from labkit.run import LabError

_HEAD = struct.Struct("!BBHI")
_HELLO, _ECHO, _FEATURES, _CONFIG, _PACKET_IN, _PACKET_OUT = 0, 2, 5, 7, 10, 13  # of OpenFlow 1.3 and 1.5 alike
_MULTIPART, _BARRIER, _ROLE = 18, 20, 24
_READ = 1 << 16
_AGAIN = 0.2  # seconds after which a controller that does not answer yet is asked again
_STANDSTILL = 0.005  # seconds: when nobody has an answer for longer, it is the machine that does other things
PACKETS = 64  # of each switch that are not the same
_LOCAL_EXPERIMENT = 0x88B5  # EtherType of IEEE 802, 9.2.4


class Punting:
    """One switch. ``window`` packets are under way at any time; ``waits`` are the seconds of each that was answered,
    and ``served`` the part of them in which anybody was answered."""

    def __init__(self, port: int, number: int, version: int, window: int, packets: Sequence[bytes] = ()) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), 10.0)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.window = window
        self.answered = 0
        self.waits: list[float] = []
        self.served: list[float] = []
        self._number = number
        self._version = version
        packets = packets or [learnt(version, number, sender) for sender in range(PACKETS)]
        self._size = len(packets[0])
        self._packets = b"".join(packets) * 2  # any so many in a row are one slice
        self._next = 0
        self._asked: deque[tuple[float, float]] = deque()
        self._left, self._out = b"", b""
        self._send(_HEAD.pack(version, _HELLO, 8, 1))

    def ask(self, count: int, now: float, served: float) -> None:
        """Send so many packets, ``PACKETS`` at most, to the controller."""
        first = self._next * self._size
        self._next = (self._next + count) % PACKETS
        self._asked.extend([(now, served)] * count)
        self._send(self._packets[first : first + count * self._size])

    def forget(self) -> None:
        """Nothing is under way, and nothing was answered."""
        self._asked.clear()
        self.waits, self.served, self.answered = [], [], 0

    def flood(self) -> None:
        """As much as the controller takes."""
        with suppress(BlockingIOError):
            if self._out:
                self._out = self._out[self.sock.send(self._out) :]
            else:
                sent = self.sock.send(self._packets)
                whole = -(-sent // self._size) * self._size
                self._out = self._packets[sent:whole]

    def read(self) -> int:
        """How many answers have come. Raises LabError when the controller has closed the connection."""
        try:
            data = self.sock.recv(_READ)
        except BlockingIOError:
            return 0
        if not data:
            raise LabError(f"the controller closed the connection of switch {self._number}")
        data, offset, answers = self._left + data, 0, 0
        end = len(data)
        while end - offset >= 8:
            _, kind, size, xid = _HEAD.unpack_from(data, offset)
            if end - offset < size:
                break
            if kind == _PACKET_OUT:
                answers += self._answers(data[offset : offset + size])
            else:
                self._other(kind, xid, data[offset + 8 : offset + size])
            offset += size
        self._left = data[offset:]
        return answers

    def took(self, answers: int, now: float, served: float) -> None:
        """So many were answered: first come first served, as on every connection."""
        self.answered += answers
        for _ in range(min(answers, len(self._asked))):
            begun, had = self._asked.popleft()
            self.waits.append(now - begun)
            self.served.append(served - had)

    def _answers(self, packet_out: bytes) -> bool:
        """Whether this is what a packet waits for."""
        return True

    def left_waiting(self, now: float, served: float) -> None:
        """What is under way has waited so long already."""
        for begun, had in self._asked:
            self.waits.append(now - begun)
            self.served.append(served - had)

    def _other(self, kind: int, xid: int, body: bytes) -> None:
        """What a controller asks at the start."""
        if kind == _FEATURES:
            self._say(kind + 1, xid, struct.pack("!QIBB2xII", self._number, 0, 254, 0, 0, 0))
        elif kind == _CONFIG:
            self._say(kind + 1, xid, struct.pack("!HH", 0, 0xFFFF))
        elif kind == _MULTIPART:
            self._say(kind + 1, xid, body[:2] + bytes(6))
        elif kind in {_ECHO, _BARRIER, _ROLE}:
            self._say(kind + 1, xid, body)

    def _say(self, kind: int, xid: int, body: bytes) -> None:
        self._send(_HEAD.pack(self._version, kind, 8 + len(body), xid) + body)

    def _send(self, data: bytes) -> None:
        self._out += data
        with suppress(BlockingIOError):
            self._out = self._out[self.sock.send(self._out) :]


def learnt(version: int, number: int, sender: int) -> bytes:
    """A packet-in with a frame of 64 bytes, its checksum left out: from a MAC behind one of the switch's ports to one
    that nobody has."""
    source = struct.pack("!HI", 0x0200, number << 8 | sender)
    frame = bytes.fromhex("02ff00000001") + source + struct.pack("!H", _LOCAL_EXPERIMENT)
    return packet_in(version, 0, 0, struct.pack("!II", 0x80000004, 1 + sender % 4), frame.ljust(60, b"\0"))


def packet_in(version: int, table: int, cookie: int, oxms: bytes, frame: bytes) -> bytes:
    """The whole message (OpenFlow 1.5.1, 7.4.1; that of 1.3 has the same form). It says that no flow matched: others
    than us do not answer what an action sent."""
    match = struct.pack("!HH", 1, 4 + len(oxms)) + oxms + bytes(-(4 + len(oxms)) % 8)
    body = struct.pack("!IHBBQ", 0xFFFFFFFF, len(frame), 0, table, cookie) + match + bytes(2) + frame
    return _HEAD.pack(version, _PACKET_IN, 8 + len(body), 0) + body


def answered(switches: Sequence[Punting], patience: float = 20.0) -> None:
    """Return when each of them had an answer, and nothing is under way. Raises LabError when one of them has none."""
    deadline = time.monotonic() + patience
    waiting = set(switches)
    while waiting and time.monotonic() < deadline:
        for switch in waiting:
            switch.ask(1, 0.0, 0.0)
        until = time.monotonic() + _AGAIN
        while waiting and time.monotonic() < until:
            _, answering = _ready(switches, 0.01)
            waiting -= answering
    if waiting:
        raise LabError(f"{len(waiting)} of {len(switches)} switches have no answer within {patience:.0f} s")
    while _ready(switches, _AGAIN)[0]:
        pass  # answers to what was asked before the controller was ready
    for switch in switches:
        switch.forget()


def _ready(switches: Sequence[Punting], timeout: float) -> tuple[int, set[Punting]]:
    """Answers that have come, and whose."""
    with selectors.DefaultSelector() as selector:
        for switch in switches:
            selector.register(switch.sock, selectors.EVENT_READ, switch)
        had = {key.data: key.data.read() for key, _ in selector.select(timeout)}
    return sum(had.values()), {switch for switch, answers in had.items() if answers}


def play(switches: Sequence[Punting], seconds: float, hostile: Punting | None = None) -> float:
    """Every switch asks again as soon as it is answered; the hostile one sends all that the controller takes. Returns
    the seconds that it took."""
    with selectors.DefaultSelector() as selector:
        for switch in switches:
            selector.register(switch.sock, selectors.EVENT_READ, switch)
        if hostile is not None:
            selector.register(hostile.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, hostile)
        begun = now = last = time.monotonic()
        served = 0.0
        for switch in switches:
            switch.ask(switch.window, now, served)
        while now - begun < seconds:
            ready = selector.select(0.1)
            came = [(key.data, key.data.read()) for key, events in ready if events & selectors.EVENT_READ]
            now = time.monotonic()
            if any(answers for _, answers in came):
                served, last = served + min(now - last, _STANDSTILL), now
            for switch, answers in came:
                if answers and switch is not hostile:
                    switch.took(answers, now, served)
                    switch.ask(answers, now, served)
            if hostile is not None and any(events & selectors.EVENT_WRITE for _, events in ready):
                hostile.flood()
        for switch in switches:
            switch.left_waiting(now, served)
        return now - begun
