"""Two clients change one object: the one who has not seen the other's change is told to read again."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from coordinated import Fleet, coordinated
from ovsdb_servers import run

from controller.api.app import create_app
from controller.api.server import ApiServer
from tests.api.http_talk import Answer, ask

NETWORK, PORT = "/api/v1/networks/web", "/api/v1/ports/front"
FLEET = """\
{kind: Network, name: web, mode: isolated, mtu: 1400}
---
{kind: Port, name: front, vm: web1, mac: "52:54:00:00:00:01", network: web}
"""
WEB = {"mode": "isolated", "mtu": 1300}
FRONT = {"vm": "web2", "mac": "52:54:00:00:00:01", "network": "web"}
ROUNDS = 6

Ask = Callable[..., Answer]


@contextlib.contextmanager
def through_rest(fleet: Fleet, folder: Path) -> Iterator[Ask]:
    """Asks the fleet's API through its socket."""
    loop = asyncio.get_running_loop()

    def call(coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(20)

    server = ApiServer(create_app(call, fleet.operations), folder / "api.sock", None)
    server.start()
    try:
        yield lambda *about, **more: ask(folder / "api.sock", *about, **more)
    finally:
        server.stop()


def with_fleet(folder: Path, clients: Callable[[Ask], None]) -> None:
    """Run what clients do beside a controller that has the fleet."""

    async def main() -> None:
        async with coordinated(folder) as fleet:
            await fleet.apply(FLEET)
            with through_rest(fleet, folder) as client:
                await asyncio.to_thread(clients, client)

    run(main())


LATE: dict[str, tuple[str, Callable[[Ask, int], Answer]]] = {
    "put": (NETWORK, lambda client, old: client("PUT", NETWORK, WEB, {"If-Match": f'"{old}"'})),
    "put-body": (PORT, lambda client, old: client("PUT", PORT, {**FRONT, "generation": old})),
    "apply": (PORT, lambda client, old: client(
        "POST", "/api/v1/apply", [{"kind": "Network", "name": "other", "mode": "isolated"},
                                  {"kind": "Port", "name": "front", **FRONT, "generation": old}])),
    "delete-network": (NETWORK, lambda client, old: client("DELETE", NETWORK, headers={"If-Match": f'"{old}"'})),
    "delete-port": (PORT, lambda client, old: client("DELETE", PORT, headers={"If-Match": f'"{old}"'})),
    "delete-query": (PORT, lambda client, old: client("DELETE", f"{PORT}?generation={old}")),
}  # fmt: skip


@pytest.mark.parametrize("how", LATE)
def test_who_read_before_the_last_change_is_told_to_read_again(tmp_path: Path, how: str) -> None:
    path, late = LATE[how]

    def clients(client: Ask) -> None:
        if how == "delete-network":
            assert client("DELETE", PORT).status == 202  # else the network is in use, whoever asks
        old = client("GET", path).json["generation"]
        changed = {**WEB, "mtu": 1350} if path == NETWORK else {**FRONT, "vm": "web3"}
        assert client("PUT", path, changed, {"If-Match": f'"{old}"'}).status == 202
        refused = late(client, old)
        assert refused.status == 409
        [problem] = refused.json["problems"]
        assert problem["remedy"] == "read again, then write"
        assert problem["where"] == {NETWORK: "Network web", PORT: "Port front"}[path]
        left = client("GET", path).json
        assert left.items() >= changed.items()
        assert client("GET", "/api/v1/networks/other").status == 404, "all or nothing"
        assert late(client, left["generation"]).status == 202, "and who has read it may"

    with_fleet(tmp_path, clients)


def test_of_two_who_write_at_once_one_is_told_to_read_again_and_no_change_is_lost(tmp_path: Path) -> None:
    def clients(client: Ask) -> None:
        start = client("GET", NETWORK).json["mtu"]
        both_have_read = threading.Barrier(2, timeout=20)

        def one_more(_: int) -> int:
            found = client("GET", NETWORK)
            both_have_read.wait()
            body = {**WEB, "mtu": found.json["mtu"] + 1}
            return client("PUT", NETWORK, body, {"If-Match": found.headers["etag"]}).status

        with ThreadPoolExecutor(2) as pool:
            for number in range(ROUNDS):
                assert sorted(pool.map(one_more, range(2))) == [202, 409]
                assert client("GET", NETWORK).json["mtu"] == start + number + 1

    with_fleet(tmp_path, clients)


def test_of_one_who_deletes_and_one_who_changes_only_one_succeeds(tmp_path: Path) -> None:
    def clients(client: Ask) -> None:
        etag = client("GET", PORT).headers["etag"]
        both_have_read = threading.Barrier(2, timeout=20)

        def write(method: str, *body: Any) -> int:
            both_have_read.wait()
            return client(method, PORT, *body, headers={"If-Match": etag}).status

        with ThreadPoolExecutor(2) as pool:
            deleted, changed = pool.submit(write, "DELETE"), pool.submit(write, "PUT", FRONT)
            statuses = deleted.result(), changed.result()
        assert statuses in {(202, 409), (409, 202)}
        assert (client("GET", PORT).status == 404) == (statuses == (202, 409))

    with_fleet(tmp_path, clients)
