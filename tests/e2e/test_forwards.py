"""Ports of hosts' external addresses lead to guests on any host; nothing else from outside does."""

from __future__ import annotations

import contextlib
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from functools import partial

import pytest
from e2e_fleet import Fleet, eventually
from labkit import LightGuest, Nic, netns
from labkit.capture import Frame, capture
from labkit.run import run

pytestmark = pytest.mark.lab
HOSTS, LIBVIRT = 2, 0

NETWORK = """\
kind: Network
name: web
mode: nat
subnets: [10.77.0.0/24]
---
kind: Network
name: shop
mode: nat
subnets: [10.78.0.0/24]
"""
FORWARDS = """\
---
kind: PortForward
name: one
network: web
listen: {port: 8081}
target: {vnic: g1-0, port: 80}
---
kind: PortForward
name: two
network: web
listen: {port: 8082}
target: {address: 10.77.0.12, port: 80}
---
kind: PortForward
name: shop
network: shop
listen: {port: 8083, host: h2}
target: {vnic: other-0, port: 80}
---
kind: PortForward
name: calls
network: web
listen: {port: 5000-5009, protocol: udp}
target: {vnic: g2-0}
---
kind: PortForward
name: moved
network: web
listen: {port: 6000-6003, protocol: udp, host: h1}
target: {vnic: g2-0, port: 7000-7003}
"""
NEAR, FAR = "203.0.113.1", "198.51.100.7"
EXTERNAL = {"h1": "203.0.113.11", "h2": "203.0.113.12"}
Guests = dict[str, LightGuest]


@pytest.fixture(scope="module")
def guests(fleet: Fleet) -> Guests:
    """Both hosts with an address outside, a guest of the network on each, one of another network, and the forwards."""
    outside(fleet, f"addr add {NEAR}/24 dev eth0", f"addr add {FAR}/32 dev lo")
    for name, address in EXTERNAL.items():
        external = {"uplink": "physnet1", "address": f"{address}/24", "gateway": NEAR}
        fleet.client.post("/apply", [{**fleet.host_document(name), "external": external}], wait=30.0)
    fleet.apply(NETWORK)
    found = {}
    for name, host, network, subnet, last in (
        ("g1", "h1", "web", "10.77.0", 11), ("g2", "h2", "web", "10.77.0", 12), ("other", "h1", "shop", "10.78.0", 13),
    ):  # fmt: skip
        nic = Nic(network, addresses=(f"{subnet}.{last}/24",), gateways=(f"{subnet}.1",), mtu=1450)
        fleet.hosts[host].wait_bridge("br-int")
        guest = found[name] = fleet.lab.start_light(host, name, [nic])
        fleet.apply(guest.ports_yaml() + f"addresses: [{subnet}.{last}]\n")
    fleet.wait_active(guest.nics[0].mac for guest in found.values())
    fleet.apply(FORWARDS)
    return found


def outside(fleet: Fleet, *lines: str) -> None:
    """Have ip(8) do this on the machine outside."""
    for line in lines:
        run(netns.argv_in(fleet.lab.outside, ["ip", *line.split()]))


def a_socket(space: str, kind: socket.SocketKind, address: str = "", port: int = 0) -> socket.socket:
    """A socket of a namespace, bound to the address."""

    def work() -> socket.socket:
        made = socket.socket(socket.AF_INET, kind)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
        return made

    made: socket.socket = netns.call_in(space, work)
    made.settimeout(10.0)
    return made


class Echo:
    """Answers on a port of a guest; ``peers`` are who came, as the guest sees them."""

    def __init__(self, guest: LightGuest, port: int, kind: socket.SocketKind) -> None:
        self.peers: list[tuple[str, int]] = []
        self._socket = a_socket(guest.netns, kind, "", port)
        self._kind = kind
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Echo:
        if self._kind == socket.SOCK_STREAM:
            self._socket.listen()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(timeout=15.0)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                if self._kind == socket.SOCK_STREAM:
                    self._stream()
                else:
                    data, peer = self._socket.recvfrom(65536)
                    self.peers.append(peer)
                    self._socket.sendto(data, peer)

    def _stream(self) -> None:
        connection, peer = self._socket.accept()
        self.peers.append(peer)
        with connection:
            connection.settimeout(10.0)
            while data := connection.recv(65536):
                connection.sendall(data)


def echoed(client: socket.socket, size: int) -> int:
    """How many bytes of so many came back over a connected stream."""
    sender = threading.Thread(target=lambda: (client.sendall(b"x" * size), client.shutdown(socket.SHUT_WR)))
    sender.start()
    count = 0
    while data := client.recv(65536):
        count += len(data)
    sender.join()
    return count


def connects(space: str, source: str, target: tuple[str, int], size: int = 200_000) -> tuple[str, int]:
    """Connect, send and get it all back; gives the client's own address. Raises OSError."""
    with a_socket(space, socket.SOCK_STREAM, source) as client:
        client.connect(target)
        own: tuple[str, int] = client.getsockname()
        assert echoed(client, size) == size
        return own


def asks(space: str, source: str, target: tuple[str, int], *sizes: int) -> tuple[str, int]:
    """Send datagrams of these sizes, each until it is answered; gives the client's own address."""
    with a_socket(space, socket.SOCK_DGRAM, source) as client:
        client.settimeout(1.0)

        def answered(size: int) -> bool:
            client.sendto(b"x" * size, target)
            with contextlib.suppress(TimeoutError):
                data, peer = client.recvfrom(65536)
                return peer == target and len(data) == size
            return False

        for size in sizes or (100,):
            eventually(f"{target} answers {size} bytes", partial(answered, size))
        own: tuple[str, int] = client.getsockname()
        return own


def refused(space: str, target: tuple[str, int]) -> bool:
    """Whether nobody answers at all."""
    with a_socket(space, socket.SOCK_STREAM) as client:
        client.settimeout(1.0)
        return client.connect_ex(target) != 0


def ends(frame: Frame) -> tuple[str, int, str, int] | None:
    """Source and destination of a TCP or UDP packet."""
    if frame.ethertype != 0x0800 or frame.payload[9] not in {6, 17}:
        return None
    packet = frame.payload
    source, target = struct.unpack_from("!HH", packet, 4 * (packet[0] & 15))
    return socket.inet_ntoa(packet[12:16]), source, socket.inet_ntoa(packet[16:20]), target


@pytest.mark.parametrize("host", ["h1", "h2"])
@pytest.mark.parametrize(("guest", "port"), [("g1", 8081), ("g2", 8082)])
@pytest.mark.parametrize("source", [NEAR, FAR])
def test_tcp_by_either_host_to_a_guest_on_either(
    fleet: Fleet, guests: Guests, host: str, guest: str, port: int, source: str
) -> None:
    out, external = fleet.lab.outside, EXTERNAL[host]
    with (
        Echo(guests[guest], 80, socket.SOCK_STREAM) as server,
        capture(out, "eth0", outgoing=True) as wire,
        capture(guests[guest].netns, "eth0", outgoing=True) as inside,
    ):
        client = connects(out, source, (external, port))
    assert server.peers == [client]  # the guest sees who it is
    address = f"10.77.0.1{guest[1]}"
    seen_outside = {found for frame in wire.frames if (found := ends(frame))}
    assert seen_outside == {(*client, external, port), (external, port, *client)}
    seen_inside = {found for frame in inside.frames if (found := ends(frame))}
    assert seen_inside == {(*client, address, 80), (address, 80, *client)}


def test_a_host_without_a_guest_of_the_network_forwards_too(fleet: Fleet, guests: Guests) -> None:
    with Echo(guests["other"], 80, socket.SOCK_STREAM) as server:
        client = connects(fleet.lab.outside, FAR, (EXTERNAL["h2"], 8083))
        assert server.peers == [client]
        assert refused(fleet.lab.outside, (EXTERNAL["h1"], 8083))


def _every_udp() -> Iterator[tuple[str, int, int]]:
    for host in EXTERNAL:
        yield host, 5000, 5000
        yield host, 5009, 5009
    yield "h1", 6000, 7000
    yield "h1", 6003, 7003


@pytest.mark.parametrize(("host", "port", "inside"), list(_every_udp()))
def test_ranges_of_udp(fleet: Fleet, guests: Guests, host: str, port: int, inside: int) -> None:
    with Echo(guests["g2"], inside, socket.SOCK_DGRAM) as server:
        assert asks(fleet.lab.outside, FAR, (EXTERNAL[host], port)) in server.peers


def test_nothing_else_comes_in(fleet: Fleet, guests: Guests) -> None:
    out = fleet.lab.outside
    with Echo(guests["g2"], 80, socket.SOCK_STREAM), Echo(guests["g2"], 81, socket.SOCK_STREAM):
        connects(out, NEAR, (EXTERNAL["h1"], 8082))
        for port in (80, 81, 5000):
            assert refused(out, (EXTERNAL["h1"], port))
        outside(fleet, f"route add 10.77.0.0/24 via {EXTERNAL['h1']}")
        assert refused(out, ("10.77.0.12", 80))
        outside(fleet, "route del 10.77.0.0/24")


@pytest.mark.parametrize("client", ["g1", "g2", "other"])
@pytest.mark.parametrize("host", ["h1", "h2"])
@pytest.mark.parametrize(("guest", "port"), [("g1", 8081), ("g2", 8082)])
def test_guests_use_the_external_addresses_too(
    fleet: Fleet, guests: Guests, client: str, host: str, guest: str, port: int
) -> None:
    """Also that of their own host, and for themselves; they are seen by the external address of their host."""
    own_host = guests[client].host.name
    with Echo(guests[guest], 80, socket.SOCK_STREAM) as server:
        connects(guests[client].netns, "", (EXTERNAL[host], port))
    assert [address for address, _ in server.peers] == [EXTERNAL[own_host]]


def test_a_target_speaks_to_the_outside_by_its_own_host(fleet: Fleet, guests: Guests) -> None:
    with a_socket(fleet.lab.outside, socket.SOCK_STREAM, NEAR) as server:
        server.listen()
        with a_socket(guests["g2"].netns, socket.SOCK_STREAM, "", 80) as client:
            client.connect(server.getsockname())
            connection, peer = server.accept()
            connection.close()
    assert peer[0] == EXTERNAL["h2"]


@pytest.mark.parametrize("host", ["h1", "h2"])
def test_what_the_guest_says_of_a_closed_port_reaches_the_client(fleet: Fleet, guests: Guests, host: str) -> None:
    """An ICMP error goes back the way that the datagram came."""
    with a_socket(fleet.lab.outside, socket.SOCK_DGRAM, FAR) as client:
        client.connect((EXTERNAL[host], 5001))
        client.settimeout(1.0)

        def told() -> bool:
            try:
                client.send(b"x")
                client.recv(10)
            except ConnectionRefusedError:
                return True
            except TimeoutError:
                return False
            return False

        eventually("the port is known to be closed", told)


def test_datagrams_in_fragments(fleet: Fleet, guests: Guests) -> None:
    """In a conversation that began with a whole one; each fits through the tunnels."""
    with Echo(guests["g2"], 5002, socket.SOCK_DGRAM):
        for address in EXTERNAL.values():
            outside(fleet, f"route add {address}/32 dev eth0 mtu lock 1400")
            asks(fleet.lab.outside, NEAR, (address, 5002), 100, 4000)
            outside(fleet, f"route del {address}/32")


def test_connections_go_on_without_a_controller(fleet: Fleet, guests: Guests) -> None:
    with Echo(guests["g1"], 80, socket.SOCK_STREAM):
        connects(fleet.lab.outside, NEAR, (EXTERNAL["h2"], 8081))
        fleet.controller.stop(signal.SIGKILL)
        try:
            connects(fleet.lab.outside, FAR, (EXTERNAL["h2"], 8081))
        finally:
            fleet.controller.start()
        fleet.settle()


def test_the_target_has_another_address_then_none(fleet: Fleet, guests: Guests) -> None:
    guest, out = guests["g2"], fleet.lab.outside
    fleet.apply(
        "kind: PortForward\nname: late\nnetwork: web\nlisten: {port: 9000}\n"
        f"target: {{vm: {guest.vm_id}, port: 80}}\n"
    )
    with Echo(guest, 80, socket.SOCK_STREAM) as server:
        connects(out, NEAR, (EXTERNAL["h1"], 9000))
        guest.run("ip addr del 10.77.0.12/24 dev eth0; ip addr add 10.77.0.112/24 dev eth0; "
                  "ip route replace default via 10.77.0.1")  # fmt: skip
        fleet.apply(guest.ports_yaml() + "addresses: [10.77.0.112]\n")
        fleet.settle()
        assert fleet.get("PortForward", "late")["status"]["target"] == "10.77.0.112"
        connects(out, NEAR, (EXTERNAL["h1"], 9000))
        assert len(server.peers) == 2
        assert refused(out, (EXTERNAL["h1"], 8082))  # nobody has the address that this one names
        fleet.delete([("PortForward", "late")])
        assert refused(out, (EXTERNAL["h1"], 9000))
