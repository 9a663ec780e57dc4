"""From bare hosts to the first guests by docs/real-fleet.md: each of its commands, typed in the lab."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from e2e_fleet import Fleet, eventually, lab_name, wait_ping
from labkit import Guest, Lab, Nic
from labkit.controller import PROGRAM, REPOSITORY

pytestmark = pytest.mark.lab

TEXT = (REPOSITORY / "docs/real-fleet.md").read_text()
COMMAND = re.compile(r"^(controller|kvm\d\d)# (.+)$", re.MULTILINE)
YAML = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What the lab has done before: packages, sockets of libvirt.
DONE = (
    "apt-get install ",
    "python3 -m venv ",
    "/opt/fleetswitch/bin/pip ",
    "ln -s ",
    "systemctl enable --now libvirtd",
)
LINKS = ("openflow", "ovsdb", "libvirt")
ADDRESS = {"web1": "10.0.10.61/24", "web2": "10.0.10.62/24", "db1": "192.168.50.63/24"}


class Typist:
    """Types commands of the page in a lab of three hosts, with the lab's names and addresses for its own."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.fleet = Fleet(lab)
        self.lab = lab
        self.folder = folder
        self.guests: dict[str, Guest] = {}
        self.said: dict[str, str] = {}

    def translated(self, command: str) -> str:
        for number, host in enumerate(self.lab.hosts.values(), start=1):
            command = command.replace(f"qemu+tls://kvm0{number}/system", host.libvirt_tcp_uri)
            command = command.replace(f"192.0.2.1{number}", host.mgmt).replace(f"198.51.100.1{number}", host.tunnel_ip)
            command = command.replace(f"kvm0{number}", host.name)
        # the lab's own manager has port 6640, and there is no kernel datapath
        command = command.replace(":6640", ":6641").replace("ens224", "eth2")
        return f"{command} --datapath-type netdev" if command.startswith("fleetswitch host add ") else command

    def type(self, where: str, command: str) -> None:
        if command.startswith(DONE):
            return
        host = self.lab.hosts.get(where.replace("kvm0", "h"))
        words = shlex.split(self.translated(command))
        match words:
            case ["install", "-m", "644", path, _]:
                assert (REPOSITORY / path).is_file()
            case ["systemctl", "enable", "--now", "fleetswitch"]:
                self.lab.controller.start()
            case ["fleetswitch", *rest]:
                self.said[command] = self._fleetswitch(rest)
            case ["ovs-vsctl", *rest] if host is not None:
                host.vsctl(*rest)
            case ["virt-install", "--name", name, *rest] if host is not None:
                chosen = dict(part.split("=") for part in rest[-1].replace("network:", "network=", 1).split(","))
                nic = Nic(chosen["network"], chosen.get("portgroup"), addresses=(ADDRESS[name],))
                self.guests[name] = self.fleet.real(host.name, name, [nic], wait=False)
            case _:
                pytest.fail(f"{where}# {command}: the lab knows no such command")

    def _fleetswitch(self, words: list[str]) -> str:
        for name in (guest.name for guest in self.guests.values()):
            eventually(f"{name} active", lambda name=name: self._is_active(name))
        if words[0] in {"doctor", "trace"}:  # who types is slower than switches and libvirt, also on a busy machine
            self.fleet.settle()
            eventually("every connection up", self.all_up)
        done = subprocess.run(
            [str(PROGRAM), *words], cwd=self.folder, capture_output=True, text=True, timeout=90,
            env={**os.environ, "FLEETSWITCH_API": self.lab.controller.api},
        )  # fmt: skip
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def all_up(self) -> bool:
        """Whether each host's three connections stand."""
        links = [host["status"].get(link) for host in self.fleet.list("Host") for link in LINKS]
        return all(link is not None and link["state"] == "up" for link in links)

    def _is_active(self, vm: str) -> bool:
        found = [port["status"] for port in self.fleet.list("Port") if port["status"].get("vm") == vm]
        return bool(found) and all(status["state"] == "active" for status in found)


def test_who_types_what_the_page_says_has_a_fleet(tmp_path: Path) -> None:
    documents = YAML.findall(TEXT)
    assert len(documents) == 1
    (tmp_path / "networks.yaml").write_text(documents[0])
    commands = COMMAND.findall(TEXT)
    assert len(commands) > 20
    with Lab(lab_name("r"), hosts=3) as lab:
        typist = Typist(lab, tmp_path)
        for where, command in commands:
            typist.type(where, command)
        told = typist.said["fleetswitch host add kvm01 --ovsdb tcp:192.0.2.11:6640 --libvirt qemu+tls://kvm01/system "
                           "--tunnel-ip 198.51.100.11 --uplink physnet1=ens224"]  # fmt: skip
        assert f"ovs-vsctl set-manager ptcp:6641:{lab.hosts['h1'].mgmt}" in told
        assert typist.all_up()
        assert "delivered to web2 on h2" in typist.said["fleetswitch trace web1 web2"]
        for guest in typist.guests.values():
            guest.wait_boot()
        wait_ping(typist.guests["web1"], ADDRESS["web2"].split("/")[0])
