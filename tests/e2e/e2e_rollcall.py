"""A roll call: each of many guests of a host sends to the next, round and round, and all that comes is timed."""

from __future__ import annotations

import secrets
import selectors
import socket
import threading
import time
from collections.abc import Sequence

from e2e_frames import ethernet
from labkit import LabError, LightGuest, netns, wait_for

_ETHERTYPE = 0x88B6  # IEEE 802, 12: the other one for local experiments
_TURN = 0.05  # seconds in which each sends one frame


class RollCall:
    """Runs while the block does. What a guest gets was sent by its own switch's rules for the one before it."""

    def __init__(self, guests: Sequence[LightGuest]) -> None:
        self._guests = list(guests)
        self._first = [0.0] * len(self._guests)  # when each heard its neighbour first after ``_since``
        self._since = float("inf")
        self._marker = secrets.token_bytes(16)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="roll call")

    def __enter__(self) -> RollCall:
        self._sockets = [netns.call_in(guest.netns, _socket) for guest in self._guests]
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for each in self._sockets:
            each.close()

    def complete_after(self, moment: float, within: float) -> float:
        """Seconds from a moment of time.monotonic() until every guest had been heard and had heard. Raises LabError."""
        self._since = float("inf")
        self._first = [0.0] * len(self._guests)
        self._since = moment
        try:
            wait_for("a whole roll call", lambda: all(self._first), within, every=0.01)
        except LabError as error:
            silent = [guest.name for guest, first in zip(self._guests, self._first, strict=True) if not first]
            raise LabError(f"{error}: {len(silent)} heard nothing: {silent[:5]}") from None
        return max(self._first) - moment

    def _work(self) -> None:
        macs = [guest.nics[0].mac for guest in self._guests]
        frames = [
            ethernet(macs[(n + 1) % len(macs)], mac, _ETHERTYPE, self._marker) for n, mac in enumerate(macs)
        ]  # fmt: skip
        with selectors.DefaultSelector() as selector:
            for number, each in enumerate(self._sockets):
                selector.register(each, selectors.EVENT_READ, number)
            due = time.monotonic()
            while not self._over.is_set():
                if time.monotonic() >= due:
                    due = time.monotonic() + _TURN
                    for each, frame in zip(self._sockets, frames, strict=True):
                        _send(each, frame)
                for key, _ in selector.select(max(0.0, due - time.monotonic())):
                    self._take(self._sockets[key.data], key.data)

    def _take(self, each: socket.socket, number: int) -> None:
        try:
            heard = self._marker in each.recv(256)
        except OSError:
            return
        now = time.monotonic()
        if heard and now > self._since and not self._first[number]:
            self._first[number] = now


def _send(each: socket.socket, frame: bytes) -> None:
    try:
        each.send(frame)
    except OSError:  # its queue is full while nobody takes its frames
        return


def _socket() -> socket.socket:
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    raw.bind(("eth0", _ETHERTYPE))
    raw.setblocking(False)
    return raw
