"""Switches made of bytes, and the listener that they come to."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from openflow_vswitch import DEADLINE

from controller.openflow import messages as msg
from controller.openflow.connection import Connection, Handlers, Limits
from controller.openflow.decode import Features
from controller.openflow.listener import Listener

QUICK = Limits(handshake=0.3, echo_interval=0.1, echo_misses=2, output=1 << 20)
PATIENT = Limits()


class Peer:
    """A switch made of bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, port: int, **options: Any) -> Peer:
        return cls(*await asyncio.open_connection("127.0.0.1", port, **options))

    async def message(self) -> bytes:
        head = await self.reader.readexactly(8)
        return head + await self.reader.readexactly(struct.unpack_from("!H", head, 2)[0] - 8)

    async def gone(self) -> bool:
        """Whether the other side has ended the connection, which it must."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass
        return True

    async def handshake(self, dpid: int) -> None:
        assert (await self.message())[1] == msg.Type.HELLO
        self.writer.write(msg.hello())
        asked = await self.message()
        assert asked[1] == msg.Type.FEATURES_REQUEST
        body = struct.pack("!QIBB2xII", dpid, 0, 254, 0, 0, 0)
        self.writer.write(msg.message(msg.Type.FEATURES_REPLY, body, int.from_bytes(asked[4:8], "big")))


class Accepted:
    """What the listener handed over."""

    def __init__(self) -> None:
        self.connections: dict[int, Connection] = {}
        self.closed: dict[int, str] = {}
        self.calls: list[Any] = []

    def __call__(self, connection: Connection, features: Features) -> bool:
        if features.dpid == 0xBAD:
            return False
        connection.handlers = Handlers(
            closed=lambda c, reason: self.closed.__setitem__(c.dpid, reason),
            packet_in=lambda c, m: self.calls.append(m),
        )
        self.connections[features.dpid] = connection
        return True

    async def until(self, condition: Callable[[], Any]) -> None:
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)  # what it waits for is no event of ours


def serve(
    work: Callable[[Listener, Accepted], Awaitable[None]],
    address: str = "tcp:127.0.0.1:0",
    limits: Limits = PATIENT,
    **options: Any,
) -> None:
    async def main() -> None:
        accepted = Accepted()
        listener = Listener(address, accepted, limits=limits, **options)
        await listener.start()
        try:
            async with asyncio.timeout(DEADLINE):
                await work(listener, accepted)
        finally:
            await listener.close()

    asyncio.run(main())


def certificate(folder: Path, name: str, issuer: str | None) -> tuple[Path, Path]:
    """A key and a certificate for ``name``, signed by ``issuer`` or by itself."""
    key, request, made = folder / f"{name}.key", folder / f"{name}.csr", folder / f"{name}.crt"
    subject = ["-subj", f"/CN={name}", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    quiet: dict[str, Any] = {"check": True, "capture_output": True}
    if issuer is None:
        subprocess.run(["openssl", "req", "-x509", *subject, "-keyout", key, "-out", made, "-days", "2"], **quiet)
    else:
        subprocess.run(["openssl", "req", *subject, "-keyout", key, "-out", request], **quiet)
        signer: list[str | Path] = [
            "-CA",
            folder / f"{issuer}.crt",
            "-CAkey",
            folder / f"{issuer}.key",
            "-CAcreateserial",
        ]
        subprocess.run(["openssl", "x509", "-req", "-in", request, *signer, "-out", made, "-days", "2"], **quiet)
    return key, made
