"""Learning vNICs: nested guests and bridges behind them are reached, wherever they go, and take nobody's place."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest
from e2e_fleet import Fleet, eventually, pings, wait_ping
from e2e_frames import ARP, Build, Place, counts, heard, inside, marked
from e2e_packets import arp, framed
from labkit import LightGuest, Nic, netns, send

pytestmark = pytest.mark.lab
LAB, LIBVIRT = "le", False

GROUPS = "portgroups: {nested: {learning: true}, few: {learning: true, max_macs: 3}}"
NETWORKS = f"""
kind: Network
name: cloud
mode: isolated
{GROUPS}
---
kind: Network
name: lan
mode: bridge
physical_network: physnet1
vlan: 10
{GROUPS}
"""
NETS = ("cloud", "lan")
ROLES = {"nested1": ("h1", "nested"), "nested2": ("h2", "nested"), "few1": ("h1", "few"), "plain1": ("h1", None),
         "plain2": ("h2", None)}  # fmt: skip
MAC = {
    f"{network}-{role}": f"52:54:00:{byte:02x}:1e:{n:02x}"
    for byte, network in ((0xC0, "cloud"), (0x1A, "lan"))
    for n, role in enumerate(ROLES, start=1)
}
OUTSIDE = "52:54:00:1e:fe:01"
AWAY = "52:54:00:1e:fe:02"


@pytest.fixture(scope="module")
def guests(fleet: Fleet) -> dict[str, LightGuest]:
    fleet.apply(NETWORKS)
    wanted = {}
    for n, (name, mac) in enumerate(MAC.items(), start=1):
        network, role = name.split("-")
        host, group = ROLES[role]
        wanted[name] = (host, [Nic(network, group, mac, (f"10.30.0.{n}/24",))])
    guests = fleet.lights(wanted)
    wait_ping(guests["cloud-plain1"], "10.30.0.5")
    wait_ping(guests["cloud-plain2"], "10.30.0.4")
    return guests


@pytest.fixture(scope="module")
def places(fleet: Fleet, guests: dict[str, LightGuest]) -> dict[str, Place]:
    return {**{name: inside(guest) for name, guest in guests.items()}, "lan-out": Place(fleet.lab.outside, "eth0")}


def at(places: dict[str, Place], network: str, sender: str, src: str, dst: str, expected: set[str]) -> dict[str, int]:
    """Where a frame came out; an honest broadcast of the sender's that was sent after it has come out everywhere."""
    everybody = {name for name in places if name.startswith(network)} - {sender}
    own = MAC.get(sender, OUTSIDE)
    tags = (10,) if sender == "lan-out" else ()
    fence = (places[sender], marked(own, tags=tags), everybody)
    return counts(heard(places, places[sender], marked(src, dst, tags), expected=expected, fences=[fence]))


def others(places: dict[str, Place], network: str, *but: str) -> set[str]:
    return {name for name in places if name.startswith(network)} - set(but)


@pytest.mark.parametrize("network", NETS)
def test_who_is_behind_it_is_reached_there_and_nobody_else_listens(places: dict[str, Place], network: str) -> None:
    inner, nested = "52:54:00:1e:00:01", f"{network}-nested1"
    unknown = {name for name in others(places, network) if not name.split("-")[1].startswith("plain")}
    for sender in (f"{network}-plain1", f"{network}-plain2"):
        assert at(places, network, sender, MAC[sender], inner, unknown) == dict.fromkeys(unknown, 1)
    everybody = others(places, network, nested)
    assert at(places, network, nested, inner, "ff:ff:ff:ff:ff:ff", everybody) == dict.fromkeys(everybody, 1)
    for sender in sorted(everybody):
        assert set(at(places, network, sender, MAC.get(sender, OUTSIDE), inner, {nested})) - {"lan-out"} == {nested}
    target = f"{network}-plain2"
    assert set(at(places, network, nested, inner, MAC[target], {target})) - {"lan-out"} == {target}


@pytest.mark.parametrize("network", NETS)
def test_who_moves_to_another_learning_vnic_is_reached_there(places: dict[str, Place], network: str) -> None:
    inner = "52:54:00:1e:00:02"
    for home in ("nested1", "nested2", "nested1", "few1", "nested2"):
        nested = f"{network}-{home}"
        everybody = others(places, network, nested)
        assert at(places, network, nested, inner, "ff:ff:ff:ff:ff:ff", everybody) == dict.fromkeys(everybody, 1)
        for sender in sorted(everybody):
            eventually(f"{sender} reaches who is behind {nested}", lambda sender=sender, nested=nested: reached(
                places, network, sender, inner, nested))  # fmt: skip


def reached(places: dict[str, Place], network: str, sender: str, inner: str, nested: str) -> bool:
    """Whether the sender reaches who has just said where it is. Open vSwitch learns from what its datapath has cached
    up to half a second later: the last frames of the old place may come after the first ones of the new."""
    send(places[nested].netns, places[nested].interface, marked(inner)(b"here"))
    return set(at(places, network, sender, MAC.get(sender, OUTSIDE), inner, set())) - {"lan-out"} == {nested}


@pytest.mark.parametrize("network", NETS)
def test_nobody_behind_it_takes_the_place_of_a_vnic(fleet: Fleet, places: dict[str, Place], network: str) -> None:
    fleet.apply(f"kind: Port\nname: away\nvm: away\nmac: '{AWAY}'\nnetwork: {network}\n")
    sender = f"{network}-nested1"
    for victim in ("plain1", "plain2", "nested2"):
        mac = MAC[f"{network}-{victim}"]
        for dst in ("ff:ff:ff:ff:ff:ff", MAC[f"{network}-few1"], "52:54:00:1e:ff:ff"):
            assert at(places, network, sender, mac, dst, set()) == {}
        other = f"{network}-few1"
        assert f"{network}-{victim}" in at(places, network, other, MAC[other], mac, {f"{network}-{victim}"})
    for mac in (AWAY, "01:00:5e:00:00:01"):
        assert at(places, network, sender, mac, "ff:ff:ff:ff:ff:ff", set()) == {}
    fleet.delete([("Port", "away")])


@pytest.mark.parametrize("network", NETS)
def test_more_than_the_portgroup_allows_are_dropped_and_counted(
    fleet: Fleet, places: dict[str, Place], network: str
) -> None:
    few = f"{network}-few1"
    everybody = dict.fromkeys(others(places, network, few), 1)
    inner = [f"52:54:00:1e:03:{n:02x}" for n in range(5)]
    for mac in inner[:3]:
        assert at(places, network, few, mac, "ff:ff:ff:ff:ff:ff", set(everybody)) == everybody
    for mac in inner[3:]:
        assert at(places, network, few, mac, "ff:ff:ff:ff:ff:ff", set()) == {}
    for mac in (inner[0], MAC[few]):  # who is known, and the vNIC itself
        assert at(places, network, few, mac, "ff:ff:ff:ff:ff:ff", set(everybody)) == everybody

    def dropped() -> int:
        flows = fleet.client.get("/hosts/h1/flows", table="learn_limit")["items"]
        found = [flow for flow in flows if "more than 3 MACs" in flow["why"] and flow["source"] == f"Port {few}-0"]
        assert found, json.dumps(flows)
        return sum(flow["packets"] for flow in found)

    eventually("they are counted", lambda: dropped() >= 2)


@pytest.fixture
def machine(fleet: Fleet, guests: dict[str, LightGuest]) -> Iterator[str]:
    """A nested guest: a namespace on a bridge inside a guest that is on h1."""
    outer, space = guests["cloud-nested1"].netns, f"{fleet.lab.name}-inner"
    netns.ip_batch([f"netns add {space}"])
    try:
        netns.ip_batch([
            "link add br0 type bridge", "link set eth0 master br0", "link set br0 up", "addr flush dev eth0",
            f"link add v0 type veth peer name eth0 netns {space} address 52:54:00:1e:04:01", "link set v0 master br0",
            "link set v0 up",
        ], outer)  # fmt: skip
        netns.offloads_off(outer)
        netns.offloads_off(space)
        netns.ip_batch(["link set lo up", "link set eth0 up", "addr add 10.30.0.77/24 dev eth0"], space)
        yield space
    finally:
        netns.ip_batch_forced([f"netns del {space}"])
        netns.ip_batch_forced(["link del br0", "addr add 10.30.0.1/24 dev eth0"], outer)


def test_a_nested_guest_talks_to_all_hosts_also_after_the_controller_died(
    fleet: Fleet, guests: dict[str, LightGuest], machine: str
) -> None:
    for name in ("cloud-plain1", "cloud-plain2", "cloud-nested2"):
        wait_ping(guests[name], "10.30.0.77")
    fleet.controller.stop(signal.SIGKILL)
    assert pings(guests["cloud-plain2"], "10.30.0.77")
    fleet.controller.start()
    fleet.settle()
    assert pings(guests["cloud-plain2"], "10.30.0.77")
    learned = [line for line in fleet.hosts["h1"].ofctl("dump-flows", "br-int").splitlines() if "cookie=0xf6" in line]
    assert any("52:54:00:1e:04:01" in line and "hard_timeout=300" in line for line in learned)


def test_a_portgroup_that_is_learning_no_more_forgets_who_is_behind_it(fleet: Fleet, places: dict[str, Place]) -> None:
    inner = "52:54:00:1e:00:05"
    everybody = dict.fromkeys(others(places, "cloud", "cloud-nested1"), 1)
    assert at(places, "cloud", "cloud-nested1", inner, "ff:ff:ff:ff:ff:ff", set(everybody)) == everybody
    fleet.apply("kind: Network\nname: cloud\nmode: isolated\nportgroups: {nested: {}, few: {}}\n")
    assert at(places, "cloud", "cloud-nested1", inner, "ff:ff:ff:ff:ff:ff", set()) == {}
    assert at(places, "cloud", "cloud-plain1", MAC["cloud-plain1"], inner, set()) == {}
    for host in fleet.hosts.values():
        eventually("nothing learned", lambda host=host: inner not in host.ofctl("dump-flows", "br-int"))
    fleet.apply(NETWORKS)


def test_it_serves_no_dhcp_and_may_speak_for_others(places: dict[str, Place]) -> None:
    sender, inner = "cloud-nested2", "52:54:00:1e:00:06"
    said: Build = framed(inner, ARP, arp(2, inner, "10.30.0.88", "10.30.0.88"))
    everybody = others(places, "cloud", sender)
    assert counts(heard(places, places[sender], said, expected=everybody)) == dict.fromkeys(everybody, 1)
