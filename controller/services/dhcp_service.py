"""DHCP for the whole fleet: packets of any host's vNICs in, answers out, leases in the store between the two."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_address

from controller.desired import LEASES, Desired
from controller.errors import Conflict, FleetError, OpenFlowError, PacketError
from controller.model.guard import checks
from controller.model.kinds import network_mtu, overlay_mtu
from controller.model.lease import Lease, lease_row
from controller.model.network import DEFAULT_MAX_MACS, NetworkSpec, network_gateway_mac
from controller.model.subnet import Dhcp
from controller.openflow.decode import PacketIn
from controller.services import datagrams, datagrams6, dhcp6_message, dhcp_message
from controller.services.askers import Asker, answer_to, asker_of
from controller.services.datagrams import Datagram
from controller.services.datagrams6 import Datagram6
from controller.services.dhcp import Answer, Server, answer
from controller.services.dhcp6 import Answer6, Asked, Server6, reserved_for
from controller.services.dhcp6 import answer as answer6
from controller.services.pool import Book, Pool, lasts
from controller.store.rows import Put, Remove, Write
from controller.store.store import Store

log = logging.getLogger(__name__)

_KEPT_SECONDS = 7 * 86400  # for so long its client gets the same address again, unless another needed it
_MOST_WAITING = 4096

Send = Callable[[str, bytes], bool]


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An answer whose lease is not in the store yet."""

    asker: Asker
    answer: Answer | Answer6
    generation: int  # of the row, as it was when this was decided


class DhcpService:
    """Everything on the loop. ``deliver`` is the number of the table that hands a packet to the vNIC; ``send`` gives a
    message to a host's switch."""

    def __init__(self, store: Store, desired: Desired, deliver: int, send: Send) -> None:
        self._store = store
        self._desired = desired
        self._deliver = deliver
        self._send = send
        self._books: dict[tuple[str, int], Book] = {}  # by network and version of IP
        self._waiting: dict[str, _Waiting] = {}
        self._wake = asyncio.Event()
        self._began = time.time()

    async def run(self) -> None:
        """Writes leases, all that wait in one transaction, and answers. Until it is cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            waiting, self._waiting = self._waiting, {}
            try:
                await self._write(waiting)
            except Exception:
                log.exception("DHCP: %d clients are not answered; they ask again", len(waiting))

    def take(self, host: str, packet: PacketIn) -> None:
        """A packet that a vNIC of the host sent to the DHCP server."""
        try:
            asker = asker_of(self._desired, host, packet)
            spec = self._desired.networks.get(asker.network)
            if spec is None or spec.dhcp is None:
                return
            if not self._has_room(asker, spec, packet.data[6:12].hex(":")):
                raise PacketError(f"{asker.port} has as many addresses as it may")
            is_ipv6 = packet.data[12:14] == datagrams6.ETHERTYPE.to_bytes(2, "big")
            done = (self._answer6 if is_ipv6 else self._answer)(asker, spec, spec.dhcp, packet.data)
        except (OpenFlowError, PacketError) as error:
            log.debug("%s: DHCP: %s", host, error)
            return
        if done.lease is None and done.released is None:
            self._reply(asker, done.reply)
            return
        address = done.lease.ip if done.lease is not None else str(done.released)
        row = lease_row(asker.network, address)
        had = self._desired.leases.get(asker.network, {}).get(address)
        gives_up = done.lease is None or done.lease.state == "declined"
        if gives_up and had is not None and had.port != asker.port:
            return  # somebody speaks for another vNIC's client
        before = self._waiting.get(row)
        if (before is None or before.asker == asker) and len(self._waiting) < _MOST_WAITING:
            self._waiting[row] = _Waiting(asker, done, self._generation(row))
            self._wake.set()

    def forgotten(self, now: float) -> list[Write]:
        """What is to be written so that leases that ended long ago, or whose network is gone, are no more."""
        return [
            Remove(LEASES, lease.row, self._generation(lease.row))
            for network, leases in self._desired.leases.items()
            for lease in leases.values()
            if lease.expires + _KEPT_SECONDS < now or network not in self._store.rows("Network")
        ]

    def _answer(self, asker: Asker, spec: NetworkSpec, dhcp: Dhcp, frame: bytes) -> Answer:
        """Raises PacketError."""
        said = datagrams.decode(frame)
        request = dhcp_message.decode(said.payload)
        if request.chaddr != said.eth_src:
            raise PacketError(f"{said.eth_src} asks in the name of {request.chaddr}")
        server = self._server(asker.network, spec, dhcp)
        return answer(server, self._book(asker.network, 4), request, asker.port, time.time())

    def _answer6(self, asker: Asker, spec: NetworkSpec, dhcp: Dhcp, frame: bytes) -> Answer6:
        """Raises PacketError."""
        said = datagrams6.decode(frame)
        asked = Asked(dhcp6_message.decode(said.payload), said.eth_src, said.ipv6_src, asker.port)
        server = self._server6(asker.network, spec, dhcp, asked)
        return answer6(server, self._book(asker.network, 6), asked, time.time())

    def _book(self, network: str, version: int) -> Book:
        book = self._books.setdefault((network, version), Book(began=self._began))
        leases = self._desired.leases.get(network, {})
        book.leases = {address: lease for address, lease in leases.items() if (":" in address) == (version == 6)}
        return book

    def _server(self, name: str, spec: NetworkSpec, dhcp: Dhcp) -> Server:
        gateways = tuple(IPv4Interface(subnet) for subnet in spec.subnets if "." in subnet)
        hosts = {host.mac: host for host in dhcp.hosts_of(4) if host.mac is not None}
        pool = Pool(dhcp.range, {mac: host.ip for mac, host in hosts.items()}, self._taken(name, gateways))
        return Server(
            name, network_gateway_mac(name, spec), gateways, pool, dhcp.lease,
            network_mtu(spec, overlay_mtu(self._desired.hosts.values())), spec.mode != "isolated",
            dhcp.domain or spec.dns_domain, dhcp.dns_of(4),
            {mac: host.name for mac, host in hosts.items() if host.name is not None}, spec.answers_dns,
        )  # fmt: skip

    def _server6(self, name: str, spec: NetworkSpec, dhcp: Dhcp, asked: Asked) -> Server6:
        gateways = tuple(IPv6Interface(subnet) for subnet in spec.subnets if ":" in subnet)
        hosts = dhcp.hosts_of(6)
        reserved = reserved_for(hosts, asked)
        pool = Pool(dhcp.range6, reserved, self._taken(name, gateways))
        called = next((host.name for host in hosts if host.ip == reserved.get(asked.mac)), None)
        subnets = tuple(gateway.network for gateway in gateways)
        mac = network_gateway_mac(name, spec)
        return Server6(name, mac, subnets, pool, dhcp.lease, dhcp.domain or spec.dns_domain, dhcp.dns_of(6), called)

    def _taken(self, network: str, gateways: Iterable[IPv4Interface | IPv6Interface]) -> dict[str, str]:
        """Addresses in the gateways' subnets that are somebody's otherwise, by address with that one's MAC."""
        known = [(port.addresses, port.mac) for port in self._desired.registered.values() if port.network == network]
        known += [
            (status.learned, status.mac) for status in self._desired.statuses.values() if status.network == network
        ]
        spec = self._desired.networks.get(network)
        known.append((spec.reserved_addresses if spec is not None else (), ""))
        taken = {str(gateway.ip): "" for gateway in gateways}
        for addresses, mac in known:
            for address in addresses:
                if any(ip_address(address) in gateway.network for gateway in gateways):
                    taken.setdefault(address, mac)
        return taken

    def _has_room(self, asker: Asker, spec: NetworkSpec, mac: str) -> bool:
        """Whether the vNIC may have a client more: itself, and as many as may be behind it."""
        status = self._desired.statuses.get(asker.port)
        group = spec.portgroup(status.portgroup or "") if status is not None else None
        alone = (
            group is not None and not group.learning and (group.filters is None or "mac" in checks(group.filters, ()))
        )
        most = 1 if alone else max(DEFAULT_MAX_MACS, group.mac_limit if group is not None else 0)
        now, leases = time.time(), self._desired.leases.get(asker.network, {}).values()
        clients = {each.mac for each in leases if each.port == asker.port and lasts(each, self._began, now)}
        return mac in clients or len(clients) < most

    async def _write(self, waiting: Mapping[str, _Waiting]) -> None:
        try:
            await self._store.commit([_as_write(row, each) for row, each in waiting.items()])
        except Conflict:
            if len(waiting) > 1:  # one of them, and the others shall not suffer for it
                for row, each in waiting.items():
                    await self._write({row: each})
                return
            log.info("DHCP: somebody else was given %s at this moment", *waiting)
        except FleetError as error:
            log.warning("DHCP: %d leases wait for the store; their clients ask again: %s", len(waiting), error)
        else:
            for each in waiting.values():
                self._reply(each.asker, each.answer.reply)

    def _generation(self, row: str) -> int:
        found = self._store.rows(LEASES).get(row)
        return found.generation if found is not None else 0

    def _reply(self, asker: Asker, said: Datagram | Datagram6 | None) -> None:
        if said is not None:
            frame = datagrams.encode(said) if isinstance(said, Datagram) else datagrams6.encode(said)
            self._send(asker.host, answer_to(asker, frame, self._deliver))


def _as_write(row: str, each: _Waiting) -> Write:
    lease = each.answer.lease
    if lease is None:
        return Remove(LEASES, row, each.generation)
    return Put(LEASES, row, lease.model_dump(mode="json"), each.generation)


def lasting(
    leases: Mapping[str, Mapping[str, Lease]], began: float, now: float
) -> dict[tuple[str, str], tuple[str, ...]]:
    """The addresses that clients have, by (network, MAC). ``began``: when this controller did."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for network, by_address in leases.items():
        for lease in by_address.values():
            if lease.state == "leased" and lasts(lease, began, now):
                key = (network, lease.mac)
                found[key] = (*found.get(key, ()), lease.ip)
    return found
