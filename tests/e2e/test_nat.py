"""Guests of a nat network reach the outside by their host's address, and nobody reaches them from there."""

from __future__ import annotations

import signal

import pytest
from e2e_fleet import Fleet, eventually, pings
from labkit import Guest, Nic
from labkit.run import run

pytestmark = pytest.mark.lab
HOSTS = 2

WEB = """\
kind: Network
name: web
mode: nat
subnets: [10.77.0.0/24, "fd77::/64"]
dhcp: {range: [10.77.0.100, 10.77.0.120]}
portgroups: {default: {learn_addresses: 1}}
---
kind: Network
name: shop
mode: nat
subnets: [10.78.0.0/24]
dhcp: {range: [10.78.0.100, 10.78.0.120]}
"""
FAR, FAR6 = "198.51.100.7", "2001:db8:ffff::7"


def outside(fleet: Fleet, command: str) -> tuple[int, str]:
    """Run a shell line on the machine outside."""
    done = run(["ip", "netns", "exec", f"{fleet.lab.name}-out", "sh", "-c", command], check=False)
    return done.returncode, done.stdout + done.stderr


def addressed(guest: Guest) -> str:
    eventually(f"{guest.name} has a lease", lambda: guest.run("cat /run/lease.eth0")[0] == 0)
    text = guest.run("cat /run/lease.eth0")[1]
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)["ip"]


@pytest.fixture
def nat(fleet: Fleet) -> Fleet:
    """Both hosts with an address outside, and two nat networks."""
    outside(fleet, f"ip addr add 203.0.113.1/24 dev eth0; ip addr add {FAR}/32 dev lo")
    outside(fleet, f"ip addr add 2001:db8::1/64 dev eth0 nodad; ip addr add {FAR6}/128 dev lo")
    for number, name in enumerate(sorted(fleet.hosts)):
        document = fleet.host_document(name)
        document["external"] = {
            "uplink": "physnet1",
            "address": f"203.0.113.1{number + 1}/24",
            "gateway": "203.0.113.1",
            "address6": f"2001:db8::1{number + 1}/64",
            "gateway6": "2001:db8::1",
        }
        fleet.client.post("/apply", [document], wait=30.0)
    fleet.apply(WEB)
    return fleet


def test_guests_reach_the_outside_as_their_host_and_are_not_reached(nat: Fleet) -> None:
    fleet = nat
    one, two = fleet.real("h1", "n1", [Nic("web")]), fleet.real("h2", "n2", [Nic("web")])
    other = fleet.real("h1", "n3", [Nic("shop")])
    address, there, elsewhere = addressed(one), addressed(two), addressed(other)
    fleet.wait_active([guest.nics[0].mac for guest in (one, two, other)])
    fleet.settle()
    for guest in (one, two):
        assert pings(guest, FAR)
        assert pings(guest, "203.0.113.1")
    for guest in (one, two):  # by an address that it made itself, and by the router that it was told of
        eventually(f"{guest.name} reaches {FAR6}", lambda guest=guest: pings(guest, FAR6, tries=1))
    assert pings(one, there)
    assert not pings(one, elsewhere, tries=2)  # nat networks do not reach each other
    assert pings(other, FAR)
    listener = "rm -f /tmp/said; (timeout 20 nc -l -p 8080 -s 203.0.113.1 >/tmp/said 2>&1 &) ; sleep 0.3"
    outside(fleet, listener)
    code, said = one.run("echo hello | nc -w 3 203.0.113.1 8080; echo done")
    assert code == 0, said
    outside(fleet, "ip route add 10.77.0.0/24 via 203.0.113.11")
    code, _ = outside(fleet, f"ping -n -c2 -W1 {address}")
    assert code != 0
    assert outside(fleet, "ping -n -c1 -W2 203.0.113.11")[0] == 0


def test_nat_goes_on_without_a_controller(nat: Fleet) -> None:
    fleet = nat
    one = fleet.real("h1", "n4", [Nic("web")])
    addressed(one)
    assert pings(one, FAR)
    fleet.controller.stop(signal.SIGKILL)
    assert pings(one, FAR)
    assert pings(one, "203.0.113.1")
    fleet.controller.start()
    fleet.settle()
    assert pings(one, FAR)
