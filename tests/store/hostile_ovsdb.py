"""An OVSDB server that speaks the protocol of RFC 7047 well enough to be believed, and then says what a test wants."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from ovsdb_servers import VSWITCH

from controller.idl.framing import Framer, FramingError

_SCHEMA = json.loads(VSWITCH.read_text())

Rows = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Table → UUID → column → value as RFC 7047 section 5.1 writes it."""

ROOT, BRIDGE = (str(uuid.UUID(int=number)) for number in (1, 2))


def a_set(*values: Any) -> list[Any]:
    return ["set", list(values)]


def a_map(**values: Any) -> list[Any]:
    return ["map", [[key.replace("_", "-"), value] for key, value in values.items()]]


def uuids(*values: str) -> list[Any]:
    return a_set(*(["uuid", each] for each in values))


def vnics(*interfaces: Mapping[str, Any], bridge: Mapping[str, Any] | None = None) -> Rows:
    """A host with a bridge ``br-int`` that has these interfaces, each on a port of its name."""
    ports = [str(uuid.uuid4()) for _ in interfaces]
    found = {str(uuid.uuid4()): {"type": "", "ofport": 5, **each} for each in interfaces}
    return {
        "Open_vSwitch": {ROOT: {"bridges": uuids(BRIDGE), "ovs_version": "3.1.0"}},
        "Bridge": {BRIDGE: {"name": "br-int", "ports": uuids(*ports), **(bridge or {})}},
        "Port": {
            port: {"name": row["name"], "interfaces": uuids(name)}
            for port, (name, row) in zip(ports, found.items(), strict=True)
        },
        "Interface": found,
    }


class HostileOvsdb:
    """``rows`` is what it says to whoever watches; ``on_transact`` gives its reply to a transaction (result, error);
    ``raw`` is sent behind that as it is."""

    def __init__(self, rows: Rows, raw: bytes = b"") -> None:
        self.rows, self.raw = rows, raw
        self.on_transact: Callable[[list[Any]], tuple[Any, Any]] = lambda params: (None, {"error": "not today"})
        self.remote = ""
        self.transactions = 0
        self.watched = 0
        self._monitor: Any = None
        self._columns: dict[str, list[str]] = {}
        self._writers: list[asyncio.StreamWriter] = []
        self._serving: set[asyncio.Task[None]] = set()

    async def update(self, rows: Rows) -> None:
        """Tells whoever watches last of new rows."""
        params = [self._monitor, self._new(rows)]
        writer = self._writers[-1]
        writer.write(json.dumps({"method": "update", "params": params, "id": None}).encode())
        await writer.drain()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        framer = Framer(1 << 26)
        with contextlib.suppress(ConnectionError, FramingError):
            while data := await reader.read(1 << 16):
                framer.feed(data)
                while (message := framer.next()) is not None:
                    if message.get("method") is not None:
                        await self._answer(message, writer)
        writer.close()

    async def _answer(self, message: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        result, error, method, params = None, None, message["method"], message["params"]
        if method == "echo":
            result = params
        elif method == "get_schema" and params == ["Open_vSwitch"]:
            result = _SCHEMA
        elif method == "monitor":
            self._monitor = params[1]
            self.watched += 1
            self._columns = {table: wanted[0]["columns"] for table, wanted in params[2].items()}
            result = self._new(self.rows)
        elif method == "transact":
            self.transactions += 1
            result, error = self.on_transact(params)
        else:
            error = "unknown method"
        writer.write(json.dumps({"id": message["id"], "result": result, "error": error}).encode())
        if method == "monitor":
            writer.write(self.raw)
        await writer.drain()

    async def close(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._serving)

    def _new(self, rows: Rows) -> dict[str, Any]:
        """Rows with every column that was asked for."""
        found: dict[str, Any] = {}
        for table, some in rows.items():
            blank = {column: _default(table, column) for column in self._columns[table]}
            found[table] = {each: {"new": {**blank, **row}} for each, row in some.items()}
        return found


def _default(table: str, column: str) -> Any:
    kind = _SCHEMA["tables"][table]["columns"][column]["type"]
    if isinstance(kind, dict) and (kind.get("min", 1) == 0 or kind.get("max", 1) != 1 or "value" in kind):
        return ["map" if "value" in kind else "set", []]
    key = kind["key"] if isinstance(kind, dict) else kind
    return {"string": "", "integer": 0, "boolean": False}[key["type"] if isinstance(key, dict) else key]


@contextlib.asynccontextmanager
async def hostile(rows: Rows, raw: bytes = b"") -> AsyncIterator[HostileOvsdb]:
    """One that listens; its ``remote`` is where."""
    made = HostileOvsdb(rows, raw)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.remote = f"tcp:127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()
        await made.close()
        await server.wait_closed()
