"""The leases of one network: by address, and found by who has them without looking at the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from types import MappingProxyType

from controller.model.lease import Lease

_NONE: Mapping[str, Lease] = MappingProxyType({})


class Leases(MutableMapping[str, Lease]):
    """By address."""

    def __init__(self) -> None:
        self._all: dict[str, Lease] = {}
        self._by_mac: dict[str, dict[str, Lease]] = {}
        self._by_port: dict[str, dict[str, Lease]] = {}

    def of_mac(self, mac: str) -> Mapping[str, Lease]:
        """Those of a client, of both versions of IP, by address."""
        return self._by_mac.get(mac, _NONE)

    def of_port(self, port: str) -> Mapping[str, Lease]:
        """Those of the clients behind a Port, by address."""
        return self._by_port.get(port, _NONE)

    def __getitem__(self, address: str) -> Lease:
        return self._all[address]

    def __setitem__(self, address: str, lease: Lease) -> None:
        self.pop(address, None)
        self._all[address] = lease
        self._by_mac.setdefault(lease.mac, {})[address] = lease
        self._by_port.setdefault(lease.port, {})[address] = lease

    def __delitem__(self, address: str) -> None:
        lease = self._all.pop(address)
        for index, key in ((self._by_mac, lease.mac), (self._by_port, lease.port)):
            del index[key][address]
            if not index[key]:
                del index[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)
