"""scripts/bench memory and fleet, with a small fleet of which every connection is real."""

from __future__ import annotations

import pytest
from benchkit.__main__ import main

SMALL = ["--hosts", "4", "--guests", "8", "--networks", "2", "--judge"]


@pytest.mark.alone
def test_what_a_small_fleet_weighs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["memory", *SMALL]) == 0
    out = capsys.readouterr().out
    for what in ("controller and store, all connected", "a host's three connections", "threads", "file descriptors"):
        assert what in out
    assert "4 hosts, 8 guests, 2 networks" in out
