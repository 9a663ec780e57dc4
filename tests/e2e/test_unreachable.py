"""A host that does not answer is shown with the reason, and holds up no other."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator

import pytest
import yaml
from e2e_fleet import Document, Fleet, eventually, wait_ping
from labkit import LightGuest, Nic, netns
from labkit.controller import PROGRAM

pytestmark = pytest.mark.lab

NETWORK = "kind: Network\nname: cloud\nmode: isolated\n"
SECOND = "52:54:00:14:00:02"
NOISE = 1.0  # seconds by which a shared machine may spoil a time


@pytest.fixture(scope="module")
def guest(fleet: Fleet) -> LightGuest:
    fleet.apply(NETWORK)
    return fleet.lights({
        "first": ("h1", [Nic("cloud", None, addresses=("10.14.0.1/24",))]),
        "other": ("h2", [Nic("cloud", None, addresses=("10.14.0.3/24",))]),  # its host has a tunnel to h1
    })["first"]  # fmt: skip


@pytest.fixture(scope="module")
def usual(fleet: Fleet, guest: LightGuest) -> float:
    """Seconds in which h1 is driven while all is well, at most."""
    return max(seconds(fleet, guest, f"usual-{n}") for n in range(3))


def seconds(fleet: Fleet, guest: LightGuest, what: str) -> float:
    """h1 gets a guest; until it is switched."""
    second = fleet.lab.start_light("h1", f"second-{what}", [Nic("cloud", None, SECOND, ("10.14.0.2/24",))])
    begun = time.monotonic()
    fleet.client.post("/apply", list(yaml.safe_load_all(second.ports_yaml())), wait=0.0)
    wait_ping(guest, "10.14.0.2")
    took = time.monotonic() - begun
    fleet.lab.stop_lights([second])
    fleet.client.post("/delete", [{"kind": "Port", "name": f"{second.name}-0"}])
    return took


def drives(fleet: Fleet, guest: LightGuest, what: str, usual: float) -> None:
    """h1 gets a guest, and it is switched as soon as ever."""
    took = seconds(fleet, guest, what)
    assert took < 2 * usual + NOISE, f"{what}: {took:.2f} s, usually {usual:.2f}"


def apply(fleet: Fleet, document: Document) -> subprocess.CompletedProcess[str]:
    """`fleetswitch apply --wait 2`, as an operator runs it."""
    argv = [str(PROGRAM), "--api", fleet.controller.api, "apply", "-f", "-", "--wait", "2"]
    text = yaml.safe_dump(document)
    return subprocess.run(argv, input=text, capture_output=True, text=True, timeout=60.0, check=False)


def network(name: str) -> Document:
    """What every host's libvirt is concerned with."""
    return {"kind": "Network", "name": name, "mode": "isolated"}


def test_a_host_behind_a_black_hole_is_named_and_the_others_are_driven(
    fleet: Fleet, guest: LightGuest, usual: float
) -> None:
    control, address = f"{fleet.lab.name}ctl", f"{fleet.lab.state.now.mgmt_net}.99"
    netns.ip_batch([f"neigh replace {address} lladdr 02:00:00:00:00:99 nud permanent dev {control}"])
    document = {
        "kind": "Host",
        "name": "hole",
        "ovsdb": f"tcp:{address}:6640",
        "libvirt": f"qemu+tcp://{address}/system",
    }
    answer = fleet.client.post("/apply", [document], wait=2.0)
    assert {item["host"] for item in answer["unconfirmed"]} == {"hole"}
    done = apply(fleet, network("new-hole"))
    assert done.returncode == 3, done
    assert "hole" in done.stderr
    drives(fleet, guest, "hole", usual)
    eventually("the reasons", lambda: all(
        part["state"] != "up" and part["reason"] not in {"", "not connected yet"}
        for part in (fleet.get("Host", "hole")["status"][name] for name in ("ovsdb", "libvirt"))
    ))  # fmt: skip
    assert fleet.get("Host", "hole")["status"]["openflow"]["state"] == "down"
    assert "hole" in fleet.controller.fleetswitch("host", "list")
    fleet.delete([("Host", "hole")], force=True)
    assert "hole" not in {host["name"] for host in fleet.list("Host")}


def test_a_host_whose_daemons_are_gone_is_named(fleet: Fleet, guest: LightGuest, usual: float) -> None:
    host = fleet.hosts["h2"]
    for daemon in ("libvirtd", "ovsdb-server", "ovs-vswitchd"):
        host.kill(daemon)
    eventually("all of it is down", lambda: all(
        fleet.get("Host", "h2")["status"][part]["state"] == "down" for part in ("ovsdb", "openflow", "libvirt")
    ))  # fmt: skip
    assert all(fleet.get("Host", "h2")["status"][part]["reason"] for part in ("ovsdb", "openflow", "libvirt"))
    assert fleet.controller.fleetswitch("host", "list").count(" down ") == 3
    drives(fleet, guest, "gone", usual)
    done = apply(fleet, network("new-gone"))
    assert done.returncode == 3
    for daemon in ("ovsdb-server", "ovs-vswitchd", "libvirtd"):
        host.start(daemon)
    fleet.settle(60.0)
    assert "new-gone" in host.virsh("net-list", "--name").split()


DAEMONS = {"ovsdb": "ovsdb-server", "libvirt": "libvirtd", "openflow": "ovs-vswitchd"}


@pytest.fixture(scope="module")
def hung(fleet: Fleet, guest: LightGuest, usual: float) -> Iterator[None]:
    """The daemons of h2 are there and say nothing; how long things take was looked at before."""
    host = fleet.hosts["h2"]
    for daemon in DAEMONS.values():
        host.kill(daemon, signal.SIGSTOP)
    yield
    for daemon in DAEMONS.values():
        host.kill(daemon, signal.SIGCONT)
    for part in DAEMONS:
        eventually(
            f"{part} is up again", lambda part=part: fleet.get("Host", "h2")["status"][part]["state"] == "up", 60.0
        )
    fleet.settle()


@pytest.mark.usefixtures("hung")
@pytest.mark.parametrize("part", list(DAEMONS))
def test_a_host_that_hangs_is_named_and_the_other_is_driven(
    fleet: Fleet, guest: LightGuest, usual: float, part: str
) -> None:
    # Each concerns the daemon that hangs, on h2: its tunnel ports, its flows towards h1, its libvirt networks.
    changes = {"ovsdb": fleet.host_document("h2") | {"tunnel_ip": "192.0.2.77"},
               "openflow": fleet.host_document("h1") | {"tunnel": "vxlan"}, "libvirt": network("more")}  # fmt: skip
    done = apply(fleet, changes[part])
    assert done.returncode == 3, done
    assert "h2" in done.stderr
    assert part in done.stderr
    assert "h1" not in done.stderr
    drives(fleet, guest, part, usual)
    eventually(f"the reason for {part}", lambda: fleet.get("Host", "h2")["status"][part]["state"] != "up", 60.0)
    drives(fleet, guest, f"{part}-2", usual)

    def told() -> bool:  # a hung daemon's reason may become another from one look to the next
        reason = fleet.get("Host", "h2")["status"][part]["reason"]
        return bool(reason) and reason[:40] in fleet.controller.fleetswitch("host", "list")

    eventually(f"the list tells the reason for {part}", told)
    fleet.client.post("/apply", [fleet.host_document("h1"), fleet.host_document("h2")], wait=0.0)
