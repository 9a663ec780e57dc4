"""Whatever dies and comes back, in any order: guests keep talking, and nothing is sent that is there already."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from e2e_fleet import Fleet, Pinging, eventually, installed, lab_name, pings, wait_ping
from labkit import Guest, Lab, LightGuest, Nic, netns
from labkit.procs import Process

pytestmark = [pytest.mark.lab, pytest.mark.alone]

NETWORKS = """
kind: Network
name: cloud
mode: isolated
---
kind: Network
name: lan
mode: bridge
physical_network: physnet1
portgroups: {ten: {vlan: 10}}
"""
REAL = "52:54:00:77:00:01"
SECOND = 1.0


@dataclass
class World:
    """a, b: light guests of h1 and h2 on both networks. real: a real guest of h1 on the overlay."""

    a: LightGuest
    b: LightGuest
    real: Guest


@pytest.fixture(scope="module")
def world(fleet: Fleet) -> Iterator[World]:
    fleet.apply(NETWORKS)
    real = fleet.real("h1", "real", [Nic("cloud", None, REAL, ("10.6.0.9/24",), mtu=1450)], wait=False)
    guests = fleet.lights({
        name: (host, [Nic("cloud", None, addresses=(f"10.6.0.{n}/24",)),
                      Nic("lan", "ten", addresses=(f"10.0.10.{n}/24",))])
        for n, (name, host) in enumerate((("a", "h1"), ("b", "h2")), start=1)
    })  # fmt: skip
    real.wait_boot()
    fleet.wait_active([REAL])
    yield World(guests["a"], guests["b"], real)
    real.remove()


@pytest.fixture(autouse=True)
def _everybody_talks(fleet: Fleet, world: World) -> None:
    talk(world)
    fleet.settle()


def talk(world: World) -> None:
    """Return when every pair talks."""
    for sender, target in ((world.a, "10.6.0.2"), (world.b, "10.6.0.1"), (world.a, "10.0.10.2"), (world.b, "10.6.0.9")):
        wait_ping(sender, target)


def log_from(fleet: Fleet, position: int) -> str:
    return fleet.controller.log.read_bytes()[position:].decode(errors="replace")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_controller_dies_and_comes_back_unnoticed(fleet: Fleet, world: World, number: int) -> None:
    before = {name: installed(host) for name, host in fleet.hosts.items()}
    taken, position = time.monotonic(), fleet.controller.log.stat().st_size
    with Pinging(world.a, "10.6.0.2") as overlay, Pinging(world.b, "10.0.10.1") as trunk:
        fleet.controller.stop(number)
        fleet.controller.start()
        fleet.settle()
        elapsed = time.monotonic() - taken
        after = {name: installed(host) for name, host in fleet.hosts.items()}
    for pinging in (overlay, trunk):
        assert not pinging.lost, str(pinging)
        assert pinging.answered > 50, str(pinging)
    found = re.findall(r"(h\d): has (\d+) of our flows, lacks (\d+), (\d+) too many", log_from(fleet, position))
    assert {host for host, *_ in found} == {"h1", "h2"}
    assert all((lacks, many) == ("0", "0") for _, _, lacks, many in found)
    for name, flows in before.items():
        assert flows.keys() == after[name].keys()
        # A flow that was sent again would count its seconds from then on.
        again = {i: (flows[i], after[name][i]) for i in flows if after[name][i] < flows[i] + elapsed - SECOND}
        assert not again, (name, elapsed, again)


def test_a_guest_that_starts_while_the_controller_is_away_is_switched_afterwards(fleet: Fleet, world: World) -> None:
    fleet.controller.stop(signal.SIGKILL)
    late = fleet.lab.start_light("h2", "late", [Nic("cloud", None, addresses=("10.6.0.7/24",))])
    assert not pings(late, "10.6.0.1", tries=1)
    fleet.controller.start()
    fleet.apply(late.ports_yaml())
    fleet.wait_active([late.nics[0].mac])
    wait_ping(late, "10.6.0.1")
    fleet.stop([late])


def test_a_guest_that_ends_while_the_controller_is_away_is_forgotten(fleet: Fleet, world: World) -> None:
    gone = fleet.lights({"gone": ("h2", [Nic("cloud", None, addresses=("10.6.0.8/24",))])})["gone"]
    wait_ping(world.a, "10.6.0.8")
    fleet.controller.stop(signal.SIGKILL)
    gone.stop()
    fleet.controller.start()
    eventually("absent", lambda: fleet.get("Port", "gone-0")["status"]["state"] == "absent")
    fleet.settle()
    assert gone.nics[0].mac not in fleet.hosts["h1"].ofctl("dump-flows", "br-int")
    fleet.delete([("Port", "gone-0")])


def test_a_switch_that_was_killed_gets_its_flows_back(fleet: Fleet, world: World) -> None:
    host = fleet.hosts["h1"]
    before = set(installed(host))
    host.kill("ovs-vswitchd")
    host.start("ovs-vswitchd")
    address = f"{host.tunnel_ip}/24"  # may go with the process, whose device it is
    netns.ip_batch([f"addr replace {address} dev br-phy", "link set br-phy up"], host.netns)
    eventually("flows are back", lambda: before == set(installed(host)))
    talk(world)


def test_a_database_server_restarts_and_is_followed_again(fleet: Fleet, world: World) -> None:
    host = fleet.hosts["h1"]
    with Pinging(world.a, "10.6.0.2") as overlay:
        host.restart("ovsdb-server")
        eventually("OVSDB is up again", lambda: fleet.get("Host", "h1")["status"]["ovsdb"]["state"] == "up")
        fleet.settle()
    assert not overlay.lost, str(overlay)
    new = fleet.lights({"new": ("h1", [Nic("cloud", None, addresses=("10.6.0.12/24",))])})["new"]
    wait_ping(new, "10.6.0.2")
    fleet.stop([new])


def test_libvirtd_restarts_and_its_guest_goes_on(fleet: Fleet, world: World) -> None:
    host = fleet.hosts["h1"]
    with Pinging(world.b, "10.6.0.9") as pinging:
        host.kill("libvirtd")
        eventually("libvirt is away", lambda: fleet.get("Host", "h1")["status"]["libvirt"]["state"] != "up")
        assert fleet.get("Host", "h1")["status"]["libvirt"]["reason"]
        assert fleet.port_of(REAL)["status"]["state"] == "active"
        host.start("libvirtd")
        eventually("libvirt is up", lambda: fleet.get("Host", "h1")["status"]["libvirt"]["state"] == "up", 40.0)
        fleet.settle()
    assert fleet.port_of(REAL)["status"]["state"] == "active"
    assert not pinging.lost, str(pinging)


def test_the_controller_restarts_while_libvirtd_is_away(fleet: Fleet, world: World) -> None:
    host = fleet.hosts["h1"]
    with Pinging(world.b, "10.6.0.9") as pinging:
        host.kill("libvirtd")
        fleet.controller.stop(signal.SIGKILL)
        fleet.controller.start()
        eventually("OpenFlow is up", lambda: fleet.get("Host", "h1")["status"]["openflow"]["state"] == "up")
        assert fleet.port_of(REAL)["status"]["state"] == "active"
        host.start("libvirtd")
        eventually("libvirt is up", lambda: fleet.get("Host", "h1")["status"]["libvirt"]["state"] == "up", 40.0)
        fleet.settle()
    assert fleet.port_of(REAL)["status"]["state"] == "active"
    assert not pinging.lost, str(pinging)


def test_a_lab_goes_with_its_store_when_the_controller_was_killed() -> None:
    with Lab(lab_name("d"), 1, libvirt=False) as lab:
        fleet = Fleet(lab)
        fleet.controller.start()
        [pidfile] = fleet.controller.dir.glob("state/**/ovsdb-server.pid")
        store = Process.of("store", int(pidfile.read_text()))
        fleet.controller.stop(signal.SIGKILL)
        assert store.alive
    assert not store.alive
