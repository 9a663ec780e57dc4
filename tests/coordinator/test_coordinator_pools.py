"""Addresses of pools: which host gets which, for how long, and what is told where none is left."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from coordinated import Fleet, coordinated
from ovsdb_servers import idl_thread, raises, run

from apps import APPS
from controller import coordinator as coordinator_module
from controller.coordinator import Coordinator
from controller.desired import NAT_ADDRESSES, Desired
from controller.doctor import examine
from controller.errors import InvalidInput, StoreError
from controller.model.documents import dump_spec
from controller.model.host import HostSpec
from controller.model.network import NetworkSpec
from controller.pipeline.pipeline import Pipeline
from controller.rows import nat_name
from controller.store import NumberRequest, PrivateServer, Put, Remove, Store
from controller.store.rows import PutStatus, Write
from controller.sweeper import Sweeper
from topology.guests import Changes

FLEET = "---\n".join(
    f"""\
kind: Host
name: kvm{n}
ovsdb: tcp:192.0.2.{n}:6640
libvirt: qemu+tcp://192.0.2.{n}/system
uplinks: {{phys1: {{interface: eth1}}}}
external: {{uplink: phys1, address: 203.0.113.1{n}/24, gateway: 203.0.113.1}}
"""
    for n in (1, 2)
)
WEB = "{{kind: Network, name: web, mode: nat, subnets: [10.0.0.0/24], nat: {{addresses: [{}]}}}}"


def guests(*hosts: str) -> list[Write]:
    """One of network web on each of these hosts."""
    return [
        PutStatus("Port", f"guest{n}", {
            "vm_uuid": f"00000000-0000-4000-8000-00000000000{n}", "mac": f"52:54:00:00:00:0{n}", "host": host,
            "ofport": n, "network": "web", "portgroup": "default", "addresses": [f"10.0.0.{n}"], "state": "active",
        }, create=True)
        for n, host in enumerate(hosts, start=1)
    ]  # fmt: skip


async def allotted(fleet: Fleet) -> object:
    return (await fleet.operations.get("Network", "web"))["status"]["nat_addresses"]


async def becomes(fleet: Fleet, wanted: dict[str, str]) -> None:
    await fleet.coordinator.until(lambda: fleet.coordinator.observer.judged >= fleet.coordinator.sequence, 10.0)
    assert await allotted(fleet) == wanted


async def with_guests(fleet: Fleet, pool: str) -> None:
    fleet.coordinator.guests.evaluate = lambda *_: Changes()  # type: ignore[method-assign,assignment]
    await fleet.apply(f"{FLEET}---\n{WEB.format(pool)}")
    assert await allotted(fleet) == {}
    await fleet.store.commit(guests("kvm2"))
    await becomes(fleet, {"kvm2": "203.0.113.20"})


def test_each_host_with_guests_has_one_for_itself_and_keeps_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            await with_guests(fleet, "203.0.113.20-203.0.113.29")
            await fleet.store.commit(guests("kvm1", "kvm2"))
            await becomes(fleet, {"kvm1": "203.0.113.21", "kvm2": "203.0.113.20"})
            await fleet.store.commit(guests("kvm1", "kvm1"))
            await becomes(fleet, {"kvm1": "203.0.113.21", "kvm2": "203.0.113.20"})
            again = Coordinator(fleet.store, Pipeline(APPS), fleet.coordinator._connect, [], 2)
            again.desired.load()
            again.engine.update(again.desired.rows())
            assert again.engine.fabric.reader().nat_addresses("kvm1") == {"web": "203.0.113.21"}

    run(main())


def test_where_none_is_left_it_is_told_and_what_to_do(tmp_path: Path) -> None:
    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            await with_guests(fleet, "203.0.113.20")
            await fleet.store.commit(guests("kvm1", "kvm2"))
            await becomes(fleet, {"kvm2": "203.0.113.20"})
            reason = "no address of its pool 203.0.113.20 is left for Host kvm1"
            status = (await fleet.operations.get("Network", "web"))["status"]
            assert status["no_nat_address"] == {"kvm1": reason}
            (told,) = [each for each in await examine(fleet.coordinator, None) if each.place == "Network web"]
            assert (told.severity, told.host) == ("error", "kvm1")
            assert told.what == f"{reason}, whose guests of it do not reach the outside"
            assert told.remedy == "add addresses of 203.0.113.0/24 to its nat.addresses"
            await fleet.apply(WEB.format("203.0.113.20, 203.0.113.40"))
            await becomes(fleet, {"kvm1": "203.0.113.40", "kvm2": "203.0.113.20"})
            assert not [each for each in await examine(fleet.coordinator, None) if each.place == "Network web"]

    run(main())


def test_an_address_that_left_the_pool_is_nobodys_until_all_hosts_have_confirmed(tmp_path: Path) -> None:
    """Both hosts are away: one of them may answer for it still."""

    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            await with_guests(fleet, "203.0.113.20")
            await fleet.apply(WEB.format("203.0.113.21"))
            await becomes(fleet, {"kvm2": "203.0.113.21"})
            await fleet.store.commit(guests("kvm1", "kvm2"))
            await fleet.apply(WEB.format("203.0.113.20-203.0.113.21"))
            reader = fleet.coordinator.engine.fabric.reader()
            await fleet.coordinator.until(lambda: fleet.coordinator.observer.judged >= fleet.coordinator.sequence, 10.0)
            assert {reader.nat_address("web", "kvm1"), reader.nat_address("web", "kvm2")} == {None, "203.0.113.20"}

    run(main())


def test_who_lacks_one_gets_what_goes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nothing else happens in the fleet."""
    monkeypatch.setattr(coordinator_module, "_SWEEP_SECONDS", 0.05)

    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            await with_guests(fleet, "203.0.113.20")
            await fleet.store.commit(guests("kvm1"))
            await becomes(fleet, {"kvm2": "203.0.113.20"})
            await fleet.store.commit([Remove("Host", "kvm2")])
            await becomes(fleet, {})
            monkeypatch.setattr(fleet.coordinator._sweeper, "_confirmed", lambda: fleet.coordinator.sequence)
            await fleet.coordinator.until(
                lambda: bool(fleet.coordinator.engine.fabric.reader().nat_addresses("kvm1")), 9
            )
            assert await allotted(fleet) == {"kvm1": "203.0.113.20"}

    run(main())


def test_what_would_leave_a_pool_without_a_host_stays(tmp_path: Path) -> None:
    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            await with_guests(fleet, "203.0.113.20")
            await fleet.store.commit([Remove("Port", "guest1")])
            await fleet.delete("Host", "kvm2", force=True)
            said = await raises(InvalidInput, fleet.delete("Host", "kvm1", force=True))
            assert "Host kvm1: is named by Networks: web (delete them as well)" in said

    run(main())


@contextlib.asynccontextmanager
async def a_store(folder: Path) -> AsyncIterator[tuple[Store, Store]]:
    """Seen by two controllers."""
    private = PrivateServer(folder)
    await private.start()
    try:
        with idl_thread() as thread:
            stores = Store(private.remote, thread), Store(private.remote, thread)
            for each in stores:
                await each.start()
            yield stores
            for each in stores:
                each.close()
    finally:
        await private.stop()


def wanted(host: str, address: str = "203.0.113.20") -> NumberRequest:
    number = int(IPv4Address(address))
    return NumberRequest(NAT_ADDRESSES, nat_name("web", host, address), number, number)


def test_two_controllers_give_none_twice(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_store(tmp_path) as (one, other):
            await one.commit((), numbers=[wanted("kvm1")])
            await raises(StoreError, other.commit((), numbers=[wanted("kvm2")]))
            assert list(one.numbers(NAT_ADDRESSES)) == ["web/kvm1/203.0.113.20"]

    run(main())


def test_it_goes_back_with_its_network_its_host_or_from_the_pool(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_store(tmp_path) as (store, _):
            desired, confirmed = Desired(store), [0]
            store.watch(lambda changes: desired.take(changes) and None)
            sweeper = Sweeper(store, desired, lambda: confirmed[0])
            outside = {"uplink": "p", "address": "203.0.113.11/24", "gateway": "203.0.113.1"}
            host = HostSpec.model_validate(
                {"ovsdb": "unix:/db", "uplinks": {"p": {"interface": "e"}}, "external": outside}
            )

            def network(pool: str) -> Put:
                spec = NetworkSpec.model_validate(
                    {"mode": "nat", "subnets": ["10.0.0.0/24"], "nat": {"addresses": [pool]}}
                )
                return Put("Network", "web", dump_spec(spec))

            async def swept(*writes: Write) -> list[str]:
                await store.commit(writes)
                confirmed[0] += 1
                sweeper.look(confirmed[0])
                await sweeper.sweep()
                return list(store.numbers(NAT_ADDRESSES))

            there = [Put("Host", "kvm1", dump_spec(host)), network("203.0.113.20")]
            for gone in (Remove("Network", "web"), Remove("Host", "kvm1"), network("203.0.113.21")):
                await store.commit(there, numbers=[wanted("kvm1")])
                assert await swept() == ["web/kvm1/203.0.113.20"]
                assert await swept(gone) == []

    run(main())
