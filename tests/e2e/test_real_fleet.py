"""From bare hosts to the first guests by docs/real-fleet.md: each of its commands, typed in the lab."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from e2e_fleet import Fleet, eventually, lab_name, wait_ping
from labkit import Guest, Lab, Nic
from labkit.controller import PROGRAM, REPOSITORY
from labkit.host import Host

pytestmark = pytest.mark.lab

TEXT = (REPOSITORY / "docs/real-fleet.md").read_text()
COMMAND = re.compile(r"^(controller|kvm\d\d)# (.+)$", re.MULTILINE)
YAML = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
UNIT = REPOSITORY / "docs/fleetswitch.service"
EXEC = re.compile(r"^ExecStart=/opt/fleetswitch/bin/fleetswitch up (.*)$", re.MULTILINE)
PKI = re.compile(r"/etc/pki/(?:CA/|libvirt/private/|libvirt/)")
LINKS = ("openflow", "ovsdb", "libvirt")
ADDRESS = {"web1": "10.0.10.61/24", "web2": "10.0.10.62/24", "db1": "192.168.50.63/24"}


class Typist:
    """Types commands of the page in a lab of three hosts, with the lab's names and addresses for its own."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.fleet = Fleet(lab)
        self.lab = lab
        self.folder = folder
        self.pki = folder / "pki"
        self.guests: dict[str, Guest] = {}
        self.said: dict[str, str] = {}
        self.program: list[str] = []

    def translated(self, command: str, host: Host | None = None) -> str:
        """The command with the lab's names and addresses. What a machine has in /etc/pki is in one folder here."""
        pki = self.pki if host is None else host.dir / "libvirt-etc"
        command = PKI.sub(f"{pki}/", command)
        for number, each in enumerate(self.lab.hosts.values(), start=1):
            command = command.replace(f"qemu+tls://kvm0{number}/system", f"{each.libvirt_tls_uri}?pkipath={self.pki}")
            command = command.replace(f"DNS:kvm0{number}", f"DNS:{each.name},IP:{each.mgmt}")
            command = command.replace(f"192.0.2.1{number}", each.mgmt).replace(f"198.51.100.1{number}", each.tunnel_ip)
            command = command.replace(f"kvm0{number}", each.name)
        command = command.replace("192.0.2.1:", f"{self.lab.controller.address}:")
        # the lab's own manager has port 6640, and there is no kernel datapath
        command = command.replace(":6640", ":6641").replace("ens224", "eth2")
        return f"{command} --datapath-type netdev" if command.startswith("fleetswitch host add ") else command

    def type(self, where: str, command: str) -> None:
        host = self.lab.hosts.get(where.replace("kvm0", "h"))
        words = shlex.split(self.translated(command, host))
        match words:
            case ["apt-get", "install", *packages]:
                installable(packages)
            case ["python3", "-m", "venv", "/opt/fleetswitch"]:
                pass  # the tests have one
            case ["/opt/fleetswitch/bin/pip", "install", "."]:
                self.program = built(self.folder)
            case ["ln", "-s", "/opt/fleetswitch/bin/fleetswitch", "/usr/local/bin/"]:
                pass
            case ["install", "-m", "644", path, _]:
                verified(REPOSITORY / path, self.folder)
            case ["systemctl", "enable", "--now", "fleetswitch"]:
                self.start(UNIT.read_text())
            case ["systemctl", "restart", "fleetswitch"]:
                self.lab.controller.stop()
                self.start(TEXT)
                self.guests_talk()  # although nothing reaches a host just now
            case ["mkdir", "-p", *_]:
                self.pki.mkdir(exist_ok=True)
            case ["openssl" | "sed", *_]:
                subprocess.run(words, cwd=self.folder, check=True, capture_output=True, timeout=60)
            case ["scp", path, target]:
                name, _, place = command.split()[2].partition(":")
                there = self.translated(place, self.lab.hosts[name.replace("kvm0", "h")])
                assert target.endswith(Path(place).name)
                shutil.copyfile(self.folder / path, there)
            case ["systemctl", "stop", "libvirtd"] if host is not None:
                host.kill("libvirtd", signal.SIGTERM)
            case ["systemctl", "enable", "--now", "libvirtd-tls.socket" as unit] if host is not None:
                assert (Path("/lib/systemd/system") / unit).is_file()
                host.start("libvirtd")
            case ["fleetswitch", *rest]:
                self.said[command] = self._fleetswitch(rest)
            case ["ovs-vsctl", *rest] if host is not None:
                host.vsctl(*rest)
            case ["virt-install", "--name", name, *rest] if host is not None:
                chosen = dict(part.split("=") for part in rest[-1].replace("network:", "network=", 1).split(","))
                mtu = int(chosen["mtu.size"]) if "mtu.size" in chosen else None
                nic = Nic(chosen["network"], chosen.get("portgroup"), addresses=(ADDRESS[name],), mtu=mtu)
                self.guests[name] = self.fleet.real(host.name, name, [nic], wait=False)
            case _:
                pytest.fail(f"{where}# {command}: the lab knows no such command")

    def start(self, unit: str) -> None:
        """What systemd does with a unit of this text, with the paths of the lab."""
        found = EXEC.search(unit)
        assert found is not None
        self.lab.controller.start(*shlex.split(self.translated(found[1])), program=self.program)

    def _fleetswitch(self, words: list[str]) -> str:
        words, file = (words[:-2], words[-1]) if ">" in words else (words, None)
        # who types is slower than switches and libvirt, also on a busy machine
        if words[0] in {"doctor", "port", "trace"}:
            for name in self.guests:
                eventually(f"{name} active", lambda name=name: self._is_active(name))
            self.fleet.settle()
            eventually("every connection up", self.all_up)
        done = subprocess.run(
            [str(PROGRAM), *words], cwd=self.folder, capture_output=True, text=True, timeout=90,
            env={**os.environ, "FLEETSWITCH_API": self.lab.controller.api},
        )  # fmt: skip
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        if file is not None:
            (self.folder / file).write_text(done.stdout)
        return done.stdout + done.stderr

    def guests_talk(self) -> None:
        for guest in self.guests.values():
            guest.wait_boot()
        wait_ping(self.guests["web1"], ADDRESS["web2"].split("/")[0])

    def all_up(self) -> bool:
        """Whether each host's three connections stand."""
        links = [host["status"].get(link) for host in self.fleet.list("Host") for link in LINKS]
        return all(link is not None and link["state"] == "up" for link in links)

    def _is_active(self, vm: str) -> bool:
        found = [port["status"] for port in self.fleet.list("Port") if port["status"].get("vm") == vm]
        return bool(found) and all(status["state"] == "active" for status in found)


def installable(packages: list[str]) -> None:
    """apt would install them, where this machine has Debian's lists."""
    if any(Path("/var/lib/apt/lists").glob("*_Packages*")):
        subprocess.run(["apt-get", "--simulate", "install", *packages], check=True, capture_output=True, timeout=60)


def built(folder: Path) -> list[str]:
    """The command that runs what pip would install: the packages as the project's files describe them, no checkout."""
    source = folder / "source"
    for name in ("controller", "apps", "topology"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    build = [
        sys.executable,
        "-c",
        "import setuptools; setuptools.setup()",
        "-q",
        "build",
        "--build-lib",
        "../installed",
    ]
    subprocess.run(build, cwd=source, check=True, capture_output=True, timeout=60)
    shutil.rmtree(source)
    start = "from controller.cli import main; main()"
    return ["env", f"PYTHONPATH={folder}/installed", sys.executable, "-P", "-c", start]


def verified(unit: Path, folder: Path) -> None:
    """systemd takes the unit, whose program is somewhere else here."""
    copy = folder / unit.name
    copy.write_text(unit.read_text().replace("/opt/fleetswitch/bin/fleetswitch", str(PROGRAM)))
    done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_who_types_what_the_page_says_has_a_fleet(tmp_path: Path) -> None:
    documents = YAML.findall(TEXT)
    assert len(documents) == 1
    (tmp_path / "networks.yaml").write_text(documents[0])
    commands = COMMAND.findall(TEXT)
    assert len(commands) > 20
    with Lab(lab_name("r"), hosts=3, tls=True) as lab:
        typist = Typist(lab, tmp_path)
        for where, command in commands:
            typist.type(where, command)
        told = typist.said["fleetswitch host add kvm01 --ovsdb tcp:192.0.2.11:6640 --libvirt qemu+tls://kvm01/system "
                           "--tunnel-ip 198.51.100.11 --uplink physnet1=ens224"]  # fmt: skip
        assert f"ovs-vsctl set-manager ptcp:6641:{lab.hosts['h1'].mgmt}" in told
        assert typist.all_up()
        assert all(host["ovsdb"].startswith("ssl:") for host in typist.fleet.list("Host"))
        assert "delivered to web2 on h2" in typist.said["fleetswitch trace web1 web2"]
        typist.guests_talk()
