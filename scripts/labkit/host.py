"""One KVM host of the lab: namespaces (network, mount, UTS), its own Open vSwitch and its own libvirtd.

A sleeping process (the keeper) holds the mount namespace, so libvirtd may die and come back into the same one; when the
keeper ends, its mounts are gone with it and nothing is to be unmounted.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as Xml

from . import libvirtd
from . import netns as ns
from .ovs import DAEMONS, Ovs
from .pki import Pki
from .procs import Process, end, from_pidfile, inside
from .run import LabError, run, wait_for
from .state import ROOT, HostState, StateFile

# $1 = the host's directory, $2 = that of all labs, $3 = cache of what libvirt learned about QEMU, $4 = the host's name
_MOUNTS = """set -e
hostname "$4"
cd "$1"
mount --bind hosts /etc/hosts
mount --bind libvirt run/libvirt
mount --bind ovs run/openvswitch
mount --bind console run/console
mount --bind "$2" run/fleetswitch-lab
mount --rbind run /run
mount --bind libvirt-etc /etc/libvirt
mount --bind libvirt-var /var/lib/libvirt
mount --bind libvirt-log /var/log/libvirt
mount --bind "$3" /var/cache/libvirt
mount -t sysfs sysfs /sys
cd /
echo $$ >"$1/keeper.pid"
exec sleep infinity
"""


class Host(Ovs):
    """A host. The tools of Ovs speak to its Open vSwitch; `virsh`, `run` and the rest are added here."""

    def __init__(self, facts: HostState, state: StateFile) -> None:
        super().__init__(facts.name, Path(facts.rundir) / "ovs", facts.netns, state, listen=facts.mgmt)
        self.facts = facts
        self.name = facts.name
        self.mgmt = facts.mgmt
        self.tunnel_ip = facts.tunnel_ip
        self.dir = Path(facts.rundir)

    @property
    def libvirt_uri(self) -> str:
        """libvirtd's unix socket, reachable from every namespace of this machine."""
        return f"qemu+unix:///system?socket={self.dir}/libvirt/libvirt-sock"

    @property
    def libvirt_tcp_uri(self) -> str:
        """The same over TCP, reachable from the root namespace and the other hosts."""
        return f"qemu+tcp://{self.mgmt}/system"

    @property
    def libvirt_tls_uri(self) -> str:
        """The same over TLS, in a lab with an authority; who connects adds a pkipath."""
        return f"qemu+tls://{self.mgmt}/system"

    def up(self) -> None:
        """Start everything. The namespace and its interfaces are there already (labkit.segment)."""
        for part in ("libvirt", "libvirt-etc", "libvirt-var", "libvirt-log", "console"):
            (self.dir / part).mkdir(parents=True)
        for point in ("libvirt", "openvswitch", "console", "fleetswitch-lab", "lock"):
            (self.dir / "run" / point).mkdir(parents=True)
        self.create()
        self._start_keeper()
        self.add_bridge("br-phy", fail_mode="standalone")
        self.vsctl("add-port", "br-phy", "eth1")
        mtu = self._state.now.underlay_mtu
        self.vsctl("set", "Interface", "br-phy", f"mtu_request={mtu}")
        ns.ip_batch([f"addr add {self.tunnel_ip}/24 dev br-phy", "link set br-phy up"], self.netns)
        if self.facts.libvirt:
            libvirtd.configure(
                self.dir, self.mgmt, self.facts.uuid, Pki(self._state.pki) if self._state.now.tls else None
            )
            self.start("libvirtd")

    def _start_keeper(self) -> None:
        script = self.dir / "keeper.sh"
        script.write_text(_MOUNTS)
        libvirtd.CACHE.mkdir(parents=True, exist_ok=True)
        for point in ("/etc/libvirt", "/var/lib/libvirt", "/var/log/libvirt", "/var/cache/libvirt"):
            if not Path(point).is_dir():
                raise LabError(f"{point} is missing: apt-get install libvirt-daemon-system")
        hosts = {"127.0.0.1": "localhost"} | {host.mgmt: host.name for host in self._state.now.hosts.values()}
        (self.dir / "hosts").write_text("".join(f"{address} {name}\n" for address, name in hosts.items()))
        argv = ["setsid", "-f", "unshare", "--mount", "--uts", "--propagation", "slave", "sh", str(script)]
        with (self.dir / "keeper.log").open("w") as log:
            keeper = ns.argv_in(self.netns, [*argv, str(self.dir), str(ROOT), str(libvirtd.CACHE), self.name])
            subprocess.run(keeper, check=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self._state.remember(from_pidfile(f"{self.name} keeper", self.dir / "keeper.pid", timeout=5.0))
        except LabError as error:
            raise LabError(f"{self.name}: {error}\n{(self.dir / 'keeper.log').read_text()}") from error

    def argv_inside(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs argv on the host, in its namespaces."""
        return ["nsenter", f"--target={self.process('keeper').pid}", "--net", "--mount", "--uts", "--", *argv]

    def run(self, argv: Sequence[str], *, check: bool = True, timeout: float = 60.0, input: str | None = None) -> str:
        """Run a program on the host as its administrator would; returns what it wrote to standard output."""
        return run(self.argv_inside(argv), check=check, timeout=timeout, input=input).stdout.rstrip("\n")

    def virsh(self, *args: str, check: bool = True, timeout: float = 60.0) -> str:
        """virsh(1) against this host's libvirtd; its standard output."""
        return run(["virsh", "-q", "-c", self.libvirt_uri, *args], check=check, timeout=timeout).stdout.strip()

    def start(self, daemon: str) -> Process:
        """Start "ovsdb-server", "ovs-vswitchd" or "libvirtd"; returns when it serves."""
        if daemon != "libvirtd":
            return super().start(daemon)
        pidfile = self.dir / "libvirt" / "libvirtd.pid"
        pidfile.unlink(missing_ok=True)
        libvirtd.start(self.argv_inside, self.dir)
        return self._state.remember(from_pidfile(f"{self.name} libvirtd", pidfile))

    def restart(self, daemon: str, number: int = signal.SIGTERM) -> Process:
        """End the daemon with a signal and start it again."""
        self.kill(daemon, number)
        if self.process(daemon).alive:
            end([self.process(daemon)])
        return self.start(daemon)

    def lose_power(self) -> None:
        """Everything on it dies at once, and what it keeps in memory (/run) is gone; its disk stays as it is."""
        keeper = self.process("keeper")
        left = [process for process in inside([ns.path(self.netns)]) if process.pid != keeper.pid]
        for process in left:
            process.signal(signal.SIGKILL)
        end(left)
        for found in (self.dir / "libvirt").iterdir():
            shutil.rmtree(found) if found.is_dir() and not found.is_symlink() else found.unlink()

    def boot(self, libvirt: bool = True) -> None:
        """Start what an init system would, over the disk as it is; returns when all of it serves. libvirtd starts the
        guests that are set to autostart."""
        for daemon in DAEMONS:
            self.start(daemon)
        ns.ip_batch([f"addr replace {self.tunnel_ip}/24 dev br-phy", "link set br-phy up"], self.netns)
        if libvirt:
            self.start("libvirtd")

    def daemons(self) -> dict[str, bool]:
        """Each daemon of the host, and whether it runs."""
        names = (*DAEMONS, "libvirtd") if self.facts.libvirt else DAEMONS
        return {name: self.process(name).alive for name in names}

    def wait_bridge(self, name: str, timeout: float = 15.0) -> None:
        """Return when somebody has made this bridge."""
        wait_for(f"bridge {name} on {self.name}", lambda: name in self.vsctl("list-br").split(), timeout, 0.1)

    def wait_network(self, name: str, timeout: float = 15.0) -> None:
        """Return when somebody has defined and started this libvirt network."""
        wait_for(
            f"network {name} on {self.name}", lambda: name in self.virsh("net-list", "--name").split(), timeout, 0.1
        )

    def define_network(self, xml: str) -> None:
        """virsh net-define, net-autostart and net-start of a network's XML (its name must be new on this host)."""
        name = Xml.fromstring(xml).findtext("name") or ""
        path = self.dir / "network.xml"
        path.write_text(xml)
        try:
            self.virsh("net-define", "--validate", str(path))
        finally:
            path.unlink()
        self.virsh("net-autostart", name)
        self.virsh("net-start", name)
