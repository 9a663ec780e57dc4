"""A host loses its power and comes back with all that its OVSDB remembers: nobody gets into another's segment."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from e2e_fleet import Document, Fleet, Pinging, eventually, outside, wait_ping
from labkit import Guest, LightGuest, Nic, netns

pytestmark = pytest.mark.lab

NETWORKS = """
kind: Network
name: cloud
mode: isolated
---
kind: Network
name: lan
mode: bridge
physical_network: physnet1
portgroups: {ten: {vlan: 10}, twenty: {vlan: 20}}
"""
TWENTY, CLOUD, TEN = (f"52:54:00:90:00:0{n}" for n in (1, 2, 3))
CLEANED = 60.0  # seconds: what was left behind is removed after fifteen
QUIET = 60  # frames: what a guest gets of its own segments while it boots and nobody speaks to it


@dataclass
class World:
    """On h1 ``first`` in VLAN 20, then ``second``, which starts when its host does, in cloud and in VLAN 10. On h2
    ``peer`` in cloud and VLAN 10."""

    fleet: Fleet
    first: Guest
    second: Guest
    peer: LightGuest

    def status(self, mac: str) -> Document:
        return dict(self.fleet.port_of(mac).get("status", {}))

    def first_is_right(self, host: str) -> None:
        eventually("first's row", lambda: self._is_active(TWENTY, host), 40.0)
        eventually("VLAN 20 reaches it", lambda: reached(self.fleet, 20, "10.0.10.21"))
        assert not reached(self.fleet, 10, "10.0.10.21")

    def second_is_right(self) -> None:
        eventually("second's rows", lambda: self._is_active(CLOUD, "h1") and self._is_active(TEN, "h1"), 40.0)
        self.second.wait_boot()
        wait_ping(self.peer, "10.9.0.22")
        eventually("VLAN 10 reaches it", lambda: reached(self.fleet, 10, "10.0.10.22"))
        assert not reached(self.fleet, 20, "10.0.10.22")

    def _is_active(self, mac: str, host: str) -> bool:
        status = self.status(mac)
        guest = self.first if mac == TWENTY else self.second
        index = [nic.mac for nic in guest.nics].index(mac)
        return (status.get("state"), status.get("host")) == ("active", host) and status["tap"] == guest.ports()[index]


def reached(fleet: Fleet, vlan: int, address: str) -> bool:
    outside(fleet.lab, vlan, "ip neigh flush all")
    return outside(fleet.lab, vlan, f"ping -n -c2 -i0.1 -W0.5 {address}")[0] == 0


def delivered(fleet: Fleet, tap: str) -> int:
    """Frames that the guest behind the tap of h1 was given."""
    text = fleet.hosts["h1"].ofctl("dump-ports", "br-int", tap)
    return int(re.search(r"tx pkts=(\d+)", text)[1])  # type: ignore[index]


@contextlib.contextmanager
def shouting(fleet: Fleet, vlan: int) -> Iterator[None]:
    """Somebody in the VLAN sends a hundred broadcasts a second while the block runs."""
    argv = netns.argv_in(fleet.lab.outside_vlan(vlan), ["ping", "-b", "-n", "-q", "-i", "0.01", "10.0.10.255"])
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as ping:
        try:
            yield
            assert ping.poll() is None
        finally:
            ping.kill()


@pytest.fixture(scope="module")
def world(fleet: Fleet) -> Iterator[World]:
    fleet.apply(NETWORKS)
    first = fleet.real("h1", "first", [Nic("lan", "twenty", TWENTY, ("10.0.10.21/24",))], wait=False)
    second = fleet.real("h1", "second", [
        Nic("cloud", None, CLOUD, ("10.9.0.22/24",), mtu=1450), Nic("lan", "ten", TEN, ("10.0.10.22/24",)),
    ], wait=False)  # fmt: skip
    second.host.virsh("autostart", "second")
    peer = fleet.lights({"peer": ("h2", [
        Nic("cloud", None, addresses=("10.9.0.1/24",)), Nic("lan", "ten", addresses=("10.0.10.1/24",)),
    ])})["peer"]  # fmt: skip
    first.wait_boot()
    yield World(fleet, first, second, peer)
    first.remove()
    second.remove()


def test_a_guest_is_started_elsewhere_and_its_host_comes_back_with_other_ports(fleet: Fleet, world: World) -> None:
    world.first_is_right("h1")
    world.second_is_right()
    host = fleet.hosts["h1"]
    others = {str(world.status(TWENTY)["ofport"])}
    with Pinging(world.peer, "10.0.10.254") as elsewhere, shouting(fleet, 20):
        host.lose_power()
        eventually("it is away", lambda: all(
            fleet.get("Host", "h1")["status"][part]["state"] == "down" for part in ("ovsdb", "openflow", "libvirt")
        ))  # fmt: skip
        world.first.evacuate("h2")
        world.first_is_right("h2")
        host.boot()
        eventually("second has started by itself", lambda: "second" in host.virsh("list", "--name").split())
        taps = world.second.ports()
        assert others & {host.vsctl("get", "Interface", tap, "ofport") for tap in taps}, "no port was the other guest's"
        eventually(
            "second's rows", lambda: {world.status(mac).get("state") for mac in (CLOUD, TEN)} == {"active"}, 40.0
        )
        fleet.settle()
        for tap in taps:
            assert delivered(fleet, tap) < QUIET, f"{tap} hears what is shouted in VLAN 20"
    assert not elsewhere.lost, str(elsewhere)
    world.second_is_right()
    world.first_is_right("h2")
    names = {*taps, "fs-geneve", "fs-gre", "fs-vxlan", "fs-int1"}
    eventually("what was left is gone", lambda: set(host.vsctl("list-ports", "br-int").split()) == names, CLEANED)
    world.first_is_right("h2")


def test_a_host_comes_back_while_the_controller_is_away(fleet: Fleet, world: World) -> None:
    host = fleet.hosts["h1"]
    fleet.controller.stop(signal.SIGKILL)
    host.lose_power()
    host.boot()
    eventually("second has started by itself", lambda: "second" in host.virsh("list", "--name").split())
    with shouting(fleet, 20):
        fleet.controller.start()
        eventually(
            "second's rows", lambda: {world.status(mac).get("state") for mac in (CLOUD, TEN)} == {"active"}, 40.0
        )
        for tap in world.second.ports():
            assert delivered(fleet, tap) < QUIET, f"{tap} hears what is shouted in VLAN 20"
    world.second_is_right()
    world.first_is_right("h2")


def test_a_guest_goes_home(fleet: Fleet, world: World) -> None:
    world.first.destroy()
    world.first.evacuate("h1")
    fleet.hosts["h2"].virsh("undefine", "first")
    world.first_is_right("h1")
    world.second_is_right()
    [tap] = world.first.ports()
    with shouting(fleet, 20):
        eventually("whoever belongs to VLAN 20 hears it", lambda: delivered(fleet, tap) > QUIET)
