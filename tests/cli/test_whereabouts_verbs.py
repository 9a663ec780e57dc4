"""fdb and top, as tables and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from click.testing import Result

from controller.api.whereabouts import FdbEntry, LeaseInfo, PortCounters, Unread
from tests.api.fake_fleet import Served

Run = Callable[..., Result]
WEB1 = PortCounters(
    "kvm01", "vnet0", 5, "vnic", "p1", "web1", "52:54:00:00:00:01", "web", 1000, 500_000, 10, 1000, 3, 0
)


@pytest.fixture(autouse=True)
def _fleet(run: Run, served: Served) -> None:
    assert run("apply", "-f", "-", stdin="{kind: Network, name: web, mode: isolated}").exit_code == 0
    served.fleet.entries = [
        FdbEntry("52:54:00:00:00:01", 0, "vnic", "kvm01", "vnet0", 5, "web1", ["10.0.0.5"], "active"),
        FdbEntry("02:00:00:00:00:fe", 20, "learned", "kvm01", "phys1", 64001, None, [], "learned", 12.6, 3),
    ]
    served.fleet.unread = [Unread("kvm02", "is not\x1b connected")]
    served.fleet.ports = [
        WEB1, replace(WEB1, host="kvm03", name="p2", vm="busy", sent_bytes=80_000_000, sent_packets=2),
        replace(WEB1, ofport=65001, kind="tunnel", name=None, vm=None, network=None),
    ]  # fmt: skip


def test_who_is_where(run: Run) -> None:
    result = run("fdb", "web")
    assert result.stdout.splitlines() == [
        "VLAN  MAC                KIND     HOST   PORT   OFPORT  VM    ADDRESSES  STATE    AGE",
        "0     52:54:00:00:00:01  vnic     kvm01  vnet0  5       web1  10.0.0.5   active   -",
        "20    02:00:00:00:00:fe  learned  kvm01  phys1  64001   -     -          learned  13s",
    ]
    assert result.stderr == "Host kvm02 is not among them: is not\\x1b connected\n"
    assert json.loads(run("fdb", "web", "-o", "json").stdout)["entries"][1]["packets"] == 3
    assert run("fdb", "wbe").exit_code == 1


def test_who_has_which_address(run: Run, served: Served) -> None:
    served.fleet.leased = [
        LeaseInfo("10.0.0.9", "52:54:00:00:00:01", "web-1", "web1", "kvm01", "leased", "2026-01-01T00:00:00Z"),
        LeaseInfo("10.0.0.10", "52:54:00:00:00:02", "", None, None, "declined", "2026-01-01T00:10:00Z"),
    ]
    assert run("leases", "web").stdout.splitlines() == [
        "ADDRESS    MAC                NAME   VM    HOST   STATE     EXPIRES",
        "10.0.0.9   52:54:00:00:00:01  web-1  web1  kvm01  leased    2026-01-01T00:00:00Z",
        "10.0.0.10  52:54:00:00:00:02  -      -     -      declined  2026-01-01T00:10:00Z",
    ]
    assert json.loads(run("leases", "web", "-o", "json").stdout)[0]["address"] == "10.0.0.9"
    assert run("leases", "wbe").exit_code == 1


def test_the_busiest(run: Run) -> None:
    lines = run("top", "--once", "--every", "0.5").stdout.splitlines()
    assert lines[0].split() == ["VM", "HOST", "INTERFACE", "NETWORK", "SENT_PPS", "SENT_BPS", "RECEIVED_PPS",
                                "RECEIVED_BPS", "DROPS"]  # fmt: skip
    assert [line.split()[:6] for line in lines[1:]] == [
        ["busy", "kvm03", "vnet0", "web", "2", "640M"], ["web1", "kvm01", "vnet0", "web", "1.0k", "4.0M"],
    ]  # fmt: skip


def test_by_packets_of_hosts_and_few_of_them(run: Run) -> None:
    found = json.loads(run("top", "--once", "--every", "0.5", "--by", "packets", "-n", "1", "-o", "json").stdout)
    assert [(each["vm"], each["sent_packets"]) for each in found] == [("web1", 1000.0)]
    lines = run("top", "--once", "--every", "0.5", "--hosts").stdout.splitlines()
    assert [line.split()[:4] for line in lines[1:]] == [["kvm03", "1", "2", "640M"], ["kvm01", "1", "1.0k", "4.0M"]]
