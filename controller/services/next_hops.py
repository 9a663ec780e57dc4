"""Next hops outside: who is asked for, what waits for the answer, and whether each host's gateway answers.

Where a machine is the switch learns by itself; here is only asked, by ARP or ND. A gateway is asked again and again, so
that it is known before it is needed, and so that it is told when it is silent.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address

from controller.errors import OpenFlowError, PacketError
from controller.openflow.actions import Action, Resubmit, encode_actions
from controller.openflow.decode import PacketIn
from controller.openflow.messages import packet_out
from controller.pipeline.actions import load
from controller.pipeline.fields import NEXT_HOP, NEXT_HOP6, RESOLVED, SEGMENT, SOURCE, Source
from controller.services import arp, nd
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
    """Everything on the loop. ``hosts`` gives the names of the hosts, and ``outside`` the external address of one;
    ``forward`` and ``hop`` are the numbers of the tables that lead to the wire, and that find the next hop; ``send``
    gives a message to a host's switch."""

    def __init__(
        self,
        hosts: Callable[[], Iterable[str]],
        outside: Callable[[str], ExternalView | None],
        forward: int,
        hop: int,
        send: Send,
    ) -> None:
        self._hosts = hosts
        self._outside = outside
        self._forward = forward
        self._hop = hop
        self._send = send
        self._asked: dict[str, dict[str, _Asked]] = {}
        self._heard: dict[tuple[str, str], float] = {}  # by host and its gateway: when that was heard last,
        self._due: dict[tuple[str, str], float] = {}  # when it is asked again,
        self._since: dict[tuple[str, str], float] = {}  # and since when it is the gateway

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
            target = next_hop(packet)
        except OpenFlowError as error:
            log.debug("%s: %s", host, error)
            return
        outside = self._outside(host)
        asked = self._asked.setdefault(host, {})
        if outside is None or (target not in asked and len(asked) >= _MOST_ASKED):
            return
        each = asked.setdefault(target, _Asked(now))
        each.packets.append(packet)
        if now - each.last >= _TICK:
            self._ask(host, outside, target, now)

    def told(self, host: str, packet: PacketIn) -> None:
        """ARP or ND that somebody outside sent to the host's external address; the switch has learned from it."""
        try:
            said = nd.decode(packet.data) if nd.is_advertisement(packet.data) else arp.decode(packet.data)
        except PacketError as error:
            log.debug("%s: %s", host, error)
            return
        outside = self._outside(host)
        if outside is not None and said.address in {way.gateway for way in outside.ways}:
            self._heard[host, said.address] = asyncio.get_running_loop().time()
        field = NEXT_HOP6 if ":" in said.address else NEXT_HOP
        # A switch that has no room to learn it would send the packet back here, again and again.
        there: list[Action] = [load("eth_dst", said.mac), load(RESOLVED, 1)]
        for waiting in self._asked.get(host, {}).pop(said.address, _Asked(0.0)).packets:
            registers: list[Action] = [load(SOURCE, Source.VNIC), load(field, int(ip_address(said.address)))]
            if outside is not None:
                registers.append(load(SEGMENT, outside.segment))
            self._send(host, packet_out(waiting.data, encode_actions([*registers, *there, Resubmit(self._hop)])))

    def silent(self, host: str) -> str:
        """Why guests of the host cannot reach the outside, as far as that is known; empty when they can."""
        outside, now = self._outside(host), asyncio.get_running_loop().time()
        for way in outside.ways if outside is not None else ():
            key = host, way.gateway
            quiet = now - self._heard.get(key, self._since.get(key, now))
            if quiet >= SILENT_SECONDS:
                how = "ND" if way.version == 6 else "ARP"
                return f"the gateway {way.gateway} has not answered {how} for {quiet:.0f} s"
        return ""

    def _tick(self, now: float) -> None:
        outsides = {host: outside for host in self._hosts() if (outside := self._outside(host)) is not None}
        for host in self._asked.keys() - outsides.keys():
            del self._asked[host]
        gateways = {(host, way.gateway) for host, outside in outsides.items() for way in outside.ways}
        for known in (self._heard, self._due, self._since):
            for gone in known.keys() - gateways:
                del known[gone]
        for host, gateway in gateways:
            self._since.setdefault((host, gateway), now)
            if self._due.get((host, gateway), now) <= now and self._ask(host, outsides[host], gateway, now):
                self._due[host, gateway] = now + ASK_SECONDS
        for host, outside in outsides.items():
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
        own = next((way.address for way in outside.ways if (way.version == 6) == (":" in target)), None)
        if own is None:
            return False
        frame = (nd if ":" in target else arp).request(outside.mac, own, target)
        way: list[Action] = [load(SEGMENT, outside.segment), load(SOURCE, Source.SWITCH), Resubmit(self._forward)]
        return self._send(host, packet_out(frame, encode_actions(way)))


def next_hop(packet: PacketIn) -> str:
    """Where the packet was to go next, as its switch says. Raises OpenFlowError."""
    registers = packet.fields()
    if packet.data[12:14] == nd.ETHERTYPE.to_bytes(2, "big"):
        words = [registers.get(f"reg{NEXT_HOP6.register + number}", 0) for number in range(4)]
        return str(IPv6Address(b"".join(word.to_bytes(4, "big") for word in words)))
    return str(IPv4Address(registers.get(NEXT_HOP.oxm, 0)))
