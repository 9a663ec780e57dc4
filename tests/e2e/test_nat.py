"""Guests of a nat network reach the outside by their host's address, and nobody reaches them from there."""

from __future__ import annotations

import re
import signal
import socket
import time

import pytest
from e2e_echo import Echo, a_socket, asks, connects, refused
from e2e_fleet import PATIENCE, Fleet, eventually, pings
from labkit import Guest, LightGuest, Nic
from labkit.capture import Frame, capture
from labkit.host import Host
from labkit.run import run

from controller import meters
from controller.pipeline.ports import FORWARDED

pytestmark = pytest.mark.lab
HOSTS = 2

WEB = """\
kind: Network
name: web
mode: nat
subnets: [10.77.0.0/24, "fd77::/64"]
dhcp: {range: [10.77.0.100, 10.77.0.120]}
portgroups: {default: {learn_addresses: 1}}
---
kind: Network
name: shop
mode: nat
subnets: [10.78.0.0/24]
dhcp: {range: [10.78.0.100, 10.78.0.120]}
"""
NEAR, FAR, FAR6 = "203.0.113.1", "198.51.100.7", "2001:db8:ffff::7"
FLOATING, FLOATING6 = "203.0.113.60", "2001:db8::60"
ECHO_PORT = 7  # of a real guest's own echo service


def outside(fleet: Fleet, command: str) -> tuple[int, str]:
    """Run a shell line on the machine outside."""
    done = run(["ip", "netns", "exec", f"{fleet.lab.name}-out", "sh", "-c", command], check=False)
    return done.returncode, done.stdout + done.stderr


def announces(frame: Frame, mac: str) -> bool:
    """Whether it is ARP or ND for everybody from that MAC."""
    everybody = {0x0806: "ff:ff:ff:ff:ff:ff", 0x86DD: "33:33:00:00:00:01"}
    return frame.src == mac and frame.dst == everybody.get(frame.ethertype)


def outside_pings(fleet: Fleet, address: str) -> bool:
    """Whether the machine outside gets an answer to one of a few pings."""
    return outside(fleet, f"for n in 1 2 3 4 5; do ping -n -c1 -W1 {address} && exit 0; done; exit 1")[0] == 0


def addressed(guest: Guest) -> str:
    eventually(f"{guest.name} has a lease", lambda: guest.run("cat /run/lease.eth0")[0] == 0)
    text = guest.run("cat /run/lease.eth0")[1]
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)["ip"]


def received(stream: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := stream.recv(size - len(data))):
        data += more
    return data


@pytest.fixture(scope="module")
def nat(fleet: Fleet) -> Fleet:
    """Both hosts with an address outside, and two nat networks."""
    outside(fleet, f"ip addr add 203.0.113.1/24 dev eth0; ip addr add {FAR}/32 dev lo")
    outside(fleet, f"ip addr add 2001:db8::1/64 dev eth0 nodad; ip addr add {FAR6}/128 dev lo")
    for number, name in enumerate(sorted(fleet.hosts)):
        document = fleet.host_document(name)
        document["external"] = {
            "uplink": "physnet1",
            "address": f"203.0.113.1{number + 1}/24",
            "gateway": "203.0.113.1",
            "address6": f"2001:db8::1{number + 1}/64",
            "gateway6": "2001:db8::1",
        }
        fleet.client.post("/apply", [document], wait=30.0)
    fleet.apply(WEB)
    return fleet


@pytest.fixture(scope="module")
def guests(nat: Fleet) -> dict[str, Guest]:
    """Two of one network, one a host, and one of the other."""
    places = {"n1": ("h1", "web"), "n2": ("h2", "web"), "n3": ("h1", "shop")}
    found = {name: nat.real(host, name, [Nic(network)]) for name, (host, network) in places.items()}
    for guest in found.values():
        addressed(guest)
    nat.wait_active([guest.nics[0].mac for guest in found.values()])
    return found


@pytest.fixture(scope="module")
def floating(nat: Fleet, guests: dict[str, Guest]) -> Guest:
    """A guest that has the addresses FLOATING and FLOATING6 outside from here on."""
    for name, address in (("own", FLOATING), ("own-ipv6", FLOATING6)):
        nat.apply(f'{{kind: FloatingIP, name: {name}, network: web, address: "{address}", target: {{vm: n1}}}}')
    return guests["n1"]


def test_guests_reach_the_outside_as_their_host_and_are_not_reached(nat: Fleet, guests: dict[str, Guest]) -> None:
    fleet, (one, two, other) = nat, guests.values()
    address, there, elsewhere = addressed(one), addressed(two), addressed(other)
    for guest in (one, two):
        assert pings(guest, FAR)
        assert pings(guest, "203.0.113.1")
    for guest in (one, two):  # by an address that it made itself, and by the router that it was told of
        eventually(f"{guest.name} reaches {FAR6}", lambda guest=guest: pings(guest, FAR6, tries=1))
    assert pings(one, there)
    assert not pings(one, elsewhere, tries=2)  # nat networks do not reach each other
    assert pings(other, FAR)
    listener = "rm -f /tmp/said; (timeout 20 nc -l -p 8080 -s 203.0.113.1 >/tmp/said 2>&1 &) ; sleep 0.3"
    outside(fleet, listener)
    code, said = one.run("echo hello | nc -w 3 203.0.113.1 8080; echo done")
    assert code == 0, said
    outside(fleet, "ip route add 10.77.0.0/24 via 203.0.113.11")
    code, _ = outside(fleet, f"ping -n -c2 -W1 {address}")
    assert code != 0
    assert outside(fleet, "ping -n -c1 -W2 203.0.113.11")[0] == 0


def test_nat_goes_on_without_a_controller(nat: Fleet, guests: dict[str, Guest], floating: Guest) -> None:
    fleet, one, two = nat, floating, guests["n2"]
    for guest in (one, two):
        assert pings(guest, FAR)
    assert outside_pings(fleet, FLOATING)
    fleet.controller.stop(signal.SIGKILL)
    for guest in (one, two):
        assert pings(guest, FAR)
        assert pings(guest, "203.0.113.1")
    assert outside_pings(fleet, FLOATING)
    fleet.controller.start()
    fleet.settle()
    for guest in (one, two):
        assert pings(guest, FAR)


def test_a_floating_address_moves_with_its_guest(nat: Fleet, floating: Guest) -> None:
    """Connections from the outside and from the fleet live on, on either host, and the guest is seen as ever."""
    fleet, guest, out = nat, floating, nat.lab.outside
    address = addressed(guest)
    peer = fleet.lights({"peer": ("h2", [Nic("web", addresses=("10.77.0.12/24",), gateways=("10.77.0.1",))])})["peer"]
    fleet.apply(peer.ports_yaml() + "addresses: [10.77.0.12]\n")
    eventually("its echo answers", lambda: not refused(out, (FLOATING, ECHO_PORT)))
    eventually("its IPv6 address is reached", lambda: outside_pings(fleet, FLOATING6))
    macs = [fleet.get("FloatingIP", name)["status"]["mac"] for name in ("own", "own-ipv6")]
    with (
        capture(out, "eth0") as wire,
        a_socket(out, socket.SOCK_STREAM, "203.0.113.1") as near,
        a_socket(out, socket.SOCK_STREAM, FAR) as far,
        a_socket(peer.netns, socket.SOCK_STREAM) as inside,
    ):
        streams = (near, far, inside)
        for stream in streams:
            stream.connect((FLOATING, ECHO_PORT))
        for host in ("h1", "h2", "h1"):
            if guest.host.name != host:
                begun = time.monotonic()
                guest.migrate(host)
                eventually("it is there", lambda host=host: fleet.get("FloatingIP", "own")["status"]["host"] == host)
                fleet.settle()
                for mac in macs:
                    wire.wait(
                        lambda frame, begun=begun, mac=mac: announces(frame, mac) and frame.time > begun, PATIENCE
                    )
            assert fleet.get("FloatingIP", "own")["status"]["target"] == address
            for stream in streams:
                stream.settimeout(30.0)
                stream.sendall(host.encode() * 1000)
                assert received(stream, 2000) == host.encode() * 1000
            assert pings(peer, FLOATING)
            assert outside_pings(fleet, FLOATING)
            assert outside_pings(fleet, FLOATING6)


POOL = """\
kind: Network
name: pool
mode: nat
subnets: [10.79.0.0/24]
nat: {addresses: [203.0.113.70-203.0.113.71], ports: 20000-20999}
---
kind: PortForward
name: pool
network: pool
listen: {port: 8081}
target: {vnic: p1-0, port: 80}
"""


@pytest.fixture(scope="module")
def pooled(nat: Fleet) -> dict[str, LightGuest]:
    """Guests of a network with a pool, two on one host, and a third host's worth of them on the other."""
    nat.apply(POOL)
    places = {"p1": ("h1", 11), "p2": ("h2", 12), "p3": ("h1", 13)}
    found = nat.lights({
        name: (host, [Nic("pool", addresses=(f"10.79.0.{last}/24",), gateways=("10.79.0.1",))])
        for name, (host, last) in places.items()
    })  # fmt: skip
    for name, (_, last) in places.items():
        nat.apply(found[name].ports_yaml() + f"addresses: [10.79.0.{last}]\n")
    return found


def test_guests_of_a_pool_leave_as_their_hosts_own_address_of_it(nat: Fleet, pooled: dict[str, LightGuest]) -> None:
    fleet, out = nat, nat.lab.outside
    own = fleet.get("Network", "pool")["status"]["nat_addresses"]
    assert sorted(own) == ["h1", "h2"]
    assert sorted(own.values()) == ["203.0.113.70", "203.0.113.71"]
    for guest in pooled.values():
        host = guest.host.name
        assert pings(guest, FAR)
        for kind, port in ((socket.SOCK_STREAM, 9001), (socket.SOCK_DGRAM, 9002)):
            with Echo(out, port, kind) as echo:
                (connects if kind == socket.SOCK_STREAM else asks)(guest.netns, "", (NEAR, port))
            assert {address for address, _ in echo.peers} == {own[host]}
            assert all(20000 <= number <= 20999 for _, number in echo.peers)
    with Echo(pooled["p1"], 80, socket.SOCK_STREAM):
        connects(out, NEAR, ("203.0.113.11", 8081))  # forwarded by the host's external address
        assert refused(out, (own["h1"], 8081))
    assert outside(fleet, f"ping -n -c1 -W1 {own['h1']}")[0] != 0


def test_a_guest_that_begins_too_much_holds_up_no_other(nat: Fleet, pooled: dict[str, LightGuest]) -> None:
    """Each port that it sends to is a connection for the tracker, which all guests of the host share."""
    flooder, other = pooled["p1"], pooled["p3"]
    begun = time.monotonic()

    def stopped() -> bool:
        with a_socket(flooder.netns, socket.SOCK_DGRAM) as flood:
            for port in range(10000, 13000):
                flood.sendto(b"x", (NEAR, port))
                if not port % 50:
                    time.sleep(0.005)  # or they are lost before they reach the switch
        return sum(dropped(flooder.host)) > 0

    eventually("a meter stops it", stopped)
    for port in (9003, 9004, 9005):
        with Echo(nat.lab.outside, port, socket.SOCK_STREAM):
            connects(other.netns, "", (NEAR, port))
    table = flooder.host.appctl("dpctl/dump-conntrack", "zone=62965").splitlines()
    noted = sum(line.startswith("udp") and "src=10.79.0.11," in line for line in table)
    assert 0 < noted <= meters.CONNECTIONS_BURST + meters.CONNECTIONS * (time.monotonic() - begun + 1)


def dropped(host: Host) -> list[int]:
    """Packets that each meter of connections has dropped."""
    stats = host.ofctl("meter-stats", "br-int")
    bands = re.findall(r"meter:(\d+) .*?bands:\s*0: packet_count:(\d+)", stats, re.DOTALL)
    return [int(count) for meter, count in bands if int(meter) > FORWARDED]
