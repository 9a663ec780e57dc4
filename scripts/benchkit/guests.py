"""How soon new guests talk, and how soon many do, on a lab's hosts, each beside a plain NORMAL bridge."""

from __future__ import annotations

import argparse
import re
import select
import selectors
import socket
import statistics
import struct
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from ipaddress import IPv4Address

from labkit import netns as ns
from labkit.capture import open_raw
from labkit.host import Host
from labkit.lab import Lab
from labkit.light import LightGuest
from labkit.nic import Nic, random_mac
from labkit.run import LabError, say, wait_for

from .figures import Figure, Goal, p99
from .plain import OURS, PLAIN, without_uplinks

ABOUT = "three hosts: how soon 50 guests talk that come one by one, and 200 on one host whose switch lost its flows"
NETWORK = "kind: Network\nname: bench\nmode: isolated\n"
TARGET = {OURS: "10.90.255.1", PLAIN: "10.91.255.1"}
TARGET_MAC = {OURS: "52:54:00:be:0c:01", PLAIN: "52:54:00:be:0c:02"}
NEWCOMER, CROWD = "new guest: port added to first answer", "one host: switch connected to all answered"
PROMISED = "100ms,1s"  # a new guest's first answer; 200 guests of one host after their switch connected
_ARP = 0x0806
_EVERY = 0.002  # seconds between the questions of a guest that waits for its first answer
_PATIENCE = 20.0


def _limits(text: str) -> tuple[Goal, Goal]:
    newcomer, comma, crowd = text.partition(",")
    if not comma:
        raise argparse.ArgumentTypeError(f"{text!r}: two limits with a comma between, as in {PROMISED}")
    return Goal.parse(newcomer), Goal.parse(crowd)


def measure(args: argparse.Namespace) -> list[Figure]:
    with Lab(args.name, args.hosts, libvirt=False) as lab:
        lab.controller.start()
        lab.controller.apply(without_uplinks(lab.fleet_yaml()) + "---\n" + NETWORK)
        for host in lab.hosts.values():
            host.wait_bridge(OURS)
            host.add_bridge(PLAIN, fail_mode="standalone")
            host.vsctl("add-port", PLAIN, "eth2")
        for bridge, address in TARGET.items():
            lab.start_light("h1", f"target-{bridge}", [_target(bridge, address)], bridge)
        newcomers, crowd = args.limits
        return [
            *_figures(NEWCOMER, _newcomers(lab, args.guests), {"guests": args.guests}, newcomers),
            *_figures(CROWD, _crowd(lab, args.crowd, args.rounds), {"guests": args.crowd}, crowd),
        ]


def _figures(what: str, taken: dict[str, list[float]], size: dict[str, int], limit: Goal) -> Iterator[Figure]:
    """A limit in seconds is for the p99, one in times of the baseline for the ratio of the medians."""
    ours, plain = taken[OURS], taken[PLAIN]
    relative = limit.of == "ratio"
    yield Figure("guests", what, statistics.median(ours), "s", size, statistics.median(plain), "NORMAL",
                 limit if relative else None)  # fmt: skip
    yield Figure("guests", f"{what}: p99", p99(ours), "s", size, p99(plain), "NORMAL", None if relative else limit)


def _target(bridge: str, address: str) -> Nic:
    """The vNIC that all others ask for."""
    return Nic("bench", None, TARGET_MAC[bridge], (f"{address}/16",))


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", default="bn", metavar="PREFIX", help="the lab's name (default bn)")
    parser.add_argument("--hosts", type=_positive, default=3, metavar="N", help="hosts of the fleet (default 3)")
    parser.add_argument("--guests", type=_positive, default=50, metavar="N", help="guests that start one by one (50)")
    parser.add_argument("--crowd", type=_positive, default=200, metavar="N", help="guests of one host (default 200)")
    parser.add_argument("--rounds", type=_positive, default=3, metavar="N", help="restarts of its switch (default 3)")
    parser.add_argument("--limits", type=_limits, default=PROMISED, metavar="NEW,CROWD",
                        help="what --judge judges: seconds of the p99 (100ms, 1s), or how many times the baseline "
                             f"the median may take (20x); default {PROMISED}")  # fmt: skip


def _positive(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 200:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 200")
    return int(text)


# -- guests that come one by one


def _newcomers(lab: Lab, count: int) -> dict[str, list[float]]:
    """From the end of the transaction that adds a guest's port to the guest's first answer from another one."""
    say(f"{count} guests start one by one, on {len(lab.hosts)} hosts")
    hosts = list(lab.hosts.values())
    taken: dict[str, list[float]] = {OURS: [], PLAIN: []}
    for bridge, seconds in taken.items():
        for host in hosts:  # the hosts learn each other's addresses on the underlay
            _newcomer(lab, host, bridge, 250)
        seconds += [_newcomer(lab, hosts[n % len(hosts)], bridge, n) for n in range(count)]
    return taken


def _newcomer(lab: Lab, host: Host, bridge: str, number: int) -> float:
    """Seconds that one guest waits; it is gone afterwards."""
    space, port, mac = f"{lab.name}-newcomer", "newcomer", random_mac()
    address = f"{TARGET[bridge].rsplit('.', 2)[0]}.1.{number % 254 + 1}"
    lines = [
        f"netns add {space}",
        f"link add {port} netns {host.netns} type veth peer eth0 netns {space} address {mac}",
    ]
    with lab.state.edit() as state:
        state.namespaces.append(space)
    try:
        ns.ip_batch(lines)
        ns.ip_batch([f"link set {port} up"], host.netns)
        ns.ip_batch(["link set eth0 up"], space)
        ids = {"attached-mac": f'"{mac}"', "iface-id": str(uuid.uuid4()), "vm-id": str(uuid.uuid4()),
               "iface-status": "active", "port-profile": '"bench:default"'}  # fmt: skip
        columns = [f"external_ids:{key}={value}" for key, value in ids.items()]
        with open_raw(space, "eth0") as raw:
            host.vsctl("--no-wait", "add-port", bridge, port, "--", "set", "Interface", port, *columns)
            begun = time.monotonic()
            _ask_until_answered(raw, mac, address, TARGET[bridge])
            return time.monotonic() - begun
    finally:
        host.vsctl("--if-exists", "del-port", port)
        ns.ip_batch_forced([f"link del {port}"], host.netns)
        ns.ip_batch_forced([f"netns del {space}"])
        with lab.state.edit() as state:
            state.namespaces.remove(space)


def _ask_until_answered(raw: socket.socket, mac: str, address: str, target: str) -> None:
    question, answered = arp_question(mac, address, target), _answer_from(target)
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        raw.send(question)
        until = time.monotonic() + _EVERY
        while (left := until - time.monotonic()) > 0:
            if select.select([raw], [], [], left)[0] and answered(raw.recv(2048)):
                return
    raise LabError(f"a new guest had no answer in {_PATIENCE:.0f} s")


def arp_question(mac: str, address: str, target: str, to: str = "ff:ff:ff:ff:ff:ff") -> bytes:
    """RFC 826: a frame that asks who has the target."""
    own = bytes.fromhex(mac.replace(":", ""))
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + own + IPv4Address(address).packed
    body += bytes(6) + IPv4Address(target).packed
    return (bytes.fromhex(to.replace(":", "")) + own + struct.pack("!H", _ARP) + body).ljust(60, b"\0")


def _answer_from(target: str) -> Callable[[bytes], bool]:
    """Whether a frame is an ARP reply of the target."""
    start, sender = struct.pack("!HHHBBH", _ARP, 1, 0x0800, 6, 4, 2), IPv4Address(target).packed
    return lambda frame: frame[12:22] == start and frame[28:32] == sender


# -- many guests on a switch that lost its flows


def _crowd(lab: Lab, count: int, rounds: int) -> dict[str, list[float]]:
    """From the moment that a switch without flows is connected until all its guests had an answer.

    The baseline is as long as all guests of a plain bridge take on the same host while nothing happens.
    """
    host = lab.hosts["h1"]
    say(f"{count} guests on one host, {rounds} restarts of its switch")
    taken: dict[str, list[float]] = {PLAIN: [], OURS: []}
    for bridge, seconds in taken.items():
        net = TARGET[bridge].rsplit(".", 2)[0]
        nics = [Nic("bench", addresses=(f"{net}.2.{n + 1}/16",)) for n in range(count)]
        crowd = lab.start_lights(host.name, [(f"crowd{n}", [nic]) for n, nic in enumerate(nics)], bridge)
        with _questions(crowd, bridge) as questions:
            all_answered(questions, TARGET[bridge])
            for _ in range(rounds):
                begun = _restarted(lab, host) if bridge == OURS else time.time()
                seconds.append(all_answered(questions, TARGET[bridge]) - begun)
        lab.stop_lights(crowd)
    return taken


def _restarted(lab: Lab, host: Host) -> float:
    """Kill the switch, start it without a flow; returns when the controller says that it connected, as Unix time."""
    position = lab.controller.log.stat().st_size
    host.kill("ovs-vswitchd")
    host.start("ovs-vswitchd")
    return _connected(lab, host.name, position)


def _connected(lab: Lab, host: str, position: int) -> float:
    """When the controller says that the host's switch connected, in the log from this position on; Unix time."""
    line = re.compile(rf"^(\S+ [\d:]+),(\d+) .*\b{host}: OpenFlow connected", re.MULTILINE)

    def look() -> float | None:
        found = line.search(lab.controller.log.read_bytes()[position:].decode(errors="replace"))
        return datetime.fromisoformat(found[1]).timestamp() + int(found[2]) / 1000 if found else None

    return wait_for(f"{host} connected", look, _PATIENCE, every=0.005)


@contextmanager
def _questions(crowd: Sequence[LightGuest], bridge: str) -> Iterator[dict[socket.socket, bytes]]:
    """Each guest's wire, and what it asks there: the target's own MAC, for broadcasts of so many to so many would be
    all that is measured."""
    with ExitStack() as stack:
        found = {}
        for guest in crowd:
            raw, nic = stack.enter_context(open_raw(guest.netns, "eth0")), guest.nics[0]
            found[raw] = arp_question(nic.mac, nic.addresses[0].split("/")[0], TARGET[bridge], TARGET_MAC[bridge])
        yield found


def all_answered(
    questions: Mapping[socket.socket, bytes], target: str, patience: float = _PATIENCE, every: float = 5 * _EVERY
) -> float:
    """Every guest asks at its wire until the target answers; returns when the last was answered, as Unix time."""
    answered, waiting = _answer_from(target), set(questions)
    with selectors.DefaultSelector() as selector:
        for raw in waiting:
            while select.select([raw], [], [], 0)[0]:  # answers to what was asked before
                raw.recv(2048)
            selector.register(raw, selectors.EVENT_READ)
        deadline = time.monotonic() + patience
        while waiting and time.monotonic() < deadline:
            for raw in waiting:
                raw.send(questions[raw])
            until = time.monotonic() + every
            while waiting and (left := until - time.monotonic()) > 0:
                for key, _ in selector.select(left):
                    raw = key.fileobj  # type: ignore[assignment]
                    if answered(raw.recv(2048)) and raw in waiting:
                        waiting.discard(raw)
                        selector.unregister(raw)
        if waiting:
            raise LabError(f"{len(waiting)} of {len(questions)} guests had no answer in {patience:.0f} s")
        return time.time()
