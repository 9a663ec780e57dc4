"""DHCP for a fleet: what is nobody's to give, how much a vNIC may have, and that nothing is promised twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from os_ken.lib.packet import dhcp

from controller.desired import Desired
from controller.model.lease import Lease
from controller.model.port import PortStatus
from controller.openflow.decode import PacketIn
from controller.openflow.match import Match
from controller.services import datagrams
from controller.services.datagrams import Datagram
from controller.services.dhcp_message import Kind, Option
from controller.services.dhcp_service import DhcpService, lasting
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
        self.service = DhcpService(self.store, self.desired, 9, lambda host, message: bool(self.sent.append(message)))  # type: ignore[arg-type]

    def plug(self, name: str, mac: str, ofport: int, portgroup: str, **status: Any) -> None:
        vnic = PortStatus(vm_uuid="u", mac=mac, host="h", ofport=ofport, network="web", portgroup=portgroup,
                          state="active", **status)  # fmt: skip
        self.store.kinds["Port"][name] = Row("Port", name, {}, vnic.model_dump(mode="json"))
        self.desired.load()

    def say(
        self, kind: Kind, mac: str = OWN, ofport: int = 5, address: str | None = None, ciaddr: str = "0.0.0.0"
    ) -> None:
        told = [dhcp.option(Option.KIND, bytes([kind]))]
        if address is not None:
            told.append(dhcp.option(Option.REQUESTED, bytes(map(int, address.split(".")))))
        body = bytes(dhcp.dhcp(1, mac, dhcp.options(told), xid=7, ciaddr=ciaddr).serialize())
        frame = datagrams.encode(Datagram(mac, "ff:ff:ff:ff:ff:ff", "0.0.0.0", "255.255.255.255", 68, 67, body))
        match = Match.of(in_port=ofport, reg0=1).encode()
        oxms = match[4 : int.from_bytes(match[2:4], "big")]
        self.service.take("h", PacketIn(0, 1, 0, len(frame), oxms, frame))

    def lease(self, address: str, mac: str, port: str, expires: float | None = None) -> None:
        made = Lease(network="web", ip=address, mac=mac, port=port, expires=int(expires or time.time() + 3600))
        self.desired.leases.setdefault("web", {})[address] = made

    @property
    def pending(self) -> dict[str, Any]:
        return {row: each.answer.lease for row, each in self.service._waiting.items()}


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
                world.desired.leases.setdefault("web", {})[row.partition("/")[2]] = lease
            world.service._waiting.clear()
        assert len(world.desired.leases["web"]) == most, portgroup


def test_nobody_gives_up_the_lease_of_another_vnic() -> None:
    world = World("open")
    world.lease("10.0.0.20", "52:54:00:00:00:02", "p2")
    world.say(Kind.RELEASE, "52:54:00:00:00:02", ciaddr="10.0.0.20")
    world.say(Kind.DECLINE, "52:54:00:00:00:02", address="10.0.0.20")
    assert world.pending == {}
    world.say(Kind.RELEASE, "52:54:00:00:00:02", ofport=6, ciaddr="10.0.0.20")
    assert world.pending == {"web/10.0.0.20": None}


def test_a_lease_is_written_on_what_was_read_when_it_was_decided() -> None:
    async def main() -> None:
        world = World()
        work = asyncio.create_task(world.service.run())
        world.say(Kind.REQUEST, address="10.0.0.20")
        # Meanwhile somebody else was given it; what is written must not go on from that.
        world.store.kinds["DhcpLease"] = {"web/10.0.0.20": Row("DhcpLease", "web/10.0.0.20", {}, generation=1)}
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        [[write]] = world.store.asked
        assert write.expect == 0  # type: ignore[union-attr]
        work.cancel()

    asyncio.run(main())


def test_leases_outlive_a_network_whose_row_cannot_be_read() -> None:
    world = World()
    world.lease("10.0.0.20", OWN, "p1")
    world.desired.networks.clear()
    assert world.service.forgotten(time.time()) == []
    world.store.kinds["Network"].clear()
    assert len(world.service.forgotten(time.time())) == 1


def test_a_lease_that_ended_while_nobody_could_be_asked_still_counts_for_a_while() -> None:
    lease = Lease(network="web", ip="10.0.0.20", mac=OWN, expires=1000)

    def has(began: float, now: float) -> bool:
        return bool(lasting({"web": {"10.0.0.20": lease}}, began, now))

    assert has(0, 999 + GRACE_SECONDS)
    assert not has(0, 1001 + GRACE_SECONDS)
    assert has(1000 + GRACE_SECONDS - 1, 1000 + 2 * GRACE_SECONDS - 2)
    assert not has(1000 + GRACE_SECONDS + 1, 1000 + GRACE_SECONDS + 1)  # it ended long before
