"""What an operator sees of a small fleet, from the first guest over a fault to its end; by the command line alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from e2e_fleet import Fleet, eventually, wait_ping
from labkit import LightGuest, Nic

pytestmark = pytest.mark.lab
LIBVIRT = False
LAB = "op"

NETWORKS = "{kind: Network, name: app, mode: isolated}\n---\n{kind: Network, name: db, mode: isolated}\n"


class Said:
    """What one call of the command line gave."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr

    @property
    def value(self) -> Any:
        return json.loads(self.out)


def fleetswitch(fleet: Fleet, *words: str, stdin: str = "") -> Said:
    argv = [sys.executable, "-m", "controller.cli", "--api", fleet.controller.api, *words]
    root = Path(__file__).parent.parent.parent
    return Said(subprocess.run(argv, input=stdin, capture_output=True, text=True, cwd=root, timeout=60, check=False))


def events(fleet: Fleet, *words: str) -> list[str]:
    return [event["event"] for event in fleetswitch(fleet, "events", "-o", "json", *words).value]


@pytest.fixture(scope="module")
def pair(fleet: Fleet) -> tuple[LightGuest, LightGuest]:
    fleet.apply(NETWORKS)
    one, two = (Nic("app", addresses=(f"10.1.0.{number}/24",)) for number in (1, 2))
    guests = fleet.lights({"one": ("h1", [one]), "two": ("h2", [two])})
    wait_ping(guests["one"], "10.1.0.2")
    return guests["one"], guests["two"]


def test_who_is_where_and_who_is_busy(fleet: Fleet, pair: tuple[LightGuest, LightGuest]) -> None:
    found = fleetswitch(fleet, "fdb", "app", "-o", "json").value
    assert {(entry["mac"], entry["host"]) for entry in found["entries"]} == {
        (guest.nics[0].mac, host) for guest, host in zip(pair, ("h1", "h2"), strict=True)
    }
    assert found["unread"] == []
    noisy = subprocess.Popen(["ip", "netns", "exec", pair[0].netns, "ping", "-q", "-i", "0.01", "10.1.0.2"],
                             stdout=subprocess.DEVNULL)  # fmt: skip
    try:
        top = fleetswitch(fleet, "top", "--once", "-o", "json").value
    finally:
        noisy.terminate()
        noisy.wait(10)
    rates = {rate["mac"]: rate for rate in top}
    assert all(rates[guest.nics[0].mac]["sent_packets"] > 5 for guest in pair)


def test_what_happened_is_told_and_known_after_a_restart(fleet: Fleet, pair: tuple[LightGuest, LightGuest]) -> None:
    assert "created" in events(fleet, "--kind", "network", "--name", "app")
    found = fleetswitch(fleet, "events", "--kind", "network", "--name", "app", "-o", "json").value
    assert found[0]["message"] == "created through the unix socket"
    assert events(fleet, "--kind", "port", "--event", "active", "--host", "h1")
    fleet.controller.stop()
    fleet.controller.start()
    fleet.settle()
    words = events(fleet)
    assert words.count("started") == 2
    assert words.index("active") < words.index("stopped") < len(words) - 1 - words[::-1].index("started")


def test_doctor_finds_nothing_then_the_fault_then_nothing(fleet: Fleet, pair: tuple[LightGuest, LightGuest]) -> None:
    well = fleetswitch(fleet, "doctor")
    assert (well.code, "nothing is wrong" in well.err) == (0, True), well.out + well.err
    fleet.hosts["h1"].ofctl("del-flows", "br-int")
    eventually("the drift is told", lambda: "drift" in events(fleet, "--host", "h1"))
    assert any(finding["check"] == "drift" for finding in fleetswitch(fleet, "doctor", "h1", "-o", "json").value)
    assert fleetswitch(fleet, "doctor", "h2").code == 0
    about = fleetswitch(fleet, "describe", "host", "h1").out
    assert "drift" in about
    assert pair[0].nics[0].mac in about


def test_of_two_who_change_one_object_one_is_told_to_read_again(fleet: Fleet) -> None:
    by_file = fleetswitch(fleet, "get", "network", "db", "-o", "yaml").out
    by_rest = fleet.get("Network", "db")
    fleet.client.post("/apply", {**by_rest, "mtu": 1300})
    late = fleetswitch(
        fleet, "apply", "-f", "-", stdin=by_file.replace("mode: isolated", "mode: isolated\nmtu: 1200", 1)
    )
    assert late.code == 1
    assert "read again" in late.err, late.err
    assert fleet.get("Network", "db")["mtu"] == 1300
    again = fleetswitch(fleet, "get", "network", "db", "-o", "yaml").out.replace("mtu: 1300", "mtu: 1200", 1)
    assert fleetswitch(fleet, "apply", "-f", "-", stdin=again).code == 0
    assert fleet.get("Network", "db")["mtu"] == 1200


def test_a_host_is_taken_out_and_in_again(fleet: Fleet, pair: tuple[LightGuest, LightGuest]) -> None:
    refused = fleetswitch(fleet, "host", "remove", "h2")
    assert (refused.code, "--force" in refused.err) == (1, True)
    spec = fleet.get("Host", "h2")
    assert fleetswitch(fleet, "host", "remove", "h2", "--force", "--wait", "30").code == 0
    eventually("its row is gone", lambda: "h2" not in {host["name"] for host in fleet.list("Host")})
    assert events(fleet, "--kind", "host", "--name", "h2")[-2:] == ["deleting", "deleted"]
    added = fleetswitch(fleet, "host", "add", "h2", "--ovsdb", spec["ovsdb"], "--tunnel-ip", spec["tunnel_ip"],
                        "--datapath-type", spec["datapath_type"], "--wait", "30")  # fmt: skip
    assert added.code == 0, added.out + added.err
    assert "ovs-vsctl set-manager p" in added.out
    wait_ping(pair[0], "10.1.0.2")
