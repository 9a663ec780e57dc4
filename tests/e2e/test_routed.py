"""Who reaches whom between networks of all modes, on two hosts, and between them and the outside.

A minute without a controller: `FLEETSWITCH_AWAY=60 scripts/test tests/e2e/test_routed.py -s -k nothing_is_lost`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import pytest
import yaml
from e2e_bgp import FLEET_AS, PASSWORD, ROUTER_AS, Bird
from e2e_bulk import BULK, carried
from e2e_echo import answered
from e2e_ends import answers, close, datagrams, questions
from e2e_fleet import PATIENCE, Fleet, eventually, pings, silent
from e2e_frames import arp_request, ethernet
from e2e_leases import lease_ends
from e2e_packets import IPV4, IPV6, advertisement, checksum, ipv4, solicitation
from e2e_streams import nothing_is_lost
from e2e_tracked import last_flow, tracked
from labkit import LightGuest, Nic, netns, send
from labkit.dhcp_client import ACK, Client, clients_at, serve
from labkit.run import run
from labkit.stream import Ends

from controller.model.host import HostSpec
from controller.model.subnet import gateway_mac

pytestmark = pytest.mark.lab
HOSTS = 2

FAR, FAR6 = "198.51.100.7", "2001:db8:ffff::7"
MODES = {"inner": "isolated", "shop": "nat", "web": "nat", "api": "route", "db": "route", "lab": "open"}
SUBNETS = {name: f"10.{80 + number}.0" for number, name in enumerate(MODES)}
SUBNETS6 = {name: f"fd00:{80 + number}::" for number, name in enumerate(MODES)}  # of 112 bits: no SLAAC
PLACES = {f"{name}{number}": (f"h{number}", name) for name in MODES for number in (1, 2)}

FORWARDED = {"web1": 8081, "web2": 8082}  # nat guests, and the ports of all hosts' external addresses that lead there

AWAY = float(os.environ.get("FLEETSWITCH_AWAY", "3"))  # seconds without a controller
RATE = 200  # packets a second of each of many streams
OWN, OUTSIDE = "its own network", "the outside"
PAGE = Path(__file__).parents[2] / "docs" / "features" / "routing.md"


def promised() -> dict[tuple[str, str], bool]:
    """Who reaches whom, as the table of the page says: (from, to)."""
    lines = iter(PAGE.read_text().splitlines())
    head = next(line for line in lines if line.startswith("| from "))
    _, *to = [cell.strip(" `") for cell in head.strip("|").split("|")]
    next(lines)
    found: dict[tuple[str, str], bool] = {}
    for line in lines:
        if not line.startswith("|"):
            return found
        begins, *cells = [cell.strip(" `") for cell in line.strip("|").split("|")]
        found |= {(begins, end): cell.startswith("yes") for end, cell in zip(to, cells, strict=True) if cell}
    return found


PROMISED = promised()


def reaches(guest: str, other: str) -> bool:
    own, its = PLACES[guest][1], PLACES[other][1]
    return PROMISED[MODES[own], OWN if own == its else MODES[its]]


def address(guest: str) -> str:
    host, network = PLACES[guest]
    return f"{SUBNETS[network]}.1{host[1]}"


def address6(guest: str) -> str:
    host, network = PLACES[guest]
    return f"{SUBNETS6[network]}1{host[1]}"


def forward(guest: str, protocol: str, family: str) -> dict[str, object]:
    listen = {"port": FORWARDED[guest], "protocol": protocol, "family": family}
    target, name = {"vnic": f"{guest}-0", "port": 80}, f"{guest}-{protocol}-{family}"
    return {"kind": "PortForward", "name": name, "network": "web", "listen": listen, "target": target}


def outside(fleet: Fleet, command: str) -> tuple[int, str]:
    """Run a shell line on the machine outside."""
    done = run(["ip", "netns", "exec", fleet.lab.outside, "sh", "-c", command], check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def guests(fleet: Fleet) -> dict[str, LightGuest]:
    """Two guests of each network, one a host; the outside machine has the return routes that the networks' status
    names."""
    outside(
        fleet,
        f"ip addr add 203.0.113.1/24 dev eth0; ip addr add {FAR}/32 dev lo; sysctl -qw net.ipv4.ip_forward=0;"
        f"ip addr add 2001:db8:1::1/64 dev eth0 nodad; ip addr add {FAR6}/128 dev lo",
    )
    for number in (1, 2):
        external = {"uplink": "physnet1", "address": f"203.0.113.1{number}/24", "gateway": "203.0.113.1"}
        external |= {"address6": f"2001:db8:1::1{number}/64", "gateway6": "2001:db8:1::1"}
        fleet.client.post("/apply", [{**fleet.host_document(f"h{number}"), "external": external}], wait=30.0)
    networks = [
        {"kind": "Network", "name": n, "mode": m, "subnets": [f"{SUBNETS[n]}.0/24", f"{SUBNETS6[n]}/112"]}
        for n, m in MODES.items()
    ]  # fmt: skip
    networks[-1] |= {
        "portgroups": {"router": {"filters": []}},
        "routes": [
            {"to": "10.50.0.0/16", "via": address("lab1")},
            {"to": "fd50::/48", "via": address6("lab1")},
        ],
    }
    fleet.client.post("/apply", networks, wait=30.0)
    for name in MODES:
        for route in fleet.get("Network", name)["status"]["return_routes"]:
            outside(fleet, f"ip route append {route}")  # of two ways the first counts: host h1
    wanted = {
        guest: (host, [Nic(network, "router" if guest == "lab1" else None,
                           addresses=(f"{address(guest)}/24", f"{address6(guest)}/112"),
                           gateways=(f"{SUBNETS[network]}.1", f"{SUBNETS6[network]}1"))])
        for guest, (host, network) in PLACES.items()
    }  # fmt: skip
    started = fleet.lights(wanted)
    ports = [yaml.safe_load(guest.ports_yaml().removeprefix("---")) for guest in started.values()]
    documents = [
        {**port, "addresses": [address(name), address6(name)]} for name, port in zip(started, ports, strict=True)
    ]
    fleet.client.post("/apply", documents, wait=30.0)
    forwards = [
        forward(guest, protocol, family)
        for guest in FORWARDED for protocol in ("tcp", "udp") for family in ("ipv4", "ipv6")
    ]  # fmt: skip
    fleet.client.post("/apply", forwards, wait=30.0)
    fleet.settle()
    return started


def test_every_pair_of_modes(fleet: Fleet, guests: dict[str, LightGuest]) -> None:
    for name in ("web1", "api2"):
        for far in (FAR, FAR6):
            eventually(f"{name} reaches {far}", lambda name=name, far=far: pings(guests[name], far, tries=1))
    with ThreadPoolExecutor(4) as pool:
        everywhere = [*map(address, PLACES), *map(address6, PLACES), FAR, FAR6]
        spaces = [guest.netns for guest in guests.values()]
        heard = dict(zip(guests, pool.map(lambda space: answered(space, everywhere), spaces), strict=True))
    for name, guest in guests.items():
        mode = MODES[PLACES[name][1]]
        expected = {one(other) for other in PLACES if reaches(name, other) for one in (address, address6)}
        expected |= {FAR, FAR6} if PROMISED[mode, OUTSIDE] else set()
        late = {each for each in expected - heard[name] if pings(guest, each)}  # a loaded machine may lose the first
        assert heard[name] | late == expected, f"{name}, {mode}"


def test_the_outside_reaches_routed_guests_on_every_host_and_no_others(
    fleet: Fleet, guests: dict[str, LightGuest]
) -> None:
    for name, (_, network) in PLACES.items():
        for to in (address(name), address6(name)):
            code, said = outside(fleet, f"for n in 1 2 3 4; do ping -n -c1 -W1 {to} && exit 0; done; exit 1")
            assert (code == 0) == PROMISED[OUTSIDE, MODES[network]], f"{name}: {said}"


HEARD = """\
import selectors, socket
ipv6 = socket.AF_INET6
with (
    socket.create_server(("::", 80), family=ipv6, dualstack_ipv6=True) as tcp,
    socket.socket(ipv6, socket.SOCK_DGRAM) as udp,
):
    udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    udp.bind(("::", 80))
    both = selectors.DefaultSelector()
    for each in (tcp, udp):
        both.register(each, selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        for key, _ in both.select():
            peer = tcp.accept()[1] if key.fileobj is tcp else udp.recvfrom(100)[1]
            print(("tcp " if key.fileobj is tcp else "udp ") + peer[0].removeprefix("::ffff:"), flush=True)
"""
SPEAK = """\
import socket, sys, time
source4, source6, port, *targets = sys.argv[1:]
made = []
for target in targets:
    family, source = (socket.AF_INET6, source6) if ":" in target else (socket.AF_INET, source4)
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        each = socket.socket(family, kind)
        each.setblocking(False)
        each.bind((source, 0))
        each.connect_ex((target, int(port)))
        if kind == socket.SOCK_DGRAM:
            each.send(b"x")
        made.append(each)
time.sleep(1.5)  # a first SYN waits for ARP, and a lost one is said again after a second (RFC 6298)
"""


def test_forwards_let_in_nobody_but_the_outside(fleet: Fleet, guests: dict[str, LightGuest]) -> None:
    """A guest with forwarded ports is begun towards by them alone, whatever address an open guest makes up."""
    made_up, shop1 = ("192.0.2.77", "2001:db8:77::77"), (address("shop1"), address6("shop1"))
    guests["lab1"].run("; ".join(f"ip addr add {each} dev lo" for each in (*made_up, *shop1)))
    targets = [one(guest) for guest in FORWARDED for one in (address, address6)]
    guests_of_others = ("shop1", "shop2", "api1", "api2", "db1", "db2", "lab1", "lab2")
    senders = [(name, (address(name), address6(name))) for name in guests_of_others]
    servers = {
        name: subprocess.Popen(netns.argv_in(guests[name].netns, [sys.executable, "-c", HEARD]),
                               stdout=subprocess.PIPE, text=True) for name in FORWARDED
    }  # fmt: skip
    try:
        for server in servers.values():
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"

        def speaks(name: str, sources: tuple[str, str]) -> tuple[int, str]:
            return guests[name].run([sys.executable, "-c", SPEAK, *sources, "80", *targets])

        with ThreadPoolExecutor(4) as pool:
            for code, said in pool.map(lambda each: speaks(*each), [*senders, ("lab1", made_up), ("lab1", shop1)]):
                assert code == 0, said
        for name, server in servers.items():
            assert server.stdout is not None
            near = ("203.0.113.1", "2001:db8:1::1")
            externals = ["203.0.113.11", "203.0.113.12", "2001:db8:1::11", "2001:db8:1::12"]
            run(
                netns.argv_in(fleet.lab.outside, [sys.executable, "-c", SPEAK, *near, str(FORWARDED[name]), *externals])
            )
            heard = [server.stdout.readline() for _ in range(8)]  # anybody else was to be heard before
            assert sorted(heard) == sorted(f"{kind} {each}\n" for kind in ("tcp", "udp") for each in near * 2), name
    finally:
        for server in servers.values():
            server.kill()
            server.communicate()
        guests["lab1"].run("; ".join(f"ip addr del {each} dev lo" for each in (*made_up, *shop1)))


SERVER = """\
import socket
with socket.create_server(("::", 7070), family=socket.AF_INET6, dualstack_ipv6=True) as server:
    print("ready", flush=True)
    while True:
        connection, (peer, *_) = server.accept()
        connection.sendall(peer.removeprefix("::ffff:").encode())
        connection.close()
"""
CLIENT = """\
import socket
for server in ("203.0.113.1", "2001:db8:1::1"):
    with socket.create_connection((server, 7070), 10) as connection:
        print(connection.recv(100).decode())
"""


def test_only_nat_guests_are_seen_as_their_host(fleet: Fleet, guests: dict[str, LightGuest]) -> None:
    argv = netns.argv_in(fleet.lab.outside, [sys.executable, "-c", SERVER])
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            who = ("api1", "lab2", "web1", "web2")
            seen = {name: guests[name].run([sys.executable, "-c", CLIENT])[1].split() for name in who}
        finally:
            server.kill()
    routed = {name: [address(name), address6(name)] for name in ("api1", "lab2")}
    hosts = {f"web{number}": [f"203.0.113.1{number}", f"2001:db8:1::1{number}"] for number in (1, 2)}
    assert seen == routed | hosts


def test_who_cannot_be_routed_is_told_why(guests: dict[str, LightGuest]) -> None:
    def told(guest: str, what: str, words: str) -> None:
        network = PLACES[guest][1]
        gateway = f"{SUBNETS6[network]}1" if ":" in words else f"{SUBNETS[network]}.1"
        said = guests[guest].run(f"ping -n -c3 -i0.3 -W1 {words}")[1]
        assert f"From {gateway} " in said, said
        assert what in said, said

    told("api1", "Time to live exceeded", f"-t1 {FAR}")
    told("web1", "Time to live exceeded", f"-t1 {address('api2')}")
    told("web1", "Destination Host Unreachable", f"{SUBNETS['api']}.200")
    told("api1", "Packet filtered", f"{SUBNETS['web']}.200")
    told("lab2", "Packet filtered", address("inner1"))
    told("web1", "Time exceeded: Hop limit", f"-t1 {address6('api2')}")
    told("web1", "Destination unreachable: Address unreachable", f"{SUBNETS6['api']}200")
    told("lab2", "Destination unreachable: Administratively prohibited", address6("inner1"))


def test_what_is_too_big_for_where_it_goes_is_told_of(fleet: Fleet, guests: dict[str, LightGuest]) -> None:
    """Networks carry 1450 bytes, vNICs and the wire outside 1500."""
    ping, told = "ping -n -i0.2 -W1", ("mtu = 1450", "mtu=1450", "mtu: 1450")
    headers = {address: 20 + 8, address6: 40 + 8}

    def refused(run: Callable[[str], tuple[int, str]], size: int, to: str) -> None:
        """With "don't fragment"; once its sender knows what fits, its own kernel says so."""
        eventually(
            f"{to} is too far for {size} bytes",
            lambda: any(words in run(f"{ping} -c1 -M do -s {size} {to}")[1] for words in told),
        )

    for name, other in (("web1", "api2"), ("lab1", "db1")):
        # As if it had not been told the network's MTU.
        guests[name].run("sysctl -qw net.ipv6.conf.eth0.accept_ra_mtu=0 net.ipv6.conf.eth0.mtu=1500")
        for way, size in headers.items():
            refused(guests[name].run, 1500 - size, way(other))
            assert guests[name].run(f"{ping} -c3 -M do -s {1450 - size} {way(other)}")[0] == 0
    # Linux sends in fragments what may be fragmented, once it knows.
    code, said = guests["web1"].run(f"{ping} -c3 -M dont -s {1500 - 28} {address('api2')}")
    assert code == 0, said
    for way, size in headers.items():
        refused(lambda command: outside(fleet, command), 1500 - size, way("lab2"))
        assert outside(fleet, f"{ping} -c3 -M do -s {1450 - size} {way('lab2')}")[0] == 0
    code, said = guests["api1"].run(f"{ping} -c3 -M do -s {1500 - 28} {FAR}")
    assert code == 0, said


ANSWER = """\
import socket, sys
own, headers = sys.argv[1], int(sys.argv[2])
family, level, discover, mtu = (
    (socket.AF_INET6, socket.IPPROTO_IPV6, 23, 24) if ":" in own else (socket.AF_INET, socket.IPPROTO_IP, 10, 14)
)
with socket.socket(family, socket.SOCK_DGRAM) as server:
    server.setsockopt(level, discover, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
    server.bind((own, 7071))
    print("ready", flush=True)
    _, peer = server.recvfrom(100)
    server.connect(peer)
    server.settimeout(0.5)
    size = 1500
    while True:
        try:
            server.send(bytes(size - headers))
            server.recv(100)
            break
        except TimeoutError:
            continue
        except OSError as error:
            assert error.errno == 90, error  # EMSGSIZE: the path was said to carry less
            size = server.getsockopt(level, mtu)
    print(size, flush=True)
"""
ASK = """\
import socket, sys
with socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM) as client:
    client.connect((sys.argv[1], 7071))
    client.settimeout(10)
    client.send(b"ask")
    print(len(client.recv(2000)) + int(sys.argv[2]))
    client.send(b"got it")
"""


@pytest.mark.parametrize(("server", "headers"), [("203.0.113.1", 20 + 8), ("2001:db8:1::1", 40 + 8)])
def test_answers_to_nat_guests_that_are_too_big_are_told_of(
    fleet: Fleet, guests: dict[str, LightGuest], server: str, headers: int
) -> None:
    words = [server, str(headers)]
    argv = netns.argv_in(fleet.lab.outside, [sys.executable, "-c", ANSWER, *words])
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as answering:
        try:
            assert answering.stdout is not None
            assert answering.stdout.readline() == "ready\n"
            assert guests["web1"].run([sys.executable, "-c", ASK, *words])[1].strip() == "1450"
            assert answering.stdout.readline() == "1450\n"
        finally:
            answering.kill()


def test_tcp_of_guests_with_huge_frames_comes_through_narrow_tunnels(
    fleet: Fleet, guests: dict[str, LightGuest]
) -> None:
    """Tunnels carry 1400 bytes, guests' vNICs 9000: who heeds what it is told gets through anywhere, and who does not
    gets through its gateway, which tells it again."""
    found = {name: fleet.get("Host", name) for name in fleet.hosts}
    usual = [
        {"kind": "Host", "name": name, **{key: document[key] for key in HostSpec.model_fields if key in document}}
        for name, document in found.items()
    ]
    fleet.client.post("/apply", [{**each, "underlay_mtu": 1450} for each in usual], wait=30.0)
    for host in fleet.hosts.values():
        netns.ip_batch(["link set eth1 mtu 1450"], host.netns)
    wanted = {
        f"huge-{network}{number}": (f"h{number}", [Nic(network, mtu=9000,
            addresses=(f"{SUBNETS[network]}.2{number}/24", f"{SUBNETS6[network]}2{number}/112"),
            gateways=(f"{SUBNETS[network]}.1", f"{SUBNETS6[network]}1"))])
        for network, number in (("web", 1), ("web", 2), ("api", 2))
    }  # fmt: skip
    huge = fleet.lights(wanted)
    ports = [yaml.safe_load(guest.ports_yaml().removeprefix("---")) for guest in huge.values()]
    own = [[each.split("/")[0] for each in guest.nics[0].addresses] for guest in huge.values()]
    fleet.client.post("/apply", [{**p, "addresses": a} for p, a in zip(ports, own, strict=True)], wait=30.0)
    one, two, routed = huge.values()
    try:
        assert fleet.get("Network", "web")["status"]["mtu"] == 1400
        for guest in huge.values():  # as if it had not been told
            guest.run("sysctl -qw net.ipv6.conf.eth0.accept_ra_mtu=0 net.ipv6.conf.eth0.mtu=9000")
        for to in own[2]:
            assert carried(one.netns, routed.netns, to) == BULK
        for to in ("203.0.113.1", "2001:db8:1::1"):
            for guest in (one, routed):
                assert carried(guest.netns, fleet.lab.outside, to) == BULK
        for guest in (one, two):
            guest.run("ip link set eth0 mtu 1400")
        for to in own[1]:
            assert carried(one.netns, two.netns, to) == BULK
    finally:
        for host in fleet.hosts.values():
            netns.ip_batch(["link set eth1 mtu 1500"], host.netns)
        fleet.stop(huge.values())
        fleet.client.post("/apply", usual, wait=30.0)


def test_what_is_behind_a_guest_is_reached_by_its_route(fleet: Fleet, guests: dict[str, LightGuest]) -> None:
    guests["lab1"].run("ip addr add 10.50.7.1/32 dev lo; ip addr add fd50::1/128 dev lo")
    for name in ("web1", "web2", "api2", "lab2"):
        assert pings(guests[name], "10.50.7.1"), name
    assert pings(guests["web2"], "fd50::1")
    assert silent(guests["inner1"], "10.50.7.1")
    for behind, other in (("10.50.7.1", address("api2")), ("fd50::1", address6("api2"))):
        assert outside(fleet, f"ping -n -c3 -i0.2 -W1 {behind}")[0] == 0
        code, said = guests["lab1"].run(f"ping -n -c3 -i0.2 -W1 -I {behind} {other}")
        assert code == 0, said


def test_a_machine_outside_that_has_another_mac_is_reached_when_it_says_so(
    fleet: Fleet, guests: dict[str, LightGuest]
) -> None:
    """Whether there is a controller or not: as when a standby takes an address over."""
    out, there, there6 = fleet.lab.outside, "203.0.113.50", "2001:db8:1::50"

    def becomes(mac: str) -> None:
        lines = [f"link add link eth0 name moves address {mac} type macvlan mode bridge", "link set moves up",
                 f"addr add {there}/32 dev moves", f"addr add {there6}/128 dev moves nodad"]  # fmt: skip
        lines += [f"route add {host}/32 dev moves src {there} table 50" for host in ("203.0.113.11", "203.0.113.12")]
        netns.ip_batch([*lines, f"rule add from {there} lookup 50"], out)

    def goes() -> None:
        netns.ip_batch([f"rule del from {there} lookup 50", "link del moves"], out)

    outside(fleet, "sysctl -qw net.ipv4.conf.eth0.arp_ignore=1")  # its other card says nothing of this address
    macs = [f"52:54:00:0d:00:0{number}" for number in range(3)]
    becomes(macs[0])
    try:
        for to in (there, there6):
            eventually(f"{to} is reached", lambda to=to: pings(guests["web1"], to, tries=1))
        send(out, "moves", ethernet("33:33:00:00:00:01", macs[0], IPV6, advertisement(there6, there6, None)))
        assert pings(guests["web1"], there6), "it says to all that it is there, and not by which MAC"
        for number, mac in enumerate(macs[1:]):
            goes()
            becomes(mac)
            if number:
                fleet.controller.stop(signal.SIGKILL)
            for to, said in (
                (there, arp_request(mac, there, there)),
                (there6, ethernet("33:33:00:00:00:01", mac, IPV6, advertisement(there6, there6, mac))),
            ):

                def told(to: str = to, said: bytes = said) -> bool:
                    send(out, "moves", said)
                    return pings(guests["web1"], to, tries=1)

                eventually(f"{to} is reached at {mac}", told)
    finally:
        if fleet.controller.process() is None:
            fleet.controller.start()
        goes()
    fleet.settle()


def test_what_the_switch_would_do_behind_its_connection_tracker(fleet: Fleet, guests: dict[str, LightGuest]) -> None:
    """ofproto/trace is told what the tracker would say, and translates as that would, but for answers."""
    web = guests["web1"]
    own, host = web.ports()[0], "203.0.113.11"
    eventually("it reaches the outside", lambda: pings(web, FAR, tries=1))

    def asked(*words: str) -> list[dict[str, str]]:
        return list(json.loads(run(netns.argv_in(fleet.lab.outside, ["ip", "-j", *words])).stdout))

    there = asked("link", "show", "eth0")[0]["address"]
    mac = asked("neigh", "show", "to", host)[0]["lladdr"]
    leaves = f"dl_src={web.nics[0].mac},dl_dst={gateway_mac('web')},nw_src={address('web1')},nw_dst={FAR},nw_ttl=64"
    comes = f"dl_src={there},dl_dst={mac},nw_src={FAR},nw_ttl=64,nw_dst={host}"
    wire = fleet.hosts["h1"].vsctl("get", "Interface", "fs-int1", "name").strip('"')

    # A guest begins: no answer to a forward, no connection that is known, and then with its host's address.
    said, out = tracked(fleet, "h1", own, f"udp,{leaves},udp_src=5,udp_dst=9", *["trk,new"] * 3)
    assert f"Modified flow: nw_src={host}," in said
    assert "eth2" in out, said
    assert {f"dl_src={mac}", f"dl_dst={there}", f"nw_src={host}", "nw_ttl=63"} <= last_flow(said), said
    # It goes on.
    said, out = tracked(fleet, "h1", own, f"udp,{leaves},udp_src=5,udp_dst=9", *["trk,est"] * 2)
    assert ("commit" in said, "eth2" in out) == (False, True), said
    # A forward, and a port that leads nowhere.
    forwarded = f"udp,{comes},udp_src=5,udp_dst={FORWARDED['web1']}"
    said, out = tracked(fleet, "h1", wire, forwarded, *["trk,new"] * 2)
    assert own in out, said
    assert f"nw_dst={address('web1')},tp_dst=80" in said
    assert tracked(fleet, "h1", wire, f"udp,{comes},udp_src=5,udp_dst=9", "trk,new")[1] == set()


@contextlib.contextmanager
def every_way(fleet: Fleet, guests: dict[str, LightGuest]) -> Iterator[dict[str, Ends]]:
    """A stream of each kind of packet that a host has to do with."""
    out, (one, two) = fleet.lab.outside, ("203.0.113.11", "203.0.113.12")
    web, mac = guests["web1"], gateway_mac("web")
    own, own6 = address("web1"), address6("web1")
    echo = struct.pack("!BBHHH", 8, 0, 0, 1, 1)
    echo = echo[:2] + struct.pack("!H", checksum(echo)) + echo[4:]
    ping = ethernet(mac, web.nics[0].mac, IPV4, ipv4(own, f"{SUBNETS['web']}.1", 1, echo))[: 14 + 28]
    ask6 = solicitation(own6, f"{SUBNETS6['web']}1", web.nics[0].mac)
    outer = json.loads(run(netns.argv_in(out, ["ip", "-j", "link", "show", "eth0"])).stdout)[0]["address"]

    def to(guest: str, port: int) -> tuple[str, tuple[str, int]]:
        return guests[guest].netns, (address(guest), port)

    ways = {
        "nat": datagrams(web.netns, own, (FAR, 9001), out, (FAR, 9001)),
        "nat66": datagrams(guests["web2"].netns, address6("web2"), (FAR6, 9002), out, (FAR6, 9002)),
        "answers by nat": answers(guests["shop2"].netns, address("shop2"), out, (FAR, 9003)),
        "nat to route": datagrams(web.netns, own, (address("api2"), 9004), *to("api2", 9004)),
        "route to route": datagrams(guests["db2"].netns, address("db2"), (address("api1"), 9005), *to("api1", 9005)),
        "outside to route": datagrams(out, FAR, (address("db2"), 9006), *to("db2", 9006)),
        "forward": datagrams(out, FAR, (one, FORWARDED["web1"]), *to("web1", 80)),
        "forward to another host": datagrams(out, FAR, (one, FORWARDED["web2"]), *to("web2", 80)),
        "gateway by ARP": questions(web.netns, "eth0", arp_request(web.nics[0].mac, own, f"{SUBNETS['web']}.1")[:42]),
        "gateway by ND": questions(web.netns, "eth0", ethernet("33:33:00:00:00:01", web.nics[0].mac, IPV6, ask6)),
        "gateway by ping": questions(web.netns, "eth0", ping),
        "another guest by ARP": questions(
            web.netns, "eth0", arp_request(web.nics[0].mac, own, address("web2"))[:42]
        ),
        "a host by ARP": questions(out, "eth0", arp_request(outer, "203.0.113.1", two)[:42]),
    }  # fmt: skip
    try:
        yield ways
    finally:
        for each in ways.values():
            close(each)


@pytest.mark.alone
def test_nothing_is_lost_while_there_is_no_controller(fleet: Fleet, guests: dict[str, LightGuest]) -> None:
    """And leases that ended meanwhile are given again at once, to the guests that had them."""
    shop = {
        "kind": "Network",
        "name": "shop",
        "mode": "nat",
        "subnets": [f"{SUBNETS['shop']}.0/24", f"{SUBNETS6['shop']}/112"],
    }
    low, high = f"{SUBNETS['shop']}.100", f"{SUBNETS['shop']}.101"
    fleet.client.post("/apply", [{**shop, "dhcp": {"range": [low, high], "lease": 120}}], wait=30.0)
    late = fleet.lights({name: (host, [Nic("shop")]) for name, host in (("late1", "h1"), ("late2", "h2"))})

    with clients_at(list(late.values())) as clients, every_way(fleet, guests) as ways:
        for client in clients:
            client.discover()
        assert serve(clients, Client.take, PATIENCE) == []
        had = [client.address for client in clients]
        just, long_ago = clients
        for name, far in product(("web1", "db2"), (FAR, FAR6)):  # routers that nobody asked yet are asked by it
            eventually(f"{name} reaches {far}", lambda name=name, far=far: pings(guests[name], far, tries=1))

        def happens() -> None:
            fleet.controller.stop(signal.SIGKILL)
            until = time.monotonic() + AWAY
            try:
                for name, reached in (("web1", ("api1", "api2", "lab2")), ("db2", ("api1", "lab1"))):
                    assert all(pings(guests[name], address(other)) for other in reached), name
                    assert [far for far in (FAR, FAR6) if not pings(guests[name], far)] == [], name
                assert silent(guests["db2"], address("web1"))
                time.sleep(max(0.0, until - time.monotonic()))
                lease_ends(fleet, just.mac, 30)
                lease_ends(fleet, long_ago.mac, 1000)
            finally:
                fleet.controller.start()
            returned = time.monotonic()
            just.rebind()
            long_ago.discover()
            assert serve(clients, lambda client, answer: client.take(answer) or answer.kind == ACK, PATIENCE) == []
            print(f"leases are given {time.monotonic() - returned:.2f} s after the API answers")
            fleet.settle()

        nothing_is_lost(fleet, ways, happens, RATE)
        assert [client.address for client in clients] == had
    fleet.client.post("/apply", [shop], wait=30.0)
    fleet.stop(late.values())


def test_a_router_learns_by_bgp_where_guests_are(fleet: Fleet, guests: dict[str, LightGuest]) -> None:
    """The way follows a guest to another host, and stays while there is no controller."""
    mobile, network = f"{SUBNETS['api']}.50", "api"
    nic = Nic(network, mac="52:54:00:b9:00:50", addresses=(f"{mobile}/24",), gateways=(f"{SUBNETS['api']}.1",))
    answers = f"ping -n -c1 -W1 {mobile}"

    def mobile_on(host: str) -> LightGuest:
        guest = fleet.lab.start_lights(host, [("mobile", [nic])])[0]
        port = yaml.safe_load(guest.ports_yaml().removeprefix("---"))
        fleet.client.post("/apply", [{**port, "addresses": [mobile]}], wait=30.0)
        return guest

    ways = {
        to: f"{external}{host[1]}" if PROMISED[OUTSIDE, MODES[its]] else None
        for guest, (host, its) in PLACES.items()
        for to, external in ((address(guest), "203.0.113.1"), (address6(guest), "2001:db8:1::1"))
    }
    with Bird(fleet.lab) as bird:
        peer = {"kind": "BgpPeer", "name": "tor", "address": bird.router, "remote_as": ROUTER_AS, "local_as": FLEET_AS,
                "password_file": str(bird.password_file)}  # fmt: skip
        fleet.client.post("/apply", [peer], wait=30.0)
        guest = mobile_on("h1")
        eventually("the router knows where it is", lambda: bird.route(mobile) == "203.0.113.11")
        eventually("and all others", lambda: {to: bird.route(to) for to in ways} == ways)
        eventually("it is reached", lambda: outside(fleet, answers)[0] == 0)
        fleet.lab.stop_lights([guest])
        guest = mobile_on("h2")
        eventually("the way follows it", lambda: bird.route(mobile) == "203.0.113.12")
        eventually("it is reached there", lambda: outside(fleet, answers)[0] == 0)
        fleet.controller.stop(signal.SIGKILL)
        try:
            eventually("the router has noticed", lambda: not bird.is_established())
            assert bird.route(mobile) == "203.0.113.12"
            eventually("it is reached without a controller", lambda: outside(fleet, answers)[0] == 0)
        finally:
            fleet.controller.start()
        eventually("all is told anew", bird.is_established)
        fleet.stop([guest])
        eventually("what is gone has no way", lambda: bird.route(mobile) is None)
        assert not bird.deleted(address("api1"))
        fleet.delete([("BgpPeer", "tor")])
        eventually("it knows no more", lambda: bird.deleted(address("api1")))
    assert PASSWORD not in fleet.controller.log.read_text()
