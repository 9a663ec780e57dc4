"""One switch under fleetswitch, and one under Faucet on the same host: start, a changed configuration, a restart."""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from labkit.capture import open_raw
from labkit.lab import Lab
from labkit.light import LightGuest
from labkit.nic import Nic
from labkit.run import run, say
from labkit.stream import Streaming

from ..figures import Figure
from ..guests import all_answered, arp_question
from ..plain import OURS, without_uplinks
from .faucet import BRIDGE, Faucet

_NETWORK = """\
kind: Network
name: bench
mode: isolated
portgroups:
  moving: {%s}
"""
_PATIENCE = 60.0
_RATE = 200  # questions a second of all guests together: each is flooded to all ports until Faucet knows who is asked
_NETS = {OURS: 95, BRIDGE: 96}  # the second byte of its guests' addresses


class Control(Protocol):
    """What runs a switch with guests; the last guest is the one that moves."""

    def start(self) -> None:
        """Returns before it works."""

    def stop(self) -> None:
        """End it; its switch stays as it is."""

    def move(self, here: bool) -> None:
        """Change the configuration so that the last guest is in the VLAN of the others, or in one of its own."""


@dataclass
class Fleetswitch:
    lab: Lab

    def start(self) -> None:
        self.lab.controller.start()

    def stop(self) -> None:
        self.lab.controller.stop()

    def move(self, here: bool) -> None:
        self.lab.controller.apply(_NETWORK % ("" if here else "vlan: 7"), wait=0.0)


@dataclass
class Peer:
    faucet: Faucet
    ofports: Sequence[int]

    def start(self) -> None:
        self.faucet.start()

    def stop(self) -> None:
        self.faucet.stop()

    def move(self, here: bool) -> None:
        *others, last = self.ofports
        self.faucet.configure([*((ofport, "bench") for ofport in others), (last, "bench" if here else "other")])


@dataclass
class Taken:
    """Seconds of each time; frames that were lost, of 1,000 a second, while it was reloaded and at its restarts."""

    starts: list[float] = field(default_factory=list)
    reloads: list[float] = field(default_factory=list)
    at_reload: int = 0
    at_restart: int = 0


def measure(programs: Path, name: str, ports: int, rounds: int) -> list[Figure]:
    """Raises LabError when either cannot be measured."""
    with Lab(name, 1, libvirt=False) as lab, ExitStack() as stack:
        host = lab.hosts["h1"]
        lab.controller.start()
        lab.controller.apply(without_uplinks(lab.fleet_yaml()) + "---\n" + _NETWORK % "vlan: 7")
        host.wait_bridge(OURS)
        ours = _taken(lab, OURS, _guests(lab, OURS, ports), Fleetswitch(lab), rounds)
        host.add_bridge(BRIDGE, fail_mode="secure")
        guests = _guests(lab, BRIDGE, ports)
        taps = [guest.ports()[0] for guest in guests]
        ofports = [int(host.vsctl("get", "Interface", tap, "ofport")) for tap in taps]
        faucet = Faucet(programs, lab.state.dir / "faucet", host, lab.controller.address)
        stack.callback(faucet.stop)
        peer = Peer(faucet, ofports)
        peer.move(here=False)
        peer.start()
        theirs = _taken(lab, BRIDGE, guests, peer, rounds)
    return list(_figures({"ports": ports}, ours, theirs))


def _figures(size: dict[str, int], ours: Taken, theirs: Taken) -> Iterator[Figure]:
    def figure(what: str, of: Callable[[Taken], float], unit: str = "") -> Figure:
        return Figure("peers", what, of(ours), unit, size, of(theirs), "Faucet")

    yield figure("switch without flows: started to all answered", lambda t: statistics.median(t.starts), "s")
    yield figure("VLAN of a port changed: to its first answer", lambda t: statistics.median(t.reloads), "s")
    yield figure("frames lost while VLANs change", lambda t: t.at_reload)
    yield figure("frames lost at restarts", lambda t: t.at_restart)


def _guests(lab: Lab, bridge: str, ports: int) -> list[LightGuest]:
    """So many on the bridge; the last one is in a portgroup that is changed."""
    net = _NETS[bridge]
    nics = [Nic("bench", "moving" if n == ports - 1 else None, addresses=(f"10.{net}.0.{n + 1}/24",))
            for n in range(ports)]  # fmt: skip
    return lab.start_lights("h1", [(f"n{net}x{n}", [nic]) for n, nic in enumerate(nics)], bridge)


def _taken(lab: Lab, bridge: str, guests: Sequence[LightGuest], control: Control, rounds: int) -> Taken:
    say(f"{'fleetswitch' if bridge == OURS else 'Faucet'}: {len(guests)} ports on one switch")
    host, taken = lab.hosts["h1"], Taken()
    target, *others, moving = guests
    address = target.nics[0].addresses[0].split("/")[0]
    with ExitStack() as stack:

        def asking(guest: LightGuest) -> tuple[socket.socket, bytes]:
            nic = guest.nics[0]
            question = arp_question(nic.mac, nic.addresses[0].split("/")[0], address, target.nics[0].mac)
            return stack.enter_context(open_raw(guest.netns, "eth0")), question

        questions, last = dict(map(asking, others)), dict([asking(moving)])

        def answered() -> float:
            return all_answered(questions, address, _PATIENCE, len(questions) / _RATE)

        answered()
        for _ in range(rounds):
            control.stop()
            run(["ovs-ofctl", "-O", "OpenFlow13,OpenFlow15", "del-flows", f"unix:{host.rundir}/{bridge}.mgmt"])
            begun = time.time()
            control.start()
            taken.starts.append(answered() - begun)
        way = {"one way": (others[0], others[1])}
        with Streaming(way) as stream:
            for _ in range(rounds):
                begun = time.time()
                control.move(here=True)
                taken.reloads.append(all_answered(last, address, _PATIENCE) - begun)
                control.move(here=False)
        taken.at_reload = stream.reports["one way"].missing
        with Streaming(way) as stream:
            for _ in range(rounds):
                control.stop()
                control.start()
                time.sleep(1.0)  # the switch waits so long at most before it connects again
                answered()
        taken.at_restart = stream.reports["one way"].missing
    return taken
