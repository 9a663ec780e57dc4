"""The reads and writes of scripts/bench are answered by a real controller, in a small fleet."""

from __future__ import annotations

import pytest
from benchkit.__main__ import main
from benchkit.reads import reads


@pytest.mark.alone
def test_every_read_is_measured_and_judged(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["reads", "--hosts", "5", "--guests", "12", "--rounds", "2"]
    assert main([*small, "--slack", "20", "--judge"]) == 0
    out = capsys.readouterr().out
    assert sum(line.startswith("/") and line.endswith("  ok") for line in out.splitlines()) == len(reads(5, 12))
    for when in ("empty", "filled", "after all reads", "after all of them again", "at most", "more by the second time"):
        assert f"memory, {when}" in out


def test_one_slow_answer_is_enough(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["reads", "--hosts", "2", "--guests", "2", "--rounds", "2"]
    assert main([*small, "--slack", "0.0001", "--judge"]) == 1
    assert "missed: /hosts" in capsys.readouterr().err


@pytest.mark.alone
def test_reads_and_writes_are_measured_while_guests_move(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["api", "--hosts", "4", "--guests", "8", "--flows", "1500", "--seconds", "0.1"]
    assert main(small) == 0
    lines = capsys.readouterr().out.splitlines()
    kinds = (
        "health",
        "list of hosts",
        "one port",
        "topology",
        "a host's 1,500 flows",
        "a network changes",
        "a port changes",
    )
    for kind in kinds:
        for what in ("a second", "median", "p99", "CPU, nobody moves"):
            assert any(line.startswith(f"{kind}: {what}") and "a constant" in line for line in lines)
