"""Peers that only stand there, or read slowly, or use up what the controller has; a good switch comes meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from openflow_controller import Controller, controller, dpid_of
from openflow_peers import Peer, certificate

from controller.openflow import messages as msg

MOST = 1024  # in the handshake, in all
MOST_OF_ONE = 256


class PlayedSwitch(Peer):
    """A peer that answers what a controller asks of a switch that has nothing."""

    async def play(self) -> None:
        """Until the connection ends."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await self.answer(await self.message())

    async def answer(self, asked: bytes) -> None:
        kind, xid = asked[1], int.from_bytes(asked[4:8], "big")
        if kind == msg.Type.ECHO_REQUEST:
            self.writer.write(msg.echo_reply(asked[8:], xid))
        elif kind in (msg.Type.ROLE_REQUEST, msg.Type.BARRIER_REQUEST):
            self.writer.write(msg.message(kind + 1, asked[8:], xid))
        elif kind == msg.Type.MULTIPART_REQUEST:
            self.writer.write(msg.message(msg.Type.MULTIPART_REPLY, asked[8:10] + bytes(6), xid))
        elif kind == msg.Type.BUNDLE_CONTROL:
            bundle, request = struct.unpack_from("!IH", asked, 8)
            self.writer.write(msg.bundle_control(bundle, msg.Bundle(request + 1), 0, xid))


@contextlib.asynccontextmanager
async def good(control: Controller, host: int = 1, **options: Any) -> AsyncIterator[PlayedSwitch]:
    """A good switch that connects now, and is up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", control.port, **options)
    peer = PlayedSwitch(reader, writer)
    await peer.handshake(dpid_of(host))
    playing = asyncio.create_task(peer.play())
    try:
        await control.until("the good switch is up", lambda answer: answer["hosts"][f"h{host}"][:2] == ["up", 1])
        yield peer
    finally:
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)
        peer.writer.transport.abort()


class Crowd:
    """Connections that say little and stay."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._peers: list[socket.socket] = []

    async def stand(self, sources: int, each: int, *first: bytes) -> None:
        """``each`` more from so many addresses, which say one of ``first`` and nothing more."""
        for number in range(sources * each):
            sock = socket.create_connection(("127.0.0.1", self._port), 5.0, (f"127.0.9.{1 + number % sources}", 0))
            self._peers.append(sock)
            if first:
                sock.sendall(first[number // sources % len(first)])
            sock.setblocking(False)
            if number % 50 == 0:
                await asyncio.sleep(0)

    async def cut(self, control: Controller, seconds: float) -> None:
        """Returns when the other side has ended all of them."""
        await control.until("none stands there any more", lambda answer: answer["pending"] == 0, seconds)
        left = list(self._peers)
        async with asyncio.timeout(seconds):
            while left := [sock for sock in left if not is_cut(sock)]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def __aenter__(self) -> Crowd:
        return self

    async def __aexit__(self, *_: object) -> None:
        for sock in self._peers:
            sock.close()


def is_cut(sock: socket.socket) -> bool:
    """Whether the other side has ended it."""
    try:
        while data := sock.recv(65536):
            assert data
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def half_hello() -> bytes:
    """The first half of a ClientHello."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="controller").do_handshake()
    data = outgoing.read()
    return data[: len(data) // 2]


def test_a_thousand_idle_connections(tmp_path: Path) -> None:
    first = b"", b"\x06", msg.hello()

    async def main() -> None:
        async with controller(tmp_path, hosts=2, handshake=6.0) as control, Crowd(control.port) as crowd:
            before = await control.ask()
            await crowd.stand(5, 200, *first)
            full = await control.until("they stand there", lambda answer: answer["pending"] >= 900)
            assert full["rss"] - before["rss"] < 40
            await crowd.stand(1, 400, *first)  # too many of one: the older ones make room
            more = await control.until("some had to go", lambda a: a["pending"] <= MOST, 0.0)
            async with good(control):
                assert (await control.ask())["pending"] > 100, "the attack was over before the good switch came"
                await crowd.cut(control, 30.0)
                after = await control.ask()
                assert (after["open"], after["hosts"]["h1"][0]) == (1, "up")
            print(f"\n{full['pending']}, then {more['pending']} stood there; memory {before['rss']:.0f}, "
                  f"{full['rss']:.0f}, {more['rss']:.0f}, {after['rss']:.0f} MB")  # fmt: skip

    asyncio.run(main())


def test_a_thousand_half_open_tls_handshakes(tmp_path: Path) -> None:
    certificate(tmp_path, "ca", None)
    key, made = certificate(tmp_path, "controller", "ca")
    certificate(tmp_path, "h1", "ca")
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    context.check_hostname = False
    context.load_cert_chain(tmp_path / "h1.crt", tmp_path / "h1.key")

    async def main() -> None:
        files = [str(key), str(made), str(tmp_path / "ca.crt")]
        async with controller(tmp_path, hosts=2, handshake=6.0, tls=files) as control, Crowd(control.port) as crowd:
            before = await control.ask()
            await crowd.stand(5, 200, b"", half_hello())
            full = await control.until("they stand there", lambda answer: answer["pending"] >= 900)
            async with good(control, ssl=context):
                assert (await control.ask())["pending"] > 100, "the attack was over before the good switch came"
                await crowd.cut(control, 30.0)
                after = await control.ask()
                assert (after["open"], after["hosts"]["h1"][0]) == (1, "up")
            print(f"\n{full['pending']} stood there; memory {before['rss']:.0f}, {full['rss']:.0f}, "
                  f"{after['rss']:.0f} MB")  # fmt: skip
            assert full["peak"] - before["rss"] < 130

    asyncio.run(main())


def test_out_of_descriptors(tmp_path: Path) -> None:
    """What is connected goes on, and who comes afterwards is accepted."""

    async def main() -> None:
        async with (
            controller(tmp_path, hosts=2, descriptors=40) as control,
            good(control) as first,
            Crowd(control.port) as crowd,
        ):
            before = await control.ask()
            await crowd.stand(1, 120)
            assert "cannot accept" in await log_says(control, "cannot accept")
            first.writer.write(msg.echo_request(b"meanwhile", 99))
            await control.ask()
            trips = await control.until("round trips meanwhile", lambda answer: len(answer["trips"]) >= 3)
            assert max(trips["trips"]) < 2000
            await crowd.__aexit__()
            async with good(control, 2):
                after = await control.ask()
                assert after["hosts"]["h1"] == before["hosts"]["h1"]
                assert after["lost"] == 0

    asyncio.run(main())


async def log_says(control: Controller, text: str) -> str:
    async with asyncio.timeout(20):
        while text not in (said := control.log.read_text()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return said


def small_buffer() -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    return sock


def test_a_slow_reader_holds_neither_memory_nor_others(tmp_path: Path) -> None:
    """A known host that takes its flows at one byte a second, and another that asks for echoes without reading them."""

    async def main() -> None:
        async with controller(tmp_path, hosts=3, flows=40_000) as control, good(control):
            before = await control.ask()
            slow = await slowly(control, 2)
            greedy = await slowly(control, 3)
            reading = asyncio.create_task(one_byte_a_second(slow))
            found: list[float] = []
            greedy.writer.transport.set_write_buffer_limits(high=1 << 16)
            with contextlib.suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(20):
                    while True:  # 64 kB come back for each
                        greedy.writer.write(msg.echo_request(bytes(65_000), 5))
                        await greedy.writer.drain()
            while len(found) < 100:
                answer = await control.ask()
                found += answer["trips"]
                await asyncio.sleep(0.05)
            print(f"\nmemory {before['rss']:.0f}, {answer['rss']:.0f}, at most {answer['peak']:.0f} MB; "
                  f"round trips {sorted(found)[len(found) // 2]:.2f}, at most {max(found):.1f} ms")  # fmt: skip
            assert answer["hosts"]["h1"] == before["hosts"]["h1"]
            assert answer["hosts"]["h2"][1] == -1, "the slow one cannot have confirmed"
            assert answer["peak"] - before["peak"] < 64
            assert sorted(found)[len(found) // 2] < 50
            assert "does not read" in await log_says(control, "does not read")
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            for peer in (slow, greedy):
                peer.writer.transport.abort()

    asyncio.run(main())


async def slowly(control: Controller, host: int) -> PlayedSwitch:
    """A switch that is through everything up to its bundle, and then stops reading."""
    sock = small_buffer()
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", control.port))
    peer = PlayedSwitch(*await asyncio.open_connection(sock=sock, limit=1024))
    await peer.handshake(dpid_of(host))
    while True:
        asked = await peer.message()
        await peer.answer(asked)
        if asked[1] == msg.Type.BUNDLE_CONTROL:
            peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
            return peer


async def one_byte_a_second(peer: PlayedSwitch) -> None:
    with socket.socket(fileno=os.dup(peer.writer.get_extra_info("socket").fileno())) as sock:
        while True:
            with contextlib.suppress(BlockingIOError):
                sock.recv(1)
            await asyncio.sleep(1.0)
