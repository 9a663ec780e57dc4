"""The command line as a whole: reaching the controller, help, completion, version, up."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from controller.cli import main
from controller.options import Options
from tests.api.fake_fleet import Served, flow

Run = Callable[..., Result]


def verbs(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from verbs(inner, (*words, name))
    else:
        yield words


def alone(*words: str, **settings: str) -> Result:
    return CliRunner().invoke(main, list(words), prog_name="fleetswitch", env=settings)


@pytest.mark.parametrize("words", list(verbs(main)), ids=" ".join)
def test_help_of_every_verb_shows_an_example(words: tuple[str, ...]) -> None:
    result = alone(*words, "--help")
    assert result.exit_code == 0
    assert "Example" in result.stdout
    assert f"fleetswitch {' '.join(words)}" in " ".join(result.stdout.rpartition("Example")[2].split())


def test_no_controller_is_told_with_a_remedy(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        for address in (f"unix:{tmp_path}/none.sock", f"http://127.0.0.1:{taken.getsockname()[1]}"):
            result = alone("--api", address, "get", "hosts")
            assert result.exit_code == 1
            assert result.stderr.startswith(f"error: no controller answers at {address}: ")
            assert result.stderr.endswith("(start it with `fleetswitch up`, or name its address with --api)\n")


@pytest.mark.parametrize(
    "answer", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n<p>"]
)
def test_what_answers_is_no_controller(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def speak() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(answer)

        thread = threading.Thread(target=speak)
        thread.start()
        result = alone("--api", f"http://127.0.0.1:{listener.getsockname()[1]}", "get", "hosts")
        thread.join()
    assert result.exit_code == 1
    assert "broke off" in result.stderr or "is no fleetswitch controller" in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_address_comes_from_the_environment_and_over_tcp(served: Served) -> None:
    assert alone("get", "hosts", FLEETSWITCH_API=f"unix:{served.socket}").exit_code == 0
    assert alone("get", "hosts", FLEETSWITCH_API=f"http://127.0.0.1:{served.port}").exit_code == 0
    assert alone("get", "hosts", FLEETSWITCH_API=f"http://localhost:{served.port}/").exit_code == 0


def test_as_a_process(served: Served) -> None:
    served.fleet.flow_rows["kvm01"] = [flow()] * 20_000
    about = {**os.environ, "FLEETSWITCH_API": f"unix:{served.socket}"}
    done = subprocess.run([sys.executable, "-m", "controller.cli", "get", "hosts"], env=about, capture_output=True,
                          text=True, timeout=30, check=False)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("NAME")
    piped = subprocess.run(f"{sys.executable} -m controller.cli flows kvm01 | head -1", shell=True, env=about,
                           capture_output=True, text=True, timeout=30, check=False)  # fmt: skip
    assert (piped.stdout, piped.stderr) == ("table=classify, 20000 flows\n", "")


def test_a_socket_of_another_user_is_told(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: socket.socket, address: object) -> None:
        raise PermissionError(13, "Permission denied", address)

    with monkeypatch.context() as patched:
        patched.setattr(socket.socket, "connect", refuse)
        result = alone("--api", f"unix:{served.socket}", "get", "hosts")
    assert result.exit_code == 1
    assert result.stderr == (
        f"error: unix:{served.socket} may not be opened by this user (run this as the user that runs the controller)\n"
    )


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    result = alone("completion", shell)
    assert result.exit_code == 0
    assert "_FLEETSWITCH_COMPLETE" in result.stdout


def test_names_are_completed_from_the_controller(run: Run, served: Served) -> None:
    assert run("apply", "-f", "-", stdin="{kind: Network, name: web, mode: isolated}").exit_code == 0

    def complete(line: str) -> list[str]:
        about = {"_FLEETSWITCH_COMPLETE": "bash_complete", "COMP_WORDS": line,
                 "COMP_CWORD": str(len(line.split(" ")) - 1), "FLEETSWITCH_API": f"unix:{served.socket}"}  # fmt: skip
        return [item.partition(",")[2] for item in alone(**about).stdout.split()]

    assert complete("fleetswitch get network w") == ["web"]
    assert complete("fleetswitch get n") == ["networks"]
    assert complete("fleetswitch port list --network ") == ["web"]
    assert complete("fleetswitch describe network w") == ["web"]
    assert complete("fleetswitch fdb ") == ["web"]
    assert complete("fleetswitch events --kind s") == ["switch"]
    assert complete("fleetswitch events --event openflow-") == ["openflow-up", "openflow-degraded", "openflow-down"]
    assert complete("fleetswitch d") == ["describe", "doctor", "delete"]
    assert complete("fleetswitch doctor ") == []
    served.server.stop()
    assert complete("fleetswitch get network w") == []


def test_version() -> None:
    result = alone("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("fleetswitch ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--listen", "tcp:0.0.0.0:6653"], "a wildcard is not an address that hosts can be told"),
        (["--listen", "tcp:[::]:6653"], "a wildcard is not an address that hosts can be told"),
        (["--listen", "kvm01:6653"], "'kvm01:6653' is no address"),
        (["--listen", "tcp:192.0.2.1:0"], "is no address"),
        (["--listen", "tcp:192.0.2.1:65536"], "is no address"),
        (["--advertise", "tcp:0.0.0.0:6653"], "is no address to connect to"),
        (["--api-tcp", "0.0.0.0:8640"], "can be reached from other machines"),
        (["--api-tcp", "8640"], "'8640' is no address"),
        (["--log-level", "loud"], "'loud' is not one of"),
    ],
)
def test_up_refuses_what_cannot_be(words: list[str], said: str) -> None:
    result = alone("up", *words)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())


def test_up_hands_its_options_to_the_daemon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: list[Options] = []

    def fail(options: Options) -> int:
        given.append(options)
        return 1

    monkeypatch.setattr("controller.daemon.run", fail)
    result = alone("up", "--state-dir", str(tmp_path), "--listen", "tcp:0.0.0.0:6653", "--advertise",
                   "tcp:192.0.2.5:6653", "--api-tcp", "none", "--api-socket", str(tmp_path / "s"))  # fmt: skip
    assert result.exit_code == 1, result.output
    assert given == [Options(state_dir=tmp_path, listen=("tcp:0.0.0.0:6653",), advertise=("tcp:192.0.2.5:6653",),
                             api_tcp=None, api_socket=tmp_path / "s")]  # fmt: skip


def test_hosts_are_told_where_the_controller_listens() -> None:
    assert Options(listen=("tcp:192.0.2.5:6653",)).advertise == ("tcp:192.0.2.5:6653",)
