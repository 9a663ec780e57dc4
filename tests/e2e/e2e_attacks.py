"""Attacks: frames poured in at one port without an end, and ears at every other port of the fleet."""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from e2e_fleet import Fleet, Pinging, eventually
from e2e_frames import ARP, BROADCAST, EXPERIMENT, Build, Place, ears, ethernet, inside
from e2e_packets import (
    ALL_NODES,
    ICMPV6,
    IPV4,
    IPV6,
    UDP,
    Speaker,
    advertisement,
    arp,
    framed,
    ipv4,
    ipv6,
    router_advertisement,
    udp,
)
from labkit import Frame, LightGuest, Nic, send, wait_for
from labkit.capture import open_raw

NETWORKS = """
kind: Network
name: cloud
mode: isolated
---
kind: Network
name: other
mode: isolated
---
kind: Network
name: lan
mode: bridge
physical_network: physnet1
vlan: 10
portgroups:
  twenty: {vlan: 20}
  trunk: {trunk: [10, 20]}
"""
# Right guests: name → host, network, portgroup. Every network has one on each host.
RIGHT = {
    "cloud1": ("h1", "cloud", None), "cloud2": ("h2", "cloud", None),
    "other1": ("h1", "other", None), "other2": ("h2", "other", None),
    "ten1": ("h1", "lan", None), "ten2": ("h2", "lan", None),
    "twenty1": ("h1", "lan", "twenty"), "twenty2": ("h2", "lan", "twenty"),
    "trunk1": ("h1", "lan", "trunk"), "trunk2": ("h2", "lan", "trunk"),
}  # fmt: skip
WHO = {
    name: Speaker(f"52:54:00:a7:00:{n:02x}", f"10.77.0.{n}", f"fd77::{n:x}") for n, name in enumerate(RIGHT, start=1)
}
OUTSIDE = "52:54:00:a7:fe:01"


@dataclass
class World:
    """The fleet with its right guests, and everywhere that a frame could come out."""

    fleet: Fleet
    guests: dict[str, LightGuest]
    places: dict[str, Place] = field(default_factory=dict)

    @classmethod
    def start(cls, fleet: Fleet) -> World:
        fleet.apply(NETWORKS)
        guests = fleet.lights({
            name: (host, [Nic(network, group, WHO[name].mac, (f"{WHO[name].ipv4}/24",))])
            for name, (host, network, group) in RIGHT.items()
        })  # fmt: skip
        fleet.apply("".join(
            guest.ports_yaml().rstrip() + f"\naddresses: ['{WHO[name].ipv4}', '{WHO[name].ipv6}']\n"
            for name, guest in guests.items()
        ))  # fmt: skip
        places = {name: inside(guest) for name, guest in guests.items()}
        places["outside"] = Place(fleet.lab.outside, "eth0")
        for host in fleet.hosts.values():
            # What leaves a host: a switch behind it passes a unicast frame on to one port alone, or to none.
            places[f"underlay-{host.name}"] = Place(host.netns, "eth1", outgoing=True)
            places[f"uplink-{host.name}"] = Place(host.netns, "eth2", outgoing=True)
        world = cls(fleet, guests, places)
        world.fence()
        return world

    def fence(self) -> None:
        """Return when a frame of each right guest of h1 has come out at its peer: what was sent before has as well."""
        markers = {name: secrets.token_bytes(16) for name in RIGHT if name.endswith("1")}
        with ears(self.places, lambda frame: any(each in frame.data for each in markers.values())) as caught:
            for name, marker in markers.items():
                self._until_heard(name, marker, caught[f"{name[:-1]}2"].frames)

    def _until_heard(self, name: str, marker: bytes, frames: Sequence[object]) -> None:
        build = ethernet(BROADCAST, WHO[name].mac, EXPERIMENT, marker, (10,) if RIGHT[name][2] == "trunk" else ())

        def seen() -> bool:  # what is first sent into a tunnel waits for ARP between the hosts, and may be lost
            if not frames:
                send(self.places[name].netns, "eth0", build)
            return bool(frames)

        wait_for(f"{name}'s frames at its peer", seen, 20.0, every=0.02)

    def calm(self) -> None:
        """Return when the tunnel loses nothing: an interface that appears on a host costs frames in the lab."""
        line = f"ping -n -q -c30 -i0.01 -W1 {WHO['cloud1'].ipv4}"
        eventually("a tunnel that loses nothing", lambda: " 0% packet loss" in self.guests["cloud2"].run(line)[1])

    @contextlib.contextmanager
    def blast(self, at: Place, builds: Sequence[Build]) -> Iterator[Blast]:
        """Pour these frames in at a place while the block runs; then see where any of them came out."""
        blast = Blast(secrets.token_bytes(16))
        with ears(self.places, lambda frame: blast.marker in frame.data) as caught:
            raw, stop = open_raw(at.netns, at.interface), threading.Event()
            frames = [build(blast.marker) for build in builds]

            def work() -> None:
                while not stop.wait(0.001):
                    for frame in frames:
                        with contextlib.suppress(OSError):  # its link is down, or there is nobody at its other end
                            raw.send(frame)
                            blast.sent += 1

            thread = threading.Thread(target=work, name="blast")
            thread.start()
            try:
                yield blast
            finally:
                stop.set()
                thread.join()
                raw.close()
            self.fence()
        blast.heard = {name: capture.frames for name, capture in caught.items() if capture.frames}


@dataclass
class Blast:
    """``sent`` counts frames; ``heard`` is what came out where, when it is over."""

    marker: bytes
    sent: int = 0
    heard: Mapping[str, list[Frame]] = field(default_factory=dict)

    @property
    def at(self) -> set[str]:
        """Where any came out."""
        return set(self.heard)

    def goes_on(self, frames: int = 200) -> None:
        """Return when so many more frames were sent."""
        until = self.sent + frames
        wait_for(f"{frames} frames more", lambda: self.sent >= until, 20.0, every=0.005)


def undisturbed(pinging: Pinging) -> None:
    """Nobody was cut off. A port that comes may hold up a loaded userspace switch for a few frames, not longer, and not
    again and again."""
    longest = run = 0
    for before, number in pairwise([-1, *pinging.lost]):
        run = run + 1 if number == before + 1 else 1
        longest = max(longest, run)
    assert longest < 20, str(pinging)
    assert len(pinging.lost) < max(20, pinging.sent // 10), str(pinging)


def honest(me: Speaker) -> list[Build]:
    """To all and to each, from its own MAC, also with a tag of no VLAN."""
    found = [_plain(to, me.mac) for to in (BROADCAST, OUTSIDE, "33:33:00:00:00:01", *(who.mac for who in WHO.values()))]
    return [*found, _plain(BROADCAST, me.mac, (0,))]


def forged(me: Speaker, victims: Iterable[str]) -> list[Build]:
    """Tagged where it has no trunk; in the name of everybody, and of the addresses of these; as a server."""
    found = [_plain(BROADCAST, me.mac, tags) for tags in ((10,), (20,), (77,), (10, 20), (0, 10))]
    for who in WHO.values():
        found += [_plain(BROADCAST, who.mac), _plain(who.mac, me.mac, (10,))]
        found.append(framed(who.mac, ARP, arp(2, who.mac, who.ipv4, who.ipv4)))
    for victim in (WHO[name] for name in victims):
        found.append(framed(me.mac, ARP, arp(2, me.mac, victim.ipv4, victim.ipv4)))
        found.append(framed(me.mac, IPV4, ipv4(victim.ipv4, "255.255.255.255", UDP, udp(5000, 5001))))
        found.append(framed(me.mac, IPV6, advertisement(me.link_local, victim.ipv6, me.mac)))
        found.append(framed(me.mac, IPV6, ipv6(victim.ipv6, ALL_NODES, UDP, udp(5000, 5001))))
    offer = ipv4(me.ipv4, "255.255.255.255", UDP, udp(67, 68, b"\2\1\6\0" + bytes(236)))
    router = ipv6(me.link_local, ALL_NODES, ICMPV6, router_advertisement(me.link_local))
    return [*found, framed(me.mac, IPV4, offer), framed(me.mac, IPV6, router)]


def everything(me: Speaker) -> list[Build]:
    """What somebody tries who is nobody."""
    return [*honest(me), *forged(me, WHO)]


def _plain(dst: str, src: str, tags: tuple[int, ...] = ()) -> Build:
    return lambda marker: ethernet(dst, src, EXPERIMENT, marker.ljust(46, b"."), tags)
