"""LLDP on the wire: the topology shows who the uplinks are really connected with, lldpd sees the hosts, guests have no
part in it, and a flood of it disturbs nobody.
"""

from __future__ import annotations

import contextlib
import json
import struct
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from e2e_fleet import Fleet, eventually, installed, wait_ping
from e2e_frames import BROADCAST, Build, Place, ethernet, heard, inside, marked
from labkit import Lab, LightGuest, Nic, netns, send
from labkit.run import run

pytestmark = pytest.mark.lab
LAB, HOSTS, LIBVIRT = "ll", 2, False

LLDP, NEAREST = 0x88CC, "01:80:c2:00:00:0e"
LAN = "{kind: Network, name: lan, mode: bridge, physical_network: physnet1}"
SWITCH = "02:00:00:5e:00:01"  # what speaks on the outside machine's cable
BETWEEN_SWITCHES = [
    "01:80:c2:00:00:00", "01:80:c2:00:00:02", "01:80:c2:00:00:03", NEAREST, "01:80:c2:00:00:0f", "01:00:0c:cc:cc:cc",
    "01:00:0c:cc:cc:cd", "01:00:0c:cd:cd:cd", "01:00:0c:cc:cc:c3", "01:00:0c:00:00:00", "00:e0:2b:00:00:00",
    "00:e0:2b:00:00:04", "00:e0:2b:00:00:06",
]  # fmt: skip
MACS = {"a": "52:54:00:7d:00:01", "b": "52:54:00:7d:00:02"}


def element(kind: int, value: bytes) -> bytes:
    return struct.pack("!H", kind << 9 | len(value)) + value


def announcement(chassis: str, port: str, ttl: int, *more: bytes) -> bytes:
    """An LLDP frame from the outside machine's cable."""
    first = element(1, b"\x07" + chassis.encode()) + element(2, b"\x05" + port.encode())
    return ethernet(NEAREST, SWITCH, LLDP, first + element(3, struct.pack("!H", ttl)) + b"".join(more) + bytes(2))


class Lldpd:
    """lldpd(8) on the outside machine's cable, as a physical switch has it."""

    def __init__(self, lab: Lab) -> None:
        # Its user, who has few rights, has to come to the folder.
        self._netns, self._socket = lab.outside, str(lab.state.dir / "lldpd.sock")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Lldpd:
        argv = ["lldpd", "-d", "-u", self._socket, "-I", "eth0", "-S", "Rack switch"]
        self._process = subprocess.Popen(
            netns.argv_in(self._netns, argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        eventually("lldpd answers", lambda: self._cli("show", "chassis").returncode == 0)
        for words in (
            "system hostname rack1", "ports eth0 lldp portidsubtype local Gi1/0/7 description downlink",
            "lldp tx-interval 1",
        ):  # fmt: skip
            assert self._cli("configure", *words.split()).returncode == 0
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Let it end as a service does: it takes back what it said."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20.0)
            self._process = None

    def neighbours(self) -> set[tuple[str, str, str]]:
        """System name, port id and port description of everybody whom it hears."""
        told = json.loads(self._cli("-f", "json0", "show", "neighbors").stdout)
        found = set()
        for interface in told["lldp"][0].get("interface", []):
            port = interface["port"][0]
            found.add((interface["chassis"][0]["name"][0]["value"], port["id"][0]["value"], port["descr"][0]["value"]))
        return found

    def _cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        return run(["lldpcli", "-u", self._socket, *words], check=False)


@pytest.fixture(scope="module")
def wire(fleet: Fleet) -> Fleet:
    """The physical segment lets LLDP through, as a cable does: everybody on it is everybody's neighbour."""
    fleet.lab.segment.vsctl("set", "Bridge", "seg", "other_config:forward-bpdu=true")
    return fleet


@pytest.fixture(scope="module")
def guests(wire: Fleet) -> dict[str, LightGuest]:
    wire.apply(LAN)
    return wire.lights({
        name: (f"h{n}", [Nic("lan", mac=MACS[name], addresses=(f"10.7.0.{n}/24",))]) for n, name in enumerate(MACS, 1)
    })  # fmt: skip


def heard_by(fleet: Fleet, host: str) -> dict[str, dict[str, Any]]:
    """What the graph's uplink of the host hears: the other end's label → the edge."""
    answer = fleet.client.get("/topology")
    labels = {node["id"]: node["label"] for node in answer["nodes"]}
    uplink, found = f"uplink:{host}/physnet1", {}
    for edge in answer["edges"]:
        ends = {edge["source"], edge["target"]}
        if edge["relation"] == "hears" and uplink in ends:
            [other] = ends - {uplink}
            found[labels[other]] = edge
    return found


def test_the_graph_shows_the_switch_and_the_switch_sees_the_hosts(wire: Fleet) -> None:
    with Lldpd(wire.lab) as lldpd:
        for host, other in (("h1", "h2/eth2"), ("h2", "h1/eth2")):
            eventually(f"{host} hears both", lambda h=host, o=other: heard_by(wire, h).keys() == {o, "rack1"})
            eventually("its port is told", lambda h=host: heard_by(wire, h)["rack1"]["port"] == "Gi1/0/7")
            edge = heard_by(wire, host)["rack1"]
            assert (edge["port_description"], edge["port_vlan"]) == ("downlink", None)
            assert 0 < edge["ttl"] < 10
        nodes = wire.client.get("/topology")["nodes"]
        [device] = [node for node in nodes if node["kind"] == "device"]
        assert (device["name"], device["description"]) == ("rack1", "Rack switch")
        told = {"h1", "h2"}
        eventually("lldpd hears the hosts", lambda: {name for name, *_ in lldpd.neighbours()} == told)
        assert lldpd.neighbours() == {(host, "eth2", "uplink to physnet1") for host in told}
        [there] = [each for each in wire.get("Host", "h1")["status"]["hears"] if each["host"] is None]
        assert (there["uplink"], there["system_name"], there["port"]) == ("physnet1", "rack1", "Gi1/0/7")
        assert "rack1" in wire.controller.fleetswitch("topology", "neighbours", "h1/eth2")
        assert "rack1" in wire.controller.fleetswitch("get", "host", "h1")

        netns.ip_batch(["link set eth2 down"], wire.hosts["h1"].netns)
        eventually("nobody is heard on a dark wire", lambda: heard_by(wire, "h1").keys() == set())
        netns.ip_batch(["link set eth2 up"], wire.hosts["h1"].netns)
        eventually("it is heard again", lambda: "rack1" in heard_by(wire, "h1"))
        lldpd.stop()
        for host in ("h1", "h2"):
            eventually("what is taken back is gone", lambda h=host: "rack1" not in heard_by(wire, h))


def test_what_is_told_holds_as_long_as_it_says(wire: Fleet) -> None:
    vlan = element(127, b"\x00\x80\xc2\x01\x00\x14")
    frame = announcement("sw9", "xe-0/0/1", 3, element(4, b"to h1"), element(5, b"core"), vlan)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_repeated(wire, frame))
        eventually("core is heard", lambda: "core" in heard_by(wire, "h1"))
        edge = heard_by(wire, "h1")["core"]
    told = tuple(edge[name] for name in ("port", "port_description", "port_vlan", "ttl"))
    assert told == ("xe-0/0/1", "to h1", 20, 3)
    eventually("it is forgotten", lambda: "core" not in heard_by(wire, "h1"))


@contextlib.contextmanager
def _repeated(fleet: Fleet, frame: bytes) -> Iterator[None]:
    """Sent once now; on a slow machine a short life may be over before it is looked at, so it is said again."""
    done = subprocess.Popen(
        netns.argv_in(fleet.lab.outside, ["python3", "-c", _REPEAT, frame.hex()]), stdin=subprocess.PIPE
    )
    try:
        yield
    finally:
        done.kill()
        done.communicate()


_REPEAT = """
import socket, sys, time
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind(("eth0", 0))
while True:
    raw.send(bytes.fromhex(sys.argv[1]))
    time.sleep(0.5)
"""


def test_what_is_between_switches_never_comes_to_guests_nor_from_them(
    wire: Fleet, guests: dict[str, LightGuest]
) -> None:
    wait_ping(guests["a"], "10.7.0.2")
    places = {name: inside(guest) for name, guest in guests.items()}
    places["outside"] = Place(wire.lab.outside, "eth0")
    lies = element(1, b"\x07liar") + element(2, b"\x05liar0") + element(3, b"\0\x78") + bytes(2)

    def lldp(dst: str, src: str, *tags: int) -> Build:
        return lambda marker: ethernet(dst, src, LLDP, lies + marker, tags)

    def other(dst: str, src: str) -> Build:
        return lambda marker: ethernet(dst, src, 0x8809, marker)

    for name, source, others in (("a", MACS["a"], {"b", "outside"}), ("outside", SWITCH, {"a", "b"})):
        builds = [other(dst, source) for dst in BETWEEN_SWITCHES]
        builds += [lldp(dst, source) for dst in (BROADCAST, MACS["b"], "01:80:c2:00:00:03")]
        if name == "a":  # from the outside it is somebody's to hear
            builds += [lldp(NEAREST, source), lldp(NEAREST, source, 0)]
        for build in builds:
            fence = (places[name], marked(source), others)
            assert heard(places, places[name], build, expected=(), fences=[fence]) == {}
    assert {edge for host in ("h1", "h2") for edge in heard_by(wire, host)} <= {"h1/eth2", "h2/eth2"}


def test_a_flood_of_it_disturbs_nobody(wire: Fleet, guests: dict[str, LightGuest]) -> None:
    process = wire.controller.process()
    assert process is not None
    before = {name: installed(host).keys() for name, host in wire.hosts.items()}
    limits = wire.hosts["h1"].vsctl("--columns=controller_rate_limit,controller_burst_limit", "list", "Controller")
    assert [line.split()[-1] for line in limits.splitlines()] == ["1000", "500"]
    frames = [announcement(f"flood{n}", "p", 4, element(5, b"x" * 250)) for n in range(4000)]
    send(wire.lab.outside, "eth0", *frames)
    eventually("some are heard", lambda: any(name.startswith("x") for name in heard_by(wire, "h1")))
    found = heard_by(wire, "h1")
    assert len(found) <= 16, "an uplink's neighbours are bounded"
    wait_ping(guests["a"], "10.7.0.2")
    for name in wire.hosts:
        assert wire.get("Host", name)["status"]["openflow"]["state"] == "up"
        assert "OpenFlow lost" not in wire.said(name)
    eventually("they are forgotten", lambda: not any(name.startswith("x") for name in heard_by(wire, "h1")))
    assert {name: installed(host).keys() for name, host in wire.hosts.items()} == before
