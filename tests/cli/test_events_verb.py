"""events: a table, JSON, and following over a controller that goes away."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import Result

from tests.api.fake_fleet import Served

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _fleet(served: Served) -> None:
    served.happens("Host", "kvm01", "openflow-down", "openflow is down: no\x1b[2J answer", host="kvm01")
    served.happens("Port", "0a1b2c3d-0000-4000.52", "active", "vNIC is active", host="kvm01", network="web", vm="web1")


@contextmanager
def following(socket: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-m", "controller.cli", "--api", f"unix:{socket}", "events", "-f", *words]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=20)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_a_table_of_what_happened(run: Run) -> None:
    lines = run("events").stdout.splitlines()
    assert lines[0].split() == ["TIME", "KIND", "NAME", "EVENT", "MESSAGE"]
    assert lines[1].split()[1:] == ["Host", "kvm01", "openflow-down", "openflow", "is", "down:", "no\\x1b[2J", "answer"]
    assert lines[2].split()[1:4] == ["Port", "web1", "active"]


@pytest.mark.parametrize("words", [["--kind", "ports"], ["--name", "web1"], ["--event", "active"], ["-n", "1"],
                                   ["--network", "web"], ["--since", "1h", "--last", "1"]])  # fmt: skip
def test_some_of_them(run: Run, words: list[str]) -> None:
    assert [event["name"] for event in json.loads(run("events", *words, "-o", "json").stdout)] == [
        "0a1b2c3d-0000-4000.52"
    ]


def test_what_is_wrong_is_named(run: Run) -> None:
    result = run("events", "--kind", "swich")
    assert result.exit_code == 2
    assert "kind 'swich' is not known" in result.stderr
    result = run("events", "--since", "yesterday")
    assert result.exit_code == 1
    assert "?since 'yesterday' is no time" in result.stderr


def test_following_tells_each_as_it_comes(served: Served) -> None:
    with following(served.socket, "-n", "1", "--host", "kvm01") as process:
        assert line(process).split()[1:4] == ["Port", "web1", "active"]
        served.happens("Host", "kvm02", "created", "not this one", host="kvm02")
        served.happens("Host", "kvm01", "drift", "put right", host="kvm01")
        assert line(process).split()[1:] == ["Host", "kvm01", "drift", "put", "right"]


def test_following_goes_on_when_the_controller_is_there_again(served: Served, tmp_path: Path) -> None:
    with following(served.socket, "-o", "json") as process:
        assert [json.loads(line(process))["name"] for _ in range(2)] == ["kvm01", "0a1b2c3d-0000-4000.52"]
        served.server.stop()
        assert process.stderr is not None
        assert "trying again" in process.stderr.readline()
        served.happens("Host", "kvm03", "created", "while nobody listened")
        again = Served(tmp_path)
        try:
            again.fleet.history = served.fleet.history
            assert json.loads(line(process))["name"] == "kvm03"
        finally:
            again.close()
