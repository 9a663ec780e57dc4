"""VLANs of a physical network: apart where they differ, together over the trunk, as the guest's socket wants them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from e2e_fleet import Fleet, outside, pings, silent, wait_ping
from e2e_frames import BROADCAST, Place, arp_request, counts, ears, heard, inside, is_arp, marked, tap
from labkit import Guest, LightGuest, Nic, capture, send

pytestmark = pytest.mark.lab

NETWORK = """
kind: Network
name: lan
mode: bridge
physical_network: physnet1
portgroups:
  ten: {vlan: 10}
  twenty: {vlan: 20}
  trunk: {trunk: [10, 20]}
  native: {trunk: [10, 20], native: 10}
  tagged: {trunk: [10, 20], native: 10, native_mode: tagged}
"""

# ten-1 and ten-2 are in VLAN 10 on different hosts, twenty-1 and twenty-2 in VLAN 20; addresses are used twice.
GUESTS = {
    "ten-1": ("h1", "ten", "52:54:00:0a:00:01", "10.0.10.1/24"),
    "twenty-1": ("h1", "twenty", "52:54:00:14:00:01", "10.0.10.2/24"),
    "ten-2": ("h2", "ten", "52:54:00:0a:00:02", "10.0.10.3/24"),
    "twenty-2": ("h2", "twenty", "52:54:00:14:00:02", "10.0.10.3/24"),
    "trunk": ("h2", "trunk", "52:54:00:0f:00:01", None),
    "native": ("h1", "native", "52:54:00:0f:00:02", None),
    "tagged": ("h2", "tagged", "52:54:00:0f:00:03", None),
}
MAC = {name: mac for name, (_, _, mac, _) in GUESTS.items()}


@pytest.fixture(scope="module")
def guests(fleet: Fleet) -> dict[str, LightGuest]:
    fleet.apply(NETWORK)
    return fleet.lights({
        name: (host, [Nic("lan", group, mac, (address,) if address else ())])
        for name, (host, group, mac, address) in GUESTS.items()
    })  # fmt: skip


@pytest.fixture
def places(fleet: Fleet, guests: dict[str, LightGuest]) -> dict[str, Place]:
    """Every vNIC, the outside's trunk port and its two access ports."""
    lab = fleet.lab
    return {
        **{name: inside(guest) for name, guest in guests.items()},
        "out": Place(lab.outside, "eth0"),
        "out10": Place(lab.outside_vlan(10), "vlan10"),
        "out20": Place(lab.outside_vlan(20), "vlan20"),
    }


# Where a broadcast of VLAN 10 comes out, with the tags that it then has.
TEN = {"ten-1": (), "ten-2": (), "out": (10,), "out10": (), "trunk": (10,), "native": (), "tagged": (10,)}
TWENTY = {"twenty-1": (), "twenty-2": (), "out": (20,), "out20": (), "trunk": (20,), "native": (20,), "tagged": (20,)}


def test_the_same_subnet_in_two_vlans_hears_no_arp_of_the_other(
    guests: dict[str, LightGuest], places: dict[str, Place]
) -> None:
    with ears(places, lambda frame: is_arp(frame, 1, target="10.0.10.2", sender="10.0.10.1")) as heard_at:
        assert silent(guests["ten-1"], "10.0.10.2")
    assert {name for name, caught in heard_at.items() if caught.frames} == TEN.keys() - {"ten-1"}
    assert all(frame.vlans == TEN[name] for name, caught in heard_at.items() for frame in caught.frames)


def test_a_vlan_reaches_over_the_trunk_to_another_host(guests: dict[str, LightGuest], places: dict[str, Place]) -> None:
    with capture(places["out"].netns, "eth0", lambda frame: frame.src == MAC["ten-1"]) as caught:
        assert pings(guests["ten-1"], "10.0.10.3")
        caught.wait(lambda frame: frame.dst == BROADCAST)
    neighbour = guests["ten-1"].run("ip neigh show 10.0.10.3")[1]
    assert MAC["ten-2"] in neighbour  # the one in VLAN 10, not twenty-2 with the same address
    assert {frame.vlans for frame in caught.frames} == {(10,)}
    assert pings(guests["twenty-1"], "10.0.10.3")
    assert MAC["twenty-2"] in guests["twenty-1"].run("ip neigh show 10.0.10.3")[1]


def test_the_outside_meets_the_guests_of_its_vlan_only(fleet: Fleet, guests: dict[str, LightGuest]) -> None:
    assert pings(guests["ten-1"], "10.0.10.254")
    assert (
        outside(fleet.lab, 10, "ping -n -c2 -i0.1 -W1 10.0.10.3 && ip neigh show 10.0.10.3")[1].count(MAC["ten-2"]) == 1
    )
    assert MAC["twenty-2"] in outside(fleet.lab, 20, "ping -n -c2 -i0.1 -W1 10.0.10.3; ip neigh show 10.0.10.3")[1]
    assert outside(fleet.lab, 20, "ping -n -c2 -i0.1 -W0.3 10.0.10.1")[0] != 0


@pytest.mark.parametrize(
    ("sender", "tags", "expected"),
    [
        ("ten-1", (), TEN),
        ("ten-2", (), TEN),
        ("twenty-1", (), TWENTY),
        ("twenty-2", (), TWENTY),
        ("trunk", (10,), TEN),
        ("trunk", (20,), TWENTY),
        ("native", (), TEN),
        ("native", (10,), TEN),
        ("native", (20,), TWENTY),
        ("tagged", (), TEN),
        ("tagged", (10,), TEN),
        ("tagged", (20,), TWENTY),
        ("out", (10,), TEN),
        ("out", (20,), TWENTY),
        ("out10", (), TEN),
        ("out20", (), TWENTY),
    ],
)
def test_a_broadcast_comes_out_once_at_each_member_with_the_right_tag(
    places: dict[str, Place], sender: str, tags: tuple[int, ...], expected: dict[str, tuple[int, ...]]
) -> None:
    others = expected.keys() - {sender}
    src = MAC.get(sender, "52:54:00:00:fe:01")
    found = heard(places, places[sender], marked(src, tags=tags), expected=others)
    assert counts(found) == dict.fromkeys(others, 1)
    assert {name: frames[0].vlans for name, frames in found.items()} == {name: expected[name] for name in others}


@pytest.mark.parametrize(
    ("sender", "tags"),
    [
        ("ten-1", (10,)),
        ("ten-1", (20,)),
        ("ten-1", (10, 20)),
        ("trunk", ()),
        ("trunk", (30,)),
        ("native", (30,)),
        ("tagged", (30,)),
        ("out", (30,)),
        ("out", ()),
    ],
)
def test_a_frame_with_a_tag_that_its_port_is_no_member_of_goes_nowhere(
    places: dict[str, Place], sender: str, tags: tuple[int, ...]
) -> None:
    src = MAC.get(sender, "52:54:00:00:fe:01")
    fence_tags = (10,) if sender in {"trunk", "out", "tagged"} else ()
    at = TEN.keys() - {sender}
    fence = (places[sender], marked(src, tags=fence_tags), at)
    # What the outside sends is on its own wire; no guest gets it.
    assert heard(places, places[sender], marked(src, tags=tags), expected=(), fences=[fence]) == {}


def test_a_priority_tag_without_a_vlan_counts_as_untagged(places: dict[str, Place]) -> None:
    priority = 5 << 13  # IEEE 802.1Q, 9.6: PCP 5, VID 0
    at = TEN.keys() - {"ten-1"}
    found = heard(places, places["ten-1"], marked(MAC["ten-1"], tags=(priority,)), expected=at)
    assert counts(found) == dict.fromkeys(at, 1)
    assert found["ten-2"][0].vlans == ()


@pytest.fixture(scope="module")
def real_trunk(fleet: Fleet, guests: dict[str, LightGuest]) -> Iterator[Guest]:
    """A real guest whose VLANs are sub-interfaces, the same subnet in both."""
    nic = Nic("lan", "trunk", "52:54:00:0f:00:09", dhcp=False, vlans={10: ("10.0.10.9/24",), 20: ("10.0.20.9/24",)})
    guest = fleet.real("h1", "trunked", [nic])
    fleet.wait_active([nic.mac])
    yield guest
    guest.remove()


def test_a_real_guests_vlan_interfaces_are_apart(
    fleet: Fleet, guests: dict[str, LightGuest], real_trunk: Guest, places: dict[str, Place]
) -> None:
    wait_ping(real_trunk, "10.0.10.3")
    assert MAC["ten-2"] in real_trunk.run("ip neigh show 10.0.10.3 dev eth0.10")[1]
    assert pings(guests["ten-1"], "10.0.10.9")
    assert "52:54:00:0f:00:09" in guests["ten-1"].run("ip neigh show 10.0.10.9")[1]
    with ears({"tap": tap(real_trunk), **places}, lambda frame: is_arp(frame, 1, target="10.0.20.9")) as asked:
        for sender, target in (("ten-1", "10.0.20.9"), ("twenty-1", "10.0.20.9")):
            place = places[sender]
            send(place.netns, place.interface, arp_request(MAC[sender], "10.0.20.1", target))
        asked["tap"].wait(lambda frame: frame.vlans == (20,))
        answer = asked["tap"].wait(lambda frame: frame.vlans == (10,))
    assert answer.src == MAC["ten-1"]
    assert {(f.src, f.vlans) for f in asked["tap"].frames} == {(MAC["ten-1"], (10,)), (MAC["twenty-1"], (20,))}
