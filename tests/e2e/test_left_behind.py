"""What libvirt writes beside a vNIC, and what a host that lost its power leaves: neutralised, kept out, cleaned."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from e2e_fleet import PATIENCE, Fleet, eventually
from labkit import Nic, wait_for
from labkit.host import Host

pytestmark = pytest.mark.lab
HOSTS = 1

STALE = "11111111-1111-1111-1111-111111111111"


def port_column(fleet: Fleet, port: str, column: str) -> str:
    return fleet.hosts["h1"].vsctl("--if-exists", "get", "Port", port, column).strip()


def test_a_row_without_a_device_or_a_running_guest_is_kept_out_and_removed(fleet: Fleet) -> None:
    fleet.apply("kind: Network\nname: app\nmode: isolated\n")
    ids = [f"external_ids:vm-id={STALE}", "external_ids:attached-mac=52:54:00:00:00:07", "external_ids:iface-id=x",
           "external_ids:port-profile=app:default"]  # fmt: skip
    fleet.hosts["h1"].vsctl(
        "--no-wait", "add-port", "br-int", "vnet7", "tag=77", "--", "set", "Interface", "vnet7", *ids
    )  # fmt: skip

    def status() -> dict[str, object]:
        return dict(fleet.port_of("52:54:00:00:00:07").get("status", {}))

    wait_for("it is quarantined", lambda: status().get("state") == "quarantined", PATIENCE, every=0.1)
    assert status()["tap"] == "vnet7"
    assert "runs no such vNIC" in str(status()["reason"])
    bridge = fleet.hosts["h1"]
    wait_for(
        "its row is removed",
        lambda: "vnet7" not in bridge.vsctl("list-ports", "br-int").split(),
        2 * PATIENCE,
        every=0.3,
    )
    wait_for("its Port is gone", lambda: fleet.port_of("52:54:00:00:00:07") == {}, PATIENCE, every=0.1)


def test_a_row_of_a_running_guest_loses_tag_queues_and_policing_and_is_marked_transient(fleet: Fleet) -> None:
    fleet.apply("kind: Network\nname: app\nmode: isolated\n")
    host = fleet.hosts["h1"]
    guest = fleet.lab.start_guest("h1", "g1", [Nic("app", addresses=("10.1.0.1/24",))])
    [tap] = guest.ports()
    marks = [f"external_ids:vm-id={STALE}", f"external_ids:ifname={tap}"]
    host.vsctl(
        "set", "Port", tap, "tag=77", "qos=@q", "--", "set", "Interface", tap, "ingress_policing_rate=100", "--",
        "--id=@q", "create", "QoS", "type=linux-htb", "queues:0=@u", *marks, "--", "--id=@u", "create", "Queue", *marks,
    )  # fmt: skip

    def clean() -> bool:
        rate = host.vsctl("get", "Interface", tap, "ingress_policing_rate").strip()
        rows = (
            json.loads(host.vsctl("-f", "json", "list", "QoS"))["data"]
            + json.loads(host.vsctl("-f", "json", "list", "Queue"))["data"]
        )
        return (port_column(fleet, tap, "tag"), port_column(fleet, tap, "qos"), rate, rows) == ("[]", "[]", "0", [])

    wait_for("all of it is gone", clean, PATIENCE, every=0.1)
    assert 'transient="true"' in port_column(fleet, tap, "other_config")
    assert fleet.port_of(guest.nics[0].mac)["status"]["state"] == "active"


def test_what_carries_no_guests_identity_is_left_alone(fleet: Fleet) -> None:
    host = fleet.hosts["h1"]
    host.vsctl(
        "--no-wait", "add-port", "br-int", "by-hand", "tag=5", "--", "set", "Interface", "by-hand", "type=internal"
    )
    wait_for("it is shown", lambda: fleet.get("Host", "h1")["status"]["strays"] == ["by-hand"], PATIENCE, every=0.1)
    fleet.settle()
    assert port_column(fleet, "by-hand", "tag") == "5"
    sends(host, "by-hand")
    wait_for("what it sends is counted", lambda: kept_out(fleet, "by-hand") > 0, 20.0, every=0.2)
    host.vsctl("del-port", "br-int", "by-hand")


def test_a_second_interface_that_says_it_is_a_vnic_is_kept_out_and_counted(fleet: Fleet) -> None:
    fleet.apply("kind: Network\nname: app\nmode: isolated\n")
    host, guest = fleet.hosts["h1"], fleet.lab.start_guest("h1", "g2", [Nic("app", addresses=("10.1.0.2/24",))])
    [tap], mac = guest.ports(), guest.nics[0].mac
    fleet.wait_active([mac])
    ids = json.loads(host.vsctl("-f", "json", "--columns=external_ids", "list", "Interface", tap))["data"][0][0][1]
    claims = [f'external_ids:{key}="{value}"' for key, value in ids]
    host.vsctl(
        "--no-wait", "add-port", "br-int", "second", "--", "set", "Interface", "second", "type=internal", *claims
    )
    wait_for("it is named", lambda: fleet.port_of(mac)["status"].get("rivals"), 10.0, every=0.1)
    assert [each["tap"] for each in fleet.port_of(mac)["status"]["rivals"]] == ["second"]
    assert fleet.port_of(mac)["status"]["state"] == "active"
    sends(host, "second")
    wait_for("what it sends is counted", lambda: kept_out(fleet, "second") > 0, 20.0, every=0.2)
    host.vsctl("del-port", "br-int", "second")
    wait_for("it is forgotten", lambda: not fleet.port_of(mac)["status"].get("rivals"), 10.0, every=0.1)


def sends(host: Host, interface: str) -> None:
    """Questions about a neighbour, by ARP."""
    for words in ("addr add 10.77.0.1/24 dev", "link set up dev"):
        host.run(["ip", *words.split(), interface])
    host.run(["ping", "-c3", "-i0.2", "-W1", "10.77.0.2"], check=False)


def kept_out(fleet: Fleet, interface: str) -> int:
    """Packets of the interface that its own flow has dropped."""
    flows = fleet.client.get("/hosts/h1/flows", app="quarantine")["items"]
    return sum(flow["packets"] for flow in flows if flow["why"].startswith(f"{interface} "))


def test_what_a_vnic_sends_that_is_kept_out_is_dropped_and_counted(fleet: Fleet) -> None:
    fleet.apply("kind: Network\nname: app\nmode: isolated\n")
    stranger = fleet.lab.start_light("h1", "stranger", [Nic("app", addresses=("10.1.0.66/24",))])
    [nic] = stranger.nics
    eventually("it is kept out", lambda: fleet.port_of(nic.mac).get("status", {}).get("state") == "quarantined")
    fleet.settle()

    def dropping() -> Mapping[str, Any]:
        [flow] = [f for f in fleet.client.get("/hosts/h1/flows", app="quarantine")["items"] if nic.mac in f["why"]]
        return flow

    before = dropping()
    assert before["actions"] == "drop"
    assert stranger.run("ping -c3 -i0.2 -W1 10.1.0.1")[0] != 0
    # Open vSwitch brings its counters up to date about twice a second.
    eventually("what it sent is counted", lambda: dropping()["packets"] > before["packets"])
    stranger.stop()
