"""The controller's OpenFlow port is bombarded while a guest starts and others talk."""

from __future__ import annotations

import itertools
import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from e2e_fleet import Fleet, Pinging, eventually, wait_ping
from labkit import Nic

from controller.openflow import messages as msg

pytestmark = pytest.mark.lab

LAB, HOSTS, LIBVIRT = "bo", 3, 0

NETWORK = "{kind: Network, name: app, mode: isolated}"


def features_reply(dpid: int) -> bytes:
    return msg.hello() + msg.message(msg.Type.FEATURES_REPLY, dpid.to_bytes(8, "big") + bytes(16), 2)


class Bombardment:
    """Threads that connect, say something bad, stay a little and go; ``own`` are datapath ids of Hosts."""

    def __init__(self, where: str, own: list[int]) -> None:
        self._where = where
        self._over = threading.Event()
        self.thrown = 0
        first = [b"", b"GET / HTTP/1.1\r\n\r\n", msg.hello(), features_reply(0xBAD), *map(features_reply, own),
                 *(features_reply(dpid) + os.urandom(2000) for dpid in own)]  # fmt: skip
        self._threads = [threading.Thread(target=self._throw, args=(first, seed)) for seed in range(4)]

    def __enter__(self) -> Bombardment:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _throw(self, first: list[bytes], seed: int) -> None:
        chance, held = random.Random(seed), []
        for number in itertools.count():
            if self._over.is_set():
                break
            sock = socket.socket()
            sock.settimeout(2.0)
            try:
                sock.connect((self._where, 6653))
                sock.sendall(chance.choice(first))
                self.thrown += 1
            except OSError:
                pass
            held.append(sock)
            if len(held) > 60:
                held.pop(0).close()
            if number % 10 == 0:
                time.sleep(0.02)
        for sock in held:
            sock.close()


@contextmanager
def memory(pid: int) -> Iterator[list[float]]:
    """MB of a process before and after the block."""

    def now() -> float:
        text = Path(f"/proc/{pid}/status").read_text()
        return int(next(line.split()[1] for line in text.splitlines() if line.startswith("VmRSS"))) / 1024

    found = [now()]
    yield found
    found.append(now())


def test_a_fleet_is_right_while_its_controller_is_bombarded(fleet: Fleet) -> None:
    fleet.apply(NETWORK)
    guests = fleet.lights({f"b{n}": (f"h{n}", [Nic("app", addresses=(f"10.9.0.{n}/24",))]) for n in (1, 2)})
    wait_ping(guests["b1"], "10.9.0.2")
    process = fleet.controller.process()
    assert process is not None
    before = {name: fleet.get("Host", name)["status"] for name in fleet.hosts}
    own = [int(status["datapath_id"], 16) for status in before.values()]
    with memory(process.pid) as used, Pinging(guests["b1"], "10.9.0.2") as pinging:
        with Bombardment(fleet.controller.address, own) as attack:
            # On a host of its own: where an interface appears, the lab's tunnels lose frames by themselves.
            third = fleet.lights({"b3": ("h3", [Nic("app", addresses=("10.9.0.3/24",))])})["b3"]
            wait_ping(guests["b1"], "10.9.0.3")
            eventually("enough was thrown", lambda: attack.thrown > 500, 60.0)
            shown = list(fleet.client.items("/unknown-switches"))
        told = fleet.controller.fleetswitch("host", "unknown")
    assert not pinging.lost, str(pinging)
    for name in fleet.hosts:
        status = fleet.get("Host", name)["status"]
        assert {part: status[part]["state"] for part in ("openflow", "ovsdb")} == {"openflow": "up", "ovsdb": "up"}
        assert "OpenFlow lost" not in fleet.said(name)
    assert used[1] - used[0] < 64, used
    by_id = {one["datapath_id"]: one for one in shown}
    assert "to add it: echo" in by_id["0000000000000bad"]["remedy"]
    assert {
        one["host"] for one in shown if one["datapath_id"] in {f"{dpid:016x}" for dpid in own}
    } == fleet.hosts.keys()
    assert "0000000000000bad" in told
    lines = fleet.controller.log.read_text().splitlines()
    assert sum("turned away" in line or "handshake" in line for line in lines) < 200, "the log was flooded"
    fleet.stop([*guests.values(), third])
