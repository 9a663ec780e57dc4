"""The reads of scripts/bench are answered by a real controller, in a small fleet."""

from __future__ import annotations

import re

import pytest
from labkit.bench_reads import main, reads


@pytest.mark.alone
def test_every_read_is_measured_and_judged(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--hosts", "5", "--guests", "12", "--rounds", "2"]
    assert main([*small, "--slack", "20"]) == 0
    out = capsys.readouterr().out
    lines = re.findall(r"^/\S+ +\d+ KiB +\d+ ms +\d+ ms +\d+ ms$", out, re.MULTILINE)
    assert len(lines) == len(reads(5, 12))
    assert re.search(
        r"^memory of the controller: \d+ MiB empty, \d+ MiB filled, .* \d+ MiB at most$", out, re.MULTILINE
    )
    assert re.search(rf"^beyond their limit: 0 of {len(lines)} reads, not the memory", out, re.MULTILINE)
    sizes = {line.split()[0]: int(line.split()[1]) for line in lines}
    assert sizes["/networks/lan/fdb"] >= 10, "what the switches have learned is among it"


def test_one_slow_answer_is_enough(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--hosts", "2", "--guests", "2", "--rounds", "2", "--slack", "0.0001"]) == 1
    assert "beyond their limit: 0 of" not in capsys.readouterr().out
