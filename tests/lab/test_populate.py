"""`scripts/lab up --guests --light`: guests that talk across hosts, and nothing stays when it is interrupted."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from lab_traces import nothing_left
from labkit import Guest, Lab, LightGuest, netns, wait_for
from labkit.state import ROOT

pytestmark = pytest.mark.lab

LAB = Path(__file__).parents[2] / "scripts/lab"
BULK = 300_000  # bytes: hundreds of full segments


@pytest.fixture(scope="module")
def populated() -> Iterator[Lab]:
    with nothing_left("tp"):
        try:
            up = [sys.executable, str(LAB), "up", "--name", "tp", "--hosts", "2", "--guests", "1", "--light", "1"]
            subprocess.run(up, check=True, timeout=180)
            yield Lab.attach("tp")
        finally:
            subprocess.run([sys.executable, str(LAB), "down", "--name", "tp"], check=True, timeout=60)


def test_real_guests_carry_bulk_between_hosts(populated: Lab) -> None:
    guest = populated.guest("h1-g1")
    assert isinstance(guest, Guest)
    assert guest.run(f"head -c {BULK} /dev/zero | nc -w 20 10.88.2.1 7 | wc -c", timeout=60) == (0, f"{BULK}\n")


def test_light_guests_carry_bulk_between_hosts(populated: Lab) -> None:
    one, other = populated.guest("h1-l1"), populated.guest("h2-l1")
    assert isinstance(one, LightGuest)
    assert isinstance(other, LightGuest)
    where, patience = ("10.88.2.51", 5001), 30.0
    with (
        netns.call_in(other.netns, lambda: socket.create_server(where)) as door,
        netns.call_in(one.netns, lambda: socket.create_connection(where, patience)) as sender,
        door.accept()[0] as receiver,
        ThreadPoolExecutor(1) as pool,
    ):
        receiver.settimeout(patience)
        sent = pool.submit(sender.sendall, bytes(BULK))
        assert len(receiver.makefile("rb").read(BULK)) == BULK
        sent.result()


@pytest.mark.parametrize("moment", ["controller/controller.pid", "h1/console/h1-g1.log"])
def test_interrupted_it_leaves_nothing(moment: str) -> None:
    with nothing_left("tq"):
        argv = [sys.executable, str(LAB), "up", "--name", "tq", "--hosts", "1", "--guests", "1", "--light", "1"]
        with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as up:
            wait_for(moment, (ROOT / "tq" / moment).exists, 60, every=0.001)
            up.send_signal(signal.SIGINT)
            _, said = up.communicate(timeout=60)
        assert up.returncode == 130, said
        assert "taking everything away" in said
