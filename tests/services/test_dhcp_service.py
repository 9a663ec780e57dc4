"""DHCP for a fleet: what is nobody's to give, how much a vNIC may have, and that nothing is promised twice."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from os_ken.lib.packet import dhcp

from controller.desired import Desired
from controller.errors import Conflict, StoreError
from controller.leases import Leases
from controller.model.lease import Lease
from controller.model.port import PortStatus
from controller.openflow.decode import PacketIn
from controller.openflow.match import Match
from controller.services import datagrams
from controller.services.datagrams import Datagram
from controller.services.dhcp_message import Kind, Option
from controller.services.dhcp_service import DhcpService, lasting
from controller.services.excess import Excess
from controller.services.pool import GRACE_SECONDS
from controller.store.rows import Row, Write

SPEC = {
    "mode": "isolated", "subnets": ["10.0.0.0/24"], "dhcp": {"range": ["10.0.0.10", "10.0.0.200"]},
    "reserved_addresses": ["10.0.0.11"],
    "portgroups": {"open": {"filters": []}, "nested": {"learning": True, "max_macs": 3}},
}  # fmt: skip
OWN = "52:54:00:00:00:01"


class Memory:
    """What the service asks of a store, with the writes that wait to be let through."""

    def __init__(self) -> None:
        self.kinds: dict[str, dict[str, Row]] = {
            "Host": {},
            "Network": {"web": Row("Network", "web", SPEC)},
            "Port": {},
        }
        self.asked: list[Sequence[Write]] = []
        self.gate = asyncio.Event()

    def rows(self, kind: str) -> Mapping[str, Row]:
        return MappingProxyType(self.kinds.get(kind, {}))

    def numbers(self, pool: str) -> Mapping[str, int]:
        return {}

    async def commit(self, writes: Sequence[Write]) -> None:
        self.asked.append(writes)
        await self.gate.wait()


class World:
    def __init__(self, portgroup: str = "default", **status: Any) -> None:
        self.store = Memory()
        self.desired = Desired(self.store)  # type: ignore[arg-type]
        self.desired.load()
        self.plug("p1", OWN, 5, portgroup)
        self.plug("p2", "52:54:00:00:00:02", 6, "default", **status)
        self.sent: list[bytes] = []
        self.excess = Excess()
        self.service = DhcpService(
            self.store,  # type: ignore[arg-type]
            self.desired,
            9,
            lambda host, message: bool(self.sent.append(message)),
            self.excess,
        )

    def plug(self, name: str, mac: str, ofport: int, portgroup: str, **status: Any) -> None:
        vnic = PortStatus(vm_uuid="u", mac=mac, host="h", ofport=ofport, network="web", portgroup=portgroup,
                          state="active", **status)  # fmt: skip
        self.store.kinds["Port"][name] = Row("Port", name, {}, vnic.model_dump(mode="json"))
        self.desired.load()

    def say(
        self, kind: Kind, mac: str = OWN, ofport: int = 5, address: str | None = None, ciaddr: str = "0.0.0.0",
        more: Sequence[tuple[int, bytes]] = (),
    ) -> None:  # fmt: skip
        told = [dhcp.option(Option.KIND, bytes([kind])), *(dhcp.option(*each) for each in more)]
        if address is not None:
            told.append(dhcp.option(Option.REQUESTED, bytes(map(int, address.split(".")))))
        body = bytes(dhcp.dhcp(1, mac, dhcp.options(told), xid=7, ciaddr=ciaddr).serialize())
        frame = datagrams.encode(Datagram(mac, "ff:ff:ff:ff:ff:ff", "0.0.0.0", "255.255.255.255", 68, 67, body))
        match = Match.of(in_port=ofport, reg0=1).encode()
        oxms = match[4 : int.from_bytes(match[2:4], "big")]
        self.service.take("h", PacketIn(0, 1, 0, len(frame), oxms, frame))

    def lease(self, address: str, mac: str, port: str, expires: float | None = None) -> None:
        made = Lease(network="web", ip=address, mac=mac, port=port, expires=int(expires or time.time() + 3600))
        self.desired.leases.setdefault("web", Leases())[address] = made

    async def written(self) -> None:
        """Nothing waits any more."""
        async with asyncio.timeout(20.0):
            while True:
                for _ in range(5):
                    await asyncio.sleep(0)
                if not self.service._turns:
                    break

    @property
    def pending(self) -> dict[str, Any]:
        turns = self.service._turns
        return {str(row): each.answer.lease for mine in (*turns._new.values(), *turns._old.values())
                for row, each in mine.items()}  # fmt: skip


def test_what_is_reserved_or_another_vnics_is_not_given() -> None:
    world = World(addresses=("10.0.0.12",), learned=("10.0.0.12",))
    for address in ("10.0.0.11", "10.0.0.12", "10.0.0.1"):
        world.say(Kind.REQUEST, address=address)
        assert world.pending == {}, address
    world.say(Kind.REQUEST, address="10.0.0.13")
    assert list(world.pending) == ["web/10.0.0.13"]


def test_a_vnic_has_one_address_and_a_learning_one_as_many_as_may_be_behind_it() -> None:
    for portgroup, most in (("default", 1), ("nested", 32), ("open", 32)):
        world = World(portgroup)
        for number in range(40):
            mac = OWN if portgroup == "default" and not number else f"52:54:00:00:01:{number:02x}"
            world.say(Kind.REQUEST, mac, address=f"10.0.0.{20 + number}")
            for row, lease in world.pending.items():
                world.desired.leases.setdefault("web", Leases())[row.partition("/")[2]] = lease
            world.service._turns.take(99)
        assert len(world.desired.leases["web"]) == most, portgroup


def test_one_vnic_is_not_offered_all_that_there_is() -> None:
    world = World("open")
    for number in range(300):
        world.say(Kind.DISCOVER, f"52:54:00:00:02:{number & 255:02x}" if number < 250 else OWN)
    assert len(world.service._book("web", 4).offers.behind("p1", time.time())) == 32
    before = len(world.sent)
    world.say(Kind.DISCOVER, "52:54:00:00:00:02", ofport=6)
    assert len(world.sent) == before + 1


def test_who_asks_again_and_again_makes_no_writes() -> None:
    world = World()
    world.lease("10.0.0.20", OWN, "p1")
    for _ in range(50):
        world.say(Kind.REQUEST, ciaddr="10.0.0.20")
    assert (world.pending, len(world.sent)) == ({}, 50)
    world.lease("10.0.0.20", OWN, "p1", time.time() + 3600 * 3 / 4 - 10)
    world.say(Kind.REQUEST, ciaddr="10.0.0.20")
    assert list(world.pending) == ["web/10.0.0.20"]


def test_a_guest_that_gives_back_and_asks_without_end_makes_few_writes_and_others_wait_for_none() -> None:
    async def main() -> None:
        world = World()
        world.store.gate.set()
        work = asyncio.create_task(world.service.run())
        for _ in range(100):
            world.say(Kind.REQUEST, address="10.0.0.20")
            await world.written()
            if world.store.asked[-1]:
                world.lease("10.0.0.20", OWN, "p1")
            world.say(Kind.RELEASE, ciaddr="10.0.0.20")
            await world.written()
            world.desired.leases["web"].pop("10.0.0.20", None)
        writes = sum(len(each) for each in world.store.asked)
        assert 16 <= writes <= 20
        assert world.excess.total["DHCP"] >= 100
        assert [(each.vnic.port, each.service) for each in world.excess.recent()] == [("p1", "DHCP")]
        world.say(Kind.REQUEST, "52:54:00:00:00:02", ofport=6, address="10.0.0.30")
        await world.written()
        assert sum(len(each) for each in world.store.asked) == writes + 1
        work.cancel()

    asyncio.run(main())


def test_all_that_ask_at_once_are_written_at_once() -> None:
    async def main() -> None:
        world = World()
        for number in range(100):
            world.plug(f"q{number}", f"52:54:00:00:03:{number:02x}", 100 + number, "default")
        work = asyncio.create_task(world.service.run())
        for number in range(100):
            mac = f"52:54:00:00:03:{number:02x}"
            world.say(Kind.REQUEST, mac, ofport=100 + number, address=f"10.0.0.{20 + number}")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [len(each) for each in world.store.asked] == [100]
        assert world.sent == []  # nobody is told before it is written
        world.store.gate.set()
        await world.written()
        assert len(world.sent) == 100
        work.cancel()

    asyncio.run(main())


def test_a_packet_costs_as_much_in_a_large_fleet_as_in_a_small_one() -> None:
    def lines(others: int) -> int:
        """Lines of Python that an exchange takes beside so many vNICs that have leases."""
        world = World()
        for number in range(others):
            mac, ip = f"52:54:00:01:{number >> 8:02x}:{number & 255:02x}", f"10.1.{number >> 8}.{number & 255}"
            world.store.kinds["Port"][f"o{number}"] = Row("Port", f"o{number}", {
                "vm": f"vm{number}", "mac": mac, "network": "web", "addresses": [ip],
            })  # fmt: skip
            world.lease(f"10.2.{number >> 8}.{number & 255}", mac, f"o{number}")
        world.desired.load()
        counted = [0]

        def count(frame: Any, event: str, arg: object) -> Any:
            counted[0] += event == "line"
            return count

        world.say(Kind.DISCOVER)
        sys.settrace(count)
        try:
            world.say(Kind.DISCOVER)
            world.say(Kind.REQUEST, address="10.0.0.30")
        finally:
            sys.settrace(None)
        return counted[0]

    few, many = lines(10), lines(1000)
    assert many < few + 100, (few, many)


def test_who_gave_its_address_back_is_promised_it_anew_only_when_that_is_written() -> None:
    async def main() -> None:
        world = World()
        world.lease("10.0.0.20", OWN, "p1")
        work = asyncio.create_task(world.service.run())
        world.say(Kind.RELEASE, ciaddr="10.0.0.20")
        world.say(Kind.REQUEST, address="10.0.0.20")  # before the store was told
        assert (world.sent, [lease and lease.ip for lease in world.pending.values()]) == ([], ["10.0.0.20"])
        world.service._turns.take(9)
        world.say(Kind.RELEASE, ciaddr="10.0.0.20")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (len(world.store.asked), world.pending) == (1, {})  # the store is at it, and takes its time
        world.say(Kind.REQUEST, address="10.0.0.20")
        assert (world.sent, [lease and lease.ip for lease in world.pending.values()]) == ([], ["10.0.0.20"])
        work.cancel()

    asyncio.run(main())


def test_nobody_who_may_send_from_any_mac_takes_the_lease_of_another_vnic() -> None:
    world = World("open")
    world.lease("10.0.0.20", "52:54:00:00:00:02", "p2")
    world.say(Kind.REQUEST, "52:54:00:00:00:02", address="10.0.0.20")
    assert world.pending == {}
    world.say(Kind.REQUEST, "52:54:00:00:00:02", ofport=6, address="10.0.0.20")
    assert len(world.sent) == 1
    # Who is behind a vNIC may come to be behind another.
    world.lease("10.0.0.30", "52:54:00:00:09:09", "p2")
    world.say(Kind.REQUEST, "52:54:00:00:09:09", address="10.0.0.30")
    assert [lease.port for lease in world.pending.values()] == ["p1"]


def test_what_no_client_says_is_not_read() -> None:
    world = World()
    world.say(Kind.DISCOVER)
    assert len(world.sent) == 1
    world.say(Kind.DISCOVER, more=[(224, b"x" * 200)] * 7)
    assert len(world.sent) == 1


def test_nobody_gives_up_the_lease_of_another_vnic() -> None:
    world = World("open")
    world.lease("10.0.0.20", "52:54:00:00:00:02", "p2")
    world.say(Kind.RELEASE, "52:54:00:00:00:02", ciaddr="10.0.0.20")
    world.say(Kind.DECLINE, "52:54:00:00:00:02", address="10.0.0.20")
    assert world.pending == {}
    world.say(Kind.RELEASE, "52:54:00:00:00:02", ofport=6, ciaddr="10.0.0.20")
    assert world.pending == {"web/10.0.0.20": None}


def test_what_was_decided_before_somebody_else_was_given_the_address_is_not_written() -> None:
    async def main() -> None:
        world = World()
        work = asyncio.create_task(world.service.run())
        world.say(Kind.REQUEST, address="10.0.0.20")
        world.store.kinds["DhcpLease"] = {"web/10.0.0.20": Row("DhcpLease", "web/10.0.0.20", {}, generation=1)}
        await world.written()
        assert (world.store.asked, world.sent) == ([], [])
        work.cancel()

    asyncio.run(main())


def test_a_store_that_goes_away_is_not_waited_for_by_each_client() -> None:
    async def main() -> None:
        world = World()
        world.store.gate.set()
        for number in range(20):
            world.plug(f"q{number}", f"52:54:00:00:03:{number:02x}", 100 + number, "default")
        commit, failures = (
            world.store.commit,
            [Conflict("is another's", where="row"), StoreError("away", where="store")],
        )

        async def failing(writes: Sequence[Write]) -> None:
            await commit(writes)
            if failures:
                raise failures.pop(0)

        world.store.commit = failing  # type: ignore[method-assign]
        work = asyncio.create_task(world.service.run())
        for number in range(20):
            world.say(Kind.REQUEST, f"52:54:00:00:03:{number:02x}", 100 + number, address=f"10.0.0.{20 + number}")
        await world.written()
        assert ([len(each) for each in world.store.asked], world.sent) == ([20, 1], [])  # they ask again
        world.say(Kind.REQUEST, address="10.0.0.99")
        await world.written()
        assert len(world.sent) == 1
        work.cancel()

    asyncio.run(main())


def test_a_vnic_makes_few_addresses_unusable_however_many_are_behind_it() -> None:
    world = World("open")
    for number in range(20):
        mac, address = f"52:54:00:00:03:{number:02x}", f"10.0.0.{20 + number}"
        world.lease(address, mac, "p1")
        world.say(Kind.DECLINE, mac, address=address)
        for row, lease in world.pending.items():
            world.desired.leases["web"][row.partition("/")[2]] = lease
        world.service._turns.take(9)
    assert sum(lease.state == "declined" for lease in world.desired.leases["web"].values()) == 4


def test_who_asks_again_before_it_is_written_holds_nobody_up() -> None:
    async def main() -> None:
        world = World()
        work = asyncio.create_task(world.service.run())
        world.say(Kind.REQUEST, address="10.0.0.20")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        world.say(Kind.REQUEST, address="10.0.0.20")
        world.say(Kind.REQUEST, "52:54:00:00:00:02", ofport=6, address="10.0.0.30")
        world.store.kinds["DhcpLease"] = {"web/10.0.0.20": Row("DhcpLease", "web/10.0.0.20", {}, generation=1)}
        world.store.gate.set()
        await world.written()
        assert [[write.name for write in writes] for writes in world.store.asked] == [  # type: ignore[union-attr]
            ["web/10.0.0.20"],
            ["web/10.0.0.30"],
        ]
        assert all(write.expect == 0 for [write] in world.store.asked)  # type: ignore[union-attr]
        work.cancel()

    asyncio.run(main())


def test_leases_outlive_a_network_whose_row_cannot_be_read() -> None:
    world = World()
    world.lease("10.0.0.20", OWN, "p1")
    world.desired.networks.clear()
    assert world.service.forgotten(time.time()) == []
    world.store.kinds["Network"].clear()
    assert len(world.service.forgotten(time.time())) == 1


def test_who_was_behind_a_vnic_with_ever_new_clients_is_forgotten_soon() -> None:
    world = World("open")
    now = time.time()
    for number in range(600):
        ended = now - 3600 if number < 590 else now + 3600
        mac = f"52:54:00:00:{number >> 8:02x}:{number & 255:02x}"
        world.lease(f"10.0.{number >> 8}.{number & 255}", mac, "p1", ended)
    world.lease("10.0.9.9", "52:54:00:00:00:02", "p2", now - 3600)
    forgotten = {write.name for write in world.service.forgotten(now)}
    assert len(forgotten) == 590
    assert forgotten.isdisjoint({"web/10.0.2.78", "web/10.0.9.9"})


def test_a_lease_that_ended_while_nobody_could_be_asked_still_counts_for_a_while() -> None:
    lease = Lease(network="web", ip="10.0.0.20", mac=OWN, expires=1000)

    def has(began: float, now: float) -> bool:
        return bool(lasting({"web": {"10.0.0.20": lease}}, began, now))

    assert has(0, 999 + GRACE_SECONDS)
    assert not has(0, 1001 + GRACE_SECONDS)
    assert has(1000 + GRACE_SECONDS - 1, 1000 + 2 * GRACE_SECONDS - 2)
    assert not has(1000 + GRACE_SECONDS + 1, 1000 + GRACE_SECONDS + 1)  # it ended long before
