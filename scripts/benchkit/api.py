"""What the API serves while the fleet changes: how many reads and writes a second, how long each takes and what it
costs; beside a server of the same kind that answers a constant.

The controller is the real one with its store; of the hosts only the switches answer, played ones.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.run import LabError, say

from . import population
from .constant import constant
from .controller import Api, Controller, running
from .figures import Figure, p99
from .processes import cpu
from .rows import Rows, rows
from .switches import switches

ABOUT = "reads and writes of the API a second while the fleet changes, how long they take, and their CPU"
_OTHER_PORTS = 4  # of a switch: an uplink and three tunnels
_FREE = 5000  # OpenFlow ports that no guest has
_AFTER = 1 / 3  # of that time, waited after the last answer: what it caused is computed meanwhile
_BESIDE = "a constant, same server"

Ask = Callable[[int], object]
"""Makes the n-th request, and returns when it was answered."""


@dataclass(frozen=True, slots=True)
class _Served:
    """``seconds`` that each answer took; how many there were in a second; processor time of each."""

    seconds: list[float]
    rate: float
    spent: float


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--hosts", type=int, default=400, metavar="N", help="hosts (default 400)")
    parser.add_argument("--guests", type=int, default=2000, metavar="N", help="guests of two vNICs (default 2000)")
    parser.add_argument("--flows", type=int, default=6000, metavar="N", help="flows of the first host (default 6000)")
    parser.add_argument("--clients", type=int, default=3, metavar="N",
                        help="that ask at a time; one host's switch is read for 3 at most (default 3)")  # fmt: skip
    parser.add_argument("--changes", type=float, default=5.0, metavar="N", help="guests that move a second (5)")
    parser.add_argument("--seconds", type=float, default=3.0, metavar="S", help="for each kind, twice (default 3)")


def measure(args: argparse.Namespace) -> list[Figure]:
    say(f"{args.hosts} hosts of which the switches answer, {args.guests} guests of two vNICs each")
    with tempfile.TemporaryDirectory(prefix="fleetswitch-bench-") as name:
        folder = Path(name)
        with constant(folder) as server:
            beside = _served(lambda _: server.api.ask("GET", "/healthz"), args.clients, args.seconds, server.pid)
        with running(folder) as controller:
            controller.api.ask("POST", "/apply", [*population.hosts(args.hosts), *population.networks()])
            vnics = population.vnics(args.hosts, args.guests)
            population.fill(controller, vnics)
            ports = 2 * -(-args.guests // args.hosts) + _OTHER_PORTS
            with switches(controller.port, population.datapaths(controller.api), ports, args.flows):
                population.settle(controller, 2 * args.guests)
                say("filled and computed")
                return [*_figures(controller, args, vnics, beside)]


def _figures(
    controller: Controller, args: argparse.Namespace, vnics: list[dict[str, Any]], beside: _Served
) -> Iterator[Figure]:
    size, pid = {"hosts": args.hosts, "guests": args.guests}, controller.process.pid
    for what, ask in _kinds(controller.api, args.hosts, args.guests, args.flows).items():
        resting = _served(ask, args.clients, args.seconds, pid)
        with _moving(controller, vnics, args.hosts, args.changes):
            served = _served(ask, args.clients, args.seconds, pid)
        yield Figure("api", f"{what}: a second", served.rate, "1/s", size, beside.rate, _BESIDE)
        yield Figure("api", f"{what}: median", statistics.median(served.seconds), "s", size,
                     statistics.median(beside.seconds), _BESIDE)  # fmt: skip
        yield Figure("api", f"{what}: p99", p99(served.seconds), "s", size, p99(beside.seconds), _BESIDE)
        yield Figure("api", f"{what}: CPU, nobody moves", resting.spent, "s", size, beside.spent, _BESIDE)


def _kinds(api: Api, hosts: int, guests: int, flows: int) -> Mapping[str, Ask]:
    turn = itertools.count()  # of all writes, so that each changes something

    def read(path: str) -> Ask:
        return lambda _: api.ask("GET", path)

    def write(make: Callable[[int], dict[str, Any]]) -> Ask:
        return lambda _: api.ask("POST", "/apply", [make(next(turn))])

    return {
        "health": read("/healthz"),
        "list of hosts": read("/hosts?limit=5000"),
        "one port": read(f"/ports/{population.port_name(guests // 2, 0)}"),
        "topology": read("/topology"),
        f"a host's {flows:,} flows": read("/hosts/kvm000/flows?limit=10000"),
        "a network changes": write(_network),
        "a port changes": write(lambda n: _port(n, guests)),
    }


def _network(turn: int) -> dict[str, Any]:
    """One of the networks, which compares what its vNICs send with less or more than before."""
    number, again = turn % population.NETWORKS, turn // population.NETWORKS % 2
    filters = ["no-mac-spoofing"] if again else ["clean-traffic"]
    return {"kind": "Network", "name": f"net{number:02}", "mode": "isolated",
            "portgroups": {"default": {"filters": filters}}}  # fmt: skip


def _port(turn: int, guests: int) -> dict[str, Any]:
    """One guest's vNIC, which has another address than before."""
    guest = turn % guests
    uuid, _, mac = population.port_name(guest, 0).partition(".")
    address = f"10.{turn >> 14 & 255}.{turn >> 7 & 127}.{turn % 127 + 1}"
    return {"kind": "Port", "name": population.port_name(guest, 0), "vm": uuid,
            "mac": ":".join(mac[at : at + 2] for at in range(0, 12, 2)),
            "network": f"net{guest % population.NETWORKS:02}", "addresses": [address]}  # fmt: skip


def _served(ask: Ask, clients: int, seconds: float, pid: int) -> _Served:
    """So many clients ask at a time, each again when it was answered, for so long. Raises what one of them raised."""
    ask(0)  # what the first needs is made once
    taken: list[float] = []
    failed: list[LabError | OSError] = []
    spent, start = cpu([pid]), time.monotonic()

    def client(number: int) -> None:
        try:
            while (begun := time.monotonic()) < start + seconds:
                ask(number)
                taken.append(time.monotonic() - begun)
        except (LabError, OSError) as error:
            failed.append(error)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    wall = time.monotonic() - start
    time.sleep(seconds * _AFTER)
    return _Served(taken, len(taken) / wall, (cpu([pid]) - spent) / len(taken))


@contextmanager
def _moving(controller: Controller, vnics: list[dict[str, Any]], hosts: int, rate: float) -> Iterator[None]:
    """Guests move from host to host while inside, so many a second: it is in their rows, as if their hosts told it."""
    over = threading.Event()

    def move(store: Rows) -> None:
        for turn in itertools.count():
            if over.wait(1 / rate):
                return
            row = vnics[turn % len(vnics)]
            status = json.loads(row["status"]) | {"host": f"kvm{turn * 7 % hosts:03}", "ofport": _FREE + turn}
            store.update({"name": row["name"], "status": json.dumps(status)})

    with rows(controller.store) as store:
        thread = threading.Thread(target=move, args=(store,))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
