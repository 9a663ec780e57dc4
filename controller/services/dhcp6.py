"""The DHCPv6 server of a network (RFC 8415): what a client asks becomes an answer, and what is to be written first.

A client is known by its MAC address, as in DHCPv4: whatever it calls itself (DUID, IAID), it has one address at a time.
What it calls itself matters only where an address is reserved for that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv6Address, IPv6Network

from controller.model.lease import Lease
from controller.model.subnet import DhcpHost, link_local
from controller.services import dhcp6_message as message
from controller.services.datagrams6 import Datagram6
from controller.services.dhcp6_message import CLIENT_PORT, SERVER_PORT, Kind, Option, Request, Status
from controller.services.pool import Book, Pool, called, choose, declined, since, still_new

_Options = list[tuple[int, bytes]]

_TO_A_SERVER = frozenset({Kind.REQUEST, Kind.RENEW, Kind.RELEASE, Kind.DECLINE})  # RFC 8415, 16
_TO_ANY = frozenset({Kind.SOLICIT, Kind.CONFIRM, Kind.REBIND})


@dataclass(frozen=True, slots=True)
class Server6:
    """What the server of one network says to one client: ``pool`` has that one's reservation by its MAC, ``name`` is
    what that calls it."""

    network: str
    mac: str
    subnets: tuple[IPv6Network, ...]
    pool: Pool
    lease_seconds: int
    domain: str | None = None
    dns: tuple[str, ...] = ()
    name: str | None = None

    @property
    def duid(self) -> bytes:
        """DUID-LL (RFC 8415, 11.4), the same on every host and after every start."""
        return b"\0\3\0\1" + bytes.fromhex(self.mac.replace(":", ""))

    def is_here(self, address: str) -> bool:
        """Whether it is an address of the network's wire."""
        return any(IPv6Address(address) in subnet for subnet in self.subnets)


@dataclass(frozen=True, slots=True)
class Answer6:
    """``lease`` is to be in the store before ``reply`` is sent; ``released`` is an address that is free again."""

    reply: Datagram6 | None = None
    lease: Lease | None = None
    released: str | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A client's message with where it came from: a Port, its MAC, its link-local address."""

    request: Request
    mac: str
    address: str
    port: str


SILENCE = Answer6()


def answer(server: Server6, book: Book, asked: Asked, now: float) -> Answer6:
    """What to do about a client's message; ``now`` is seconds since 1970."""
    request = asked.request
    if not _is_for(server, request):
        return SILENCE
    match request.kind:
        case Kind.SOLICIT if request.rapid:
            return _grant(server, book, asked, now)
        case Kind.SOLICIT:
            return _advertise(server, book, asked, now)
        case Kind.REQUEST | Kind.RENEW | Kind.REBIND:
            return _grant(server, book, asked, now)
        case Kind.CONFIRM:
            return _confirm(server, asked)
        case Kind.RELEASE:
            return _release(server, book, asked)
        case Kind.DECLINE:
            return _decline(server, book, asked, now)
        case Kind.INFORMATION_REQUEST:
            return Answer6(_reply(server, asked, Kind.REPLY, [*_rest(server)]))
    return SILENCE


def reserved_for(hosts: Mapping[tuple[str, str], DhcpHost], asked: Asked) -> DhcpHost | None:
    """The client's reservation; ``hosts`` are by what a client is known by. Its MAC counts first, which it cannot
    forge."""
    said = (("mac", asked.mac), ("id", asked.request.client_id.hex(":")), ("name", asked.request.name))
    return next((hosts[each] for each in said if each in hosts), None)


def _is_for(server: Server6, request: Request) -> bool:
    """RFC 8415, 16.2 to 16.12: which messages name a client, and which a server."""
    if request.kind in _TO_A_SERVER:
        return bool(request.client_id) and request.server_id == server.duid
    if request.kind in _TO_ANY:
        return bool(request.client_id) and not request.server_id
    return request.server_id in {b"", server.duid}


def _advertise(server: Server6, book: Book, asked: Asked, now: float) -> Answer6:
    address = _chosen(server, book, asked, now)
    if address is not None:
        book.offers.put(address, asked.mac, asked.port, now)
    return Answer6(_reply(server, asked, Kind.ADVERTISE, [*_given(server, asked, address), *_rest(server)]))


def _grant(server: Server6, book: Book, asked: Asked, now: float) -> Answer6:
    """An address as it is chosen now, whatever was advertised: who has one already is given no second one."""
    request = asked.request
    address = _chosen(server, book, asked, now)
    lease = None
    if address is not None:
        book.offers.put(address, asked.mac, asked.port, now)  # until its lease is in the store
        name = server.name or called(book, address, asked.mac, request.name, now)
        lease = Lease(
            network=server.network, ip=address, mac=asked.mac, port=asked.port, name=name,
            since=since(book, address, asked.mac, name, now), expires=int(now) + server.lease_seconds,
        )  # fmt: skip
        if (left := still_new(book, lease, now)) is not None:
            server, lease = replace(server, lease_seconds=left), None
    options = [*_given(server, asked, address), *_rest(server)]
    if request.kind is Kind.SOLICIT:
        options.append((Option.RAPID_COMMIT, b""))
    return Answer6(_reply(server, asked, Kind.REPLY, options), lease)


def _confirm(server: Server6, asked: Asked) -> Answer6:
    named = [address for each in asked.request.associations for address in each.addresses]
    if not named:
        return SILENCE  # RFC 8415, 18.3.3
    status = Status.SUCCESS if all(map(server.is_here, named)) else Status.NOT_ON_LINK
    return Answer6(_reply(server, asked, Kind.REPLY, [(Option.STATUS, message.status_code(status))]))


def _release(server: Server6, book: Book, asked: Asked) -> Answer6:
    lease = _own_lease(book, asked)
    if lease is None:
        return Answer6(_reply(server, asked, Kind.REPLY, _unbound(asked)))
    book.give_back(lease)
    return Answer6(_reply(server, asked, Kind.REPLY, [_SUCCESS]), released=lease.ip)


def _decline(server: Server6, book: Book, asked: Asked, now: float) -> Answer6:
    """The client found somebody else at its address: nobody gets it for a while (RFC 8415, 18.3.8)."""
    lease = _own_lease(book, asked)
    if lease is None:
        return Answer6(_reply(server, asked, Kind.REPLY, _unbound(asked)))
    reply = _reply(server, asked, Kind.REPLY, [_SUCCESS])
    return Answer6(reply, declined(book, lease, asked.port, now))


_SUCCESS = (int(Option.STATUS), message.status_code(Status.SUCCESS))


def _own_lease(book: Book, asked: Asked) -> Lease | None:
    """The client's lease of the address that it names."""
    named = {address for each in asked.request.associations for address in each.addresses}
    leases = (book.leases[address] for address in named if address in book.leases)
    return next((lease for lease in leases if lease.mac == asked.mac and lease.state == "leased"), None)


def _unbound(asked: Asked) -> _Options:
    """To one that gives back what it does not have."""
    every = asked.request.associations
    said = [(int(Option.IA_NA), message.association(each.iaid, 0, (), Status.NO_BINDING)) for each in every]
    return [_SUCCESS, *said]


def _chosen(server: Server6, book: Book, asked: Asked, now: float) -> str | None:
    every = asked.request.associations
    wanted = next((a for each in every for a in each.addresses if server.is_here(a)), None)
    return choose(server.pool, book, asked.mac, wanted, now) if every else None


def _given(server: Server6, asked: Asked, address: str | None) -> Iterator[tuple[int, bytes]]:
    """The address in the first association that names it, or in the first one; others are told that there is none, and
    that what they name lasts no longer."""
    every = asked.request.associations
    mine = next((each for each in every if address in each.addresses), every[0] if every else None)
    renews = asked.request.kind in {Kind.RENEW, Kind.REBIND}
    for each in every:
        ended = [(other, 0) for other in each.addresses if other != address]
        if each is mine and address is not None:
            body = message.association(each.iaid, server.lease_seconds, [(address, server.lease_seconds), *ended])
        elif renews:
            body = message.association(each.iaid, 0, ended, None if ended else Status.NO_BINDING)
        else:
            body = message.association(each.iaid, 0, (), Status.NO_ADDRESS)
        yield Option.IA_NA, body


def _rest(server: Server6) -> Iterator[tuple[int, bytes]]:
    if server.dns:
        yield Option.DNS, message.addresses(server.dns)
    if server.domain:
        yield Option.DOMAIN_LIST, message.domain(server.domain)


def _reply(server: Server6, asked: Asked, kind: Kind, options: _Options) -> Datagram6:
    """The datagram that goes back to the client, from the link-local address of its gateway."""
    ids: _Options = [(Option.SERVER_ID, server.duid)]
    if asked.request.client_id:
        ids.append((Option.CLIENT_ID, asked.request.client_id))
    payload = message.encode(kind, asked.request.xid, [*ids, *options])
    source = link_local(server.mac)
    return Datagram6(server.mac, asked.mac, source, asked.address, SERVER_PORT, CLIENT_PORT, payload)
