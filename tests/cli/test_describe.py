"""describe: one object with all that belongs to it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
from click.testing import Result

from controller.api.operations import Finding
from tests.api.fake_fleet import Served, observed_port

Run = Callable[..., Result]

FLEET = """\
{kind: Host, name: kvm01, ovsdb: "tcp:192.0.2.1:6640", tunnel_ip: 192.0.2.1}
---
{kind: Network, name: web, mode: isolated}
---
{kind: Network, name: shop, mode: nat, subnets: [10.0.0.0/24]}
---
{kind: PortForward, name: door, network: shop, listen: {port: 8080}, target: {vm: web1, port: 80}}
---
{kind: BgpPeer, name: tor, address: 203.0.113.1, remote_as: 64512, local_as: 64513}
"""


@pytest.fixture(autouse=True)
def _fleet(run: Run, served: Served) -> None:
    assert run("apply", "-f", "-", stdin=FLEET).exit_code == 0
    for mac, about in (("52:54:00:00:00:0a", {}), ("52:54:00:00:00:0b", {"state": "quarantined", "reason": "no MAC"})):
        document = observed_port("web1\x1b[2J", mac, **about)
        served.fleet.observed[document["name"]] = document
        served.happens("Port", document["name"], about.get("state", "active"), "so it is", host="kvm01", network="web")
    served.happens("Host", "kvm02", "created", "another host", host="kvm02")


def sections(text: str) -> list[str]:
    return [line.partition(" (")[0].rstrip(":") for line in text.splitlines() if line and line[0] != " "]


def test_a_host(run: Run) -> None:
    text = run("describe", "host", "kvm01").stdout
    assert sections(text)[:5] == ["Host kvm01, generation 1", "Wanted", "Observed", "vNICs", "Last events"]
    assert "vNICs (2 of 1 guests; switched by network: web 1):" in text
    assert "  ovsdb:" in text
    assert "another host" not in text
    assert "\x1b" not in text


def test_what_is_wrong_with_a_host(run: Run, served: Served) -> None:
    served.fleet.findings = [
        Finding("error", "uplink", "Host kvm01: ens224", "its link is down", "ip link show ens224", "kvm01"),
        Finding("info", "clock", "Host kvm01", "skew is unknown", "", "kvm01"),
    ]
    text = run("describe", "host", "kvm01").stdout
    assert "What is wrong (1):\n  error    Host kvm01: ens224: its link is down\n           -> ip link" in text
    assert "skew" not in text


def test_a_network(run: Run) -> None:
    text = run("describe", "network", "web").stdout
    assert "vNICs (2; switched by host: kvm01 1):" in text
    assert text.count("so it is") == 2


def test_a_vnic(run: Run, served: Served) -> None:
    name = next(iter(served.fleet.observed))
    text = run("describe", "port", name).stdout
    assert text.startswith(f"Port {name}")
    for title in ("Its network:\n  NAME ", "Its host:\n  NAME ", "Other vNICs of its guest (1):\n  VM "):
        assert title in text
    assert text.count("so it is") == 1


def test_a_forward(run: Run) -> None:
    text = run("describe", "portforward", "door").stdout
    assert sections(text)[:6] == ["PortForward door, generation 1", "Wanted", "Observed", "Its network",
                                  "Its target's host", "Last events"]  # fmt: skip
    assert re.search(r"^  target: +10\.0\.0\.5$", text, re.MULTILINE)


def test_a_bgp_peer(run: Run) -> None:
    text = run("describe", "bgppeer", "tor").stdout
    assert sections(text)[:4] == ["BgpPeer tor, generation 1", "Wanted", "Observed", "Last events"]
    assert re.search(r"^  routes: +10\.20\.0\.0/24 via 203\.0\.113\.11$", text, re.MULTILINE)


def test_as_json(run: Run) -> None:
    found = json.loads(run("describe", "network", "web", "-o", "json").stdout)
    assert found.keys() == {"object", "ports", "events"}
    assert len(found["ports"]) == len(found["events"]) == 2


def test_one_that_is_not_there(run: Run) -> None:
    result = run("describe", "network", "wbe")
    assert (result.exit_code, result.stdout) == (1, "")
