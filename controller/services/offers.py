"""What a network's DHCP server offered a moment ago, and keeps for those clients."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

OFFER_SECONDS = 30.0  # for so long nobody else is offered what one was


@dataclass(frozen=True, slots=True)
class Offer:
    """``port`` is the Port behind which the client is; ``until`` counts seconds."""

    mac: str
    port: str
    until: float


class Offers:
    """By address; a client has one. They end in the order in which they were made."""

    def __init__(self) -> None:
        self._all: dict[str, Offer] = {}
        self._by_mac: dict[str, str] = {}
        self._by_port: dict[str, set[str]] = {}

    def put(self, address: str, mac: str, port: str, now: float) -> None:
        """Keep an address for this client, and no other one."""
        self._end(now)
        self.withdraw(self._by_mac.get(mac, address))
        self.withdraw(address)
        self._all[address] = Offer(mac, port, now + OFFER_SECONDS)
        self._by_mac[mac] = address
        self._by_port.setdefault(port, set()).add(mac)

    def withdraw(self, address: str) -> None:
        """It is nobody's any more."""
        offer = self._all.pop(address, None)
        if offer is not None:
            del self._by_mac[offer.mac]
            self._by_port[offer.port].discard(offer.mac)
            if not self._by_port[offer.port]:
                del self._by_port[offer.port]

    def whose(self, address: str, now: float) -> str | None:
        """The MAC that it is kept for; None when it is kept for nobody."""
        offer = self._all.get(address)
        return offer.mac if offer is not None and offer.until > now else None

    def of(self, mac: str) -> str | None:
        """What the client was offered last."""
        return self._by_mac.get(mac)

    def behind(self, port: str, now: float) -> Set[str]:
        """The MACs behind a Port that something is kept for."""
        self._end(now)
        return self._by_port.get(port, frozenset())

    def _end(self, now: float) -> None:
        while self._all:
            address = next(iter(self._all))
            if self._all[address].until > now:
                break
            self.withdraw(address)
