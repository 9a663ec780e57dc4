"""Ports of hosts' external addresses lead to guests on any host, floating addresses to theirs; nothing else from
outside does."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import ip_interface
from pathlib import Path

import pytest
import yaml
from e2e_echo import Echo, a_socket, answered, asks, closed, connects, ends, refused
from e2e_fleet import Fleet, eventually, wait_ping
from labkit import LightGuest, Nic, netns
from labkit.capture import capture
from labkit.run import run

pytestmark = pytest.mark.lab
HOSTS, LIBVIRT, PHYSNETS = 3, 0, 2

NETWORK = """\
kind: Network
name: web
mode: nat
subnets: [10.77.0.0/24, "fd00:77::/112"]
---
kind: Network
name: shop
mode: nat
subnets: [10.78.0.0/24, "fd00:78::/112"]
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
---
kind: PortForward
name: one-ipv6
network: web
listen: {port: 8081, family: ipv6}
target: {vnic: g1-0, port: 80}
---
kind: PortForward
name: two-ipv6
network: web
listen: {port: 8082}
target: {address: "fd00:77::12", port: 80}
---
kind: PortForward
name: shop-ipv6
network: shop
listen: {port: 8083, address: "2001:db8::12"}
target: {vnic: other-0, port: 80}
---
kind: PortForward
name: calls-ipv6
network: web
listen: {port: 5000-5009, protocol: udp, family: ipv6}
target: {vnic: g2-0}
"""
NEAR, FAR, NEAR6, FAR6 = "203.0.113.1", "198.51.100.7", "2001:db8::1", "2001:db8:ffff::7"
EXTERNAL = {"h1": "203.0.113.11", "h2": "203.0.113.12"}
EXTERNAL6 = {"h1": "2001:db8::11", "h2": "2001:db8::12"}
FAMILIES = {"": EXTERNAL, "::": EXTERNAL6}  # by the address at which a server of the family listens
Guests = dict[str, LightGuest]


@pytest.fixture(scope="module")
def guests(fleet: Fleet) -> Guests:
    """Both hosts with an address outside, a guest of the network on each, one of another network, and the forwards."""
    outside(fleet, f"addr add {NEAR}/24 dev eth0", f"addr add {FAR}/32 dev lo")
    outside(fleet, f"addr add {NEAR6}/64 dev eth0 nodad", f"addr add {FAR6}/128 dev lo")
    for name, address in EXTERNAL.items():
        external = {"uplink": "physnet1", "address": f"{address}/24", "gateway": NEAR}
        external |= {"address6": f"{EXTERNAL6[name]}/64", "gateway6": NEAR6}
        fleet.client.post("/apply", [{**fleet.host_document(name), "external": external}], wait=30.0)
    fleet.apply(NETWORK)
    found = {}
    for name, host, network, number, last in (
        ("g1", "h1", "web", 77, 11), ("g2", "h2", "web", 77, 12), ("other", "h1", "shop", 78, 13),
    ):  # fmt: skip
        own, own6, gateways = (
            f"10.{number}.0.{last}",
            f"fd00:{number}::{last}",
            (f"10.{number}.0.1", f"fd00:{number}::1"),
        )
        nic = Nic(network, addresses=(f"{own}/24", f"{own6}/112"), gateways=gateways, mtu=1450)
        fleet.hosts[host].wait_bridge("br-int")
        guest = found[name] = fleet.lab.start_light(host, name, [nic])
        fleet.apply(guest.ports_yaml() + f'addresses: [{own}, "{own6}"]\n')
    fleet.wait_active(guest.nics[0].mac for guest in found.values())
    fleet.apply(FORWARDS)
    wait_ping(found["g1"], "10.77.0.12")
    return found


def outside(fleet: Fleet, *lines: str) -> None:
    """Have ip(8) do this on the machine outside."""
    for line in lines:
        run(netns.argv_in(fleet.lab.outside, ["ip", *line.split()]))


@pytest.mark.parametrize("host", ["h1", "h2"])
@pytest.mark.parametrize(("guest", "port"), [("g1", 8081), ("g2", 8082)])
@pytest.mark.parametrize("source", [NEAR, FAR, NEAR6, FAR6])
def test_tcp_by_either_host_to_a_guest_on_either(
    fleet: Fleet, guests: Guests, host: str, guest: str, port: int, source: str
) -> None:
    at = "::" if ":" in source else ""
    out, external = fleet.lab.outside, FAMILIES[at][host]
    with (
        Echo(guests[guest], 80, socket.SOCK_STREAM, at) as server,
        capture(out, "eth0", outgoing=True) as wire,
        capture(guests[guest].netns, "eth0", outgoing=True) as inside,
    ):
        client = connects(out, source, (external, port))
    assert server.peers == [client]  # the guest sees who it is
    address = f"fd00:77::1{guest[1]}" if at else f"10.77.0.1{guest[1]}"
    seen_outside = {found for frame in wire.frames if (found := ends(frame))}
    assert seen_outside == {(*client, external, port), (external, port, *client)}
    seen_inside = {found for frame in inside.frames if (found := ends(frame))}
    assert seen_inside == {(*client, address, 80), (address, 80, *client)}


def test_a_host_without_a_guest_of_the_network_forwards_too(fleet: Fleet, guests: Guests) -> None:
    for at, external in FAMILIES.items():
        with Echo(guests["other"], 80, socket.SOCK_STREAM, at) as server:
            client = connects(fleet.lab.outside, FAR6 if at else FAR, (external["h2"], 8083))
            assert server.peers == [client]
            assert refused(fleet.lab.outside, (external["h1"], 8083))


def _every_udp() -> Iterator[tuple[str, int, int]]:
    for address in (*EXTERNAL.values(), *EXTERNAL6.values()):
        yield address, 5000, 5000
        yield address, 5009, 5009
    yield EXTERNAL["h1"], 6000, 7000
    yield EXTERNAL["h1"], 6003, 7003


@pytest.mark.parametrize(("address", "port", "inside"), list(_every_udp()))
def test_ranges_of_udp(fleet: Fleet, guests: Guests, address: str, port: int, inside: int) -> None:
    at, source = ("::", FAR6) if ":" in address else ("", FAR)
    with Echo(guests["g2"], inside, socket.SOCK_DGRAM, at) as server:
        assert asks(fleet.lab.outside, source, (address, port)) in server.peers


@pytest.mark.parametrize("client", ["outside", "g1", "g2", "other"])
@pytest.mark.parametrize("host", ["h1", "h2"])
def test_datagrams_that_nobody_answers(fleet: Fleet, guests: Guests, client: str, host: str) -> None:
    """As those of syslog: not the first one alone."""
    space = fleet.lab.outside if client == "outside" else guests[client].netns
    with (
        a_socket(guests["g2"].netns, socket.SOCK_DGRAM, "", 5003) as server,
        a_socket(space, socket.SOCK_DGRAM) as sender,
    ):
        server.setblocking(False)
        came = 0

        def several() -> bool:
            nonlocal came
            sender.sendto(b"x", (EXTERNAL[host], 5003))
            with contextlib.suppress(BlockingIOError):
                while server.recv(10):
                    came += 1
            return came > 3

        eventually("several have come", several)


def test_nothing_else_comes_in(fleet: Fleet, guests: Guests) -> None:
    out, inside = fleet.lab.outside, {"10.77.0.0/24": EXTERNAL["h1"], "fd00:77::/112": EXTERNAL6["h1"]}
    closed_ports = [(external["h1"], port) for external in FAMILIES.values() for port in (80, 81, 5000)]
    with (
        Echo(guests["g2"], 80, socket.SOCK_STREAM),
        Echo(guests["g2"], 81, socket.SOCK_STREAM),
        Echo(guests["g2"], 80, socket.SOCK_STREAM, "::"),
        Echo(guests["g2"], 81, socket.SOCK_STREAM, "::"),
        ThreadPoolExecutor(8) as pool,
    ):
        connects(out, NEAR, (EXTERNAL["h1"], 8082))
        connects(out, NEAR6, (EXTERNAL6["h1"], 8082))
        outside(fleet, *(f"route add {subnet} via {way}" for subnet, way in inside.items()))
        nowhere = [*closed_ports, ("10.77.0.12", 80), ("fd00:77::12", 80)]
        assert [
            each for each, shut in zip(nowhere, pool.map(partial(refused, out), nowhere), strict=True) if not shut
        ] == []
        outside(fleet, *(f"route del {subnet}" for subnet in inside))


@pytest.mark.parametrize("client", ["g1", "g2", "other"])
@pytest.mark.parametrize("host", ["h1", "h2"])
@pytest.mark.parametrize(("guest", "port"), [("g1", 8081), ("g2", 8082)])
def test_guests_use_the_external_addresses_too(
    fleet: Fleet, guests: Guests, client: str, host: str, guest: str, port: int
) -> None:
    """Also that of their own host, and for themselves; they are seen by the external address of their host."""
    own_host = guests[client].host.name
    for at, external in FAMILIES.items():
        with Echo(guests[guest], 80, socket.SOCK_STREAM, at) as server:
            connects(guests[client].netns, "", (external[host], port))
        assert [address for address, _ in server.peers] == [external[own_host]]


def test_a_target_speaks_to_the_outside_by_its_own_host(fleet: Fleet, guests: Guests) -> None:
    for near, external in ((NEAR, EXTERNAL), (NEAR6, EXTERNAL6)):
        with a_socket(fleet.lab.outside, socket.SOCK_STREAM, near) as server:
            server.listen()
            with a_socket(guests["g2"].netns, socket.SOCK_STREAM, "", 80, to=near) as client:
                client.connect(server.getsockname())
                connection, peer = server.accept()
                connection.close()
        assert peer[0] == external["h2"]


@pytest.mark.parametrize("host", ["h1", "h2"])
def test_what_the_guest_says_of_a_closed_port_reaches_the_client(fleet: Fleet, guests: Guests, host: str) -> None:
    """An ICMP error goes back the way that the datagram came."""
    eventually("the port is known to be closed", lambda: closed(fleet.lab.outside, FAR, (EXTERNAL[host], 5001)))
    eventually("so it is of IPv6", lambda: closed(fleet.lab.outside, FAR6, (EXTERNAL6[host], 5001)))


def test_datagrams_in_fragments(fleet: Fleet, guests: Guests) -> None:
    """In a conversation that began with a whole one; each fits through the tunnels."""
    with Echo(guests["g2"], 5002, socket.SOCK_DGRAM), Echo(guests["g2"], 5002, socket.SOCK_DGRAM, "::"):
        for address in (*EXTERNAL.values(), *EXTERNAL6.values()):
            outside(fleet, f"route add {address} dev eth0 mtu lock 1400")
            asks(fleet.lab.outside, NEAR6 if ":" in address else NEAR, (address, 5002), 100, 4000)
            outside(fleet, f"route del {address}")


def test_connections_go_on_without_a_controller(fleet: Fleet, guests: Guests) -> None:
    with Echo(guests["g1"], 80, socket.SOCK_STREAM), Echo(guests["g1"], 80, socket.SOCK_STREAM, "::"):
        connects(fleet.lab.outside, NEAR, (EXTERNAL["h2"], 8081))
        fleet.controller.stop(signal.SIGKILL)
        try:
            connects(fleet.lab.outside, FAR, (EXTERNAL["h2"], 8081))
            connects(fleet.lab.outside, FAR6, (EXTERNAL6["h2"], 8081))
        finally:
            fleet.controller.start()
        fleet.settle()


def test_a_forward_that_leads_elsewhere_takes_its_clients_along(fleet: Fleet, guests: Guests) -> None:
    """Also one that goes on sending by a connection of before."""

    def forward(vnic: str) -> None:
        listen, target = "{port: 5100, protocol: udp}", f"{{vnic: {vnic}, port: 82}}"
        fleet.apply(f"{{kind: PortForward, name: hand, network: web, listen: {listen}, target: {target}}}")

    with (
        Echo(guests["g1"], 82, socket.SOCK_DGRAM) as before,
        Echo(guests["g2"], 82, socket.SOCK_DGRAM) as after,
        a_socket(fleet.lab.outside, socket.SOCK_DGRAM, NEAR) as client,
    ):

        def reaches(server: Echo) -> bool:
            client.sendto(b"x", (EXTERNAL["h1"], 5100))
            return client.getsockname() in server.peers

        forward("g1-0")
        eventually("it reaches the first guest", lambda: reaches(before))
        forward("g2-0")
        eventually("it reaches the second guest", lambda: reaches(after))
        before.peers.clear()
        assert all(reaches(after) for _ in range(50))
        assert not before.peers
    fleet.delete([("PortForward", "hand")])


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


EXAMPLE = Path(__file__).parents[2] / "docs/examples/floating.yaml"
PLACES = {"web1": "h1", "web2": "h2", "api1": "h1", "api2": "h3", "desk": "h2"}
FLOATING = {"web1": "203.0.113.51", "api1": "203.0.113.52", "api2": "203.0.113.53"}
FLOATING6 = {"web1": "2001:db8::51", "api2": "2001:db8::53"}
BOTH = (("", FLOATING), ("::", FLOATING6))
OUTSIDE = {FAR, FAR6, *FLOATING.values(), *FLOATING6.values()}
FRONT = {"10.10.10.11", "10.10.10.12", "fd00:10:10::11", "fd00:10:10::12"}
BACK = {"10.10.20.11", "10.10.20.12", "fd00:10:20::11", "fd00:10:20::12"}
STORAGE, DESK, ROUTER = {"172.20.0.11", "172.20.0.22"}, "10.0.10.31", "10.0.10.254"
ANYWHERE = {*FRONT, *BACK, *STORAGE, DESK, ROUTER, *OUTSIDE}
REACHED = {
    "web1": FRONT | STORAGE | OUTSIDE,
    "web2": FRONT | OUTSIDE,
    "api1": BACK | OUTSIDE,
    "api2": BACK | STORAGE | OUTSIDE,
    "desk": {DESK, ROUTER},
}


@pytest.fixture(scope="module")
def cloud(fleet: Fleet, guests: Guests) -> Guests:
    """The guests of the example, which is applied once; its hosts are the lab's."""
    documents = list(yaml.safe_load_all(EXAMPLE.read_text()))
    ports = [each for each in documents if each["kind"] == "Port"]
    networks = {each["name"]: each for each in documents if each["kind"] == "Network"}
    found = {}
    for name, host in PLACES.items():
        nics = []
        for port in ports:
            if port["vm"] == name:
                addresses, network = port["addresses"], networks[port["network"]]
                own = tuple(f"{address}/{112 if ':' in address else 24}" for address in addresses)
                gateways = tuple(str(ip_interface(address).network[1]) for address in own)
                gateways, mtu = (gateways, 1450) if network["mode"] == "nat" else ((), None)
                nics.append(Nic(port["network"], None, port["mac"], own, gateways, mtu=mtu))
        found[name] = fleet.lab.start_light(host, name, nics)
    for each in documents:
        if each["kind"] == "Port":
            each |= {"vm": found[each["vm"]].vm_id, "libvirt": False}
    hosts = [
        {**fleet.host_document(f"h{each['name'][-1]}"), "external": each["external"]}
        for each in documents
        if each["kind"] == "Host"
    ]
    documents = [*hosts, *(each for each in documents if each["kind"] != "Host")]
    fleet.apply(yaml.safe_dump_all(documents))
    fleet.wait_active(nic.mac for guest in found.values() for nic in guest.nics)
    return found


def test_of_the_example_everybody_reaches_whom_they_should_and_nobody_else(fleet: Fleet, cloud: Guests) -> None:
    out = fleet.lab.outside
    ways = {"10.10.10.0/24": EXTERNAL["h1"], "10.10.20.0/24": FLOATING["api1"],
            "fd00:10:10::/112": EXTERNAL6["h1"], "fd00:10:20::/112": FLOATING6["api2"]}  # fmt: skip
    outside(fleet, *(f"route add {subnet} via {way}" for subnet, way in ways.items()))
    everybody = {**{name: guest.netns for name, guest in cloud.items()}, "outside": out}
    expected = {**REACHED, "outside": OUTSIDE}
    heard: dict[str, set[str]] = {name: set() for name in everybody}

    def all_reached() -> bool:
        with ThreadPoolExecutor(4) as pool:
            found = pool.map(lambda space: answered(space, sorted(ANYWHERE)), everybody.values())
            for name, reached in zip(everybody, found, strict=True):
                heard[name] |= reached
        return all(heard[name] >= expected[name] for name in everybody)

    try:
        eventually("everybody reaches whom they should", all_reached)
    finally:
        assert heard == expected
        outside(fleet, *(f"route del {subnet}" for subnet in ways))


@pytest.mark.parametrize("source", [NEAR, FAR, NEAR6, FAR6])
@pytest.mark.parametrize("name", ["web1", "api2"])
def test_a_floating_address_is_its_guests_and_both_ends_see_who_it_is(
    fleet: Fleet, cloud: Guests, name: str, source: str
) -> None:
    at, floating = BOTH[":" in source]
    there = (floating[name], 80)
    with (
        Echo(cloud[name], 80, socket.SOCK_STREAM, at) as server,
        capture(fleet.lab.outside, "eth0", outgoing=True) as wire,
    ):
        client = connects(fleet.lab.outside, source, there)
    assert server.peers == [client]
    assert {found for frame in wire.frames if (found := ends(frame))} == {(*client, *there), (*there, *client)}


@pytest.mark.parametrize("client", ["web1", "web2", "api1", "api2"])
@pytest.mark.parametrize("name", ["web1", "api2"])
def test_guests_use_floating_addresses_too(fleet: Fleet, cloud: Guests, client: str, name: str) -> None:
    """Also their own, and those of guests of their host; without one they are seen as their host."""
    for at, floating in BOTH:
        seen = floating.get(client, FAMILIES[at].get(PLACES[client]))
        with Echo(cloud[name], 80, socket.SOCK_STREAM, at) as tcp, Echo(cloud[name], 80, socket.SOCK_DGRAM, at) as udp:
            connects(cloud[client].netns, "", (floating[name], 80))
            asks(cloud[client].netns, "", (floating[name], 80), 100, 4000)
        assert {address for address, _ in tcp.peers + udp.peers} == {seen}


@pytest.mark.parametrize("name", ["web1", "web2"])
def test_who_has_a_floating_address_speaks_by_it(fleet: Fleet, cloud: Guests, name: str) -> None:
    for (at, floating), near in zip(BOTH, (NEAR, NEAR6), strict=True):
        with a_socket(fleet.lab.outside, socket.SOCK_STREAM, near) as server:
            server.listen()
            with a_socket(cloud[name].netns, socket.SOCK_STREAM, to=near) as client:
                client.connect(server.getsockname())
                connection, peer = server.accept()
                connection.close()
        assert peer[0] == floating.get(name, FAMILIES[at][PLACES[name]])


@pytest.mark.parametrize("name", ["web1", "api2"])
def test_fragments_of_the_outside_and_for_it(fleet: Fleet, cloud: Guests, name: str) -> None:
    for (at, floating), near in zip(BOTH, (NEAR, NEAR6), strict=True):
        outside(fleet, f"route add {floating[name]} dev eth0 mtu lock 1400")  # the guest's own network carries 1450
        with Echo(cloud[name], 81, socket.SOCK_DGRAM, at) as server:
            assert asks(fleet.lab.outside, near, (floating[name], 81), 4000) in server.peers
        outside(fleet, f"route del {floating[name]}")


def test_errors_pass_floating_addresses(fleet: Fleet, cloud: Guests) -> None:
    """Who is told that a port is closed knows which packet of its own that is about."""
    out = fleet.lab.outside
    for floating, far, near in ((FLOATING["web1"], FAR, NEAR), (FLOATING6["web1"], FAR6, NEAR6)):
        for who, space, source, there in (
            ("a machine outside", out, far, floating), ("a guest, by one outside,", cloud["web1"].netns, "", near),
            ("a guest of its host", cloud["api1"].netns, "", floating),
            ("a guest elsewhere", cloud["web2"].netns, "", floating),
        ):  # fmt: skip
            eventually(f"{who} is told", partial(closed, space, source, (there, 5001)))


def test_a_guest_has_a_floating_address_and_forwarded_ports(fleet: Fleet, cloud: Guests) -> None:
    fleet.apply("{kind: PortForward, name: both, network: front, listen: {port: 9100}, target: {vnic: web1, port: 80}}")
    with Echo(cloud["web1"], 80, socket.SOCK_STREAM) as server:
        for place in ((FLOATING["web1"], 80), *((address, 9100) for address in EXTERNAL.values())):
            connects(fleet.lab.outside, FAR, place)
            connects(cloud["api1"].netns, "", place)
            connects(cloud["web1"].netns, "", place)
    assert len(server.peers) == 9
    fleet.delete([("PortForward", "both")])
