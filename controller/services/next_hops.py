"""Next hops outside: who is asked for, what waits for the answer, and whether each host's gateway answers.

Where a machine is the switch learns by itself; here is only asked. A gateway is asked again and again, so that it is
known before it is needed, and so that it is told when it is silent.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from controller.errors import OpenFlowError, PacketError
from controller.openflow.actions import Action, Resubmit, encode_actions
from controller.openflow.decode import PacketIn
from controller.openflow.messages import packet_out
from controller.pipeline.actions import load
from controller.pipeline.fields import NEXT_HOP, SEGMENT, SOURCE, Source
from controller.services import arp
from controller.views import ExternalView

log = logging.getLogger(__name__)

_TICK = 1.0
ASK_SECONDS = 10.0  # between questions to a gateway
SILENT_SECONDS = 35.0  # three questions without an answer, and a moment
_GIVE_UP_SECONDS = 3.0  # for so long a packet waits for its next hop
_MOST_ASKED, _MOST_WAITING = 256, 8  # machines of a host that are asked for at once; packets that wait for one

Send = Callable[[str, bytes], bool]


@dataclass(slots=True)
class _Asked:
    """A machine that is asked for: since when, when it was asked last, and the packets that are for it."""

    since: float
    last: float = 0.0
    packets: deque[PacketIn] = field(default_factory=lambda: deque(maxlen=_MOST_WAITING))


class NextHops:
    """Everything on the loop. ``outsides`` gives each host's external address; ``forward`` and ``hop`` are the numbers
    of the tables that lead to the wire, and that find the next hop; ``send`` gives a message to a host's switch."""

    def __init__(
        self, outsides: Callable[[], Iterable[tuple[str, ExternalView]]], forward: int, hop: int, send: Send
    ) -> None:
        self._outsides = outsides
        self._forward = forward
        self._hop = hop
        self._send = send
        self._asked: dict[str, dict[str, _Asked]] = {}
        self._heard: dict[str, tuple[str, float]] = {}  # by host: its gateway's address, and when it was heard last
        self._due: dict[str, float] = {}
        self._since: dict[str, float] = {}

    async def run(self) -> None:
        """Ask gateways, ask again for others, forget. Until it is cancelled."""
        while True:
            try:
                self._tick(asyncio.get_running_loop().time())
            except Exception:
                log.exception("next hops: this round failed; the next one comes")
            await asyncio.sleep(_TICK)

    def unknown(self, host: str, packet: PacketIn) -> None:
        """A packet whose next hop the host's switch does not know."""
        now = asyncio.get_running_loop().time()
        try:
            number = packet.fields().get(f"reg{NEXT_HOP.register}", 0)
        except OpenFlowError as error:
            log.debug("%s: %s", host, error)
            return
        outside = dict(self._outsides()).get(host)
        asked = self._asked.setdefault(host, {})
        target = str(IPv4Address(number))
        if outside is None or (target not in asked and len(asked) >= _MOST_ASKED):
            return
        each = asked.setdefault(target, _Asked(now))
        each.packets.append(packet)
        if now - each.last >= _TICK:
            self._ask(host, outside, target, now)

    def told(self, host: str, packet: PacketIn) -> None:
        """ARP that somebody outside sent to the host's external address; the switch has learned from it."""
        try:
            said = arp.decode(packet.data)
        except PacketError as error:
            log.debug("%s: %s", host, error)
            return
        outside = dict(self._outsides()).get(host)
        if outside is not None and said.address == outside.gateway:
            self._heard[host] = (said.address, asyncio.get_running_loop().time())
        for waiting in self._asked.get(host, {}).pop(said.address, _Asked(0.0)).packets:
            registers: list[Action] = [load(SOURCE, Source.VNIC), load(NEXT_HOP, int(IPv4Address(said.address)))]
            if outside is not None:
                registers.append(load(SEGMENT, outside.segment))
            self._send(host, packet_out(waiting.data, encode_actions([*registers, Resubmit(self._hop)])))

    def silent(self, host: str) -> str:
        """Why guests of the host cannot reach the outside, as far as that is known; empty when they can."""
        outside = dict(self._outsides()).get(host)
        if outside is None or host not in self._since:
            return ""
        now = asyncio.get_running_loop().time()
        heard, at = self._heard.get(host, ("", 0.0))
        since = at if heard == outside.gateway else self._since[host]
        if now - since < SILENT_SECONDS:
            return ""
        return f"the gateway {outside.gateway} has not answered ARP for {now - since:.0f} s"

    def _tick(self, now: float) -> None:
        outsides: Mapping[str, ExternalView] = dict(self._outsides())
        for known in (self._asked, self._heard, self._due, self._since):
            for host in known.keys() - outsides.keys():
                del known[host]
        for host, outside in outsides.items():
            self._since.setdefault(host, now)
            if self._due.get(host, now) <= now and self._ask(host, outside, outside.gateway, now):
                self._due[host] = now + ASK_SECONDS
            asked = self._asked.get(host, {})
            for target in [t for t, each in asked.items() if now - each.since > _GIVE_UP_SECONDS]:
                del asked[target]
            for target, each in asked.items():
                if now - each.last >= _TICK:
                    self._ask(host, outside, target, now)

    def _ask(self, host: str, outside: ExternalView, target: str, now: float) -> bool:
        """Whether the host could be told to ask."""
        if (each := self._asked.get(host, {}).get(target)) is not None:
            each.last = now
        way: list[Action] = [load(SEGMENT, outside.segment), load(SOURCE, Source.SWITCH), Resubmit(self._forward)]
        frame = arp.request(outside.mac, outside.address, target)
        return self._send(host, packet_out(frame, encode_actions(way)))
