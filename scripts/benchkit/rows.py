"""Rows written into a controller's store as it writes them itself, by a connection that stays."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from labkit.run import LabError


class Rows:
    """A client of the store's database server (RFC 7047)."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._decoder = json.JSONDecoder()

    def insert(self, row: Mapping[str, Any]) -> None:
        self._transact({"op": "insert", "table": "Port", "row": dict(row)})

    def update(self, row: Mapping[str, Any]) -> None:
        """Of the vNIC that the row names."""
        self._transact({"op": "update", "table": "Port", "where": [["name", "==", row["name"]]],
                        "row": {"status": row["status"]}})  # fmt: skip

    def delete(self, name: str) -> None:
        self._transact({"op": "delete", "table": "Port", "where": [["name", "==", name]]})

    def _transact(self, operation: Mapping[str, Any]) -> None:
        asked = {"method": "transact", "params": ["Fleetswitch", operation], "id": 1}
        self._sock.sendall(json.dumps(asked).encode())
        text = ""
        while True:
            text += self._sock.recv(1 << 16).decode()
            try:
                answer, _ = self._decoder.raw_decode(text)
            except ValueError:
                continue
            if answer["error"] or any("error" in (each or {}) for each in answer["result"]):
                raise LabError(f"the store refused a row: {text[:500]}")
            return


@contextmanager
def rows(server: Path) -> Iterator[Rows]:
    """``server``: the socket of the database server."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30.0)
        sock.connect(str(server))
        yield Rows(sock)
