"""A running Open vSwitch says of every app's flows what we said; what somebody changed is told from it."""

from __future__ import annotations

import asyncio
import time
from random import Random

from inspected import SECONDS, connected
from openflow_vswitch import DEADLINE, Vswitch
from test_engine_oracle import random_fleet

from apps import APPS
from controller.contents import Contents
from controller.engine import Engine
from controller.openflow import messages
from controller.openflow.decode import scan_contents
from controller.pipeline.pipeline import Entry, Pipeline

PIPELINE = Pipeline(APPS)
Flows = dict[tuple[int, int], Entry]


def every_flow() -> Flows:
    """Of some fleets, one for each place in a switch."""
    slots: dict[tuple[int, int, bytes], Entry] = {}
    for seed in range(25):
        engine = Engine(PIPELINE)
        engine.update(random_fleet(Random(seed), False).rows())
        slots |= {entry.slot: entry for table in engine.tables.values() for entry in table}
    return {entry.identity: entry for entry in slots.values()}


async def described(path: str, wanted: Flows | None = None) -> bytes:
    async with connected(path) as connection:
        if wanted is not None:
            await connection.bundle([entry.bundled for entry in wanted.values()], SECONDS)
        return await connection.multipart(messages.flow_desc_request(), SECONDS)


def test_what_is_right_is_found_right_and_what_was_changed_is_not(vswitch: Vswitch) -> None:
    path, wanted, contents = vswitch.bridge("cont"), every_flow(), Contents()
    assert {table for table, _ in wanted} >= set(PIPELINE.number.values()) - {
        PIPELINE.number[table] for table in PIPELINE.tables if table.learned
    }
    body = asyncio.run(described(path, wanted))
    for _ in range(2):  # decoded, and known by its bytes
        assert contents.read(body, wanted) == (set(wanted), set())

    (table, cookie), (other, twice), (gone, absent) = list(wanted)[5:500:200]
    vswitch.ofctl("mod-flows", path, f"table={table},cookie={cookie:#x}/-1,actions=NORMAL")
    vswitch.ofctl("add-flow", path, f"table={other},cookie={twice:#x},priority=65000,actions=NORMAL")
    vswitch.ofctl("del-flows", path, f"table={gone},cookie={absent:#x}/-1")
    found, wrong = contents.read(asyncio.run(described(path)), wanted)
    assert found == set(wanted) - {(gone, absent)}
    assert wrong == {(table, cookie), (other, twice)}
    assert contents.read(asyncio.run(described(path)), {}) == (found, set()), "what nobody wants is not looked at"


def test_counters_are_no_content(vswitch: Vswitch) -> None:
    path = vswitch.bridge("count")
    vswitch.ofctl("add-flow", path, "table=0,cookie=0xf500000000000001,priority=7,in_port=1,actions=drop")

    def content() -> tuple[int, bytes]:
        body = asyncio.run(described(path))
        [(*_, content)] = scan_contents(body)
        return content, body

    first, end = content(), time.monotonic() + DEADLINE
    while (then := content())[1] == first[1]:
        assert time.monotonic() < end, "a flow's age is among its counters"
    assert first[0] == then[0]
