"""Real guests get addresses by DHCP and reach their gateway, on every host and also after the controller was away."""

from __future__ import annotations

import re
import signal

import pytest
from e2e_fleet import Fleet, eventually, pings, wait_ping
from labkit import Guest, Nic

pytestmark = pytest.mark.lab
HOSTS = 2

NETWORK = """\
kind: Network
name: {name}
mode: isolated
subnets: [10.77.0.0/24, "fd77::/64"]
dhcp:
  range: [10.77.0.100, 10.77.0.{last}]
  hosts: [{{mac: "52:54:00:77:00:05", ip: 10.77.0.5, name: printer}}]
  domain: example.org
  routes: [{{to: 10.50.0.0/16, via: 10.77.0.9}}]
  boot: {{file: pxelinux.0, server: 10.77.0.8}}
  options: {{domain-search: [lab.example, example.org]}}
"""


def network(name: str, last: int = 120) -> str:
    return NETWORK.format(name=name, last=last)


def lease(guest: Guest, device: str = "eth0") -> dict[str, str]:
    """What udhcpc was told; empty while it has no lease."""
    code, text = guest.run(f"cat /run/lease.{device}")
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line) if code == 0 else {}


def addressed(guest: Guest) -> str:
    eventually(f"{guest.name} has a lease", lambda: lease(guest))
    return lease(guest)["ip"]


def test_guests_on_two_hosts_are_told_who_they_are_and_reach_each_other(fleet: Fleet) -> None:
    fleet.apply(network("web"))
    one = fleet.real("h1", "g1", [Nic("web")])
    two = fleet.real("h2", "g2", [Nic("web", mac="52:54:00:77:00:05")])
    address = addressed(one)
    assert re.fullmatch(r"10\.77\.0\.1[012]\d", address)
    assert addressed(two) == "10.77.0.5"
    told = lease(one)
    assert (told["mtu"], told["domain"], told["lease"]) == ("1450", "example.org", "3600")
    assert "router" not in told  # an isolated network leads nowhere
    assert told["staticroutes"].split() == ["10.50.0.0/16", "10.77.0.9"]
    assert told["search"].split() == ["lab.example", "example.org"]
    assert (told["siaddr"], told["boot_file"]) == ("10.77.0.8", "pxelinux.0")
    fleet.wait_active([one.nics[0].mac, two.nics[0].mac])
    assert fleet.port_of(one.nics[0].mac)["status"]["addresses"] == [address]
    wait_ping(one, "10.77.0.5")
    wait_ping(two, address)
    for guest in (one, two):
        assert pings(guest, "10.77.0.1")
    code, said = one.run("ip addr add fd77::9/64 dev eth0 && ping -c1 -W2 fd77::1")
    assert code == 0, said


def test_a_lease_holds_the_guest_to_its_address(fleet: Fleet) -> None:
    fleet.apply(network("held"))
    one = fleet.real("h1", "g3", [Nic("held")])
    address = addressed(one)
    fleet.wait_active([one.nics[0].mac])
    eventually("its address is known", lambda: fleet.port_of(one.nics[0].mac)["status"]["addresses"] == [address])
    fleet.settle()
    assert pings(one, "10.77.0.1")
    one.run("ip addr flush dev eth0 && ip addr add 10.77.0.66/24 dev eth0")
    assert not pings(one, "10.77.0.1", tries=2)


def test_a_controller_that_was_away_knows_who_has_what(fleet: Fleet) -> None:
    fleet.apply(network("small", 101))
    one = fleet.real("h1", "g4", [Nic("small")])
    address = addressed(one)
    fleet.controller.stop(signal.SIGKILL)
    assert pings(one, "10.77.0.1")
    fleet.controller.start()
    fleet.settle()
    two = fleet.real("h2", "g5", [Nic("small")])
    assert {address, addressed(two)} == {"10.77.0.100", "10.77.0.101"}
    wait_ping(one, addressed(two))
