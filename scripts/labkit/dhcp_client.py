"""DHCP clients of the lab's own: raw packets from many light guests at once, out of one thread."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from .capture import open_raw
from .light import LightGuest
from .run import LabError

DISCOVER, OFFER, REQUEST, ACK, NAK, RELEASE = 1, 2, 3, 5, 6, 7
_COOKIE = b"\x63\x82\x53\x63"
_AGAIN = 1.0  # seconds until a client asks again
_NOBODY = bytes(4)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server says: the kind of its message, the address that it is about, the server's own."""

    kind: int
    xid: int
    address: str
    server: str


class Client:
    """A client at a guest's eth0; ``address`` is the one that it has, ``sent`` is when it asked last."""

    def __init__(self, raw: socket.socket, mac: str) -> None:
        self.raw = raw
        self.mac = mac
        self.address: str | None = None
        self.offered: Answer | None = None
        self.server = ""
        self.sent = 0.0
        self._xid = int.from_bytes(bytes.fromhex(mac.replace(":", ""))[2:], "big")

    def discover(self) -> None:
        """Ask for an offer."""
        self._xid = self._xid + 1 & 0xFFFFFFFF
        self.offered = None
        self._send(DISCOVER)

    def request(self, offer: Answer) -> None:
        """Take an offer."""
        self._send(REQUEST, (50, socket.inet_aton(offer.address)), (54, socket.inet_aton(offer.server)))

    def rebind(self) -> None:
        """Ask whoever is there for more time (RFC 2131, 4.3.2)."""
        self._xid = self._xid + 1 & 0xFFFFFFFF
        self._send(REQUEST, ciaddr=socket.inet_aton(self.address or "0.0.0.0"))

    def release(self) -> None:
        """Give the address back."""
        address, self.address = self.address, None
        if address is not None:
            self._send(RELEASE, (54, socket.inet_aton(self.server)), ciaddr=socket.inet_aton(address))

    def again(self) -> None:
        """What it asked last, once more."""
        if self.offered is not None:
            self.request(self.offered)
        else:
            self.discover()

    def answers(self) -> Iterator[Answer]:
        """What came to what it asked last."""
        with contextlib.suppress(BlockingIOError):
            while True:
                answer = _read(self.raw.recv(2048))
                if answer is not None and answer.xid == self._xid:
                    yield answer

    def take(self, answer: Answer) -> bool:
        """One step of an exchange; whether it has an address now."""
        if answer.kind == OFFER and self.offered is None:
            self.offered = answer
            self.request(answer)
        elif answer.kind == ACK and self.offered is not None:
            self.address, self.server = answer.address, answer.server
            return True
        elif answer.kind == NAK:
            self.discover()
        return False

    def _send(self, kind: int, *options: tuple[int, bytes], ciaddr: bytes = _NOBODY) -> None:
        own = bytes.fromhex(self.mac.replace(":", ""))
        body = struct.pack("!BBBBIHH", 1, 1, 6, 0, self._xid, 0, 0x8000) + ciaddr + bytes(12) + own + bytes(202)
        told = b"".join(bytes([code, len(value)]) + value for code, value in ((53, bytes([kind])), *options))
        payload = (body + _COOKIE + told + b"\xff").ljust(300, b"\0")
        udp = struct.pack("!HHHH", 68, 67, 8 + len(payload), 0) + payload  # a checksum of 0 is none (RFC 768)
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + ciaddr + b"\xff" * 4
        total = sum(struct.unpack("!10H", head))
        total = (total & 0xFFFF) + (total >> 16)
        head = head[:10] + struct.pack("!H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF) + head[12:]
        self.sent = time.monotonic()
        with contextlib.suppress(BlockingIOError):
            self.raw.send(b"\xff" * 6 + own + b"\x08\x00" + head + udp)


@contextmanager
def clients_at(guests: Sequence[LightGuest]) -> Iterator[list[Client]]:
    """A client at each guest."""
    with ExitStack() as stack:
        found = []
        for guest in guests:
            raw = stack.enter_context(open_raw(guest.netns, "eth0"))
            raw.setblocking(False)
            found.append(Client(raw, guest.nics[0].mac))
        yield found


def serve(
    clients: Iterable[Client],
    took: Callable[[Client, Answer], bool],
    seconds: float,
    over: Callable[[], bool] = lambda: False,
) -> list[Client]:
    """Give ``took`` every answer until it said of each client that it is done, or the time or everything is over; who
    waits for a second asks again. Returns the clients that are not done."""
    waiting = dict.fromkeys(clients)
    deadline = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for client in waiting:
            selector.register(client.raw, selectors.EVENT_READ, client)
        while waiting and (now := time.monotonic()) < deadline and not over():
            for key, _ in selector.select(min(0.05, deadline - now)):
                for answer in key.data.answers():
                    if took(key.data, answer) and key.data in waiting:
                        waiting.pop(key.data)
                        selector.unregister(key.data.raw)
            now = time.monotonic()
            for client in waiting:
                if client.sent < now - _AGAIN:
                    client.again()
    return list(waiting)


def lease_all(clients: Sequence[Client], patience: float) -> float:
    """Let all ask at once; returns the seconds until the last of them has an address. Raises LabError."""
    begun = time.monotonic()
    for client in clients:
        client.discover()
    if left := serve(clients, Client.take, patience):
        raise LabError(f"{len(left)} of {len(clients)} clients had no address in {patience:.0f} s")
    return time.monotonic() - begun


def _read(frame: bytes) -> Answer | None:
    """A server's message; None for what is none."""
    if frame[12:14] != b"\x08\x00" or frame[23:24] != b"\x11" or frame[34:38] != b"\x00\x43\x00\x44":
        return None
    body = frame[42:]
    options, at = {}, 240
    while at + 1 < len(body) and body[at] != 255:
        if body[at] == 0:
            at += 1
            continue
        options[body[at]] = body[at + 2 : at + 2 + body[at + 1]]
        at += 2 + body[at + 1]
    if len(body) < 240 or 53 not in options:
        return None
    address, server = socket.inet_ntoa(body[16:20]), socket.inet_ntoa(options.get(54, _NOBODY))
    return Answer(options[53][0], int.from_bytes(body[4:8], "big"), address, server)
