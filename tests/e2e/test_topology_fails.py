"""The topology of a real fleet: what it says fails with an uplink is what fails; it sees that the uplink is down."""

from __future__ import annotations

from typing import Any

import pytest
from e2e_fleet import PATIENCE, Fleet, eventually, pings, silent, wait_ping
from labkit import LightGuest, Nic, netns

pytestmark = pytest.mark.lab
HOSTS, LIBVIRT = 2, False

NETWORKS = """
kind: Network
name: lan
mode: bridge
physical_network: physnet1
vlan: 10
---
kind: Network
name: cloud
mode: isolated
"""
GUESTS = {
    "a1": ("h1", "10.0.10.1", "10.5.0.1"), "b1": ("h1", "10.0.10.2", None), "c2": ("h2", "10.0.10.3", "10.5.0.3"),
}  # fmt: skip


@pytest.fixture(scope="module")
def guests(fleet: Fleet) -> dict[str, LightGuest]:
    fleet.apply(NETWORKS)
    wanted = {}
    for number, (name, (host, lan, cloud)) in enumerate(GUESTS.items(), 1):
        nics = [Nic("lan", mac=f"52:54:00:7a:00:{number:02x}", addresses=(f"{lan}/24",))]
        if cloud is not None:
            nics.append(Nic("cloud", mac=f"52:54:00:7a:01:{number:02x}", addresses=(f"{cloud}/24",), mtu=1400))
        wanted[name] = (host, nics)
    return fleet.lights(wanted)


def asked(fleet: Fleet, path: str, **query: str) -> Any:
    return fleet.client.get(f"/topology{path}", **query)


def uplink(fleet: Fleet, host: str) -> str:
    nodes = asked(fleet, "")["nodes"]
    return str(next(node["state"] for node in nodes if node["id"] == f"uplink:{host}/physnet1"))


def wires(way: Any) -> list[str]:
    return [hop["place"]["label"] for hop in way["hops"] if hop["place"]["kind"] != "vnic"]


def test_what_it_says_is_what_happens(fleet: Fleet, guests: dict[str, LightGuest]) -> None:
    eventually("both uplinks up", lambda: {uplink(fleet, host) for host in ("h1", "h2")} == {"up"})
    lan = asked(fleet, "/path", **{"from": "b1-0", "to": "c2-0"})
    assert wires(lan) == [
        "h1/br-int", "h1/fs-up1", "h1/eth2", "physnet1", "h2/eth2", "h2/fs-up1", "h2/br-int"]  # fmt: skip
    cloud = asked(fleet, "/path", **{"from": "a1-1", "to": "c2-1"})
    assert wires(cloud) == ["h1/br-int", "h1/geneve", "underlay ipv4", "h2/geneve", "h2/br-int"]
    told = asked(fleet, "/fails/h1/eth2")
    cut = {(each["member"]["id"], each["left"]) for segment in told["segments"] for each in segment["cut"]}
    assert cut == {("vnic:a1-0", 1), ("vnic:b1-0", 1), ("vnic:c2-0", 0)}
    for sender, address in (("b1", "10.0.10.3"), ("b1", "10.0.10.1"), ("a1", "10.5.0.3")):
        wait_ping(guests[sender], address)

    netns.ip_batch(["link set eth2 down"], fleet.hosts["h1"].netns)
    eventually("the uplink down", lambda: uplink(fleet, "h1") == "down", PATIENCE)
    assert silent(guests["b1"], "10.0.10.3")
    assert pings(guests["b1"], "10.0.10.1"), "the one that is left"
    assert pings(guests["a1"], "10.5.0.3"), "the overlay has nothing to do with it"
    assert uplink(fleet, "h2") == "up"
