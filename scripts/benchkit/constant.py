"""An API that does nothing: ``python -m benchkit.constant SOCKET``, in a process of its own.

The same framework and the same server as the controller's, with one short answer to everything.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flask import Flask, jsonify
from flask.typing import ResponseReturnValue
from labkit.run import wait_for
from waitress import serve

from .controller import Api

_THREADS = 24  # as the controller has
_PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Constant:
    """One that runs."""

    pid: int
    api: Api


@contextmanager
def constant(folder: Path) -> Iterator[Constant]:
    path = folder / "constant.sock"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    process = subprocess.Popen([sys.executable, "-m", __name__, str(path)], stdin=subprocess.DEVNULL, env=environment)
    try:
        wait_for("the server of a constant", lambda: path.exists() or process.poll() is not None, _PATIENCE)
        yield Constant(process.pid, Api(path))
    finally:
        process.terminate()
        process.wait(_PATIENCE)


def _app() -> Flask:
    app = Flask(__name__)

    @app.get("/healthz")
    def healthz() -> ResponseReturnValue:
        return jsonify({"live": True})

    return app


if __name__ == "__main__":
    serve(_app(), unix_socket=sys.argv[1], threads=_THREADS, _quiet=True)
