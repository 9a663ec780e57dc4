"""DHCP for the whole fleet: packets of any host's vNICs in, answers out, leases in the store between the two."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from controller.desired import LEASES, Desired
from controller.errors import Conflict, FleetError, OpenFlowError, PacketError
from controller.leases import Leases
from controller.model.guard import checks
from controller.model.lease import Lease, lease_row
from controller.model.network import DEFAULT_MAX_MACS, NetworkSpec
from controller.model.subnet import Dhcp
from controller.openflow.decode import PacketIn
from controller.services import datagrams, datagrams6, dhcp6_message, dhcp_message
from controller.services.askers import Asker, Vnic, answer_to, asker_of, is_there
from controller.services.budget import Budget
from controller.services.datagrams import Datagram
from controller.services.datagrams6 import Datagram6
from controller.services.dhcp import Answer, answer
from controller.services.dhcp6 import Answer6, Asked
from controller.services.dhcp6 import answer as answer6
from controller.services.dhcp_servers import Servers
from controller.services.excess import DHCP, Excess
from controller.services.intake import Intake
from controller.services.pool import Book, lasts
from controller.services.turns import Turns
from controller.store.rows import Change, Put, Remove, Write
from controller.store.store import Store

log = logging.getLogger(__name__)

_KEPT_SECONDS = 7 * 86400  # for so long its client gets the same address again, unless another needed it
_MOST_KEPT = 256  # of one vNIC: past that, those that ended are kept in mind no longer
_MOST_WAITING = 4096
_RATE, _BURST = 1000.0, 2000.0  # questions a second, and at once, of the whole fleet
_WRITE_RATE, _WRITE_BURST = 500.0, 1000.0  # leases that are written, of the whole fleet
_EACH_RATE, _EACH_BURST = 0.1, 16.0  # the same of each client that a vNIC may have
_TICK = 0.01
_LONGEST = 1514  # bytes of a frame: no client says more than Ethernet carries, and reading takes time

Send = Callable[[str, bytes], bool]
Lasting = dict[tuple[str, str], tuple[str, ...]]
"""The addresses that clients have, by network and MAC."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An answer whose lease is not in the store yet."""

    asker: Asker
    answer: Answer | Answer6
    generation: int  # of the row, as it was when this was decided


class DhcpService:
    """Everything on the loop. ``deliver`` is the number of the table that hands a packet to the vNIC; ``send`` gives a
    message to a host's switch."""

    def __init__(self, store: Store, desired: Desired, deliver: int, send: Send, excess: Excess | None = None) -> None:
        self._store = store
        self._desired = desired
        self._deliver = deliver
        self._send = send
        self._books: dict[tuple[str, int], Book] = {}  # by network and version of IP
        self._excess = excess or Excess()
        self._servers = Servers(desired)
        self._intake = Intake(DHCP, _RATE, _BURST, self._take, self._excess)
        self._turns: Turns[Vnic, _Waiting] = Turns(_MOST_WAITING, _MOST_WAITING)
        self._each, self._all = Budget(_EACH_RATE, _EACH_BURST), Budget(_WRITE_RATE, _WRITE_BURST)
        self._wake = asyncio.Event()
        self._began = time.time()

    async def run(self) -> None:
        """Answers, and writes leases: all that wait in one transaction. Until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._intake.run())
            group.create_task(self._write_all())

    def changed(self, changes: Iterable[Change]) -> None:
        """Rows changed."""
        self._servers.changed(changes)

    def take(self, host: str, packet: PacketIn) -> None:
        """A packet that a vNIC of the host sent to the DHCP server."""
        try:
            asker = asker_of(self._desired, host, packet)
            if len(packet.data) > _LONGEST:
                raise PacketError(f"{asker.port} says more than a client has to say: {len(packet.data)} bytes")
        except (OpenFlowError, PacketError) as error:
            log.debug("%s: DHCP: %s", host, error)
            return
        self._intake.put(asker, packet.data, packet.data)

    def _take(self, asker: Asker, frame: bytes) -> None:
        spec = self._desired.networks.get(asker.network)
        if spec is None or spec.dhcp is None or not is_there(self._desired, asker):
            return
        room = self._room(asker, spec)
        try:
            if not self._has_room(asker, room, frame[6:12].hex(":")):
                raise PacketError(f"{asker.port} has as many addresses as it may")
            is_ipv6 = frame[12:14] == datagrams6.ETHERTYPE.to_bytes(2, "big")
            done = (self._answer6 if is_ipv6 else self._answer)(asker, spec, spec.dhcp, frame)
        except PacketError as error:
            log.debug("%s: DHCP: %s", asker.host, error)
            return
        if done.lease is None and done.released is None:
            self._reply(asker, done.reply)
        else:
            self._wait(asker, done, room)

    def _wait(self, asker: Asker, done: Answer | Answer6, room: int) -> None:
        """Until what it says is in the store."""
        address = done.lease.ip if done.lease is not None else str(done.released)
        row = lease_row(asker.network, address)
        had = self._desired.leases[asker.network].get(address)
        gives_up = done.lease is None or done.lease.state == "declined"
        if had is not None and had.port != asker.port and (gives_up or self._is_own(had)):
            return  # somebody speaks for another vNIC's client
        if self._turns.owner(row) not in {None, asker.vnic}:
            return
        dropped: Vnic | None = asker.vnic
        if self._each.spend(asker.vnic, time.monotonic(), 1 / room):
            dropped = self._turns.put(asker.vnic, row, _Waiting(asker, done, self._generation(row)))
            self._wake.set()
        if dropped is not None:
            self._excess.note(DHCP, dropped)

    def _is_own(self, lease: Lease) -> bool:
        """Whether it is that of a vNIC which runs, and not of one behind it, which may come to be behind another."""
        vnic = self._desired.statuses.get(lease.port)
        return vnic is not None and (vnic.state, vnic.network, vnic.mac) == ("active", lease.network, lease.mac)

    def forgotten(self, now: float) -> list[Write]:
        """What is to be written so that leases that ended long ago, or whose network is gone, are no more; nor those
        that ended of a vNIC with ever new clients behind it."""
        return [
            Remove(LEASES, lease.row, self._generation(lease.row))
            for network, leases in self._desired.leases.items()
            for lease in leases.values()
            if lease.expires + _KEPT_SECONDS < now
            or network not in self._store.rows("Network")
            or (len(leases.of_port(lease.port)) > _MOST_KEPT and not lasts(lease, self._began, now))
        ]

    def _answer(self, asker: Asker, spec: NetworkSpec, dhcp: Dhcp, frame: bytes) -> Answer:
        """Raises PacketError."""
        said = datagrams.decode(frame)
        request = dhcp_message.decode(said.payload)
        if request.chaddr != said.eth_src:
            raise PacketError(f"{said.eth_src} asks in the name of {request.chaddr}")
        server = self._servers.of(asker.network, spec, dhcp)
        return answer(server, self._book(asker.network, 4), request, asker.port, time.time())

    def _answer6(self, asker: Asker, spec: NetworkSpec, dhcp: Dhcp, frame: bytes) -> Answer6:
        """Raises PacketError."""
        said = datagrams6.decode(frame)
        asked = Asked(dhcp6_message.decode(said.payload), said.eth_src, said.ipv6_src, asker.port)
        server = self._servers.of6(asker.network, spec, dhcp, asked)
        return answer6(server, self._book(asker.network, 6), asked, time.time())

    def _book(self, network: str, version: Literal[4, 6]) -> Book:
        leases = self._desired.leases.setdefault(network, Leases())
        book = self._books.get((network, version))
        if book is None or book.leases is not leases:
            book = self._books[network, version] = Book(leases, version, self._began)
        return book

    def _room(self, asker: Asker, spec: NetworkSpec) -> int:
        """How many clients the vNIC may have: itself, and as many as may be behind it."""
        status = self._desired.statuses.get(asker.port)
        group = spec.portgroup(status.portgroup or "") if status is not None else None
        alone = (
            group is not None and not group.learning and (group.filters is None or "mac" in checks(group.filters, ()))
        )
        return 1 if alone else max(DEFAULT_MAX_MACS, group.mac_limit if group is not None else 0)

    def _has_room(self, asker: Asker, room: int, mac: str) -> bool:
        """Whether the vNIC may have this client: those count that have an address, or were offered one."""
        now = time.time()
        books = [self._book(asker.network, version) for version in (4, 6)]
        mine = books[0].leases.of_port(asker.port).values()
        clients = {each.mac for each in mine if lasts(each, self._began, now)}
        for book in books:
            clients |= book.offers.behind(asker.port, now)
        return mac in clients or len(clients) < room

    async def _write_all(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._turns:
                now = time.monotonic()
                waiting = self._turns.take(int(self._all.left(None, now)))
                if not waiting:
                    await asyncio.sleep(_TICK)
                    continue
                self._all.spend(None, now, len(waiting))
                # Who asks again before the first answer is written keeps nobody from being written in one go.
                waiting = {row: each for row, each in waiting.items() if each.generation == self._generation(str(row))}
                try:
                    await self._write(waiting)
                except Exception:
                    log.exception("DHCP: %d clients are not answered; they ask again", len(waiting))

    async def _write(self, waiting: Mapping[Hashable, _Waiting]) -> bool:
        """Whether the store could be asked."""
        if not waiting:
            return True
        try:
            await self._store.commit([_as_write(str(row), each) for row, each in waiting.items()])
        except Conflict:
            if len(waiting) > 1:  # one of them, and the others shall not suffer for it
                for row, each in waiting.items():
                    if not await self._write({row: each}):
                        return False  # what the others were to be told is soon too old
                return True
            log.info("DHCP: somebody else was given %s at this moment", *waiting)
        except FleetError as error:
            log.warning("DHCP: %d leases wait for the store; their clients ask again: %s", len(waiting), error)
            return False
        else:
            for each in waiting.values():
                self._reply(each.asker, each.answer.reply)
        return True

    def _generation(self, row: str) -> int:
        found = self._store.rows(LEASES).get(row)
        return found.generation if found is not None else 0

    def _reply(self, asker: Asker, said: Datagram | Datagram6 | None) -> None:
        if said is not None and is_there(self._desired, asker):
            frame = datagrams.encode(said) if isinstance(said, Datagram) else datagrams6.encode(said)
            self._send(asker.host, answer_to(asker, frame, self._deliver))


def _as_write(row: str, each: _Waiting) -> Write:
    lease = each.answer.lease
    if lease is None:
        return Remove(LEASES, row, each.generation)
    return Put(LEASES, row, lease.model_dump(mode="json"), each.generation)


def lasting(leases: Mapping[str, Mapping[str, Lease]], began: float, now: float) -> Lasting:
    """The addresses that clients have, by (network, MAC). ``began``: when this controller did."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for network, by_address in leases.items():
        for lease in by_address.values():
            if lease.state == "leased" and lasts(lease, began, now):
                key = (network, lease.mac)
                found[key] = (*found.get(key, ()), lease.ip)
    return found


def still_lasting(
    before: Lasting, leases: Mapping[str, Leases], changes: Iterable[Change], began: float, now: float
) -> Lasting:
    """What ``lasting`` gives, from what it gave before these leases changed: only their clients are looked at."""
    touched: dict[str, set[str]] = {}
    for change in changes:
        rows = [row for row in (change.old, change.new) if row is not None]
        touched.setdefault(change.name.partition("/")[0], set()).update(str(row.spec.get("mac")) for row in rows)
    others = {key: addresses for key, addresses in before.items() if key[1] not in touched.get(key[0], ())}
    theirs = {
        network: {ip: lease for mac in macs for ip, lease in leases[network].of_mac(mac).items()}
        for network, macs in touched.items()
        if network in leases
    }
    return others | lasting(theirs, began, now)
