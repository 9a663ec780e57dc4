"""Frames for tests: sent as they are, and counted wherever they come out."""

from __future__ import annotations

import contextlib
import secrets
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address

from labkit import Capture, Frame, Guest, LightGuest, send
from labkit.capture import open_raw, read

BROADCAST = "ff:ff:ff:ff:ff:ff"
EXPERIMENT = 0x88B5  # IEEE 802, 12: for local experiments; nobody answers it
ARP = 0x0806

# A marker of 16 bytes in, the frame that carries it out.
Build = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Place:
    """An interface of a namespace; ``outgoing`` where frames leave it that the test wants to see (a host's tap)."""

    netns: str
    interface: str
    outgoing: bool = False


def inside(guest: LightGuest, index: int = 0) -> Place:
    """A light guest's own end of its vNIC."""
    return Place(guest.netns, f"eth{index}")


def tap(guest: Guest | LightGuest, index: int = 0) -> Place:
    """The host's end of a vNIC: what leaves it is what the guest gets."""
    return Place(guest.host.netns, guest.ports()[index], outgoing=True)


def ethernet(dst: str, src: str, ethertype: int, payload: bytes, tags: Iterable[int] = ()) -> bytes:
    """An Ethernet frame with VLAN tags, outermost first."""
    head = bytes.fromhex(dst.replace(":", "")) + bytes.fromhex(src.replace(":", ""))
    head += b"".join(struct.pack("!HH", 0x8100, tag) for tag in tags)
    return (head + struct.pack("!H", ethertype) + payload).ljust(60, b"\0")


def marked(src: str, dst: str = BROADCAST, tags: Iterable[int] = (), size: int = 46) -> Build:
    """Frames of the experimental type with a marker as payload, ``size`` bytes of it."""
    tags = tuple(tags)
    return lambda marker: ethernet(dst, src, EXPERIMENT, marker.ljust(size, b"."), tags)


def arp_request(src: str, sender: str, target: str, dst: str = BROADCAST) -> bytes:
    """RFC 826: who has ``target``, tell ``sender``."""
    own = bytes.fromhex(src.replace(":", ""))
    payload = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
    payload += own + IPv4Address(sender).packed + bytes(6) + IPv4Address(target).packed
    return ethernet(dst, src, ARP, payload)


def is_arp(frame: Frame, operation: int, target: str | None = None, sender: str | None = None) -> bool:
    """Whether it is an ARP request (1) or reply (2), about these addresses."""
    if frame.ethertype != ARP or len(frame.payload) < 28:
        return False
    told = IPv4Address(frame.payload[14:18]), IPv4Address(frame.payload[24:28])
    return (
        struct.unpack_from("!H", frame.payload, 6)[0] == operation
        and (sender is None or told[0] == IPv4Address(sender))
        and (target is None or told[1] == IPv4Address(target))
    )


@contextlib.contextmanager
def ears(places: Mapping[str, Place], wanted: Callable[[Frame], bool]) -> Iterator[dict[str, Capture]]:
    """Captures at several places by name, of the frames that are wanted; one thread listens to all."""
    caught = {name: Capture() for name in places}
    stop, stopped = socket.socketpair()
    with ThreadPoolExecutor(len(places)) as pool, selectors.DefaultSelector() as selector:
        for name, place in places.items():
            raw = open_raw(place.netns, place.interface)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            selector.register(raw, selectors.EVENT_READ, (place, caught[name]))
        selector.register(stopped, selectors.EVENT_READ)
        thread = threading.Thread(target=_listen, args=(selector, wanted), name="ears")
        thread.start()
        try:
            yield caught
        finally:
            stop.close()
            thread.join()
            # Closing one waits for a grace period of the kernel's; all of them together wait for the same.
            sockets = [key.fileobj for key in list(selector.get_map().values())]
            list(pool.map(lambda each: each.close(), sockets))  # type: ignore[union-attr]
            stopped.close()


def _listen(selector: selectors.DefaultSelector, wanted: Callable[[Frame], bool]) -> None:
    """Until the test ends it; what has arrived by then is read, not a stream without end."""
    until = float("inf")
    while time.monotonic() < until:
        ready = selector.select(0.0 if until < float("inf") else None)
        for key, _ in ready:
            if key.data is None:
                until = time.monotonic() + 0.2
                selector.unregister(key.fileobj)
                continue
            place, capture = key.data
            frame = read(key.fileobj)
            if frame is not None and frame.outgoing == place.outgoing and wanted(frame):
                capture.frames.append(frame)
        if not ready:
            return


Fence = tuple[Place, Build, Iterable[str]]


def heard(
    places: Mapping[str, Place], sender: Place, build: Build, *, expected: Iterable[str], fences: Iterable[Fence] = ()
) -> dict[str, list[Frame]]:
    """Send one frame and say where it came out: name → frames, only where there were any.

    When it has come out at all that are ``expected``, a second frame goes the same way, so what is missing then is not
    just late; or the ``fences`` do, one after the other: sender, frame, where that comes out.
    """
    marker, names = secrets.token_bytes(16), set(expected)
    ends = [(secrets.token_bytes(16), *fence) for fence in fences or [(sender, build, names)]]
    markers = (marker, *(end for end, *_ in ends))
    with ears(places, lambda frame: any(each in frame.data for each in markers)) as captures:
        send(sender.netns, sender.interface, build(marker))
        for name in names:
            captures[name].wait(lambda frame: marker in frame.data)
        for end, place, build_end, at in ends:
            send(place.netns, place.interface, build_end(end))
            for name in at:
                captures[name].wait(lambda frame, end=end: end in frame.data)
    found = {name: [f for f in caught.frames if marker in f.data] for name, caught in captures.items()}
    return {name: frames for name, frames in found.items() if frames}


def counts(found: Mapping[str, list[Frame]]) -> dict[str, int]:
    """How many came out where."""
    return {name: len(frames) for name, frames in found.items()}
