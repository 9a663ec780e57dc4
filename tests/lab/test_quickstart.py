"""scripts/quickstart as who just cloned runs it: twice, then --down; and it does not claim what is not so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lab_traces import nothing_left, traces
from labkit import LabError, program, wait_for
from labkit.program import run_program
from labkit.quickstart import CLAIMS, Outcome
from labkit.state import ROOT as LABS

ROOT = Path(__file__).parents[2]
NAME = "tk"
LABKIT = {**os.environ, "PYTHONPATH": str(ROOT / "scripts")}

# The quickstart, with switches that forward everything to everybody when it is to prove who reaches whom.
WIDE_OPEN = """
import sys
from labkit import quickstart
from labkit.program import run_program

prove = quickstart._prove

def opened(lab, guests):
    lab.controller.stop()
    for host in lab.hosts.values():
        host.vsctl("del-port", "fs-geneve")  # one way between the hosts is enough, a second one is a loop
        for bridge in host.vsctl("list-br").split():
            host.ofctl("add-flow", bridge, "priority=65535,actions=NORMAL")
    for vlan in (10, 20):
        lab.segment.vsctl("clear", "Port", f"vlan{vlan}", "tag")
    return prove(lab, guests)

quickstart._prove = opened
sys.exit(run_program("quickstart", lambda: quickstart.main(["--name", sys.argv[1]])))
"""


def quickstart(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(ROOT / "scripts/quickstart"), "--name", NAME, *words], capture_output=True, text=True,
                          timeout=240)  # fmt: skip


@pytest.mark.lab
def test_it_runs_again_and_again_and_leaves_nothing() -> None:
    with nothing_left(NAME):
        try:
            begun = time.monotonic()
            first = quickstart()
            assert first.returncode == 0, first.stderr
            assert time.monotonic() - begun < 180, "first minutes, with the packages there"
            assert first.stdout.count("\n  ok  ") == len(CLAIMS)
            assert f"scripts/quickstart --name {NAME} --down" in first.stdout
            assert traces(NAME)
            again = quickstart()
            assert again.returncode == 0, again.stderr
            assert "is up already; it is taken away first" in again.stderr
        finally:
            down = quickstart("--down")
        assert (down.returncode, down.stderr) == (0, "lab: taken away\n")


@pytest.mark.lab
def test_what_must_not_be_reached_is_told_when_it_is() -> None:
    with nothing_left(NAME):
        done = subprocess.run([sys.executable, "-c", WIDE_OPEN, NAME], capture_output=True, text=True, timeout=240,
                              cwd=ROOT, env=LABKIT)  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "did not turn out as they should" in done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith(("  ok ", "  NO "))]
    closed = [line for line, claim in zip(lines, CLAIMS, strict=True) if not claim.reaches]
    assert [line[:5] for line in closed] == ["  NO "] * len(closed), "\n".join(lines)


@pytest.mark.lab
@pytest.mark.parametrize("program", ["labkit.quickstart", "benchkit guests"])
@pytest.mark.parametrize("moment", ["controller", "controller/api.sock"])
def test_ended_half_way_it_leaves_nothing(program: str, moment: str) -> None:
    with nothing_left(NAME):
        with subprocess.Popen([sys.executable, "-m", *program.split(), "--name", NAME], stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True, env=LABKIT) as half:  # fmt: skip
            wait_for(moment, (LABS / NAME / moment).exists, 30.0, every=0.001)
            half.send_signal(signal.SIGTERM)
            half.send_signal(signal.SIGHUP)
            half.send_signal(signal.SIGINT)
            _, said = half.communicate(timeout=60)
        assert half.returncode == 130, said
        assert said.endswith(": interrupted\n")


def test_silence_proves_nothing_where_nobody_asked() -> None:
    never = next(claim for claim in CLAIMS if not claim.reaches)
    assert Outcome(2, False, None).bears_out(never)
    assert not Outcome(0, False, None).bears_out(never)
    assert not Outcome(2, True, None).bears_out(never)
    twin = next(claim for claim in CLAIMS if claim.reaches and claim.mac)
    assert Outcome(1, True, twin.mac).bears_out(twin)
    assert not Outcome(1, True, "52:54:00:00:00:01").bears_out(twin)


def test_a_lab_error_is_a_line_and_exit_code_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "INTERRUPTS", ())  # this process's own stay

    def fail() -> None:
        raise LabError("no such thing")

    assert run_program("quickstart", fail) == 1
    assert capsys.readouterr().err == "quickstart: error: no such thing\n"


@pytest.mark.parametrize("words", [("--fast",), ("--name", "Too-Long", "--down")])
def test_what_it_does_not_take_is_refused(words: tuple[str, ...]) -> None:
    done = subprocess.run([str(ROOT / "scripts/quickstart"), *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "error: " in done.stderr
