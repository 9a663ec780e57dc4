"""The topology is what is there: at any moment of a churn, and after every change, each vNIC, tunnel and uplink in it
is found in the hosts' OVSDB and libvirt, and the other way round.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import pytest
import yaml
from e2e_fleet import PATIENCE, Fleet
from e2e_reality import follow_ovsdb, graph_facts, reality, reality_of_libvirt
from e2e_samples import Follower, Sample, Sampler, lags
from labkit import Guest, LightGuest, Nic, netns

pytestmark = [pytest.mark.lab, pytest.mark.alone]
HOSTS, PHYSNETS = 3, 2

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
LATE = "kind: Network\nname: late\nmode: bridge\nphysical_network: physnet2\n"
REAL, HOT, USER = "52:54:00:7b:00:01", "52:54:00:7b:00:02", "52:54:00:7b:00:03"

LAG = 1.0  # seconds by which the topology may be behind the hosts
ROUNDS = 3
OF_OVSDB = {"bridge", "patch", "uplink", "tunnel", "vnic"}
OF_LIBVIRT = {"guest", "libvirt's vnic", "unmanaged"}
"""Kinds of facts that are compared at any moment. A Network that is deleted is gone from the topology at once, and from
the hosts' libvirts when they have answered."""


@dataclass
class Watcher:
    """Holds the graph against reality after every event; ``seconds`` is how long each time it took to agree."""

    fleet: Fleet
    seconds: dict[str, float] = field(default_factory=dict)
    kinds: set[str] = field(default_factory=set)  # of facts that were there at any time

    def after(self, event: str, change: Callable[[], Any]) -> Any:
        """Make the change; return what it returns when the graph has the facts that the hosts have."""
        result = change()
        ended = time.monotonic()
        while True:
            there = reality(self.fleet.hosts.values())
            self.kinds |= {str(fact[0]) for fact in there}
            told = graph_facts(self.fleet.client.get("/topology"))
            if there == told:
                self.seconds[event] = time.monotonic() - ended
                return result
            assert time.monotonic() - ended < PATIENCE, (
                f"{event}: there and not told: {sorted(there - told, key=str)}; "
                f"told and not there: {sorted(told - there, key=str)}"
            )


def uplinked(fleet: Fleet, host: str, *physical: str) -> Callable[[], None]:
    """Apply a host of the lab with these of its uplinks alone."""
    document = fleet.host_document(host)
    document["uplinks"] = {name: uplink for name, uplink in document["uplinks"].items() if name in physical}
    return lambda: fleet.apply(yaml.safe_dump(document))


def test_what_is_told_is_there_and_what_is_there_is_told(fleet: Fleet) -> None:
    watch = Watcher(fleet)
    watch.after("two networks come", lambda: fleet.apply(NETWORKS))
    lights: list[LightGuest] = []
    for number in range(4):
        nics = [
            Nic("cloud", addresses=(f"10.8.0.{number + 1}/24",)),
            Nic("lan", addresses=(f"10.9.0.{number + 1}/24",)),
        ]
        start = lambda n=number, nics=nics: fleet.lab.start_light(f"h{n % 2 + 1}", f"light{n}", nics)  # noqa: E731
        lights.append(watch.after(f"light guest {number} starts", start))
    text = "".join(light.ports_yaml() for light in lights)
    watch.after("light guests are registered", lambda: fleet.apply(text))
    guest = watch.after("a guest starts", lambda: fleet.real("h1", "real", [Nic("cloud", None, REAL)]))
    watch.after("a vNIC is plugged in", lambda: guest.attach(Nic("lan", None, HOT)))
    watch.after("it moves", lambda: guest.migrate("h2"))
    watch.after("it moves back", lambda: guest.migrate("h1"))
    watch.after("a vNIC is unplugged", lambda: guest.detach(HOT))
    watch.after("one that no switch sees is plugged in", lambda: plug_unmanaged(guest))
    watch.after("a third network comes", lambda: fleet.apply(LATE))
    for host in ("h1", "h3"):
        watch.after(f"{host} loses an uplink", uplinked(fleet, host, "physnet1"))
    watch.after("h3 loses the other", uplinked(fleet, "h3"))
    for state in ("down", "up"):
        line = f"link set eth2 {state}"
        watch.after(f"h2's link goes {state}", lambda line=line: netns.ip_batch([line], fleet.hosts["h2"].netns))
    watch.after("h1 has the uplink again", uplinked(fleet, "h1", "physnet1", "physnet2"))
    watch.after("h3 is removed", lambda: fleet.delete([("Host", "h3")]))
    watch.after("the guest's plug is pulled", guest.destroy)
    watch.after("it boots again", lambda: guest.start(wait=False))
    watch.after("h3 is there again", lambda: fleet.apply(yaml.safe_dump(fleet.host_document("h3"))))
    watch.after("the third network goes", lambda: fleet.delete([("Network", "late")]))
    watch.after("the guest is removed", guest.remove)
    for number, light in enumerate(lights):
        watch.after(f"light guest {number} ends", light.stop)
    watch.after("their registrations go", lambda: fleet.delete(
        [("Port", f"{light.name}-{index}") for light in lights for index in range(2)]
    ))  # fmt: skip
    took = sorted(watch.seconds.items(), key=lambda item: -item[1])
    print("\n".join(f"{seconds:6.2f} s  {event}" for event, seconds in took))
    assert watch.kinds == OF_OVSDB | OF_LIBVIRT | {"network"}, "nothing was compared where nothing was seen"
    assert statistics.median(watch.seconds.values()) <= LAG, took


def plug_unmanaged(guest: Guest) -> None:
    """A vNIC of QEMU's own user-mode network."""
    path = guest.host.dir / "user.xml"
    path.write_text(
        f"<interface type='user'><mac address='{USER}'/><model type='virtio'/><rom enabled='no'/></interface>"
    )
    guest.host.virsh("attach-device", guest.name, str(path), "--live")
    path.unlink()


def churn(fleet: Fleet, guest: Guest) -> int:
    """Changes of all kinds one after the other, none of them waited for; returns how many."""
    changes, dice = 0, random.Random(3)
    for turn in range(ROUNDS):
        for change in round_of(fleet, guest, turn):
            change()
            changes += 1
            time.sleep(dice.uniform(0.0, 0.6))  # so that changes come one upon the other, and alone
    return changes


def round_of(fleet: Fleet, guest: Guest, turn: int) -> Iterator[Callable[[], object]]:
    h1, h2 = fleet.hosts["h1"], fleet.hosts["h2"]
    nics = [Nic("cloud", addresses=(f"10.8.1.{turn + 1}/24",)), Nic("lan", addresses=(f"10.9.1.{turn + 1}/24",))]
    lights: list[LightGuest] = []
    yield lambda: lights.append(fleet.lab.start_light(f"h{turn % 3 + 1}", f"churn{turn}", nics))
    yield lambda: h1.vsctl("del-port", "br-int", f"fs-{('vxlan', 'geneve', 'gre')[turn % 3]}")
    yield lambda: netns.ip_batch(["link set eth2 down"], h2.netns)
    yield guest.destroy
    yield uplinked(fleet, "h3", "physnet1")
    yield lambda: h2.vsctl("del-port", "br-int", "fs-int1")
    yield lambda: guest.start(wait=False)
    yield lights[0].stop
    yield lambda: netns.ip_batch(["link set eth2 up"], h2.netns)
    yield uplinked(fleet, "h3", "physnet1", "physnet2")


def only(kinds: set[str], samples: Sequence[Sample]) -> list[Sample]:
    return [replace(each, facts=frozenset(fact for fact in each.facts if fact[0] in kinds)) for each in samples]


def test_while_everything_changes_the_topology_is_hardly_behind(fleet: Fleet) -> None:
    fleet.apply(f"{NETWORKS}---\n{LATE}")
    guest = fleet.real("h1", "real", [Nic("cloud", None, REAL)], wait=False)
    fleet.wait_active([REAL])
    plug_unmanaged(guest)

    hosts = fleet.hosts.values()
    ovsdb = Follower(lambda done: follow_ovsdb(hosts, done))
    libvirt = Sampler(lambda: reality_of_libvirt(hosts))
    told = Sampler(lambda: graph_facts(fleet.client.get("/topology")))
    with ovsdb.running(), libvirt.running(), told.running():
        time.sleep(2 * LAG)  # a while in which nothing changes: what is told wrongly from the beginning is late as well
        changes = churn(fleet, guest)
        time.sleep(2 * LAG)  # what follows the last change has its time, and is late if it takes more
    guest.remove()
    found = [
        lag for real, kinds in ((ovsdb, OF_OVSDB), (libvirt, OF_LIBVIRT))
        for lag in lags(only(kinds, real.samples), only(kinds, told.samples))
    ]  # fmt: skip
    moved = sum(before.facts != after.facts for before, after in pairwise(ovsdb.samples))
    held_up = max(after.begun - before.ended for before, after in pairwise(told.samples))
    print(f"{changes} changes, {moved} transactions that changed facts, {len(libvirt.samples)} readings of libvirt, "
          f"{len(told.samples)} of the topology, {held_up:.3f} s at most between two")  # fmt: skip
    print(f"it was behind {len(found)} times", *found[:10], sep="\n")
    assert moved >= changes // 2, "what is read changes"
    assert len(told.samples) >= changes
    # Where our own thread did not run for so long, nobody's may have.
    assert [lag for lag in found if lag.seconds > LAG + held_up] == []
