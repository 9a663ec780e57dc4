"""Requests that mean harm, or are simply broken."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.fake_fleet import Served, flow
from tests.api.http_talk import ask

APPLY = "/api/v1/apply"
WEB = {"kind": "Network", "name": "web", "mode": "isolated"}
YAML = {"Content-Type": "application/yaml"}
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[Served]:
    running = Served(tmp_path, channel_timeout=1)
    yield running
    running.close()


def raw(path: Path, data: bytes, timeout: float = 15) -> bytes:
    """What the server says to these bytes until it closes the connection."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(timeout)
        peer.connect(str(path))
        peer.sendall(data)
        return read_all(peer)


def post(header: str, body: bytes = b"") -> bytes:
    """An apply as bytes, with one header more."""
    head = f"POST {APPLY} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{header}\r\n\r\n"
    return head.encode() + body


def read_all(peer: socket.socket) -> bytes:
    found = b""
    while True:
        try:
            data = peer.recv(65536)
        except ConnectionResetError:
            return found
        if not data:
            return found
        found += data


def is_told(problem: dict[str, Any]) -> None:
    """Every problem says where, what, and what would be right."""
    assert problem["detail"]
    assert problem["problems"]
    assert all(each["where"] and each["what"] and each["remedy"] for each in problem["problems"]), problem["problems"]


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        (JSON, b"{", 400),
        (JSON, b"", 400),
        (JSON, b'{"kind": NaN}', 400),
        (JSON, b'{"kind": "Network", "kind": "Host"}', 400),
        (JSON, b"\xff\xfe", 400),
        (JSON, b"[" * 100_000, 400),
        (JSON, b"[" * 40 + b"]" * 40, 400),
        (JSON, b'{"a":' * 900 + b"1" + b"}" * 900, 400),
        (JSON, b"1" * 10_000, 400),
        (JSON, b"[" + b"1," * 250_000 + b"1]", 413),
        (JSON, b"[" + b"1," * 5_000 + b"1]", 422),
        (JSON, b'"text"', 422),
        (JSON, b'[{"kind": ["Network"], "name": {"a": 1}}]', 422),
        (JSON, b'{"kind": "Network", "name": 7, "mode": "isolated"}', 422),
        (JSON, b'{"kind": "Network", "name": "../x", "mode": "isolated"}', 422),
        (JSON, b'{"kind": "Network", "name": "web", "mode": ["isolated"], "portgroups": 3}', 422),
        (JSON, b'{"kind": "Network", "name": "web", "mode": "isolated", "generation": "1"}', 422),
        (JSON, b'{"kind": "Network", "name": "\\ud800", "mode": "isolated"}', 422),
        (JSON, b'{"kind": "Network", "name": "web", "mode": "isolated", "mtu": 9, "vlan": "x", "colour": 1}', 422),
        (
            JSON,
            b'{"kind": "Network", "name": "web", "mode": "isolated", "portgroups": {"a": {"b": 1, "vlan": [2]}}}',
            422,
        ),
        (JSON, b'{"kind": "Host", "name": "h", "ovsdb": 5, "underlay_mtu": 70000, "uplinks": {"a": 1}}', 422),
        (JSON, b'{"kind": "Port", "name": "p", "addresses": ["x", 1], "vm": {}, "mac": null}', 422),
        (YAML, b"a: [", 400),
        (YAML, b"\x00", 400),
        (YAML, b"[" * 20_000, 400),
        (YAML, b"a: !!python/object/apply:os.system [id]", 422),
        (YAML, b"a: &a [*a]", 422),
        (YAML, b"", 422),
        (YAML, b"x: " + b"y" * 1_100_000, 413),
        ({"Content-Type": "application/x-www-form-urlencoded"}, b'{"kind": 1}', 415),
        ({"Content-Type": "multipart/form-data"}, b"{}", 415),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, b"{}", 415),
        ({"Content-Type": ""}, b"{}", 415),
    ],
)
def test_bodies_that_are_refused(served: Served, headers: dict[str, str], body: bytes, status: int) -> None:
    answer = ask(served.socket, "POST", APPLY, body, headers)
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    is_told(answer.json)
    assert len(answer.body) < 200_000
    assert served.fleet.rows == {}
    assert ask(served.port, "GET", "/healthz").status == 200


def test_a_bomb_of_aliases_is_refused(served: Served) -> None:
    bomb = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
    )
    answer = ask(served.socket, "POST", APPLY, bomb.encode(), YAML)
    assert answer.status == 422
    assert "too many values" in answer.json["detail"]
    is_told(answer.json)


def test_plain_text_comes_through_the_unix_socket_only(served: Served) -> None:
    body = b"kind: Network\nname: web\nmode: isolated"
    assert ask(served.socket, "POST", APPLY, body, {"Content-Type": "text/plain"}).status == 202


def test_a_body_of_50_megabytes_is_refused_before_it_is_read(served: Served) -> None:
    answer = raw(served.socket, post("Content-Length: 52428800"))  # not one byte of the body was sent
    assert answer.startswith(b"HTTP/1.1 413 ")
    problem = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert problem["status"] == 413
    is_told(problem)
    assert "8388608 bytes" in problem["problems"][0]["remedy"]


def test_a_chunked_body_without_end_is_cut_off(served: Served) -> None:
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    sent = 0
    with socket.create_connection(("127.0.0.1", served.port), 15) as peer:
        peer.sendall(post("Transfer-Encoding: chunked"))
        try:
            while sent < 60 * 1024 * 1024:
                peer.sendall(chunk)
                sent += len(chunk)
        except (ConnectionResetError, BrokenPipeError):
            pass
    assert sent < 30 * 1024 * 1024
    assert ask(served.port, "GET", "/healthz").status == 200


def test_just_below_the_limit_is_read(served: Served) -> None:
    body = json.dumps(WEB).encode()
    answer = ask(served.socket, "POST", APPLY, body + b" " * (8 * 1024 * 1024 - len(body)), JSON)
    assert answer.status == 202
    assert raw(served.socket, post("Content-Length: 8388609")).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "head",
    [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nA\r\n\r\n",
     b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 40_000,
     b"POST /api/v1/apply HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n"],
)  # fmt: skip
def test_what_is_no_http_is_answered_in_the_same_form(served: Served, head: bytes) -> None:
    answer = raw(served.socket, head)
    assert answer.split()[1] in {b"400", b"431"}
    assert b"application/problem+json" in answer
    is_told(json.loads(answer.partition(b"\r\n\r\n")[2]))


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8640",
        "localhost.evil.example",
        "192.0.2.1",
        "[2001:db8::1]:80",
        "",
        "127.0.0.1.nip.io",
    ],
)
def test_names_that_are_not_ours_are_refused_on_tcp(served: Served, host: str) -> None:
    answer = ask(served.port, "GET", "/api/v1/hosts", headers={"Host": host})
    assert answer.status == 421
    is_told(answer.json)
    assert ask(served.socket, "GET", "/api/v1/hosts", headers={"Host": host}).status == 200


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8640", "127.0.0.1:1", "[::1]:8640", "[::1]"])
def test_our_own_names_are_answered(served: Served, host: str) -> None:
    assert ask(served.port, "GET", "/api/v1/hosts", headers={"Host": host}).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://localhost"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_pages_of_other_sites_change_nothing(served: Served, headers: dict[str, str]) -> None:
    about = {"Host": "localhost", **headers}
    for where in (served.port, served.socket):
        assert ask(where, "POST", APPLY, WEB, about).status == 403
        assert ask(where, "PUT", "/api/v1/networks/web", WEB, about).status == 403
        answer = ask(where, "DELETE", "/api/v1/networks/web", headers=about)
        assert answer.status == 403
        is_told(answer.json)
    assert served.fleet.rows == {}


def test_our_own_page_may(served: Served) -> None:
    about = {"Host": "localhost:1", "Origin": "http://localhost:1", "Sec-Fetch-Site": "same-origin"}
    answer = ask(served.socket, "POST", APPLY, WEB, about)
    assert answer.status == 202
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_silent_client_is_disconnected(impatient: Served) -> None:
    assert raw(impatient.socket, post("Content-Length: 10", b"{")) == b""


def test_a_flood_of_connections_leaves_the_unix_socket_alone(impatient: Served) -> None:
    held: list[socket.socket] = []
    try:
        for _ in range(300):
            held.append(socket.create_connection(("127.0.0.1", impatient.port), 5))
        assert ask(impatient.socket, "GET", "/healthz").status == 200
        # and silent ones make room after their time
        assert ask(impatient.port, "GET", "/healthz").status == 200
    finally:
        for peer in held:
            peer.close()


def test_clients_that_do_not_read_hold_no_thread(impatient: Served) -> None:
    impatient.fleet.flow_rows["kvm01"] = [flow(why="w" * 1000)] * 5000
    lazy: list[socket.socket] = []
    try:
        for _ in range(12):  # more than there are threads
            peer = socket.create_connection(("127.0.0.1", impatient.port), 5)
            peer.sendall(b"GET /api/v1/hosts/kvm01/flows?limit=5000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            lazy.append(peer)
        assert ask(impatient.port, "GET", "/healthz").status == 200
    finally:
        for peer in lazy:
            peer.close()


def test_many_at_once_are_all_answered(served: Served) -> None:
    statuses: list[Any] = []

    def change(number: int) -> None:
        body = [{**WEB, "name": f"n{number}"}]
        statuses.append(ask(served.socket, "POST", APPLY, body).status)

    threads = [threading.Thread(target=change, args=(number,)) for number in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [202] * 60
    assert len(served.fleet.rows) == 60


def test_answers_are_neither_cached_nor_guessed_nor_signed(served: Served) -> None:
    headers = ask(served.port, "GET", "/api/v1/hosts").headers
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert "server" not in headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/nothing", 404),
        ("PATCH", "/api/v1/hosts", 405),
        ("GET", "/api/v1/hosts?limit=x", 400),
        ("GET", "/api/v1/hosts?nonsense=1", 400),
        ("GET", "/api/v1/wait?wait=99999", 400),
    ],
)
def test_requests_that_are_refused(served: Served, method: str, path: str, status: int) -> None:
    answer = ask(served.socket, method, path)
    assert answer.status == status
    is_told(answer.json)
