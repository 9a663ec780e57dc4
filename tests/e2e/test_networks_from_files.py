"""Files that virsh net-define takes, defined for the whole fleet: real guests on them get their leases."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from e2e_fleet import Fleet, eventually, pings
from labkit import Guest, Nic

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
ISOLATED = """<network>
  <name>packtisolated</name>
  <ip address='10.20.20.1' netmask='255.255.255.0'>
    <dhcp>
      <range start='10.20.20.100' end='10.20.20.200'/>
      <host mac='52:54:00:20:20:05' name='printer' ip='10.20.20.5'/>
    </dhcp>
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


def test_guests_on_networks_from_files_have_leases(fleet: Fleet) -> None:
    for xml in (NAT, ISOLATED):
        done = fleetswitch(fleet, "net", "define", "-", "--wait", "30", stdin=xml)
        assert done.returncode == 0, done.stderr
    done = fleetswitch(fleet, "net", "define", "-", stdin=ROUTED)
    assert done.returncode == 1
    assert "guests leave by their own host's external address" in done.stderr
    one = fleet.real("h1", "x1", [Nic("packtnat")])
    two = fleet.real("h2", "x2", [Nic("packtisolated", mac="52:54:00:20:20:05")])
    assert leased(one).startswith("10.10.10.")
    assert leased(two) == "10.20.20.5"
    assert pings(one, "10.10.10.1")
    assert pings(two, "10.20.20.1")
    dumped = fleetswitch(fleet, "net", "dumpxml", "packtnat").stdout
    done = fleetswitch(fleet, "net", "define", "-", stdin=dumped)
    assert "Network packtnat unchanged" in done.stdout


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
