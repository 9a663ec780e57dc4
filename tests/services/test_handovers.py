"""What changed hands is forgotten where it may be remembered, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fleets import FleetRows

from apps import APPS
from controller.engine import Engine
from controller.openflow.ct_flush import Remembered, Way, ct_flush
from controller.pipeline.pipeline import Pipeline
from controller.pipeline.zones import FRAGMENTS_IN, FRAGMENTS_OUT, HAIRPIN, TRANSLATED
from controller.services.handovers import Handovers

PIPELINE = Pipeline(APPS)
Change = Callable[[FleetRows], object]


class World:
    """Two hosts, a guest on each, an address of a pool, a forward and a floating address; ``sent`` is what which host
    was told."""

    def __init__(self) -> None:
        self.fleet = FleetRows()
        for number in (1, 2):
            self.fleet.host(f"kvm{number}", f"192.0.2.{number}", "phys1")
            self.fleet.outside(f"kvm{number}", "phys1", f"203.0.113.1{number}")
        pool = {"addresses": ["203.0.113.20-203.0.113.29"]}
        self.fleet.network("web", "nat", subnets=["10.0.0.0/24"], nat=pool)
        self.fleet.port("a", "kvm1", "web", addresses=("10.0.0.5",)).port("b", "kvm2", "web", addresses=("10.0.0.6",))
        self.fleet.allotted("web", "kvm1", "203.0.113.20")
        self.fleet.forward("mail", "web", {"port": 25, "host": "kvm1"}, {"vnic": "a"})
        self.fleet.floating_ip("one", "web", "203.0.113.50", {"vnic": "a"})
        self.engine = Engine(PIPELINE)
        self.sequence, self.confirmed, self.up = 0, 99, True
        self.sent: list[tuple[str, bytes]] = []
        self.handovers = Handovers(
            self.engine.fabric, lambda: self.sequence, lambda host: self.confirmed, lambda *told: self.send(*told)
        )
        self.round()

    def send(self, host: str, message: bytes) -> bool:
        if self.up:
            self.sent.append((host, message))
        return self.up

    def round(self, change: Change = lambda fleet: None) -> set[tuple[str, bytes]]:
        change(self.fleet)
        self.engine.update(self.fleet.rows())
        self.sequence += 1
        self.sent.clear()
        self.handovers.compare()
        self.handovers.tell()
        assert len(self.sent) == len(set(self.sent))
        return set(self.sent)


def told(which: list[Remembered], *hosts: str) -> set[tuple[str, bytes]]:
    return {(host, ct_flush(each)) for host in hosts for each in which}


def guest(address: str) -> list[Remembered]:
    sends, answers = Way(src=address), Way(src=address)
    return [Remembered(TRANSLATED, sends), Remembered(TRANSLATED, reply=answers), Remembered(HAIRPIN, sends)]


def own(address: str) -> list[Remembered]:
    to = Way(dst=address)
    return [Remembered(TRANSLATED, reply=to), Remembered(TRANSLATED, to), Remembered(HAIRPIN, reply=to)]


def mail(address: str, target: str) -> list[Remembered]:
    return [Remembered(TRANSLATED, Way(dst=address, dst_port=25), Way(src=target), 6)]


def placed(fleet: FleetRows, name: str, **change: object) -> None:
    fleet.put("Port", name, fleet.ports[name].model_copy(update=change))


def test_nothing_is_forgotten_of_what_stays_or_goes_or_migrates() -> None:
    world = World()
    assert world.round() == set()
    assert world.round(lambda fleet: placed(fleet, "b", host="kvm1", ofport=9)) == set()
    assert world.round(lambda fleet: placed(fleet, "b", state="down")) == set()
    assert world.round(lambda fleet: placed(fleet, "b", state="active")) == set()
    assert world.round(lambda fleet: fleet.put("PortForward", "mail", None)) == set()


def test_a_guests_address_that_another_guest_has_now() -> None:
    world = World()

    def passed_on(fleet: FleetRows) -> None:
        placed(fleet, "b", state="absent")
        fleet.port("c", "kvm1", "web", addresses=("10.0.0.6",))

    assert world.round(passed_on) == told(guest("10.0.0.6"), "kvm1", "kvm2")
    assert world.round() == set()


def test_a_hosts_addresses() -> None:
    world = World()
    assert world.round(lambda f: f.outside("kvm1", "phys1", "203.0.113.14")) == told(own("203.0.113.11"), "kvm1")

    def other_pool(fleet: FleetRows) -> None:
        fleet.network("web", "nat", subnets=["10.0.0.0/24"], nat={"addresses": ["203.0.113.30"]})
        fleet.allotted("web", "kvm1", "203.0.113.30")

    assert world.round(other_pool) == told(own("203.0.113.20"), "kvm1")


@pytest.mark.parametrize("ports", [(25, 25), (1000, 9000)])
def test_a_forward_that_leads_to_another_guest(ports: tuple[int, int]) -> None:
    world = World()
    listen = {"port": f"{ports[0]}-{ports[1]}", "host": "kvm1"}
    assert world.round(lambda fleet: fleet.forward("mail", "web", listen, {"vnic": "a"})) == set()
    told_now = world.round(lambda fleet: fleet.forward("mail", "web", listen, {"vnic": "b"}))
    one_by_one = told(mail("203.0.113.11", "10.0.0.5"), "kvm1")
    all_of_them = told([Remembered(TRANSLATED, Way(dst="203.0.113.11"), Way(src="10.0.0.5"), 6)], "kvm1")
    assert told_now == (one_by_one if ports == (25, 25) else all_of_them)


def test_a_floating_address() -> None:
    """Only of fragments anything is remembered."""
    world = World()
    to = Way(dst="203.0.113.50")
    fragments = [Remembered(FRAGMENTS_OUT, reply=to), Remembered(FRAGMENTS_IN, to)]
    moved = world.round(lambda fleet: fleet.floating_ip("one", "web", "203.0.113.50", {"vnic": "b"}))
    assert moved == told(fragments, "kvm1", "kvm2")


def test_it_waits_for_the_flows_and_for_the_host() -> None:
    world = World()
    world.confirmed = world.sequence
    assert world.round(lambda f: f.outside("kvm1", "phys1", "203.0.113.14")) == set()
    world.confirmed, world.up = world.sequence, False
    assert world.round() == set()
    world.up = True
    assert world.round() == told(own("203.0.113.11"), "kvm1")
    assert world.round() == set()


def test_a_host_that_is_gone_is_told_nothing() -> None:
    world = World()
    world.up = False
    world.round(lambda f: f.outside("kvm1", "phys1", "203.0.113.14"))
    world.up = True
    assert world.round(lambda fleet: fleet.put("Host", "kvm1", None)) == set()


def test_a_guest_that_is_registered_while_it_runs_loses_no_connection() -> None:
    """Its row is called otherwise then."""
    world = World()
    before = world.fleet.ports["a"]

    def registered(fleet: FleetRows) -> None:
        fleet.put("Port", "a", None)
        fleet.put("Port", "web-1", before.model_copy(update={"vm": "web-1"}))
        fleet.register("web-1", "web", mac=before.mac, addresses=before.addresses)
        fleet.forward("mail", "web", {"port": 25, "host": "kvm1"}, {"address": "10.0.0.5"})
        fleet.floating_ip("one", "web", "203.0.113.50", {"address": "10.0.0.5"})

    assert world.round(registered) == set()


def test_an_address_that_two_guests_have_in_two_vlans_is_handed_over_by_neither() -> None:
    world = World()
    groups = {"default": {}, "other": {"vlan": 20}}
    world.fleet.network("web", "nat", subnets=["10.0.0.0/24"], portgroups=groups)
    world.fleet.port("c", "kvm2", "web", "other", addresses=("10.0.0.5",))
    assert world.round() == set()
    assert world.round() == set()
    assert world.round(lambda fleet: placed(fleet, "a", state="absent")) == told(guest("10.0.0.5"), "kvm1", "kvm2")


def test_an_address_that_is_none_of_the_networks_is_nothing_that_guests_hand_over() -> None:
    """Two guests of one tenant could end all others' connections with any machine: by claiming its address in turn."""
    world = World()
    learned = {"addresses": ("198.51.100.7",), "learned": ("198.51.100.7",)}
    assert world.round(lambda fleet: fleet.port("c", "kvm1", "web", **learned)) == set()

    def passed_on(fleet: FleetRows) -> None:
        placed(fleet, "c", state="absent")
        fleet.port("d", "kvm2", "web", **learned)

    assert world.round(passed_on) == set()
