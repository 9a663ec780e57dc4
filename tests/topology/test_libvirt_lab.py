"""LibvirtHost against real libvirtds: events, faults, networks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from labkit import Guest, Lab, Nic, wait_for
from labkit.host import Host
from libvirt_watch import Watched, run, watched

from controller.errors import LibvirtError
from topology.host_networks import NetworkOnHost, WantedNetwork
from topology.libvirt_events import LibvirtEvents
from topology.libvirt_host import State
from topology.libvirt_pace import Deadlines
from topology.network_xml import host_network_xml, parse_host_network

pytestmark = pytest.mark.lab

OWNER = "fleet-1"
FAST = Deadlines(open=3.0, call=2.0, audit=60.0, backoff_min=0.1, backoff_max=0.4)
CALM = replace(FAST, open=20.0, call=20.0)  # of a host that is asked for the first time, beside much else


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab("lv", hosts=2) as lab:
        for host in lab.hosts.values():
            host.add_bridge("br-int")
        yield lab


@pytest.fixture
def h1(lab: Lab) -> Iterator[Host]:
    """The first host; afterwards without networks, and with a libvirtd that runs."""
    host = lab.host("h1")
    yield host
    libvirtd = host.process("libvirtd")
    if libvirtd.alive:
        libvirtd.signal(signal.SIGCONT)
    else:
        host.start("libvirtd")
    for name in host.virsh("net-list", "--name").split():
        host.virsh("net-destroy", name)
    for name in host.virsh("net-list", "--inactive", "--name").split():
        host.virsh("net-undefine", name)


def wanted(name: str, *portgroups: str, default: str = "default", bridge: str = "br-int") -> WantedNetwork:
    return WantedNetwork(name, str(uuid.uuid5(uuid.NAMESPACE_DNS, name)), bridge, portgroups, default)


def network(watch: Watched, name: str) -> NetworkOnHost | None:
    return next((found for found in watch.host.networks if found.name == name), None)


@contextlib.contextmanager
def guest(lab: Lab, name: str, *nics: Nic) -> Iterator[Guest]:
    """Running, though perhaps not booted yet."""
    made = lab.start_guest("h1", name, nics, wait=False)
    try:
        yield made
    finally:
        made.remove()


def vm_uuid(host: Host, name: str) -> str:
    return host.virsh("domuuid", name)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def in_thread(call: Callable[[], object]) -> None:
    await asyncio.to_thread(call)


def test_a_guests_life_is_told(lab: Lab, h1: Host) -> None:
    async def test() -> None:
        async with watched("h1", h1.libvirt_uri, CALM) as watch:
            info = await watch.host.info()
            assert info.uuid == lab.host("h1").facts.uuid
            assert info.hypervisor.startswith("QEMU ")
            await watch.host.converge_networks([wanted("blue", "db")], OWNER)
            nic = Nic(network="blue", portgroup="db", mtu=1400)
            made = lab.define_guest("h1", "lv1", [nic])
            vm = vm_uuid(h1, "lv1")
            assert await watch.host.domain(vm) is None
            await in_thread(lambda: made.start(wait=False))
            view = await watch.event("started/booted", vm)
            assert view is not None
            (vnic,) = view.vnics
            assert (vnic.mac, vnic.network, vnic.portgroup, vnic.profileid) == (nic.mac, "blue", "db", "blue:db")
            assert (vnic.bridge, vnic.mtu, vnic.managed, vnic.link_up) == ("br-int", 1400, True, True)
            assert vnic.tap is not None
            assert vnic.iface_id is not None
            ids = h1.vsctl("get", "Interface", vnic.tap, "external_ids")
            assert f'iface-id="{vnic.iface_id}"' in ids
            assert f'vm-id="{vm}"' in ids

            second = Nic(network="blue")
            await in_thread(lambda: made.attach(second))
            view = await watch.event("device-added/net1", vm)
            assert view is not None
            assert [v.profileid for v in view.vnics] == ["blue:db", "blue:default"]
            assert view == await watch.host.domain(vm) == watch.host.domains[vm]

            await in_thread(made.destroy)
            assert await watch.event("stopped/destroyed", vm) is None
            assert vm not in watch.host.domains
            await in_thread(made.remove)

    run(test())


def test_a_glance_finds_a_link_that_was_set_down(lab: Lab, h1: Host) -> None:
    async def test() -> None:
        nic = Nic(bridge="br-int")
        with guest(lab, "lv2", nic):
            async with watched("h1", h1.libvirt_uri, replace(CALM, glance=0.3)) as watch:
                vm = vm_uuid(h1, "lv2")
                assert watch.snapshots[0][vm].vnics[0].link_up
                await in_thread(lambda: h1.virsh("domif-setlink", "lv2", nic.mac, "down"))
                await watch.until(lambda: not watch.snapshots[-1][vm].vnics[0].link_up, "link down seen")

    run(test())


def test_a_killed_libvirtd_is_noticed_and_its_return_too(lab: Lab, h1: Host) -> None:
    async def test() -> None:
        async with watched("h1", h1.libvirt_uri, CALM) as watch:
            with guest(lab, "lv3", Nic(bridge="br-int")):
                vm = vm_uuid(h1, "lv3")
                await watch.event("started/booted", vm)
                before = watch.host.domains[vm]
                h1.kill("libvirtd")
                await watch.until(lambda: watch.host.state is not State.UP, "down", 5)
                assert "connection lost: end of stream" in watch.states[1][1]
                assert watch.host.domains[vm] == before  # what was known is kept
                with pytest.raises(LibvirtError, match="not connected"):
                    await watch.host.domain(vm)
                await in_thread(lambda: h1.start("libvirtd"))
                await watch.up()
                assert watch.snapshots[-1] == {vm: before}
                await in_thread(lambda: h1.virsh("suspend", "lv3"))
                assert await watch.event("suspended/paused", vm) == before  # the new connection has events

    run(test())


def test_a_stopped_libvirtd_hangs_its_own_host_only(lab: Lab, h1: Host) -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        async with (
            watched("h1", h1.libvirt_uri, FAST) as watch,
            watched("h2", lab.host("h2").libvirt_uri, CALM) as other,
        ):
            await other.host.info()  # the first one takes seconds: libvirtd looks at every QEMU
            h1.process("libvirtd").signal(signal.SIGSTOP)
            begun = loop.time()
            asked = asyncio.create_task(watch.host.info())
            await other.host.info()
            assert not asked.done(), "the other one answered before this one was given up"
            with pytest.raises(LibvirtError, match="has not returned within 2 s"):
                await asked
            assert loop.time() - begun < 5
            with pytest.raises(LibvirtError):
                await watch.host.domain(str(uuid.uuid4()))  # at once, and no thread for it
            await watch.until(lambda: watch.host.state is State.HUNG, "hung")
            assert "libvirtd hangs: asking what it is" in watch.states[-1][1]
            h1.process("libvirtd").signal(signal.SIGCONT)
            await watch.up()
            assert (await watch.host.info()).uuid == h1.facts.uuid
            assert other.states == [(True, "")]

    run(test())


def test_an_idle_hosts_libvirtd_that_stops_is_found_by_keepalive_and_then_hangs(lab: Lab, h1: Host) -> None:
    async def test() -> None:
        async with watched("h1", h1.libvirt_uri, replace(FAST, glance=60.0)) as watch:
            h1.process("libvirtd").signal(signal.SIGSTOP)
            await watch.until(lambda: len(watch.states) > 1, "keepalive", 15)
            assert "keepalive" in watch.states[1][1]
            await watch.until(lambda: watch.host.state is State.HUNG, "hung", 15)
            assert "connecting to" in watch.host.reason
            h1.process("libvirtd").signal(signal.SIGCONT)
            await watch.up()

    run(test())


@pytest.mark.parametrize("was_up", [False, True])
def test_a_host_can_be_stopped_while_its_libvirtd_hangs(lab: Lab, h1: Host, was_up: bool) -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        watch = Watched("h1", h1.libvirt_uri, FAST)
        files = open_files()
        watch.host.start()
        if was_up:
            await watch.up()
        h1.process("libvirtd").signal(signal.SIGSTOP)
        if not was_up:
            await watch.until(lambda: watch.host.state is State.HUNG, "hung", 10)
        begun = loop.time()
        await watch.host.stop()
        assert loop.time() - begun < 5
        assert watch.host.state is State.STOPPED
        h1.process("libvirtd").signal(signal.SIGCONT)
        await watch.until(lambda: open_files() <= files, "the connection closed after all")

    LibvirtEvents.start()  # has files of its own
    run(test())


def test_networks_are_defined_repaired_and_undefined(lab: Lab, h1: Host) -> None:
    async def test() -> None:
        async with watched("h1", h1.libvirt_uri, CALM) as watch:
            host = watch.host
            blue, red = wanted("blue", "web", "db"), wanted("red")
            report = await host.converge_networks([blue, red], OWNER)
            assert report.changed == dict.fromkeys(["blue", "red"], "defined, set to autostart, started")
            assert report.refused == {}
            for name in ("blue", "red"):
                found = network(watch, name)
                assert found is not None
                assert found.autostart
                assert found.live == found.config
            again = await host.converge_networks([blue, red], OWNER)
            assert (again.changed, again.refused) == ({}, {})

            h1.virsh("net-autostart", "blue", "--disable")
            h1.virsh("net-destroy", "red")
            await watch.until(lambda: "red" in host.networks_report.changed, "red started again")
            await host.converge_networks([blue, red], OWNER)
            assert (await host.converge_networks([blue, red], OWNER)).changed == {}
            assert h1.virsh("net-list", "--autostart", "--name").split() == ["blue", "red"]

            report = await host.converge_networks([red], OWNER)
            assert report.changed == {"blue": "stopped, undefined"}
            assert h1.virsh("net-list", "--all", "--name").split() == ["red"]

    run(test())


def test_drift_is_put_right_without_touching_a_plugged_guest(lab: Lab, h1: Host, tmp_path: Path) -> None:
    async def test() -> None:
        async with watched("h1", h1.libvirt_uri, CALM) as watch:
            host = watch.host
            blue = wanted("blue", "web", "db")
            await host.converge_networks([blue], OWNER)
            with guest(lab, "lv4", Nic(network="blue", portgroup="db")):
                vm = vm_uuid(h1, "lv4")
                await watch.event("started/booted", vm)
                ports = h1.virsh("net-port-list", "blue")
                before = await host.domain(vm)

                # other port groups, and another default
                report = await host.converge_networks([replace(blue, portgroups=("db", "x"), default="x")], OWNER)
                assert report.changed == {"blue": "redefined, port groups updated"}
                assert report.refused == {}
                report = await host.converge_networks([blue], OWNER)
                assert report.changed == {"blue": "redefined, port groups updated"}

                # somebody adds a VLAN to a port group, for good and for now
                vlan = "<portgroup name='db'><vlan><tag id='7'/></vlan><virtualport type='openvswitch'/></portgroup>"
                path = tmp_path / "portgroup.xml"
                path.write_text(vlan)
                h1.virsh("net-update", "blue", "modify", "portgroup", str(path), "--live", "--config")
                report = await host.converge_networks([blue], OWNER)
                assert report.changed == {"blue": "redefined, port groups updated"}

                # what cannot be changed while it is in use is refused, and the guest left alone
                moved = replace(blue, bridge="br-ex")
                report = await host.converge_networks([moved], OWNER)
                assert report.changed == {"blue": "redefined"}
                assert "running guests are plugged into it" in report.refused["blue"]
                report = await host.converge_networks([], OWNER)
                assert report.changed == {"blue": "undefined"}
                assert "stopped when they have gone" in report.refused["blue"]
                report = await host.converge_networks([blue], OWNER)
                assert (report.changed, report.refused) == ({"blue": "defined, set to autostart"}, {})

                assert h1.virsh("net-port-list", "blue") == ports
                assert await host.domain(vm) == before
                report = await host.converge_networks([moved], OWNER)
                assert report.changed == {"blue": "redefined"}
            await watch.until(
                lambda: host.networks_report.changed == {"blue": "started anew"}, "done without the guest"
            )
            assert host.networks_report.refused == {}
            report = await host.converge_networks([], OWNER)
            assert report.changed == {"blue": "stopped, undefined"}

    run(test())


def test_others_networks_are_refused_by_name_and_never_touched(lab: Lab, h1: Host, tmp_path: Path) -> None:
    async def test() -> None:
        def define(name: str, xml: str) -> None:
            path = tmp_path / f"{name}.xml"
            path.write_text(xml)
            h1.virsh("net-define", str(path))

        red = wanted("red")
        define("blue", "<network><name>blue</name><forward mode='bridge'/><bridge name='br9'/></network>")
        define("green", f"<network><name>green</name><uuid>{red.uuid}</uuid><bridge name='virbr9'/></network>")
        define("theirs", host_network_xml("theirs", str(uuid.uuid4()), "br-int", [], "default", "fleet-2"))
        before = [h1.virsh("net-dumpxml", name) for name in ("blue", "green", "theirs")]
        async with watched("h1", h1.libvirt_uri, CALM) as watch:
            names = [wanted("blue"), red, wanted("theirs"), wanted("mine")]
            report = await watch.host.converge_networks(names, OWNER)
            assert list(report.changed) == ["mine"]
            assert "virsh net-undefine blue" in report.refused["blue"]
            assert "green" in report.refused["red"]
            assert "same UUID" in report.refused["red"]
            assert "another fleetswitch (fleet-2)" in report.refused["theirs"]
            report = await watch.host.converge_networks([], OWNER)
            assert list(report.changed) == ["mine"]
            assert report.refused == {}
        assert [h1.virsh("net-dumpxml", name) for name in ("blue", "green", "theirs")] == before
        assert h1.virsh("net-list", "--name") == ""

    run(test())


def test_a_network_made_again_with_another_uuid_takes_the_formers_place(lab: Lab, h1: Host) -> None:
    async def test() -> None:
        async with watched("h1", h1.libvirt_uri, CALM) as watch:
            blue = wanted("blue")
            await watch.host.converge_networks([blue], OWNER)
            anew = replace(blue, uuid=str(uuid.uuid4()))
            report = await watch.host.converge_networks([anew], OWNER)
            assert report.refused == {}
            assert h1.virsh("net-uuid", "blue") == anew.uuid

    run(test())


def test_libvirt_takes_the_names_that_the_model_allows_and_shows_what_was_defined(lab: Lab, h1: Host) -> None:
    async def test() -> None:
        async with watched("h1", h1.libvirt_uri, CALM) as watch:
            name = "Net-1_a.b234567890"
            longest = wanted(name, "Pg-1_a.b2345678901"[:18], "0")
            report = await watch.host.converge_networks([longest], OWNER)
            assert report.refused == {}
            found = network(watch, name)
            assert found is not None
            assert found.live == parse_host_network(longest.xml(OWNER))

    run(test())


def test_it_works_over_tcp_and_leaves_no_thread_and_no_file_behind(lab: Lab, h1: Host) -> None:
    async def connect() -> None:
        async with watched("h1", h1.libvirt_tcp_uri, CALM) as watch:
            assert not (await watch.host.info()).encrypted

    run(connect())
    files = open_files()
    for _ in range(5):
        run(connect())
    # a thread has posted its result a moment before it ends, and libvirt's own loop closes the socket later
    wait_for("no file more than before", lambda: open_files() <= files, 10)
    wait_for("no thread", lambda: not [t for t in threading.enumerate() if t.name.startswith("libvirt host h1")], 10)


def test_a_migration_is_told_on_both_hosts(lab: Lab, h1: Host) -> None:
    async def test() -> None:
        h2 = lab.host("h2")
        async with watched("h1", h1.libvirt_uri, CALM) as source, watched("h2", h2.libvirt_uri, CALM) as target:
            for watch in (source, target):
                await watch.host.converge_networks([wanted("blue")], OWNER)
            nic = Nic(network="blue")
            with guest(lab, "lv5", nic) as made:
                await in_thread(made.wait_boot)
                vm = vm_uuid(h1, "lv5")
                before = await source.host.domain(vm)
                assert before is not None
                await in_thread(lambda: made.migrate("h2"))
                arrived = await target.event("started/migrated", vm)
                assert arrived is not None
                assert [(v.mac, v.profileid) for v in arrived.vnics] == [(nic.mac, "blue:default")]
                assert arrived.vnics[0].iface_id != before.vnics[0].iface_id  # drawn anew: never a key
                await target.event("resumed/migrated", vm)
                assert await source.event("stopped/migrated", vm) is None
                assert (vm in source.host.domains, vm in target.host.domains) == (False, True)
            await target.event("stopped/destroyed", vm)
            assert (await target.host.converge_networks([], OWNER)).refused == {}

    run(test())
