"""Neighbours that were registered ahead: the switch answers for them, and they still defend their addresses."""

from __future__ import annotations

import struct
from ipaddress import IPv6Address

import pytest
from e2e_fleet import Fleet, eventually, wait_ping
from e2e_frames import Place, arp_request, ears, ethernet, inside, is_arp
from e2e_packets import solicitation
from labkit import Frame, LightGuest, Nic, send

pytestmark = pytest.mark.lab
LIBVIRT = False

NETWORKS = """
kind: Network
name: cloud
mode: isolated
---
kind: Network
name: lan
mode: bridge
physical_network: physnet1
vlan: 10
"""
# near and far are registered with their addresses, asker is not; each network has the three.
GUESTS = {
    f"{network}-{who}": (host, network, f"52:54:00:{byte:02x}:00:{n:02x}", f"10.{byte}.0.{n}", f"fd{byte:02x}::{n}")
    for byte, network in ((11, "cloud"), (12, "lan"))
    for n, (who, host) in enumerate((("asker", "h1"), ("near", "h1"), ("far", "h2")), start=1)
}
MAC = {name: mac for name, (_, _, mac, _, _) in GUESTS.items()}
IPV4 = {name: address for name, (_, _, _, address, _) in GUESTS.items()}
IPV6 = {name: address for name, (_, _, _, _, address) in GUESTS.items()}
PAIRS = [(f"{network}-asker", f"{network}-{who}") for network in ("cloud", "lan") for who in ("near", "far")]
ND_SOLICITATION, ND_ADVERTISEMENT = 135, 136


@pytest.fixture(scope="module")
def guests(fleet: Fleet) -> dict[str, LightGuest]:
    fleet.apply(NETWORKS)
    guests = fleet.lights({
        name: (host, [Nic(network, None, mac, (f"{ipv4}/24", f"{ipv6}/64"))])
        for name, (host, network, mac, ipv4, ipv6) in GUESTS.items()
    })  # fmt: skip
    known = [guest.ports_yaml().rstrip() + f"\naddresses: ['{IPV4[name]}', '{IPV6[name]}']\n"
             for name, guest in guests.items() if "asker" not in name]  # fmt: skip
    fleet.apply("".join(known))
    for name in GUESTS:
        if "asker" not in name:
            eventually(
                f"the addresses of {name}",
                lambda name=name: IPV6[name] in fleet.get("Port", f"{name}-0")["status"].get("addresses", ()),
            )
    fleet.settle()
    for sender, target in PAIRS:
        wait_ping(guests[sender], IPV4[target])
        wait_ping(guests[sender], IPV6[target])
    return guests


@pytest.fixture
def places(guests: dict[str, LightGuest]) -> dict[str, Place]:
    return {name: inside(guest) for name, guest in guests.items()}


def nd(frame: Frame, kind: int, target: str) -> bool:
    """Whether it is a neighbour solicitation or advertisement (RFC 4861, 4.3 and 4.4) for this address."""
    packet = frame.payload
    return (frame.ethertype == 0x86DD and len(packet) >= 64 and packet[6] == 58 and packet[40] == kind
            and packet[48:64] == IPv6Address(target).packed)  # fmt: skip


@pytest.mark.parametrize(("sender", "target"), PAIRS)
def test_arp_is_answered_by_the_switch_with_the_right_mac(
    guests: dict[str, LightGuest], places: dict[str, Place], sender: str, target: str
) -> None:
    question = arp_request(MAC[sender], IPV4[sender], IPV4[target])
    with ears(places, lambda f: is_arp(f, 1, target=IPV4[target]) or is_arp(f, 2, sender=IPV4[target])) as at:
        send(places[sender].netns, "eth0", question)
        answer = at[sender].wait(lambda frame: True)
        wait_ping(guests[sender], IPV4[target])
    assert answer.src == MAC[target]
    assert answer.payload[8:14] == bytes.fromhex(MAC[target].replace(":", ""))
    assert answer.dst == MAC[sender]
    assert len([f for f in at[sender].frames if f.dst == MAC[sender] and is_arp(f, 2)]) == 1
    heard_by = {name for name, caught in at.items() if any(f.dst == "ff:ff:ff:ff:ff:ff" for f in caught.frames)}
    assert heard_by == set()


@pytest.mark.parametrize(("sender", "target"), PAIRS)
def test_nd_is_answered_by_the_switch_and_the_guest_is_reached(
    guests: dict[str, LightGuest], places: dict[str, Place], sender: str, target: str
) -> None:
    guests[sender].run(f"ip -6 neigh flush to {IPV6[target]} dev eth0")
    with ears(places, lambda f: nd(f, ND_SOLICITATION, IPV6[target]) or nd(f, ND_ADVERTISEMENT, IPV6[target])) as at:
        wait_ping(guests[sender], IPV6[target])
    answer = at[sender].frames[0]
    assert nd(answer, ND_ADVERTISEMENT, IPV6[target])
    assert answer.src == MAC[target]
    assert MAC[target] in guests[sender].run(f"ip -6 neigh show {IPV6[target]}")[1]
    multicast = [f for caught in at.values() for f in caught.frames if f.dst.startswith("33:33")]
    assert multicast == []
    flags = struct.unpack_from("!I", answer.payload, 44)[0]
    assert flags >> 29 == 0b011  # not a router; solicited; override


@pytest.mark.parametrize(("sender", "target"), PAIRS)
def test_whoever_is_about_to_take_a_registered_address_disturbs_nobody(
    guests: dict[str, LightGuest], places: dict[str, Place], sender: str, target: str
) -> None:
    """An owner that was just checking its address would give it up when it heard the question (RFC 4862, 5.4.3)."""
    free = f"{IPV6[target].partition('::')[0]}::99"
    questions = [
        ethernet("33:33:00:00:00:01", MAC[sender], 0x86DD, solicitation("::", address, None))
        for address in (IPV6[target], free)
    ]
    with ears(places, lambda f: nd(f, ND_SOLICITATION, IPV6[target]) or nd(f, ND_SOLICITATION, free)) as at:
        send(places[sender].netns, "eth0", *questions)
        at[target].wait(lambda frame: nd(frame, ND_SOLICITATION, free))
    assert not [f for caught in at.values() for f in caught.frames if nd(f, ND_SOLICITATION, IPV6[target])]


@pytest.mark.parametrize("target", sorted({target for _, target in PAIRS}))
def test_the_owner_may_take_its_own_address(guests: dict[str, LightGuest], target: str) -> None:
    """Its duplicate detection asks for its own address, which the switch must not answer."""
    owner = guests[target]
    owner.run(f"ip addr del {IPV6[target]}/64 dev eth0")
    owner.run(f"ip addr add {IPV6[target]}/64 dev eth0")
    shown = f"ip -6 addr show to {IPV6[target]}"
    eventually("taken", lambda: IPV6[target] in owner.run(shown)[1] and "tentative" not in owner.run(shown)[1])
    assert "dadfailed" not in owner.run(shown)[1]


@pytest.mark.parametrize(("sender", "target"), PAIRS)
def test_an_arp_probe_is_answered_to_another_and_not_to_the_owner(
    guests: dict[str, LightGuest], places: dict[str, Place], sender: str, target: str
) -> None:
    """RFC 5227, 2.1.1: a probe's sender address is 0.0.0.0."""
    with ears(places, lambda f: is_arp(f, 2, sender=IPV4[target])) as at:
        send(places[target].netns, "eth0", arp_request(MAC[target], "0.0.0.0", IPV4[target]))
        wait_ping(guests[target], IPV4[sender])
        own = list(at[target].frames)
        send(places[sender].netns, "eth0", arp_request(MAC[sender], "0.0.0.0", IPV4[target]))
        assert at[sender].wait(lambda frame: True).src == MAC[target]
    assert own == []


def test_an_address_that_nobody_registered_is_asked_for_by_broadcast(
    guests: dict[str, LightGuest], places: dict[str, Place]
) -> None:
    for network in ("cloud", "lan"):
        near, far, asker = (f"{network}-{who}" for who in ("near", "far", "asker"))
        guests[near].run(f"ip neigh del {IPV4[asker]} dev eth0")
        with ears(places, lambda f, asker=asker: is_arp(f, 1, target=IPV4[asker])) as at:
            wait_ping(guests[near], IPV4[asker])
            at[far].wait(lambda frame, near=near: frame.src == MAC[near])
        assert at[asker].frames


def test_a_vnic_whose_addresses_were_taken_away_is_not_answered_for(
    fleet: Fleet, guests: dict[str, LightGuest], places: dict[str, Place]
) -> None:
    fleet.apply(guests["cloud-far"].ports_yaml())
    eventually("no addresses", lambda: not fleet.get("Port", "cloud-far-0")["status"].get("addresses"))
    fleet.settle()
    question = arp_request(MAC["cloud-asker"], IPV4["cloud-asker"], IPV4["cloud-far"])
    with ears(places, lambda f: is_arp(f, 1, target=IPV4["cloud-far"])) as at:
        send(places["cloud-asker"].netns, "eth0", question)
        assert at["cloud-far"].wait(lambda frame: True).src == MAC["cloud-asker"]
