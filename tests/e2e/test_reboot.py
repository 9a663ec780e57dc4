"""A host that starts anew gives its ports other numbers: nobody hears another's network meanwhile."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from e2e_fleet import Fleet, eventually, installed
from e2e_frames import ears, inside, marked
from labkit import Capture, Frame, LightGuest, Nic, send
from labkit.host import Host
from labkit.run import run

pytestmark = pytest.mark.lab
HOSTS, LIBVIRT, LAB = 1, False, "r"

LAN = """
kind: Network
name: lan
mode: bridge
physical_network: physnet1
portgroups: {ten: {vlan: 10}, twenty: {vlan: 20}}
"""
VLANS = {"a": 10, "b": 20}
SENDERS = {10: "02:00:00:00:00:10", 20: "02:00:00:00:00:20"}  # outside, one in each VLAN


@pytest.fixture(scope="module")
def door(fleet: Fleet) -> Path:
    """The way by which the controller, and only the controller, comes to h1's OVSDB: a link that can be taken away."""
    host = fleet.hosts["h1"]
    link = host.dir / "door.sock"
    link.symlink_to(host.rundir / "db.sock")
    fleet.apply(yaml.safe_dump({**fleet.host_document("h1"), "ovsdb": f"unix:{link}"}))
    return link


@pytest.fixture(scope="module")
def guests(fleet: Fleet, door: Path) -> dict[str, LightGuest]:
    fleet.apply(LAN)
    return fleet.lights({
        name: ("h1", [Nic("lan", group, addresses=(f"10.0.10.{n}/24",))])
        for n, (name, group) in enumerate((("a", "ten"), ("b", "twenty")), start=1)
    })  # fmt: skip


def ofports(host: Host, guests: dict[str, LightGuest]) -> dict[str, str]:
    return {name: host.vsctl("get", "Interface", guest.ports()[0], "ofport") for name, guest in guests.items()}


def swap_numbers(host: Host, guests: dict[str, LightGuest]) -> None:
    """In the file that Open vSwitch starts from: it keeps a port's number where it can."""
    before = ofports(host, guests)
    host.kill("ovs-vswitchd")
    host.kill("ovsdb-server")
    names = list(guests)
    updates = [
        {"op": "update", "table": "Interface", "where": [["name", "==", guests[name].ports()[0]]],
         "row": {"ofport": int(before[other])}}
        for name, other in zip(names, reversed(names), strict=True)
    ]  # fmt: skip
    run(["ovsdb-tool", "transact", str(host.rundir / "conf.db"), json.dumps(["Open_vSwitch", *updates])])


@contextmanager
def both_vlans_talk(fleet: Fleet, guests: dict[str, LightGuest]) -> Iterator[dict[str, Capture]]:
    """Outside, somebody broadcasts in each VLAN while the block runs; what each guest hears of both."""
    ended = threading.Event()
    frames = {vlan: marked(mac)(b"reboot..........") for vlan, mac in SENDERS.items()}

    def talk() -> None:
        while not ended.wait(0.01):
            for vlan, frame in frames.items():
                send(fleet.lab.outside_vlan(vlan), f"vlan{vlan}", frame)

    thread = threading.Thread(target=talk, name="outside")
    with ears({name: inside(guest) for name, guest in guests.items()}, is_ours) as heard:
        thread.start()
        try:
            yield heard
        finally:
            ended.set()
            thread.join()


def is_ours(frame: Frame) -> bool:
    return frame.src in SENDERS.values()


def test_nobody_hears_anothers_network_while_the_new_numbers_are_not_known(
    fleet: Fleet, guests: dict[str, LightGuest], door: Path
) -> None:
    host = fleet.hosts["h1"]
    before = ofports(host, guests)
    with both_vlans_talk(fleet, guests) as heard:
        for name, vlan in VLANS.items():
            heard[name].wait(lambda frame, vlan=vlan: frame.src == SENDERS[vlan])
        swap_numbers(host, guests)
        door.unlink()
        host.start("ovsdb-server")
        host.start("ovs-vswitchd")
        assert ofports(host, guests) == dict(zip(before, reversed(before.values()), strict=True))
        eventually("OpenFlow says what it waits for", lambda: (
            "OVSDB" in fleet.get("Host", "h1")["status"]["openflow"]["reason"]
        ))  # fmt: skip
        quiet = {name: len(heard[name].frames) for name in guests}
        assert not installed(host)
        door.symlink_to(host.rundir / "db.sock")
        fleet.settle()
        for name, vlan in VLANS.items():
            eventually("it hears its own again", lambda name=name, vlan=vlan: any(
                frame.src == SENDERS[vlan] for frame in heard[name].frames[quiet[name]:]
            ))  # fmt: skip
    for name, vlan in VLANS.items():
        assert {frame.src for frame in heard[name].frames} == {SENDERS[vlan]}


def test_the_controller_restarts_while_the_hosts_ovsdb_cannot_be_asked(
    fleet: Fleet, guests: dict[str, LightGuest], door: Path
) -> None:
    """The switch has kept its flows, so its ports have their numbers: what is missing is brought at once."""
    host = fleet.hosts["h1"]
    before = set(installed(host))
    fleet.controller.stop()
    door.unlink()
    [lost, *_] = [cookie for table, cookie in before if not table]
    host.ofctl("del-flows", "br-int", f"cookie={lost:#x}/-1")
    fleet.controller.start()
    eventually("the flow is back", lambda: set(installed(host)) == before)
    assert fleet.get("Host", "h1")["status"]["ovsdb"]["state"] == "down"
    door.symlink_to(host.rundir / "db.sock")
    eventually("OVSDB is up", lambda: fleet.get("Host", "h1")["status"]["ovsdb"]["state"] == "up")
    fleet.settle()
