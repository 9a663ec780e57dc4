"""Whose each address of a network is, by what is registered and by what was learned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

_Claim = tuple[int, str, str]  # rank, Port, MAC


class Addresses:
    """Of all networks. An address that several claim is its whose rank is the lowest, then whose Port comes first."""

    def __init__(self) -> None:
        self._claims: dict[tuple[str, str], set[_Claim]] = {}  # by network and address
        self._of: dict[tuple[str, str], dict[str, None]] = {}  # by network and MAC: its addresses, in order
        self._by_port: dict[tuple[str, int], tuple[str, str, tuple[str, ...]]] = {}

    def put(self, port: str, rank: int, network: str, mac: str, addresses: Iterable[str]) -> None:
        """A Port claims these, and nothing else of this rank any more."""
        self.drop(port, rank)
        claimed = tuple(dict.fromkeys(addresses))
        if not claimed:
            return
        self._by_port[port, rank] = network, mac, claimed
        for address in claimed:
            self._claims.setdefault((network, address), set()).add((rank, port, mac))
            self._of.setdefault((network, mac), {})[address] = None

    def drop(self, port: str, rank: int) -> None:
        """It claims nothing of this rank."""
        found = self._by_port.pop((port, rank), None)
        if found is None:
            return
        network, mac, addresses = found
        own = self._of[network, mac]
        for address in addresses:
            claims = self._claims[network, address]
            claims.discard((rank, port, mac))
            if not any(whose == mac for _, _, whose in claims):
                own.pop(address, None)
            if not claims:
                del self._claims[network, address]
        if not own:
            del self._of[network, mac]

    def owner(self, network: str, address: str) -> str | None:
        """The MAC of whoever has it; None when nobody claims it."""
        claims = self._claims.get((network, address))
        return min(claims)[2] if claims else None

    def of(self, network: str, mac: str) -> Iterator[str]:
        """The addresses that are this MAC's."""
        return (each for each in self._of.get((network, mac), ()) if self.owner(network, each) == mac)
