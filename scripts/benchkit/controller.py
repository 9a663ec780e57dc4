"""The program without a lab: a controller on loopback, and its API."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from labkit.controller import PROGRAM
from labkit.run import LabError, wait_for

_ABOVE = ("/openapi.json", "/healthz", "/metrics")


@dataclass(frozen=True, slots=True)
class Controller:
    """One that runs; ``port`` is where switches connect to, on loopback."""

    process: subprocess.Popen[bytes]
    port: int
    folder: Path
    api: Api

    @property
    def store(self) -> Path:
        """The socket of the database server that has its store."""
        return next((self.folder / "state/store").glob("*.sock"))


class Api:
    """The controller's API at its unix socket, a connection for each request as the command line has it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def ask(self, method: str, path: str, body: object = None) -> bytes:
        """The answer to a request. Raises LabError when it is refused."""
        connection = http.client.HTTPConnection("localhost", timeout=60.0)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(60.0)
            sock.connect(str(self._path))
            connection.sock = sock
            data = None if body is None else json.dumps(body)
            whole = path if path in _ABOVE else f"/api/v1{path}"
            connection.request(method, whole, data, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            said = answer.read()
        if answer.status >= 400:
            raise LabError(f"{method} {path}: {answer.status}: {said[:500].decode(errors='replace')}")
        return said


@contextmanager
def running(folder: Path, port: int = 0) -> Iterator[Controller]:
    """A controller with its state in the folder, and its OpenFlow port on loopback: this, or one that nobody had."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = port or probe.getsockname()[1]
    paths = ["--state-dir", str(folder / "state"), "--api-socket", str(folder / "api.sock"), "--api-tcp", "none"]
    with (folder / "log").open("w") as log:
        argv = [str(PROGRAM), "up", *paths, "--listen", f"tcp:127.0.0.1:{port}", "--log-level", "error"]
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        wait_for("the controller's API", lambda: (folder / "api.sock").exists() or process.poll(), 30.0)
        yield Controller(process, port, folder, Api(folder / "api.sock"))
    finally:
        process.terminate()
        process.wait(30.0)
