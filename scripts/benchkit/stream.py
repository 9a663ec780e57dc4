"""A counted stream of frames between two guests of one bridge of the dummy datapath."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from labkit.run import LabError, run, wait_for

from .vswitchd import Vswitchd

_EVERY = 0.002  # seconds between two frames
_PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class End:
    """A guest of the stream: its vNIC on the switch's first bridge."""

    port: str
    ofport: int
    mac: str
    address: str


@dataclass(slots=True)
class Stream:
    sent: int = 0
    lost: int | None = None  # known at the end
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self, control: socket.socket, port: str, frame: str) -> None:
        """Give one frame after the other to a port, until it is stopped."""
        asked = json.dumps({"method": "netdev-dummy/receive", "params": [port, frame], "id": 0}).encode()
        while not self._stop.wait(_EVERY):
            control.sendall(asked)
            if b'"error":null' not in control.recv(1 << 16).replace(b" ", b""):
                raise LabError(f"{port} does not take a frame")
            self.sent += 1


def plug_in(switch: Vswitchd, ends: tuple[End, End]) -> None:
    for end in ends:
        switch.vsctl("add-port", "b0", end.port, "--", "set", "interface", end.port, "type=dummy",
                     f"ofport_request={end.ofport}")  # fmt: skip
    wait_for("the guests' ports", lambda: all(_received(switch, end) is not None for end in ends), _PATIENCE)


@contextmanager
def stream(switch: Vswitchd, ends: tuple[End, End]) -> Iterator[Stream]:
    """Frames go from the first to the second while inside; afterwards it is known how many were lost."""
    found, before = Stream(), _received(switch, ends[1]) or 0
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(_PATIENCE)
        control.connect(str(switch.folder / f"ovs-vswitchd.{switch.pid}.ctl"))
        thread = threading.Thread(target=found.run, args=(control, ends[0].port, _frame(*ends).hex()))
        thread.start()
        try:
            yield found
        finally:
            found._stop.set()
            thread.join(_PATIENCE)
    deadline = time.monotonic() + _PATIENCE  # for the last frames, which may wait in the switch
    while True:
        found.lost = found.sent - ((_received(switch, ends[1]) or 0) - before)
        if found.lost == 0 or time.monotonic() > deadline:
            return
        time.sleep(0.2)


def _received(switch: Vswitchd, end: End) -> int | None:
    """Frames that the switch has sent to a guest; None while it has no such port."""
    told = run(
        ["ovs-ofctl", "-OOpenFlow15", "dump-ports", f"unix:{switch.management(0)}", end.port], check=False
    ).stdout
    counted = re.search(r"tx pkts=(\d+)", told)
    return int(counted[1]) if counted else None


def _frame(source: End, to: End) -> bytes:
    """UDP in IPv4 (RFC 768, RFC 791), without a checksum of UDP."""
    data = bytes(18)
    udp = struct.pack("!HHHH", 4000, 4000, 8 + len(data), 0) + data
    ends = IPv4Address(source.address).packed + IPv4Address(to.address).packed
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + ends
    total = sum(struct.unpack("!10H", head))
    check: int = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    ethernet = bytes.fromhex((to.mac + source.mac).replace(":", "")) + b"\x08\x00"
    return ethernet + head[:10] + check.to_bytes(2, "big") + head[12:] + udp
