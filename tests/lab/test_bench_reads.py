"""The reads of scripts/bench are answered by a real controller, in a small fleet."""

from __future__ import annotations

import re

import pytest
from labkit.bench_reads import main, reads


def test_every_read_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--hosts", "5", "--guests", "12", "--rounds", "2"]) == 0
    out = capsys.readouterr().out
    lines = re.findall(r"^/\S+ +\d+ KiB +\d+ ms +\d+ ms +\d+ ms$", out, re.MULTILINE)
    assert len(lines) == len(reads(5, 12))
    assert re.search(r"^memory of the controller: \d+ MiB empty, \d+ MiB filled", out, re.MULTILINE)
    assert re.search(
        rf"^beyond their limit: 0 of {len(lines)} reads by their median, \d+ at least once$", out, re.MULTILINE
    )
