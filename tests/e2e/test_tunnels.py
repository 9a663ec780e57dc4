"""The overlay over three hosts, in each encapsulation: whole packets, one copy for each member, none for strangers."""

from __future__ import annotations

import socket
import struct
import threading
from functools import partial
from ipaddress import IPv4Address

import pytest
import yaml
from e2e_fleet import Fleet, pings, wait_ping
from e2e_frames import Build, Place, arp_request, counts, ears, ethernet, heard, inside, is_arp, marked
from labkit import LightGuest, Nic, capture, netns

pytestmark = pytest.mark.lab
HOSTS, LIBVIRT = 3, False

NETWORKS = """
kind: Network
name: cloud
mode: isolated
---
kind: Network
name: alien
mode: isolated
---
kind: Network
name: lan
mode: bridge
physical_network: physnet1
vlan: 10
"""
KINDS = ("geneve", "vxlan", "gre")
FITS = {"geneve": 1450, "vxlan": 1450, "gre": 1458}  # bytes behind a frame's header, through an underlay of 1500
# Two members on h1, one on each other host; a stranger on each; and one of the physical network on each.
MAC = {
    name: f"52:54:00:00:00:{n:02x}"
    for n, name in enumerate(
        ("c1", "c1b", "c2", "c3", "alien1", "alien2", "alien3", "lan1", "lan1b", "lan2", "lan3"), start=1
    )
}
CLOUD = {"c1", "c1b", "c2", "c3"}
LAN = {"lan1", "lan1b", "lan2", "lan3"}
ADDRESS = {"c1": "10.5.0.1", "c1b": "10.5.0.11", "c2": "10.5.0.2", "c3": "10.5.0.3"}
NOBODY = "52:54:00:99:99:99"
GENEVE_PORT, VXLAN_PORT, GRE, UDP = 6081, 4789, 47, 17


@pytest.fixture(scope="module")
def guests(fleet: Fleet) -> dict[str, LightGuest]:
    fleet.apply(NETWORKS)
    wanted = {}
    for name, mac in MAC.items():
        network = "cloud" if name in CLOUD else "lan" if name in LAN else "alien"
        addresses = (f"{ADDRESS[name]}/24",) if name in CLOUD else ()
        wanted[name] = (f"h{name.rstrip('b')[-1]}", [Nic(network, None, mac, addresses)])
    return fleet.lights(wanted)


@pytest.fixture
def places(guests: dict[str, LightGuest]) -> dict[str, Place]:
    return {name: inside(guest) for name, guest in guests.items()}


@pytest.fixture(scope="module", params=[*KINDS, "mixed"])
def tunnel(request: pytest.FixtureRequest, fleet: Fleet, guests: dict[str, LightGuest]) -> str:
    """The encapsulation in use, confirmed by every switch; every host knows its neighbours. mixed: each another."""
    kind = str(request.param)
    documents = list(yaml.safe_load_all(fleet.lab.fleet_yaml()))
    for document, own in zip(documents, KINDS, strict=True):
        document["tunnel"] = own if kind == "mixed" else kind
    fleet.apply(yaml.safe_dump_all(documents), wait=20.0)
    mtu = fleet.get("Network", "cloud")["status"]["mtu"]
    for name in CLOUD:
        assert guests[name].run(f"ip link set eth0 mtu {mtu}") == (0, "")
    for name in CLOUD:
        for other in CLOUD - {name}:
            wait_ping(guests[name], ADDRESS[other])
    return kind


def test_the_encapsulation_is_the_one_that_was_applied(
    fleet: Fleet, guests: dict[str, LightGuest], tunnel: str
) -> None:
    host = fleet.hosts["h1"]
    seen: dict[str, set[str]] = {}
    for other in ("h2", "h3"):
        address = IPv4Address(fleet.hosts[other].tunnel_ip)
        with capture(host.netns, "eth1", lambda frame, to=address: frame.payload[16:20] == to.packed,
                     outgoing=True) as caught:  # fmt: skip
            assert pings(guests["c1"], ADDRESS[f"c{other[-1]}"])
            caught.wait(lambda frame: frame.ethertype == 0x0800)
        seen[other] = {encapsulation(frame.payload) for frame in caught.frames}
    wanted = {"h2": "vxlan", "h3": "gre"} if tunnel == "mixed" else {"h2": tunnel, "h3": tunnel}
    assert seen == {host: {kind} for host, kind in wanted.items()}


def encapsulation(packet: bytes) -> str:
    """What an IPv4 packet carries a tunnel's frame in."""
    if packet[9] == GRE:
        return "gre"
    return {GENEVE_PORT: "geneve", VXLAN_PORT: "vxlan"}[struct.unpack_from("!H", packet, 22)[0]]


def test_a_packet_of_the_mtu_that_is_told_fits_and_one_more_byte_does_not(
    fleet: Fleet, guests: dict[str, LightGuest], places: dict[str, Place], tunnel: str
) -> None:
    """Whoever sends more has it dropped by its host, whole and without a word: there is no piece of it anywhere."""
    mtu = fleet.get("Network", "cloud")["status"]["mtu"]
    assert mtu == (min(FITS.values()) if tunnel == "mixed" else FITS[tunnel])
    whole = mtu - 20 - 8  # RFC 791 and 792: headers of IPv4 and ICMP
    for sender, target in (("c1", "c2"), ("c2", "c3"), ("c3", "c1")):
        assert pings(guests[sender], ADDRESS[target], "-M do", f"-s {whole}", tries=2)
    for name in CLOUD:  # as a guest that nobody told: only the hosts can stop it now
        assert guests[name].run("ip link set eth0 mtu 1500") == (0, "")
    found = {}
    for sender, target in (("c1", "c2"), ("c2", "c3"), ("c3", "c1")):
        own = KINDS[int(target[1]) - 1] if tunnel == "mixed" else tunnel  # a host is reached as it wants to be
        most = FITS[own]
        near = (places[sender], marked(MAC[sender], MAC[target]), [target])
        for size, at in ((most, [target]), (most + 1, [])):
            frame = marked(MAC[sender], MAC[target], size=size)
            found[sender, target, size - most] = counts(
                heard(places, places[sender], frame, expected=at, fences=[near])
            )
    for name in CLOUD:
        assert guests[name].run(f"ip link set eth0 mtu {mtu}") == (0, "")
    for (sender, target, more), got in found.items():
        assert (sender, more, got) == (sender, more, {} if more else {target: 1})


def test_tcp_carries_megabytes_unharmed(guests: dict[str, LightGuest], tunnel: str) -> None:
    data = bytes(range(256)) * 8192
    got = bytearray()
    server = netns.call_in(guests["c3"].netns, lambda: socket.create_server((ADDRESS["c3"], 7007)))
    with server:
        server.settimeout(20.0)

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(20.0)
                while piece := connection.recv(1 << 16):
                    got.extend(piece)

        thread = threading.Thread(target=serve)
        thread.start()
        with netns.call_in(guests["c1"].netns, lambda: socket.create_connection((ADDRESS["c3"], 7007), 20.0)) as client:
            client.sendall(data)
        thread.join(30.0)
    assert bytes(got) == data


@pytest.mark.parametrize("sender", ["c1", "c2"])
@pytest.mark.parametrize("dst", ["ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:fb", "33:33:00:00:00:fb"])
def test_a_flooded_frame_reaches_each_member_once_and_nobody_else(
    places: dict[str, Place], tunnel: str, sender: str, dst: str
) -> None:
    others = CLOUD - {sender}
    found = heard(places, places[sender], marked(MAC[sender], dst), expected=others)
    assert counts(found) == dict.fromkeys(others, 1)


@pytest.mark.parametrize("sender", ["c1", "c2"])
def test_a_frame_for_nobody_reaches_nobody(places: dict[str, Place], tunnel: str, sender: str) -> None:
    """Every vNIC is known and held to its own MAC, so it is nowhere in an overlay."""
    fence = (places[sender], marked(MAC[sender]), CLOUD - {sender})
    assert heard(places, places[sender], marked(MAC[sender], NOBODY), expected=(), fences=[fence]) == {}


def test_a_unicast_frame_reaches_its_vnic_alone(places: dict[str, Place], tunnel: str) -> None:
    for sender, target in (("c1", "c1b"), ("c1", "c3"), ("c3", "c2")):
        found = heard(places, places[sender], marked(MAC[sender], MAC[target]), expected=[target])
        assert counts(found) == {target: 1}


def test_nothing_goes_round_between_the_hosts(fleet: Fleet, places: dict[str, Place], tunnel: str) -> None:
    """Each other host gets one packet of a flooded frame, and none of them sends any."""
    wires = {name: Place(host.netns, "eth1") for name, host in fleet.hosts.items()}
    found = heard({**places, **wires}, places["c1"], marked(MAC["c1"]), expected=CLOUD - {"c1"})
    assert {name: number for name, number in counts(found).items() if name in wires} == {"h2": 1, "h3": 1}


def segment_places(fleet: Fleet) -> dict[str, Place]:
    """The physical network's ports: what each host sends into it and gets from it; the outside machine."""
    space = f"{fleet.lab.name}-net"
    found = {f"from {host}": Place(space, f"{host}p1") for host in fleet.hosts}
    found |= {f"to {host}": Place(space, f"{host}p1", outgoing=True) for host in fleet.hosts}
    return {**found, "out": Place(fleet.lab.outside, "eth0"), "out10": Place(fleet.lab.outside_vlan(10), "vlan10")}


@pytest.mark.parametrize("dst", ["ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:fb", NOBODY])
def test_three_uplinks_to_one_segment_make_no_loop_and_no_second_copy(
    fleet: Fleet, places: dict[str, Place], dst: str
) -> None:
    everywhere = {**places, **segment_places(fleet)}
    for sender in ("lan1", "lan2"):
        own = f"h{sender[-1]}"
        others = {f"to {host}" for host in fleet.hosts if host != own}
        members = set() if dst == NOBODY else LAN - {sender}
        at = members | {"out", "out10", f"from {own}"} | others
        found = heard(everywhere, places[sender], marked(MAC[sender], dst), expected=at)
        assert counts(found) == dict.fromkeys(at, 1)


@pytest.mark.parametrize("dst", ["ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:fb", NOBODY])
def test_a_frame_from_outside_comes_in_once_on_each_host_and_never_goes_back(
    fleet: Fleet, places: dict[str, Place], dst: str
) -> None:
    everywhere = {**places, **segment_places(fleet)}
    members = set() if dst == NOBODY else LAN
    at = members | {f"to {host}" for host in fleet.hosts} | {"out"}
    found = heard(everywhere, everywhere["out10"], marked("52:54:00:00:fe:02", dst), expected=at)
    assert counts(found) == dict.fromkeys(at, 1)


def test_a_unicast_frame_over_the_trunk_is_seen_once(fleet: Fleet, places: dict[str, Place]) -> None:
    everywhere = {**places, **segment_places(fleet)}
    wait = heard(everywhere, places["lan3"], marked(MAC["lan3"]), expected=LAN - {"lan3"})  # the segment learns lan3
    assert wait["lan1"]
    found = heard(everywhere, places["lan1"], marked(MAC["lan1"], MAC["lan3"]), expected=["lan3"])
    assert counts(found) == {"lan3": 1, "from h1": 1, "to h3": 1}


# -- tunnel packets that no host of the fleet sent


@pytest.fixture
def underlay(fleet: Fleet) -> Place:
    """The underlay's wire, on which anybody may send."""
    return Place(f"{fleet.lab.name}-net", "underlay")


def tunnelled(kind: str, source: str, target: str, target_mac: str, key: int, frame: bytes) -> bytes:
    """A tunnel packet as a host would send it: RFC 8926 (geneve), RFC 7348 (vxlan), RFC 2890 (gre with key)."""
    if kind == "gre":
        inner, protocol = struct.pack("!HHI", 0x2000, 0x6558, key) + frame, GRE
    else:
        head = (
            struct.pack("!BBHI", 0, 0, 0x6558, key << 8) if kind == "geneve" else struct.pack("!II", 8 << 24, key << 8)
        )
        port = GENEVE_PORT if kind == "geneve" else VXLAN_PORT
        inner = struct.pack("!HHHH", 54321, port, 8 + len(head) + len(frame), 0) + head + frame
        protocol = UDP
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(inner), 7, 0, 64, protocol, 0)
    ip += IPv4Address(source).packed + IPv4Address(target).packed
    ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    return ethernet(target_mac, "52:54:00:00:fe:99", 0x0800, ip + inner)


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@pytest.mark.parametrize("dst", [MAC["c1"], "ff:ff:ff:ff:ff:ff"])
def test_forged_tunnel_packets_are_dropped(
    fleet: Fleet, places: dict[str, Place], underlay: Place, tunnel: str, dst: str
) -> None:
    """From an address that is no host's, and with a key that is no segment's. Only a host's own address gets in."""
    host = fleet.hosts["h1"]
    target_mac = host.run(["cat", "/sys/class/net/br-phy/address"]).strip()
    [key] = fleet.get("Network", "cloud")["status"]["segments"].values()
    member, stranger = fleet.hosts["h2"].tunnel_ip, f"{fleet.lab.state.now.underlay_net}.99"
    segments = {s for n in fleet.list("Network") for s in n["status"]["segments"].values()}
    unused = max(segments) + 1
    for kind in KINDS:

        def build(marker: bytes, source: str = member, with_key: int = key, kind: str = kind) -> bytes:
            frame = marked(MAC["c2"], dst)(marker)
            return tunnelled(kind, source, host.tunnel_ip, target_mac, with_key, frame)

        at = {"c1"} if dst == MAC["c1"] else {"c1", "c1b"}
        fence = (underlay, build, at)
        forged: dict[str, Build] = {
            "no host's address": partial(build, source=stranger),
            "the host's own address": partial(build, source=host.tunnel_ip),
            "a key that is no segment's": partial(build, with_key=unused),
            "key 0": partial(build, with_key=0),
        }
        for what, frame in forged.items():
            assert (what, heard(places, underlay, frame, expected=(), fences=[fence])) == (what, {})


def test_arp_is_asked_once_over_the_overlay(places: dict[str, Place], tunnel: str) -> None:
    question = arp_request(MAC["c1"], ADDRESS["c1"], "10.5.0.200")
    with ears(places, lambda frame: is_arp(frame, 1, target="10.5.0.200")) as at:
        found = heard(places, places["c1"], lambda marker: question + marker, expected=CLOUD - {"c1"})
    assert counts(found) == dict.fromkeys(CLOUD - {"c1"}, 1)
    assert {name for name, caught in at.items() if caught.frames} == CLOUD - {"c1"}
