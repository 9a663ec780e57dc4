"""LibvirtHost against libvirt's own mock driver: no libvirtd, no root."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest
from libvirt_watch import Watched, run, watched

from controller.errors import LibvirtError
from topology import host_networks, libvirt_calls
from topology.host_networks import WantedNetwork
from topology.libvirt_events import LibvirtEvents, close_reason, domain_event_name, network_event_name
from topology.libvirt_host import LibvirtHost, State
from topology.libvirt_pace import Deadlines

GUEST = "aaaaaaaa-0000-4000-8000-000000000001"
BLUE = "bbbbbbbb-0000-4000-8000-000000000001"
BLUE_NET = WantedNetwork("blue", BLUE, "br-int", ("web", "db"), "default")


URI = "test:///default"
DOMAIN = f"""<domain type='test'><name>g1</name><uuid>{GUEST}</uuid><memory>1024</memory><os><type>hvm</type></os>
<devices><interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='br-int'/>
<virtualport type='openvswitch'/><target dev='tap1'/></interface></devices></domain>"""
OTHER = "<network><name>other</name><forward mode='bridge'/><bridge name='br9'/></network>"


@pytest.fixture
def admin() -> Iterator[libvirt.virConnect]:
    """Somebody else's connection to a mock host with one running guest and one network of theirs. The mock keeps its
    state, and shares it, while any connection is open: so all is taken away again."""
    LibvirtEvents.start()
    connection = libvirt.open(URI)
    _clear(connection)
    connection.defineXML(DOMAIN).create()
    connection.networkDefineXML(OTHER)
    yield connection
    _clear(connection)
    connection.close()


def _clear(connection: libvirt.virConnect) -> None:
    for thing in (*connection.listAllDomains(0), *connection.listAllNetworks(0)):
        if thing.isActive():
            thing.destroy()
        thing.undefine()


def test_it_lists_then_is_up(admin: libvirt.virConnect) -> None:
    async def test() -> None:
        async with watched("kvm01", URI) as watch:
            assert watch.states == [(True, "")]
            (snapshot,) = watch.snapshots
            assert [view.name for view in snapshot.values()] == ["g1"]
            assert snapshot[GUEST].vnics[0].tap == "tap1"
            assert watch.networks == [["other"]]
            assert watch.host.version == (await watch.host.info()).libvirt_version
            assert (await watch.host.info()).hypervisor.startswith("TEST ")
            assert await watch.host.domain(GUEST) == snapshot[GUEST]
            assert await watch.host.domain(str(uuid.uuid4())) is None
        assert watch.states == [(True, ""), (False, "stopped")]
        with pytest.raises(LibvirtError, match="not connected"):
            await watch.host.domain(GUEST)

    run(test())


def test_networks_are_brought_to_what_is_wanted_and_others_left_alone(admin: libvirt.virConnect) -> None:
    async def test() -> None:
        async with watched("kvm01", URI) as watch:
            host = watch.host
            report = await host.converge_networks([BLUE_NET], "fleet-1")
            assert (list(report.changed), report.refused) == (["blue"], {})
            again = await host.converge_networks([BLUE_NET], "fleet-1")
            assert (again.changed, again.refused) == ({}, {})
            other = WantedNetwork("other", str(uuid.uuid4()), "br-int", (), "default")
            report = await host.converge_networks([other], "fleet-1")
            assert list(report.changed) == ["blue"]
            assert "virsh net-undefine other" in report.refused["other"]
            assert [network.config.bridge for network in host.networks if network.config] == ["br9"]

    run(test())


def test_any_network_of_the_host_can_be_read_as_it_is_defined(admin: libvirt.virConnect) -> None:
    async def test() -> None:
        async with watched("kvm01", URI) as watch:
            xml = await watch.host.network_xml("other")
            assert xml is not None
            assert "<bridge name='br9'/>" in xml
            assert await watch.host.network_xml("nix") is None

    run(test())


def test_what_is_wanted_before_the_host_is_up_comes_with_the_connection(admin: libvirt.virConnect) -> None:
    async def test() -> None:
        watch = Watched("kvm01", URI)
        with pytest.raises(LibvirtError, match="not connected"):
            await watch.host.converge_networks([BLUE_NET], "fleet-1")
        watch.host.start()
        await watch.up()
        assert list(watch.host.networks_report.changed) == ["blue"]
        assert watch.networks[-1] == ["blue", "other"]
        await watch.host.stop()

    run(test())


def test_events_of_one_domain_during_a_read_are_one_read(
    admin: libvirt.virConnect, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with watched("kvm01", URI) as watch:
            reads: list[str] = []
            may_read, reading = threading.Event(), threading.Event()
            read = libvirt_calls.read_domain

            def slow(connection: libvirt_calls.Connection, domain: str, host: str) -> object:
                reads.append(domain)
                reading.set()
                may_read.wait(10)
                return read(connection, domain, host)

            monkeypatch.setattr(libvirt_calls, "read_domain", slow)
            domain = admin.lookupByUUIDString(GUEST)
            domain.suspend()
            await asyncio.to_thread(reading.wait, 10)
            domain.resume()
            domain.suspend()
            domain.resume()
            # the callbacks' posts are in the loop's queue once a later event of the mock's has come through
            await asyncio.to_thread(_barrier, admin)
            may_read.set()
            await watch.event("resumed/unpaused", GUEST)
            assert reads == [GUEST, GUEST]

    run(test())


def _barrier(connection: libvirt.virConnect) -> None:
    """Returns when the events raised so far were delivered: they are in order, so one more tells."""
    seen = threading.Event()
    number = connection.networkEventRegisterAny(None, 0, lambda *_: seen.set(), None)
    network = connection.networkDefineXML(
        "<network><name>barrier</name><forward mode='bridge'/><bridge name='b'/></network>"
    )
    assert seen.wait(10)
    connection.networkEventDeregisterAny(number)
    network.undefine()


def test_a_guest_that_goes_is_told_as_none(admin: libvirt.virConnect) -> None:
    async def test() -> None:
        async with watched("kvm01", URI) as watch:
            admin.lookupByUUIDString(GUEST).destroy()
            assert await watch.event("stopped/destroyed", GUEST) is None
            assert dict(watch.host.domains) == {}
            admin.lookupByUUIDString(GUEST).create()
            view = await watch.event("started/booted", GUEST)
            assert view is not None
            assert view.live

    run(test())


def test_a_network_that_somebody_changes_is_put_right_once(admin: libvirt.virConnect) -> None:
    async def test() -> None:
        async with watched("kvm01", URI) as watch:
            await watch.host.converge_networks([BLUE_NET], "fleet-1")
            watch.networks.clear()
            network = admin.networkLookupByName("blue")
            network.destroy()
            network.undefine()
            blue = lambda: [n for n in watch.host.networks if n.name == "blue" and n.live and n.config]  # noqa: E731
            await watch.until(lambda: bool(watch.networks and blue()), "blue has gone and come back")
            assert admin.networkLookupByName("blue").isActive()

    run(test())


def test_a_network_that_somebody_takes_away_while_it_is_put_right_is_put_right_again(
    admin: libvirt.virConnect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their event comes when we have seen already what they did."""
    once = iter([True])

    def converge(conn: Any, *args: Any) -> Any:
        report = host_networks.converge(conn, *args)
        if next(once, False):
            network = admin.networkLookupByName("blue")
            network.destroy()
            network.undefine()
        return report

    async def test() -> None:
        async with watched("kvm01", URI) as watch:
            monkeypatch.setattr(libvirt_calls, "converge", converge)
            report = await watch.host.converge_networks([BLUE_NET], "fleet-1")
            assert list(report.refused) == ["blue"]
            blue = lambda: [n for n in watch.host.networks if n.name == "blue" and n.live and n.config]  # noqa: E731
            await watch.until(lambda: bool(blue()), "blue has come back")
            await watch.until(lambda: not watch.host.networks_report.refused, "and nothing is told of it")

    run(test())


def test_a_glance_sees_what_no_event_tells(admin: libvirt.virConnect) -> None:
    async def test() -> None:
        deadlines = Deadlines(open=2, call=1, glance=0.2, backoff_min=0.1, backoff_max=0.4)
        async with watched("kvm01", URI, deadlines) as watch:
            await watch.host.converge_networks([BLUE_NET], "fleet-1")
            admin.networkLookupByName("blue").setAutostart(0)
            await watch.until(lambda: bool(admin.networkLookupByName("blue").autostart()), "repaired")
            assert len(watch.snapshots) == 1  # nothing changed about the domains

    run(test())


def test_what_has_not_changed_is_not_parsed_again(admin: libvirt.virConnect, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        parsed: list[str] = []
        looks: list[None] = []
        parse, standing = libvirt_calls.parse_domain, libvirt_calls.standing_networks
        monkeypatch.setattr(libvirt_calls, "parse_domain", lambda xml, host: (parsed.append(xml), parse(xml, host))[1])
        monkeypatch.setattr(libvirt_calls, "standing_networks", lambda *a: (looks.append(None), standing(*a))[1])
        deadlines = Deadlines(open=2, call=1, glance=0.05, backoff_min=0.1, backoff_max=0.4)
        async with watched("kvm01", URI, deadlines) as watch:
            await watch.until(lambda: len(looks) > 3, "several glances")
            assert len(parsed) == 1
            admin.lookupByUUIDString(GUEST).destroy()
            await watch.until(lambda: not watch.host.domains, "it is gone")
            admin.lookupByUUIDString(GUEST).undefine()
            admin.defineXML(DOMAIN.replace("tap1", "tap2")).create()
            await watch.until(lambda: bool(watch.host.domains), "it is back")
            assert watch.host.domains[GUEST].vnics[0].tap == "tap2"

    run(test())


def test_a_domain_that_is_slow_to_answer_a_glance_costs_no_connection(
    admin: libvirt.virConnect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one that is being stopped: libvirt holds its lock until its ports are off the bridge."""

    async def test() -> None:
        deadlines = Deadlines(open=10, call=1, glance=0.1, backoff_min=0.1, backoff_max=0.4)
        async with watched("kvm01", URI, deadlines) as watch:
            answers, asked = threading.Event(), threading.Event()
            listed = libvirt_calls.list_domains

            def slow(*args: Any) -> object:
                asked.set()
                answers.wait(30)
                return listed(*args)

            monkeypatch.setattr(libvirt_calls, "list_domains", slow)
            await asyncio.to_thread(asked.wait, 10)
            await asyncio.sleep(2.0)  # twice what a call has that somebody waits for
            answers.set()
            admin.lookupByUUIDString(GUEST).suspend()
            assert await watch.event("suspended/paused", GUEST) is not None
            assert watch.states == [(True, "")]

    run(test())


def test_what_makes_no_sense_is_named_and_the_rest_is_told(admin: libvirt.virConnect) -> None:
    async def test() -> None:
        twin = DOMAIN.replace("tap1", "tap2").partition("<devices>")[2].partition("</devices>")[0]
        domain = admin.lookupByUUIDString(GUEST)
        domain.destroy()
        domain.undefine()
        admin.defineXML(DOMAIN.replace("</devices>", f"{twin}</devices>")).create()
        async with watched("kvm01", URI) as watch:
            assert len(watch.host.domains[GUEST].vnics) == 2
            (told,) = watch.host.not_understood
            assert told.startswith("host kvm01, domain g1: 2 interfaces have MAC 52:54:00:00:00:01")
            assert "virsh edit g1" in told

    run(test())


def test_a_host_that_cannot_be_reached_is_down_with_the_reason(tmp_path: Path) -> None:
    async def test() -> None:
        watch = Watched("kvm01", f"qemu+unix:///system?socket={tmp_path}/none")
        watch.host.start()
        await watch.until(lambda: bool(watch.states), "down")
        (up, reason) = watch.states[0]
        assert not up
        assert "host kvm01: cannot connect" in reason
        assert "is libvirtd running there" in reason
        await watch.host.stop()
        assert watch.host.state is State.STOPPED
        assert len(watch.states) <= 2  # the retries told nothing new

    run(test())


def test_a_host_may_be_stopped_twice_and_before_it_started(admin: libvirt.virConnect) -> None:
    async def test() -> None:
        watch = Watched("kvm01", URI)
        await watch.host.stop()
        watch.host.start()
        watch.host.start()
        await watch.host.stop()
        await watch.host.stop()
        assert isinstance(watch.host, LibvirtHost)
        assert watch.states[-1:] in ([], [(False, "stopped")])

    run(test())


def test_events_have_virshs_names() -> None:
    assert domain_event_name(2, 1) == "started/migrated"
    assert domain_event_name(5, 1) == "stopped/destroyed"
    assert domain_event_name(2, 99) == "started/99"
    assert domain_event_name(99, 1) == "99/1"
    assert (network_event_name(2), network_event_name(9)) == ("started", "9")
    assert (close_reason(2), close_reason(-1)) == ("keepalive timeout", "reason -1")
