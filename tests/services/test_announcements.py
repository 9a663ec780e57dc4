"""Who is told of a floating address, when, and from which host."""

from __future__ import annotations

import asyncio

import pytest
from fleets import FleetRows

from apps import APPS
from controller.engine import Engine
from controller.pipeline.pipeline import Pipeline
from controller.pipeline.tables import FORWARD
from controller.services import announcements
from controller.services.announcements import TIMES, Announcements

PIPELINE = Pipeline(APPS)
ADDRESS = bytes([203, 0, 113, 50])
ANNOUNCED = bytes.fromhex("ffffffffffff 02f100000050 0806 0001 0800 06 04 0001 02f100000050") + ADDRESS
ALL_NODES = "ff02000000000000 0000000000000001"
# From the address to all nodes; an advertisement that overrides, with its checksum, of the address at the MAC.
ANNOUNCED6 = bytes.fromhex(
    f"333300000001 02f100000060 86dd 60000000 0020 3a ff 20010db800000000 0000000000000060 {ALL_NODES}"
    "88 00 f71c 20000000 20010db800000000 0000000000000060 02 01 02f100000060"
)


class World:
    """Two hosts, the first with guest a; ``sent`` is which hosts were told to announce."""

    def __init__(self) -> None:
        self.fleet = FleetRows()
        for number in (1, 2):
            self.fleet.host(f"kvm{number}", f"192.0.2.{number}", "phys1")
            self.fleet.outside(f"kvm{number}", "phys1", f"203.0.113.1{number}")
        self.fleet.network("web", "nat", subnets=["10.0.0.0/24"]).port("a", "kvm1", "web", addresses=("10.0.0.5",))
        self.fleet.floating_ip("one", "web", "203.0.113.50", {"vnic": "a"}, mac="02:f1:00:00:00:50")
        self.engine = Engine(PIPELINE)
        self.engine.update(self.fleet.rows())
        self.up = True
        self.sent: list[str] = []
        self.announcements = Announcements(self.engine.fabric.reader, PIPELINE.number[FORWARD], self.send)

    def send(self, host: str, message: bytes) -> bool:
        if self.up:
            assert ANNOUNCED in message
            self.sent.append(host)
        return self.up

    def move(self, **change: object) -> None:
        self.fleet.put("Port", "a", self.fleet.ports["a"].model_copy(update=change))
        self.engine.update(self.fleet.rows(), {("Port", "a")})

    def rounds(self, begin: int, count: int = 10) -> list[str]:
        self.sent.clear()
        for now in range(begin, begin + count):
            self.announcements.tell(float(now))
        return list(self.sent)


def test_it_is_announced_a_few_times_from_where_it_is() -> None:
    world = World()
    assert world.rounds(0) == ["kvm1"] * TIMES
    assert world.rounds(20) == []
    world.move(host="kvm2")
    assert world.rounds(40) == ["kvm2"] * TIMES


def test_one_of_ipv6_is_announced_by_an_advertisement() -> None:
    world, told = World(), []
    world.fleet.network("web", "nat", subnets=["10.0.0.0/24", "fd00::/64"])
    world.fleet.port("a", "kvm1", "web", addresses=("10.0.0.5", "fd00::5"))
    for number in (1, 2):
        ipv6 = {"address6": f"2001:db8::1{number}/64", "gateway6": "fe80::1"}
        world.fleet.outside(f"kvm{number}", "phys1", f"203.0.113.1{number}", **ipv6)
    world.fleet.floating_ip("six", "web", "2001:db8::60", {"vnic": "a"}, mac="02:f1:00:00:00:60")
    world.engine.update(world.fleet.rows())
    work = Announcements(
        world.engine.fabric.reader, PIPELINE.number[FORWARD], lambda host, message: told.append((host, message)) or True
    )
    work.tell(0.0)
    assert sorted(ANNOUNCED in message for _, message in told) == [False, True]
    assert sorted(ANNOUNCED6 in message for _, message in told) == [False, True]
    assert {host for host, _ in told} == {"kvm1"}


def test_a_guest_that_starts_again_is_announced_again() -> None:
    world = World()
    world.rounds(0)
    world.move(state="down")
    assert world.rounds(20) == []
    world.move(state="active")
    assert world.rounds(40) == ["kvm1"] * TIMES


def test_a_host_that_cannot_be_told_is_told_later() -> None:
    world = World()
    world.up = False
    assert world.rounds(0) == []
    world.up = True
    assert world.rounds(20) == ["kvm1"] * TIMES


def test_it_ends_when_a_row_changes_at_that_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        world = World()
        work = asyncio.create_task(world.announcements.run())
        for _ in range(20):
            await asyncio.sleep(0.001)
        world.announcements.look()
        await asyncio.sleep(0)
        work.cancel()
        done, _ = await asyncio.wait([work], timeout=5.0)
        assert done

    monkeypatch.setattr(announcements, "_PAUSE", 0.0)
    monkeypatch.setattr(announcements, "SECONDS", 60.0)
    asyncio.run(main())


def test_an_address_of_a_pool_is_announced_by_the_host_that_got_it() -> None:
    world = World()
    world.fleet.put("FloatingIP", "one", None)
    pool = {"addresses": ["203.0.113.20-203.0.113.29"]}
    world.fleet.network("web", "nat", subnets=["10.0.0.0/24"], nat=pool)
    world.fleet.outside("kvm2", "phys1", "203.0.113.12", mac="02:f5:00:00:01:02").allotted(
        "web", "kvm2", "203.0.113.20"
    )
    world.engine.update(world.fleet.rows())
    told: list[tuple[str, bytes]] = []
    service = Announcements(world.engine.fabric.reader, PIPELINE.number[FORWARD], lambda *each: not told.append(each))
    for now in range(10):
        service.tell(float(now))
    mac, address = bytes.fromhex("02f500000102"), bytes([203, 0, 113, 20])
    assert [host for host, _ in told] == ["kvm2"] * TIMES
    assert all(b"\xff" * 6 + mac + b"\x08\x06" in message and mac + address in message for _, message in told)
