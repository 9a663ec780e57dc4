"""DHCP for the whole fleet: packets of any host's vNICs in, answers out, leases in the store between the two."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Interface

from controller.desired import LEASES, Desired
from controller.errors import Conflict, FleetError, OpenFlowError, PacketError
from controller.model.kinds import network_mtu, overlay_mtu
from controller.model.lease import Lease, lease_row
from controller.model.network import NetworkSpec, network_gateway_mac
from controller.model.subnet import Dhcp
from controller.openflow.decode import PacketIn
from controller.services import datagrams, dhcp_message
from controller.services.askers import Asker, answer_to, asker_of
from controller.services.datagrams import Datagram
from controller.services.dhcp import Answer, Server, answer
from controller.services.pool import Book, Pool
from controller.store.rows import Put, Remove, Write
from controller.store.store import Store

log = logging.getLogger(__name__)

GRACE_SECONDS = 120  # for so long after its end a lease still counts: its client may just be asking again
_KEPT_SECONDS = 7 * 86400  # for so long its client gets the same address again, unless another needed it
_MOST_WAITING = 4096

Send = Callable[[str, bytes], bool]


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An answer whose lease is not in the store yet."""

    asker: Asker
    answer: Answer


class DhcpService:
    """Everything on the loop. ``deliver`` is the number of the table that hands a packet to the vNIC; ``send`` gives a
    message to a host's switch."""

    def __init__(self, store: Store, desired: Desired, deliver: int, send: Send) -> None:
        self._store = store
        self._desired = desired
        self._deliver = deliver
        self._send = send
        self._books: dict[str, Book] = {}
        self._waiting: dict[str, _Waiting] = {}
        self._wake = asyncio.Event()

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
            asker, request = self._read(host, packet)
        except (OpenFlowError, PacketError) as error:
            log.debug("%s: DHCP: %s", host, error)
            return
        spec = self._desired.networks.get(asker.network)
        if spec is None or spec.dhcp is None:
            return
        book = self._books.setdefault(asker.network, Book())
        book.leases = self._desired.leases.get(asker.network, {})
        done = answer(self._server(asker.network, spec, spec.dhcp), book, request, asker.port, time.time())
        if done.lease is None and done.released is None:
            self._reply(asker, done.reply)
            return
        address = done.lease.ip if done.lease is not None else str(done.released)
        before = self._waiting.get(lease_row(asker.network, address))
        if (before is None or before.asker == asker) and len(self._waiting) < _MOST_WAITING:
            self._waiting[lease_row(asker.network, address)] = _Waiting(asker, done)
            self._wake.set()

    def forgotten(self, now: float) -> list[Write]:
        """What is to be written so that leases that ended long ago, or whose network is gone, are no more."""
        return [
            Remove(LEASES, lease.row, self._generation(lease.row))
            for network, leases in self._desired.leases.items()
            for lease in leases.values()
            if lease.expires + _KEPT_SECONDS < now or network not in self._desired.networks
        ]

    def _read(self, host: str, packet: PacketIn) -> tuple[Asker, dhcp_message.Request]:
        """Raises OpenFlowError, PacketError."""
        asker = asker_of(self._desired, host, packet)
        said = datagrams.decode(packet.data)
        request = dhcp_message.decode(said.payload)
        if request.chaddr != said.eth_src:
            raise PacketError(f"{said.eth_src} asks in the name of {request.chaddr}")
        return asker, request

    def _server(self, name: str, spec: NetworkSpec, dhcp: Dhcp) -> Server:
        gateways = tuple(IPv4Interface(subnet) for subnet in spec.subnets if "." in subnet)
        taken = {str(gateway.ip): "" for gateway in gateways}
        for port in self._desired.registered.values():
            if port.network == name:
                taken |= {address: port.mac for address in port.addresses if "." in address}
        reserved = {host.mac: host.ip for host in dhcp.hosts}
        return Server(
            name, network_gateway_mac(name, spec), gateways, Pool(dhcp.range, reserved, taken), dhcp.lease,
            network_mtu(spec, overlay_mtu(self._desired.hosts.values())), spec.mode != "isolated",
            dhcp.domain or spec.dns_domain, dhcp.dns,
            {host.mac: host.name for host in dhcp.hosts if host.name is not None}, spec.answers_dns,
        )  # fmt: skip

    async def _write(self, waiting: Mapping[str, _Waiting]) -> None:
        try:
            await self._store.commit([self._as_write(row, each.answer) for row, each in waiting.items()])
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

    def _as_write(self, row: str, done: Answer) -> Write:
        if done.lease is None:
            return Remove(LEASES, row, self._generation(row))
        return Put(LEASES, row, done.lease.model_dump(mode="json"), self._generation(row))

    def _generation(self, row: str) -> int:
        found = self._store.rows(LEASES).get(row)
        return found.generation if found is not None else 0

    def _reply(self, asker: Asker, said: Datagram | None) -> None:
        if said is not None:
            self._send(asker.host, answer_to(asker, datagrams.encode(said), self._deliver))


def lasting(leases: Mapping[str, Mapping[str, Lease]], since: float) -> dict[tuple[str, str], tuple[str, ...]]:
    """The addresses that clients have, by (network, MAC): leases that had not ended at ``since``."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for network, by_address in leases.items():
        for lease in by_address.values():
            if lease.state == "leased" and lease.expires > since:
                key = (network, lease.mac)
                found[key] = (*found.get(key, ()), lease.ip)
    return found
