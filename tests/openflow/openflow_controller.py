"""A process of its own that is the OpenFlow side of a controller: a real listener, admission and switches.

    python openflow_controller.py '{"hosts": 9, "flows": 200, ...}'     prints its port, then answers a line with a line

Whoever asks gets JSON: memory and CPU of the process, peers in the handshake, what each host's switch is like, who was
turned away, and how long barriers took that were sent to host 1 since the last question.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import resource
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
GOOD = "h1"


def dpid_of(number: int) -> int:
    """The datapath id of host ``number``."""
    return 0xF1EE << 48 | number


class Controller:
    """The process, as tests see it."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, log: Path) -> None:
        self.process, self.port, self.log = process, port, log

    async def ask(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"\n")
        line = await self.process.stdout.readline()
        assert line, self.log.read_text()[-3000:]
        return dict(json.loads(line))

    async def until(self, what: str, condition: Any, within: float = 30.0) -> dict[str, Any]:
        """Polls until ``condition(answer)`` holds."""
        end = time.monotonic() + within
        while not condition(answer := await self.ask()):
            assert time.monotonic() < end, f"{what}: {answer}"
            await asyncio.sleep(0.02)
        return answer


@contextlib.asynccontextmanager
async def controller(folder: Path, **settings: Any) -> AsyncIterator[Controller]:
    """A controller of hosts h1, h2, ...; ``settings`` as in ``main``."""
    log = folder / "controller.log"
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "ignore", __file__, json.dumps(settings), cwd=REPOSITORY, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=stderr, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )  # fmt: skip
    try:
        assert process.stdout is not None
        line = await process.stdout.readline()
        assert line, log.read_text()
        yield Controller(process, int(line), log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _memory(status: int) -> dict[str, float]:
    """MB, now and at most, of an open /proc/self/status: there may be no descriptor left to open it."""
    values = dict(line.split(":", 1) for line in os.pread(status, 65536, 0).decode().splitlines())
    return {name: int(values[key].split()[0]) / 1024 for name, key in (("rss", "VmRSS"), ("peak", "VmHWM"))}


def _table(count: int) -> Any:
    from controller.engine import Delta, HostTable
    from controller.openflow import messages as msg
    from controller.openflow.match import Match
    from controller.pipeline.cookies import own_cookie
    from controller.pipeline.pipeline import Entry

    table = HostTable()
    for number in range(count):
        cookie, match = own_cookie(number.to_bytes(7, "big")), Match.of(metadata=number)
        add = msg.flow_mod(0, msg.Command.ADD, cookie, 0, 100, match.encode(), b"")
        table.add(Entry((0, cookie), (0, 100, match.encode()), msg.bundled(add, cookie)), Delta())
    return table


def _count_messages(good: Any) -> Callable[[], int]:
    """How many messages of others than the good switch were whole, and looked at."""
    from controller.openflow.connection import Connection

    seen, look = 0, Connection.received

    def received(self: Connection, version: int, kind: int, xid: int, body: bytes) -> None:
        nonlocal seen
        seen += self is not good._connection
        look(self, version, kind, xid, body)

    Connection.received = received  # type: ignore[method-assign]
    return lambda: seen


async def main(settings: dict[str, Any]) -> None:
    """``hosts``: how many; ``flows``: for each; ``handshake``: seconds; ``tls``: key, certificate, CA; ``descriptors``:
    how many may be open beside those that are; ``output``: bytes that may wait for a switch."""
    from controller.admission import Admission
    from controller.errors import OpenFlowError
    from controller.openflow import messages as msg
    from controller.openflow.listener import Listener, server_context
    from controller.openflow.transport import Limits
    from controller.switch import Switch

    async def ports_known() -> None:
        """There is no OVSDB: the flows name no port."""

    names = {f"h{n}": n for n in range(1, settings["hosts"] + 1)}
    switches = {name: Switch(name, 1, [0], lambda: None, ports_known) for name in names}
    table = _table(settings.get("flows", 0))
    for switch in switches.values():
        switch.change(table, None, 1)
    agents: Any = {name: SimpleNamespace(switch=switch) for name, switch in switches.items()}
    desired: Any = SimpleNamespace(numbers=lambda pool: names)
    admission = Admission(desired, agents, [])
    limits = Limits(handshake=settings.get("handshake", 10.0), output=settings.get("output", Limits().output))
    tls = server_context(*settings["tls"]) if "tls" in settings else None
    address = f"{'ssl' if tls else 'tcp'}:127.0.0.1:0"
    listener = Listener(address, admission.accept, lost=admission.lost, limits=limits, tls=tls)
    await listener.start()
    loop = asyncio.get_running_loop()
    questions = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(questions), sys.stdin)
    if "descriptors" in settings:
        most = max(map(int, os.listdir("/proc/self/fd"))) + settings["descriptors"]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    print(listener.port, flush=True)
    status = os.open("/proc/self/status", os.O_RDONLY)
    looked_at = _count_messages(switches[GOOD])
    trips: list[float] = []
    lost = 0

    async def measure() -> None:
        nonlocal lost
        while True:
            connection = switches[GOOD]._connection
            if connection is not None:
                begin = time.perf_counter()
                try:
                    await connection.request(msg.barrier_request(), 10.0)
                    trips.append((time.perf_counter() - begin) * 1000)
                except OpenFlowError:
                    lost += 1
            await asyncio.sleep(0.005)

    measuring = asyncio.create_task(measure())
    while await questions.readline():
        hosts = {n: [s.state.state, s.state.confirmed, s.peer, s.state.since] for n, s in switches.items()}
        found = [(one.address, one.dpid, one.host, one.reason, one.count) for one in admission.strangers()]
        answer = {
            **_memory(status), "cpu": time.process_time(),
            "pending": listener.pending, "open": len(listener._connections),
            "hosts": hosts, "strangers": found, "looked_at": looked_at(), "trips": trips[:], "lost": lost,
        }  # fmt: skip
        trips.clear()
        print(json.dumps(answer), flush=True)
    measuring.cancel()
    await listener.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(main(json.loads(sys.argv[1])))
