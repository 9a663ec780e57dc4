"""Guests get IPv6 addresses by router advertisements or DHCPv6, and reach their gateway by its link-local address."""

from __future__ import annotations

import signal
from ipaddress import IPv6Address, IPv6Network
from itertools import pairwise
from pathlib import Path

import pytest
from e2e_fleet import Fleet, eventually, pings, wait_ping
from labkit import Guest, LightGuest, Nic

from controller.model.subnet import gateway_mac, link_local

pytestmark = pytest.mark.lab
HOSTS = 2

# What dhclient runs when something happens to its lease.
SCRIPT = """\
#!/bin/sh
case $reason in
PREINIT6) ip link set "$interface" up ;;
BOUND6 | RENEW6 | REBIND6)
	ip addr replace "$new_ip6_address/128" dev "$interface" nodad
	ip route replace {subnet} dev "$interface"
	env | grep ^new_ >{lease}
	;;
esac
"""


def network(name: str, subnet: str, *more: str) -> str:
    return "\n".join([f"kind: Network\nname: {name}\nmode: isolated\nsubnets: ['{subnet}']", *more, ""])


def addresses(guest: Guest | LightGuest, subnet: str) -> list[str]:
    """The guest's addresses in the subnet that it may use."""
    _, text = guest.run("ip -6 addr show dev eth0 | grep -v tentative")
    words = text.split()
    found = [after.partition("/")[0] for word, after in pairwise(words) if word == "inet6"]
    return [address for address in found if IPv6Address(address) in IPv6Network(subnet)]


def known(fleet: Fleet, guest: Guest, what: str) -> list[str]:
    """What the Port of the guest's vNIC says of its addresses."""
    return list(fleet.port_of(guest.nics[0].mac).get("status", {}).get(what, []))


def own_address(guest: Guest | LightGuest, subnet: str) -> str:
    """The one that the guest's kernel makes from the subnet and its MAC."""
    identifier = int(IPv6Address(link_local(guest.nics[0].mac))) & (2**64 - 1)
    return str(IPv6Network(subnet)[identifier])


def lights(fleet: Fleet, network: str, *names: str) -> list[LightGuest]:
    """One on each host, known to the fleet."""
    found = fleet.lights({name: (f"h{n + 1}", [Nic(network)]) for n, name in enumerate(names)})
    return [found[name] for name in names]


def test_guests_make_their_addresses_of_what_their_gateway_says(fleet: Fleet) -> None:
    subnet = "fd66::/64"
    more = "dhcp: {range: [10.66.0.100, 10.66.0.120]}\nportgroups: {held: {learn_addresses: 1}}"
    fleet.apply(network("auto", f"{subnet}', '10.66.0.0/24", more))
    guests = [fleet.real("h1", "g1", [Nic("auto")]), fleet.real("h2", "g2", [Nic("auto", "held")])]
    for guest in guests:
        # With its lease it is held to that: not in the family where it makes its addresses itself.
        eventually(f"{guest.name} has a lease", lambda guest=guest: known(fleet, guest, "addresses"))
        eventually(f"{guest.name} has an address", lambda guest=guest: addresses(guest, subnet))
        assert addresses(guest, subnet) == [own_address(guest, subnet)]
    one, two = guests
    wait_ping(one, own_address(two, subnet))
    made = own_address(two, subnet)
    eventually("it is learned", lambda: made in known(fleet, two, "learned"))
    assert [a for a in known(fleet, two, "addresses") if a.startswith("10.66.0.1")], "it has its lease as well"
    assert len(known(fleet, one, "addresses")) == 1
    fleet.settle()
    wait_ping(two, own_address(one, subnet))
    for guest in guests:
        assert pings(guest, "fd66::1")
        assert pings(guest, f"{link_local(gateway_mac('auto'))}%eth0")
        _, routes = guest.run("ip -6 route")
        assert "default" not in routes  # an isolated network leads nowhere
        assert guest.run("cat /proc/sys/net/ipv6/conf/eth0/mtu")[1].strip() == "1450"
    for guest in guests:
        guest.run("ip addr add fd66::9/64 dev eth0" if guest is one else "ip addr add fd66::99/64 dev eth0")
        eventually("it has another address", lambda guest=guest: len(addresses(guest, subnet)) == 2)
    wait_ping(one, made, "-I", "fd66::9")
    assert not pings(two, own_address(one, subnet), "-I", "fd66::99", tries=2)  # it has learned as many as it may


def test_guests_that_run_are_told_of_a_subnet_that_comes_later(fleet: Fleet) -> None:
    fleet.apply("kind: Network\nname: later\nmode: isolated\n")
    one, two = lights(fleet, "later", "l1", "l2")
    fleet.wait_active([one.nics[0].mac, two.nics[0].mac])
    assert addresses(one, "fd67::/64") == []
    fleet.apply(network("later", "fd67::/64"))
    for guest in (one, two):
        eventually(f"{guest.name} has an address", lambda guest=guest: addresses(guest, "fd67::/64"))
    wait_ping(one, own_address(two, "fd67::/64"))


class Client:
    """ISC's DHCPv6 client in a light guest."""

    def __init__(self, guest: LightGuest, subnet: str, folder: Path) -> None:
        self.guest = guest
        self._lease = folder / f"{guest.name}.lease"
        script = folder / f"{guest.name}.sh"
        script.write_text(SCRIPT.format(subnet=subnet, lease=self._lease))
        script.chmod(0o755)
        files = f"-lf {folder}/{guest.name}.leases -pf {folder}/{guest.name}.pid"
        self._command = f"dhclient -6 -1 -D LL {{}} -sf {script} {files} eth0"

    def ask(self) -> dict[str, str]:
        """What it is told; it goes on to renew it."""
        said = ""

        def has_it() -> bool:
            nonlocal said
            code, said = self.guest.run(self._command.format(""), timeout=90.0)
            return code == 0 and self._lease.exists()

        eventually(f"{self.guest.name} has a lease", has_it)
        return dict(line.split("=", 1) for line in self._lease.read_text().splitlines())

    def give_back(self) -> None:
        code, said = self.guest.run(self._command.format("-r"), timeout=60.0)
        assert code == 0, said


def test_addresses_are_leased_by_dhcpv6(fleet: Fleet, tmp_path: Path) -> None:
    subnet = "fd68::/64"
    more = "dhcp: {range6: ['fd68::100', 'fd68::101'], dns: ['fd68::53'], domain: example.org}"
    fleet.apply(network("leased", subnet, more))
    one, two = lights(fleet, "leased", "d1", "d2")
    macs = [one.nics[0].mac, two.nics[0].mac]
    fleet.wait_active(macs)
    fleet.settle()
    first = Client(one, subnet, tmp_path)
    told = first.ask()
    address = told["new_ip6_address"]
    assert address in {"fd68::100", "fd68::101"}
    assert (told["new_dhcp6_name_servers"], told["new_dhcp6_domain_search"]) == ("fd68::53", "example.org.")
    assert addresses(one, subnet) == [address]  # and none that it made itself
    eventually("its address is known", lambda: fleet.port_of(macs[0])["status"]["addresses"] == [address])
    wait_ping(one, "fd68::1")

    fleet.controller.stop(signal.SIGKILL)
    assert pings(one, "fd68::1")
    fleet.controller.start()
    fleet.settle()
    other = Client(two, subnet, tmp_path).ask()["new_ip6_address"]
    assert {address, other} == {"fd68::100", "fd68::101"}
    wait_ping(one, other)

    first.give_back()
    eventually("its address is free", lambda: fleet.port_of(macs[0])["status"].get("addresses", []) == [])
