"""Every event in a real guest's life leaves its row, its flows and its packets right, whoever else falls over."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import pytest
from e2e_fleet import Document, Fleet, eventually, outside, pings, silent, wait_ping
from labkit import Guest, LabError, LightGuest, Nic, netns

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
CLOUD, LAN = "52:54:00:e5:00:01", "52:54:00:e5:00:02"
ADDRESS, LAN_ADDRESS = "10.5.0.9", "10.0.10.9"
CLEANED = 60.0  # seconds: what was left behind is removed after fifteen


@dataclass(frozen=True)
class World:
    """``peers``: light guests in cloud, one a host. ``real``: a real guest of h1 in cloud and in VLAN 10 of lan."""

    fleet: Fleet
    peers: Mapping[str, LightGuest]
    real: Guest

    def status(self, mac: str) -> Document:
        return dict(self.fleet.port_of(mac).get("status", {}))

    def right(self, vlan: int = 10) -> None:
        """Return when its rows say what libvirt runs, every switch has what is wanted and no more, and it is reached in
        its network and in this VLAN, and not in the other one."""
        self.fleet.wait_active([CLOUD, LAN])
        taps = dict(zip((nic.mac for nic in self.real.nics), self.real.ports(), strict=True))
        for mac in (CLOUD, LAN):
            assert (self.status(mac)["host"], self.status(mac)["tap"]) == ("h1", taps[mac])
        for peer in self.peers.values():
            wait_ping(peer, ADDRESS)
        eventually(f"it is reached in VLAN {vlan}", lambda: outside_reaches(self.fleet, vlan))
        assert not outside_reaches(self.fleet, 30 - vlan, tries=1)
        self.fleet.settle()
        for name in self.fleet.hosts:
            flows = [flow for flow in self.fleet.flows(name) if flow["owner"] == "fleetswitch"]
            assert [flow for flow in flows if not flow["app"]] == [], "nobody wants these"
            assert len(flows) == self.fleet.get("Host", name)["status"]["flows"]

    def gone(self, timeout: float = 20.0) -> None:
        """Return when nothing is left of it."""
        eventually("its rows are gone", lambda: not self.status(CLOUD) and not self.status(LAN), timeout)
        self.fleet.settle()
        for host in self.fleet.hosts.values():
            flows = host.ofctl("dump-flows", "br-int")
            assert CLOUD not in flows
            assert LAN not in flows


def outside_reaches(fleet: Fleet, vlan: int, tries: int = 3) -> bool:
    # who was here before in the other VLAN may still be remembered
    outside(fleet.lab, vlan, "ip neigh flush all")
    return outside(fleet.lab, vlan, f"ping -n -c{tries} -i0.1 -W0.5 {LAN_ADDRESS}")[0] == 0


@pytest.fixture(scope="module")
def world(fleet: Fleet) -> Iterator[World]:
    fleet.apply(NETWORKS)
    real = fleet.real("h1", "real", [
        Nic("cloud", None, CLOUD, (f"{ADDRESS}/24",), mtu=1450), Nic("lan", "ten", LAN, (f"{LAN_ADDRESS}/24",)),
    ], wait=False)  # fmt: skip
    peers = fleet.lights({
        f"peer{n}": (f"h{n}", [Nic("cloud", None, addresses=(f"10.5.0.{n}/24",))]) for n in (1, 2)
    })  # fmt: skip
    real.wait_boot()
    world = World(fleet, peers, real)
    world.right()
    yield world
    real.remove()


def interface(world: World, mac: str) -> str:
    """Its element in the live XML, as one of a libvirt network: what virsh update-device takes for such a vNIC."""
    found = re.findall("<interface.*?</interface>", world.real.host.virsh("dumpxml", "real"), re.DOTALL)
    return next(xml for xml in found if mac in xml).replace("type='bridge'", "type='network'", 1)


def feed(world: World, verb: str, xml: str, *words: str) -> None:
    path = world.real.host.dir / "fed.xml"
    path.write_text(xml)
    try:
        world.real.host.virsh(verb, *words[:1], str(path), *words[1:])
    finally:
        path.unlink()


# What people do to a guest


def test_it_reboots(world: World) -> None:
    world.real.host.virsh("reboot", "real")
    world.real.wait_boot()
    world.right()


def test_it_is_saved_and_restored(world: World) -> None:
    host = world.real.host
    host.virsh("save", "real", "/run/console/real.save")
    world.gone()
    host.virsh("restore", "/run/console/real.save")
    world.right()


def test_it_is_suspended_while_libvirtd_restarts(world: World) -> None:
    host = world.real.host
    host.virsh("suspend", "real")
    host.restart("libvirtd")
    eventually("libvirt is up", lambda: world.fleet.get("Host", "h1")["status"]["libvirt"]["state"] == "up", 40.0)
    assert (world.status(CLOUD)["state"], world.status(LAN)["state"]) == ("active", "active")
    host.virsh("resume", "real")
    world.right()


def test_its_link_is_set_down_and_up(world: World) -> None:
    """libvirt tells nobody; and its domif-setlink fails for a vNIC of a network on Open vSwitch (libvirt 9.0)."""
    feed(world, "update-device", interface(world, CLOUD).replace("</inter", "<link state='down'/></inter"), "real")
    eventually("it is down", lambda: world.status(CLOUD)["state"] == "down")
    assert "virsh domif-setlink" in world.status(CLOUD)["reason"]
    world.fleet.settle()
    for name in world.fleet.hosts:
        apps = {flow["app"] for flow in world.fleet.flows(name) if CLOUD in flow["match"]}
        assert apps <= {"quarantine"}
    for peer in world.peers.values():
        assert silent(peer, ADDRESS)
    assert outside_reaches(world.fleet, 10)
    feed(world, "update-device", interface(world, CLOUD).replace("state='down'", "state='up'"), "real")
    world.right()


# Another portgroup


def test_libvirt_refuses_to_change_the_portgroup_of_a_running_guest_and_nothing_changes(world: World) -> None:
    xml = interface(world, LAN)
    for changed in (
        xml.replace("portgroup='ten'", "portgroup='twenty'"),
        xml.replace("portgroup='ten'", "portgroup='twenty'").replace("lan:ten", "lan:twenty"),
    ):
        with pytest.raises(LabError, match=r"unable to change config|mismatched profileids"):
            feed(world, "update-device", changed, "real")
    world.right()


def test_it_is_defined_in_another_portgroup_and_moves_when_it_starts_again(world: World) -> None:
    host = world.real.host
    before = host.virsh("dumpxml", "real", "--inactive")
    feed(world, "define", before.replace("portgroup='ten'", "portgroup='twenty'"))
    world.right()
    world.real.destroy()
    world.real.start()
    world.right(vlan=20)
    assert world.status(LAN)["portgroup"] == "twenty"
    feed(world, "define", before)


def test_its_vnic_is_unplugged_and_comes_back_in_another_portgroup(world: World) -> None:
    world.real.detach(LAN)
    eventually("its row is gone", lambda: not world.status(LAN))
    world.fleet.settle()
    assert not outside_reaches(world.fleet, 20, tries=1)
    world.real.attach(Nic("lan", "ten", LAN, (f"{LAN_ADDRESS}/24",)))
    world.right()


def test_its_portgroup_gets_another_vlan_while_it_runs(world: World) -> None:
    world.fleet.apply(NETWORKS.replace("ten: {vlan: 10}, twenty: {vlan: 20}", "ten: {vlan: 20}, twenty: {vlan: 10}"))
    world.right(vlan=20)
    world.fleet.apply(NETWORKS)
    world.right()


# It ends, while somebody is away


def libvirtd_works(_world: World) -> Callable[[], object]:
    return lambda: None


def libvirtd_hangs(world: World) -> Callable[[], object]:
    host = world.real.host
    host.kill("libvirtd", signal.SIGSTOP)
    return lambda: host.kill("libvirtd", signal.SIGCONT)


def libvirtd_is_dead(world: World) -> Callable[[], object]:
    host = world.real.host
    host.kill("libvirtd")
    return lambda: host.start("libvirtd")


@pytest.mark.parametrize("begin", [libvirtd_works, libvirtd_hangs, libvirtd_is_dead])
def test_its_qemu_is_killed(world: World, begin: Callable[[World], Callable[[], object]]) -> None:
    end = begin(world)
    world.real.crash()
    for peer in world.peers.values():
        assert not pings(peer, ADDRESS, tries=1)
    end()
    world.gone(60.0)
    eventually("libvirt is up", lambda: world.fleet.get("Host", "h1")["status"]["libvirt"]["state"] == "up", 40.0)
    world.real.start()
    world.right()


def test_it_ends_while_ovsdb_is_away_and_runs_again_beside_what_it_left(world: World) -> None:
    host = world.real.host
    left = world.real.ports()
    host.kill("ovsdb-server")
    world.real.destroy()  # libvirt cannot take its ports off the bridge, and Open vSwitch keeps them
    host.start("ovsdb-server")
    assert set(left) <= set(host.vsctl("list-ports", "br-int").split())
    world.real.start()
    world.right()
    eventually("what it left is gone", lambda: not set(left) & set(host.vsctl("list-ports", "br-int").split()), CLEANED)
    world.right()


def test_it_cannot_start_while_the_switch_is_away_and_can_afterwards(world: World) -> None:
    host = world.real.host
    world.real.destroy()
    world.gone()
    host.kill("ovs-vswitchd")
    with pytest.raises(LabError):
        world.real.start()
    host.start("ovs-vswitchd")
    netns.ip_batch([f"addr replace {host.tunnel_ip}/24 dev br-phy", "link set br-phy up"], host.netns)
    world.real.start()
    world.right()


# Somebody pulls its cables


def test_its_port_is_deleted_by_hand_and_libvirtd_plugs_it_in_again(world: World) -> None:
    host = world.real.host
    host.vsctl("del-port", world.real.ports()[0])
    eventually("it is told", lambda: world.status(CLOUD)["state"] == "pending")
    assert "restart libvirtd there" in world.status(CLOUD)["reason"]
    assert not pings(world.peers["peer2"], ADDRESS, tries=1)
    assert outside_reaches(world.fleet, 10)
    host.restart("libvirtd")
    world.right()


def test_the_bridge_is_deleted_by_hand_and_all_comes_back(world: World) -> None:
    host = world.real.host
    host.vsctl("del-br", "br-int")
    host.wait_bridge("br-int")
    eventually("it is told", lambda: {world.status(mac)["state"] for mac in (CLOUD, LAN)} == {"pending"})
    [port] = world.peers["peer1"].ports()
    ids = [f"external_ids:{key}={value}" for key, value in (
        ("vm-id", world.peers["peer1"].vm_id), ("attached-mac", f'"{world.peers["peer1"].nics[0].mac}"'),
    )]  # fmt: skip
    host.vsctl("add-port", "br-int", port, "--", "set", "Interface", port, *ids)
    host.restart("libvirtd")
    world.right()


def test_a_libvirt_network_is_stopped_and_undefined_by_hand_and_the_guest_stays(world: World) -> None:
    host = world.real.host
    host.virsh("net-destroy", "cloud")
    host.virsh("net-undefine", "cloud")
    host.wait_network("cloud")
    world.right()
