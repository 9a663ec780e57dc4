"""One switch's OpenFlow connection on the asyncio loop.

Nothing that a peer does blocks the loop or grows without bound: the transport bounds input and output, the handshake
and every request have a deadline, a silent peer is noticed by echoes, and multipart replies are bounded in bytes. Not
thread-safe: everything runs on the loop's thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from os_ken.ofproto import ofproto_v1_5, ofproto_v1_5_parser

from controller.errors import OpenFlowError
from controller.openflow import decode
from controller.openflow import messages as msg
from controller.openflow.decode import ErrorMessage, Features, FlowRemoved, FlowUpdate, PacketIn, PortStatus, Role
from controller.openflow.messages import Bundle, Multipart, Type
from controller.openflow.transport import Limits, Transport

__all__ = ["BundleRefused", "Connection", "Handlers", "Limits", "Refused"]

log = logging.getLogger(__name__)

_PACKET_IN = int(Type.PACKET_IN)  # of these come most
_MAX_FAILURES = 1000  # a bundle's errors that are kept; the rest adds nothing


def _ignore(*_: object) -> None:
    pass


@dataclass(slots=True)
class Handlers:
    """What is called for messages that nobody asked for. An exception in one is logged and harms nothing else."""

    packet_in: Callable[[Connection, PacketIn], None] = _ignore
    port_status: Callable[[Connection, PortStatus], None] = _ignore
    flow_removed: Callable[[Connection, FlowRemoved], None] = _ignore
    flow_updates: Callable[[Connection, list[FlowUpdate]], None] = _ignore
    role_status: Callable[[Connection, Role], None] = _ignore
    error: Callable[[Connection, int, ErrorMessage], None] = _ignore
    closed: Callable[[Connection, str], None] = _ignore


class Refused(OpenFlowError):
    """The switch answered a request with an error."""

    def __init__(self, error: ErrorMessage, where: str) -> None:
        super().__init__(f"refused: {error.text}", where=where)
        self.error = error


class BundleRefused(OpenFlowError):
    """The switch refused a bundle; nothing of it was applied.

    ``failures`` holds the index of each refused message (-1: the bundle itself) and the error's text.
    """

    def __init__(self, failures: Sequence[tuple[int, str]], where: str) -> None:
        index, text = failures[0]
        what = f"message {index}: {text}" if index >= 0 else text
        more = f" and {len(failures) - 1} more" if len(failures) > 1 else ""
        super().__init__(f"bundle refused: {what}{more}", where=where)
        self.failures = list(failures)


@dataclass(slots=True)
class _Waiter:
    """A request under way; ``parts`` collects a multipart reply of type ``kind``."""

    future: asyncio.Future[bytes]
    kind: int | None = None
    room: int = 0
    parts: list[bytes] = field(default_factory=list)


@dataclass(slots=True)
class _Batch:
    """A bundle under way: the errors that came for its messages, by transaction id. ``opened`` is the one by which it
    was opened, and ``given_up`` the error that came for that afterwards."""

    messages: Sequence[bytes]
    opened: int = 0
    given_up: str = ""
    errors: dict[int, str] = field(default_factory=dict)

    @property
    def failures(self) -> list[tuple[int, str]]:
        """Of every message with such a transaction id: its index, and the error's text."""
        if not self.errors:
            return []
        xids = enumerate(int.from_bytes(data[4:8], "big") for data in self.messages)
        return [(index, self.errors[xid]) for index, xid in xids if xid in self.errors]


class Connection(Transport):
    """A switch. ``on_ready`` is called once after hello and features, and may refuse by returning False.

    os-ken's messages can be built on it and sent with :meth:`send_msg`, as on os-ken's own datapath.
    """

    def __init__(
        self,
        on_ready: Callable[[Connection, Features], bool],
        *,
        handlers: Handlers | None = None,
        limits: Limits | None = None,
    ) -> None:
        super().__init__(limits or Limits())
        self.ofproto = ofproto_v1_5
        self.ofproto_parser = ofproto_v1_5_parser
        self.handlers = handlers or Handlers()
        self.features: Features | None = None
        self._on_ready = on_ready
        self._timer: asyncio.TimerHandle | None = None
        self._heard = False
        self._missed = 0
        self._xid = 0
        self._waiters: dict[int, _Waiter] = {}
        self._batch: _Batch | None = None
        self._bundling = asyncio.Lock()

    # -- what others ask ---------------------------------------------------------------------------------------------

    @property
    def dpid(self) -> int:
        """The datapath id, 0 before the handshake is done."""
        return self.features.dpid if self.features else 0

    @property
    def id(self) -> int:
        """The datapath id by os-ken's name."""
        return self.dpid

    @property
    def where(self) -> str:
        """The switch in the words of errors and logs."""
        return f"switch {self.dpid:016x} ({self.peer})" if self.features else f"OpenFlow peer {self.peer}"

    def next_xid(self) -> int:
        """The next transaction id; never 0, and none of a bundle's messages."""
        self._xid += 1
        if msg.is_bundled(self._xid):
            self._xid = 1
        return self._xid

    def set_xid(self, message: Any) -> int:
        """Gives an os-ken message a transaction id."""
        xid = self.next_xid()
        message.set_xid(xid)
        return xid

    def send_msg(self, message: Any) -> None:
        """Sends an os-ken message."""
        if message.xid is None:
            self.set_xid(message)
        message.serialize()
        self.send(bytes(message.buf))

    async def request(self, data: bytes, timeout: float) -> bytes:  # noqa: ASYNC109
        """Sends one message and gives the body of its answer. Raises Refused, or OpenFlowError when none comes."""
        return await self._ask(data, timeout, None, 0)

    async def multipart(self, data: bytes, timeout: float, max_bytes: int | None = None) -> bytes:  # noqa: ASYNC109
        """Sends a multipart request and gives the joined bodies of all parts."""
        kind = int.from_bytes(data[8:10], "big")
        return await self._ask(data, timeout, kind, self.limits.multipart if max_bytes is None else max_bytes)

    async def bundle(self, messages: Sequence[bytes], timeout: float) -> None:  # noqa: ASYNC109
        """Applies messages atomically and in order, or none of them. Each is what ``messages.bundled`` made, and may
        be the same for many connections.

        One bundle is under way at a time. A barrier collects the refusals of single messages before the commit, since
        Open vSwitch commits the rest of a bundle of which it refused a meter. Raises BundleRefused, or OpenFlowError
        when the switch does not answer; then, if the commit was sent, its state is unknown.
        """
        try:
            async with asyncio.timeout(timeout), self._bundling:
                await self._bundle(messages)
        except TimeoutError:
            raise OpenFlowError(f"did not confirm a bundle within {timeout:g} s", where=self.where) from None

    # -- the transport's side ------------------------------------------------------------------------------------------

    def opened(self) -> None:
        self._timer = self._loop.call_later(self.limits.handshake, self._handshake_late)
        self.send(msg.hello(self.next_xid()))

    def received(self, version: int, kind: int, xid: int, body: bytes) -> None:
        self._heard = True
        if kind == _PACKET_IN and self.features is not None:
            self._call(self.handlers.packet_in, decode.decode_packet_in(body))
        elif kind == Type.ECHO_REQUEST:
            self.send(msg.echo_reply(body, xid))
        elif self.features is None:
            self._handshake(version, kind, xid, body)
        elif kind == Type.EXPERIMENTER and body[:8] == b"\0\0\x23\x20\0\0\0\x1e":
            self._call(self.handlers.packet_in, decode.decode_packet_in2(body[8:]))
        elif kind == Type.MULTIPART_REPLY:
            self._part(xid, body)
        elif kind == Type.ERROR:
            self._error(xid, decode.decode_error(body))
        elif kind == Type.PORT_STATUS:
            self._call(self.handlers.port_status, decode.decode_port_status(body))
        elif kind == Type.FLOW_REMOVED:
            self._call(self.handlers.flow_removed, decode.decode_flow_removed(body))
        elif kind == Type.ROLE_STATUS:
            self._call(self.handlers.role_status, decode.decode_role(body))
        elif xid in self._waiters and self._waiters[xid].kind is None:
            self._settle(xid, body)

    def _call(self, handler: Callable[..., None], *args: object) -> None:
        try:
            handler(self, *args)
        except Exception:
            log.exception("%s: a handler failed", self.where)

    def _handshake(self, version: int, kind: int, xid: int, body: bytes) -> None:
        if kind == Type.ERROR:
            raise OpenFlowError(f"refused the handshake: {decode.decode_error(body).text}")
        if not self._greeted:
            if kind != Type.HELLO:
                raise OpenFlowError(f"message of type {kind} before hello")
            try:
                decode.decode_hello(version, body)
            except OpenFlowError as error:
                self.send(msg.hello_failed("fleetswitch speaks OpenFlow 1.5 only", xid))
                self.close(error.what)
                return
            self._greeted = True
            self.send(msg.features_request(self.next_xid()))
        elif kind == Type.FEATURES_REPLY:
            self._ready(decode.decode_features(body))

    def _ready(self, features: Features) -> None:
        self.features = features
        self._trusted = True
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(self.limits.echo_interval, self._keep_alive)
        try:
            accepted = self._on_ready(self, features)
        except Exception:
            log.exception("%s: could not be accepted", self.where)
            accepted = False
        if not accepted:
            self.abort("not accepted")

    def _part(self, xid: int, body: bytes) -> None:
        kind, more = decode.multipart_header(body)
        waiter = self._waiters.get(xid)
        if waiter is None or waiter.kind is None:
            if kind == Multipart.FLOW_MONITOR:
                self._call(self.handlers.flow_updates, decode.decode_flow_updates(body[8:]))
            return
        if kind != waiter.kind:
            raise OpenFlowError(f"multipart reply of type {kind} to a request of type {waiter.kind}")
        waiter.room -= len(body) + 8
        if waiter.room < 0:
            self._fail(xid, OpenFlowError("multipart reply is longer than allowed", where=self.where))
            return
        waiter.parts.append(body[8:])
        if not more:
            self._settle(xid, b"".join(waiter.parts))

    def _error(self, xid: int, error: ErrorMessage) -> None:
        batch = self._batch
        if batch is not None and msg.is_bundled(xid):
            if len(batch.errors) < _MAX_FAILURES:
                batch.errors.setdefault(xid, error.text)
        elif xid in self._waiters:
            self._fail(xid, Refused(error, self.where))
        elif batch is not None and xid == batch.opened:
            batch.given_up = error.text
        else:
            self._call(self.handlers.error, xid, error)

    # -- requests ----------------------------------------------------------------------------------------------------

    def _expect(self, xid: int, kind: int | None = None, room: int = 0) -> asyncio.Future[bytes]:
        if self.closed_reason is not None or self._transport is None:
            raise OpenFlowError(f"not connected: {self.closed_reason}", where=self.where)
        waiter = _Waiter(self._loop.create_future(), kind, room)
        self._waiters[xid] = waiter
        return waiter.future

    def _settle(self, xid: int, body: bytes) -> None:
        future = self._waiters.pop(xid).future
        if not future.done():
            future.set_result(body)

    def _fail(self, xid: int, error: OpenFlowError) -> None:
        future = self._waiters.pop(xid).future
        if not future.done():
            future.set_exception(error)

    async def _ask(self, data: bytes, timeout: float, kind: int | None, room: int) -> bytes:  # noqa: ASYNC109
        xid = self.next_xid()
        future = self._expect(xid, kind, room)
        self.send(msg.stamp(data, xid))
        try:
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            raise OpenFlowError(f"did not answer within {timeout:g} s", where=self.where) from None
        finally:
            self._waiters.pop(xid, None)

    async def _control(self, kind: Bundle) -> int:
        """Returns the transaction id."""
        xid = self.next_xid()
        try:
            future = self._expect(xid)
            self.send(msg.bundle_control(msg.BUNDLE, kind, xid=xid))
            await future
        finally:
            self._waiters.pop(xid, None)
        return xid

    async def _bundle(self, messages: Sequence[bytes]) -> None:
        self._batch = batch = _Batch(messages)
        committing = False
        try:
            batch.opened = await self._control(Bundle.OPEN)
            for chunk in msg.writes(messages):
                self.send(chunk)
                await self.drain()
            await self._barrier()
            if batch.given_up:  # Open vSwitch makes a new bundle of what came behind, and would commit that alone
                raise OpenFlowError(f"gave up a bundle half way: {batch.given_up}", where=self.where)
            if failures := batch.failures:
                raise BundleRefused(failures, self.where)
            committing = True
            await self._control(Bundle.COMMIT)
        except Refused as refused:
            # The switch names the message that failed in an error of its own, which may come behind.
            if committing and not batch.failures:
                await self._barrier()
            raise BundleRefused([*batch.failures, (-1, refused.error.text)], self.where) from refused
        finally:
            self._batch = None
            if not committing:
                self.send(msg.bundle_control(msg.BUNDLE, Bundle.DISCARD, xid=self.next_xid()))

    async def _barrier(self) -> None:
        xid = self.next_xid()
        try:
            future = self._expect(xid)
            self.send(msg.barrier_request(xid))
            await future
        finally:
            self._waiters.pop(xid, None)

    # -- output, timers, the end -------------------------------------------------------------------------------------

    def _handshake_late(self) -> None:
        self.abort(f"no handshake within {self.limits.handshake:g} s")

    def _keep_alive(self) -> None:
        self._missed = 0 if self._heard else self._missed + 1
        self._heard = False
        if self._missed >= self.limits.echo_misses:
            self.abort(f"silent for {self._missed * self.limits.echo_interval:g} s")
            return
        self.send(msg.echo_request(xid=self.next_xid()))
        self._timer = self._loop.call_later(self.limits.echo_interval, self._keep_alive)

    def ended(self, reason: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        error = OpenFlowError(f"connection closed: {reason}", where=self.where)
        for xid in list(self._waiters):
            self._fail(xid, error)
        self._call(self.handlers.closed, reason)
