"""vNICs that Open vSwitch never sees, and what a guest's XML asks for in vain: shown, with why and what to do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from e2e_fleet import Fleet, eventually, wait_ping
from labkit import Guest, Nic, netns

pytestmark = pytest.mark.lab
HOSTS = 1

SWITCHED, PLAIN, LINUX, USER, SOCKET, OTHER, RAW = (f"52:54:00:33:00:{n:02x}" for n in range(7))
NETWORK = "<network><name>plain</name><forward mode='bridge'/><bridge name='virbr9'/></network>"
DRIVER = "<model type='virtio'/><driver><host csum='off'/></driver><rom enabled='no'/>"
INTERFACES = {
    PLAIN: f"<interface type='network'><mac address='{PLAIN}'/><source network='plain'/>{DRIVER}</interface>",
    LINUX: f"<interface type='bridge'><mac address='{LINUX}'/><source bridge='virbr9'/>{DRIVER}</interface>",
    USER: f"<interface type='user'><mac address='{USER}'/>{DRIVER}</interface>",
    SOCKET: f"<interface type='server'><mac address='{SOCKET}'/><source address='127.0.0.1' port='5558'/>{DRIVER}"
    "</interface>",
    OTHER: f"<interface type='bridge'><mac address='{OTHER}'/><source bridge='br-other'/>"
    f"<virtualport type='openvswitch'/>{DRIVER}</interface>",
    RAW: f"<interface type='ethernet'><mac address='{RAW}'/><target dev='tap-raw' managed='no'/>{DRIVER}</interface>",
}


def configure(guest: Guest, verb: str, xml: str) -> None:
    path = guest.host.dir / "device.xml"
    path.write_text(xml)
    guest.host.virsh(verb, guest.name, str(path), "--config")
    path.unlink()


@pytest.fixture(scope="module")
def guest(fleet: Fleet) -> Iterator[Guest]:
    """A guest with a vNIC of every kind that this machine can make."""
    fleet.apply("kind: Network\nname: cloud\nmode: isolated\n")
    host = fleet.hosts["h1"]
    host.wait_network("cloud")
    netns.ip_batch(["link add virbr9 type bridge", "link set virbr9 up"], host.netns)
    host.define_network(NETWORK)
    host.add_bridge("br-other")
    netns.ip_batch(["tuntap add dev tap-raw mode tap vnet_hdr", "link set tap-raw up"], host.netns)
    others = [Nic("cloud", None, mac, dhcp=False) for mac in INTERFACES]
    guest = fleet.lab.define_guest(
        "h1", "odd", [Nic("cloud", None, SWITCHED, ("10.3.0.1/24",), mtu=1450), *others]
    )  # fmt: skip
    for mac, xml in INTERFACES.items():
        host.virsh("detach-interface", "odd", "network", "--mac", mac, "--config")
        configure(guest, "attach-device", xml)
    guest.start()
    fleet.wait_active([SWITCHED])
    yield guest
    guest.remove()


def shown(fleet: Fleet, mac: str) -> tuple[str, str]:
    status = fleet.port_of(mac).get("status", {})
    return status.get("state", ""), status.get("reason", "")


@pytest.mark.parametrize(
    ("mac", "reason"),
    [
        (PLAIN, "on a Linux bridge (network plain)"),
        (LINUX, "on a Linux bridge (bridge virbr9)"),
        (USER, "user-mode networking inside QEMU"),
        (SOCKET, "a TCP socket of QEMU"),
        (OTHER, "on bridge br-other, and fleetswitch switches what is on br-int"),
    ],
)
def test_what_is_not_on_our_bridge_is_shown_with_why_and_what_to_do(
    fleet: Fleet, guest: Guest, mac: str, reason: str
) -> None:
    state, told = shown(fleet, mac)
    assert state == "unmanaged"
    assert told.startswith(reason)
    assert "to have it switched, use <interface type='network'>" in told
    line = next(line for line in fleet.controller.fleetswitch("get", "ports").splitlines() if mac in line)
    assert " unmanaged " in line
    assert reason in line
    assert not any(mac in flow["match"] for flow in fleet.flows("h1"))


def test_a_registration_of_one_says_that_it_has_no_effect(fleet: Fleet, guest: Guest) -> None:
    fleet.apply(f"kind: Port\nname: user\nvm: odd\nmac: '{USER}'\nnetwork: cloud\naddresses: [10.3.0.50]\n")
    status = fleet.get("Port", "user")["status"]
    assert status["state"] == "unmanaged"
    assert status["reason"].endswith("Its registration for cloud:default has no effect")
    fleet.delete([("Port", "user")])
    eventually("it is shown as before", lambda: shown(fleet, USER)[0] == "unmanaged")


def test_what_somebody_else_plugs_in_is_switched_once_it_says_whose_it_is(fleet: Fleet, guest: Guest) -> None:
    state, told = shown(fleet, RAW)
    assert state == "unmanaged"
    assert "type ethernet, which libvirt plugs in nowhere: add its port to br-int" in told
    host = guest.host
    host.vsctl("add-port", "br-int", "tap-raw")
    eventually("it is seen", lambda: shown(fleet, RAW)[0] == "pending")
    assert "nothing there says whose it is" in shown(fleet, RAW)[1]
    ids = [f"external_ids:vm-id={guest.vm_id}", f'external_ids:attached-mac="{RAW}"']
    host.vsctl("set", "Interface", "tap-raw", *ids)
    eventually("it needs a registration", lambda: shown(fleet, RAW)[0] == "quarantined")
    assert "names no network" in shown(fleet, RAW)[1]
    fleet.apply(f"kind: Port\nname: raw\nvm: odd\nmac: '{RAW}'\nnetwork: cloud\n")
    fleet.wait_active([RAW])
    peer = fleet.lights({"peer": ("h1", [Nic("cloud", None, addresses=("10.3.0.2/24",))])})["peer"]
    device = f"$(basename $(dirname $(grep -l {RAW} /sys/class/net/*/address)))"
    guest.run(f"ip addr add 10.3.0.9/32 dev {device}; ip route add 10.3.0.2/32 dev {device} src 10.3.0.9")
    wait_ping(peer, "10.3.0.9")
    host.vsctl("del-port", "tap-raw")
    eventually("it is unplugged", lambda: shown(fleet, RAW)[0] == "unmanaged")
    assert shown(fleet, RAW)[1].endswith("Its registration for cloud:default has no effect")
    fleet.stop([peer])
    fleet.delete([("Port", "raw")])
