"""One router: the connection to it, and what it was told.

The states are RFC 4271's (8.2.2), without those of a listener: the controller connects, and is not connected to.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal

from controller.bgp import messages
from controller.bgp.dial import Connection, dial
from controller.bgp.messages import Code, Kind, Open
from controller.errors import BgpError
from controller.model.bgp import BgpPeerSpec

log = logging.getLogger(__name__)

State = Literal["idle", "connect", "opensent", "openconfirm", "established"]

_CONNECT_SECONDS, _OPEN_SECONDS = 10.0, 30.0
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0
_CLOSE_SECONDS = 5.0  # for what is still to be sent to a router that does not read
_DECONFIGURED = 3  # of Cease (RFC 4486)


class Peer:
    """``run()`` it; ``want()`` says what it is to be told. ``on_change`` is called with each change of ``state``, and
    ``dialled`` makes the connection."""

    def __init__(
        self, name: str, spec: BgpPeerSpec, on_change: Callable[[Peer], None] = lambda _: None,
        dialled: Callable[[BgpPeerSpec], Awaitable[Connection]] = dial,
    ) -> None:  # fmt: skip
        self.name = name
        self.spec = spec
        self.state: State = "idle"
        self.since = time.time()  # since when it is established, or is not; seconds since 1970
        self.reason = ""  # why it is not established, or was not the last time
        self.announced: dict[str, str] = {}  # prefix → next hop, as the router was told on this connection
        self.received = 0  # prefixes that the router announced, all in all
        self.hold_time = 0  # seconds, as agreed
        self.router: Open | None = None  # what it says of itself
        self._on_change = on_change
        self._dial = dialled
        self._wanted: Mapping[str, str] = {}
        self._again = False  # the router asks for all of them once more (RFC 2918)
        self._wake = asyncio.Event()
        self._farewell = b""
        self._came_up = False
        self._wait = _FIRST_WAIT

    def want(self, routes: Mapping[str, str]) -> None:
        """The router is to know these prefixes, each with its next hop."""
        if routes != self._wanted:
            self._wanted = dict(routes)
            self._wake.set()

    def part(self) -> None:
        """The end of ``run`` is to be for good: the router shall keep no routes."""
        self._farewell = messages.notification(Code.CEASE, _DECONFIGURED)

    async def run(self) -> None:
        """Connect, and again when that ends, until cancelled. A router that takes part in graceful restart keeps the
        routes meanwhile, so nothing is said at the end."""
        while True:
            try:
                await self._connect()
            except (BgpError, OSError, EOFError) as error:
                self._lost(_reason(error))
            except Exception as error:  # whatever is the matter with one router, the next attempt may be better
                log.exception("BgpPeer %s", self.name)
                self._lost(f"a fault of the program: {error!r}")
            await asyncio.sleep(self._wait * random.uniform(0.75, 1.0))  # noqa: S311 (RFC 4271, 10: jitter)
            self._wait = min(self._wait * 2, _LONGEST_WAIT)

    async def _connect(self) -> None:
        self._enter("connect")
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                reader, writer = await self._dial(self.spec)
        except TimeoutError:
            hint = ", or the password differs" if self.spec.password_file is not None else ""
            raise BgpError(f"no answer at {self.spec.address} port {self.spec.port}{hint}") from None
        try:
            await self._open(reader, writer)
            await self._talk(reader, writer)
        except BgpError as error:
            writer.write(error.answer)
            raise
        except asyncio.CancelledError:
            writer.write(self._farewell)
            raise
        finally:
            self.announced, self.router = {}, None
            writer.close()
            asyncio.get_running_loop().call_later(_CLOSE_SECONDS, writer.transport.abort)

    async def _open(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Agree on how to speak."""
        spec = self.spec
        own = writer.get_extra_info("sockname")[0]
        writer.write(
            messages.open_message(spec.local_as, spec.hold_time, own, spec.restart_time, restarted=not self._came_up)
        )
        self._enter("opensent")
        router = messages.read_open(await _expect(reader, Kind.OPEN, _OPEN_SECONDS))
        self._check(router, own)
        self.router, self.hold_time = router, min(spec.hold_time, router.hold_time)
        writer.write(messages.keepalive())
        self._enter("openconfirm")
        await _expect(reader, Kind.KEEPALIVE, self.hold_time)
        self._came_up, self.reason = True, ""
        self._enter("established")

    def _check(self, router: Open, own: str) -> None:
        spec = self.spec
        if not router.four_octets:
            answer = messages.notification(Code.OPEN, 7)
            raise BgpError("knows no AS numbers of four octets (RFC 6793)", answer)
        if router.asn != spec.remote_as:
            answer = messages.notification(Code.OPEN, 2)
            raise BgpError(f"is of AS {router.asn}, not of {spec.remote_as}", answer, remedy="see remote_as")
        if router.identifier == own and spec.local_as == spec.remote_as:  # RFC 6286, 2.2
            raise BgpError(f"has our own BGP identifier {own}", messages.notification(Code.OPEN, 3))
        if not router.ipv4:
            raise BgpError("speaks no IPv4 unicast", messages.notification(Code.OPEN, 7))
        if router.hold_time < 3:
            raise BgpError(f"wants a hold time of {router.hold_time}", messages.notification(Code.OPEN, 6))

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        work = [asyncio.create_task(self._listen(reader)), asyncio.create_task(self._tell(writer))]
        try:
            done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while True:
            try:
                async with asyncio.timeout(self.hold_time):
                    kind, body = await _read(reader)
                    await asyncio.sleep(0)  # what has come already is read without a pause; others have the loop too
            except TimeoutError:
                answer = messages.notification(Code.HOLD_TIMER, 0)
                raise BgpError(f"said nothing for {self.hold_time} seconds", answer) from None
            match kind:
                case Kind.UPDATE:
                    self.received += messages.count_routes(body)
                case Kind.ROUTE_REFRESH:
                    self._again = True
                    self._wake.set()
                case Kind.NOTIFICATION:
                    raise BgpError(messages.said(body))
                case Kind.OPEN:
                    raise BgpError("sends a second OPEN", messages.notification(Code.STATE, 3))

    async def _tell(self, writer: asyncio.StreamWriter) -> None:
        """Routes as they change; that all is said, once; and that we are there."""
        loop = asyncio.get_running_loop()
        every = self.hold_time / 3  # RFC 4271, 4.4
        last = messages.end_of_rib(self._ipv6)
        due = loop.time() + every
        while True:
            self._wake.clear()
            for message in self._news():
                await self._send(writer, message)
            await self._send(writer, last)
            last = b""
            if loop.time() >= due:
                await self._send(writer, messages.keepalive())
                due = loop.time() + every
            try:
                async with asyncio.timeout(due - loop.time()):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _news(self) -> list[bytes]:
        """What the router is told, and from now on knows."""
        told, again = self.announced, self._again
        wanted = {prefix: hop for prefix, hop in self._wanted.items() if self._ipv6 or ":" not in prefix}
        self.announced, self._again = wanted, False
        news = {prefix: hop for prefix, hop in wanted.items() if again or told.get(prefix) != hop}
        return list(messages.updates(
            news, told.keys() - wanted.keys(), self.spec.local_as, self.spec.local_as == self.spec.remote_as
        ))  # fmt: skip

    @property
    def _ipv6(self) -> bool:
        """Whether the router takes routes of IPv6."""
        return self.router is not None and self.router.ipv6

    async def _send(self, writer: asyncio.StreamWriter, message: bytes) -> None:
        writer.write(message)
        try:
            async with asyncio.timeout(self.hold_time):
                await writer.drain()
        except TimeoutError:
            raise BgpError(f"took nothing for {self.hold_time} seconds") from None

    def _enter(self, state: State) -> None:
        if "established" in {state, self.state}:
            self.since = time.time()
        if state != self.state:
            self.state = state
            self._on_change(self)

    def _lost(self, reason: str) -> None:
        if self.state == "established" and time.time() - self.since > _LONGEST_WAIT:
            self._wait = _FIRST_WAIT  # what comes and goes all the time is tried less and less often
        self.reason = reason
        self._enter("idle")


async def _read(reader: asyncio.StreamReader) -> tuple[Kind, bytes]:
    kind, size = messages.read_header(await reader.readexactly(messages.HEADER_BYTES))
    return kind, await reader.readexactly(size)


async def _expect(reader: asyncio.StreamReader, expected: Kind, seconds: float) -> bytes:
    try:
        async with asyncio.timeout(seconds):
            kind, body = await _read(reader)
    except TimeoutError:
        answer = messages.notification(Code.HOLD_TIMER, 0)
        raise BgpError(f"sent no {expected.name} within {seconds:g} seconds", answer) from None
    if kind == Kind.NOTIFICATION:
        raise BgpError(messages.said(body))
    if kind != expected:
        answer = messages.notification(Code.STATE, 1 if expected == Kind.OPEN else 2)
        raise BgpError(f"sent {kind.name} where {expected.name} belongs", answer)
    return body


def _reason(error: BgpError | OSError | EOFError) -> str:
    if isinstance(error, EOFError):
        return "it closed the connection"
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno).lower()
    return str(error)
