"""The addresses of a network that DHCP can give: who gets which."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from ipaddress import ip_address

from controller.model.lease import Lease

DECLINED_SECONDS = 600
_MOST_DECLINED = 4  # addresses at a time that one client can make unusable
GRACE_SECONDS = 120  # for so long after its end a lease still counts
OFFER_SECONDS = 30.0  # for so long nobody else is offered what one was


@dataclass(frozen=True, slots=True)
class Pool:
    """What may be given, of one version of IP. ``reserved`` is by MAC; ``taken`` are addresses that are somebody's
    otherwise, by address with the MAC that has them, "" for the gateway."""

    ranges: Sequence[tuple[str, str]] = ()
    reserved: Mapping[str, str] = field(default_factory=dict)
    taken: Mapping[str, str] = field(default_factory=dict)

    def holds(self, address: str) -> bool:
        """Whether it is in a range."""
        number = int(ip_address(address))
        return any(int(ip_address(low)) <= number <= int(ip_address(high)) for low, high in self.ranges)


@dataclass(slots=True)
class Book:
    """One network's leases of one version of IP by address, and what was offered: address → (MAC, until when)."""

    leases: Mapping[str, Lease] = field(default_factory=dict)
    offers: dict[str, tuple[str, float]] = field(default_factory=dict)
    began: float = 0.0  # when there was somebody again to ask for a longer lease

    def of(self, mac: str) -> Lease | None:
        """The client's lease, also one that ran out: the one that lasts longest."""
        mine = [lease for lease in self.leases.values() if lease.mac == mac and lease.state == "leased"]
        return max(mine, key=lambda lease: lease.expires, default=None)

    def is_free(self, address: str, mac: str, now: float) -> bool:
        """Whether nobody but this client has it, or was offered it."""
        lease, offer = self.leases.get(address), self.offers.get(address)
        if lease is not None and lasts(lease, self.began, now) and (lease.mac != mac or lease.state == "declined"):
            return False
        return offer is None or offer[0] == mac or offer[1] <= now

    def offer(self, address: str, mac: str, now: float) -> None:
        """Keep it for this client for a while."""
        self.offers = {
            other: (whose, until) for other, (whose, until) in self.offers.items() if until > now and whose != mac
        }
        self.offers[address] = (mac, now + OFFER_SECONDS)


def lasts(lease: Lease, began: float, now: float) -> bool:
    """Whether the address is still the client's: for a while longer than the lease, since it may just be asking for
    more. Where it ended shortly before there was somebody again to ask, from then on."""
    if lease.state == "declined":
        return lease.expires > now
    just_missed = lease.expires > began - GRACE_SECONDS
    return (max(lease.expires, began) if just_missed else lease.expires) + GRACE_SECONDS > now


def choose(pool: Pool, book: Book, mac: str, wanted: str | None, now: float) -> str | None:
    """The address to offer: its own, the one that it had, the one that it was offered, the one that it wants, or the
    first free one; None when none is left."""
    own = own_address(pool, mac)
    if own is not None and book.is_free(own, mac, now):
        return own  # it waits for its client, which gets no other one
    others = {*pool.reserved.values(), *pool.taken}
    had = book.of(mac)
    offered = next((address for address, (whose, _) in book.offers.items() if whose == mac), None)
    for address in (had.ip if had is not None else None, offered, wanted):
        if address is not None and address not in others and pool.holds(address) and book.is_free(address, mac, now):
            return address
    free = (each for each in _from(pool, mac) if each not in others and book.is_free(each, mac, now))
    return next(free, None)


def since(book: Book, address: str, mac: str, name: str, now: float) -> int:
    """When the client got the address under this name: now, unless it has it so."""
    had = book.leases.get(address)
    goes_on = had is not None and (had.mac, had.name) == (mac, name) and had.expires > now
    return had.since if had is not None and goes_on else int(now)


def declined(book: Book, lease: Lease, port: str, now: float) -> Lease | None:
    """The lease when its client found somebody else at its address: nobody gets it for a while. None for a client that
    does that too often."""
    before = sum(
        each.state == "declined" and each.mac == lease.mac and each.expires > now for each in book.leases.values()
    )
    if before >= _MOST_DECLINED:
        return None
    until = int(now) + DECLINED_SECONDS
    return lease.model_copy(update={"state": "declined", "expires": until, "port": port, "name": ""})


def own_address(pool: Pool, mac: str) -> str | None:
    """What is reserved for the client, unless it is another's already, or what is known as its own."""
    reserved = pool.reserved.get(mac)
    if reserved is not None and pool.taken.get(reserved, mac) == mac:
        return reserved
    return next((address for address, whose in pool.taken.items() if whose == mac), None)


def _from(pool: Pool, mac: str) -> Iterator[str]:
    """All addresses of the ranges, from one on that goes with the client: it likely gets the same one again."""
    spans = [(int(ip_address(low)), int(ip_address(high))) for low, high in pool.ranges]
    total = sum(high - low + 1 for low, high in spans)
    if not total:
        return
    family = type(ip_address(pool.ranges[0][0]))
    start = int.from_bytes(blake2b(mac.encode(), digest_size=4).digest(), "big") % total
    for n in range(total):
        at = (start + n) % total
        for low, high in spans:
            if at <= high - low:
                yield str(family(low + at))
                break
            at -= high - low + 1
