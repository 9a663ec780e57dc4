"""Flows that somebody changes by hand on a host are put right, and what is foreign is left alone."""

from __future__ import annotations

import re

import pytest
from e2e_fleet import PATIENCE, Fleet, pings, wait_ping
from labkit import LightGuest, Nic, wait_for

pytestmark = pytest.mark.lab
LIBVIRT = False

NETWORKS = """
kind: Network
name: lan
mode: bridge
physical_network: physnet1
vlan: 10
---
kind: Network
name: app
mode: isolated
"""


@pytest.fixture(scope="module")
def pair(fleet: Fleet) -> tuple[LightGuest, LightGuest]:
    fleet.apply(NETWORKS)
    one = fleet.lab.start_light("h1", "one", [Nic("app", addresses=("10.1.0.1/24",))])
    two = fleet.lab.start_light("h2", "two", [Nic("app", addresses=("10.1.0.2/24",))])
    wait_ping(one, "10.1.0.2")
    fleet.settle()
    return one, two


def own_flows(fleet: Fleet) -> list[str]:
    lines = fleet.hosts["h1"].ofctl("dump-flows", "br-int", "-OOpenFlow15", "--no-stats").splitlines()
    return sorted(line.strip() for line in lines if "cookie=" not in line or "cookie=0xf6" not in line)


@pytest.mark.parametrize(
    "command",
    [
        ("del-flows", "br-int"),
        ("del-flows", "br-int", "table=0"),
        ("mod-flows", "br-int", "-OOpenFlow15", "table=6,actions=drop"),
        ("add-flow", "br-int", "-OOpenFlow15", "table=0,priority=0,actions=NORMAL"),
        ("add-flow", "br-int", "-OOpenFlow15", "cookie=0xf500000000000001,table=0,priority=999,actions=drop"),
    ],
    ids=["all deleted", "a table deleted", "actions changed", "replaced by NORMAL", "forged as ours"],
)
def test_what_was_done_to_our_flows_is_undone(
    fleet: Fleet, pair: tuple[LightGuest, LightGuest], command: tuple[str, ...]
) -> None:
    before = own_flows(fleet)
    drifts = fleet.get("Host", "h1")["status"]["drifts"]
    fleet.hosts["h1"].ofctl(command[0], *command[1:])
    wait_for("the flows as they were", lambda: own_flows(fleet) == before, PATIENCE, every=0.05)
    assert pings(pair[0], "10.1.0.2")
    assert fleet.get("Host", "h1")["status"]["drifts"] > drifts


def test_what_was_done_while_the_controller_was_away_is_undone_and_told(
    fleet: Fleet, pair: tuple[LightGuest, LightGuest]
) -> None:
    before = own_flows(fleet)
    fleet.controller.stop()
    fleet.hosts["h1"].ofctl("mod-flows", "br-int", "-OOpenFlow15", "actions=NORMAL")
    changed = [line for line in own_flows(fleet) if "cookie=0xf5" in line and line.endswith("actions=NORMAL")]
    assert len(changed) > 3
    fleet.controller.start()
    wait_for("the flows as they were", lambda: own_flows(fleet) == before, 20.0, every=0.05)
    fleet.settle()
    assert pair[0].run("ping -c1 -W1 10.1.0.2")[0] == 0
    [told] = fleet.client.get("/events", kind="Host", host="h1", event="drift", last=1)["items"]
    assert re.search(r"somebody else changed \d+ flows of its switch", told["message"])
    assert fleet.get("Host", "h1")["status"]["drifts"] == len(changed)
    assert fleet.get("Host", "h2")["status"]["drifts"] == 0


def test_a_foreign_flow_is_left_alone_and_shown(fleet: Fleet, pair: tuple[LightGuest, LightGuest]) -> None:
    fleet.hosts["h1"].ofctl("add-flow", "br-int", "cookie=0x77,table=200,priority=7,actions=drop")
    fleet.settle()
    foreign = fleet.client.get("/hosts/h1/flows", owner="foreign")["items"]
    assert [(flow["table"], flow["priority"], flow["cookie"]) for flow in foreign] == [("200", 7, "0x77")]
    fleet.hosts["h1"].ofctl("del-flows", "br-int", "cookie=0x77/-1")
