"""Guests on three bridges of the same hosts, and what is sent between them: ours, NORMAL, and one that copies each port
to another."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from labkit import netns as ns
from labkit.host import Host
from labkit.lab import Lab
from labkit.light import LightGuest
from labkit.nic import Nic
from labkit.run import LabError, run, wait_for

from .plain import OURS, PLAIN
from .processes import cpu

DIRECT = "br-direct"
LOCAL, OVERLAY, OUT = "local", "overlay", "through NAT"
NETWORK = """\
kind: Network
name: bench
mode: nat
subnets: [10.94.0.254/24]
portgroups: {default: {learn_addresses: 1}}
"""
OUTSIDE = """\
external: {uplink: physnet1, address: 203.0.113.11/24, gateway: 203.0.113.1}
"""
_NETS = {OURS: "10.94.0", PLAIN: "10.95.0", DIRECT: "10.96.0"}
_OUTSIDE = {OURS: "203.0.113.1", PLAIN: f"{_NETS[PLAIN]}.200"}  # of the machine outside
_KEYS = {PLAIN: 7001, DIRECT: 7002}
_MTU = 1400  # with any encapsulation it fits in the underlay
_PLACES = (("h1", 1), ("h1", 2), ("h1", 3), ("h2", 4))  # host, and last byte of the address
_PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Path:
    """From a guest to a machine at an address, on some bridge. ``names`` are namespaces, ``hosts`` who carries it."""

    bridge: str
    kind: str
    sender: str
    receiver: str
    address: str
    hosts: tuple[Host, ...]

    def switching(self) -> float:
        """Seconds of processor time that its switches have taken so far."""
        return cpu(host.process("ovs-vswitchd").pid for host in self.hosts)


@contextmanager
def paths(lab: Lab) -> Iterator[list[Path]]:
    """All of them, with an iperf3 at each receiver. The lab has two hosts, two physical networks and a controller that
    has ``NETWORK`` and, of its first host, ``OUTSIDE``."""
    first, second = lab.hosts["h1"], lab.hosts["h2"]
    found: list[Path] = []
    for bridge, net in _NETS.items():
        if bridge != OURS:
            _plain(bridge, first, second)
        guests = [_guest(lab, bridge, net, host, number) for host, number in _PLACES]
        if bridge == DIRECT:
            _pairs(first, second, guests)
        one, two, three, four = (guest.netns for guest in guests)
        found.append(Path(bridge, LOCAL, one, two, f"{net}.2", (first,)))
        found.append(Path(bridge, OVERLAY, three, four, f"{net}.4", (first, second)))
        if bridge in _OUTSIDE:
            found.append(Path(bridge, OUT, one, lab.outside, _OUTSIDE[bridge], (first,)))
    _outside(lab)
    with ExitStack() as stack:
        for receiver in {path.receiver for path in found}:
            process = subprocess.Popen(ns.argv_in(receiver, ["iperf3", "-s"]), stdin=subprocess.DEVNULL,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
            stack.callback(process.wait, _PATIENCE)
            stack.callback(process.terminate)
        for path in found:
            _reaches(path)
        yield found


def _plain(bridge: str, first: Host, second: Host) -> None:
    """A bridge on both hosts with a tunnel between them; the one that does NORMAL has the second physical network."""
    for host, other in ((first, second), (second, first)):
        host.add_bridge(bridge, fail_mode="standalone" if bridge == PLAIN else "secure")
        port = f"gnv{_KEYS[bridge]}"
        host.vsctl("add-port", bridge, port, "--", "set", "Interface", port, "type=geneve",
                   f"options:remote_ip={other.tunnel_ip}", f"options:key={_KEYS[bridge]}")  # fmt: skip
    if bridge == PLAIN:
        first.vsctl("add-port", bridge, "eth3")


def _guest(lab: Lab, bridge: str, net: str, host: str, number: int) -> LightGuest:
    gateways = (f"{net}.254",) if bridge == OURS else ()
    nic = Nic("bench", None, f"52:54:00:f0:{int(net.split('.')[1]):02x}:{number:02x}", (f"{net}.{number}/24",),
              gateways=gateways, mtu=_MTU)  # fmt: skip
    return lab.start_light(host, f"{bridge[3:]}{number}", [nic], bridge)


def _pairs(first: Host, second: Host, guests: Sequence[LightGuest]) -> None:
    """Each port to one other: what it costs to forward at all."""
    one, two, three, four = (guest.ports()[0] for guest in guests)
    tunnel = f"gnv{_KEYS[DIRECT]}"
    for host, ends in ((first, (one, two)), (first, (three, tunnel)), (second, (four, tunnel))):
        for here, there in (ends, ends[::-1]):
            host.ofctl("add-flow", DIRECT, f"in_port={here},actions=output:{there}")


def _outside(lab: Lab) -> None:
    """The router of ours in one physical network, and a machine of NORMAL's in the other."""
    lines = [f"addr add {_OUTSIDE[OURS]}/24 dev eth0", f"addr add {_OUTSIDE[PLAIN]}/24 dev eth1"]
    ns.ip_batch([*lines, *(f"link set eth{n} mtu {_MTU}" for n in (0, 1))], lab.outside)


def _reaches(path: Path) -> None:
    ping = ns.argv_in(path.sender, ["ping", "-n", "-c1", "-W1", path.address])
    wait_for(f"{path.bridge}: {path.kind}", lambda: run(ping, check=False).returncode == 0, _PATIENCE)


# -- what is sent


def stream(path: Path, seconds: int) -> float:
    """Bits a second of one TCP connection, as the receiver counts them."""
    return float(_iperf(path, seconds)["end"]["sum_received"]["bits_per_second"])


def small(path: Path, seconds: int) -> tuple[float, float]:
    """Datagrams of 64 bytes that arrive a second of as many as the sender can send, and the seconds of the switches'
    processor time for each."""
    before = path.switching()
    told = _iperf(path, seconds, "-u", "-l", "64", "-b", "0")["end"]["sum"]
    arrived = told["packets"] - told["lost_packets"]
    return arrived / told["seconds"], (path.switching() - before) / max(1, arrived)


def _iperf(path: Path, seconds: int, *more: str) -> dict[str, dict[str, dict[str, float]]]:
    argv = ns.argv_in(path.sender, ["iperf3", "-J", "-c", path.address, "-t", str(seconds), *more])
    told: dict[str, dict[str, dict[str, float]]] = {}
    deadline = time.monotonic() + _PATIENCE
    while "end" not in told or "error" in told:
        done = run(argv, check=False, timeout=seconds + _PATIENCE)
        told = json.loads(done.stdout or "{}")
        error = str(told.get("error", ""))
        # for a moment after a flood of datagrams the server still waits for their end
        if time.monotonic() > deadline or (error and "busy" not in error):
            raise LabError(f"iperf3 from {path.sender} to {path.address}: {error or done.stderr}")
    return told


def datapath_flows(path: Path, kind: socket.SocketKind, count: int) -> int:
    """How many flows the datapath of the sender's host has for so many connections that are in use, each to a port of
    its own among all that are not reserved."""
    host = path.hosts[0]
    with ExitStack() as stack:
        pairs = [_connected(path, kind, 1024 + number * 60000 // count, stack) for number in range(count)]
        host.appctl("dpctl/del-flows")
        for _ in range(3):
            for pair in pairs:
                for sender, receiver in (pair, pair[::-1]):
                    sender.send(b"x")
                    receiver.recv(16)
        return used(host.appctl("dpctl/dump-flows"))


def used(dump: str) -> int:
    """How many of the datapath's flows are used: what a single frame has made belongs to something else, such as
    neighbour discovery or LLDP."""
    return sum("recirc_id" in flow and "packets:0," not in flow for flow in dump.splitlines())


def _connected(path: Path, kind: socket.SocketKind, port: int, stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    def opened(space: str) -> socket.socket:
        made = stack.enter_context(ns.call_in(space, lambda: socket.socket(socket.AF_INET, kind)))
        made.settimeout(_PATIENCE)
        return made

    asks, answers = opened(path.sender), opened(path.receiver)
    answers.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    answers.bind((path.address, port))
    if kind == socket.SOCK_STREAM:
        answers.listen()
        asks.connect((path.address, port))
        accepted, _ = answers.accept()
        stack.enter_context(accepted).settimeout(_PATIENCE)
        return asks, accepted
    asks.connect((path.address, port))
    asks.send(b"?")
    answers.connect(answers.recvfrom(16)[1])
    return asks, answers
