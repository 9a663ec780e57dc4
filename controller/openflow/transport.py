"""The bytes of one OpenFlow connection: framing, a bounded input and output, and its end.

What a message means is the business of :class:`controller.openflow.connection.Connection`.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from dataclasses import dataclass
from typing import cast

from controller.certificates import certificate_names
from controller.errors import OpenFlowError
from controller.openflow import messages as msg
from controller.openflow.messages import Type

BUFFER = 65536  # a message is at most 65,535 bytes
_TURN, _STRANGER_TURN = 64, 8  # messages that are looked at before the others have their turn
_STRANGER_MESSAGES = 1000  # in the handshake; Open vSwitch queues no more than some hundred that nobody asked for
_HIGH_WATER = 1 << 20
_STRANGER_OUTPUT = 4 * BUFFER  # what may wait for a peer that has not finished the handshake


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds, sizes in bytes."""

    handshake: float = 10.0
    echo_interval: float = 5.0
    echo_misses: int = 3
    output: int = 16 << 20  # a bundle waits for the switch long before that
    multipart: int = 64 << 20  # a million flows


class _Desk(threading.local):
    """Where a loop's connections read, one after the other: what is whole is taken away at once, and what is not is
    kept by its connection. So a connection weighs what it has left, and no buffer of its own."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(BUFFER))


_desk = _Desk()


class Transport(asyncio.BufferedProtocol):
    """Whole messages in, bytes out. The output's full limit stands open once the handshake is done."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.peer = ""
        self.peer_names: tuple[str, ...] | None = None  # of its certificate; None without TLS
        self.closed_reason: str | None = None
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._rest = b""  # received, and not looked at yet
        self._seen = 0  # messages before the handshake was done
        self._resting = False  # reading is paused: what has arrived is looked at piece by piece
        self._greeted = False
        self._trusted = False
        self._out: list[bytes] = []
        self._out_size = 0
        self._unsent = 0  # bytes of turns before that the switch has not taken
        self._flushing = False
        self._drained: asyncio.Future[None] | None = None

    # -- what the connection adds ------------------------------------------------------------------------------------

    @property
    def where(self) -> str:
        """The peer in the words of errors and logs."""
        return f"OpenFlow peer {self.peer}"

    def opened(self) -> None:
        """The connection stands."""

    def received(self, version: int, kind: int, xid: int, body: bytes) -> None:
        """A whole message; what breaks the protocol raises OpenFlowError, which ends the connection."""

    def ended(self, reason: str) -> None:
        """The connection is over; called once."""

    # -- output and the end ------------------------------------------------------------------------------------------

    @property
    def is_active(self) -> bool:
        """Whether messages can be sent."""
        return self.closed_reason is None and self._transport is not None

    def send(self, data: bytes) -> None:
        """Queues bytes; all of a loop turn leave in one write. A queue past its limit ends the connection."""
        if self.closed_reason is not None or self._transport is None:
            return
        if not self._flushing:
            self._flushing = True
            self._unsent = self._transport.get_write_buffer_size()
            self._loop.call_soon(self._flush)
        self._out.append(data)
        self._out_size += len(data)
        if self._out_size + self._unsent > (self.limits.output if self._trusted else _STRANGER_OUTPUT):
            self.abort(f"does not read: {self._out_size + self._unsent} bytes are waiting")

    async def drain(self) -> None:
        """Waits while the switch takes less than is sent."""
        self._flush()
        if self._drained is not None:
            await asyncio.shield(self._drained)
        if self.closed_reason is not None:
            raise OpenFlowError(f"connection closed: {self.closed_reason}", where=self.where)

    def _flush(self) -> None:
        self._flushing = False
        if self._out and self._transport is not None and self.closed_reason is None:
            data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
            self._out, self._out_size = [], 0
            self._transport.write(data)

    def close(self, reason: str) -> None:
        """Ends the connection after what is queued has left, or 2 s later without it."""
        if self._transport is None or self.closed_reason is not None:
            return
        self._flush()
        self._transport.close()
        self._loop.call_later(2.0, self._transport.abort)
        self._ended(reason)

    def abort(self, reason: str) -> None:
        """Ends the connection now."""
        if self._transport is None or self.closed_reason is not None:
            return
        self._transport.abort()
        self._ended(reason)

    def _ended(self, reason: str) -> None:
        if self.closed_reason is None:
            self.closed_reason = reason
            self._out, self._out_size = [], 0
            self.resume_writing()
            self.ended(reason)

    # -- asyncio's side ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.peer = self.peer or peer_text(transport.get_extra_info("peername"))
        if transport.get_extra_info("ssl_object") is not None:
            self.peer_names = certificate_names(transport.get_extra_info("peercert"))
        self.opened()

    def get_buffer(self, sizehint: int) -> memoryview:
        """After what is left from before, so that a message stands there in one piece."""
        left = len(self._rest)
        _desk.view[:left] = self._rest
        return _desk.view[left:]

    def buffer_updated(self, nbytes: int) -> None:
        received = _desk.view[: len(self._rest) + nbytes]
        if self._resting:
            self._rest = bytes(received)
        else:
            self._work(received)

    def eof_received(self) -> None:
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended(f"connection lost: {exc}" if exc else "closed by the peer")

    def pause_writing(self) -> None:
        self._drained = self._drained or self._loop.create_future()

    def resume_writing(self) -> None:
        if self._drained is not None:
            self._drained.set_result(None)
            self._drained = None

    def _work(self, received: memoryview) -> None:
        """Looks at what has arrived, so much at a time that a peer with many small messages holds up nobody."""
        if self.closed_reason is not None:
            return
        try:
            used, done = self._consume(received, _TURN if self._trusted else _STRANGER_TURN)
        except OpenFlowError as error:
            self.abort(f"broke the protocol: {error.what}")
            return
        self._rest = bytes(received[used:])
        if self.closed_reason is None and self._transport is not None and done == self._resting:
            self._resting = not done
            (self._transport.resume_reading if done else self._transport.pause_reading)()
        if not done:
            self._loop.call_soon(self._work_on)

    def _work_on(self) -> None:
        self._work(memoryview(self._rest))

    def _consume(self, view: memoryview, most: int) -> tuple[int, bool]:
        """The bytes of whole messages that were received, and whether no more than ``most`` messages were there."""
        offset, filled = 0, len(view)
        while filled - offset >= 8 and self.closed_reason is None:
            if not most:
                return offset, False
            most -= 1
            version, kind, size, xid = msg.HEADER.unpack_from(view, offset)
            if size < 8:
                raise OpenFlowError(f"message of length {size}")
            if version != msg.VERSION and (self._greeted or kind not in (Type.HELLO, Type.ERROR)):
                raise OpenFlowError(f"message of version {version}")
            if filled - offset < size:
                break
            if not self._trusted:
                self._seen += 1
                if self._seen > _STRANGER_MESSAGES:
                    raise OpenFlowError(f"more than {_STRANGER_MESSAGES} messages before the handshake was done")
            self.received(version, kind, xid, bytes(view[offset + 8 : offset + size]))
            offset += size
        return offset, True


def peer_text(peername: object) -> str:
    """An address in OVS's words."""
    if isinstance(peername, tuple) and len(peername) >= 2:
        host = f"[{peername[0]}]" if ":" in str(peername[0]) else peername[0]
        return f"{host}:{peername[1]}"
    return "unix"


def address_of(peer: str) -> str:
    """The address in what ``peer_text`` made, without port and brackets."""
    return peer.rpartition(":")[0].strip("[]") or peer
