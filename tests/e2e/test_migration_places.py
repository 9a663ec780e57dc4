"""A guest stands in two places: the old one hears it all, the new one nothing until a frame comes from there.

Whether the controller is there or not. Hosts without libvirt, guests that are namespaces.
"""

from __future__ import annotations

import re

import pytest
from e2e_fleet import Fleet, eventually, installed, wait_ping
from e2e_frames import BROADCAST, counts, ethernet, heard, inside, marked
from labkit import LightGuest, Nic, send

pytestmark = pytest.mark.lab

LAB, HOSTS, LIBVIRT = "mp", 3, 0
NETWORKS = """
kind: Network
name: cloud
mode: isolated
portgroups: {nested: {learning: true}, trunk: {learning: true, trunk: [10]}, ten: {vlan: 10}}
---
kind: Network
name: lan
mode: bridge
physical_network: physnet1
"""
CLOUD, LAN = "52:54:00:93:00:01", "52:54:00:93:00:02"


def nics(number: int) -> list[Nic]:
    return [
        Nic("cloud", None, addresses=(f"10.9.0.{number}/24",)),
        Nic("lan", None, addresses=(f"10.9.1.{number}/24",)),
    ]


@pytest.fixture(scope="module")
def peers(fleet: Fleet) -> dict[str, LightGuest]:
    fleet.apply(NETWORKS)
    return fleet.lights({f"peer{n}": (f"h{n}", nics(n)) for n in (1, 2, 3)})


@pytest.fixture(scope="module")
def old(fleet: Fleet, peers: dict[str, LightGuest]) -> LightGuest:
    """The guest, on h1."""
    own = [Nic("cloud", None, CLOUD, ("10.9.0.9/24",)), Nic("lan", None, LAN, ("10.9.1.9/24",))]
    guest = fleet.lights({"old": ("h1", own)})["old"]
    for peer in peers.values():
        for address in ("10.9.0.9", "10.9.1.9"):
            wait_ping(peer, address)
    return guest


def copied(fleet: Fleet, old: LightGuest) -> LightGuest:
    """Its copy on h2, ready and silent as QEMU's is until it runs."""
    [new] = fleet.lab.start_lights("h2", [("new", [Nic("cloud", None, CLOUD), Nic("lan", None, LAN)])])
    pause(new)  # what it has sent before it has the guest's identity was dropped
    for port in new.ports():
        new.host.vsctl("set", "Interface", port, f"external_ids:vm-id={old.vm_id}")
    for mac in (CLOUD, LAN):
        eventually(f"{mac} is being copied", lambda mac=mac: incoming(fleet, mac).get("host") == "h2")
    fleet.settle()
    return new


def pause(guest: LightGuest) -> None:
    """From now on it sends nothing by itself."""
    code, said = guest.run(
        "for n in all eth0 eth1; do echo 1 >/proc/sys/net/ipv6/conf/$n/disable_ipv6; done;"
        "for n in eth0 eth1; do ip addr flush dev $n && ip link set $n arp off; done"
    )
    assert code == 0, said


def incoming(fleet: Fleet, mac: str) -> dict[str, object]:
    return dict(fleet.port_of(mac)["status"].get("incoming") or {})


def announce(new: LightGuest, *macs: str) -> None:
    """As QEMU does, on each vNIC."""
    for index, mac in enumerate(macs):
        own = bytes.fromhex(mac.replace(":", ""))
        rarp = bytes.fromhex("0001080006040003") + own + bytes(4) + own + bytes(4)
        send(new.netns, f"eth{index}", ethernet(BROADCAST, mac, 0x8035, rarp))


def hears(
    guests: dict[str, LightGuest], sender: LightGuest, index: int, *expected: str, loud: bool = False
) -> set[str]:
    """Who of the guests gets a frame for the guest that migrates, or a broadcast; nobody gets it twice."""
    to = BROADCAST if loud else (CLOUD, LAN)[index]
    places = {name: inside(guest, index) for name, guest in guests.items()}
    found = counts(heard(places, inside(sender, index), marked(sender.nics[index].mac, to), expected=expected))
    assert set(found.values()) <= {1}
    return set(found)


def table(fleet: Fleet) -> dict[str, set[tuple[int, int]]]:
    return {name: set(installed(host)) for name, host in fleet.hosts.items()}


def unfinished(fleet: Fleet) -> list[str]:
    """Flows by which a switch is not what it should be when nobody is being copied: that it lacks, or has still."""
    found = []
    for host in fleet.hosts:
        missing = fleet.client.items(f"/hosts/{host}/flows", state="missing")
        late = (
            flow for flow in fleet.flows(host)
            if flow["state"] == "extra" or re.search("being copied|migrates", f"{flow['source']} {flow['why']}")
        )  # fmt: skip
        found += [f"{host}: {flow['table']} {flow['match']}: {flow['why']}" for flow in (*missing, *late)]
    return found


def test_a_copy_that_is_given_up_leaves_every_flow_as_it_was(fleet: Fleet, old: LightGuest) -> None:
    fleet.settle()
    before = table(fleet)
    new = copied(fleet, old)
    assert table(fleet) != before
    assert unfinished(fleet), "the flows of the place to come"
    fleet.lab.stop_lights([new])
    for mac in (CLOUD, LAN):
        eventually("it is no more", lambda mac=mac: not incoming(fleet, mac))
        assert fleet.port_of(mac)["status"]["host"] == "h1"
    fleet.settle()
    assert table(fleet) == before


def test_the_copy_hears_nothing_until_it_speaks_also_when_no_controller_is_there(
    fleet: Fleet, peers: dict[str, LightGuest], old: LightGuest
) -> None:
    new = copied(fleet, old)
    both = {"old": old, "new": new}
    for peer in peers.values():
        for index in (0, 1):
            assert hears(both, peer, index, "old") == {"old"}
            assert hears(both, peer, index, "old", loud=True) == {"old"}
    fleet.controller.stop()
    pause(old)
    announce(new, CLOUD, LAN)
    for peer in peers.values():
        for index, loud in ((0, False), (0, True), (1, True)):
            eventually(f"{peer.name} reaches it", lambda peer=peer, index=index, loud=loud: (
                hears(both, peer, index, "old", loud=loud) == {"old", "new"}
            ))  # fmt: skip

    def reaches_it() -> bool:
        announce(new, CLOUD, LAN)
        return hears(both, peers["peer1"], 1, "old") == {"old", "new"}

    # A neighbour of the old place reaches the new one by the physical switch, once that has moved the address. QEMU
    # says it five times: a switch learns from its cache as well, after the last frame of the old place.
    eventually("peer1 reaches it", reaches_it)
    fleet.controller.start()
    for mac in (CLOUD, LAN):
        eventually("it has moved", lambda mac=mac: fleet.port_of(mac)["status"].get("host") == "h2")
        assert incoming(fleet, mac) == {}
    fleet.settle()
    assert unfinished(fleet) == []
    for peer in peers.values():
        eventually(f"{peer.name} reaches it alone", lambda peer=peer: hears(both, peer, 0, "new") == {"new"})
    send(old.netns, "eth0", marked(CLOUD)(b"late" * 4))
    assert hears(both, peers["peer1"], 0, "new") == {"new"}
    assert (fleet.port_of(CLOUD)["status"]["host"], incoming(fleet, CLOUD)) == ("h2", {})
    eventually(
        "the operator is told", lambda: "has not let go" in fleet.port_of(CLOUD)["status"].get("reason", ""), 60.0
    )
    fleet.lab.stop_lights([old])
    eventually("it is over", lambda: not fleet.port_of(CLOUD)["status"].get("reason"))
    assert fleet.port_of(CLOUD)["status"]["host"] == "h2"


def test_who_is_behind_a_learning_vnic_goes_with_it_and_says_nothing(
    fleet: Fleet, peers: dict[str, LightGuest]
) -> None:
    """In a VLAN of a trunk as well. Nobody knows them in the new place but by what their old switch had learned."""
    outer, inner = ("52:54:00:93:02:01", "52:54:00:93:02:02"), ("52:54:00:93:03:01", "52:54:00:93:03:02")
    ten = fleet.lights({f"ten{n}": (f"h{n}", [Nic("cloud", "ten")]) for n in (1, 2, 3)})
    nics = [Nic("cloud", "nested", outer[0]), Nic("cloud", "trunk", outer[1])]
    before = fleet.lights({"host": ("h1", nics)})["host"]
    for index, tags in enumerate(((), (10,))):
        send(before.netns, f"eth{index}", marked(inner[index], tags=tags)(b"here"))
    [after] = fleet.lab.start_lights("h2", [("copy", nics)])
    pause(after)
    for port in after.ports():
        after.host.vsctl("set", "Interface", port, f"external_ids:vm-id={before.vm_id}")
    for mac in outer:
        eventually(f"{mac} is being copied", lambda mac=mac: incoming(fleet, mac).get("host") == "h2")
    fleet.settle()

    def heard_by(sender: LightGuest, index: int) -> set[str]:
        places = {"before": inside(before, index), "after": inside(after, index)}
        frame = marked(sender.nics[0].mac, inner[index])
        return set(heard(places, inside(sender), frame, expected=()))

    senders = [(0, peers["peer3"]), (0, peers["peer1"]), (1, ten["ten3"]), (1, ten["ten1"])]
    for index, sender in senders:
        eventually("it is known there", lambda i=index, s=sender: heard_by(s, i) == {"before"})
    pause(before)
    announce(after, *outer)
    for mac in outer:
        eventually("it has moved", lambda mac=mac: fleet.port_of(mac)["status"].get("host") == "h2")
    for index, sender in [*senders, (0, peers["peer2"]), (1, ten["ten2"])]:
        eventually("it is known here", lambda i=index, s=sender: heard_by(s, i) == {"after"})
    fleet.lab.stop_lights([before])
