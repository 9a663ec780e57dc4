"""get, host list, port list and show, flows through the real server."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import yaml
from click.testing import Result

from controller.api.operations import UnknownSwitch
from controller.cli.output import print_details
from controller.errors import HostError
from tests.api.fake_fleet import VM, Served, flow, observed_port

Run = Callable[..., Result]

FLEET = """\
{kind: Host, name: kvm01, ovsdb: "tcp:192.0.2.1:6640", tunnel_ip: 192.0.2.1}
---
{kind: Network, name: web, mode: isolated, portgroups: {quiet: {isolation: isolated}}}
"""


@pytest.fixture(autouse=True)
def _fleet(run: Run, served: Served) -> None:
    assert run("apply", "-f", "-", stdin=FLEET).exit_code == 0
    for vm, mac, about in (
        ("web1", "52:54:00:00:00:0a", {"addresses": ["10.0.0.5", "fd00::5"]}),
        ("evil\x1b[2J", "52:54:00:00:00:0b", {"state": "quarantined", "reason": "no such network", "host": "kvm02"}),
    ):
        document = observed_port(vm, mac, **about)
        served.fleet.observed[document["name"]] = document


def test_host_list(run: Run) -> None:
    assert run("host", "list").stdout == (
        "NAME   OPENFLOW  OVSDB  LIBVIRT  HOOK     TUNNEL_IP  DATAPATH          OVS    FLOWS  PORTS  REASON\n"
        "kvm01  up        up     down     refuses  192.0.2.1  00005254001234aa  3.1.0  42     3      "
        "libvirt: Connection refused; no guest's: vnet9; not understood: host kvm01, domain g: it has no MAC\n"
    )


def test_floating_addresses(run: Run) -> None:
    wanted = """\
{kind: Host, name: kvm01, ovsdb: "unix:/kvm01", uplinks: {phys1: {interface: eth1}},
 external: {uplink: phys1, address: 203.0.113.11/24, gateway: 203.0.113.1}}
---
{kind: Network, name: shop, mode: nat, subnets: [10.0.0.0/24]}
---
{kind: FloatingIP, name: door, network: shop, address: 203.0.113.50, target: {vm: web1}}
"""
    assert run("apply", "-f", "-", stdin=wanted).exit_code == 0
    assert run("get", "floatingips").stdout == (
        "NAME  ADDRESS       NETWORK  TARGET   LEADS_TO  HOST   MAC                REASON\n"
        "door  203.0.113.50  shop     vm web1  10.0.0.5  kvm01  02:f1:00:00:00:05  -\n"
    )
    told = run("describe", "floatingip", "door").stdout
    assert "Its network:\n  NAME " in told
    assert "Its target's host:\n  NAME " in told


def test_forwards(run: Run) -> None:
    forwards = """\
{kind: Network, name: shop, mode: nat, subnets: [10.0.0.0/24, "fd00::/64"]}
---
{kind: PortForward, name: calls, network: shop, listen: {port: 5000-5009, protocol: udp}, target: {address: 10.0.0.5}}
---
{kind: PortForward, name: door, network: shop, listen: {port: 8080}, target: {vm: web1, port: 80}}
---
{kind: PortForward, name: door6, network: shop, listen: {port: 8080, family: ipv6}, target: {vm: web1, port: 80}}
"""
    assert run("apply", "-f", "-", stdin=forwards).exit_code == 0
    assert run("get", "portforwards").stdout == (
        "NAME   NETWORK  LISTEN                         TARGET            LEADS_TO  HOST   ADDRESSES     REASON\n"
        "calls  shop     udp 5000-5009 of every host    address 10.0.0.5  10.0.0.5  kvm01  203.0.113.11  -\n"
        "door   shop     tcp 8080 of every host         vm web1, port 80  10.0.0.5  kvm01  203.0.113.11  -\n"
        "door6  shop     tcp 8080 of every host (IPv6)  vm web1, port 80  10.0.0.5  kvm01  203.0.113.11  -\n"
    )


def test_bgp_peers(run: Run) -> None:
    peer = "{kind: BgpPeer, name: tor, address: 203.0.113.1, remote_as: 64512, local_as: 64513}"
    assert run("apply", "-f", "-", stdin=peer).exit_code == 0
    assert run("get", "bgppeers").stdout == (
        "NAME  ADDRESS      REMOTE_AS  LOCAL_AS  STATE        SINCE                 ANNOUNCED  RECEIVED  REASON\n"
        "tor   203.0.113.1  64512      64513     established  2026-01-01T00:00:00Z  1          9         -\n"
    )


def test_switches_that_were_turned_away(run: Run, served: Served) -> None:
    assert run("host", "list").stderr == ""
    served.fleet.unknown = [
        UnknownSwitch("0000000000000abc", "192.0.2.7", None, "no Host's\x1b[2J", "2026-01-02T03:04:05Z",
                      "2026-01-02T03:05:00Z", 12, "type this"),
        UnknownSwitch(None, "192.0.2.8", "kvm01", "closed by the peer", "2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z",
                      1, ""),
    ]  # fmt: skip
    assert run("host", "unknown").stdout == (
        "DATAPATH          ADDRESS    HOST   SINCE                 LAST                  ATTEMPTS  "
        "REASON              REMEDY\n"
        "0000000000000abc  192.0.2.7  -      2026-01-02T03:04:05Z  2026-01-02T03:05:00Z  12        "
        "no Host's\\x1b[2J    type this\n"
        "-                 192.0.2.8  kvm01  2026-01-02T03:04:05Z  2026-01-02T03:04:05Z  1         "
        "closed by the peer  -\n"
    )
    assert json.loads(run("host", "unknown", "-o", "json").stdout)[0]["attempts"] == 12
    listed = run("host", "list")
    assert "abc" not in listed.stdout
    assert listed.stderr == "1 switch turned away; see: fleetswitch host unknown\n"


def test_networks(run: Run) -> None:
    assert run("get", "Networks").stdout == (
        "NAME  MODE      PHYSICAL  VLAN  MTU   SEGMENTS  PORTGROUPS  HOSTS  PORTS\n"
        "web   isolated  -         -     1450  0=17      quiet       kvm01  0\n"
    )


def test_port_list_filters_and_shows_nothing_that_a_terminal_obeys(run: Run) -> None:
    result = run("port", "list")
    assert "\x1b" not in result.stdout
    head, second, first = result.stdout.splitlines()  # in the order of guests
    names = "VM MAC NETWORK PORTGROUP HOST INTERFACE OFPORT ADDRESSES STATE NAME REASON"
    assert " ".join(head.split()) == names
    assert first.split() == [
        "web1", "52:54:00:00:00:0a", "web", "default", "kvm01", "vnet3", "3", "10.0.0.5,fd00::5", "active",
        f"{VM}.52540000000a", "-"]  # fmt: skip
    assert second.startswith("evil\\x1b[2J  ")
    assert head.index("STATE") == first.index("active") == second.index("quarantined")
    for words in (["--vm", "web1"], ["--host", "kvm01"], ["--state", "active"], ["--vm", VM, "--state", "active"]):
        assert run("port", "list", *words).stdout.count("\n") == 2
    assert run("port", "list", "--network", "none").stdout.count("\n") == 1


def test_port_show(run: Run) -> None:
    result = run("port", "show", f"{VM}.52540000000b")
    assert result.exit_code == 0
    lines = [line.split(":", 1) for line in result.stdout.splitlines()]
    found = {name.strip(): value.strip() for name, value in lines}
    assert found["kind"] == "Port"
    assert found["state"] == "quarantined"
    assert found["reason"] == "no such network"
    assert found["mtu"] == "-"


def test_one_object_in_all_forms(run: Run) -> None:
    as_json = json.loads(run("get", "host", "kvm01", "-o", "json").stdout)
    as_yaml = yaml.safe_load(run("get", "hosts", "kvm01", "-o", "yaml").stdout)
    assert as_json == as_yaml
    assert as_json["status"]["flows"] == 42
    assert "  openflow:" in run("get", "host", "kvm01").stdout


def test_a_list_in_all_forms(run: Run) -> None:
    as_json = json.loads(run("port", "list", "-o", "json").stdout)
    as_yaml = list(yaml.safe_load_all(run("port", "list", "-o", "yaml").stdout))
    assert as_json == as_yaml
    assert len(as_json) == 2


def test_lists_longer_than_a_page_are_complete(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.cli.client._PAGE", 2)
    stream = "---\n".join(f"{{kind: Network, name: n{number}, mode: isolated}}\n" for number in range(6))
    assert run("apply", "-f", "-", stdin=stream).exit_code == 0
    assert len(json.loads(run("get", "networks", "-o", "json").stdout)) == 7


def test_flows_read_like_ovs_ofctl_with_names_and_reasons(run: Run, served: Served) -> None:
    served.fleet.flow_rows["kvm01"] = [
        flow("classify"),
        flow("classify", priority=0, match="", actions="drop", packets=12345, bytes=7, app="", source="", why="miss"),
        flow(
            "forward", owner="learned", app="", source="", why="", match="dl_dst=52:54:00:00:00:0a", actions="output:3"
        ),
        flow("forward", owner="foreign", app="", source="", why="", match="tcp\x1b[2J", actions=""),
    ]
    result = run("flows", "kvm01")
    assert result.stdout == (
        "table=classify, 2 flows\n"
        " n_packets=5,     n_bytes=490, priority=200,in_port=3 actions=goto_table:spoof_guard"
        "  # edge: Network web: from a vNIC\n"
        " n_packets=12345, n_bytes=7,   priority=0 actions=drop                              "
        "  # miss\n"
        "table=forward, 2 flows\n"
        " n_packets=5, n_bytes=490, priority=200,dl_dst=52:54:00:00:00:0a actions=output:3  # learned\n"
        " n_packets=5, n_bytes=490, priority=200,tcp\\x1b[2J actions=drop                    # foreign\n"
    )
    assert run("flows", "kvm01", "--owner", "learned", "--table", "forward").stdout.count("\n") == 2
    assert len(json.loads(run("flows", "kvm01", "--match", "in_port", "-o", "json").stdout)) == 1


def test_many_flows_are_read_from_the_switch_once(run: Run, served: Served) -> None:
    served.fleet.flow_rows["kvm01"] = [flow(priority=number % 1000) for number in range(20_000)]
    result = run("flows", "kvm01")
    assert result.stdout.count("\n") == 20_001


def test_a_host_that_does_not_answer(run: Run, served: Served) -> None:
    served.fleet.failure = HostError(
        "has no OpenFlow connection", where="Host kvm01", remedy="see: fleetswitch host list"
    )
    result = run("flows", "kvm01")
    assert result.exit_code == 1
    assert result.stderr == "error: Host kvm01: has no OpenFlow connection (see: fleetswitch host list)\n"


def test_what_does_not_exist(run: Run) -> None:
    result = run("get", "host", "kvm09")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: Host kvm09: does not exist (there are: kvm01)\n"
    assert run("get", "host", "a/b?c#d").exit_code == 1


def test_host_hook_prints_a_script_for_the_hosts_bridge(run: Run) -> None:
    text = run("host", "hook", "kvm01").stdout
    assert text.startswith("#!/bin/sh\n")
    assert "\nBRIDGE=br-int\nREFUSE=no\n" in text
    other = '{kind: Host, name: kvm02, ovsdb: "tcp:192.0.2.2:6640", bridge: br0}'
    assert run("apply", "-f", "-", stdin=other).exit_code == 0
    assert "\nBRIDGE=br0\nREFUSE=refuse\n" in run("host", "hook", "kvm02", "--refuse").stdout
    missing = run("host", "hook", "kvm09")
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert "kvm09" in missing.stderr


def test_a_list_of_objects_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    hears = [
        {"uplink": "physnet1", "port": "Gi1/0/1", "host": None},
        {"uplink": "san", "port": "1\x1b[2J", "host": None},
    ]
    print_details({"name": "kvm01", "status": {"hears": hears, "strays": [], "none": [{"a": None}]}})
    assert capsys.readouterr().out == (
        "name:   kvm01\n"
        "status:\n"
        "  hears:\n"
        "    UPLINK    PORT\n"
        "    physnet1  Gi1/0/1\n"
        "    san       1\\x1b[2J\n"
        "  strays: -\n"
        "  none:\n"
        "    A\n"
        "    -\n"
    )
