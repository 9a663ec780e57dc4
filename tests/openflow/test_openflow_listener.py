"""The listener and the connection against peers that mean harm, and against Open vSwitch as a good one."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import resource
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from openflow_peers import QUICK, Accepted, Peer, certificate, serve
from openflow_vswitch import DEADLINE, Vswitch

from controller.errors import OpenFlowError
from controller.openflow import messages as msg
from controller.openflow.connection import Limits
from controller.openflow.listener import Address, Listener, server_context

HELLO_LOOP = bytes.fromhex("06000010 00000001 00010000 00000040")


@pytest.mark.parametrize(
    "first",
    [
        HELLO_LOOP,
        bytes.fromhex("06000004 00000001"),
        bytes.fromhex("06000000 00000001"),
        bytes.fromhex("04000008 00000001"),
        bytes.fromhex("06000010 00000001 00010008 00000010"),
        bytes.fromhex("0613ffff 00000001"),
        bytes.fromhex("0606 0020 00000001") + bytes(24),
        bytes.fromhex("0506 0020 00000001") + bytes(24),
        msg.hello() + bytes.fromhex("0606 0010 00000001") + bytes(8),
        msg.hello() + bytes.fromhex("0406 0020 00000001") + bytes(24),
        msg.hello() + bytes.fromhex("0601 0009 00000001") + bytes(1),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"",
        b"\x06",
        bytes.fromhex("0600ffff 00000001"),
    ],
    ids=lambda b: b[:24].hex() or "nothing",
)
def test_a_bad_handshake_ends_and_harms_nobody(first: bytes) -> None:
    async def work(listener: Listener, accepted: Accepted) -> None:
        bad = await Peer.connect(listener.port)
        bad.writer.write(first)
        good = await Peer.connect(listener.port)
        await good.handshake(1)
        await accepted.until(lambda: 1 in accepted.connections)
        assert await bad.gone()
        await accepted.until(lambda: listener.pending == 0)
        good.writer.write(msg.echo_request(b"still here", 5))
        while (await good.message())[8:] != b"still here":
            pass
        good.writer.close()
        bad.writer.close()

    serve(work, limits=Limits(handshake=0.3, echo_interval=5.0))


def test_a_shared_version_is_told_when_there_is_none(caplog: pytest.LogCaptureFixture) -> None:
    async def work(listener: Listener, accepted: Accepted) -> None:
        peer = await Peer.connect(listener.port)
        assert (await peer.message())[:2] == b"\x06\x00"
        peer.writer.write(bytes.fromhex("0400001000000001 0001000800000010"))
        refusal = await peer.message()
        assert (refusal[1], refusal[8:12]) == (msg.Type.ERROR, b"\0\0\0\0")
        assert await peer.gone()
        peer.writer.close()

    serve(work)
    assert "does not speak OpenFlow 1.5" in caplog.text


@pytest.mark.parametrize(
    "message",
    [
        bytes.fromhex("060a0008 00000001"),
        bytes.fromhex("060a0020 00000001 ffffffff 00000000 00000000 00000000 0001ffff 00000000"),
        bytes.fromhex("06040018 00000001 00002320 0000001e 00000000 00000000"),
        bytes.fromhex("060c0010 00000001") + bytes(8),
        bytes.fromhex("060b0010 00000001") + bytes(8),
        bytes.fromhex("06130018 00000000 0010 0000 00000000 0000 0001 00000000"),
        bytes.fromhex("0613000a 00000000 0000"),
        bytes.fromhex("06010008 00000001"),
        bytes.fromhex("050a0008 00000001"),
    ],
    ids=lambda b: b[:20].hex(),
)  # fmt: skip
def test_a_switch_that_breaks_the_protocol_later_is_dropped(message: bytes) -> None:
    async def work(listener: Listener, accepted: Accepted) -> None:
        peer = await Peer.connect(listener.port)
        await peer.handshake(7)
        await accepted.until(lambda: 7 in accepted.connections)
        peer.writer.write(message)
        await accepted.until(lambda: 7 in accepted.closed)
        assert "broke the protocol" in accepted.closed[7]
        assert await peer.gone()
        peer.writer.close()

    serve(work)


def test_unknown_types_and_late_answers_are_ignored() -> None:
    async def work(listener: Listener, accepted: Accepted) -> None:
        peer = await Peer.connect(listener.port)
        await peer.handshake(7)
        peer.writer.write(msg.message(99, b"abc", 5) + msg.message(msg.Type.BARRIER_REPLY, b"", 4711))
        peer.writer.write(msg.message(msg.Type.MULTIPART_REPLY, struct.pack("!HH4x", 1, 0), 4712))
        peer.writer.write(msg.echo_request(b"x", 5))
        while (await peer.message())[1] != msg.Type.ECHO_REPLY:
            pass
        assert accepted.closed == {}
        peer.writer.close()

    serve(work)


def test_a_silent_switch_is_noticed() -> None:
    async def work(listener: Listener, accepted: Accepted) -> None:
        peer = await Peer.connect(listener.port)
        await peer.handshake(7)
        await accepted.until(lambda: 7 in accepted.closed)
        assert "silent" in accepted.closed[7]
        peer.writer.close()

    serve(work, limits=QUICK)


def test_a_switch_that_does_not_read_is_dropped_and_holds_up_nobody() -> None:
    async def work(listener: Listener, accepted: Accepted) -> None:
        deaf, good = await Peer.connect(listener.port), await Peer.connect(listener.port)
        deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]
        deaf.writer.write(
            msg.hello() + msg.message(msg.Type.FEATURES_REPLY, struct.pack("!QIBB2xII", 7, 0, 9, 0, 0, 0))
        )
        await good.handshake(8)
        await accepted.until(lambda: len(accepted.connections) == 2)
        for _ in range(2000):
            accepted.connections[7].send(bytes(65536))
            await asyncio.sleep(0)
            if 7 in accepted.closed:
                break
        assert "does not read" in accepted.closed[7]
        accepted.connections[8].send(msg.echo_request(b"ping", 9))
        while (await good.message())[8:] != b"ping":
            pass
        deaf.writer.close()
        good.writer.close()

    serve(work, limits=Limits(output=1 << 20))


def test_a_stranger_that_does_not_read_is_dropped_soon() -> None:
    async def work(listener: Listener, accepted: Accepted) -> None:
        deaf = await Peer.connect(listener.port)
        deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]

        async def flood() -> None:
            for _ in range(200):  # 48 MB, far below the limit for a switch
                deaf.writer.write(msg.echo_request(bytes(60_000)) * 4)
                await deaf.writer.drain()

        with pytest.raises(ConnectionError):
            await flood()
        deaf.writer.close()
        await accepted.until(lambda: listener.pending == 0)

    serve(work, limits=Limits(output=1 << 30))


def test_a_bundle_waits_for_a_slow_reader_and_times_out() -> None:
    async def work(listener: Listener, accepted: Accepted) -> None:
        peer = await Peer.connect(listener.port)
        await peer.handshake(7)
        await accepted.until(lambda: 7 in accepted.connections)
        slow = accepted.connections[7]

        async def opened() -> None:
            while True:
                got = await peer.message()
                if got[1] == msg.Type.BUNDLE_CONTROL:
                    break
            reply = msg.bundle_control(1, msg.Bundle.OPEN_REPLY, 0, int.from_bytes(got[4:8], "big"))
            peer.writer.write(reply)
            peer.writer.transport.pause_reading()  # type: ignore[attr-defined]

        # 35 MB, far above the cap: only waiting keeps below it
        flows = [msg.bundled(msg.delete_flow(0, 1), 1)] * 400_000
        reading = asyncio.create_task(opened())
        with pytest.raises(OpenFlowError, match="did not confirm"):
            await slow.bundle(flows, 1.0)
        await reading
        assert slow.closed_reason is None
        with pytest.raises(OpenFlowError, match="did not answer"):
            await slow.request(msg.barrier_request(), 0.05)
        peer.writer.close()
        await accepted.until(lambda: 7 in accepted.closed)
        with pytest.raises(OpenFlowError, match="not connected"):
            await slow.request(msg.barrier_request(), 1.0)

    serve(work, limits=Limits(output=8 << 20))


async def bundled(listener: Listener, accepted: Accepted, error: Callable[[int], bytes]) -> None:
    """Sends a bundle of one flow. ``error`` makes what the switch says of it before it takes it after all, of the
    transaction id by which it was opened."""
    peer = await Peer.connect(listener.port)
    await peer.handshake(7)
    await accepted.until(lambda: 7 in accepted.connections)

    async def answer() -> None:
        opened = 0
        while True:
            got = await peer.message()
            kind, xid = got[1], int.from_bytes(got[4:8], "big")
            if kind == msg.Type.BUNDLE_CONTROL:
                what = int.from_bytes(got[12:14], "big")
                opened = xid if what == msg.Bundle.OPEN else opened
                peer.writer.write(msg.bundle_control(1, msg.Bundle(what + 1), 0, xid))
            elif kind == msg.Type.BARRIER_REQUEST:
                peer.writer.write(error(opened) + msg.message(msg.Type.BARRIER_REPLY, b"", xid))

    answering = asyncio.create_task(answer())
    try:
        await accepted.connections[7].bundle([msg.bundled(msg.delete_flow(0, 1), 1)], DEADLINE)
    finally:
        answering.cancel()
        peer.writer.close()


def test_an_error_of_no_message_of_the_bundle_refuses_none() -> None:
    of_another = int.from_bytes(msg.bundled(msg.delete_flow(0, 2), 2)[4:8], "big")
    serve(
        lambda listener, accepted: bundled(
            listener, accepted, lambda _: msg.message(msg.Type.ERROR, bytes(4), of_another)
        )
    )


def test_a_bundle_that_the_switch_gave_up_half_way_is_not_taken_for_done() -> None:
    # Open vSwitch does so after 10 s without a message of it (bundle-idle-timeout), and makes a new one of the rest.
    late = bytes((0, 17, 0, 14))  # OFPET_BUNDLE_FAILED, OFPBFC_TIMEOUT
    with pytest.raises(OpenFlowError, match="gave up a bundle"):
        serve(
            lambda listener, accepted: bundled(
                listener, accepted, lambda opened: msg.message(msg.Type.ERROR, late, opened)
            )
        )


@pytest.mark.parametrize("scheme", ["tcp", "ssl"])
def test_what_comes_in_pieces_on_many_connections_is_not_mixed(tmp_path: Path, scheme: str) -> None:
    certificate(tmp_path, "ca", None)
    key, made = certificate(tmp_path, "controller", "ca")
    kvm = certificate(tmp_path, "kvm01", "ca")
    tls = server_context(key, made, tmp_path / "ca.crt") if scheme == "ssl" else None
    options = {"ssl": client_of(tmp_path / "ca.crt", *kvm)} if scheme == "ssl" else {}
    sizes = [10, 65_000, 1400, 60_000, 100] * 3
    pieces = [5000, 1, 65_536, 7, 100_000]

    async def work(listener: Listener, accepted: Accepted) -> None:
        peers = {number: await Peer.connect(listener.port, **options) for number in range(1, 7)}
        for number, peer in peers.items():
            await peer.handshake(number)
        await accepted.until(lambda: len(accepted.connections) == len(peers))

        async def talk(number: int) -> None:
            stream = b"".join(punted(bytes((number,)) * size) for size in sizes)
            for piece in itertools.cycle(pieces):
                peers[number].writer.write(stream[:piece])
                await asyncio.sleep(0)  # now the others
                if not (stream := stream[piece:]):
                    return

        await asyncio.gather(*map(talk, peers))
        await accepted.until(lambda: accepted.closed or len(accepted.calls) == len(peers) * len(sizes))
        assert accepted.closed == {}
        for number, peer in peers.items():
            assert [len(call.data) for call in accepted.calls if set(call.data) == {number}] == sizes
            peer.writer.close()

    serve(work, address=f"{scheme}:127.0.0.1:0", tls=tls)


def punted(frame: bytes) -> bytes:
    """A packet-in."""
    body = struct.pack("!IHBBQHHII4xxx", 0xFFFFFFFF, len(frame), 0, 3, 7, 1, 12, 0x80000004, 7) + frame
    return msg.message(msg.Type.PACKET_IN, body)


def client_of(ca: Path, key: Path, made: Path) -> ssl.SSLContext:
    """What a switch with this key and certificate uses."""
    context = ssl.create_default_context(cafile=str(ca))
    context.check_hostname = False
    context.load_cert_chain(made, key)
    return context


def test_requests_end_with_the_connection() -> None:
    async def work(listener: Listener, accepted: Accepted) -> None:
        peer = await Peer.connect(listener.port)
        await peer.handshake(7)
        await accepted.until(lambda: 7 in accepted.connections)
        asked = asyncio.create_task(accepted.connections[7].request(msg.barrier_request(), DEADLINE))
        bundled = asyncio.create_task(accepted.connections[7].bundle([msg.bundled(msg.delete_flow(0, 1), 1)], DEADLINE))
        await peer.message()
        peer.writer.close()
        for task in (asked, bundled):
            with pytest.raises(OpenFlowError, match="connection closed"):
                await task

    serve(work)


def test_endless_multipart_is_bounded() -> None:
    async def work(listener: Listener, accepted: Accepted) -> None:
        peer = await Peer.connect(listener.port)
        await peer.handshake(7)
        await accepted.until(lambda: 7 in accepted.connections)
        request = accepted.connections[7].multipart(msg.flow_desc_request(), DEADLINE, max_bytes=100_000)
        asked = asyncio.create_task(request)
        while (got := await peer.message())[1] != msg.Type.MULTIPART_REQUEST:
            pass
        part = msg.message(msg.Type.MULTIPART_REPLY, struct.pack("!HH4x", 1, 1), int.from_bytes(got[4:8], "big"))
        while not asked.done():
            peer.writer.write(part * 100)
            await peer.writer.drain()
            await asyncio.sleep(0)
        with pytest.raises(OpenFlowError, match="longer than allowed"):
            await asked
        peer.writer.close()

    serve(work)


def test_a_handler_that_fails_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    async def work(listener: Listener, accepted: Accepted) -> None:
        peer = await Peer.connect(listener.port)
        await peer.handshake(7)
        await accepted.until(lambda: 7 in accepted.connections)
        accepted.connections[7].handlers.error = broken
        peer.writer.write(msg.message(msg.Type.ERROR, bytes(4), 99) + msg.echo_request(b"alive", 5))
        while (await peer.message())[8:] != b"alive":
            pass
        peer.writer.close()

    serve(work)
    assert "a handler failed" in caplog.text


def test_few_strangers_at_once() -> None:
    async def work(listener: Listener, accepted: Accepted) -> None:
        held = [await Peer.connect(listener.port) for _ in range(3)]
        await accepted.until(lambda: listener.pending == 3)
        late = await Peer.connect(listener.port)
        assert await held[0].gone()
        assert listener.pending == 3
        await held[1].handshake(1)
        await late.handshake(2)
        await accepted.until(lambda: {1, 2} <= accepted.connections.keys())
        assert listener.pending == 1
        for peer in (*held, late):
            peer.writer.close()

    serve(work, max_pending=10, max_pending_per_peer=3)
    serve(work, max_pending=3, max_pending_per_peer=10)


def test_whoever_fails_the_handshake_is_told_of_and_logged_sparingly(caplog: pytest.LogCaptureFixture) -> None:
    told: list[tuple[str, str]] = []

    async def work(listener: Listener, accepted: Accepted) -> None:
        for _ in range(30):
            peer = await Peer.connect(listener.port)
            peer.writer.write(b"GET / HTTP/1.1\r\n\r\n")
            assert await peer.gone()
            peer.writer.close()
        await accepted.until(lambda: len(told) == 30)

    serve(work, lost=lambda address, reason: told.append((address, reason)))
    assert set(told) == {("127.0.0.1", "broke the protocol: message of version 71")}
    assert len([r for r in caplog.records if "left in the handshake" in r.getMessage()]) == 10


def test_a_switch_that_is_refused_is_closed() -> None:
    async def work(listener: Listener, accepted: Accepted) -> None:
        peer = await Peer.connect(listener.port)
        await peer.handshake(0xBAD)
        assert await peer.gone()
        assert listener.pending == 0
        peer.writer.close()

    serve(work)


def test_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "of.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()

    async def work(listener: Listener, accepted: Accepted) -> None:
        assert os.stat(path).st_mode & 0o777 == 0o600
        peer = Peer(*await asyncio.open_unix_connection(str(path)))
        await peer.handshake(3)
        await accepted.until(lambda: 3 in accepted.connections)
        second = Listener(f"unix:{path}", accepted)
        with pytest.raises(OpenFlowError, match="cannot listen"):
            await second.start()
        peer.writer.close()

    serve(work, address=f"unix:{path}")
    assert not path.exists()


def test_tls_is_mutual(tmp_path: Path) -> None:
    certificate(tmp_path, "ca", None)
    certificate(tmp_path, "other-ca", None)
    key, made = certificate(tmp_path, "controller", "ca")

    def client(name: str | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
        context.check_hostname = False
        if name is not None:
            context.load_cert_chain(tmp_path / f"{name}.crt", tmp_path / f"{name}.key")
        return context

    certificate(tmp_path, "kvm01", "ca")
    certificate(tmp_path, "impostor", "other-ca")

    async def work(listener: Listener, accepted: Accepted) -> None:
        stalled = await Peer.connect(listener.port)  # never begins its TLS handshake
        good = await Peer.connect(listener.port, ssl=client("kvm01"))
        await good.handshake(1)
        await accepted.until(lambda: 1 in accepted.connections)
        assert accepted.connections[1].peer_names == ("kvm01",)
        for name in (None, "impostor"):
            with contextlib.suppress(ssl.SSLError, ConnectionError):
                peer = await Peer.connect(listener.port, ssl=client(name))
                with contextlib.suppress(ssl.SSLError):
                    await peer.gone()
                peer.writer.close()
        assert await stalled.gone()
        await accepted.until(lambda: listener.pending == 0)
        assert list(accepted.connections) == [1]
        stalled.writer.close()
        good.writer.close()
        await accepted.until(lambda: 1 in accepted.closed)

    context = server_context(key, made, tmp_path / "ca.crt")
    serve(work, address="ssl:127.0.0.1:0", limits=Limits(handshake=1.0), tls=context)


@pytest.mark.parametrize(
    "text", ["tcp:127.0.0.1", "tcp:1.2.3.4:99999", "udp:1.2.3.4:5", "unix:relative", "ssl:[::1:6653", ""]
)
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(OpenFlowError, match="not an address"):
        Address.parse(text)


def test_addresses() -> None:
    for text in ("tcp:127.0.0.1:6653", "ssl:[::1]:6653", "tcp:[fe80::1%eth0]:1", "unix:/run/of.sock"):
        assert str(Address.parse(text)) == text
    with pytest.raises(OpenFlowError, match="needs key"):
        Listener("ssl:127.0.0.1:0", lambda c, f: True)


OUT_OF_DESCRIPTORS = """
import asyncio, os, resource, socket, sys
from controller.openflow.listener import Listener

async def main():
    seen = asyncio.Event()
    listener = Listener("tcp:127.0.0.1:0", lambda c, f: True)
    await listener.start()
    peer = socket.socket()
    used = max(map(int, os.listdir("/proc/self/fd"))) + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (used, used))
    hoard = []
    try:
        while True:
            hoard.append(os.dup(0))
    except OSError:
        pass
    peer.setblocking(False)
    await asyncio.get_running_loop().sock_connect(peer, ("127.0.0.1", listener.port))
    await asyncio.sleep(0.2)
    assert listener.pending == 0
    resource.setrlimit(resource.RLIMIT_NOFILE, (used, used))
    for fd in hoard:
        os.close(fd)
    hello = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(peer, 16), 10)
    assert hello[:2] == b"\\x06\\x00", hello
    peer.close()
    await listener.close()
    print("accepted again")

asyncio.run(main())
"""


def test_running_out_of_descriptors_ends_nothing() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft > 64
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", OUT_OF_DESCRIPTORS], capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": os.getcwd()}, check=False,
    )  # fmt: skip
    assert "accepted again" in done.stdout, done.stderr
    assert "cannot accept" in done.stderr


def test_open_vswitch_connects_and_reconnects(vswitch: Vswitch) -> None:
    async def work(listener: Listener, accepted: Accepted) -> None:
        await asyncio.to_thread(vswitch.bridge, "caller", f"tcp:127.0.0.1:{listener.port}")
        try:
            await accepted.until(lambda: accepted.connections)
            ((dpid, first),) = accepted.connections.items()
            flow = msg.flow_mod(0, 0, 5, 0, 1, msg.EMPTY_MATCH, b"")
            await first.bundle([msg.bundled(flow, 5)], DEADLINE)
            first.abort("for the test")
            await accepted.until(lambda: accepted.connections[dpid] is not first)
            second = accepted.connections[dpid]
            await second.request(msg.barrier_request(), DEADLINE)
            assert second.is_active
            assert not first.is_active
        finally:
            await asyncio.to_thread(vswitch.vsctl, "del-br", "caller")
        await accepted.until(lambda: not second.is_active)

    serve(work)
