"""A world for random faults: guests of every kind over a fleet, a judge of who hears whom, and how a history goes.

Every choice, of victims too, is made before anything happens, and comes from one seeded generator; histories are
counted in faults, not in seconds: a seed gives the same one on every machine.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from e2e_fault_kinds import PLACES, Fault, kinds
from e2e_fleet import PATIENCE, Fleet, wait_ping
from e2e_judge import Judge, Party
from labkit import Guest, LabError, LightGuest, Nic
from labkit.capture import open_raw
from labkit.host import Host

from controller.errors import FleetError

NETWORKS = """
kind: Network
name: cloud
mode: isolated
portgroups: {quiet: {isolation: isolated}}
---
kind: Network
name: near
mode: isolated
span: host
---
kind: Network
name: lan
mode: bridge
physical_network: physnet1
portgroups: {ten: {vlan: 10}, twenty: {vlan: 20}}
"""
_SPEAK = "(while :; do ping -c1 -W1 10.8.0.255; done) >/dev/null 2>&1 &"

Place = tuple[str, str | None]  # network, portgroup
New = tuple[str, Host, Place]  # a guest's name, where it starts, what it is plugged into


class World:
    """The fleet's guests as the model knows them, and the outside machine."""

    def __init__(self, fleet: Fleet, seed: int) -> None:
        self.fleet = fleet
        self.random = random.Random(seed)
        self.guests: dict[str, LightGuest] = {}
        self.judge = Judge(self.hears)
        self.real: dict[str, Guest] = {}
        self._places: dict[str, tuple[str, str | None, str | None]] = {}  # party → network, portgroup, host
        self._numbers = itertools.count(1)
        self._owed: list[Callable[[], object]] = []  # what the controller was not there to be told
        self._booting: set[str] = set()
        self._kinds = kinds(self)
        self._deck: list[str] = []

    # -- the model

    def hears(self, sender: Party, listener: Party) -> bool:
        """Whether frames of the one reach the other."""
        network, group, host = self._places[sender.name]
        other_network, other_group, other_host = self._places[listener.name]
        if network != other_network:
            return False
        if network == "lan":
            return group == other_group
        if network == "near":
            return host == other_host
        return not group == other_group == "quiet"

    # -- guests

    def new(self, host: Host, place: Place | None = None) -> New:
        """A guest that is to start there; of any kind, unless it is said."""
        return f"g{next(self._numbers)}{host.name}", host, place or self.random.choice(PLACES)

    def populate(self) -> None:
        """One guest of each kind on each host, and the outside machine in its two VLANs."""
        self.start([self.new(host, place) for host in self.fleet.hosts.values() for place in PLACES])
        self.tell_all(time.monotonic() + PATIENCE)
        outside = []
        for vlan, group in ((10, "ten"), (20, "twenty")):
            space, name = self.fleet.lab.outside_vlan(vlan), f"outside{vlan}"
            self._places[name] = ("lan", group, None)
            with open_raw(space, f"vlan{vlan}") as raw:
                mac = raw.getsockname()[4].hex(":")
            outside.append(Party(name, space, f"vlan{vlan}", mac, None, wire=True))
        self.judge.join(outside)
        for number, host in enumerate(sorted(self.fleet.hosts)[:2], start=1):
            nic = Nic("cloud", None, addresses=(f"10.8.0.{number}/24",), mtu=1400)
            guest = self.fleet.real(host, f"real{number}", [nic], wait=False)
            self.real[guest.name] = guest
            self._places[guest.name] = ("cloud", None, host)
            self._booting.add(guest.name)
            self._listen_to(guest)

    def _listen_to(self, guest: Guest) -> None:
        [tap] = guest.ports()
        [nic] = guest.nics
        self.judge.join([Party(guest.name, guest.host.netns, tap, nic.mac, guest.host.name, tap=True)])

    @contextlib.contextmanager
    def not_listening(self, guest: Guest, *, boots: bool = True) -> Iterator[None]:
        """Its tap goes, and another one comes."""
        self.judge.leave(guest.name)
        yield
        self._listen_to(guest)
        if boots:
            self.boots(guest)

    def boots(self, guest: Guest) -> None:
        """It is about to; when it has, it is made to speak."""
        self._booting.add(guest.name)

    def start(self, wanted: Sequence[New]) -> None:
        """Start them and register them; whether they are switched is the judge's to say."""
        started = []
        for name, host, (network, group) in wanted:
            self._places[name] = (network, group, host.name)
            started.append(self.fleet.lab.start_light(host.name, name, [Nic(network, group)]))
        self.tell(lambda: self.fleet.client.post("/apply", _documents(started), wait=0.0))
        self.guests |= {guest.name: guest for guest in started}
        self.judge.join(Party(g.name, g.netns, "eth0", g.nics[0].mac, g.host.name) for g in started)

    def lose(self, host: Host) -> list[LightGuest]:
        """The light guests of a host, which are about to go."""
        lost = [guest for guest in list(self.guests.values()) if guest.host is host]
        for guest in lost:
            del self.guests[guest.name]
            self.judge.leave(guest.name)
        return lost

    def stop(self, name: str) -> None:
        guest = self.guests.pop(name)
        self.judge.leave(name)
        guest.stop()
        self.forget([guest])

    def forget(self, guests: Sequence[LightGuest]) -> None:
        """Take their registrations back; whether that is confirmed is the judge's to say."""
        gone = [{"kind": "Port", "name": f"{guest.name}-0"} for guest in guests]
        if gone:
            self.tell(lambda: self.fleet.client.post("/delete", gone, wait=0.0))

    def tell(self, change: Callable[[], object]) -> None:
        """What needs the controller is tried at once, and else when the faults are over, as its user would."""
        try:
            change()
        except (FleetError, LabError):
            self._owed.append(change)

    def tell_all(self, until: float) -> None:
        """Raises what was the reason at last."""
        while self._owed:
            try:
                self._owed[0]()
                del self._owed[0]
            except (FleetError, LabError):
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)

    # -- how a history goes

    @property
    def round_is_over(self) -> bool:
        """Whether every kind of fault has happened as often as every other."""
        return not self._deck

    def choose(self) -> list[Fault]:
        """One fault, or two at different places; every kind has its turn before one comes again."""
        chosen: list[Fault] = []
        many = self.random.choice((1, 2, 2))
        while len(chosen) < many:
            if not self._deck:
                if chosen:
                    break
                self._deck = sorted(self._kinds)
                self.random.shuffle(self._deck)
            fault = self._kinds[self._deck[-1]]()
            alone = "libvirt" in {fault.where, *(other.where for other in chosen)}  # asks daemons of several hosts
            if chosen and (alone or fault.where in {other.where for other in chosen}):
                break
            self._deck.pop()
            chosen.append(fault)
        return chosen

    def strike(self, faults: Sequence[Fault], within: float) -> float:
        """All of them at once. Returns how many seconds after the end of the last all was right again. Raises LabError
        when it is not by then; how long a guest's own kernel boots is not counted."""
        hit = [name for fault in faults for name in fault.disturbs]
        with self.judge.disturbing(hit):
            with ThreadPoolExecutor(len(faults)) as pool:
                for done in [pool.submit(fault.happen) for fault in faults]:
                    done.result()
            over = time.monotonic()
            self.tell_all(over + within)
            took = self.judge.agree(within, over)
            self.hear_the_real(within)
            return took

    def hear_the_real(self, within: float) -> None:
        """Each real guest is heard by whom it should be, and reaches the others."""
        for name in sorted(self._booting):
            guest = self.real[name]
            guest.wait_boot()
            guest.run(_SPEAK)
        self._booting.clear()
        self.judge.heard_by_all(self.real, within)
        for guest in self.real.values():
            for other in self.real.values():
                if other is not guest:
                    wait_ping(guest, other.nics[0].addresses[0].partition("/")[0], timeout=within)


def _documents(guests: Sequence[LightGuest]) -> list[dict[str, object]]:
    return [
        {"kind": "Port", "name": f"{g.name}-0", "vm": g.vm_id, "mac": nic.mac, "network": nic.network,
         "portgroup": nic.portgroup or "default", "libvirt": False}
        for g in guests for nic in g.nics
    ]  # fmt: skip
