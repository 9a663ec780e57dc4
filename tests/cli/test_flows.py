"""flows with rates and states, as ovs-ofctl takes them, and explain, through the real server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

from controller.api.inspection import Cause, Explanation, GroupInfo, MeterInfo, Placement
from tests.api.fake_fleet import Served, flow
from tests.cli.conftest import Run

OWN = "0xf5000000000000ab"


def test_rates_stand_beside_the_counters(run: Run, served: Served) -> None:
    served.fleet.flow_rows["kvm01"] = [flow(packets=5)]
    served.fleet.later["kvm01"] = [flow(packets=5)]
    assert " n_packets=5, n_bytes=490, 0.0/s, 0 B/s, priority=200" in run("flows", "kvm01", "--rate", "0.1").stdout


def test_what_should_not_be_there_and_what_should(run: Run, served: Served) -> None:
    served.fleet.flow_rows["kvm01"] = [
        flow(state="extra", app="", source="", why=""), flow(state="missing", note="the switch refuses it: bad match"),
    ]  # fmt: skip
    assert run("flows", "kvm01", "--extra").stdout.endswith("# left over: no row wants it any more\n")
    missing = run("flows", "kvm01", "--missing").stdout
    assert missing.endswith("# edge: Network web: from a vNIC: MISSING: the switch refuses it: bad match\n")
    assert [asked.state for asked in served.fleet.asked] == ["extra", "missing"]
    assert run("flows", "kvm01", "--extra", "--missing").exit_code == 2
    served.fleet.flow_rows["kvm01"] = []
    assert run("flows", "kvm01", "--missing").stderr == "every flow that is wanted is there\n"
    assert run("flows", "kvm01", "--extra").stderr == "there is no flow that no row wants\n"


def test_raw_is_what_ovs_ofctl_takes_and_nothing_else(run: Run, served: Served) -> None:
    served.fleet.flow_rows["kvm01"] = [flow(raw="cookie=0x1,table=0 actions=drop"), flow(raw="table=1 actions=drop")]
    assert run("flows", "kvm01", "--raw").stdout == "cookie=0x1,table=0 actions=drop\ntable=1 actions=drop\n"
    assert all(asked.raw for asked in served.fleet.asked)


def test_watching_shows_what_meets_packets_until_it_is_ended(served: Served) -> None:
    served.fleet.flow_rows["kvm01"] = [flow(packets=5), flow("forward", packets=7)]
    served.fleet.later["kvm01"] = [flow(packets=9), flow("forward", packets=7)]
    command = [sys.executable, "-m", "controller.cli", "--api", f"unix:{served.socket}"]
    with subprocess.Popen([*command, "flows", "kvm01", "--watch", "0.1"], stdout=subprocess.PIPE, text=True,
                          env={**os.environ, "PYTHONUNBUFFERED": "1"}) as watching:  # fmt: skip
        assert watching.stdout is not None
        shown = [watching.stdout.readline(), watching.stdout.readline()]
        watching.send_signal(signal.SIGINT)
        rest = watching.stdout.read()
    assert shown[0] == "table=classify, 1 flow\n"
    assert " n_packets=9, " in shown[1]
    assert "forward" not in rest


def test_a_cookie_is_explained(run: Run, served: Served) -> None:
    cause = Cause("l2", "L2: a frame reaches", "for each vNIC", "Port", "web1", "Port web1", "it is here", ["kvm01"])
    places = [Placement("kvm01", True, True, 1, 7, 700, ""), Placement("kvm02", False, None, 0, 0, 0, "is down")]
    served.fleet.explanations[int(OWN, 0)] = Explanation(
        OWN, "fleetswitch", ["It takes packets.", "It drops them."], [cause], places,
        [flow(cookie=OWN, raw="table=0 actions=drop")],
    )  # fmt: skip
    result = run("explain", OWN)
    assert result.stdout == (
        f"{OWN}, fleetswitch\n"
        "  It takes packets.\n"
        "  It drops them.\n"
        "\n"
        "because of Port web1: it is here\n"
        "  app l2: L2: a frame reaches\n"
        "  computed for each vNIC: kvm01\n"
        "\n"
        "HOST   WANTED  INSTALLED  FLOWS  PACKETS  BYTES  NOTE\n"
        "kvm01  yes     yes        1      7        700    -\n"
        "kvm02  no      -          0      0        0      is down\n"
        "\n"
        "table=classify, priority=200,in_port=3 actions=goto_table:spoof_guard\n"
        "  table=0 actions=drop\n"
    )
    assert json.loads(run("explain", OWN, "-o", "json").stdout)["causes"][0]["name"] == "web1"
    assert run("explain", "0x1").exit_code == 1


def test_groups_and_meters(run: Run, served: Served) -> None:
    served.fleet.group_rows = [GroupInfo(1, "all", ["bucket=actions=output:1"], 2, 3, 0, 1.5, "group_id=1,type=all")]
    served.fleet.meter_rows = [MeterInfo(4, "kbps", [1000], [0], 2, 3, 1, 0, 1.5, "meter=4,kbps")]
    assert run("flows", "kvm01", "--groups").stdout == (
        "GROUP_ID  TYPE  USERS  PACKETS  BYTES  BUCKETS\n"
        "1         all   0      2        3      bucket=actions=output:1\n"
    )
    assert run("flows", "kvm01", "--groups", "--raw").stdout == "group_id=1,type=all\n"
    assert run("flows", "kvm01", "--meters").stdout.splitlines()[1].split() == [
        "4", "kbps", "1000", "0", "0", "2", "3", "1",
    ]  # fmt: skip


def test_the_graph_of_a_hosts_tables(run: Run) -> None:
    assert run("flows", "kvm01", "--graph").stdout == (
        "NUMBER  NAME      FLOWS  PACKETS  DROPPED  SENT  ONWARD\n"
        "0       classify  1      7        2        5     vNICs 5\n"
    )
    assert json.loads(run("flows", "kvm01", "--graph", "-o", "json").stdout)["arrows"][0]["packets"] == 7
    picture = run("flows", "kvm01", "--graph", "-o", "svg").stdout
    assert picture.startswith("<?xml")
    assert "Tables of kvm01" in picture
    assert run("flows", "kvm01", "-o", "svg").exit_code == 2
