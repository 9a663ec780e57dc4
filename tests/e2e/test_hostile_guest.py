"""A guest pours in whatever it likes, as fast as it can: others notice nothing, and the controller goes on as before.

Its packets are made with scapy's fuzz() (tests/services/fuzzed.py), beside floods that are well made.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dns.message
import pytest
from e2e_ends import close, datagrams, questions
from e2e_fleet import PATIENCE, Fleet, eventually, pings
from e2e_frames import ethernet
from e2e_packets import IPV4, checksum, ipv4
from e2e_streams import nothing_is_lost
from fuzzed import Guest, frames
from labkit import LightGuest, Nic, netns
from labkit.capture import open_raw
from labkit.dhcp_client import ACK, Client, clients_at, serve
from labkit.run import run

from controller import meters
from controller.model.subnet import gateway_mac

pytestmark = [pytest.mark.lab, pytest.mark.alone]
HOSTS, LIBVIRT, LAB = 2, False, "ho"

NETWORK = """\
kind: Network
name: web
mode: nat
subnets: [10.0.0.0/24, "fd00::/64"]
dhcp: {range: [10.0.0.100, 10.0.0.120], range6: ["fd00::100", "fd00::120"]}
dns: {hosts: [{ip: 10.0.0.9, names: [nine]}]}
"""
EVIL = Guest(gateway_mac=gateway_mac("web"))
FAR = "198.51.100.7"
SECONDS = 3.0
RATE = 200
MOST_MEMORY = 32 << 20  # bytes that the attack may cost; a leak of its packets would be more
MOST_LINES = 50  # of the log
MOST_CPU = 4.0, 0.1  # times what right questions take, and of a processor more
POUR = """\
import json, os, socket, sys
raw, frames = socket.socket(fileno=int(sys.argv[1])), [bytes.fromhex(line) for line in sys.stdin]
sent = 0
print("pouring", flush=True)
os.set_blocking(0, False)
while True:
    for frame in frames:
        try:
            sent += raw.send(frame) > 0
        except OSError:  # its queue is full
            pass
    print(sent, flush=True)
"""


@contextlib.contextmanager
def pouring(guest: LightGuest, what: list[bytes]) -> Iterator[list[int]]:
    """Have the guest send these frames again and again, as fast as it can; how many those were, when it is over."""
    sent = [0]
    with open_raw(guest.netns, "eth0") as raw:
        process = subprocess.Popen(
            [sys.executable, "-c", POUR, str(raw.fileno())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=[raw.fileno()],
        )  # fmt: skip
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n".join(frame.hex() for frame in what))
        process.stdin.close()
        assert process.stdout.readline() == "pouring\n"
        yield sent
    finally:
        process.kill()
        assert process.stdout is not None
        counted = process.stdout.read().split()
        process.stdout.close()
        process.wait()
        sent[0] = int(counted[-2]) if len(counted) > 1 else 0


class Costs:
    """What a process took while the block ran: ``cpu`` in seconds a second, ``memory`` in bytes more than before."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.cpu = self.memory = 0.0

    def __enter__(self) -> Costs:
        self._before = (time.monotonic(), *self._now())
        return self

    def __exit__(self, *_: object) -> None:
        begun, cpu, memory = self._before
        now_cpu, now_memory = self._now()
        self.cpu, self.memory = (now_cpu - cpu) / (time.monotonic() - begun), now_memory - memory

    def _now(self) -> tuple[float, float]:
        proc = Path(f"/proc/{self._pid}")
        user, system = (proc / "stat").read_text().rpartition(")")[2].split()[11:13]
        found = re.search(r"VmRSS:\s+(\d+)", (proc / "status").read_text())
        assert found is not None
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK"), int(found[1]) * 1024


@pytest.fixture(scope="module")
def guests(fleet: Fleet) -> dict[str, LightGuest]:
    """The evil one, a good one beside it and one on the other host."""
    for line in ("addr add 203.0.113.1/24 dev eth0", f"addr add {FAR}/32 dev lo"):
        run(netns.argv_in(fleet.lab.outside, ["ip", *line.split()]))
    for number, name in enumerate(fleet.hosts, start=1):
        external = {"uplink": "physnet1", "address": f"203.0.113.1{number}/24", "gateway": "203.0.113.1"}
        fleet.client.post("/apply", [{**fleet.host_document(name), "external": external}], wait=30.0)
    fleet.apply(NETWORK)

    def nic(mac: str, last: int) -> list[Nic]:
        return [Nic("web", mac=mac, addresses=(f"10.0.0.{last}/24",), gateways=("10.0.0.1",))]

    found = fleet.lights({
        "evil": ("h1", nic(EVIL.mac, 66)),
        "good": ("h1", nic("52:54:00:00:00:11", 11)),
        "far": ("h2", nic("52:54:00:00:00:12", 12)),
        "leased": ("h1", [Nic("web")]),
    })  # fmt: skip
    addresses = {"evil": f"[{EVIL.ip}, '{EVIL.ip6}']", "good": "[10.0.0.11]", "far": "[10.0.0.12]"}
    fleet.apply("".join(f"{found[n].ports_yaml().rstrip()}\naddresses: {a}\n" for n, a in addresses.items()))
    fleet.settle()
    return found


def renew(client: Client, seconds: float = PATIENCE) -> None:
    """Its lease is renewed."""
    client.rebind()
    assert serve([client], lambda _, answer: answer.kind == ACK and answer.address == client.address, seconds) == []


def asks_as_much_as_it_may(guest: LightGuest, seconds: float) -> int:
    """Right questions, at the rate that is let through."""
    question = dns.message.make_query("nine", "A").to_wire()
    line = f"import socket,time; s=socket.socket(2,2); q=bytes.fromhex('{question.hex()}'); end=time.time()+{seconds}\n"
    line += f"while time.time()<end: s.sendto(q,('10.0.0.1',53)); time.sleep({1 / meters.RATE})"
    return guest.run([sys.executable, "-c", line], timeout=60.0)[0]


def test_nobody_else_notices_what_a_hostile_guest_sends(fleet: Fleet, guests: dict[str, LightGuest]) -> None:
    good, far, out = guests["good"], guests["far"], fleet.lab.outside
    process = fleet.controller.process()
    assert process is not None
    echo = struct.pack("!BBHHH", 8, 0, 0, 1, 1)
    echo = echo[:2] + struct.pack("!H", checksum(echo)) + echo[4:]
    ping = ethernet(EVIL.gateway_mac, good.nics[0].mac, IPV4, ipv4("10.0.0.11", "10.0.0.1", 1, echo))[:42]
    eventually("the good one reaches the outside", lambda: pings(good, FAR, tries=1))
    eventually("and the other host", lambda: pings(good, "10.0.0.12", tries=1))
    poured = frames(EVIL, 2000, seed=1)
    ways = {
        "to the gateway": questions(good.netns, "eth0", ping),
        "to the outside": datagrams(good.netns, "10.0.0.11", (FAR, 9001), out, (FAR, 9001)),
        "from another host": datagrams(far.netns, "10.0.0.12", ("10.0.0.11", 9002), good.netns, ("10.0.0.11", 9002)),
    }
    log = fleet.controller.log
    with clients_at([guests["leased"]]) as (client,):
        client.discover()
        assert serve([client], Client.take, PATIENCE) == []
        with Costs(process.pid) as honest:
            assert asks_as_much_as_it_may(guests["evil"], 2 * SECONDS / 3) == 0
        begun = log.stat().st_size
        hostile = Costs(process.pid)

        def happens() -> None:
            with hostile, pouring(guests["evil"], poured) as sent:
                until = time.monotonic() + SECONDS
                while time.monotonic() < until:
                    renew(client)
                    time.sleep(0.5)
            print(f"{sent[0]} packets; the controller took {hostile.cpu:.3f} of a processor where right questions take "
                  f"{honest.cpu:.3f}, and {hostile.memory / 2**20:.1f} MB more")  # fmt: skip
            assert sent[0] > 1000

        try:
            nothing_is_lost(fleet, ways, happens, RATE)
        finally:
            for each in ways.values():
                close(each)
    said = log.read_bytes()[begun:].decode()
    assert "Traceback" not in said
    assert len(said.splitlines()) < MOST_LINES, said[:2000]
    assert hostile.memory < MOST_MEMORY
    times, more = MOST_CPU
    assert hostile.cpu < times * honest.cpu + more
    assert fleet.controller.process() is not None
