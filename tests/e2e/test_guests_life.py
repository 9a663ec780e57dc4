"""A real guest's life under libvirt: started, stopped, plugged, moved; and its sockets right all the while."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from e2e_fleet import PATIENCE, Fleet, eventually, outside, pings, wait_ping
from e2e_frames import Place, ears, marked, tap
from labkit import Guest, LightGuest, Nic, send

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
portgroups: {ten: {vlan: 10}}
"""
REAL, STRANGE = "52:54:00:91:00:01", "52:54:00:91:00:66"


@pytest.fixture(scope="module")
def peers(fleet: Fleet) -> dict[str, LightGuest]:
    fleet.apply(NETWORKS)
    return fleet.lights({
        f"peer{n}": (f"h{n}", [Nic("cloud", None, addresses=(f"10.8.0.{n}/24",))]) for n in (1, 2)
    })  # fmt: skip


@pytest.fixture(scope="module")
def real(fleet: Fleet, peers: dict[str, LightGuest]) -> Iterator[Guest]:
    guest = fleet.real("h1", "real", [Nic("cloud", None, REAL, ("10.8.0.9/24",), mtu=1450)])
    fleet.wait_active([REAL])
    yield guest
    guest.remove()


def carried(fleet: Fleet, mac: str) -> set[str]:
    """Hosts whose flows name this MAC."""
    return {name for name, host in fleet.hosts.items() if mac in host.ofctl("dump-flows", "br-int")}


def talks(peers: dict[str, LightGuest]) -> None:
    for peer in peers.values():
        wait_ping(peer, "10.8.0.9")


def test_a_started_guest_is_switched_with_what_libvirt_says_of_it(
    fleet: Fleet, peers: dict[str, LightGuest], real: Guest
) -> None:
    talks(peers)
    port = fleet.port_of(REAL)
    status = port["status"]
    assert (status["vm"], status["vm_uuid"], status["host"]) == ("real", real.vm_id, "h1")
    assert (status["network"], status["portgroup"], status["state"]) == ("cloud", "default", "active")
    assert status["tap"] == real.ports()[0]
    assert carried(fleet, REAL) == {"h1", "h2"}


def test_a_reset_guest_comes_back(fleet: Fleet, peers: dict[str, LightGuest], real: Guest) -> None:
    real.host.virsh("reset", "real")
    real.wait_boot()
    talks(peers)
    assert fleet.port_of(REAL)["status"]["state"] == "active"


def test_a_suspended_guest_keeps_its_socket(fleet: Fleet, peers: dict[str, LightGuest], real: Guest) -> None:
    real.host.virsh("suspend", "real")
    assert not pings(peers["peer2"], "10.8.0.9", tries=1)
    assert fleet.port_of(REAL)["status"]["state"] == "active"
    real.host.virsh("resume", "real")
    talks(peers)


def test_a_destroyed_guest_leaves_no_row_and_no_flow_and_starts_again(
    fleet: Fleet, peers: dict[str, LightGuest], real: Guest
) -> None:
    real.destroy()
    eventually("its row is gone", lambda: not fleet.port_of(REAL))
    fleet.settle()
    assert carried(fleet, REAL) == set()
    real.start()
    fleet.wait_active([REAL])
    talks(peers)


def test_a_vnic_is_plugged_in_and_out(fleet: Fleet, real: Guest) -> None:
    real.host.wait_network("lan")
    nic = Nic("lan", "ten", "52:54:00:91:00:02", ("10.0.10.9/24",))
    real.attach(nic)
    fleet.wait_active([nic.mac])
    wait_ping(real, "10.0.10.254")
    assert outside(fleet.lab, 10, "ping -n -c2 -i0.1 -W1 10.0.10.9")[0] == 0
    real.detach(nic.mac)
    eventually("its row is gone", lambda: not fleet.port_of(nic.mac))
    fleet.settle()
    assert carried(fleet, nic.mac) == set()
    assert outside(fleet.lab, 10, "ping -n -c1 -W0.3 10.0.10.9")[0] != 0


@pytest.mark.parametrize("to", ["h2", "h1"])
def test_a_guest_migrates_and_is_reached_at_once(
    fleet: Fleet, peers: dict[str, LightGuest], real: Guest, to: str
) -> None:
    wait_ping(peers["peer1"], "10.8.0.9")
    real.migrate(to)
    eventually("its row has moved", lambda: fleet.port_of(REAL)["status"].get("host") == to)
    fleet.wait_active([REAL])
    talks(peers)
    assert fleet.port_of(REAL)["status"]["tap"] == real.ports()[0]


def test_a_vnic_of_a_portgroup_that_does_not_exist_is_kept_out_with_the_reason(
    fleet: Fleet, peers: dict[str, LightGuest], real: Guest
) -> None:
    """libvirt starts such a guest without a word, and Open vSwitch would make its port a trunk of all VLANs."""
    nic = Nic("cloud", "nosuch", STRANGE, ("10.8.0.66/24",), mtu=1450)
    strange = fleet.real("h1", "strange", [nic])
    try:
        eventually("a verdict", lambda: fleet.port_of(STRANGE).get("status", {}).get("state") == "quarantined")
        assert "portgroup nosuch" in fleet.port_of(STRANGE)["status"]["reason"]
        assert "portgroup nosuch" in fleet.controller.fleetswitch("port", "list", "--state", "quarantined")
        places = {"peer1": tap(peers["peer1"]), "peer2": tap(peers["peer2"]), "real": tap(real),
                  "trunk": Place(strange.host.netns, "eth2", True)}  # fmt: skip
        with ears(places, lambda frame: frame.src == STRANGE) as at, ears({"strange": tap(strange)}, _any) as to_it:
            strange.run("ping -c2 -W1 10.8.0.1", timeout=10)
            peer = peers["peer1"]
            send(peer.netns, "eth0", marked(peer.nics[0].mac)(b"m" * 16), marked(peer.nics[0].mac, STRANGE)(b"m" * 16))
            wait_ping(real, "10.8.0.1")
        assert {name for name, caught in at.items() if caught.frames} == set()
        assert to_it["strange"].frames == []
    finally:
        strange.remove()


def _any(_frame: object) -> bool:
    return True


def test_a_vnic_that_libvirt_does_not_know_is_kept_out_until_it_is_registered(
    fleet: Fleet, peers: dict[str, LightGuest]
) -> None:
    unknown = fleet.lab.start_light("h1", "unknown", [Nic("cloud", None, addresses=("10.8.0.70/24",))])
    mac = unknown.nics[0].mac
    eventually("a verdict", lambda: fleet.port_of(mac).get("status", {}).get("state") == "quarantined", PATIENCE)
    assert "libvirt runs no such vNIC" in fleet.port_of(mac)["status"]["reason"]
    assert not pings(unknown, "10.8.0.1", tries=1)
    fleet.apply(unknown.ports_yaml())
    fleet.wait_active([mac])
    wait_ping(unknown, "10.8.0.2")
    fleet.stop([unknown])
