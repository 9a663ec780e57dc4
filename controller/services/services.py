"""The services together: which of them a packet is for, and which addresses guests have by them."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from controller.desired import Desired
from controller.engine import Engine
from controller.openflow.decode import PacketIn
from controller.pipeline.tables import (
    DELIVER,
    ERROR_IN,
    ERROR_OUT,
    FORWARD,
    GATEWAY,
    HOP,
    HOP_KNOWN,
    ICMP_ERROR,
    NAT_OUT,
    OVERSIZED,
)
from controller.services import arp, datagrams, dns_message, nd
from controller.services.announcements import Announcements
from controller.services.dhcp_service import DhcpService, Lasting, lasting, still_lasting
from controller.services.dns_service import DnsService
from controller.services.excess import Excess
from controller.services.floating_errors import FloatingErrors
from controller.services.icmp_errors import IcmpErrors, Ways
from controller.services.next_hops import NextHops
from controller.services.ra import RouterAdverts
from controller.services.router_advert import is_solicitation
from controller.store.rows import Change
from controller.store.store import Store
from controller.views import ExternalView

Service = Callable[[str, PacketIn], None]


class Services:
    """Everything on the loop. ``send`` gives a message to a host's switch."""

    def __init__(self, store: Store, desired: Desired, engine: Engine, send: Callable[[str, bytes], bool]) -> None:
        self._store = store
        self._desired = desired
        self._engine = engine
        self._number = engine.pipeline.number
        self.excess = Excess()
        self._dhcp = DhcpService(store, desired, self._number[DELIVER], send, self.excess)
        self._dns = DnsService(desired, self._number[DELIVER], send, excess=self.excess)
        self._adverts = RouterAdverts(desired, engine.fabric, self._number[DELIVER], send)
        self.next_hops = NextHops(lambda: desired.hosts, self._outside, self._number[FORWARD], self._number[HOP], send)
        ways = Ways(self._number[DELIVER], self._number[HOP], self._number[NAT_OUT])
        self._errors = IcmpErrors(engine.fabric.reader, ways, send)
        reader, number = engine.fabric.reader, self._number
        self._announcements = Announcements(reader, number[FORWARD], send)
        self._floating = FloatingErrors(reader, number[FORWARD], number[HOP], number[GATEWAY], send)
        self.leased: Lasting = {}
        """The addresses that guests have by DHCP now, by network and MAC."""
        self._started = time.time()

    def work(self) -> dict[str, Coroutine[Any, Any, None]]:
        """What runs as long as the controller does, by name."""
        return {
            "dhcp": self._dhcp.run(),
            "dns": self._dns.run(),
            "router advertisements": self._adverts.run(),
            "next hops": self.next_hops.run(),
            "announcements": self._announcements.run(),
        }

    def tables(self) -> dict[int, Service]:
        """Who takes the packets that a table sends to the controller, by the table's number."""
        return {
            self._number[GATEWAY]: self._asked_gateway,
            self._number[HOP_KNOWN]: self.next_hops.unknown,
            self._number[ICMP_ERROR]: self._errors.unrouted,
            self._number[OVERSIZED]: self._errors.too_big,
            self._number[ERROR_IN]: self._floating.inward,
            self._number[ERROR_OUT]: self._floating.outward,
        }

    def changed(self, changes: Sequence[Change]) -> None:
        """Rows changed."""
        self._dhcp.changed(changes)
        self._dns.changed(changes)
        self._announcements.look()
        if any(change.kind in {"Host", "Network"} for change in changes):
            self._errors.changed()

    def allotted(self) -> None:
        """Hosts have other addresses of pools."""
        self._announcements.look()

    def leases_changed(self, changes: Iterable[Change] | None = None) -> set[str]:
        """Look at the leases anew, or at those only that changed; gives the hosts whose guests have other addresses
        than before."""
        before, now = self.leased, time.time()
        leases = self._desired.leases
        if changes is None:
            self.leased = lasting(leases, self._started, now)
        else:
            self.leased = still_lasting(before, leases, changes, self._started, now)
        macs = {mac for (_, mac), _ in before.items() ^ self.leased.items()}
        return {status.host for status in self._desired.statuses.values() if status.host and status.mac in macs}

    async def forget(self) -> None:
        """Take leases away that ended long ago. Raises StoreError."""
        if forgotten := self._dhcp.forgotten(time.time()):
            await self._store.commit(forgotten)

    def _asked_gateway(self, host: str, packet: PacketIn) -> None:
        if packet.data[12:14] == arp.ETHERTYPE.to_bytes(2, "big") or nd.is_advertisement(packet.data):
            self.next_hops.told(host, packet)
        elif datagrams.destination_port(packet.data) == dns_message.PORT:
            self._dns.take(host, packet)
        elif is_solicitation(packet.data):
            self._adverts.take(host, packet)
        else:
            self._dhcp.take(host, packet)

    def _outside(self, host: str) -> ExternalView | None:
        """Where the host meets the outside."""
        view = self._engine.fabric.reader().host(host)
        return view.external if view is not None else None
