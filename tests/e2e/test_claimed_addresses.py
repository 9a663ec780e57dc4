"""Guests of whom no address is registered: what they claim first is theirs, the router's is nobody's."""

from __future__ import annotations

import pytest
from e2e_fleet import Fleet, eventually, wait_ping
from e2e_frames import ARP, Build, Place, counts, heard, inside
from e2e_packets import (
    ALL_NODES,
    IPV4,
    IPV6,
    UDP,
    Speaker,
    advertisement,
    arp,
    framed,
    ipv4,
    ipv6,
    solicitation,
    udp,
)
from labkit import LightGuest, Nic

pytestmark = pytest.mark.lab
LAB, LIBVIRT = "ca", False

NETWORKS = """
kind: Network
name: lan
mode: bridge
physical_network: physnet1
vlan: 10
reserved_addresses: [10.35.0.254, "fd35::fe"]
portgroups: {default: {learn_addresses: 1}, plain: {}}
"""
WHO = {name: Speaker(f"52:54:00:35:00:{n:02x}", f"10.35.0.{n}", f"fd35::{n:x}")
       for n, name in enumerate(("victim", "thief", "plain"), start=1)}  # fmt: skip
WHERE = {"victim": ("h1", None), "thief": ("h2", None), "plain": ("h2", "plain")}
GATEWAY = Speaker("52:54:00:35:00:fe", "10.35.0.254", "fd35::fe")


@pytest.fixture(scope="module")
def guests(fleet: Fleet) -> dict[str, LightGuest]:
    fleet.apply(NETWORKS)
    return fleet.lights({
        name: (host, [Nic("lan", group, WHO[name].mac, (f"{WHO[name].ipv4}/24", f"{WHO[name].ipv6}/64"))])
        for name, (host, group) in WHERE.items()
    })  # fmt: skip


def learned(fleet: Fleet, name: str) -> list[str]:
    found = fleet.get("Port", f"{name}-0")["status"].get("learned", ())
    return [address for address in found if not address.startswith("fe80")]


def claims(me: Speaker, victim: Speaker) -> dict[str, Build]:
    """Ways to take somebody's address, from one's own MAC."""
    return {
        "arp-reply": framed(me.mac, ARP, arp(2, me.mac, victim.ipv4, victim.ipv4)),
        "arp-announcement": framed(me.mac, ARP, arp(1, me.mac, victim.ipv4, victim.ipv4)),
        "ipv4": framed(me.mac, IPV4, ipv4(victim.ipv4, "255.255.255.255", UDP, udp(5000, 5001))),
        "ipv6": framed(me.mac, IPV6, ipv6(victim.ipv6, ALL_NODES, UDP, udp(5000, 5001))),
        "advertisement": framed(me.mac, IPV6, advertisement(victim.ipv6, victim.ipv6, me.mac)),
        "duplicate-detection": framed(me.mac, IPV6, solicitation("::", victim.ipv6, None)),
    }


def all_are_dropped(guests: dict[str, LightGuest], name: str, victim: Speaker) -> None:
    """Not one copy anywhere, when an honest frame that was sent after them has come out everywhere."""
    places: dict[str, Place] = {each: inside(guest) for each, guest in guests.items()}
    me = WHO[name]
    honest = framed(me.mac, ARP, arp(1, me.mac, me.ipv4, "10.35.0.77"))
    fence = (places[name], honest, {other: 1 for other in places if other != name})
    for what, build in claims(me, victim).items():
        assert counts(heard(places, places[name], build, expected=(), fences=[fence])) == {}, what


def test_what_a_guest_claims_first_is_its_own_and_nobody_else_gets_it(
    fleet: Fleet, guests: dict[str, LightGuest]
) -> None:
    for family in ("ipv4", "ipv6"):
        wait_ping(guests["victim"], getattr(WHO["plain"], family))
        wait_ping(guests["thief"], getattr(WHO["victim"], family))
    for name in ("victim", "thief"):
        eventually(
            "both are learned", lambda name=name: sorted(learned(fleet, name)) == [WHO[name].ipv4, WHO[name].ipv6]
        )
    fleet.settle()
    for name in ("thief", "plain"):
        all_are_dropped(guests, name, WHO["victim"])
        all_are_dropped(guests, name, GATEWAY)
    second = Speaker(WHO["victim"].mac, "10.35.0.99", "fd35::99")
    all_are_dropped(guests, "victim", second)
    assert learned(fleet, "plain") == []


def test_it_stays_so_without_a_controller_and_after_it_and_ends_with_the_guest(
    fleet: Fleet, guests: dict[str, LightGuest]
) -> None:
    fleet.controller.stop()
    all_are_dropped(guests, "thief", WHO["victim"])
    fleet.controller.start()
    fleet.settle()
    assert sorted(learned(fleet, "victim")) == [WHO["victim"].ipv4, WHO["victim"].ipv6]
    all_are_dropped(guests, "thief", WHO["victim"])
    wait_ping(guests["thief"], WHO["victim"].ipv4)
    fleet.lab.stop_lights([guests.pop("victim")])
    eventually("it is gone", lambda: fleet.get("Port", "victim-0")["status"].get("state") == "absent")
    eventually("nobody has its address", lambda: not learned(fleet, "victim"))
