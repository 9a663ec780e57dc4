"""Isolation at each instant, where OVSDB and registrations alone say who is who: no frame of an attacker's passes."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from e2e_attacks import RIGHT, WHO, World, everything, forged, honest, undisturbed
from e2e_fleet import Fleet, Pinging, eventually, pings
from e2e_frames import Place, counts, heard, inside, marked
from e2e_packets import Speaker
from labkit import Frame, LightGuest, Nic, netns
from labkit.light import external_ids

pytestmark = pytest.mark.lab
LAB, LIBVIRT = "at", False

EVIL = Speaker("52:54:00:a7:66:01", "10.77.0.66", "fd77::66")
TAP = "evil"  # on the host; the attacker's own end is eth0 of a namespace


@pytest.fixture(scope="module")
def world(fleet: Fleet) -> World:
    return World.start(fleet)


@pytest.fixture
def attacker(world: World) -> Iterator[Place]:
    """A cable whose end on h1 is not plugged in yet."""
    host, space = world.fleet.hosts["h1"], f"{world.fleet.lab.name}-evil"
    netns.ip_batch([
        f"netns add {space}",
        f"link add {TAP} netns {host.netns} type veth peer name eth0 netns {space} address {EVIL.mac}",
    ])  # fmt: skip
    try:
        netns.ip_batch([f"link set {TAP} up"], host.netns)
        netns.ip_batch(["link set eth0 up"], space)
        yield Place(space, "eth0")
    finally:
        host.vsctl("--if-exists", "del-port", TAP)
        netns.ip_batch_forced([f"link del {TAP}"], host.netns)
        netns.ip_batch_forced([f"netns del {space}"])
        eventually("no row of it", lambda: not world.fleet.port_of(EVIL.mac))


def plug(world: World, **ids: str) -> None:
    """Into the bridge, as libvirt does: all in one transaction."""
    marks = [f'external_ids:{key.replace("_", "-")}="{value}"' for key, value in ids.items()]
    words = ["--", "set", "Interface", TAP, *marks] if marks else []
    world.fleet.hosts["h1"].vsctl("--no-wait", "add-port", "br-int", TAP, *words)


def unplug(world: World) -> None:
    world.fleet.hosts["h1"].vsctl("--no-wait", "del-port", "br-int", TAP)


def plugged(world: World) -> bool:
    """Whether the switch has it as a port."""
    ofport = world.fleet.hosts["h1"].vsctl("--if-exists", "get", "Interface", TAP, "ofport").strip()
    return ofport.isdigit()


IDS = {"vm_id": "66666666-6666-4666-8666-666666666666", "attached_mac": EVIL.mac, "iface_id": "evil"}
RIGHT_CLAIM = {**IDS, "port_profile": "lan:twenty"}
CLAIMS = {
    "nobody": {},
    "without a network": IDS,
    "a network that is not there": {**IDS, "port_profile": "nosuch:default"},
    "a portgroup that is misspelt": {**IDS, "port_profile": "lan:twnety"},
    "garbage": {**IDS, "vm_id": "../../etc", "port_profile": "lan:twenty"},
    "a multicast MAC": {**IDS, "attached_mac": "33:33:00:00:00:01", "port_profile": "cloud:default"},
}


@pytest.mark.parametrize("claim", sorted(CLAIMS))
def test_who_is_nobody_gets_nothing_through_before_the_verdict_nor_after_it(
    world: World, attacker: Place, claim: str
) -> None:
    with world.blast(attacker, everything(EVIL)) as blast:
        blast.goes_on()
        for _ in range(3):
            plug(world, **CLAIMS[claim])
            eventually("it is a port", lambda: plugged(world))
            blast.goes_on()
            world.fleet.settle()
            blast.goes_on()
            unplug(world)
    assert blast.at == set()


def test_who_is_let_in_gets_into_its_own_vlan_alone_from_the_first_frame(world: World, attacker: Place) -> None:
    with world.blast(attacker, honest(EVIL)) as blast:
        blast.goes_on()
        plug(world, **RIGHT_CLAIM)
        world.fleet.wait_active([EVIL.mac])
        blast.goes_on()
        unplug(world)
        eventually("it is gone", lambda: not world.fleet.port_of(EVIL.mac))
        plug(world, **{**RIGHT_CLAIM, "port_profile": "other:default"})  # the same guest comes back elsewhere
        world.fleet.wait_active([EVIL.mac])
        blast.goes_on()
    in_vlan = {"twenty1", "twenty2", "trunk1", "trunk2", "outside", "uplink-h1"}
    assert blast.at == {*in_vlan, "other1", "other2", "underlay-h1"}
    for name in ("outside", "uplink-h1", "trunk1", "trunk2"):
        assert {frame.vlans for frame in blast.heard[name]} == {(20,)}, name


@pytest.mark.parametrize(("profile", "victims"), [("lan:twenty", "twenty"), ("cloud:default", "cloud")])
def test_who_is_let_in_says_nothing_in_the_name_of_others_from_the_first_frame(
    world: World, attacker: Place, profile: str, victims: str
) -> None:
    with world.blast(attacker, forged(EVIL, (f"{victims}1", f"{victims}2"))) as blast:
        blast.goes_on()
        plug(world, **{**IDS, "port_profile": profile})
        world.fleet.wait_active([EVIL.mac])
        blast.goes_on()
        unplug(world)
        eventually("it is gone", lambda: not world.fleet.port_of(EVIL.mac))
        blast.goes_on()
    assert blast.at == set()


@contextlib.contextmanager
def without_controller(fleet: Fleet, how: str) -> Iterator[None]:
    """It is dead, or neither dead nor alive; afterwards it is there again."""
    if how == "dead":
        fleet.controller.stop(signal.SIGKILL)
        yield
        fleet.controller.start()
        return
    process = fleet.controller.process()
    assert process is not None
    process.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.signal(signal.SIGCONT)


@pytest.mark.parametrize("how", ["dead", "stopped"])
def test_without_a_controller_a_new_port_gets_nothing_through(world: World, attacker: Place, how: str) -> None:
    with world.blast(attacker, everything(EVIL)) as blast:
        with without_controller(world.fleet, how):
            blast.goes_on()
            for claim in ({}, RIGHT_CLAIM):
                plug(world, **claim)
                eventually("it is a port", lambda: plugged(world))
                blast.goes_on()
                unplug(world)
        world.fleet.settle()
    assert blast.at == set()


def test_a_switch_that_has_lost_its_flows_passes_nothing_until_they_are_back(world: World, attacker: Place) -> None:
    host = world.fleet.hosts["h1"]
    with world.blast(attacker, everything(EVIL)) as blast:
        with without_controller(world.fleet, "dead"):
            plug(world, **IDS)
            host.kill("ovs-vswitchd")
            host.start("ovs-vswitchd")
            netns.ip_batch([f"addr replace {host.tunnel_ip}/24 dev br-phy", "link set br-phy up"], host.netns)
            eventually("it is a port", lambda: plugged(world))
            blast.goes_on(1000)
        world.fleet.settle()
        blast.goes_on()
    assert blast.at == set()


def test_a_fresh_bridge_passes_nothing_before_its_first_flows(world: World, attacker: Place) -> None:
    """Somebody is plugged in as soon as the bridge is there."""
    fleet, host = world.fleet, world.fleet.hosts["h1"]
    with world.blast(attacker, everything(EVIL)) as blast:
        with without_controller(fleet, "dead"):
            host.vsctl("del-br", "br-int")
            waiting = ["ovs-vsctl", f"--db={host.db}", "--timeout=60", "wait-until", "Bridge", "br-int"]
            waits = subprocess.Popen([*waiting, "--", "add-port", "br-int", TAP])
        assert waits.wait(60) == 0
        fleet.settle()
        eventually("it is a port", lambda: plugged(world))
        blast.goes_on()
        for guest in world.guests.values():
            if guest.host is host:
                plug_again(guest)
        fleet.wait_active([WHO[name].mac for name in RIGHT])
    assert blast.at == set()


def plug_again(guest: LightGuest) -> None:
    """With its first ids, but for the iface-id, which libvirt would draw anew too."""
    for nic, port, _ in guest.cables():
        ids = [f"external_ids:{key}={value}" for key, value in external_ids(guest, nic, port).items()]
        guest.host.vsctl("add-port", "br-int", port, "--", "set", "Interface", port, *ids)


@pytest.mark.parametrize("where", ["h1", "h2"])
def test_a_second_guest_with_the_mac_of_another_in_its_network_is_kept_out(world: World, where: str) -> None:
    victim = WHO["cloud1"]
    twin = world.fleet.lab.start_light(where, "twin", [Nic("cloud", None, victim.mac)])
    try:
        status = wait_status(world.fleet, twin, "quarantined")
        assert "its MAC is that of" in status["reason"]
        everywhere = {**world.places, "twin": inside(twin)}
        world.calm()
        with world.blast(inside(twin), everything(victim)) as blast:
            blast.goes_on()
            found = heard(
                everywhere, world.places["cloud2"], marked(WHO["cloud2"].mac, victim.mac), expected=["cloud1"]
            )
            assert without_wires(found) == {"cloud1": 1}
        assert blast.at == set()
        assert world.fleet.get("Port", "cloud1-0")["status"]["state"] == "active"
    finally:
        twin.stop()


def test_guests_of_one_mac_in_two_networks_do_not_meet(world: World) -> None:
    victim = WHO["cloud1"]
    twin = world.fleet.lab.start_light("h1", "twin", [Nic("other", None, victim.mac)])
    try:
        wait_status(world.fleet, twin, "active")
        world.fleet.settle()
        world.calm()
        everywhere = {**world.places, "twin": inside(twin)}
        for sender, near in (("twin", ["other1", "other2"]), ("cloud1", ["cloud2"])):
            found = heard(everywhere, everywhere[sender], marked(victim.mac), expected=near)
            assert without_wires(found) == dict.fromkeys(near, 1)
        for sender, target in (("cloud2", "cloud1"), ("other2", "twin"), ("other1", "twin")):
            found = heard(everywhere, everywhere[sender], marked(WHO[sender].mac, victim.mac), expected=[target])
            assert without_wires(found) == {target: 1}
    finally:
        twin.stop()


def test_vnics_of_one_iface_id_are_who_they_are(world: World) -> None:
    """libvirt gives the interfaceid of a network to all vNICs in it, and nobody compares those of domains."""
    nics = [Nic(network, group, f"52:54:00:a7:55:0{n}", iface_id="11111111-2222-4333-8444-555555555555")
            for n, (network, group) in enumerate((("cloud", None), ("other", None), ("lan", "twenty")))]  # fmt: skip
    same = world.fleet.lab.start_light("h1", "same", nics)
    try:
        world.fleet.wait_active([nic.mac for nic in nics])
        world.calm()
        everywhere = {**world.places, **{f"same{n}": inside(same, n) for n in range(3)}}
        for n, near in enumerate(
            (["cloud1", "cloud2"], ["other1", "other2"], ["twenty1", "twenty2", "trunk1", "trunk2", "outside"])
        ):
            found = heard(everywhere, everywhere[f"same{n}"], marked(nics[n].mac), expected=near)
            assert without_wires(found) == dict.fromkeys(near, 1)
            found = heard(
                everywhere, world.places[near[1]], marked(WHO[near[1]].mac, nics[n].mac), expected=[f"same{n}"]
            )
            assert without_wires(found).keys() - {"outside"} == {f"same{n}"}
    finally:
        same.stop()


def test_a_row_that_a_guest_left_behind_takes_nothing_from_it(world: World) -> None:
    """After a power loss libvirt starts the guest with another tap, and its old row is still there."""
    victim = world.guests["cloud1"]
    ids = {"vm_id": victim.vm_id, "attached_mac": WHO["cloud1"].mac, "iface_id": "old", "port_profile": "cloud:default"}
    host = world.fleet.hosts["h1"]
    with Pinging(world.guests["cloud2"], WHO["cloud1"].ipv4) as pinging:
        plug(world, **ids)
        try:
            eventually("it has no device", lambda: host.vsctl("get", "Interface", TAP, "ofport").strip() == "-1")
            eventually("it is told", lambda: TAP in world.fleet.get("Port", "cloud1-0")["status"].get("reason", ""))
            world.fleet.settle()
            assert world.fleet.get("Port", "cloud1-0")["status"]["state"] == "active"
            assert pings(world.guests["cloud2"], WHO["cloud1"].ipv4)
        finally:
            unplug(world)
        eventually("nothing is amiss", lambda: not world.fleet.get("Port", "cloud1-0")["status"].get("reason"))
    undisturbed(pinging)


def test_a_second_port_of_a_guests_identity_is_kept_out_and_the_first_stays(world: World, attacker: Place) -> None:
    victim = world.guests["cloud1"]
    ids = {"vm_id": victim.vm_id, "attached_mac": WHO["cloud1"].mac, "port_profile": "cloud:default"}
    with (
        Pinging(world.guests["cloud2"], WHO["cloud1"].ipv4) as pinging,
        world.blast(attacker, everything(WHO["cloud1"])) as blast,
    ):
        plug(world, **ids)
        eventually("it is told", lambda: TAP in world.fleet.get("Port", "cloud1-0")["status"].get("reason", ""))
        world.fleet.settle()
        assert pings(world.guests["cloud2"], WHO["cloud1"].ipv4)
        blast.goes_on()
        unplug(world)
    assert blast.at == set()
    undisturbed(pinging)


def wait_status(fleet: Fleet, guest: LightGuest, state: str) -> dict[str, Any]:
    """The status of a light guest's first vNIC, which nobody registered, once it is in this state."""
    found: dict[str, Any] = {}

    def there() -> bool:
        rows = [port["status"] for port in fleet.list("Port") if port["status"].get("vm_uuid") == guest.vm_id]
        found.update(rows[0] if rows else {})
        return found.get("state") == state

    eventually(f"{guest.name} is {state}", there)
    return found


def without_wires(found: dict[str, list[Frame]]) -> dict[str, int]:
    """How many came out where, but for the ways between the hosts."""
    return {name: number for name, number in counts(found).items() if not name.startswith(("underlay", "uplink"))}
