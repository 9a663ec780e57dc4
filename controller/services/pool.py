"""The addresses of a network that DHCP can give: who gets which."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from ipaddress import ip_address
from typing import Literal, Protocol

from controller.leases import Leases
from controller.model.lease import Lease
from controller.services.offers import Offers

DECLINED_SECONDS = 600
_MOST_DECLINED = 4  # addresses at a time that one vNIC can make unusable
GRACE_SECONDS = 120  # for so long after its end a lease still counts
_EXHAUSTED_SECONDS = 1.0  # at least for so long nobody looks for a free address where there was none
_EXHAUSTED_EACH = 2e-4  # seconds more for each address: to look at one takes 3e-6 (measured)


class Whose(Protocol):
    """Addresses that are somebody's otherwise than by DHCP."""

    def owner(self, address: str) -> str | None:
        """The MAC that has it, "" for what is no guest's; None when it is nobody's."""

    def of(self, mac: str) -> Iterable[str]:
        """Those that are this MAC's."""


@dataclass(frozen=True, slots=True)
class Pool:
    """What may be given, of one version of IP. ``reserved`` is by MAC; ``kept`` has all that is reserved for
    anybody."""

    ranges: Sequence[tuple[str, str]]
    reserved: Mapping[str, str]
    kept: Container[str]
    taken: Whose

    def holds(self, address: str) -> bool:
        """Whether it is in a range."""
        number = int(ip_address(address))
        return any(int(ip_address(low)) <= number <= int(ip_address(high)) for low, high in self.ranges)

    def is_open(self, address: str) -> bool:
        """Whether anybody may have it who finds it free."""
        return address not in self.kept and self.taken.owner(address) is None


@dataclass(slots=True)
class Book:
    """One network's leases, of which those of one version of IP count, and what was offered of that."""

    leases: Leases = field(default_factory=Leases)
    version: Literal[4, 6] = 4
    began: float = 0.0  # when there was somebody again to ask for a longer lease
    offers: Offers = field(default_factory=Offers)
    exhausted: float = 0.0  # up to then there is no free address
    ending: dict[str, Lease] = field(default_factory=dict)  # given up by their clients; their rows are there yet

    def all_of(self, mac: str) -> list[Lease]:
        """The client's leases, also those that ran out or were declined."""
        return [lease for ip, lease in self.leases.of_mac(mac).items() if (":" in ip) == (self.version == 6)]

    def of(self, mac: str) -> Lease | None:
        """The client's lease, also one that ran out: the one that lasts longest."""
        mine = [lease for lease in self.all_of(mac) if lease.state == "leased"]
        return max(mine, key=lambda lease: lease.expires, default=None)

    def is_free(self, address: str, mac: str, now: float) -> bool:
        """Whether nobody but this client has it, or was offered it."""
        lease = self.leases.get(address)
        if lease is not None and lasts(lease, self.began, now) and (lease.mac != mac or lease.state == "declined"):
            return False
        return self.offers.whose(address, now) in {None, mac}

    def give_back(self, lease: Lease) -> None:
        """Its client wants it no more."""
        if self.ending.get(lease.ip) is lease:
            return  # it said so before: who repeats it has nobody look for addresses again
        self.give_up(lease)
        self.offers.withdraw(lease.ip)
        self.exhausted = 0.0

    def give_up(self, lease: Lease) -> None:
        """Its client does not use it any more. While the store is told, the row promises its client nothing."""
        waiting = (*self.ending.values(), lease)
        self.ending = {each.ip: each for each in waiting if self.leases.get(each.ip) is each}


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
    had = book.of(mac)
    for address in (had.ip if had is not None else None, book.offers.of(mac), wanted):
        if address is not None and pool.is_open(address) and pool.holds(address) and book.is_free(address, mac, now):
            return address
    if now < book.exhausted:
        return None  # however many ask, all addresses are looked at once in a while only
    looked = 0
    for address in _from(pool, mac):
        if pool.is_open(address) and book.is_free(address, mac, now):
            return address
        looked += 1
    book.exhausted = now + _EXHAUSTED_SECONDS + looked * _EXHAUSTED_EACH
    return None


def called(book: Book, address: str, mac: str, said: str, now: float) -> str:
    """What the client calls itself; its firmware, which does not say, leaves it the name that its system has."""
    had = book.leases.get(address)
    return had.name if had is not None and not said and had.mac == mac and had.expires > now else said


def since(book: Book, address: str, mac: str, name: str, now: float) -> int:
    """When the client got the address under this name: now, unless it has it so."""
    had = book.leases.get(address)
    goes_on = had is not None and (had.mac, had.name) == (mac, name) and had.expires > now
    return had.since if had is not None and goes_on else int(now)


def still_new(book: Book, lease: Lease, now: float) -> int | None:
    """The seconds that are left of the lease in the store, if that says what this one does and was written when less
    than a quarter of its time ago: whoever asks again and again makes no writes (ISC's dhcp-cache-threshold)."""
    had = book.leases.get(lease.ip)
    if had is None or book.ending.get(lease.ip) is had or had != lease.model_copy(update={"expires": had.expires}):
        return None
    left, whole = had.expires - int(now), lease.expires - int(now)
    return left if whole * 3 / 4 < left <= whole else None


def declined(book: Book, lease: Lease, port: str, now: float) -> Lease | None:
    """The lease when its client found somebody else at its address: nobody gets it for a while. None where those behind
    the Port do that too often."""
    before = sum(each.state == "declined" and each.expires > now for each in book.leases.of_port(port).values())
    if before >= _MOST_DECLINED:
        return None
    book.give_up(lease)
    until = int(now) + DECLINED_SECONDS
    return lease.model_copy(update={"state": "declined", "expires": until, "port": port, "name": ""})


def own_address(pool: Pool, mac: str) -> str | None:
    """What is reserved for the client, unless it is another's already, or what is known as its own."""
    reserved = pool.reserved.get(mac)
    if reserved is not None and pool.taken.owner(reserved) in {None, mac}:
        return reserved
    return next(iter(pool.taken.of(mac)), None)


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
