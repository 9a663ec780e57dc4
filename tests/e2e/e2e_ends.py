"""Ends of streams that are routed, translated or answered on their way: what goes out is not what comes."""

from __future__ import annotations

import contextlib
import secrets
import socket

from e2e_fleet import eventually
from labkit import netns, wait_for
from labkit.capture import open_raw, read
from labkit.stream import Ends

Place = tuple[str, int]


def _udp(space: str, address: str, port: int = 0) -> socket.socket:
    """A UDP socket of a namespace."""

    def work() -> socket.socket:
        made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
        return made

    made: socket.socket = netns.call_in(space, work)
    made.settimeout(0.2)
    return made


def datagrams(sender: str, source: str, target: Place, receiver: str, listens: Place) -> Ends:
    """From a namespace and its address to what becomes the place that listens in another."""
    into, out = _udp(receiver, *listens), _udp(sender, source)
    out.connect(target)
    mark = secrets.token_bytes(8)
    return Ends(out, into, mark, mark)


def answers(client: str, source: str, server: str, listens: Place) -> Ends:
    """From who was asked back to who asked, wherever it seems to be."""
    asks, says = _udp(client, source), _udp(server, *listens)
    asks.connect(listens)

    def asked() -> bool:
        asks.send(b"go on")
        with contextlib.suppress(TimeoutError):
            says.connect(says.recvfrom(100)[1])
            return True
        return False

    eventually(f"{listens} is asked", asked)
    mark = secrets.token_bytes(8)
    return Ends(says, asks, mark, mark)


def questions(space: str, interface: str, question: bytes) -> Ends:
    """Of frames that whoever answers sends back with what stands behind them."""
    raw, mark = open_raw(space, interface), secrets.token_bytes(8)
    raw.setblocking(False)

    def answered() -> bytes | None:
        raw.send((question + mark).ljust(60, b"\0"))
        while frame := read(raw):
            if mark in frame.data and not frame.outgoing:
                return frame.data.partition(mark)[0]
        return None

    answer, behind = wait_for("an answer", answered, 20.0, every=0.1), secrets.token_bytes(8)
    return Ends(raw, raw, question + behind, answer + behind)


def close(ends: Ends) -> None:
    """Both sockets of it."""
    ends.out.close()
    ends.into.close()
