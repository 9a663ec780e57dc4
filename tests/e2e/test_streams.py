"""A thousand frames a second, and not one is lost, whatever becomes of the controller; with 200 guests on the host.

While frames flow, the sockets from which the switches read their ports hold 16 MB instead of the kernel's 200 KB
(labkit.stream), so that a machine that keeps ovs-vswitchd waiting does not lose them by itself.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from e2e_fleet import PATIENCE, Fleet, eventually, installed, wait_ping
from e2e_rollcall import RollCall
from e2e_streams import Ways, nothing_is_lost
from labkit import LightGuest, Nic, Streaming, netns
from labkit.host import Host
from labkit.segment import net_namespace

pytestmark = [pytest.mark.lab, pytest.mark.alone]
HOSTS, LIBVIRT, LAB = 2, False, "s"
CROWD, OTHERS = 200, 3
AWAY = float(os.environ.get("FLEETSWITCH_AWAY", "3"))  # seconds without a controller
SLACK = 1.0  # seconds between looking at the clock and at the flows
SOON, TRIES = 1.0, 3  # seconds; the best of so many, for the machine is shared
MARKER = "0xabc"
NEWER = (sys.executable, str(Path(__file__).with_name("newer_controller.py")))


@pytest.fixture(scope="module")
def crowd(fleet: Fleet) -> dict[str, LightGuest]:
    """200 guests on h1, and a few on h2."""
    fleet.apply("kind: Network\nname: cloud\nmode: isolated\n")
    return fleet.lights({
        f"{host}-{n}": (host, [Nic("cloud", None, addresses=(f"10.15.{host[1]}.{n}/16",))])
        for host, count in (("h1", CROWD), ("h2", OTHERS))
        for n in range(1, count + 1)
    })  # fmt: skip


@pytest.fixture(scope="module")
def ways(crowd: dict[str, LightGuest]) -> Ways:
    """Streams within a host and over the tunnel, both ways."""
    pairs = {"local": ("h1-1", "h1-2"), "out": ("h1-3", "h2-1"), "in": ("h2-2", "h1-4")}
    return {name: (crowd[sender], crowd[receiver]) for name, (sender, receiver) in pairs.items()}


@pytest.fixture(autouse=True)
def _everybody_talks(fleet: Fleet, ways: Ways) -> None:
    for sender, receiver in ways.values():
        wait_ping(sender, receiver.nics[0].addresses[0].split("/")[0])
    fleet.settle()


@contextlib.contextmanager
def changes(host: Host) -> Iterator[list[str]]:
    """Every change of a flow while the block ran, by whomever, as the switch itself tells a monitor of the test's own
    (ovs-ofctl(8), "monitor"); a flow that is sent again is one, too."""
    told = host.rundir / "monitor.log"
    monitor = ["ovs-ofctl", "-O", "OpenFlow15", f"--unixctl={host.rundir}/monitor.ctl", "monitor"]
    found: list[str] = []
    with told.open("w") as log:
        process = subprocess.Popen(
            [*monitor, f"{host.rundir}/br-int.mgmt", "watch:!initial"], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        eventually("the monitor is in place", lambda: "FLOW_MONITOR reply" in told.read_text())
        yield found
        host.ofctl("add-flow", "br-int", f"table=200,cookie={MARKER},actions=drop")
        eventually("the end of the changes", lambda: f"cookie={MARKER}" in told.read_text())
    finally:
        process.terminate()
        process.wait(10.0)
    host.ofctl("del-flows", "br-int", f"cookie={MARKER}/-1")
    found += [line.strip() for line in told.read_text().splitlines() if "event=" in line and MARKER not in line]


@contextlib.contextmanager
def nothing_sent(fleet: Fleet) -> Iterator[None]:
    """No host's flows are touched while the block runs: each goes on counting its seconds."""
    before, begun = {name: installed(host) for name, host in fleet.hosts.items()}, time.monotonic()
    yield
    after, elapsed = {name: installed(host) for name, host in fleet.hosts.items()}, time.monotonic() - begun
    for name, flows in before.items():
        assert flows.keys() == after[name].keys()
        assert all(after[name][identity] >= seconds + elapsed - SLACK for identity, seconds in flows.items())


@contextlib.contextmanager
def nothing_told(fleet: Fleet) -> Iterator[None]:
    """And the switches themselves tell of no change."""
    with nothing_sent(fleet), contextlib.ExitStack() as stack:
        found = {name: stack.enter_context(changes(host)) for name, host in fleet.hosts.items()}
        yield
    assert found == {name: [] for name in fleet.hosts}


def test_the_controller_is_killed_and_away_for_a_while(fleet: Fleet, ways: Ways) -> None:
    def happens() -> None:
        with nothing_told(fleet):
            fleet.controller.stop(signal.SIGKILL)
            time.sleep(AWAY)
            fleet.controller.start()
            fleet.settle()

    nothing_is_lost(fleet, ways, happens)


def test_the_controller_reloads(fleet: Fleet, ways: Ways) -> None:
    process, position = fleet.controller.process(), fleet.controller.log.stat().st_size
    assert process is not None

    def happens() -> None:
        with nothing_told(fleet):
            begun = fleet.controller.log.stat().st_size
            process.signal(signal.SIGHUP)
            eventually("the reload", lambda: b"reload:" in fleet.controller.log.read_bytes()[begun:])
            fleet.settle()

    nothing_is_lost(fleet, ways, happens)
    assert process.alive
    assert b"lost" not in fleet.controller.log.read_bytes()[position:]


SIDE = {"kind": "Network", "name": "side", "mode": "bridge", "physical_network": "physnet1"}


def side(vlan: int) -> str:
    return yaml.safe_dump({**SIDE, "portgroups": {"office": {"vlan": vlan}}})


def test_networks_that_are_none_of_theirs_come_change_and_go(fleet: Fleet, ways: Ways) -> None:
    """The guests of those are plugged in before: see the next test."""
    guests = {
        host: fleet.lab.start_light(host, f"side-{host}", [Nic("side", "office", addresses=(f"10.0.10.{n}/24",))])
        for n, host in enumerate(fleet.hosts, start=1)
    }
    ports = "".join(guest.ports_yaml() for guest in guests.values())
    registered = [("Port", f"{guest.name}-0") for guest in guests.values()]

    def happens() -> None:
        for vlan in (10, 20):
            fleet.apply(f"{side(vlan)}\n{ports}")
            fleet.wait_active(guest.nics[0].mac for guest in guests.values())
            wait_ping(guests["h1"], "10.0.10.2")
            fleet.apply(side(vlan + 1))
            wait_ping(guests["h2"], "10.0.10.1")
            fleet.delete([("Network", "side"), *registered], force=True)

    with changes(fleet.hosts["h1"]) as seen:
        nothing_is_lost(fleet, ways, happens)
    fleet.lab.stop_lights(list(guests.values()))
    assert any("ADDED" in line for line in seen)
    assert any("DELETED" in line for line in seen)


def test_guests_that_are_none_of_theirs_come_and_go(fleet: Fleet, ways: Ways) -> None:
    """Within a host. Between hosts Open vSwitch's userspace tunnels lose frames when any interface appears on a host or
    leaves it, with and without a controller: they read the routes anew, and find none meanwhile."""
    fleet.apply(side(10))

    def happens() -> None:
        for n in range(3):
            guest = fleet.lights({f"side-{n}": ("h1", [Nic("side", "office", addresses=("10.0.10.1/24",))])})
            fleet.stop(guest.values())

    nothing_is_lost(fleet, {"local": ways["local"]}, happens)
    fleet.delete([("Network", "side")])


def connected_since(fleet: Fleet, position: int) -> bool:
    """Whether both hosts' OpenFlow stands again, by what the controller logged from there on."""
    said = fleet.controller.log.read_bytes()[position:].decode(errors="replace")
    return all(f"{host}: has " in said for host in fleet.hosts)


def test_the_openflow_connections_are_closed(fleet: Fleet, ways: Ways) -> None:
    def happens() -> None:
        position = fleet.controller.log.stat().st_size
        with nothing_sent(fleet):  # a monitor of ours would be cut off as well
            for host in fleet.hosts.values():
                host.appctl("bridge/reconnect", "br-int")
            eventually("they are connected again", lambda: connected_since(fleet, position))
            fleet.settle()

    nothing_is_lost(fleet, ways, happens)


def test_the_openflow_connections_are_cut_without_a_word(fleet: Fleet, ways: Ways) -> None:
    """Their cables to the controller are pulled, at the far end: neither side hears that the other is gone. One
    of the hosts' interfaces that goes down would cost frames by itself, as one that appears does.
    """

    def cables(state: str) -> None:
        netns.ip_batch([f"link set {name}m {state}" for name in fleet.hosts], net_namespace(fleet.lab.name))

    def happens() -> None:
        position = fleet.controller.log.stat().st_size
        with nothing_told(fleet):
            cables("nomaster")
            try:
                eventually("both are seen to be away", lambda: all(
                    fleet.get("Host", name)["status"]["openflow"]["state"] == "down" for name in fleet.hosts
                ), 60.0)  # fmt: skip
            finally:
                cables("master mgmt")
            eventually("they are connected again", lambda: connected_since(fleet, position), 60.0)
            fleet.settle()

    nothing_is_lost(fleet, ways, happens)


def test_a_version_with_other_flows_takes_over_and_goes_again(fleet: Fleet, ways: Ways) -> None:
    before = {name: set(installed(host)) for name, host in fleet.hosts.items()}
    newer = set()

    def happens() -> None:
        fleet.controller.stop(signal.SIGKILL)
        fleet.controller.start(program=NEWER)
        fleet.settle()
        newer.update(installed(fleet.hosts["h1"]))
        fleet.controller.stop()
        fleet.controller.start()
        fleet.settle()

    nothing_is_lost(fleet, ways, happens)
    assert len(newer - before["h1"]) > 10 * CROWD
    assert {name: set(installed(host)) for name, host in fleet.hosts.items()} == before


def flows(host: Host) -> list[str]:
    """All that the switch has, without what it counts."""
    lines = host.ofctl("dump-flows", "br-int").splitlines()
    return sorted(re.sub(r" (duration|n_packets|n_bytes|idle_age|hard_age)=[^,]*,", "", line) for line in lines)


def test_a_switch_that_was_killed_forwards_within_a_second_of_its_return(
    fleet: Fleet, crowd: dict[str, LightGuest], ways: Ways
) -> None:
    """For every guest, within the host and over the tunnels. Its return is when `ovs-vswitchd --detach` has: the ports
    are in place, and it is about to connect."""
    host = fleet.hosts["h1"]
    before = flows(host)
    found: list[float] = []
    tunnels = {name: ways[name] for name in ("out", "in")}
    while len(found) < TRIES and min(found, default=SOON) >= SOON:
        with RollCall([guest for guest in crowd.values() if guest.host is host]) as roll, Streaming(tunnels) as streams:
            roll.complete_after(time.monotonic(), PATIENCE)
            host.kill("ovs-vswitchd")
            host.start("ovs-vswitchd")
            back = time.monotonic()
            netns.ip_batch([f"addr replace {host.tunnel_ip}/24 dev br-phy", "link set br-phy up"], host.netns)
            everybody = roll.complete_after(back, PATIENCE)
            eventually("flows are back", lambda: flows(host) == before)
            for sender, receiver in ways.values():
                wait_ping(sender, receiver.nics[0].addresses[0].split("/")[0])
        print(f"all {CROWD} after {everybody:.3f} s; {streams}")
        assert all(report.missing for report in streams.reports.values())
        found.append(max(everybody, *(report.back_after(back) for report in streams.reports.values())))
    print(f"frames pass {', '.join(f'{seconds:.3f}' for seconds in found)} s after the return")
    assert min(found) < SOON
