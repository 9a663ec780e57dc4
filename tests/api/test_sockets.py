"""Where the API listens: whose path it is, who may open it, which addresses are refused."""

from __future__ import annotations

import os
import socket
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from controller.api.operations import Unconfirmed
from controller.api.server import ApiServer
from controller.errors import InvalidInput
from tests.api.fake_fleet import Served
from tests.api.http_talk import Answer, ask


def nothing(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("204 No Content", [])
    return []


def test_the_socket_is_its_owners_alone(served: Served) -> None:
    mode = os.stat(served.socket)
    assert stat.S_ISSOCK(mode.st_mode)
    assert stat.S_IMODE(mode.st_mode) == 0o600


def test_a_missing_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    server = ApiServer(nothing, tmp_path / "run" / "api.sock", None)
    server.start()
    try:
        assert stat.S_IMODE(os.stat(tmp_path / "run").st_mode) == 0o700
        assert ask(tmp_path / "run" / "api.sock", "GET", "/").status == 204
    finally:
        server.stop()
    assert not (tmp_path / "run" / "api.sock").exists()


def test_what_a_dead_process_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    server = ApiServer(nothing, path, None)
    server.start()
    try:
        assert ask(path, "GET", "/").status == 204
    finally:
        server.stop()


def test_a_second_controller_is_refused_and_harms_the_first_not(served: Served) -> None:
    with pytest.raises(InvalidInput, match="is another controller's, which runs"):
        ApiServer(nothing, served.socket, None)
    assert ask(served.socket, "GET", "/healthz").status == 200


def test_the_socket_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(InvalidInput, match="which runs"):
            ApiServer(nothing, path, None)
        assert path.exists()


def test_a_file_in_the_way_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    path.write_text("precious")
    with pytest.raises(InvalidInput, match="is there and is no socket"):
        ApiServer(nothing, path, None)
    assert path.read_text() == "precious"


def test_paths_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="longer than 107 bytes"):
        ApiServer(nothing, tmp_path / ("x" * 120), None)
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="cannot be made"):
        ApiServer(nothing, tmp_path / "file" / "api.sock", None)


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_addresses_that_others_reach_are_refused_and_nothing_is_left(tmp_path: Path, address: str) -> None:
    with pytest.raises(InvalidInput, match=r"can be reached from other machines|is no IP address"):
        ApiServer(nothing, tmp_path / "api.sock", (address, 0))
    assert not (tmp_path / "api.sock").exists()


def test_a_taken_port_is_told(served: Served, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="Address already in use"):
        ApiServer(nothing, tmp_path / "other.sock", ("127.0.0.1", served.port))


def test_stop_ends_the_threads_and_frees_both_sockets(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    served = Served(tmp_path)
    port = served.port
    assert ask(port, "GET", "/healthz").status == 200
    served.close()
    assert not set(threading.enumerate()) - before
    again = ApiServer(nothing, tmp_path / "api.sock", ("127.0.0.1", port))
    again.stop()
    assert not set(threading.enumerate()) - before


def test_ipv6_loopback(tmp_path: Path) -> None:
    server = ApiServer(nothing, tmp_path / "api.sock", ("::1", 0))
    server.start()
    try:
        assert server.tcp_address is not None
        with socket.create_connection(server.tcp_address, 5) as peer:
            peer.sendall(b"GET / HTTP/1.0\r\nHost: [::1]\r\n\r\n")
            assert peer.recv(100).startswith(b"HTTP/1.0 204")
    finally:
        server.stop()


def test_who_waits_is_let_go_when_the_server_stops(tmp_path: Path) -> None:
    served = Served(tmp_path)
    served.fleet.unconfirmed = (Unconfirmed("kvm02", "openflow", "no connection"),)
    answers: list[Answer] = []
    waiting = threading.Thread(target=lambda: answers.append(ask(served.port, "GET", "/api/v1/wait?wait=600")))
    waiting.start()
    deadline = time.monotonic() + 10
    while not served.fleet.waits and time.monotonic() < deadline:
        time.sleep(0.01)
    served.close()
    waiting.join()
    assert answers[0].status == 202
    assert answers[0].json["unconfirmed"][0]["host"] == "kvm02"


def test_a_stop_that_is_slow_to_tell_the_loop_finds_its_trigger_open(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    for listener in served.server._listeners:
        pull, thread = listener._server.pull_trigger, listener._thread

        def slowly(pull: Any = pull, thread: threading.Thread = thread) -> None:
            pull()
            thread.join(0.3)  # time enough for the loop to end
            pull()

        monkeypatch.setattr(listener._server, "pull_trigger", slowly)
    served.server.stop()
    assert not served.socket.exists()
