"""Whatever was written by whom, and whoever died meanwhile: what a store shows is what the database holds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ovsdb_servers import idl_thread, run, until

from controller.errors import Conflict
from controller.store import MarkDeleting, NumberRequest, PrivateServer, Put, PutStatus, Remove, Row, Store, Write

NAMES = [f"n{n}" for n in range(6)]
KINDS = ("Host", "Network", "Port")


def some_write(chance: random.Random, store: Store) -> Write:
    kind, name = chance.choice(KINDS), chance.choice(NAMES)
    row = store.rows(kind).get(name)
    expect = chance.choice([None, row.generation if row else 0, 1])
    value = {"v": chance.randrange(3)}
    return chance.choice(
        [
            Put(kind, name, value, expect),
            Put(kind, name, value),
            PutStatus(kind, name, value, create=chance.random() < 0.5),
            MarkDeleting(kind, name),
            Remove(kind, name, expect),
        ]
    )


def select(server: PrivateServer, table: str) -> list[dict[str, Any]]:
    query = json.dumps(["Fleetswitch", {"op": "select", "table": table, "where": []}])
    done = subprocess.run(["ovsdb-client", "transact", server.remote, query], check=True, capture_output=True)
    rows: list[dict[str, Any]] = json.loads(done.stdout)[0]["rows"]
    return rows


def read(server: PrivateServer) -> tuple[dict[str, dict[str, Row]], dict[str, int]]:
    rows: dict[str, dict[str, Row]] = {
        kind: {
            row["name"]: Row(
                kind,
                row["name"],
                json.loads(row["spec"]),
                json.loads(row["status"]),
                row["generation"],
                row["deleting"],
            )
            for row in select(server, kind)
        }
        for kind in KINDS
    }
    return rows, {row["name"]: row["number"] for row in select(server, "Number")}


@pytest.mark.parametrize("seed", range(3))
def test_two_stores_and_the_database_agree_after_any_history(tmp_path: Path, seed: int) -> None:
    async def main() -> None:
        server = PrivateServer(tmp_path)
        await server.start()
        with idl_thread() as thread:
            stores = [Store(server.remote, thread) for _ in range(2)]
            for store in stores:
                await store.start()
            committed = 0

            async def write(store: Store, chance: random.Random) -> None:
                nonlocal committed
                for _ in range(150):
                    writes = [some_write(chance, store) for _ in range(chance.randrange(1, 5))]
                    numbers = [NumberRequest("pool", chance.choice(NAMES), 1, 20)] if chance.random() < 0.3 else []
                    with contextlib.suppress(Conflict):
                        await store.commit(writes, numbers=numbers, within=20)
                        committed += 1
                    if chance.random() < 0.1:
                        await store.release("pool", chance.choice(NAMES))

            writing = asyncio.gather(*(write(s, random.Random(2 * seed + n)) for n, s in enumerate(stores)))
            for mark in (40, 120):
                await until(lambda mark=mark: committed >= mark or writing.done(), "they write", 30)
                before = server.pid
                os.kill(before, signal.SIGKILL)
                await until(lambda before=before: server.pid not in (0, before), "another runs")
            await writing
            rows, numbers = read(server)
            assert len(set(numbers.values())) == len(numbers)
            for store in stores:
                await until(
                    lambda store=store: (
                        {kind: dict(store.rows(kind)) for kind in KINDS} == rows
                        and dict(store.numbers("pool")) == numbers
                    ),
                    "the store shows what the database holds",
                )
            for store in stores:
                store.close()
        await server.stop()

    run(main())
