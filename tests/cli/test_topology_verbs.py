"""The verb topology, through the real server."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from dataclasses import replace

import pytest
import yaml
from click.testing import Result

from tests.api.fake_fleet import Served
from tests.graph.graph_fleets import links, two_hosts
from topology.graph.nodes import Heard

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _fleet(served: Served) -> None:
    served.fleet.graph = two_hosts()
    served.fleet.sequence = 12


def columns(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_the_fleet_as_tables(run: Run) -> None:
    result = run("topology")
    assert result.exit_code == 0
    assert (
        result.stdout
        == """\
HOST   STATE  UPLINKS          TUNNEL            GUESTS  VNICS  NETWORKS         REASON
kvm01  up     physnet1=ens224  geneve 192.0.2.1  2       3      backend=1,lan=2  -
kvm02  up     physnet1=ens224  geneve 192.0.2.2  4       4      backend=1,lan=1  -
kvm03  up     -                geneve 192.0.2.3  1       1      backend=1        -

NETWORK  STATE  MODE      OVER      VLANS       MTU   VNICS  HOSTS  MISSING_ON
backend  up     isolated  tunnels   0           1450  3      3      -
lan      up     bridge    physnet1  0,10,20,30  1500  3      2      -
local    up     isolated  nothing   0           1500  0      0      -

NOT_SWITCHED  MAC                HOST   NETWORK  STATE        REASON
bad1          52:54:00:00:00:07  kvm02  lan      quarantined  no such portgroup
tap1          52:54:00:00:00:08  kvm02  -        unmanaged    macvtap
web3          52:54:00:00:00:99  -      lan      absent       -
"""
    )
    assert result.stderr == "as of change 12\n"


def test_what_is_not_there_is_said(run: Run, served: Served) -> None:
    away = links(served.fleet.graph)["kvm01"]
    has = dict(away.interfaces or {}) | {"fs-ext1": "missing", "fs-geneve": "missing"}
    served.fleet.links["kvm01"] = replace(away, interfaces=has, networks={"lan", "local"})
    lines = run("topology").stdout.splitlines()
    assert "kvm01  up     physnet1=ens224  geneve 192.0.2.1 (missing)  2       3      backend=1,lan=2  -" in lines
    assert any(line.split()[:2] == ["backend", "degraded"] and line.endswith("  kvm01") for line in lines)
    assert lines[lines.index("BRIDGE        STATE") + 1] == "kvm01/fs-up1  degraded"


def test_other_forms_come_as_they_are(run: Run) -> None:
    assert json.loads(run("topology", "-o", "json").stdout)["graph"]["sequence"] == 12
    assert yaml.safe_load(run("topology", "-o", "yaml").stdout) == json.loads(run("topology", "-o", "json").stdout)
    assert run("topology", "-o", "dot", "--network", "lan").stdout.startswith('graph "fleetswitch" {')
    assert run("topology", "-o", "graphml").stdout.count("<?xml") == 1
    assert run("topology", "-o", "svg").stdout.rstrip().endswith("</svg>")
    result = run("topology", "-o", "gexf", "--host", "kvm09")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: there is no Host kvm09 (there are: kvm01")


def test_png_is_the_drawing(run: Run) -> None:
    picture = run("topology", "-o", "png").stdout_bytes
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack_from("!II", picture, 16)  # PNG, 11.2.2: IHDR
    drawn = re.search(r'<svg [^>]*viewBox="0 0 ([0-9.]+) ([0-9.]+)"', run("topology", "-o", "svg").stdout)
    assert drawn is not None
    assert (width, height) == (round(2 * float(drawn[1])), round(2 * float(drawn[2])))


def test_png_without_its_tool_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    result = run("topology", "-o", "png")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "librsvg2-bin" in result.stderr


def test_neighbours(run: Run) -> None:
    found = columns(run("topology", "neighbours", "kvm03").stdout)
    assert found[0] == ["RELATION", "KIND", "NAME", "STATE", "ID", "PORT"]
    assert found[1] == ["has", "bridge", "kvm03/br-int", "up", "bridge:kvm03/br-int", "-"]
    assert found[2][:4] == ["runs", "guest", "far1", "running"]


def test_a_switch_that_an_uplink_hears(run: Run, served: Served) -> None:
    heard = Heard("00:1b:21:00:00:01", "Gi1/0/1", "to kvm01", "sw1\x1b[2J", "a switch", 20, 121)
    served.fleet.heard = {"kvm01": {"physnet1": [heard]}}
    found = columns(run("topology", "neighbours", "kvm01/ens224").stdout)
    assert ["hears", "device", "sw1\\x1b[2J", "-", "device:00:1b:21:00:00:01", "Gi1/0/1"] in found


def test_path(run: Run) -> None:
    result = run("topology", "path", "web1", "web2")
    assert result.exit_code == 0
    assert [line[2] for line in columns(result.stdout)[4:8]] == [
        "kvm01/fs-up1", "kvm01/ens224", "physnet1", "kvm02/ens224"]  # fmt: skip
    assert result.stderr.splitlines()[0] == "in lan, VLAN 10"
    apart = run("topology", "path", "web2", "db1")
    assert (apart.exit_code, apart.stdout) == (1, "")
    assert apart.stderr == ("error: path: web2 and db1 share no segment: web2 is in lan (VLAN 10); db1 is in backend "
                            "(untagged) (see where it leads: fleetswitch topology neighbours web2)\n")  # fmt: skip
    as_json = run("topology", "path", "web2", "db1", "-o", "json")
    assert (as_json.exit_code, json.loads(as_json.stdout)["found"]) == (1, False)


def test_shares(run: Run) -> None:
    result = run("topology", "shares", "kvm02")
    assert [line[:3] for line in columns(result.stdout)[1:]] == [
        ["backend", "untagged", "db1"], ["backend", "untagged", "far1"], ["backend", "untagged", "web1"],
        ["lan", "VLAN", "10"], ["lan", "VLAN", "10"]]  # fmt: skip
    assert result.stderr.splitlines()[0] == "in no segment: bad1 52:54:00:00:00:07: no such portgroup"


def test_fails(run: Run) -> None:
    result = run("topology", "fails", "kvm01/ens224")
    assert result.exit_code == 0
    assert (
        result.stdout
        == """\
NETWORK  VLAN     VNICS  STOP  CUT_OFF
lan      VLAN 10  2      0     2
lan      VLAN 20  1      0     1

CUT_OFF  HOST   MAC                NETWORK  VLAN     STILL_REACHES  LOSES_OUTSIDE
web1     kvm01  52:54:00:00:00:01  lan      VLAN 10  0 of 1         yes
web2     kvm02  52:54:00:00:00:04  lan      VLAN 10  0 of 1         no
guest1   kvm01  52:54:00:00:00:03  lan      VLAN 20  0 of 0         yes
"""
    )
    assert run("topology", "fails", "kvm01").stderr.splitlines()[0] == "stops: guest1, web1"


def test_answers_in_yaml(run: Run) -> None:
    assert yaml.safe_load(run("topology", "shares", "web1", "-o", "yaml").stdout)["sequence"] == 12


def test_options_of_the_whole_stand_before_no_question(run: Run) -> None:
    result = run("topology", "--network", "lan", "shares", "web1")
    assert result.exit_code == 2
    assert "options go behind shares" in result.stderr


def test_nothing_that_a_terminal_obeys(run: Run, served: Served) -> None:
    served.fleet.graph.vnic(
        "evil\x1b[2J", 90, "kvm01", "lan", state="quarantined", reason="\x1b[31m", portgroup="office"
    )
    for words in (["topology"], ["topology", "neighbours", "kvm01"], ["topology", "fails", "kvm01"]):
        result = run(*words)
        assert result.exit_code == 0
        assert "\x1b" not in result.stdout + result.stderr
