"""Programs of guests and of machines outside that answer each other, and what a wire shows of them."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Sequence
from functools import partial
from ipaddress import IPv6Address

from e2e_fleet import eventually
from labkit import LightGuest, netns
from labkit.capture import Frame
from labkit.run import run


def a_socket(space: str, kind: socket.SocketKind, address: str = "", port: int = 0, to: str = "") -> socket.socket:
    """A socket of a namespace, bound to the address, or to any of the family of the one that it is to speak ``to``."""
    family = socket.AF_INET6 if ":" in (address or to) else socket.AF_INET

    def work() -> socket.socket:
        made = socket.socket(family, kind)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
        return made

    made: socket.socket = netns.call_in(space, work)
    made.settimeout(10.0)
    return made


class Echo:
    """Answers on a port of a guest or namespace, at any IPv4 address there or, with ``at="::"``, any IPv6 one;
    ``peers`` are who came, as they are seen there."""

    def __init__(self, guest: LightGuest | str, port: int, kind: socket.SocketKind, at: str = "") -> None:
        self.peers: list[tuple[str, int]] = []
        self._socket = a_socket(guest if isinstance(guest, str) else guest.netns, kind, at, port)
        self._kind = kind
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Echo:
        if self._kind == socket.SOCK_STREAM:
            self._socket.listen()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(timeout=15.0)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                if self._kind == socket.SOCK_STREAM:
                    self._stream()
                else:
                    data, peer = self._socket.recvfrom(65536)
                    self.peers.append(peer[:2])
                    self._socket.sendto(data, peer)

    def _stream(self) -> None:
        connection, peer = self._socket.accept()
        self.peers.append(peer[:2])
        with connection:
            connection.settimeout(10.0)
            while data := connection.recv(65536):
                connection.sendall(data)


def echoed(client: socket.socket, size: int) -> int:
    """How many bytes of so many came back over a connected stream."""
    sender = threading.Thread(target=lambda: (client.sendall(b"x" * size), client.shutdown(socket.SHUT_WR)))
    sender.start()
    count = 0
    while data := client.recv(65536):
        count += len(data)
    sender.join()
    return count


def connects(space: str, source: str, target: tuple[str, int], size: int = 200_000) -> tuple[str, int]:
    """Connect, send and get it all back; gives the client's own address. Raises OSError."""
    with a_socket(space, socket.SOCK_STREAM, source, to=target[0]) as client:
        client.connect(target)
        own: tuple[str, int] = client.getsockname()[:2]
        assert echoed(client, size) == size
        return own


def asks(space: str, source: str, target: tuple[str, int], *sizes: int) -> tuple[str, int]:
    """Send datagrams of these sizes, each until it is answered; gives the client's own address."""
    with a_socket(space, socket.SOCK_DGRAM, source, to=target[0]) as client:
        client.settimeout(1.0)

        def answered(size: int) -> bool:
            client.sendto(b"x" * size, target)
            with contextlib.suppress(TimeoutError):
                data, peer = client.recvfrom(65536)
                return peer[:2] == target and len(data) == size
            return False

        for size in sizes or (100,):
            eventually(f"{target} answers {size} bytes", partial(answered, size))
        own: tuple[str, int] = client.getsockname()[:2]
        return own


def refused(space: str, target: tuple[str, int]) -> bool:
    """Whether nobody answers at all."""
    with a_socket(space, socket.SOCK_STREAM, to=target[0]) as client:
        client.settimeout(1.0)
        return client.connect_ex(target) != 0


def answered(space: str, addresses: Sequence[str]) -> set[str]:
    """Those of the addresses that answer pings from the namespace; all are asked at once."""
    each = " ".join(f"(ping -n -c3 -i0.3 -W1 {address} >/dev/null && echo {address}) &" for address in addresses)
    return set(run(netns.argv_in(space, ["sh", "-c", f"{each} wait"])).stdout.split())


def closed(space: str, source: str, target: tuple[str, int]) -> bool:
    """Whether an ICMP error says that nobody listens on that UDP port."""
    with a_socket(space, socket.SOCK_DGRAM, source, to=target[0]) as client:
        client.connect(target)
        client.settimeout(1.0)
        try:
            client.send(b"x")
            client.recv(10)
        except ConnectionRefusedError:
            return True
        except TimeoutError:
            return False
        return False


def ends(frame: Frame) -> tuple[str, int, str, int] | None:
    """Source and destination of a TCP or UDP packet."""
    packet = frame.payload
    if (frame.ethertype, packet[6]) in {(0x86DD, 6), (0x86DD, 17)}:
        source, target = struct.unpack_from("!HH", packet, 40)
        return str(IPv6Address(packet[8:24])), source, str(IPv6Address(packet[24:40])), target
    if frame.ethertype != 0x0800 or packet[9] not in {6, 17}:
        return None
    source, target = struct.unpack_from("!HH", packet, 4 * (packet[0] & 15))
    return socket.inet_ntoa(packet[12:16]), source, socket.inet_ntoa(packet[16:20]), target
