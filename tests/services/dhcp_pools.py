"""Pools of addresses as tests write them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from controller.services.pool import Pool


@dataclass(frozen=True)
class Known:
    """Addresses that are somebody's, by address with that one's MAC."""

    macs: Mapping[str, str]

    def owner(self, address: str) -> str | None:
        return self.macs.get(address)

    def of(self, mac: str) -> Iterable[str]:
        return [address for address, whose in self.macs.items() if whose == mac]


def pool_of(ranges: Sequence[tuple[str, str]], reserved: Mapping[str, str], taken: Mapping[str, str]) -> Pool:
    return Pool(ranges, reserved, frozenset(reserved.values()), Known(taken))
