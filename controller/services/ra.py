"""Router advertisements for the whole fleet: to whoever asks, and to every vNIC from time to time.

When it is whose turn is not stored: a controller that starts tells everybody soon, spread over some seconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Set
from hashlib import blake2b
from ipaddress import IPv6Interface

from controller.desired import Desired
from controller.errors import OpenFlowError, PacketError
from controller.fabric import Fabric
from controller.model.kinds import network_mtu, overlay_mtu
from controller.model.network import NetworkSpec, network_gateway_mac
from controller.openflow.decode import PacketIn
from controller.services import router_advert
from controller.services.askers import Asker, answer_to, asker_of
from controller.services.router_advert import ROUTER_SECONDS, Advert, Prefix

log = logging.getLogger(__name__)

EARLIEST_SECONDS, LATEST_SECONDS = 200.0, 600.0  # RFC 4861, 6.2.1: between two of them
SOON_SECONDS = 16.0  # RFC 4861, 6.2.4: of the first ones
_TICK = 1.0

Send = Callable[[str, bytes], bool]


def advert_of(name: str, spec: NetworkSpec, mtu: int) -> Advert | None:
    """What a network's gateway says; None in a network without IPv6."""
    subnets = [IPv6Interface(subnet).network for subnet in spec.subnets if ":" in subnet]
    if not subnets:
        return None
    autonomous, dhcp = spec.autonomous(), spec.dhcp
    prefixes = tuple(Prefix(subnet, subnet in autonomous) for subnet in subnets)
    managed = dhcp is not None and any(map(dhcp.leases_in, subnets))
    dns = dhcp.dns_of(6) if dhcp is not None else ()
    leads_on = ROUTER_SECONDS if spec.is_routed else 0
    return Advert(network_gateway_mac(name, spec), prefixes, mtu, managed, dhcp is not None, dns, leads_on)


class RouterAdverts:
    """Everything on the loop. ``deliver`` is the number of the table that hands a packet to the vNIC; ``send`` gives a
    message to a host's switch."""

    def __init__(self, desired: Desired, fabric: Fabric, deliver: int, send: Send) -> None:
        self._desired = desired
        self._fabric = fabric
        self._deliver = deliver
        self._send = send
        self._due: dict[Asker, tuple[bytes, float]] = {}  # what each vNIC was told last, and when it is told again

    async def run(self) -> None:
        """Tell every vNIC from time to time, and soon when what is said becomes another. Until it is cancelled."""
        while True:
            try:
                self.tick(asyncio.get_running_loop().time())
            except Exception:
                log.exception("router advertisements: this round failed; the next one comes")
            await asyncio.sleep(_TICK)

    def take(self, host: str, packet: PacketIn) -> None:
        """A packet in which a vNIC of the host asks for routers."""
        try:
            asker = asker_of(self._desired, host, packet)
        except (OpenFlowError, PacketError) as error:
            log.debug("%s: router solicitation: %s", host, error)
            return
        if (frame := self._frame(asker.network, overlay_mtu(self._desired.hosts.values()))) is not None:
            self._send(host, answer_to(asker, frame, self._deliver))

    def tick(self, now: float) -> None:
        """Tell those whose turn it is; ``now`` counts seconds."""
        limit = overlay_mtu(self._desired.hosts.values())
        said = ((name, self._frame(name, limit)) for name in self._desired.networks)
        frames = {name: frame for name, frame in said if frame is not None}
        known, self._due = self._due, {}
        for asker in self._vnics(frames.keys()):
            frame = frames[asker.network]
            told, due = known.get(asker, (b"", 0.0))
            if told != frame:
                told, due = frame, now + _share(asker, b"") * SOON_SECONDS
            elif due <= now and self._send(asker.host, answer_to(asker, frame, self._deliver)):
                between = EARLIEST_SECONDS + _share(asker, str(due).encode()) * (LATEST_SECONDS - EARLIEST_SECONDS)
                due = now + between
            self._due[asker] = told, due

    def _frame(self, network: str, limit: int | None) -> bytes | None:
        """What is said in a network; ``limit`` is the MTU of tunnels."""
        spec = self._desired.networks.get(network)
        advert = advert_of(network, spec, network_mtu(spec, limit)) if spec is not None else None
        return router_advert.encode(advert) if advert is not None else None

    def _vnics(self, networks: Set[str]) -> Iterator[Asker]:
        """The vNICs of these networks where they are, in each segment of theirs."""
        for network in sorted(networks):
            for port in self._fabric.ports_of(network):
                for part in () if port.arriving else port.memberships:
                    yield Asker(port.host, port.ofport, part.segment, port.name, network)


def _share(asker: Asker, salt: bytes) -> float:
    """From 0 to 1, as good as random and for everybody another."""
    digest = blake2b(f"{asker.host} {asker.ofport} {asker.segment}".encode() + salt, digest_size=4).digest()
    return int.from_bytes(digest, "big") / 2**32
