"""Switches made of bytes, one a host: they answer what a controller reads, and forward nothing."""

from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from labkit.run import LabError

_VERSION = 6  # OpenFlow 1.5; numbers of messages are those of its specification, 7.1
_HELLO, _ECHO, _FEATURES, _ROLE, _MULTIPART, _BARRIER = 0, 2, 5, 24, 18, 20
_FLOW_DESC, _AGGREGATE, _PORT_STATS = 1, 2, 4
_LEARNED = 0xF6 << 56  # cookies of what a switch learned by itself; the segment in the lowest bits
COOKIE = _LEARNED | 1
"""Of the flows that each has learned in the first segment."""

SEGMENTS = 60
"""In each of them every switch has learned a MAC; a fleet that has fewer is told of some that it does not know."""

_MORE = 1  # flag of a reply that is not the last (7.3.5)
_PART = 1000  # flows of one
_AT_ONCE = 40  # connections that are opened together: the controller lets a source come so often only


class _Switch:
    def __init__(self, number: int, ports: int, segments: int) -> None:
        self._flows = [(_LEARNED | segment, _flow(number, segment)) for segment in range(1, segments + 1)]
        self._ports = b"".join(struct.pack("!H2xIII8Q", 80, port, 0, 0, *range(8)) for port in range(1, ports + 1))

    def answers(self, kind: int, body: bytes) -> list[bytes]:
        """Bodies of the replies, of the next kind each; none where there is none."""
        if kind in {_ECHO, _ROLE, _BARRIER}:
            return [body]
        if kind != _MULTIPART:
            return []
        what, _ = struct.unpack_from("!HH", body)
        head = struct.pack("!HH4x", what, 0)
        if what == _PORT_STATS:
            return [head + self._ports]
        if what not in {_FLOW_DESC, _AGGREGATE}:
            return []
        cookie, mask = struct.unpack_from("!QQ", body, 24)
        found = [flow for own, flow in self._flows if own & mask == cookie & mask]
        if what == _FLOW_DESC:
            parts = [b"".join(found[at : at + _PART]) for at in range(0, max(1, len(found)), _PART)]
            return [*(struct.pack("!HH4x", what, _MORE) + part for part in parts[:-1]), head + parts[-1]]
        counted = b"".join(struct.pack("!HBB", 0x8002, field << 1, size) + count.to_bytes(size, "big")
                           for field, size, count in ((3, 4, len(found)), (4, 8, 0), (5, 8, 0)))  # fmt: skip
        stats = struct.pack("!HH", 0, 4 + len(counted)) + counted
        return [head + stats + bytes(-len(stats) % 8)]


def _flow(number: int, segment: int) -> bytes:
    """A flow that was learned: towards a MAC of its own, with no instruction (7.3.5.3)."""
    match = struct.pack("!HHHBBIH", 1, 14, 0x8000, 3 << 1, 6, 0x02000000 | number, segment) + bytes(2)
    return struct.pack("!H2xB11xQ", 48, 0, _LEARNED | segment) + match + struct.pack("!HHI", 0, 4, 0)


@contextmanager
def switches(port: int, datapaths: Sequence[int], ports: int, first: int = SEGMENTS) -> Iterator[None]:
    """Connected at that port of loopback while inside, one for each datapath id, with so many ports each. The first has
    learned in so many segments.

    Raises LabError when one is turned away.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="switches")
    thread.start()
    try:
        played = asyncio.run_coroutine_threadsafe(_connect(port, datapaths, ports, first), loop).result(120.0)
        try:
            yield
        finally:
            asyncio.run_coroutine_threadsafe(_end(played), loop).result(30.0)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30.0)
        loop.close()


async def _connect(port: int, datapaths: Sequence[int], ports: int, first: int) -> list[asyncio.Task[None]]:
    played: list[asyncio.Task[None]] = []
    waiting = list(enumerate(datapaths))
    while waiting:
        some, waiting = waiting[:_AT_ONCE], waiting[_AT_ONCE:]
        known = [asyncio.Event() for _ in some]
        made = [_Switch(number, ports, SEGMENTS if number else first) for number, _ in some]
        played += [asyncio.create_task(_play(port, dpid, switch, event))
                   for event, switch, (_, dpid) in zip(known, made, some, strict=True)]  # fmt: skip
        try:
            async with asyncio.timeout(60.0):
                await asyncio.gather(*(event.wait() for event in known))
        except TimeoutError:
            raise LabError("the controller does not take the switches") from None
    return played


async def _play(port: int, dpid: int, switch: _Switch, known: asyncio.Event) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(struct.pack("!BBHI", _VERSION, _HELLO, 8, 1))
    try:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                _, kind, size, xid = struct.unpack("!BBHI", await reader.readexactly(8))
                body = await reader.readexactly(size - 8)
                told = switch.answers(kind, body)
                if kind == _FEATURES:
                    told = [struct.pack("!QIBB2xII", dpid, 0, 254, 0, 0, 0)]
                if kind == _ROLE:
                    known.set()  # it is taken for the host's
                for each in told:
                    writer.write(struct.pack("!BBHI", _VERSION, kind + 1, 8 + len(each), xid) + each)
    finally:
        writer.close()


async def _end(played: Sequence[asyncio.Task[None]]) -> None:
    for task in played:
        task.cancel()
    await asyncio.gather(*played, return_exceptions=True)
