"""A guest migrates, and what each of its vNICs may do is afterwards what it was before."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from e2e_fleet import Fleet, eventually, silent, wait_ping
from labkit import Guest, Nic

pytestmark = pytest.mark.lab

LAB = "mp"
NETWORK = """
kind: Network
name: cloud
mode: isolated
portgroups: {quiet: {isolation: isolated}, trunk: {trunk: [10, 20]}, ten: {vlan: 10}, clean: {filters: [clean-traffic]}}
"""
QUIET, TRUNK, CLEAN, OWN = (f"52:54:00:94:00:{number:02x}" for number in range(1, 5))


@pytest.fixture(scope="module")
def real(fleet: Fleet) -> Iterator[Guest]:
    fleet.apply(NETWORK)
    fleet.apply("".join(
        f"---\n{{kind: Port, name: own{n}, vm: real, mac: '{mac}', network: cloud, portgroup: {group}, "
        f"addresses: [10.94.{n}.9]}}\n" for n, mac, group in ((3, CLEAN, "clean"), (4, OWN, "default"))
    ))  # fmt: skip
    everywhere = tuple(f"10.94.{n}.1/24" for n in (1, 3, 4))
    fleet.lights({
        "peer": ("h1", [Nic("cloud", addresses=everywhere), Nic("cloud", "ten", addresses=("10.94.2.1/24",))]),
        "aloof": ("h1", [Nic("cloud", "quiet", addresses=("10.94.1.2/24",))]),
    })  # fmt: skip
    guest = fleet.real("h1", "real", [
        Nic("cloud", "quiet", QUIET, ("10.94.1.9/24",), mtu=1450),
        Nic("cloud", "trunk", TRUNK, vlans={10: ("10.94.2.9/24",)}, dhcp=False, mtu=1450),
        Nic("cloud", "clean", CLEAN, ("10.94.3.9/24",), mtu=1450),
        Nic("cloud", None, OWN, ("10.94.4.9/24",), mtu=1450),
    ])  # fmt: skip
    fleet.wait_active([QUIET, TRUNK, CLEAN, OWN])
    for number, device in ((3, "eth2"), (4, "eth3")):
        guest.run(f"ip addr add 10.94.{number}.77/24 dev {device}")
    # QEMU 7.2's virtio-net forgets in a migration which VLANs the guest wants to hear, unless it wants to hear all.
    guest.run("ip link set eth1 promisc on")
    yield guest
    guest.remove()


def policies(fleet: Fleet, guest: Guest) -> set[tuple[str, str, str, str]]:
    """What its host does with what its vNICs send: (app, table, match, actions), whatever its ports are called."""
    found = set()
    for flow in fleet.flows(guest.host.name):
        if (flow["app"], flow["kind"]) in {
            (app, "Port") for app in ("classify", "spoofguard", "isolation", "ownership")
        }:
            taps = "|".join(map(re.escape, guest.ports()))
            text = (re.sub(rf"\b({taps})\b", "its-port", flow[each]) for each in ("match", "actions"))
            found.add((flow["app"], flow["table"], *text))
    return {flow for flow in found if "its-port" in flow[2]}


def obeys(guest: Guest) -> None:
    for number in (1, 2, 3, 4):
        wait_ping(guest, f"10.94.{number}.1")
    assert silent(guest, "10.94.1.2"), "both are isolated"
    for number in (3, 4):
        assert silent(guest, f"-I 10.94.{number}.77 10.94.{number}.1"), "that address is not its own"


def test_isolation_trunk_filters_and_addresses_move_along(fleet: Fleet, real: Guest) -> None:
    obeys(real)
    fleet.settle()
    before = policies(fleet, real)
    assert {app for app, *_ in before} >= {"classify", "spoofguard"}
    real.migrate("h2")
    eventually("it is there", lambda: all(
        fleet.port_of(mac)["status"].get("host") == "h2" and not fleet.port_of(mac)["status"].get("incoming")
        for mac in (QUIET, TRUNK, CLEAN, OWN)
    ))  # fmt: skip
    fleet.settle()
    obeys(real)
    assert policies(fleet, real) == before
