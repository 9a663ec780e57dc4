"""Announcements: who outside has a floating address, told from the host where its guest has come to (RFC 5227,
2.3; RFC 4861, 7.2.6); and who has one of a pool.

The MAC of a floating address stays what it is, so machines outside need not hear of it; the physical switch between
them does, and until the guest sends something by itself nobody else tells it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from controller.openflow.actions import Action, Resubmit, encode_actions
from controller.openflow.messages import packet_out
from controller.pipeline.actions import load
from controller.pipeline.fields import SEGMENT, SOURCE, Source
from controller.reader import Reader
from controller.services import arp, nd
from controller.views import ExternalView, FloatingView, HostView, PortView

log = logging.getLogger(__name__)

TIMES, SECONDS = 3, 1.0  # the first one may come before the flows that it is about
_PAUSE = 0.05  # between looks, however fast rows change

Send = Callable[[str, bytes], bool]


@dataclass(frozen=True, slots=True)
class Answered:
    """A floating address where it is: its host, that host's way to the outside, the guest's vNIC."""

    floating: FloatingView
    host: HostView
    outside: ExternalView
    port: PortView


def answered(fabric: Reader, wanted: Callable[[FloatingView], bool] = lambda _: True) -> Iterator[Answered]:
    """The floating addresses that a host answers for now, of those that are wanted."""
    for floating in filter(wanted, fabric.floating_ips()):
        port = fabric.port(floating.port)
        host = fabric.host(port.host) if port is not None else None
        outside = host.external if host is not None else None
        if port is None or host is None or outside is None or not outside.holds(floating.address):
            continue
        if floating in fabric.floating_to(port):
            yield Answered(floating, host, outside, port)


_Place = tuple[str, str, str, int, str]
"""Address, MAC, host, segment outside, vNIC or network."""


def _pools(fabric: Reader) -> Iterator[_Place]:
    """Addresses of pools that are hosts'."""
    for host in fabric.hosts():
        if (outside := host.external) is not None:
            for network, address in fabric.nat_addresses(host.name).items():
                yield address, outside.mac, host.name, outside.segment, network


class Announcements:
    """Everything on the loop. ``fabric`` reads the fleet as it is now, ``forward`` is the number of the table that
    leads to the wire, ``send`` gives a message to a host's switch."""

    def __init__(self, fabric: Callable[[], Reader], forward: int, send: Send) -> None:
        self._fabric = fabric
        self._forward = forward
        self._send = send
        self._told: dict[_Place, tuple[int, float]] = {}  # how often, and when it is due again
        self._wake = asyncio.Event()

    def look(self) -> None:
        """Rows changed: an address may be elsewhere now."""
        self._wake.set()

    async def run(self) -> None:
        """Tell of those that have come to another place. Until it is cancelled."""
        while True:
            self._wake.clear()
            try:
                self.tell(asyncio.get_running_loop().time())
            except Exception:
                log.exception("announcements: this round failed; the next one comes")
            await asyncio.sleep(_PAUSE)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SECONDS):  # wait_for of Python 3.11 may lose the word to end
                    await self._wake.wait()

    def tell(self, now: float) -> None:
        """One round; ``now`` is the loop's time."""
        found = {
            (each.floating.address, each.floating.mac, each.host.name, each.outside.segment, each.port.name)
            for each in answered(self._fabric())
        }
        found |= set(_pools(self._fabric()))
        self._told = {place: told for place, told in self._told.items() if place in found}
        for place in found:
            times, due = self._told.get(place, (0, now))
            if times < TIMES and due <= now and self._announce(place):
                self._told[place] = times + 1, now + SECONDS

    def _announce(self, place: _Place) -> bool:
        """Whether the host could be told to."""
        address, mac, host, segment, _ = place
        way: list[Action] = [load(SEGMENT, segment), load(SOURCE, Source.SWITCH), Resubmit(self._forward)]
        frame = nd.announcement(mac, address) if ":" in address else arp.request(mac, address, address)
        return self._send(host, packet_out(frame, encode_actions(way)))
