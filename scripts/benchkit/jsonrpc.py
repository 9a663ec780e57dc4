"""A bare OVSDB client on asyncio: RFC 7047's messages as dictionaries, and nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from labkit.run import LabError

DATABASE = "Open_vSwitch"
_CHUNK = 1 << 18


class Peer:
    """One connection to one server. ``rows`` are what it monitors, by table and UUID."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self._changed = asyncio.Event()
        self._reader, self._writer = reader, writer
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._next = 0
        self._task = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, path: Path) -> Peer:
        """Raises OSError."""
        return cls(*await asyncio.open_unix_connection(str(path)))

    async def monitor(self, columns: Mapping[str, Sequence[str]]) -> None:
        """Fill ``rows``, and keep them."""
        asked = {table: [{"columns": list(names)}] for table, names in columns.items()}
        self._take(await self.ask("monitor", [DATABASE, None, asked]))

    async def transact(self, *operations: dict[str, Any]) -> list[Any]:
        """Raises LabError when one of them is refused."""
        results: list[Any] = await self.ask("transact", [DATABASE, *operations])
        for result in results:
            if result is not None and result.get("error"):
                raise LabError(f"OVSDB refused: {result['error']}: {result.get('details')}")
        return results

    async def ask(self, method: str, params: list[Any]) -> Any:
        """The result of a call. Raises LabError when the server says that it failed."""
        self._next += 1
        answer = self._answers[self._next] = asyncio.get_running_loop().create_future()
        self._send({"id": self._next, "method": method, "params": params})
        return await answer

    async def wait(self) -> None:
        """Until something that it monitors has changed since the last wait."""
        await self._changed.wait()
        self._changed.clear()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()

    def _send(self, message: dict[str, Any]) -> None:
        self._writer.write(json.dumps(message).encode())

    async def _read(self) -> None:
        decoder, text = json.JSONDecoder(), ""
        while data := await self._reader.read(_CHUNK):
            text += data.decode()
            while text:
                try:
                    message, end = decoder.raw_decode(text)
                except ValueError:
                    break  # the rest of it is to come
                text = text[end:]
                self._received(message)

    def _received(self, message: dict[str, Any]) -> None:
        match message.get("method"):
            case "echo":
                self._send({"id": message["id"], "result": message["params"], "error": None})
            case "update":
                self._take(message["params"][1])
            case _:
                answer = self._answers.pop(message["id"])
                if message.get("error") is not None:
                    answer.set_exception(LabError(f"OVSDB: {message['error']}"))
                else:
                    answer.set_result(message["result"])

    def _take(self, updates: Mapping[str, Mapping[str, Any]]) -> None:
        for table, rows in updates.items():
            known = self.rows.setdefault(table, {})
            for uuid, change in rows.items():
                if "new" in change:
                    known[uuid] = change["new"]
                else:
                    known.pop(uuid, None)
        self._changed.set()


def named(pairs: Mapping[str, str]) -> list[Any]:
    """A map as RFC 7047, 5.1 writes it."""
    return ["map", [[key, value] for key, value in pairs.items()]]
