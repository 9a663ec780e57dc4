"""Guests of the lab, real and light, on bridges that switch by themselves (NORMAL): no controller is needed."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from labkit import Frame, Guest, Lab, LabError, LightGuest, Nic, capture, domain, netns, send, wait_for

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two hosts whose br-int is a learning switch: eth2 as its uplink, network `lab` on it."""
    with Lab("tl", hosts=2) as lab:
        for host in lab.hosts.values():
            host.add_bridge("br-int", fail_mode="standalone")
            host.define_network(domain.network("lab", ["db"]))
        yield lab


@pytest.fixture(scope="module")
def pair(lab: Lab) -> tuple[Guest, Guest]:
    """Two real guests on h1: g1 through the network, g2 on the bridge with a sub-interface in VLAN 10."""
    g1 = lab.start_guest("h1", "g1", [Nic(addresses=("10.0.0.1/24", "10.0.1.1/24", "fd00::1/64"))], wait=False)
    nic = Nic(bridge="br-int", profile_id="lab:db", addresses=("10.0.0.2/24",), vlans={10: ("10.0.10.2/24",)})
    g2 = lab.start_guest("h1", "g2", [nic])
    g1.wait_boot()
    return g1, g2


def pings(guest: Guest | LightGuest, address: str) -> bool:
    return guest.run(f"ping -c1 -W1 {address}")[0] == 0


def wait_ping(guest: Guest | LightGuest, address: str, timeout: float = 10.0) -> None:
    wait_for(f"{guest.name} pings {address}", lambda: pings(guest, address), timeout)


# -- real guests


def test_console_gives_exit_code_and_output(pair: tuple[Guest, Guest]) -> None:
    g1, g2 = pair
    assert g1.run("hostname") == (0, "g1\n")
    assert g2.run(["sh", "-c", "echo 'a  b' >&2; exit 7"]) == (7, "a  b\n")
    assert g1.run("printf 'no newline: ü $HOME'") == (0, "no newline: ü $HOME")
    assert g1.run("") == (0, "")
    code, output = g1.run("seq 1 5000")
    assert (code, output) == (0, "".join(f"{n}\n" for n in range(1, 5001)))


def test_console_ends_a_command_that_takes_too_long_and_goes_on(pair: tuple[Guest, Guest]) -> None:
    begun = time.monotonic()
    code, _ = pair[0].run("sleep 60", timeout=1)
    assert code == 143
    assert time.monotonic() - begun < 10
    assert pair[0].run("echo still there") == (0, "still there\n")


def test_console_survives_noise_on_the_line(pair: tuple[Guest, Guest]) -> None:
    g1 = pair[0]
    g1.run(
        "(for i in $(seq 1 40); do echo noise @x begin 0 y; echo '<1>noise' >/dev/kmsg; done >/dev/ttyS0) & sleep 0.01"
    )
    for n in range(5):
        assert g1.run(f"echo answer {n}; seq 1 300 | tail -n 1") == (0, f"answer {n}\n300\n")


def test_console_serves_several_threads(pair: tuple[Guest, Guest]) -> None:
    answers: dict[int, tuple[int, str]] = {}

    def ask(n: int) -> None:
        answers[n] = pair[0].run(f"echo {n}")

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {n: (0, f"{n}\n") for n in range(6)}


def test_command_that_does_not_fit_the_line_is_refused(pair: tuple[Guest, Guest]) -> None:
    with pytest.raises(LabError, match="too long"):
        pair[0].run("x" * 4000)


def test_real_guests_reach_each_other(pair: tuple[Guest, Guest]) -> None:
    g1, g2 = pair
    wait_ping(g1, "10.0.0.2")
    assert g1.run("echo over tcp | nc -w 2 10.0.0.2 7") == (0, "over tcp\n")
    code, page = g1.run("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 10.0.0.2 80")
    assert code == 0
    assert page.endswith("\r\n\r\ng2\n")
    assert "10.0.1.1/24" in g1.run("ip addr show eth0")[1]
    assert "fd00::1/64" in g1.run("ip addr show eth0")[1]
    assert "10.0.10.2/24" in g2.run("ip addr show eth0.10")[1]


def test_libvirt_wrote_what_light_guests_imitate(lab: Lab, pair: tuple[Guest, Guest]) -> None:
    host = lab.hosts["h1"]
    light = lab.start_light("h1", "copy", [Nic(portgroup="db")])
    try:
        of_libvirt = external_ids(lab, pair[0].ports()[0])
        of_ours = external_ids(lab, light.ports()[0])
        assert set(of_libvirt) == set(of_ours)
        assert of_libvirt["vm-id"] == pair[0].vm_id
        assert of_libvirt["attached-mac"] == pair[0].nics[0].mac
        assert of_libvirt["port-profile"] == "lab:default"
        assert of_ours["vm-id"] == light.vm_id
        assert of_ours["attached-mac"] == light.nics[0].mac
        assert of_ours["port-profile"] == "lab:db"
        assert external_ids(lab, pair[1].ports()[0])["port-profile"] == "lab:db"
    finally:
        light.stop()
    assert light.ports()[0] not in host.vsctl("list-ports", "br-int")


def external_ids(lab: Lab, port: str) -> dict[str, str]:
    text = lab.hosts["h1"].vsctl("get", "Interface", port, "external_ids")
    pairs = (item.split("=", 1) for item in text.strip("{}").split(", "))
    return {key: value.strip('"') for key, value in pairs}


def test_plug_and_unplug(pair: tuple[Guest, Guest]) -> None:
    g1 = pair[0]
    nic = Nic(addresses=("10.0.9.1/24",), mtu=1400)
    g1.attach(nic)
    wait_for("the new address", lambda: "10.0.9.1/24" in g1.run("ip addr show eth1")[1], 10)
    assert "mtu 1400" in g1.run("ip link show eth1")[1]
    assert len(g1.ports()) == 2
    g1.detach(nic.mac)
    wait_for("eth1 gone", lambda: "eth1" not in g1.run("ls /sys/class/net")[1], 10)
    assert len(g1.ports()) == 1
    with pytest.raises(LabError, match="has no vNIC"):
        g1.detach(nic.mac)


def test_vnic_without_an_address_asks_dhcp(lab: Lab) -> None:
    mac = "52:54:00:aa:bb:01"
    sniffer = lab.start_light("h1", "sniffer", [Nic()])
    with capture(sniffer.netns, "eth0", lambda f: f.src == mac and f.payload[20:24] == b"\0\x44\0\x43") as caught:
        guest = lab.start_guest("h1", "asker", [Nic(mac=mac)])
        request = caught.wait(lambda frame: True, 15)
    assert b"asker" in request.payload
    guest.remove()
    sniffer.stop()
    with pytest.raises(LabError, match="no guest"):
        lab.guest("asker")


def test_shutdown_and_start_again(lab: Lab) -> None:
    guest = lab.start_guest("h2", "phoenix", [Nic(addresses=("10.0.0.9/24",))])
    guest.shutdown()
    assert guest.state() == "shut off"
    with pytest.raises(LabError, match="does not run"):
        guest.run("true")
    guest.start()
    assert guest.run("hostname") == (0, "phoenix\n")
    guest.remove()


def test_live_migration_keeps_the_guest_and_moves_its_port(lab: Lab) -> None:
    guest = lab.start_guest("h1", "nomad", [Nic(addresses=("10.0.0.7/24",))])
    guest.run("echo remembered >/tmp/note")
    guest.migrate("h2")
    assert lab.guest("nomad").run("cat /tmp/note") == (0, "remembered\n")
    port = guest.ports()[0]
    assert port in lab.hosts["h2"].vsctl("list-ports", "br-int").split()
    assert "nomad" not in lab.hosts["h1"].virsh("list", "--all")
    neighbour = lab.start_light("h2", "beside", [Nic(addresses=("10.0.0.8/24",))])
    wait_ping(neighbour, "10.0.0.7")
    guest.migrate("h1")
    assert guest.run("cat /tmp/note") == (0, "remembered\n")
    neighbour.stop()
    guest.remove()


def test_libvirtd_may_die_and_come_back(lab: Lab, pair: tuple[Guest, Guest]) -> None:
    host = lab.hosts["h1"]
    host.kill("libvirtd")
    assert host.daemons()["libvirtd"] is False
    assert pair[0].run("echo alive") == (0, "alive\n")
    host.start("libvirtd")
    wait_for("the guest known again", lambda: pair[0].state() == "running", 10)


def test_vswitchd_may_die_and_come_back(lab: Lab, pair: tuple[Guest, Guest]) -> None:
    host = lab.hosts["h1"]
    host.restart("ovs-vswitchd", 9)
    wait_ping(pair[0], "10.0.0.2", 20)
    host.restart("ovsdb-server")
    assert "br-int" in host.vsctl("list-br").split()


# -- light guests, physical segment, underlay


def test_two_hundred_light_guests_in_seconds(lab: Lab) -> None:
    begun = time.monotonic()
    guests = lab.start_lights("h2", [(f"d{n}", [Nic(addresses=(f"10.7.0.{n}/24",))]) for n in range(1, 201)])
    took = time.monotonic() - begun
    wait_ping(guests[0], "10.7.0.200")
    light_names = set(lab.hosts["h2"].vsctl("list-ports", "br-int").split())
    assert {guest.ports()[0] for guest in guests} <= light_names
    lab.stop_lights(guests)
    assert not {guest.ports()[0] for guest in guests} & set(lab.hosts["h2"].vsctl("list-ports", "br-int").split())
    assert took < 15


def transfer(server: LightGuest, client: LightGuest, address: str, size: int) -> int:
    """Send so many bytes over TCP from one light guest to another; those that arrived."""
    listener = netns.call_in(server.netns, lambda: socket.create_server((address, 9)))
    with listener, netns.call_in(client.netns, lambda: socket.create_connection((address, 9), 5)) as sender:
        accepted, _ = listener.accept()
        with accepted:
            sending = threading.Thread(target=lambda: (sender.sendall(bytes(size)), sender.shutdown(socket.SHUT_WR)))
            sending.start()
            accepted.settimeout(10)
            received = 0
            while data := accepted.recv(65536):
                received += len(data)
            sending.join()
    return received


def test_light_guest_with_two_vnics(lab: Lab) -> None:
    both = lab.start_light(
        "h1", "both", [Nic(addresses=("10.6.1.1/24",)), Nic(addresses=("10.6.2.1/24", "fd06::1/64"))]
    )
    other = lab.start_light("h1", "other", [Nic(addresses=("10.6.2.2/24", "fd06::2/64"))])
    wait_ping(other, "10.6.2.1")
    wait_ping(other, "fd06::1")
    assert not pings(other, "10.6.1.1")
    assert transfer(both, other, "10.6.2.1", 1 << 20) == 1 << 20
    lab.stop_lights([both, other])


@pytest.fixture
def tagged(lab: Lab) -> Iterator[LightGuest]:
    """A light guest on an access port of VLAN 10, with eth2 of its host as the bridge's trunk."""
    host = lab.hosts["h1"]
    host.vsctl("add-port", "br-int", "eth2")
    guest = lab.start_light("h1", "tagged", [Nic(addresses=("10.0.10.5/24",))])
    host.vsctl("set", "Port", guest.ports()[0], "tag=10")
    yield guest
    guest.stop()
    host.vsctl("del-port", "br-int", "eth2")


def test_outside_machine_sees_tags(lab: Lab, tagged: LightGuest) -> None:

    def of_guest(frame: Frame) -> bool:
        return frame.src == tagged.nics[0].mac

    with (
        capture(lab.outside, "eth0", of_guest) as trunk,
        capture(lab.outside_vlan(10), "vlan10", of_guest) as in10,
        capture(lab.outside_vlan(20), "vlan20", of_guest) as in20,
    ):
        wait_ping(tagged, "10.0.10.254")
        trunk.wait(lambda frame: frame.ethertype == 0x0806)
        in10.wait(lambda frame: frame.ethertype == 0x0800)
    assert {frame.vlans for frame in trunk.frames} == {(10,)}
    assert {frame.vlans for frame in in10.frames} == {()}
    assert in20.frames == []


def test_raw_frames_arrive_as_sent(lab: Lab, tagged: LightGuest) -> None:
    mac = bytes.fromhex(tagged.nics[0].mac.replace(":", ""))
    frame = mac + bytes.fromhex("020000000099 8100 000a 88b5") + b"made by hand".ljust(46, b"\0")
    with capture(tagged.netns, "eth0", lambda frame: frame.ethertype == 0x88B5) as caught:
        send(lab.outside, "eth0", frame)
        arrived = caught.wait(lambda _: True)
    assert arrived.vlans == ()
    assert arrived.payload.startswith(b"made by hand")
    with capture(lab.outside_vlan(10), "vlan10", lambda frame: frame.ethertype == 0x88B5) as caught:
        double = b"\xff" * 6 + frame[6:16] + bytes.fromhex("8100 0007") + frame[16:]
        send(lab.outside, "eth0", double)
        assert caught.wait(lambda _: True).vlans == (7,)


def test_frames_read_their_tags() -> None:
    plain = Frame(bytes(12) + bytes.fromhex("0800") + b"x", 0.0, False)
    assert (plain.vlans, plain.ethertype, plain.payload) == ((), 0x0800, b"x")
    double = Frame(bytes(12) + bytes.fromhex("88a8 2064 8100 0005 86dd") + b"y", 0.0, False)
    assert (double.vlans, double.ethertype, double.payload) == ((100, 5), 0x86DD, b"y")


@pytest.mark.parametrize("kind", ["vxlan", "geneve", "gre"])
def test_tunnels_cross_the_underlay(lab: Lab, kind: str) -> None:
    hosts = list(lab.hosts.values())
    for host, peer in zip(hosts, reversed(hosts), strict=True):
        options = ["options:key=77", f"options:remote_ip={peer.tunnel_ip}"]
        host.vsctl("add-port", "br-int", "tun0", "--", "set", "Interface", "tun0", f"type={kind}", *options)
    one = lab.start_light("h1", "east", [Nic(addresses=("10.4.0.1/24",), mtu=1400)])
    two = lab.start_light("h2", "west", [Nic(addresses=("10.4.0.2/24",), mtu=1400)])
    wait_ping(one, "10.4.0.2", 15)
    assert one.run("ping -c1 -W2 -M do -s 1372 10.4.0.2")[0] == 0
    lab.stop_lights([one, two])
    for host in hosts:
        host.vsctl("del-port", "br-int", "tun0")


def test_underlay_mtu_leaves_room_for_whole_frames() -> None:
    with Lab("tm", hosts=2, underlay_mtu=1600, libvirt=False) as lab:
        hosts = list(lab.hosts.values())
        for host, peer in zip(hosts, reversed(hosts), strict=True):
            host.add_bridge("br-int", fail_mode="standalone")
            options = ["type=geneve", f"options:remote_ip={peer.tunnel_ip}"]
            host.vsctl("add-port", "br-int", "tun0", "--", "set", "Interface", "tun0", *options)
        one = lab.start_light("h1", "east", [Nic(addresses=("10.4.0.1/24",))])
        lab.start_light("h2", "west", [Nic(addresses=("10.4.0.2/24",))])
        wait_ping(one, "10.4.0.2", 15)
        assert one.run("ping -c1 -W2 -M do -s 1472 10.4.0.2")[0] == 0
