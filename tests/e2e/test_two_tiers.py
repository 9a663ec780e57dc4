"""A web guest with two vNICs and a database on an isolated network: who is not on that network does not reach it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from e2e_fleet import Fleet, outside, pings, silent, wait_ping
from e2e_frames import Place, arp_request, ears, heard, inside, is_arp, marked, tap
from labkit import Guest, LightGuest, Nic, send

pytestmark = pytest.mark.lab

NETWORKS = """
kind: Network
name: lan
mode: bridge
physical_network: physnet1
portgroups: {ten: {vlan: 10}, twenty: {vlan: 20}}
---
kind: Network
name: backend
mode: isolated
---
kind: Network
name: other
mode: isolated
"""
WEB_LAN, WEB_BACKEND, DATABASE = "52:54:00:00:10:11", "52:54:00:00:50:11", "52:54:00:00:50:21"


@dataclass
class Tiers:
    """web on h1, db on h2; on each host a stranger in the LAN and one on another isolated network."""

    web: Guest
    db: Guest
    strangers: dict[str, LightGuest]


@pytest.fixture(scope="module")
def tiers(fleet: Fleet) -> Iterator[Tiers]:
    fleet.apply(NETWORKS)
    mtu = fleet.get("Network", "backend")["status"]["mtu"]
    web = fleet.real(
        "h1",
        "web",
        [
            Nic("lan", "ten", WEB_LAN, ("10.0.10.11/24",)),
            Nic("backend", None, WEB_BACKEND, ("192.168.50.11/24", "fd50::11/64"), mtu=mtu),
        ],
        wait=False,
    )
    db = fleet.real(
        "h2", "db", [Nic("backend", None, DATABASE, ("192.168.50.21/24", "fd50::21/64"), mtu=mtu)], wait=False
    )
    # The strangers have addresses of the backend's subnet: it is not routing that keeps them out.
    strangers = fleet.lights({
        f"{network}-{host}": (host, [Nic(network, group, addresses=(f"192.168.50.{last}/24", f"fd50::{last}/64"))])
        for host, network, group, last in (
            ("h1", "lan", "ten", 31), ("h2", "lan", "ten", 32), ("h1", "other", None, 33), ("h2", "other", None, 34),
        )
    })  # fmt: skip
    web.wait_boot()
    db.wait_boot()
    fleet.wait_active([WEB_LAN, WEB_BACKEND, DATABASE])
    yield Tiers(web, db, strangers)
    web.remove()
    db.remove()


def test_the_web_guest_reaches_the_database_on_another_host(tiers: Tiers) -> None:
    wait_ping(tiers.web, "192.168.50.21")
    wait_ping(tiers.web, "fd50::21")
    assert tiers.web.run("echo select | nc -w 3 192.168.50.21 7") == (0, "select\n")
    assert tiers.db.run("echo answer | nc -w 3 192.168.50.11 7") == (0, "answer\n")


def test_the_web_guest_is_in_its_vlan_at_the_same_time(fleet: Fleet, tiers: Tiers) -> None:
    assert pings(tiers.web, "10.0.10.254")
    assert outside(fleet.lab, 10, "ping -n -c2 -i0.1 -W1 10.0.10.11")[0] == 0


def test_nobody_else_reaches_the_database(fleet: Fleet, tiers: Tiers) -> None:
    wait_ping(tiers.web, "192.168.50.21")
    with ears({"db": tap(tiers.db)}, lambda frame: frame.src != WEB_BACKEND) as at:
        with ThreadPoolExecutor(8) as pool:
            asked = [(stranger, to) for stranger in tiers.strangers.values() for to in ("192.168.50.21", "fd50::21")]
            assert all(pool.map(lambda each: silent(*each), asked))
        for stranger in tiers.strangers.values():
            place = inside(stranger)
            # To its very MAC, by whom knows it; also with the web guest's address as sender.
            build = marked(stranger.nics[0].mac, DATABASE)
            send(place.netns, place.interface, build(b"x" * 16), marked(WEB_BACKEND, DATABASE)(b"x" * 16))
        for vlan in (10, 20):
            lan = f"vlan{vlan}"
            code, _ = outside(
                fleet.lab, vlan, f"ip addr add 192.168.50.99/24 dev {lan} && ping -n -c2 -i0.1 -W0.3 192.168.50.21"
            )
            outside(fleet.lab, vlan, f"ip addr del 192.168.50.99/24 dev {lan}")
            assert code != 0
        tags = [(), *((vlan,) for vlan in (1, 10, 20, 50, 4094))]
        frames = [marked("52:54:00:00:fe:01", DATABASE, tags=tag)(b"x" * 16) for tag in tags]
        send(fleet.lab.outside, "eth0", *frames)
        assert pings(tiers.web, "192.168.50.21")  # the database's tap was listened to, and is alive
    assert at["db"].frames == []


def test_a_forged_frame_of_the_web_guest_arrives_as_nobodys(tiers: Tiers) -> None:
    """The strangers' frames under the web guest's MAC are not seen by the database either."""
    wait_ping(tiers.web, "192.168.50.21")
    for stranger in tiers.strangers.values():
        own_segment = [other for other in tiers.strangers.values() if other.nics[0].network == stranger.nics[0].network]
        fence_at = {other.name: inside(other) for other in own_segment if other is not stranger}
        places: dict[str, Place] = {"db": tap(tiers.db), "web": tap(tiers.web, 1), **fence_at}
        for other in own_segment:
            if other is not stranger:
                wait_ping(stranger, other.nics[0].addresses[0].split("/")[0])
        found = heard(
            places,
            inside(stranger),
            marked(WEB_BACKEND, DATABASE),
            expected=(),
            fences=[(inside(stranger), marked(stranger.nics[0].mac), fence_at)],
        )
        assert not {"db", "web"} & found.keys()


def test_the_database_is_not_asked_for_by_strangers(tiers: Tiers) -> None:
    """Their ARP stays in their own network; in the other isolated network too, which has tunnels as well."""
    for stranger in tiers.strangers.values():
        place = inside(stranger)
        question = arp_request(stranger.nics[0].mac, "192.168.50.77", "192.168.50.21")
        with ears(
            {"db": tap(tiers.db), "web": tap(tiers.web, 1)}, lambda f: is_arp(f, 1, sender="192.168.50.77")
        ) as at:
            send(place.netns, place.interface, question)
            assert pings(tiers.web, "192.168.50.21", tries=2)
        assert all(not caught.frames for caught in at.values())
