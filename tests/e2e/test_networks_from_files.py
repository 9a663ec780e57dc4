"""Files that virsh net-define takes, defined for the whole fleet: guests on them get their leases, whichever client
they ask with, and speak with the outside as the networks' modes say."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from e2e_fleet import Fleet, eventually, pings, silent
from labkit import Guest, LightGuest, Nic, netns
from labkit.run import run

pytestmark = pytest.mark.lab
LAB = "xm"

NAT = """<network>
  <name>packtnat</name>
  <forward mode='nat'/>
  <bridge name='packtnat0' stp='on' delay='0'/>
  <ip address='10.10.10.1' netmask='255.255.255.0'>
    <dhcp><range start='10.10.10.100' end='10.10.10.200'/></dhcp>
  </ip>
</network>"""
ROUTED = """<network>
  <name>packtrouted</name>
  <forward dev='ens224' mode='route'><interface dev='ens224'/></forward>
  <ip address='192.168.2.1' netmask='255.255.255.0'/>
</network>"""
BEHIND_UPLINK = """<network>
  <name>packtrouted</name>
  <forward mode='route'/>
  <ip address='192.168.2.1' netmask='255.255.255.0'/>
</network>"""
ISOLATED = """<network>
  <name>packtisolated</name>
  <ip address='10.20.20.1' netmask='255.255.255.0'>
    <dhcp>
      <range start='10.20.20.100' end='10.20.20.200'/>
      <host mac='52:54:00:20:20:05' name='printer' ip='10.20.20.5'/>
    </dhcp>
  </ip>
</network>"""
SLAAC = """<network>
  <name>packtslaac</name>
  <forward mode='nat'><nat ipv6='yes'/></forward>
  <ip family='ipv6' address='fd00:61::1' prefix='64'/>
</network>"""
LEASED6 = """<network>
  <name>packtleased</name>
  <forward mode='nat'><nat ipv6='yes'/></forward>
  <ip family='ipv6' address='fd00:62::1' prefix='64'>
    <dhcp><range start='fd00:62::100' end='fd00:62::1ff'/></dhcp>
  </ip>
</network>"""
# What a fresh libvirt has, with other addresses than the lab's other networks.
DEFAULT = """<network>
  <name>default</name>
  <forward mode='nat'/>
  <bridge name='virbr0' stp='on' delay='0'/>
  <ip address='192.168.122.1' netmask='255.255.255.0'>
    <dhcp><range start='192.168.122.2' end='192.168.122.254'/></dhcp>
  </ip>
</network>"""


def fleetswitch(fleet: Fleet, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "controller.cli", "--api", fleet.controller.api, *words]
    root = Path(__file__).parent.parent.parent
    return subprocess.run(argv, input=stdin, capture_output=True, text=True, cwd=root, timeout=90, check=False)


def leased(guest: Guest) -> str:
    """The address that it was given."""
    eventually(f"{guest.name} has a lease", lambda: guest.run("cat /run/lease.eth0")[0] == 0)
    text = guest.run("cat /run/lease.eth0")[1]
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)["ip"]


@pytest.fixture(scope="module")
def guests(fleet: Fleet) -> dict[str, Guest]:
    """Networks from files, and real guests on them."""
    for xml in (NAT, ISOLATED, BEHIND_UPLINK):
        done = fleetswitch(fleet, "net", "define", "-", "--wait", "30", stdin=xml)
        assert done.returncode == 0, done.stderr
    nics = {
        "x1": ("h1", Nic("packtnat")),
        "x2": ("h2", Nic("packtisolated", mac="52:54:00:20:20:05")),
        "x4": ("h2", Nic("packtnat")),
    }
    found = {name: fleet.real(host, name, [nic], wait=False) for name, (host, nic) in nics.items()}
    for guest in found.values():
        guest.wait_boot()
    return found


def test_guests_on_networks_from_files_have_leases(fleet: Fleet, guests: dict[str, Guest]) -> None:
    done = fleetswitch(fleet, "net", "define", "-", stdin=ROUTED)
    assert done.returncode == 1
    assert "guests leave by their own host's external address" in done.stderr
    one, two = guests["x1"], guests["x2"]
    assert leased(one).startswith("10.10.10.")
    assert leased(two) == "10.20.20.5"
    assert pings(one, "10.10.10.1")
    assert pings(two, "10.20.20.1")
    assert pings(one, leased(guests["x4"]))
    for host in fleet.hosts.values():
        assert "<bridge name='br-int'/>" in host.virsh("net-dumpxml", "packtnat")
    dumped = fleetswitch(fleet, "net", "dumpxml", "packtnat").stdout
    done = fleetswitch(fleet, "net", "define", "-", stdin=dumped)
    assert "Network packtnat unchanged" in done.stdout


# What dhclient runs when something happens to its lease.
SCRIPT = """\
#!/bin/sh
case $reason in
PREINIT) ip link set "$interface" up ;;
BOUND | RENEW | REBIND | REBOOT)
	ip link set "$interface" mtu "$new_interface_mtu"
	ip addr replace "$new_ip_address/$new_subnet_mask" dev "$interface"
	ip route replace default via "$new_routers" dev "$interface"
	;;
esac
"""
# Its own files are elsewhere, so that it meets no other one of this machine.
DHCPCD = (
    "mount -t tmpfs run /run && mkdir /run/dhcpcd && mkdir -p /var/lib/dhcpcd && mount -t tmpfs lib /var/lib/dhcpcd && "
    "exec dhcpcd -4 -A -1 -B -f /dev/null -c /bin/true -o interface_mtu -t 60 eth0"
)
BIG = 2 << 20  # bytes of a file
OUT, FAR, OUT6 = "203.0.113.1", "198.51.100.7", "2001:db8::1"


@contextlib.contextmanager
def web(fleet: Fleet, folder: Path) -> Iterator[list[str]]:
    """A web server outside; who asked it, when it is over."""
    clients: list[str] = []
    argv = [sys.executable, "-u", "-m", "http.server", "80", "--bind", "::", "--directory", str(folder)]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(netns.argv_in(fleet.lab.outside, argv), stdout=log, stderr=log)
    try:
        eventually("the web server", lambda: "Serving" in (folder / "log").read_text())
        yield clients
    finally:
        server.kill()
        server.wait()
        clients += [
            line.split()[0].removeprefix("::ffff:")
            for line in (folder / "log").read_text().splitlines()
            if "GET" in line
        ]


@pytest.fixture(scope="module")
def external(fleet: Fleet, guests: dict[str, Guest]) -> dict[str, str]:
    """The hosts' addresses outside; a machine there knows the way to the routed network, and would to the others."""
    ways = {"h1": "203.0.113.11", "h2": "203.0.113.12"}
    lines = [f"addr add {OUT}/24 dev eth0", f"addr add {FAR}/32 dev lo", f"addr add {OUT6}/64 dev eth0 nodad"]
    lines += [f"route add {subnet} via {ways['h1']}" for subnet in ("10.10.10.0/24", "10.20.20.0/24", "192.168.2.0/24")]
    netns.ip_batch(lines, fleet.lab.outside)
    for name, address in ways.items():
        outside = {"uplink": "physnet1", "address": f"{address}/24", "gateway": OUT}
        outside |= {"address6": f"2001:db8::{name}/64".replace("h", "1"), "gateway6": OUT6}
        fleet.client.post("/apply", [{**fleet.host_document(name), "external": outside}], wait=30.0)
    return ways


@pytest.fixture(scope="module")
def lights(fleet: Fleet, external: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, LightGuest]:
    """Guests that ask with ISC's client, on h1, and with dhcpcd, on h2."""
    found = fleet.lights({name: (host, [Nic("packtnat")]) for name, host in (("isc", "h1"), ("dhcpcd", "h2"))})
    folder = tmp_path_factory.mktemp("isc")
    (folder / "script").write_text(SCRIPT)
    (folder / "script").chmod(0o755)
    (folder / "conf").write_text("request subnet-mask, routers, interface-mtu;\n")
    files = f"-sf {folder}/script -lf {folder}/leases -pf {folder}/pid"
    clients: dict[str, list[str] | str] = {
        "isc": f"dhclient -4 -1 -cf {folder}/conf {files} eth0",
        "dhcpcd": ["unshare", "--mount", "sh", "-c", DHCPCD],
    }

    def leases(name: str) -> None:
        eventually(f"{name} has a lease", lambda: found[name].run(clients[name], 90.0)[0] == 0)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(leases, clients))
    return found


@pytest.fixture(scope="module")
def routed(fleet: Fleet, external: dict[str, str]) -> LightGuest:
    """A guest with an address that it was given by hand, which nobody registered."""
    nic = Nic("packtrouted", addresses=("192.168.2.5/24",), gateways=("192.168.2.1",))
    return fleet.lights({"routed": ("h1", [nic])})["routed"]


def address_of(guest: LightGuest) -> str:
    """Its own; its system knows what the network carries, by the vNIC or, as dhcpcd has it, by the way out."""
    (found,) = json.loads(guest.run("ip -j -4 addr show dev eth0")[1])
    assert found["mtu"] == 1450 or "mtu 1450" in guest.run("ip route show default")[1]
    return str(found["addr_info"][0]["local"])


def test_whichever_client_asks_the_outside_is_reached_as_the_host(
    fleet: Fleet, guests: dict[str, Guest], lights: dict[str, LightGuest], routed: LightGuest, external: dict[str, str],
    tmp_path: Path,
) -> None:  # fmt: skip
    addresses = {name: address_of(guest) for name, guest in lights.items()}
    told = {each["address"] for each in fleet.client.items("/networks/packtnat/leases")}
    assert {*addresses.values(), leased(guests["x1"]), leased(guests["x4"])} <= told
    (tmp_path / "big").write_bytes(os.urandom(BIG))
    digest = hashlib.sha256((tmp_path / "big").read_bytes()).hexdigest()
    with web(fleet, tmp_path) as clients:
        for guest in lights.values():
            assert pings(guest, FAR)
            code, said = guest.run(f"curl -sS -f http://{OUT}/big | sha256sum", 60.0)
            assert (code, said.split()[0]) == (0, digest), said
        for name in ("x1", "x4"):
            assert pings(guests[name], FAR)
            code, said = guests[name].run(f"wget -q -O - http://{OUT}/big | sha256sum", 60.0)
            assert (code, said.split()[0]) == (0, digest), said
        eventually("the routed one is answered", lambda: pings(routed, OUT, tries=1))
        assert routed.run(f"curl -sS http://{OUT}/big | sha256sum", 60.0)[1].split()[0] == digest
        guests["x2"].run("ip route add default via 10.20.20.1")
        assert silent(guests["x2"], OUT)
    assert clients == [*external.values(), *external.values(), "192.168.2.5"]


# The same of DHCPv6; what DAD finds, and the way to the subnet, are no matter here.
SCRIPT6 = """\
#!/bin/sh
case $reason in
PREINIT6) ip link set "$interface" up ;;
BOUND6) ip addr replace "$new_ip6_address/128" dev "$interface" nodad ;;
esac
"""


def test_guests_of_ipv6_alone_reach_the_outside_as_their_host(
    fleet: Fleet, external: dict[str, str], tmp_path: Path
) -> None:
    for xml in (SLAAC, LEASED6):
        done = fleetswitch(fleet, "net", "define", "-", "--wait", "30", stdin=xml)
        assert done.returncode == 0, done.stderr
    guests = fleet.lights({"auto": ("h1", [Nic("packtslaac")]), "leased": ("h2", [Nic("packtleased")])})
    (tmp_path / "script").write_text(SCRIPT6)
    (tmp_path / "script").chmod(0o755)
    files = f"-sf {tmp_path}/script -lf {tmp_path}/leases -pf {tmp_path}/pid"
    leased = guests["leased"]
    eventually("it has a lease", lambda: leased.run(f"dhclient -6 -1 -D LL {files} eth0", 90.0)[0] == 0)
    assert "inet6 fd00:62::1" in leased.run("ip -6 addr show dev eth0")[1]
    (tmp_path / "big").write_bytes(os.urandom(BIG))
    digest = hashlib.sha256((tmp_path / "big").read_bytes()).hexdigest()
    with web(fleet, tmp_path) as clients:
        for guest in guests.values():
            eventually(f"{guest.name} is answered", lambda guest=guest: pings(guest, OUT6, tries=1))
            code, said = guest.run(f"curl -sS -f http://[{OUT6}]/big | sha256sum", 60.0)
            assert (code, said.split()[0]) == (0, digest), said
    assert clients == ["2001:db8::11", "2001:db8::12"]


def test_iperf3_runs_to_the_outside(fleet: Fleet, lights: dict[str, LightGuest], external: dict[str, str]) -> None:
    argv = netns.argv_in(fleet.lab.outside, ["iperf3", "-s", "-B", OUT])
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as server:
        try:
            for name, words in (("isc", ""), ("dhcpcd", "-R"), ("dhcpcd", "-u -b 20M -l 1400")):
                line = f"iperf3 -c {OUT} -t 1 --connect-timeout 3000 -J {words} 2>/dev/null"
                said: list[str] = []

                def ran(name: str = name, line: str = line, said: list[str] = said) -> bool:
                    said[:] = [lights[name].run(line)[1]]
                    return '"error":' not in said[0]

                eventually("iperf3 runs", ran)  # its server may be busy with the last one yet
                told = json.loads(said[0])["end"]
                carried = told["sum_received" if "sum_received" in told else "sum"]["bytes"]
                print(f"{name} {words}: {carried / 125000:.1f} Mbit in a second")
                assert carried > 100_000
        finally:
            server.kill()


def test_the_outside_comes_in_by_a_forward_alone(
    fleet: Fleet, guests: dict[str, Guest], routed: LightGuest, external: dict[str, str]
) -> None:
    def fetched(place: str) -> str:
        argv = netns.argv_in(fleet.lab.outside, ["curl", "-sS", "-m", "2", f"http://{place}/index.html"])
        return run(argv, check=False).stdout.strip()

    target = {"kind": "PortForward", "name": "x4", "network": "packtnat", "listen": {"port": 8080}}
    fleet.apply(yaml.safe_dump({**target, "target": {"vm": "x4", "port": 80}}))
    for address in external.values():
        eventually(f"the forward of {address}", lambda address=address: fetched(f"{address}:8080") == "x4")
    pinged = ["ping", "-n", "-c1", "-W1", "192.168.2.5"]
    eventually("the routed one", lambda: run(netns.argv_in(fleet.lab.outside, pinged), check=False).returncode == 0)
    closed = [leased(guests["x1"]), leased(guests["x4"]), "10.20.20.5", *external.values()]
    with ThreadPoolExecutor(len(closed)) as pool:
        assert list(pool.map(fetched, closed)) == [""] * len(closed)


def test_a_hosts_own_network_is_taken_over_and_stays_as_it_is(fleet: Fleet) -> None:
    host = fleet.hosts["h1"]
    (host.dir / "default.xml").write_text(DEFAULT)
    host.virsh("net-define", str(host.dir / "default.xml"))
    before = host.virsh("net-dumpxml", "default", "--inactive")

    def clash() -> str:
        return fleetswitch(fleet, "net", "import", "h1", "default", "--dry-run").stderr

    eventually(
        "the host's own network is known", lambda: "warning: Host h1: its libvirt has a network default" in clash()
    )
    done = fleetswitch(fleet, "net", "import", "h1", "default", "--name", "lab", "--wait", "30")
    assert done.returncode == 0, done.stderr
    assert leased(fleet.real("h2", "x3", [Nic("lab")])).startswith("192.168.122.")
    assert host.virsh("net-dumpxml", "default", "--inactive") == before
