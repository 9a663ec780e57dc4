"""What is ours on a host is put right whoever changed it; what is not ours is left alone, or named when in the way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml
from e2e_fleet import PATIENCE, Fleet, eventually, installed, our_rows, wait_ping
from labkit import LabError, LightGuest, Nic
from labkit.host import Host

pytestmark = pytest.mark.lab

NETWORKS = """
kind: Network
name: cloud
mode: isolated
---
kind: Network
name: lan
mode: bridge
physical_network: physnet1
vlan: 10
"""
FOREIGN_NETWORK = """<network><name>foreign</name><forward mode='bridge'/><bridge name='br-foreign'/>
<virtualport type='openvswitch'/></network>"""


@pytest.fixture(scope="module")
def guests(fleet: Fleet) -> dict[str, LightGuest]:
    """a on h1 and b on h2, each on both networks; and things on h1 that are none of ours."""
    host = fleet.hosts["h1"]
    host.add_bridge("br-foreign", fail_mode="standalone")
    host.vsctl("add-port", "br-foreign", "stray", "--", "set", "Interface", "stray", "type=internal")
    host.vsctl("set", "Port", "stray", "tag=7", "external_ids:owner=somebody")
    host.vsctl("set-controller", "br-foreign", "tcp:127.0.0.1:6699")
    host.define_network(FOREIGN_NETWORK)
    fleet.apply(NETWORKS)
    return fleet.lights({
        name: (on, nics(n)) for n, (name, on) in enumerate((("a", "h1"), ("b", "h2")), start=1)
    })  # fmt: skip


def nics(number: int) -> list[Nic]:
    """A vNIC on each network."""
    return [Nic("cloud", None, f"52:54:00:13:00:{number:02x}", (f"10.13.0.{number}/24",)),
            Nic("lan", None, f"52:54:00:13:01:{number:02x}", (f"10.0.10.{number}/24",))]  # fmt: skip


def foreign(host: Host) -> str:
    """Everything of somebody else's, as text; without what Open vSwitch and libvirt count by themselves."""
    columns = "--columns=_uuid,name,ports,fail_mode,external_ids,other_config,controller,protocols,datapath_type"
    found = [
        host.vsctl(columns, "list", "Bridge", "br-foreign"),
        host.vsctl("--columns=_uuid,tag,external_ids,interfaces", "list", "Port", "stray"),
        host.vsctl(
            "--columns=target", "list", "Controller", host.vsctl("get", "Bridge", "br-foreign", "controller")[1:-1]
        ),
        host.vsctl("--columns=_uuid,ports,fail_mode", "list", "Bridge", "br-phy"),
        host.virsh("net-dumpxml", "foreign"),
    ]
    return "\n".join(found)


@pytest.fixture(autouse=True)
def _others_are_left_alone(fleet: Fleet, guests: dict[str, LightGuest]) -> Iterator[None]:
    before = foreign(fleet.hosts["h1"])
    yield
    assert foreign(fleet.hosts["h1"]) == before


def talk(guests: dict[str, LightGuest]) -> None:
    for address in ("10.13.0.2", "10.0.10.2"):
        wait_ping(guests["a"], address)


def described(host: Host) -> str:
    """Our bridges with their ports, as they should be."""
    found = []
    for bridge in ("br-int", "fs-up1"):
        if host.vsctl("br-exists", bridge, check=False) is None or bridge not in host.vsctl("list-br").split():
            return f"no {bridge}"
        found.append(host.vsctl("--columns=fail_mode,datapath_type,protocols", "list", "Bridge", bridge))
        found.append(f"{host.vsctl('get-controller', bridge)} {sorted(host.vsctl('list-ports', bridge).split())}")
    for port in ("fs-geneve", "fs-vxlan", "fs-gre", "fs-int1", "fs-ext1"):
        found.append(host.vsctl("--if-exists", "--columns=name,type,options,ofport_request", "list", "Interface", port))
        found.append(host.vsctl("--if-exists", "--columns=tag,trunks", "list", "Port", port))
    return "\n".join(found)


@pytest.mark.parametrize(
    "command",
    [
        "del-port fs-geneve",
        "del-port br-int fs-int1",
        "del-port fs-up1 fs-ext1",
        "del-port fs-up1 eth2",
        "set-fail-mode br-int standalone",
        "del-fail-mode br-int",
        "del-controller br-int",
        "set-controller br-int tcp:127.0.0.1:6698",
        "set Interface fs-geneve options:remote_ip=192.0.2.1",
        "set Interface fs-vxlan ofport_request=7",
        "set Bridge br-int protocols=OpenFlow10",
        "set Port fs-int1 tag=5",
        "del-br fs-up1",
    ],
)
def test_what_somebody_changes_on_a_host_is_put_right(
    fleet: Fleet, guests: dict[str, LightGuest], command: str
) -> None:
    host = fleet.hosts["h1"]
    right = described(host)
    host.vsctl(*command.split())
    eventually(f"right again after {command}", lambda: described(host) == right)
    eventually("the host is up", lambda: fleet.get("Host", "h1")["status"]["openflow"]["state"] == "up")
    talk(guests)


def test_a_deleted_integration_bridge_comes_back_with_its_flows(fleet: Fleet, guests: dict[str, LightGuest]) -> None:
    """The guests' own ports went with it: their rows say so, and they are switched again once they are plugged in."""
    host = fleet.hosts["h2"]
    before = described(fleet.hosts["h1"]).replace("l-a", "l-b")
    host.vsctl("del-br", "br-int")
    eventually("its guests are gone", lambda: fleet.get("Port", "b-0")["status"]["state"] == "absent")
    host.wait_bridge("br-int")
    eventually("flows", lambda: installed(host))
    fleet.stop([guests.pop("b")])
    guests["b"] = fleet.lights({
        "b": ("h2", nics(2))
    })["b"]  # fmt: skip
    talk(guests)
    assert described(host).count("OpenFlow15") == before.count("OpenFlow15") == 1


@pytest.mark.parametrize("words", [("net-destroy",), ("net-destroy", "net-undefine")])
def test_a_libvirt_network_of_ours_is_put_back(
    fleet: Fleet, guests: dict[str, LightGuest], words: tuple[str, ...]
) -> None:
    host = fleet.hosts["h1"]
    right = host.virsh("net-dumpxml", "cloud")
    for word in words:
        host.virsh(*word.split(), "cloud")

    def back() -> bool:
        rows = [line.split() for line in host.virsh("net-list", "--all").splitlines()]
        return ["cloud", "active", "yes", "yes"] in rows and host.virsh("net-dumpxml", "cloud") == right

    eventually("it is active again", back, 40.0)


def test_a_foreign_bridge_called_br_int_is_refused_with_the_reason(fleet: Fleet, guests: dict[str, LightGuest]) -> None:
    host = fleet.hosts["h2"]
    fleet.stop([guests.pop("b")])
    fleet.delete([("Host", "h2")])
    assert our_rows(host) == []
    host.add_bridge("br-int", fail_mode="standalone")
    mine = host.vsctl("--columns=_uuid,fail_mode,controller,external_ids,protocols", "list", "Bridge", "br-int")
    with pytest.raises(LabError, match="br-int exists and is not fleetswitch's"):
        fleet.apply(yaml.safe_dump(fleet.host_document("h2")), wait=2.0)
    assert "br-int exists and is not fleetswitch's" in fleet.controller.fleetswitch("host", "list")
    assert mine == host.vsctl("--columns=_uuid,fail_mode,controller,external_ids,protocols", "list", "Bridge", "br-int")
    assert our_rows(host) == []
    host.vsctl("del-br", "br-int")
    eventually("h2 is right", lambda: fleet.get("Host", "h2")["status"]["openflow"]["state"] == "up", PATIENCE)
    fleet.settle()
