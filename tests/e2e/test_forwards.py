"""Ports of hosts' external addresses lead to guests on any host, floating addresses to theirs; nothing else from
outside does."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
    wait_ping(found["g1"], "10.77.0.12")
    return found


def outside(fleet: Fleet, *lines: str) -> None:
    """Have ip(8) do this on the machine outside."""
    for line in lines:
        run(netns.argv_in(fleet.lab.outside, ["ip", *line.split()]))


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
    eventually("the port is known to be closed", lambda: closed(fleet.lab.outside, FAR, (EXTERNAL[host], 5001)))


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


EXAMPLE = Path(__file__).parents[2] / "docs/examples/floating.yaml"
PLACES = {"web1": "h1", "web2": "h2", "api1": "h1", "api2": "h3", "desk": "h2"}
FLOATING = {"web1": "203.0.113.51", "api1": "203.0.113.52", "api2": "203.0.113.53"}
FRONT, BACK = {"10.10.10.11", "10.10.10.12"}, {"10.10.20.11", "10.10.20.12"}
STORAGE, DESK, ROUTER = {"172.20.0.11", "172.20.0.22"}, "10.0.10.31", "10.0.10.254"
ANYWHERE = {*FRONT, *BACK, *STORAGE, DESK, ROUTER, FAR, *FLOATING.values()}
REACHED = {
    "web1": FRONT | STORAGE | {FAR, *FLOATING.values()},
    "web2": FRONT | {FAR, *FLOATING.values()},
    "api1": BACK | {FAR, *FLOATING.values()},
    "api2": BACK | STORAGE | {FAR, *FLOATING.values()},
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
                [address], network = port["addresses"], networks[port["network"]]
                gateways = (f"{address.rsplit('.', 1)[0]}.1",) if network["mode"] == "nat" else ()
                mtu = 1450 if network["mode"] == "nat" else None
                nics.append(Nic(port["network"], None, port["mac"], (f"{address}/24",), gateways, mtu=mtu))
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
    outside(fleet, f"route add 10.10.10.0/24 via {EXTERNAL['h1']}", f"route add 10.10.20.0/24 via {FLOATING['api1']}")
    everybody = {**{name: guest.netns for name, guest in cloud.items()}, "outside": out}
    expected = {**REACHED, "outside": {*FLOATING.values(), FAR}}
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
        outside(fleet, "route del 10.10.10.0/24", "route del 10.10.20.0/24")


@pytest.mark.parametrize("source", [NEAR, FAR])
@pytest.mark.parametrize("name", ["web1", "api2"])
def test_a_floating_address_is_its_guests_and_both_ends_see_who_it_is(
    fleet: Fleet, cloud: Guests, name: str, source: str
) -> None:
    there = (FLOATING[name], 80)
    with (
        Echo(cloud[name], 80, socket.SOCK_STREAM) as server,
        capture(fleet.lab.outside, "eth0", outgoing=True) as wire,
    ):
        client = connects(fleet.lab.outside, source, there)
    assert server.peers == [client]
    assert {found for frame in wire.frames if (found := ends(frame))} == {(*client, *there), (*there, *client)}


@pytest.mark.parametrize("client", ["web1", "web2", "api1", "api2"])
@pytest.mark.parametrize("name", ["web1", "api2"])
def test_guests_use_floating_addresses_too(fleet: Fleet, cloud: Guests, client: str, name: str) -> None:
    """Also their own, and those of guests of their host; without one they are seen as their host."""
    seen = FLOATING.get(client, EXTERNAL.get(PLACES[client]))
    with Echo(cloud[name], 80, socket.SOCK_STREAM) as tcp, Echo(cloud[name], 80, socket.SOCK_DGRAM) as udp:
        connects(cloud[client].netns, "", (FLOATING[name], 80))
        asks(cloud[client].netns, "", (FLOATING[name], 80), 100, 4000)
    assert {address for address, _ in tcp.peers + udp.peers} == {seen}


@pytest.mark.parametrize("name", ["web1", "web2"])
def test_who_has_a_floating_address_speaks_by_it(fleet: Fleet, cloud: Guests, name: str) -> None:
    with a_socket(fleet.lab.outside, socket.SOCK_STREAM, NEAR) as server:
        server.listen()
        with a_socket(cloud[name].netns, socket.SOCK_STREAM) as client:
            client.connect(server.getsockname())
            connection, peer = server.accept()
            connection.close()
    assert peer[0] == FLOATING.get(name, EXTERNAL[PLACES[name]])


@pytest.mark.parametrize("name", ["web1", "api2"])
def test_fragments_of_the_outside_and_for_it(fleet: Fleet, cloud: Guests, name: str) -> None:
    outside(fleet, f"route add {FLOATING[name]}/32 dev eth0 mtu lock 1400")  # the guest's own network carries 1450
    with Echo(cloud[name], 81, socket.SOCK_DGRAM) as server:
        assert asks(fleet.lab.outside, NEAR, (FLOATING[name], 81), 4000) in server.peers
    outside(fleet, f"route del {FLOATING[name]}/32")


def test_errors_pass_floating_addresses(fleet: Fleet, cloud: Guests) -> None:
    """Who is told that a port is closed knows which packet of its own that is about."""
    out, floating = fleet.lab.outside, FLOATING["web1"]
    eventually("a machine outside is told", lambda: closed(out, FAR, (floating, 5001)))
    eventually("a guest is told by one outside", lambda: closed(cloud["web1"].netns, "", (NEAR, 5001)))
    eventually("a guest of its host is told", lambda: closed(cloud["api1"].netns, "", (floating, 5001)))
    eventually("a guest elsewhere is told", lambda: closed(cloud["web2"].netns, "", (floating, 5001)))


def test_a_guest_has_a_floating_address_and_forwarded_ports(fleet: Fleet, cloud: Guests) -> None:
    fleet.apply("{kind: PortForward, name: both, network: front, listen: {port: 9100}, target: {vnic: web1, port: 80}}")
    with Echo(cloud["web1"], 80, socket.SOCK_STREAM) as server:
        for place in ((FLOATING["web1"], 80), *((address, 9100) for address in EXTERNAL.values())):
            connects(fleet.lab.outside, FAR, place)
            connects(cloud["api1"].netns, "", place)
            connects(cloud["web1"].netns, "", place)
    assert len(server.peers) == 9
    fleet.delete([("PortForward", "both")])
