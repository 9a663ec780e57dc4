"""Which host has which address of a network's pool: allotted when it has guests there, and kept while both are there.

Each is a number of the store, which no two have: also two controllers never give one address twice. What is not used
any more goes back by the Sweeper, once every host has confirmed that it answers for it no longer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from controller.desired import NAT_ADDRESSES, Desired
from controller.fabric import NAT_ADDRESS, Fabric
from controller.model.nat import Nat
from controller.rows import nat_name
from controller.store.rows import NumberRequest
from controller.store.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Lacking:
    """A host with guests of the network, which gets no address of its pool."""

    network: str
    host: str
    reason: str
    remedy: str


class NatAddresses:
    """Everything on the loop. ``changing`` is held while others write what is wanted; ``allotted`` is told what was
    given, as the fabric takes it."""

    def __init__(
        self,
        store: Store,
        desired: Desired,
        fabric: Fabric,
        changing: asyncio.Lock,
        allotted: Callable[[set[tuple[str, str]]], None],
    ) -> None:
        self.lacking: list[Lacking] = []
        self._store = store
        self._desired = desired
        self._fabric = fabric
        self._changing = changing
        self._allotted = allotted

    async def allot(self) -> bool:
        """Give hosts the addresses that they need now; whether there were any. Raises StoreError."""
        requests, lacking = wanted(self._desired, self._fabric)
        for each in set(lacking) - set(self.lacking):
            log.warning("Network %s: %s", each.network, each.reason)
        self.lacking = lacking
        if not requests:
            return False
        async with self._changing:  # by what the rows say then
            requests, _ = wanted(self._desired, self._fabric)
            await self._store.commit((), numbers=requests)
        self._desired.sequence += 1
        self._allotted({(NAT_ADDRESS, request.name) for request in requests})
        return True


def wanted(desired: Desired, fabric: Fabric) -> tuple[list[NumberRequest], list[Lacking]]:
    """What to allot now, and where nothing can be."""
    requests: list[NumberRequest] = []
    lacking: list[Lacking] = []
    taken = set(desired.numbers(NAT_ADDRESSES).values())
    free: dict[tuple[str, IPv4Network], Iterator[IPv4Address]] = {}
    for network, nat, host, subnet in _without(desired, fabric):
        if (network, subnet) not in free:
            free[network, subnet] = (each for each in nat.within(subnet) if int(each) not in taken)
        if (address := next(free[network, subnet], None)) is not None:
            number = int(address)
            requests.append(NumberRequest(NAT_ADDRESSES, nat_name(network, host, str(address)), number, number))
            continue
        pool, none = ", ".join(nat.addresses), next(nat.within(subnet), None) is None
        reason = f"its pool {pool} has none of {subnet}" if none else f"no address of its pool {pool} is left"
        remedy = f"add addresses of {subnet} to its nat.addresses"
        lacking.append(Lacking(network, host, f"{reason} for Host {host}", remedy))
    return requests, lacking


def _without(desired: Desired, fabric: Fabric) -> Iterator[tuple[str, Nat, str, IPv4Network]]:
    """Networks with a pool, and hosts with guests of theirs and none of its addresses, with their subnet outside."""
    reader = fabric.reader()
    for network, spec in sorted(desired.networks.items()):
        if (nat := spec.nat) is None or not nat.addresses:
            continue
        for host in sorted(reader.hosts_of_network(network)):  # few of a large fleet, and it is asked at each change
            its = desired.hosts.get(host)
            if (
                its is not None
                and its.external is not None
                and reader.has_vnic(network, host)
                and reader.nat_address(network, host) is None
            ):
                yield network, nat, host, its.external.subnet


def addresses(desired: Desired, fabric: Fabric, network: str) -> dict[str, str]:
    """The addresses of a network's pool that are hosts', by host."""
    reader = fabric.reader()
    found = ((host, reader.nat_address(network, host)) for host in sorted(desired.hosts))
    return {host: address for host, address in found if address is not None}
