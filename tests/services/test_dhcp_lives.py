"""Random lives of a fleet's DHCP: two controllers of one store that is slow and fails, and that are killed.

Whatever happens, an address that a client was promised is in the store as its own for as long as it was promised.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import pytest
from os_ken.lib.packet import dhcp

from controller.desired import LEASES, Desired
from controller.errors import Conflict, StoreError
from controller.model.port import PortStatus
from controller.openflow.decode import PacketIn
from controller.openflow.match import Match
from controller.services import datagrams, dhcp_service
from controller.services.budget import Budget
from controller.services.datagrams import Datagram
from controller.services.dhcp_message import Kind, Option
from controller.services.dhcp_service import DhcpService
from controller.store.rows import Change, Put, Row, Write

SPEC = {
    "mode": "isolated", "subnets": ["10.0.0.0/24"], "dhcp": {"range": ["10.0.0.20", "10.0.0.23"], "lease": 600},
}  # fmt: skip
GUESTS = 7  # for four addresses
ADDRESSES = [f"10.0.0.{number}" for number in range(20, 24)]


class Clock:
    now = 1_000_000.0
    monotonic = staticmethod(time.monotonic)

    def time(self) -> float:
        return self.now


def mac_of(guest: int) -> str:
    return f"52:54:00:00:00:{guest:02x}"


class Controller:
    """One of them: what it knows of the store, which may be old, and its transactions, each of which waits."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.known: dict[str, Row] = dict(world.leases)
        self.news: list[tuple[str, Row | None]] = []
        self.waiting: list[asyncio.Event] = []
        self.ports = {
            f"p{guest}": Row("Port", f"p{guest}", {}, PortStatus(
                vm_uuid="u", mac=mac_of(guest), host="h", ofport=5 + guest, network="web", portgroup="default",
                state="active",
            ).model_dump(mode="json"))
            for guest in range(GUESTS)
        }  # fmt: skip
        self.desired = Desired(self)  # type: ignore[arg-type]
        self.desired.load()
        self.service = DhcpService(self, self.desired, 9, world.told)  # type: ignore[arg-type]
        self.service._each = Budget(1e9, 1e9)
        self.work = asyncio.create_task(self.service.run())

    def rows(self, kind: str) -> Mapping[str, Row]:
        kinds = {"Network": {"web": Row("Network", "web", SPEC)}, "Port": self.ports, LEASES: self.known}
        return MappingProxyType(kinds.get(kind, {}))

    def numbers(self, pool: str) -> Mapping[str, int]:
        return {}

    async def commit(self, writes: Sequence[Write]) -> None:
        turn = asyncio.Event()
        self.waiting.append(turn)
        await turn.wait()
        luck = self.world.random.random()
        if luck < 0.1:
            raise StoreError("is away", where="store")
        self.world.write(writes)
        self.hear()
        if luck < 0.2:
            raise StoreError("does not answer: the outcome is not known", where="store")

    def hear(self) -> None:
        """What others wrote."""
        news, self.news = self.news, []
        for name, row in news:
            self.known.pop(name, None)
            if row is not None:
                self.known[name] = row
            self.desired.take([Change(LEASES, name, None, row)])

    def says(self, guest: int, kind: Kind, requested: str | None = None, ciaddr: str = "0.0.0.0") -> None:
        options = [dhcp.option(Option.KIND, bytes([kind]))]
        if requested is not None:
            options.append(dhcp.option(Option.REQUESTED, bytes(map(int, requested.split(".")))))
        mac = mac_of(guest)
        body = bytes(dhcp.dhcp(1, mac, dhcp.options(options), xid=7, ciaddr=ciaddr).serialize())
        frame = datagrams.encode(Datagram(mac, "ff:ff:ff:ff:ff:ff", "0.0.0.0", "255.255.255.255", 68, 67, body))
        match = Match.of(in_port=5 + guest, reg0=1).encode()
        self.service.take("h", PacketIn(0, 1, 0, len(frame), match[4 : int.from_bytes(match[2:4], "big")], frame))


class World:
    def __init__(self, seed: int, clock: Clock) -> None:
        self.random, self.clock = random.Random(seed), clock
        self.leases: dict[str, Row] = {}
        self.generation = self.promised = 0
        self.has: dict[int, tuple[str, float]] = {}  # by guest: address, and until when it was promised
        self.offered: dict[int, str] = {}
        self.controllers: list[Controller] = []

    def write(self, writes: Sequence[Write]) -> None:
        for write in writes:
            found = self.leases.get(write.name)
            if getattr(write, "expect", None) != (found.generation if found is not None else 0):
                raise Conflict("has another generation", where=write.name)
        for write in writes:
            row = None
            self.leases.pop(write.name, None)
            if isinstance(write, Put):
                self.generation += 1
                row = self.leases[write.name] = Row(LEASES, write.name, write.spec, generation=self.generation)
            for controller in self.controllers:
                controller.news.append((write.name, row))

    def told(self, host: str, message: bytes) -> bool:
        """A guest hears an answer."""
        body = message[message.index(bytes.fromhex("63825363")) - 236 :]
        guest, address, options, at = body[33], ".".join(map(str, body[16:20])), dict[int, bytes](), 240
        while body[at] != 255:
            options[body[at]] = body[at + 2 : at + 2 + body[at + 1]]
            at += 2 + body[at + 1]
        match Kind(options[Option.KIND][0]):
            case Kind.OFFER:
                self.offered[guest] = address
            case Kind.NAK:
                self.has.pop(guest, None)
            case Kind.ACK:
                self.promised += 1
                self.has[guest] = address, self.clock.now + int.from_bytes(options[Option.LEASE], "big")
        return True

    async def step(self) -> None:
        what, guest = self.random.random(), self.random.randrange(GUESTS)
        controller = self.controllers[guest % 2]  # that of the guest's host
        if what < 0.6:
            self._speak(controller, guest)
        elif what < 0.75 and controller.waiting:
            controller.waiting.pop(0).set()
        elif what < 0.85:
            controller.hear()
        elif what < 0.97:
            self.clock.now += self.random.choice((0.5, 5, 31, 200, 601))
        else:
            controller.work.cancel()  # kill -9, and another start
            self.controllers[guest % 2] = Controller(self)
        for _ in range(4):
            await asyncio.sleep(0)

    def _speak(self, controller: Controller, guest: int) -> None:
        had = self.has.get(guest)
        kind = self.random.choice((Kind.DISCOVER, Kind.REQUEST, Kind.REQUEST, Kind.REQUEST, Kind.RELEASE, Kind.DECLINE))
        if kind in {Kind.RELEASE, Kind.DECLINE}:
            if had is not None and (kind is Kind.RELEASE or self.random.random() < 0.3):
                del self.has[guest]
                said = {"ciaddr": had[0]} if kind is Kind.RELEASE else {"requested": had[0]}
                controller.says(guest, kind, **said)
        elif had is not None and kind is Kind.REQUEST and self.random.random() < 0.5:
            controller.says(guest, kind, ciaddr=had[0])
        else:
            wanted = self.random.choice((self.random.choice(ADDRESSES), self.offered.get(guest), had and had[0]))
            controller.says(guest, kind, requested=wanted or ADDRESSES[0])

    def check(self) -> None:
        for guest, (address, until) in self.has.items():
            if until > self.clock.now:
                row = self.leases[f"web/{address}"]
                assert (row.spec["mac"], row.spec["state"]) == (mac_of(guest), "leased")


@pytest.mark.parametrize("seed", range(12))
def test_what_was_promised_is_in_the_store_whatever_happens(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def live() -> None:
        world = World(seed, clock)
        world.controllers = [Controller(world), Controller(world)]
        for _ in range(400):
            await world.step()
            world.check()
        for controller in world.controllers:
            controller.work.cancel()
        assert world.promised > 3

    clock = Clock()
    monkeypatch.setattr(dhcp_service, "time", clock)
    asyncio.run(live())
