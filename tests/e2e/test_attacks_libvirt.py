"""Isolation at each instant where libvirt has its say: forged claims, stolen identities, rows that power loss left."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from e2e_attacks import WHO, World, everything, undisturbed
from e2e_fleet import Fleet, Pinging, eventually, pings, wait_ping
from e2e_frames import Place, ears, tap
from e2e_packets import Speaker
from labkit import Capture, Frame, Guest, Nic, netns

pytestmark = pytest.mark.lab
LAB = "al"

REAL, FORGER = "52:54:00:a8:00:01", "52:54:00:a8:00:02"
FRESH = ("52:54:00:a8:00:03", "52:54:00:a8:00:04")
GHOST = Speaker("52:54:00:a8:00:05", "10.77.0.105", "fd77::105")
GHOST_ID = "77777777-7777-4777-8777-777777777777"
SAME = "11111111-2222-4333-8444-555555555555"


@pytest.fixture(scope="module")
def world(fleet: Fleet) -> World:
    return World.start(fleet)


@pytest.fixture(scope="module")
def real(world: World) -> Iterator[Guest]:
    """A right guest of h1's libvirt, in the overlay."""
    guest = world.fleet.real("h1", "real", [Nic("cloud", None, REAL, ("10.77.0.101/24",), mtu=1450)])
    world.fleet.wait_active([REAL])
    wait_ping(world.guests["cloud2"], "10.77.0.101")
    yield guest
    guest.remove()


@contextlib.contextmanager
def hearing(world: World, mac: str) -> Iterator[dict[str, Capture]]:
    """What comes out anywhere in the name of this MAC, also inside a tunnel."""
    octets = bytes.fromhex(mac.replace(":", ""))
    with ears(world.places, lambda frame: octets in frame.data) as caught:
        yield caught
        world.fence()


def heard_at(caught: dict[str, Capture]) -> set[str]:
    return {name for name, capture in caught.items() if capture.frames}


def test_a_profile_that_a_guest_of_a_plain_bridge_forges_opens_nothing(world: World) -> None:
    """libvirt checks a profileid against networks only; whoever writes a domain may write any (type='bridge')."""
    nic = Nic(None, None, FORGER, ("10.77.0.102/24",), bridge="br-int", profile_id="lan:twenty")
    forger = world.fleet.lab.define_guest("h1", "forger", [nic])
    try:
        with hearing(world, FORGER) as caught:
            forger.start()
            eventually("a verdict", lambda: world.fleet.port_of(FORGER)["status"]["state"] == "quarantined")
            assert "names no network" in world.fleet.port_of(FORGER)["status"]["reason"]
            with ears({"forger": tap(forger)}, _any) as to_it:
                for name in ("twenty1", "ten1", "cloud1"):
                    forger.run(f"ping -c1 -W1 {WHO[name].ipv4}", timeout=10)
                world.fence()
        assert heard_at(caught) == set()
        assert to_it["forger"].frames == []
    finally:
        forger.remove()


def _any(_frame: Frame) -> bool:
    return True


@contextlib.contextmanager
def cable(world: World, host: str, name: str) -> Iterator[Place]:
    """An interface of that name on the host, not plugged in; the place is its other end."""
    space, switch = f"{world.fleet.lab.name}-evil", world.fleet.hosts[host]
    netns.ip_batch([
        f"netns add {space}",
        f"link add {name} netns {switch.netns} type veth peer name eth0 netns {space} address {GHOST.mac}",
    ])  # fmt: skip
    try:
        netns.ip_batch([f"link set {name} up"], switch.netns)
        netns.ip_batch(["link set eth0 up"], space)
        yield Place(space, "eth0")
    finally:
        netns.ip_batch_forced([f"link del {name}"], switch.netns)
        netns.ip_batch_forced([f"netns del {space}"])


def row(world: World, host: str, name: str, vm_id: str, mac: str, profile: str) -> None:
    """As libvirt wrote it for a guest with a VLAN."""
    ids = {"vm-id": vm_id, "attached-mac": mac, "iface-id": SAME, "port-profile": profile, "iface-status": "active"}
    marks = [f'external_ids:{key}="{value}"' for key, value in ids.items()]
    world.fleet.hosts[host].vsctl(
        "--no-wait", "add-port", "br-int", name, "tag=20", "--", "set", "Interface", name, *marks
    )


def ofport(world: World, host: str, name: str) -> int:
    text = world.fleet.hosts[host].vsctl("--if-exists", "get", "Interface", name, "ofport").strip()
    return int(text) if text.lstrip("-").isdigit() else 0


@pytest.mark.parametrize("host", ["h1", "h2"])
def test_the_identity_of_a_running_guest_is_worth_nothing_at_another_port(world: World, real: Guest, host: str) -> None:
    me = Speaker(REAL, "10.77.0.101", "fd77::101")
    with Pinging(world.guests["cloud2"], "10.77.0.101") as pinging, cable(world, host, "evil") as attacker:
        with world.blast(attacker, everything(me)) as blast:
            blast.goes_on()
            row(world, host, "evil", real.vm_id, REAL, "cloud:default")
            try:
                eventually("it is a port", lambda: ofport(world, host, "evil") > 0)
                blast.goes_on()
                world.fleet.settle()
                assert pings(world.guests["cloud2"], "10.77.0.101")
                blast.goes_on()
            finally:
                world.fleet.hosts[host].vsctl("del-port", "evil")
        assert blast.at == set()
    undisturbed(pinging)
    status = world.fleet.port_of(REAL)["status"]
    assert (status["host"], status["state"], status["tap"]) == ("h1", "active", real.ports()[0])


@pytest.mark.parametrize(
    "claim", ["lan:twenty", "cloud:default", "nosuch:default"], ids=["a-vlan", "an-overlay", "nothing"]
)
def test_a_claim_that_the_hosts_libvirt_does_not_confirm_opens_nothing(world: World, claim: str) -> None:
    with cable(world, "h1", "evil") as attacker, world.blast(attacker, everything(GHOST)) as blast:
        row(world, "h1", "evil", GHOST_ID, GHOST.mac, claim)
        try:
            eventually("a verdict", lambda: world.fleet.port_of(GHOST.mac).get("status", {}).get("state"))
            eventually("it is a port", lambda: ofport(world, "h1", "evil") > 0)
            world.fleet.settle()
            blast.goes_on()
            status = world.fleet.port_of(GHOST.mac)["status"]
            assert (status["state"], "libvirt runs no such vNIC" in status["reason"]) == ("quarantined", True)
        finally:
            world.fleet.hosts["h1"].vsctl("del-port", "evil")
        eventually("its row is gone", lambda: not world.fleet.port_of(GHOST.mac))
    assert blast.at == set()


def test_rows_that_a_host_without_power_left_open_nothing_to_the_guests_that_get_their_taps(
    world: World, real: Guest
) -> None:
    """libvirt takes such a row up as it is, with another guest's identity and VLAN, when a tap gets its name."""
    host, first = world.fleet.hosts["h1"], int(real.ports()[0].removeprefix("vnet")) + 1
    stale = [f"vnet{n}" for n in range(first, first + 8)]  # it counts on, and has perhaps begun some already
    for number, name in enumerate(stale):
        if number % 2:
            row(world, "h1", name, real.vm_id, REAL, "lan:twenty")
        else:
            row(world, "h1", name, GHOST_ID, GHOST.mac, "lan:twenty")
    eventually("rows without a device", lambda: all(ofport(world, "h1", name) == -1 for name in stale))
    try:
        with Pinging(world.guests["cloud2"], "10.77.0.101") as pinging:
            for name in stale[-2:]:
                _in_the_moment_before_libvirt_writes_it(world, name)
            _a_guest_on_such_rows(world, stale)
        undisturbed(pinging)
        assert world.fleet.port_of(REAL)["status"]["state"] == "active"
    finally:
        for name in stale:
            host.vsctl("--if-exists", "del-port", name)


def _in_the_moment_before_libvirt_writes_it(world: World, name: str) -> None:
    """The tap is there, and the row still says that it is the other guest's."""
    with cable(world, "h1", name) as attacker, world.blast(attacker, everything(GHOST)) as blast:
        eventually("it is a port", lambda: ofport(world, "h1", name) > 0)
        blast.goes_on()
        world.fleet.settle()
        assert pings(world.guests["cloud2"], "10.77.0.101")
        blast.goes_on()
    assert blast.at == set()


def _a_guest_on_such_rows(world: World, stale: list[str]) -> None:
    """Two vNICs, of one iface-id at that, each in its own network from the first frame."""
    nics = [Nic("cloud", None, FRESH[0], ("10.77.0.103/24",), mtu=1450, iface_id=SAME),
            Nic("lan", "twenty", FRESH[1], ("10.77.1.104/24",), iface_id=SAME)]  # fmt: skip
    for network in ("cloud", "lan"):
        world.fleet.hosts["h1"].wait_network(network)
    fresh = world.fleet.lab.define_guest("h1", "fresh", nics)
    try:
        with hearing(world, FRESH[0]) as cloud, hearing(world, FRESH[1]) as twenty:
            fresh.start()
            taps = fresh.ports()
            assert set(taps) <= set(stale)
            world.fleet.wait_active(FRESH)
            wait_ping(fresh, WHO["cloud2"].ipv4)
            fresh.run("ping -c2 -W1 10.77.1.1", timeout=10)
            eventually("its question in VLAN 20", lambda: twenty["twenty2"].frames)
        assert heard_at(cloud) <= {"cloud1", "cloud2", "underlay-h1", "underlay-h2"}
        assert heard_at(twenty) == {"twenty1", "twenty2", "trunk1", "trunk2", "outside", "uplink-h1"}
        for name in ("outside", "uplink-h1", "trunk1", "trunk2"):
            assert {frame.vlans for frame in twenty[name].frames} == {(20,)}, name
        for name in taps:
            eventually("no VLAN", lambda name=name: world.fleet.hosts["h1"].vsctl("get", "Port", name, "tag") == "[]")
    finally:
        fresh.remove()
