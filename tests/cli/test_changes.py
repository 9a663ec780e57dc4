"""apply, delete and wait through the real server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from controller.api.operations import Trouble, Unconfirmed
from tests.api.fake_fleet import Served

Run = Callable[..., Result]

FLEET = """\
kind: Host
name: kvm01
ovsdb: tcp:192.0.2.1:6640
tunnel_ip: 192.0.2.1
---
kind: Network
name: web
mode: isolated
"""
PORT = "kind: Port\nname: web1\nvm: web1\nmac: '52:54:00:00:00:0a'\nnetwork: web\n"


@pytest.fixture
def fleet(tmp_path: Path) -> str:
    path = tmp_path / "fleet.yaml"
    path.write_text(FLEET)
    return str(path)


def test_apply_says_what_was_done_and_that_it_is_confirmed(run: Run, served: Served, fleet: str) -> None:
    result = run("apply", "-f", fleet)
    assert result.exit_code == 0, result.output
    assert result.stdout == "Host kvm01 created\nNetwork web created\n"
    assert result.stderr == "confirmed by every switch\n"
    assert set(served.fleet.rows) == {("Host", "kvm01"), ("Network", "web")}
    assert run("apply", "-f", fleet).stdout == "Host kvm01 unchanged\nNetwork web unchanged\n"


def test_apply_without_waiting_says_how_to_wait(run: Run, served: Served, fleet: str) -> None:
    result = run("apply", "-f", fleet, "--wait", "0")
    assert result.exit_code == 0
    assert result.stderr == "stored, not yet confirmed by the switches; see: fleetswitch wait --sequence 2\n"
    assert served.fleet.waits == []
    assert run("wait", "--sequence", "2").exit_code == 0
    assert served.fleet.waits[0][0] == 2


def test_what_is_not_confirmed_in_time_ends_with_3_and_names_each(run: Run, served: Served, fleet: str) -> None:
    served.fleet.unconfirmed = (
        Unconfirmed("kvm02", "openflow", "no connection"),
        Unconfirmed("kvm03", "ovsdb", "slow"),
    )
    result = run("apply", "-f", fleet, "--wait", "0.1")
    assert result.exit_code == 3
    assert result.stderr.splitlines() == [
        "Host kvm02: openflow has not confirmed: no connection",
        "error: Host kvm03: ovsdb has not confirmed: slow "
        "(it is stored and goes on; see: fleetswitch wait --sequence 2)",
    ]
    assert ("Host", "kvm01") in served.fleet.rows
    assert run("wait", "--wait", "0").exit_code == 3


def test_what_was_wrong_before_is_a_warning_and_no_failure(run: Run, served: Served, fleet: str) -> None:
    served.fleet.wrong = [(1, Trouble("kvm02", "ovsdb", "ens1: no such device"))]
    told = "warning: Host kvm02: ovsdb was degraded before this change already: ens1: no such device\n"
    result = run("apply", "-f", fleet, "--wait", "1")
    assert (result.exit_code, result.stderr) == (0, f"{told}confirmed by every switch\n")
    served.fleet.wrong = [(2, Trouble("kvm02", "ovsdb", "ens1: no such device"))]
    assert "warning" not in run("wait", "--sequence", "2").stderr
    result = run("apply", "-f", fleet, "--wait", "1")
    assert (result.exit_code, result.stderr) == (0, f"{told}confirmed by every switch\n"), "nothing was changed"
    assert "warning" not in run("wait").stderr, "whoever names no change asks for all that is wrong"
    assert [since for *_, since in served.fleet.waits] == [2, 2, 3, 0]


def test_a_controller_that_is_late_leaves_a_change_unconfirmed_and_a_read_undone(
    run: Run, served: Served, fleet: str
) -> None:
    served.fleet.failure = TimeoutError()
    result = run("apply", "-f", fleet)
    assert (result.exit_code, "may or may not have been made" in result.stderr) == (3, True)
    assert run("wait").exit_code == 3
    result = run("get", "hosts")
    assert result.exit_code == 1
    assert result.stderr == ("error: GET /api/v1/hosts: the controller is busy or stopping and did not answer in time "
                             "(try again)\n")  # fmt: skip


def test_dry_run_shows_the_difference(run: Run, served: Served, fleet: str, tmp_path: Path) -> None:
    run("apply", "-f", fleet)
    Path(fleet).write_text(FLEET + "mtu: 1400\n")
    result = run("apply", "-f", fleet, "--dry-run")
    assert result.exit_code == 0
    assert "+mtu: 1400\nNetwork web would be changed\n" in result.stdout
    assert served.fleet.rows["Network", "web"][1] == 1


def test_standard_input_several_files_and_folders(run: Run, served: Served, tmp_path: Path) -> None:
    folder = tmp_path / "net"
    folder.mkdir()
    (folder / "b.yml").write_text("kind: Network\nname: b\nmode: isolated\n")
    (folder / "a.json").write_text(json.dumps([{"kind": "Network", "name": "a", "mode": "isolated"}]))
    (folder / "notes.txt").write_text("not for us")
    (tmp_path / "port.yaml").write_text(PORT)
    result = run("apply", "-f", str(folder), "-f", str(tmp_path / "port.yaml"), "-f", "-", stdin=FLEET)
    assert result.exit_code == 0, result.output
    assert result.stdout == (
        "Network a created\nNetwork b created\nPort web1 created\nHost kvm01 created\nNetwork web created\n"
    )


def test_errors_of_all_files_name_file_and_line(run: Run, served: Served, tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in ("one.yaml", "two.yaml", "three.yaml"))
    first.write_text(FLEET + "mtuu: 1400\n")
    second.write_text("kind: Network\nname: [\n")
    result = run("apply", "-f", str(first), "-f", str(second), "-f", str(third))
    assert result.exit_code == 1
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert lines[0] == f"error: {first}:9: Network web: mtuu: is not known (did you mean mtu?)"
    assert lines[1].startswith(f"error: {second}:3: is no YAML")
    assert lines[2] == f"error: {third}: cannot be read: No such file or directory (name a file that may be read)"
    assert len(lines) == 3
    assert served.fleet.rows == {}


def test_what_the_controller_finds_wrong_names_file_and_line_too(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "port.yaml"
    path.write_text("# a comment\n" + PORT)
    result = run("apply", "-f", str(path))
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {path}:2: Port web1: network: there is no Network 'web' (apply it first")


def test_the_same_object_in_two_files(run: Run, fleet: str, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("kind: Network\nname: web\nmode: isolated\n")
    result = run("apply", "-f", fleet, "-f", str(other))
    assert result.exit_code == 1
    assert result.stderr == f"error: {other}:1: Network web stands at {fleet}:6 already (keep one of them)\n"


@pytest.mark.parametrize("text", ["", "- 1\n", "\x00", "kind: Network\nname: '\x1b[31mred'\nmode: isolated\n"])
def test_files_that_mean_nothing(run: Run, served: Served, text: str) -> None:
    result = run("apply", "-f", "-", stdin=text)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: stdin")
    assert "\x1b" not in result.output
    assert served.fleet.rows == {}


def test_bytes_that_are_no_text(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"a: 1\nb: \xff\n")
    result = run("apply", "-f", str(tmp_path / "x.yaml"))
    assert result.stderr == f"error: {tmp_path}/x.yaml:2: is not UTF-8 (save it as UTF-8)\n"
    (tmp_path / "empty").mkdir()
    assert "holds no file" in run("apply", "-f", str(tmp_path / "empty")).stderr


def test_a_generation_that_is_old_is_refused(run: Run, fleet: str) -> None:
    run("apply", "-f", fleet)
    result = run("apply", "-f", "-", stdin="kind: Network\nname: web\nmode: isolated\nmtu: 1300\ngeneration: 7\n")
    assert result.exit_code == 1
    assert result.stderr == "error: Network web: is generation 1, not 7 (read it again)\n"


def test_what_get_prints_can_be_applied(run: Run, fleet: str) -> None:
    run("apply", "-f", fleet)
    for form in ("yaml", "json"):
        text = run("get", "networks", "-o", form).stdout
        (Path(fleet).parent / f"again.{form}").write_text(text)
        result = run("apply", "-f", str(Path(fleet).parent / f"again.{form}"))
        assert result.stdout == "Network web unchanged\n", result.output


def test_delete_by_name_and_by_file(run: Run, served: Served, fleet: str) -> None:
    run("apply", "-f", fleet)
    run("apply", "-f", "-", stdin=PORT)
    result = run("delete", "network", "web")
    assert result.exit_code == 1
    assert result.stderr == "error: Network web: is used by Port web1 (delete it first, or --force)\n"
    result = run("delete", "NETWORKS", "web", "--force", "--dry-run")
    assert (result.exit_code, result.stdout) == (0, "Network web would be deleted\n")
    result = run("delete", "port", "web1", "--generation", "7")
    assert (result.exit_code, result.stderr) == (1, "error: Port web1: was changed (read it again)\n")
    assert run("delete", "port", "web1", "--generation", "1").stdout == "Port web1 deleted\n"
    assert run("delete", "-f", fleet).stdout == "Host kvm01 deleted\nNetwork web deleted\n"
    assert served.fleet.rows == {}
    result = run("delete", "network", "web")
    assert result.exit_code == 1
    assert result.stderr == "error: Network web: does not exist (there are: none)\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["apply"], "nothing to apply; name a file with -f"),
        (["delete", "-f", "x", "--generation", "1"], "--generation is that of one object"),
        (["delete"], "say which: KIND NAME, or -f FILE"),
        (["delete", "network"], "say which: KIND NAME, or -f FILE"),
        (["delete", "network", "web", "-f", "x"], "name an object or files with -f, not both"),
        (["get", "netwrok"], "kind 'netwrok' is not known; did you mean network?"),
        (
            ["get", "x"],
            "kind 'x' is not known; one of: bgppeer, bgppeers, floatingip, floatingips, ",
        ),
        (["apply", "-f", "x", "--wait", "-1"], "is not in the range"),
        (["--api", "ftp://x", "get", "hosts"], "is no address of a controller; write unix:/PATH"),
        (["nonsense"], "No such command"),
    ],
)
def test_usage_ends_with_2(run: Run, words: list[str], said: str) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
