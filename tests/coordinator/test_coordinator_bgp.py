"""BGP peers as rows: what a router is told as the rows change, and what is told of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from coordinated import MAC1, NAME, WEB1, Fleet, coordinated
from ovsdb_servers import run, until

from controller.api.exposition import exposition
from controller.bgp import messages
from controller.bgp.messages import Kind
from controller.history import EventFilter
from controller.model.bgp import BgpPeerSpec
from controller.store.rows import PutStatus
from tests.api.prometheus_text import read
from topology.guests import Changes

FLEET = """\
kind: Host
name: kvm1
ovsdb: tcp:192.0.2.1:6640
uplinks: {phys1: {interface: eth1}}
external: {uplink: phys1, address: 203.0.113.11/24, gateway: 203.0.113.1}
---
{kind: Network, name: web, mode: route, subnets: [10.20.0.0/24]}
---
{kind: BgpPeer, name: tor, address: 203.0.113.1, remote_as: 64512, local_as: 64513}
"""
SEEN = {"vm_uuid": WEB1, "vm": "web1", "mac": MAC1, "host": "kvm1", "ofport": 5, "network": "web",
        "portgroup": "default", "addresses": ["10.20.0.5"], "state": "active"}  # fmt: skip
WAYS = ["10.20.0.0/24 via 203.0.113.11", "10.20.0.5/32 via 203.0.113.11"]


class Router:
    """One that takes what it is told, with or without graceful restart. ``farewells`` are the NOTIFICATIONs it got."""

    def __init__(self) -> None:
        self.restart_time: int | None = 120
        self.farewells: list[bytes] = []
        self.came = self.left = 0

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.came += 1
        opened = messages.open_message(64512, 90, "192.0.2.9", self.restart_time or 0, False)
        if self.restart_time is None:  # without the last capability
            opened = messages._message(Kind.OPEN, opened[19:28] + bytes([22, 2, 20]) + opened[31:51])
        writer.write(opened + messages.keepalive())
        with contextlib.suppress(EOFError, OSError):
            while True:
                kind, size = messages.read_header(await reader.readexactly(messages.HEADER_BYTES))
                body = await reader.readexactly(size)
                if kind == Kind.NOTIFICATION:
                    self.farewells.append(body)
        self.left += 1
        writer.close()


@contextlib.asynccontextmanager
async def routed(tmp_path: Path) -> AsyncIterator[tuple[Fleet, Router]]:
    """A fleet of which the router hears, with one guest, before it is applied."""
    router = Router()
    server = await asyncio.start_server(router.take, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    async def dialled(spec: BgpPeerSpec) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", port)

    try:
        async with coordinated(tmp_path) as fleet:
            fleet.coordinator.bgp.dialled = dialled
            fleet.coordinator.guests.evaluate = lambda *_: Changes()  # type: ignore[method-assign,assignment]
            yield fleet, router
        await until(lambda: router.left == router.came, "the speaker has hung up")
    finally:
        server.close()


async def status(fleet: Fleet) -> dict[str, object]:
    return dict((await fleet.operations.get("BgpPeer", "tor"))["status"])


async def about_bgp(fleet: Fleet) -> list[str]:
    return [f"{each.severity} {each.what}" for each in await fleet.operations.doctor(None) if each.check == "bgp"]


def up_and_down(fleet: Fleet) -> list[str]:
    found = fleet.coordinator.history.find(EventFilter(kind="BgpPeer")).events
    return [event.event for event in found if event.event in {"up", "down"}]


def routes(fleet: Fleet) -> list[str]:
    peer = fleet.coordinator.bgp.peers.get("tor")
    return sorted(f"{prefix} via {hop}" for prefix, hop in peer.announced.items()) if peer is not None else []


def test_routes_follow_the_rows(tmp_path: Path) -> None:
    async def main() -> None:
        async with routed(tmp_path) as (fleet, router):
            await fleet.apply(FLEET)
            await fleet.store.commit([PutStatus("Port", NAME, SEEN, create=True)])
            await until(lambda: routes(fleet) == WAYS, lambda: str(routes(fleet)))
            told = await status(fleet)
            assert (told["state"], told["reason"], told["announced"], told["routes"]) == ("established", "", 2, WAYS)
            assert (told["hold_time"], told["restart_time"]) == (90, 120)
            assert await about_bgp(fleet) == []
            numbers = read("".join(exposition(await fleet.operations.metrics())))
            assert numbers["fleetswitch_bgp_established"].value(peer="tor") == 1
            assert numbers["fleetswitch_bgp_announced_prefixes"].value(peer="tor") == 2
            await fleet.apply(FLEET.replace("203.0.113.11", "203.0.113.19"))
            moved = [way.replace("113.11", "113.19") for way in WAYS]
            await until(lambda: routes(fleet) == moved, lambda: str(routes(fleet)))
            await fleet.delete("BgpPeer", "tor")
            await until(lambda: router.farewells == [b"\x06\x03"], lambda: str(router.farewells))
            assert fleet.coordinator.bgp.peers == {}

    run(main())


def test_what_is_told_of_a_router(tmp_path: Path) -> None:
    async def main() -> None:
        async with routed(tmp_path) as (fleet, router):
            router.restart_time = None
            await fleet.apply(FLEET)
            await until(lambda: up_and_down(fleet) == ["up"], lambda: str(up_and_down(fleet)))
            (found,) = await about_bgp(fleet)
            assert found.startswith("warning takes no part in graceful restart")
            await fleet.apply(
                "{kind: BgpPeer, name: tor, address: 203.0.113.1, remote_as: 64999, local_as: 64513, uplink: x}"
            )
            await until(lambda: len(up_and_down(fleet)) == 2, lambda: str(up_and_down(fleet)))
            bad, idle = sorted(await about_bgp(fleet))
            assert bad == "error is not established: is of AS 64512, not of 64999 (see remote_as)"
            assert idle == "warning no host has an external address on x: nothing is announced"
            assert up_and_down(fleet) == ["up", "down"]
            # nothing for good to the router that stays
            await until(lambda: router.farewells == [b"\x02\x02"], lambda: str(router.farewells))

    run(main())


def test_a_controller_that_stops_says_nothing_and_the_next_one_tells_all(tmp_path: Path) -> None:
    async def main() -> None:
        async with routed(tmp_path) as (fleet, router):
            await fleet.apply(FLEET)
            await fleet.store.commit([PutStatus("Port", NAME, SEEN, create=True)])
            await until(lambda: routes(fleet) == WAYS, lambda: str(routes(fleet)))
        assert (router.came, router.farewells) == (1, [])
        async with routed(tmp_path) as (fleet, router):
            await until(lambda: routes(fleet) == WAYS, lambda: str(routes(fleet)))
            assert up_and_down(fleet) == ["up"]  # as the controller before found it

    run(main())
