"""scripts/bench packet-in on a few played switches, and how forward counts."""

from __future__ import annotations

import pytest
from benchkit.__main__ import main
from benchkit.forwarding import used

SMALL = ["--switches", "3", "--beside", "os-ken", "--hosts", "16", "--seconds", "0.2", "--rounds", "1"]


def test_every_packet_figure_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["packet-in", *SMALL]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("transport", "unknown"))]
    told = ("answers of a second of CPU", "one by one", "one floods", "packets sent on", "CPU of a packet")
    assert all(any(what in line for line in lines) for what in told)


def test_flows_of_the_datapath_that_one_frame_made_do_not_count() -> None:
    flow = "recirc_id(0),in_port(9),eth_type(0x0800),ipv4(frag=no), packets:{}, bytes:0, used:0.1s, actions:10"
    dump = ["flow-dump from the main thread:", flow.format(0), flow.format(3), flow.format(10)]
    assert used("\n".join(dump)) == 2
