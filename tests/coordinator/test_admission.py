"""Which switches come in, and what the operator is shown of the others. Switches made of bytes, at a real listener."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from coordinated import Fleet, coordinated
from openflow_peers import Peer
from ovsdb_servers import run, until
from played_switch import at_once

from controller.admission import Admission
from controller.api.operations import UnknownSwitch
from controller.desired import HOSTS
from controller.openflow import messages as msg
from controller.openflow.connection import Connection
from controller.openflow.decode import Features
from controller.openflow.listener import Listener
from controller.ovsdb.wanted import datapath_id
from controller.switch import Switch

HOST = "{kind: Host, name: kvm1, ovsdb: 'tcp:192.0.2.1:6640'}"


@contextlib.asynccontextmanager
async def listening(folder: Path) -> AsyncIterator[tuple[Fleet, Listener]]:
    async with coordinated(folder) as fleet:
        await fleet.apply(HOST)
        admission = fleet.coordinator.admission
        listener = Listener("tcp:127.0.0.1:0", admission.accept, lost=admission.lost)
        await listener.start()
        try:
            yield fleet, listener
        finally:
            await listener.close()


async def unknown(fleet: Fleet) -> list[UnknownSwitch]:
    return await fleet.operations.unknown_switches()


def own(fleet: Fleet) -> int:
    return datapath_id(fleet.coordinator.desired.numbers(HOSTS)["kvm1"])


def test_an_unknown_switch_is_shown_with_what_to_type(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with listening(tmp_path) as (fleet, listener):
            for dpid in (0xABC, 0xABC, 0xF1EE << 48 | 99):
                peer = await Peer.connect(listener.port)
                await peer.handshake(dpid)
                assert await peer.gone()
                peer.writer.close()
            ours, other = await unknown(fleet)
            assert (other.datapath_id, other.address, other.host) == ("0000000000000abc", "127.0.0.1", None)
            assert (other.attempts, other.since <= other.last) == (2, True)
            assert (
                """echo '{kind: Host, name: NAME, ovsdb: "tcp:127.0.0.1:6640"}' | fleetswitch apply""" in other.remedy
            )
            assert "ovs-vsctl del-controller" in other.remedy
            assert ours.datapath_id == "f1ee000000000063"
            assert "one that fleetswitch gives" in ours.reason
            said = [r.getMessage() for r in caplog.records if "turned away" in r.getMessage()]
            assert len(said) == 2, said

    run(main())


def test_whoever_does_not_get_through_the_handshake_is_shown(tmp_path: Path) -> None:
    async def main() -> None:
        async with listening(tmp_path) as (fleet, listener):
            peer = await Peer.connect(listener.port)
            peer.writer.write(bytes.fromhex("0400001000000001 0001000800000010"))  # OpenFlow 1.3 alone
            assert await peer.gone()
            peer.writer.close()
            [one] = await unknown(fleet)
            assert (one.datapath_id, one.address) == (None, "127.0.0.1")
            assert "OpenFlow 1.5" in one.reason
            assert "protocols=OpenFlow15" in one.remedy

    run(main())


def test_a_second_switch_with_a_datapath_id_is_shown_and_harms_the_first_one_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with listening(tmp_path) as (fleet, listener):
            first = await Peer.connect(listener.port)
            await first.handshake(own(fleet))
            switch = fleet.coordinator.agents["kvm1"].switch
            await until(lambda: switch.peer is not None, "the first is there")
            at = switch.peer
            others = [await Peer.connect(listener.port) for _ in range(5)]
            for each in others:
                await each.handshake(own(fleet))
            asked = 0
            while asked == 0:
                got = await first.message()
                if got[1] == msg.Type.ECHO_REQUEST:
                    asked += 1
                    first.writer.write(msg.echo_reply(got[8:], int.from_bytes(got[4:8], "big")))
            for each in others:
                assert await each.gone()
                each.writer.close()
            assert switch.peer == at
            [one] = await unknown(fleet)
            assert (one.host, one.attempts, one.datapath_id) == ("kvm1", 5, f"{own(fleet):016x}")
            assert "has this datapath id" in one.reason
            first.writer.close()

    run(main())


def test_a_switch_takes_its_place_again_when_the_old_connection_is_dead(tmp_path: Path) -> None:
    async def main() -> None:
        async with listening(tmp_path) as (fleet, listener):
            dead = await Peer.connect(listener.port)
            await dead.handshake(own(fleet))
            switch = fleet.coordinator.agents["kvm1"].switch
            await until(lambda: switch.peer is not None, "the first is there")
            old = switch.peer
            again = await Peer.connect(listener.port)
            await again.handshake(own(fleet))
            await until(lambda: switch.peer not in (None, old), "the new one is there")
            assert await dead.gone()
            assert await unknown(fleet) == []
            for peer in (dead, again):
                peer.writer.close()

    run(main())


def test_many_that_claim_a_host_that_is_away_leave_one(tmp_path: Path) -> None:
    async def main() -> None:
        async with listening(tmp_path) as (fleet, listener):
            switch = fleet.coordinator.agents["kvm1"].switch
            peers = [await Peer.connect(listener.port) for _ in range(30)]
            for peer in peers:
                await peer.handshake(own(fleet))
            # Nobody answers anything, so whoever is in may be displaced; but none is kept beside it.
            await until(lambda: switch.peer is not None and len(listener._connections) == 1, "one is left", 20)
            for peer in peers:
                peer.writer.close()

    run(main())


def test_what_was_before_a_host_came_in_from_there_is_over(tmp_path: Path) -> None:
    async def main() -> None:
        async with listening(tmp_path) as (fleet, listener):
            stray = await Peer.connect(listener.port)
            await stray.handshake(0xABC)
            assert await stray.gone()
            assert len(await unknown(fleet)) == 1
            good = await Peer.connect(listener.port)
            await good.handshake(own(fleet))
            switch = fleet.coordinator.agents["kvm1"].switch
            await until(lambda: switch.peer is not None, "it is in")
            assert await unknown(fleet) == []
            late = await Peer.connect(listener.port)
            await late.handshake(0xABC)
            assert await late.gone()
            assert [one.attempts for one in await unknown(fleet)] == [2]
            for peer in (stray, good, late):
                peer.writer.close()

    run(main())


def played_connection(names: tuple[str, ...] | None) -> Connection:
    return cast(Connection, SimpleNamespace(peer="192.0.2.7:5555", peer_names=names, is_active=True))


@pytest.mark.parametrize(
    ("names", "accepted", "reason"),
    [
        (("kvm1",), True, ""),
        (("impostor",), False, "a certificate of impostor is not this host's"),
        ((), False, "a certificate of nobody is not this host's"),
        (("x" * 10_000,), False, "a certificate of xxx"),
        (None, False, "claims to be Host kvm1 without TLS"),
    ],
    ids=["own", "another's", "no name", "long name", "no TLS"],
)
def test_under_tls_a_datapath_id_is_not_enough(names: tuple[str, ...] | None, accepted: bool, reason: str) -> None:
    taken: list[Connection] = []
    switch = Switch("kvm1", 1, [0], lambda: None, at_once)
    switch.accept = lambda connection, turned_away: taken.append(connection) is None  # type: ignore[method-assign]
    agents = {"kvm1": SimpleNamespace(switch=switch)}
    desired = SimpleNamespace(numbers=lambda pool: {"kvm1": 1})
    admission = Admission(desired, agents, ["ssl:192.0.2.9:6653"])  # type: ignore[arg-type]
    features = Features(datapath_id(1), 0, 254, 0, 0)
    assert admission.accept(played_connection(names), features) is accepted
    assert bool(taken) is accepted
    shown = admission.strangers()
    assert [(one.host, one.reason.startswith(reason)) for one in shown] == ([] if accepted else [("kvm1", True)])
    # Who has a certificate of the fleet's authority is a host that was set up wrong: its row says so.
    assert switch.state.reason.startswith(reason if names is not None and reason else "not connected yet")


def test_without_tls_a_plain_connection_is_what_hosts_are_told_to_make() -> None:
    switch = Switch("kvm1", 1, [0], lambda: None, at_once)
    switch.accept = lambda connection, turned_away: True  # type: ignore[method-assign]
    desired = SimpleNamespace(numbers=lambda pool: {"kvm1": 1})
    agents = {"kvm1": SimpleNamespace(switch=switch)}
    admission = Admission(desired, agents, ["tcp:192.0.2.9:6653"])  # type: ignore[arg-type]
    assert admission.accept(played_connection(None), Features(datapath_id(1), 0, 254, 0, 0))


def test_a_flood_of_unknown_switches_is_logged_sparingly(caplog: pytest.LogCaptureFixture) -> None:
    admission = Admission(SimpleNamespace(numbers=lambda pool: {}), {}, [])  # type: ignore[arg-type]
    begin = time.monotonic()
    for number in range(20_000):
        assert not admission.accept(played_connection(None), Features(number, 0, 254, 0, 0))
    assert len(caplog.records) <= 10 * (1 + int(time.monotonic() - begin) // 60)
    assert len(admission.strangers()) == 16
