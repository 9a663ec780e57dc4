"""Handovers: what switches remember of an address that is another's now is forgotten there.

A connection that began before is translated as it was then: its packets would go to whoever has the guest's address by
now, come from an address that the host has no more, or reach a guest that a forward does not lead to any longer. Just
those connections are forgotten, by NXT_CT_FLUSH, once the host has confirmed the new holder's flows.

Who had it last is what this controller has seen: what changed hands while there was none is not found.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address, ip_interface

from controller.fabric import Fabric
from controller.model.fields import is_uuid
from controller.openflow.ct_flush import Remembered, Way, ct_flush
from controller.pipeline.ip import PROTOCOLS
from controller.pipeline.zones import FRAGMENTS_IN, FRAGMENTS_OUT, HAIRPIN, TRANSLATED
from controller.views import ForwardView, HostView, PortView

log = logging.getLogger(__name__)

_PAUSE = 0.25  # between looks, however fast rows change: at 4,000 vNICs one takes 17 ms
_AGAIN = 0.2  # for who has not confirmed yet, or is away
_MOST_PORTS = 64  # of a forward that are named one by one; of a larger one it is all that leads from there to the guest
_MOST_KNOWN = 1 << 17  # things whose last holder is known; the oldest go first

Send = Callable[[str, bytes], bool]


@dataclass(frozen=True, slots=True)
class Thing:
    """What has one holder at a time, on a host or, where that is "", in the fleet."""

    kind: str
    name: str
    host: str = ""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has it: another ``who`` makes a handover. ``address`` is by what the tracker knows it."""

    who: str
    address: str
    forward: ForwardView | None = None


def held(fabric: Fabric) -> Iterator[tuple[Thing, Holder]]:
    """Who has what now."""
    reader = fabric.reader()
    for network in reader.networks():
        if network.gateway is None or not network.gateway.nat:
            continue
        for port in fabric.ports_of(network.name):
            where = port.host if network.alone else ""
            who = _vnic(port)
            for address in port.addresses:
                if not _within(address, network.gateway.addresses):
                    continue  # claimed, and nowhere reached: the tracker knows it as a machine outside
                yield Thing("guest", f"{network.name} {address}", where), Holder(who, address)
    for host in reader.hosts():
        yield from _addresses(host)
        for name, address in reader.nat_addresses(host.name).items():
            yield Thing("pool", name, host.name), Holder(address, address)
    for floating in reader.floating_ips():
        yield Thing("floating", floating.address), Holder(floating.inside, floating.address)
    for forward in reader.forwards():
        for name in forward.hosts:
            view = reader.host(name)
            for way in view.external.ways if view is not None and view.external is not None else ():
                if way.version == forward.version:
                    yield Thing("forward", forward.name, name), Holder(forward.address, way.address, forward)


@lru_cache(maxsize=1 << 14)
def _within(address: str, subnets: tuple[str, ...]) -> bool:
    """Whether it is of one of the subnets, which are given as interfaces."""
    return any(ip_address(address) in ip_interface(each).network for each in subnets)


def _vnic(port: PortView) -> str:
    """Whose it is, however its row is called: that changes when it is registered."""
    return " ".join((port.mac, *sorted(filter(is_uuid, port.guest))))


def _addresses(host: HostView) -> Iterator[tuple[Thing, Holder]]:
    for way in host.external.ways if host.external is not None else ():
        yield Thing("external", str(way.version), host.name), Holder(way.address, way.address)


def of(thing: Thing, holder: Holder) -> Iterator[Remembered]:
    """The connections that a tracker may know because of this holder."""
    address = holder.address
    match thing.kind:
        case "guest":
            yield Remembered(TRANSLATED, original=Way(src=address))
            yield Remembered(TRANSLATED, reply=Way(src=address))
            yield Remembered(HAIRPIN, original=Way(src=address))
        case "floating":
            yield Remembered(FRAGMENTS_OUT, reply=Way(dst=address))
            yield Remembered(FRAGMENTS_IN, original=Way(dst=address))
        case "forward" if (forward := holder.forward) is not None:
            low, high = forward.ports
            ports = range(low, high + 1) if high - low < _MOST_PORTS else (0,)
            for port in ports:
                yield Remembered(
                    TRANSLATED, Way(dst=address, dst_port=port), Way(src=forward.address), PROTOCOLS[forward.protocol]
                )
        case _:
            yield Remembered(TRANSLATED, reply=Way(dst=address))
            yield Remembered(TRANSLATED, original=Way(dst=address))
            yield Remembered(HAIRPIN, reply=Way(dst=address))


class Handovers:
    """Everything on the loop. ``sequence`` is that of the last change, ``confirmed`` gives what a host has confirmed of
    them; ``send`` gives a message to a host's switch."""

    def __init__(
        self, fabric: Fabric, sequence: Callable[[], int], confirmed: Callable[[str], int], send: Send
    ) -> None:
        self._fabric = fabric
        self._sequence = sequence
        self._confirmed = confirmed
        self._send = send
        self._known: dict[Thing, Holder] = {}
        self._pending: dict[tuple[str, Remembered], int] = {}  # by host: since which change it is to be forgotten
        self._changed = True
        self._wake = asyncio.Event()

    def look(self) -> None:
        """Rows changed: something may have another holder."""
        self._changed = True
        self._wake.set()

    async def run(self) -> None:
        """See what changed hands, and have it forgotten. Until it is cancelled."""
        while True:
            self._wake.clear()
            try:
                if self._changed:
                    self._changed = False
                    self.compare()
                self.tell()
            except Exception:
                log.exception("handovers: this round failed; the next one comes")
            await asyncio.sleep(_PAUSE)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN if self._pending else None):
                    await self._wake.wait()

    def compare(self) -> None:
        """Note what has another holder than before. One that is nobody's for a while is still its last holder's, and
        one that several have (an address in two VLANs) is that one's for as long as it is among them."""
        hosts, sequence = self._fabric.names("host"), self._sequence()
        now: dict[Thing, Holder] = {}
        for thing, holder in held(self._fabric):
            last = self._known.get(thing)
            if thing not in now or (last is not None and last.who == holder.who):
                now[thing] = holder
        for thing, holder in now.items():
            before = self._known.pop(thing, None)
            self._known[thing] = holder
            if before is None or before.who == holder.who:
                continue
            log.info("%s %s is %s's now, and not %s's", thing.kind, thing.name, holder.who, before.who)
            for which in of(thing, before):
                for host in [thing.host] if thing.host else hosts:
                    self._pending[host, which] = sequence
        for thing in list(self._known)[: max(0, len(self._known) - _MOST_KNOWN)]:
            del self._known[thing]
        self._pending = {key: since for key, since in self._pending.items() if key[0] in hosts}

    def tell(self) -> None:
        """Have the hosts that have confirmed forget it."""
        for (host, which), since in list(self._pending.items()):
            if self._confirmed(host) >= since and self._send(host, ct_flush(which)):
                del self._pending[host, which]
