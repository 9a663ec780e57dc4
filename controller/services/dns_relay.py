"""Asking other name servers, from sockets of the controller's machine.

Each question goes out from a port and with a number that nobody can guess, to one server after the other; only its own
answer is taken (RFC 5452). Nothing is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from secrets import randbelow
from typing import Any

from dns.rcode import Rcode

from controller.services import dns_message

SECONDS = 1.5  # for so long one server is waited for
_MOST_SERVERS = 3  # that are tried
_NOT_HELPFUL = frozenset({Rcode.SERVFAIL, Rcode.NOTIMP, Rcode.REFUSED})


class _Exchange(asyncio.DatagramProtocol):
    """One question to one server. ``reply`` is None when nobody is there."""

    def __init__(self, question: bytes) -> None:
        self._question = question
        self.reply: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        transport.sendto(self._question)

    def datagram_received(self, data: bytes, addr: object) -> None:
        if not self.reply.done() and dns_message.answers(self._question, data):
            self.reply.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.reply.done():
            self.reply.set_result(None)


@dataclass(frozen=True, slots=True)
class Relay:
    """Everything on the loop. ``seconds`` is how long each server is waited for; ``port`` where all of them are."""

    seconds: float = SECONDS
    port: int = dns_message.PORT

    async def ask(self, servers: Sequence[str], make: Callable[[int], bytes]) -> tuple[bytes, bytes] | None:
        """A question as it was sent, and its reply: from the first server that is of help, else from the last that
        replied; None when none did. ``servers`` are addresses; ``make`` gives the question with a number."""
        last = None
        for server in servers[:_MOST_SERVERS]:
            question = make(randbelow(1 << 16))
            reply = await self._exchange(server, question)
            if reply is not None:
                last = question, reply
                if dns_message.rcode_of(reply) not in _NOT_HELPFUL:
                    break
        return last

    async def _exchange(self, server: str, question: bytes) -> bytes | None:
        """The reply; None when there is none in time. A socket of its own has a port of its own, and takes datagrams of
        this server only."""
        loop = asyncio.get_running_loop()
        try:
            transport, exchange = await loop.create_datagram_endpoint(
                lambda: _Exchange(question), remote_addr=(server, self.port)
            )
        except OSError:
            return None
        try:
            async with asyncio.timeout(self.seconds):
                return await exchange.reply
        except TimeoutError:
            return None
        finally:
            transport.close()
