"""The DHCPv4 server of a network (RFC 2131): what a client asks becomes an answer, and what is to be written first.

A client is known by its MAC address alone, which a vNIC cannot forge: firmware and system of one guest, which call
themselves differently (option 61), get one address. The server is the only one of its network, and knows it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from controller.model.lease import Lease
from controller.model.subnet import Boot
from controller.services import dhcp_message as message
from controller.services.datagrams import Datagram
from controller.services.dhcp_message import CLIENT_PORT, NOBODY, SERVER_PORT, Kind, Option, Reply, Request
from controller.services.pool import Book, Pool, called, choose, declined, since, still_new

_NOT_YOURS = b"not an address for this client"
_EVERYWHERE = IPv4Network("0.0.0.0/0")
_ALL_MACS, _ALL = "ff:ff:ff:ff:ff:ff", "255.255.255.255"


@dataclass(frozen=True, slots=True)
class Server:
    """What the server of one network says. ``mtu`` is bytes; ``router`` says whether guests are to send to the gateway
    what is for elsewhere, ``answers_dns`` that the gateway is a name server, which they are told unless ``dns`` names
    others; ``names`` are those of reservations, by MAC. ``routers`` are told instead of the gateway; ``routes`` are
    subnets, each with the address that leads there; ``options`` are code and value of what else is told."""

    network: str
    mac: str
    gateways: tuple[IPv4Interface, ...]
    pool: Pool
    lease_seconds: int
    mtu: int
    router: bool
    domain: str | None = None
    dns: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    answers_dns: bool = False
    routers: tuple[str, ...] | None = None
    routes: tuple[tuple[IPv4Network, str], ...] = ()
    boot: Boot | None = None
    options: tuple[tuple[int, bytes], ...] = ()

    def gateway_of(self, address: str) -> IPv4Interface | None:
        """The gateway in the address's subnet."""
        return next((each for each in self.gateways if IPv4Address(address) in each.network), None)

    def routers_in(self, gateway: IPv4Interface) -> tuple[str, ...]:
        """Where guests of the gateway's subnet send what is for elsewhere."""
        if self.routers is None:
            return (str(gateway.ip),) if self.router else ()
        return tuple(each for each in self.routers if IPv4Address(each) in gateway.network)

    def routes_in(self, gateway: IPv4Interface) -> tuple[tuple[IPv4Network, str], ...]:
        """The routes that such guests are told. Who gets any ignores the routers told otherwise (RFC 3442), so the way
        to everywhere else is one of them."""
        near = tuple((to, via) for to, via in self.routes if IPv4Address(via) in gateway.network)
        return (*near, *((_EVERYWHERE, via) for via in self.routers_in(gateway)[:1])) if near else ()


@dataclass(frozen=True, slots=True)
class Answer:
    """``lease`` is to be in the store before ``reply`` is sent; ``released`` is an address that is free again."""

    reply: Datagram | None = None
    lease: Lease | None = None
    released: str | None = None


SILENCE = Answer()


def answer(server: Server, book: Book, request: Request, port: str, now: float) -> Answer:
    """What to do about a client's message. ``port`` is the Port that it came from, ``now`` seconds since 1970."""
    if request.giaddr != NOBODY:
        return SILENCE  # from a relay agent: clients of other wires are none of ours
    match request.kind:
        case Kind.DISCOVER:
            return _offer(server, book, request, port, now)
        case Kind.REQUEST:
            return _grant(server, book, request, port, now)
        case Kind.DECLINE:
            return _decline(server, book, request, port, now)
        case Kind.RELEASE:
            return _release(book, request)
        case Kind.INFORM:
            return Answer(_reply(server, request, Kind.ACK, request.ciaddr, lasts=False))
    return SILENCE


def _offer(server: Server, book: Book, request: Request, port: str, now: float) -> Answer:
    wanted = request.requested if request.requested and server.gateway_of(request.requested) else None
    address = choose(server.pool, book, request.chaddr, wanted, now)
    if address is None:
        return SILENCE
    book.offers.put(address, request.chaddr, port, now)
    return Answer(_reply(server, request, Kind.OFFER, address))


def _grant(server: Server, book: Book, request: Request, port: str, now: float) -> Answer:
    """RFC 2131, 4.3.2: a choice among offers, a restart, a renewal."""
    if request.server is not None and request.server not in {str(each.ip) for each in server.gateways}:
        return SILENCE  # it chose another server
    address = request.requested or request.ciaddr
    # What it would be offered now: who has one already is given no second one.
    if server.gateway_of(address) is None or address != choose(server.pool, book, request.chaddr, address, now):
        return Answer(_reply(server, request, Kind.NAK, NOBODY))
    book.offers.put(address, request.chaddr, port, now)  # until its lease is in the store
    name = server.names.get(request.chaddr) or called(book, address, request.chaddr, request.host_name, now)
    lease = Lease(
        network=server.network, ip=address, mac=request.chaddr, port=port, name=name,
        since=since(book, address, request.chaddr, name, now), expires=int(now) + server.lease_seconds,
    )  # fmt: skip
    if (left := still_new(book, lease, now)) is not None:
        return Answer(_reply(replace(server, lease_seconds=left), request, Kind.ACK, address))
    return Answer(_reply(server, request, Kind.ACK, address), lease)


def _release(book: Book, request: Request) -> Answer:
    lease = book.leases.get(request.ciaddr)
    if lease is None or lease.mac != request.chaddr or lease.state != "leased":
        return SILENCE
    book.give_back(lease)
    return Answer(released=request.ciaddr)


def _decline(server: Server, book: Book, request: Request, port: str, now: float) -> Answer:
    """The client found somebody else at its address: nobody gets it for a while (RFC 2131, 4.3.3)."""
    lease = book.leases.get(request.requested or "")
    if lease is None or lease.mac != request.chaddr or lease.state != "leased":
        return SILENCE
    return Answer(lease=declined(book, lease, port, now))


def _reply(server: Server, request: Request, kind: Kind, address: str, *, lasts: bool = True) -> Datagram | None:
    """The datagram that goes back (RFC 2131, 4.1); None where no gateway of ours is in the client's subnet."""
    gateway = server.gateway_of(address) if kind is not Kind.NAK else next(iter(server.gateways), None)
    if gateway is None:
        return None
    if kind is Kind.NAK:
        options: list[tuple[int, bytes]] = [(Option.SERVER, gateway.ip.packed), (Option.MESSAGE, _NOT_YOURS)]
    else:
        options = list(_told(server, request, gateway, lasts=lasts))
    boot = server.boot if kind is not Kind.NAK else None
    reply = Reply(
        kind, address if lasts else NOBODY, options, min(request.longest, max(server.mtu, message.SHORTEST)),
        (boot and boot.server) or NOBODY, boot.file if boot is not None else "",
    )  # fmt: skip
    payload = message.encode(request, reply)
    if kind is Kind.NAK or (request.broadcast and request.ciaddr == NOBODY):
        mac, to = _ALL_MACS, _ALL
    else:
        mac, to = request.chaddr, request.ciaddr if request.ciaddr != NOBODY else address
    return Datagram(server.mac, mac, str(gateway.ip), to, SERVER_PORT, CLIENT_PORT, payload)


def _told(server: Server, request: Request, gateway: IPv4Interface, *, lasts: bool) -> Iterator[tuple[int, bytes]]:
    """What a client with an address in the gateway's subnet is told, in the order of what it needs most."""
    yield Option.SERVER, gateway.ip.packed
    if lasts:
        yield Option.LEASE, message.seconds(server.lease_seconds)
        yield Option.RENEWAL, message.seconds(server.lease_seconds // 2)  # RFC 2131, 4.4.5
        yield Option.REBINDING, message.seconds(server.lease_seconds * 7 // 8)
    yield Option.SUBNET_MASK, gateway.netmask.packed
    yield Option.BROADCAST, gateway.network.broadcast_address.packed
    if routers := server.routers_in(gateway):
        yield Option.ROUTER, message.addresses(*routers)
    if server.dns or server.answers_dns:
        yield Option.DNS, message.addresses(*(server.dns or (str(gateway.ip),)))
    if server.domain:
        yield Option.DOMAIN_NAME, server.domain.encode("ascii")
    yield Option.MTU, server.mtu.to_bytes(2, "big")
    if request.chaddr in server.names and Option.HOST_NAME in request.asked:
        yield Option.HOST_NAME, server.names[request.chaddr].encode("ascii")
    if routes := server.routes_in(gateway):
        yield Option.ROUTES, message.routes(routes)
    yield from ((code, value) for code, value in _more(server, gateway) if code in request.asked or not request.asked)


def _more(server: Server, gateway: IPv4Interface) -> Iterator[tuple[int, bytes]]:
    """What only a client is told that asks for it, or that asks for nothing by number."""
    if server.boot is not None:
        yield Option.BOOT_FILE, server.boot.file.encode("ascii")
        if server.boot.server is not None:
            yield Option.TFTP_SERVER, server.boot.server.encode("ascii")
    if routes := server.routes_in(gateway):
        yield Option.ROUTES_OF_MICROSOFT, message.routes(routes)
    yield from server.options
