"""scripts/bench: figures, their goals, and runs beside each other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchkit.__main__ import main
from benchkit.figures import Figure, Goal, p99, shown
from benchkit.report import print_figures, read, write
from labkit import LabError

SLOW = Figure("guests", "new guest: p99", 0.150, "s", {"guests": 50}, 0.003, "NORMAL")


def judged(goal: Goal) -> str | None:
    return Figure("guests", SLOW.what, SLOW.value, "s", SLOW.size, SLOW.baseline, "NORMAL", goal).missed()


def test_a_missed_goal_tells_what_was_measured_and_what_should_have_been() -> None:
    assert judged(Goal.parse("100ms")) == "new guest: p99 (50 guests): 150 ms, and should be ≤ 100 ms"
    assert judged(Goal.parse("20x")) == "new guest: p99 (50 guests): 50.00 x NORMAL, and should be ≤ 20 x"
    assert judged(Goal(60, at_least=True, of="ratio")) is not None
    assert judged(Goal.parse("0.15s")) is None
    assert judged(Goal.parse("50x")) is None
    assert judged(Goal(50, at_least=True, of="ratio")) is None


def test_a_goal_for_a_ratio_is_not_reached_without_a_baseline() -> None:
    assert Figure("sync", "bytes", 1.0, "s", goal=Goal(2, of="ratio")).missed() is not None


@pytest.mark.parametrize("text", ["100ms", "100,1s", "1m,1s", "-1x,2x"])
def test_what_is_no_limit_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["guests", f"--limits={text}"])
    assert "--limits" in capsys.readouterr().err


@pytest.mark.parametrize(("value", "unit", "words"), [
    (0.0145, "s", "14.5 ms"), (12.0, "s", "12 s"), (0.0000004, "s", "0.40 µs"), (300 * 2**20, "B", "300 MiB"),
    (1154.2, "1/s", "1,154 /s"), (3.0, "", "3"), (0.0, "s", "0 µs"),
])  # fmt: skip
def test_values_for_people(value: float, unit: str, words: str) -> None:
    assert shown(value, unit) == words


def test_p99_of_few_is_the_worst() -> None:
    assert p99([3.0, 1.0, 2.0]) == 3.0
    assert p99(list(range(1, 201))) == 198


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    figures = [SLOW, Figure("memory", "RSS", 1.0, "B", goal=Goal(2.0, at_least=True))]
    write(tmp_path / "run.json", figures)
    assert read(tmp_path / "run.json") == figures
    assert set(json.loads((tmp_path / "run.json").read_text())["machine"]) >= {"cores", "ovs", "python", "when"}


@pytest.mark.parametrize("text", ["", "[]", '{"format": 1}', '{"format": 1, "figures": [{}]}', '{"format": 0}'])
def test_a_file_of_another_kind_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(LabError, match=r"other\.json"):
        read(path)


def test_an_earlier_run_stands_beside(capsys: pytest.CaptureFixture[str]) -> None:
    """By the ratio where there is one: the baseline was twice as slow as well."""
    earlier = Figure("guests", SLOW.what, 0.300, "s", SLOW.size, 0.006, "NORMAL")
    print_figures([SLOW, Figure("guests", "other", 1.0, "s")], [earlier, Figure("guests", "gone", 1.0, "s")])
    out = capsys.readouterr().out
    assert [line.split()[-3:] for line in out.splitlines() if line.startswith("new guest")] == [["50.00", "x", "+0%"]]
    assert "not measured this time: guests: gone" in out
    assert [line.split()[-1] for line in out.splitlines() if line.startswith("other")] == ["new"]


def test_an_unknown_case_is_refused_with_those_there_are() -> None:
    with pytest.raises(LabError, match="'gusts' is no case: one of guests, "):
        main(["gusts"])


def test_options_of_a_case_go_with_one_case() -> None:
    with pytest.raises(LabError, match="--crowd 3: options of a case go with that case alone"):
        main(["guests", "reads", "--crowd", "3"])


def test_a_case_that_fails_does_not_hide_the_others(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write(tmp_path / "figures.json", [SLOW])
    child = tmp_path / "python"
    child.write_text(f'#!/bin/sh\n[ "$3" = guests ] && cp {tmp_path}/figures.json "$5"\n')  # -m benchkit CASE --json F
    child.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(child))
    assert main(["reads", "guests"]) == 1
    out, err = capsys.readouterr()
    assert "new guest: p99" in out
    assert "reads: could not be measured" in err
