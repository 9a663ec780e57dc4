"""What a switch is told beside its flows: how it reads fragments, and that its ports take and give frames.

Nobody tells when the fragment mode changes, so it is asked for; of its ports a switch tells by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from controller.errors import OpenFlowError
from controller.openflow import messages
from controller.openflow.connection import Connection
from controller.openflow.decode import Port, decode_config, decode_port_desc
from controller.pace import Pace

log = logging.getLogger(__name__)

_CHECK_SECONDS = 30.0
_ANSWER_SECONDS = 10.0
_LEAST_SECONDS, _MOST_SECONDS = 0.05, 5.0  # after a port has changed: a host may change them without end
_WORDS = ((messages.NO_RECV, "no-receive"), (messages.NO_FWD, "no-forward"), (messages.NO_PACKET_IN, "no-packet-in"))
_CUT = messages.NO_RECV | messages.NO_FWD | messages.NO_PACKET_IN
_LOCAL = 0xFFFFFFFE
_NAMED = 5


class Upkeep:
    """Of one host, for as long as the controller knows it. Everything runs on the loop.

    ``repairs`` counts what was put right, ``repaired`` says what the last time. ``down`` are ports that are set down on
    the host: that may be its administrator's will, and is only told.
    """

    def __init__(self, host: str, on_change: Callable[[], None]) -> None:
        self._host = host
        self._on_change = on_change
        self._asked = asyncio.Event()
        self._pace = Pace(_LEAST_SECONDS, _MOST_SECONDS)
        self.repairs = 0
        self.repaired: tuple[str, ...] = ()
        self.down: frozenset[str] = frozenset()

    def look(self) -> None:
        """A port has changed."""
        if not self._asked.is_set():
            self._asked.set()
            self._pace.plan()

    async def run(self, connection: Connection) -> None:
        """Put right what others set, until cancelled."""
        try:
            while connection.is_active:
                self._asked.clear()
                try:
                    await self._check(connection)
                except OpenFlowError as error:
                    log.debug("%s: its settings cannot be read: %s", self._host, error)
                self._pace.done()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_CHECK_SECONDS):
                        await self._asked.wait()
                await asyncio.sleep(self._pace.left())
        finally:
            self.down = frozenset()  # nobody knows any more

    async def _check(self, connection: Connection) -> None:
        found = []
        flags = decode_config(await connection.request(messages.get_config_request(), _ANSWER_SECONDS))
        if flags != messages.MATCH_FRAGMENTS:
            connection.send(messages.set_config(flags=messages.MATCH_FRAGMENTS))
            found.append("the fragment mode (ovs-ofctl set-frags)")
        ports = decode_port_desc(await connection.multipart(messages.port_desc_request(), _ANSWER_SECONDS))
        for port in ports:
            if port.config & _CUT:
                connection.send(messages.port_mod(port.number, port.mac, 0, _CUT))
                found.append(f"port {port.name} ({_words(port)})")
        down = frozenset(p.name for p in ports if p.config & messages.PORT_DOWN and p.number != _LOCAL)
        if found:
            self.repairs += len(found)
            self.repaired = tuple(found[:_NAMED])
        if found or down != self.down:
            self.down = down
            self._on_change()


def _words(port: Port) -> str:
    return ", ".join(word for bit, word in _WORDS if port.config & bit)
