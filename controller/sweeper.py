"""Numbers that nothing refers to any more are given back, once every host has confirmed that it has forgotten them.

A segment's number that went to another network while some host still sends with it would join the two; a physical
network's, while a patch port still leads elsewhere, likewise. An address of a pool would be two hosts'.
"""

from __future__ import annotations

from collections.abc import Callable

from controller.desired import HOSTS, NAT_ADDRESSES, PHYSICAL_NETWORKS, SEGMENTS, Desired
from controller.rows import nat_allotments, nat_name, outside_segment, segment_name
from controller.store.store import Store

_Key = tuple[str, str]


class Sweeper:
    """``confirmed()`` is the sequence that every host has confirmed in OpenFlow and OVSDB."""

    def __init__(self, store: Store, desired: Desired, confirmed: Callable[[], int]) -> None:
        self._store = store
        self._desired = desired
        self._confirmed = confirmed
        self._since: dict[_Key, int] = {}
        self._cleaned: set[str] = set()

    def host_cleaned(self, name: str) -> None:
        """The host was left with nothing of ours. A host that was only forgotten keeps its number, and with it its
        datapath id: it may still run, and must not be taken for another."""
        self._cleaned.add(name)

    def look(self, sequence: int) -> None:
        """Specs changed with this sequence: see what is in use."""
        self._cleaned -= self._desired.hosts.keys()  # it was cleaned, and is there again
        self._since = {key: self._since.get(key, sequence) for key in self._unused()}

    async def sweep(self) -> None:
        """Give back what can be. Nobody else may be about to write specs meanwhile. Raises StoreError."""
        confirmed = self._confirmed()
        for key in self._unused():
            if self._since.get(key, confirmed + 1) <= confirmed:
                await self._store.release(*key)

    def _unused(self) -> set[_Key]:
        desired = self._desired
        hosts = {**desired.leaving, **desired.hosts}
        used = {(HOSTS, name) for name in hosts}
        for spec in hosts.values():
            used |= {(PHYSICAL_NETWORKS, physical) for physical in spec.uplinks}
            if spec.external is not None:
                used.add((SEGMENTS, outside_segment(spec.external)))
        for name, network in desired.networks.items():
            used |= {(SEGMENTS, segment_name(name, vlan)) for vlan in network.vlans()}
            if network.physical_network is not None:
                used.add((PHYSICAL_NETWORKS, network.physical_network))
        allotted = nat_allotments(desired.numbers(NAT_ADDRESSES), desired.networks, hosts)
        used |= {(NAT_ADDRESSES, nat_name(*key, address)) for key, address in allotted.items()}
        held = {(pool, name) for pool in (PHYSICAL_NETWORKS, SEGMENTS, NAT_ADDRESSES) for name in desired.numbers(pool)}
        held |= {(HOSTS, name) for name in self._cleaned if name in desired.numbers(HOSTS)}
        return held - used
