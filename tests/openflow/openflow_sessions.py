"""Real sessions of Open vSwitch, as bytes, and what becomes of them when somebody means harm."""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
from collections.abc import AsyncIterator, Callable

from controller.openflow import messages as msg


def split(data: bytes) -> list[bytes]:
    """Whole messages of a stream."""
    found, offset = [], 0
    while offset + 8 <= len(data):
        size = struct.unpack_from("!H", data, offset + 2)[0]
        if offset + size > len(data):
            break
        found.append(data[offset : offset + size])
        offset += size
    return found


@contextlib.asynccontextmanager
async def recording(port: int) -> AsyncIterator[tuple[int, bytearray]]:
    """A port that leads to ``port`` of this machine; what comes in through it is written down."""
    heard = bytearray()
    pumps: set[asyncio.Task[None]] = set()
    writers: list[asyncio.StreamWriter] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, note: Callable[[bytes], None]) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                note(data)
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        writers.extend((writer, back))
        pumps.add(asyncio.create_task(pump(reader, back, heard.extend)))
        pumps.add(asyncio.create_task(pump(there, writer, lambda data: None)))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], heard
    finally:
        server.close()
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        for writer in writers:
            writer.transport.abort()


class Mutator:
    """Messages of a recorded session that were flipped, cut, duplicated, spliced, renamed or lied about."""

    def __init__(self, session: list[bytes], seed: int) -> None:
        self._session = session
        self._random = random.Random(seed)

    def one(self) -> bytes:
        """One message, mutated once to three times."""
        data = bytearray(self._random.choice(self._session))
        for _ in range(self._random.randint(1, 3)):
            self._random.choice(
                (self._flip, self._cut, self._double, self._splice, self._lie, self._retype, self._fill)
            )(data)
        return bytes(data)

    def session(self, count: int, mutated: float = 0.33) -> bytes:
        """``count`` messages in a row, a part of them mutated. Most say their true length, so that what is behind
        them is looked at too."""
        parts = []
        for _ in range(count):
            data = bytearray(self.one() if self._random.random() < mutated else self._random.choice(self._session))
            if len(data) >= 8 and self._random.random() < 0.9:
                data[0] = msg.VERSION
                struct.pack_into("!H", data, 2, min(len(data), 65535))
            parts.append(bytes(data[:65535]))
        return b"".join(parts)

    def _flip(self, data: bytearray) -> None:
        for _ in range(self._random.randint(1, 8)):
            if data:
                data[self._random.randrange(len(data))] ^= 1 << self._random.randrange(8)

    def _cut(self, data: bytearray) -> None:
        del data[self._random.randint(0, len(data)) :]

    def _double(self, data: bytearray) -> None:
        at = self._random.randint(0, len(data))
        data[at:at] = data[at : at + self._random.randint(0, 200)]

    def _splice(self, data: bytearray) -> None:
        other = self._random.choice(self._session)
        data[self._random.randint(0, len(data)) :] = other[self._random.randint(0, len(other)) :]

    def _lie(self, data: bytearray) -> None:
        """About some length: every 16 bits may be one."""
        if len(data) >= 4:
            at = self._random.randrange(0, len(data) - 1, 2)
            struct.pack_into("!H", data, at, self._random.choice((0, 1, 3, 4, 7, 8, 0x7FFF, 0xFFFF)))

    def _retype(self, data: bytearray) -> None:
        if len(data) >= 8:
            data[1] = self._random.choice((*range(36), 255))

    def _fill(self, data: bytearray) -> None:
        at, count = self._random.randint(0, len(data)), self._random.randint(0, 64)
        data[at : at + count] = self._random.choice((b"\0", b"\xff", b"\x06", b"\x80")) * count
