"""Frames on any interface of the lab: catch them with their VLAN tags, send them as they are."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from . import netns as ns
from .run import LabError, wait_for

_ETH_P_ALL = 0x0003
_SOL_PACKET = 263
_PACKET_AUXDATA = 8  # packet(7): struct tpacket_auxdata with every frame
_TP_STATUS_VLAN_VALID = 0x10
_TP_STATUS_VLAN_TPID_VALID = 0x40
_PACKET_OUTGOING = 4
_SO_TIMESTAMPNS = 35  # socket(7) as SO_TIMESTAMP, in nanoseconds: Python's socket module has no name for it


@dataclass(frozen=True, slots=True)
class Frame:
    """One Ethernet frame with its tags as on the wire; when the kernel had it, in seconds of the monotonic clock."""

    data: bytes
    time: float
    outgoing: bool

    @property
    def dst(self) -> str:
        return self.data[0:6].hex(":")

    @property
    def src(self) -> str:
        return self.data[6:12].hex(":")

    @property
    def vlans(self) -> tuple[int, ...]:
        """VLAN ids, outermost first."""
        found, at = [], 12
        while struct.unpack_from("!H", self.data, at)[0] in (0x8100, 0x88A8):
            found.append(struct.unpack_from("!H", self.data, at + 2)[0] & 0xFFF)
            at += 4
        return tuple(found)

    @property
    def ethertype(self) -> int:
        """The type behind all tags."""
        return int(struct.unpack_from("!H", self.data, 12 + 4 * len(self.vlans))[0])

    @property
    def payload(self) -> bytes:
        """What follows the type."""
        return self.data[14 + 4 * len(self.vlans) :]


@dataclass
class Capture:
    """Frames caught so far; it grows while the `with` block of `capture` runs."""

    frames: list[Frame] = field(default_factory=list)

    def wait(self, wanted: Callable[[Frame], bool], timeout: float = 5.0) -> Frame:
        """The first frame of this kind, from the beginning on. Raises LabError when none comes."""
        return wait_for(
            "the frame",
            lambda: next((frame for frame in list(self.frames) if wanted(frame)), None),
            timeout,
            every=0.005,
        )


def open_raw(netns: str, interface: str) -> socket.socket:
    """A packet(7) socket on an interface of a namespace; needs root."""

    def work() -> socket.socket:
        # Protocol 0 until it is bound: it hears no other interface, and binding does not wait for a grace period.
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        try:
            raw.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
            raw.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            raw.bind((interface, _ETH_P_ALL))
        except OSError as error:
            raw.close()
            raise LabError(f"{interface} in {netns}: {error.strerror}") from error
        return raw

    return ns.call_in(netns, work)


@contextlib.contextmanager
def capture(
    netns: str, interface: str, wanted: Callable[[Frame], bool] = lambda _: True, *, outgoing: bool = False
) -> Iterator[Capture]:
    """Catch frames while the block runs, those that `wanted` takes; those that the interface sends only if asked."""
    caught, stop = Capture(), threading.Event()
    with open_raw(netns, interface) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)

        def work() -> None:
            until = float("inf")
            while time.monotonic() < until:
                ready = select.select([raw], [], [], 0.02)[0]
                if ready and (frame := read(raw)) and (outgoing or not frame.outgoing) and wanted(frame):
                    caught.frames.append(frame)
                if stop.is_set() and until == float(
                    "inf"
                ):  # what had arrived by then is read, not a stream without end
                    until = time.monotonic() + (0.2 if ready else 0.0)

        thread = threading.Thread(target=work, name=f"capture {netns} {interface}")
        thread.start()
        try:
            yield caught
        finally:
            stop.set()
            thread.join()


def read(raw: socket.socket) -> Frame | None:
    """One frame. The kernel took an outer tag off and says so beside the frame: it is put back."""
    try:
        data, extras, _, address = raw.recvmsg(65600, 256, socket.MSG_DONTWAIT)
    except (BlockingIOError, OSError):  # nothing there, or the interface went down
        return None
    when = time.monotonic()
    for level, kind, extra in extras:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
            seconds, nanoseconds = struct.unpack("=qq", extra)
            when -= time.time() - (seconds + nanoseconds / 1e9)
        if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA) and len(extra) >= 20:
            status, _, _, _, _, tci, tpid = struct.unpack_from("=IIIHHHH", extra)
            if status & _TP_STATUS_VLAN_VALID:
                kind_of_tag = tpid if status & _TP_STATUS_VLAN_TPID_VALID else 0x8100
                data = data[:12] + struct.pack("!HH", kind_of_tag, tci) + data[12:]
    return Frame(data, when, address[2] == _PACKET_OUTGOING)


def send(netns: str, interface: str, *frames: bytes) -> None:
    """Send raw Ethernet frames, tags included."""
    with open_raw(netns, interface) as raw:
        for frame in frames:
            raw.send(frame)
