"""Two controllers, as alike as they can be: one drives a store at a time, and who was killed is followed."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ovsdb_servers import server

from controller.store.schema import schema_path

PATIENCE = 60.0
UP = "fleetswitch is up"
WAITS = "another controller drives this store"


class Controller:
    """One of this machine's name, with the same folder as every other; what it says is in ``log``."""

    def __init__(self, folder: Path, name: str, *options: str) -> None:
        self.log = folder / f"{name}.log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        argv = [sys.executable, "-m", "controller.cli", "up", "--state-dir", str(folder / "state")]
        argv += ["--api-tcp", "none", "--api-socket", str(folder / f"{name}.sock")]
        argv += ["--listen", f"tcp:127.0.0.1:{port}", *options]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, text: str) -> None:
        eventually(lambda: text in self.said() or self.process.poll() is not None, self.said)
        assert text in self.said(), self.said()

    def end(self, number: int) -> None:
        self.process.send_signal(number)
        self.process.wait(PATIENCE)


def eventually(condition: Callable[[], bool], told: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, told()
        time.sleep(0.05)


@contextlib.contextmanager
def controller(folder: Path, name: str, *options: str) -> Iterator[Controller]:
    one = Controller(folder, name, *options)
    try:
        yield one
    finally:
        one.end(signal.SIGTERM)  # which ends its private server, too


def test_on_a_store_of_several_the_second_waits_until_the_lease_of_the_first_has_run_out(tmp_path: Path) -> None:
    with server(tmp_path / "db", schema_path()) as store:
        options = ("--store", store.remote)
        with controller(tmp_path, "first", *options) as first:
            first.wait_for(UP)
            with controller(tmp_path, "second", *options) as second:
                second.wait_for(WAITS)
                assert first.process.poll() is None, "it goes on"
                assert "lost" not in first.said()
                assert UP not in second.said()
                killed = time.monotonic()
                first.end(signal.SIGKILL)
                second.wait_for(UP)
                assert time.monotonic() - killed > 5, "it was not known to be dead"


def test_on_a_store_of_its_own_the_next_waits_for_nobody(tmp_path: Path) -> None:
    with controller(tmp_path, "first") as first:
        first.wait_for(UP)
        first.end(signal.SIGKILL)
    with controller(tmp_path, "second") as second:
        second.wait_for(UP)
        assert WAITS not in second.said()
