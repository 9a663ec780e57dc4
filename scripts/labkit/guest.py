"""Real guests: QEMU under TCG, started by libvirt as any other guest of the fleet."""

from __future__ import annotations

import shlex
import signal
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree as Xml

from . import domain, image
from .console import Console
from .host import Host
from .nic import Nic
from .procs import end, from_pidfile
from .run import LabError, wait_for
from .state import GuestState, StateFile, check_name


class Guest:
    """A guest that libvirt runs. Its definition stays: after `shutdown` or `destroy`, `start` boots it again."""

    def __init__(self, facts: GuestState, hosts: Mapping[str, Host], state: StateFile) -> None:
        self.facts = facts
        self.name = facts.name
        self.vm_id = facts.vm_id
        self._hosts = hosts
        self._state = state

    @classmethod
    def define(cls, name: str, host: Host, nics: Sequence[Nic], hosts: Mapping[str, Host], state: StateFile) -> Guest:
        """Write the guest's XML to a host's libvirtd. Raises LabError when the name is taken or libvirt refuses it."""
        picture = image.ready()
        with state.edit() as lab:
            check_name(lab, name)
            facts = GuestState(name, host.name, "real", str(uuid.uuid4()), None, [nic.to_json() for nic in nics])
            lab.guests[name] = facts
        guest = cls(facts, hosts, state)
        try:
            guest._feed(domain.domain(name, facts.vm_id, nics, picture), "define", "--validate")
        except LabError:
            with state.edit() as lab:
                del lab.guests[name]
            raise
        return guest

    @property
    def host(self) -> Host:
        """The host it is on now."""
        return self._hosts[self.facts.host]

    @property
    def nics(self) -> list[Nic]:
        return [Nic.from_json(nic) for nic in self.facts.vnics]

    @property
    def console(self) -> Console:
        return Console(self.name, self.host.dir / "console" / f"{self.name}.sock")

    @property
    def console_log(self) -> Path:
        """All that the guest wrote on its serial line on this host."""
        return self.host.dir / "console" / f"{self.name}.log"

    def state(self) -> str:
        """ "running", "shut off", ... as virsh domstate says."""
        return self.host.virsh("domstate", self.name)

    def start(self, wait: bool = True) -> None:
        """Boot it; with `wait`, return when its console answers."""
        self.host.virsh("start", self.name)
        if wait:
            self.wait_boot()

    def wait_boot(self, timeout: float = 90.0) -> None:
        self.console.wait(timeout)

    def shutdown(self, timeout: float = 30.0) -> None:
        """Press its power button and wait until it is off."""
        self.host.virsh("shutdown", self.name)
        wait_for(f"{self.name} shut off", lambda: self.state() == "shut off", timeout, every=0.1)

    def destroy(self) -> None:
        """Pull its plug."""
        self.host.virsh("destroy", self.name)

    def remove(self) -> None:
        """Pull its plug if it runs, and forget it."""
        self.host.virsh("destroy", self.name, check=False)
        self.host.virsh("undefine", self.name)
        with self._state.edit() as lab:
            lab.guests.pop(self.name, None)

    def run(self, command: str | Sequence[str], timeout: float = 30.0) -> tuple[int, str]:
        """Run a command inside, over the serial line: (exit code, its output). A guest that boots is waited for.

        A text is a line for the guest's shell. After `timeout` s the guest ends it: exit code 143.
        """
        line = command if isinstance(command, str) else shlex.join(command)
        code, output = self.console.run(line, timeout)
        return code, output.decode("utf-8", "replace")

    def ports(self) -> list[str]:
        """The names of its taps on the host's bridge, in the order of its vNICs."""
        rows = self.host.virsh("domiflist", self.name).splitlines()
        taps = {row.split()[-1]: row.split()[0] for row in rows if row.strip()}
        return [taps[nic.mac] for nic in self.nics]

    def attach(self, nic: Nic) -> None:
        """Plug a vNIC in while it runs; the guest's init configures it as it does the others."""
        self.run(["sh", "-c", f"echo {shlex.quote(domain.nic_words(nic))} >>/run/nics"])
        self._feed(Xml.tostring(domain.interface(nic), encoding="unicode"), "attach-device", self.name, "--live")
        self._set_nics([*self.nics, nic])

    def detach(self, mac: str, timeout: float = 15.0) -> None:
        """Unplug the vNIC with this MAC; returns when it is gone from libvirt's live XML."""
        nic = next((nic for nic in self.nics if nic.mac == mac), None)
        if nic is None:
            raise LabError(f"{self.name} has no vNIC {mac}; it has {' '.join(n.mac for n in self.nics)}")
        # naming the MAC alone works whatever else libvirt filled in
        self.host.virsh("detach-interface", self.name, "bridge", "--mac", mac, "--live")
        wait_for(f"vNIC {mac} gone", lambda: mac not in self.host.virsh("domiflist", self.name), timeout, every=0.05)
        self._set_nics([other for other in self.nics if other.mac != mac])

    def migrate(self, to: str, timeout: float = 120.0, *, bandwidth: int = 0) -> None:
        """Move it to another host while it runs: libvirt's peer-to-peer live migration, its definition too.

        `bandwidth` bounds the copy, in MiB/s; 0 does not. Raises LabError when it stays, as after `abort_migration`.
        """
        target = self._hosts.get(to)
        if target is None or target is self.host:
            raise LabError(f"{self.name} is on {self.host.name}: no migration to {to!r}")
        words = ["--live", "--p2p", "--persistent", "--undefinesource", self.name]
        words += ["--bandwidth", str(bandwidth)] if bandwidth else []
        self.host.virsh("migrate", *words, target.libvirt_tcp_uri, f"tcp://{target.mgmt}", timeout=timeout)
        with self._state.edit() as lab:
            lab.guests[self.name].host = to
            self.facts = lab.guests[self.name]

    def evacuate(self, to: str, wait: bool = True) -> None:
        """Boot it on another host from the definition that its own, which may be dead, has on its disk."""
        target = self._hosts[to]
        path = target.dir / f"{self.name}.xml"
        path.write_text((self.host.dir / "libvirt-etc/qemu" / f"{self.name}.xml").read_text())
        try:
            target.virsh("define", str(path))
        finally:
            path.unlink()
        with self._state.edit() as lab:
            lab.guests[self.name].host = to
            self.facts = lab.guests[self.name]
        self.start(wait)

    def crash(self) -> None:
        """Kill its QEMU, and return when that is gone."""
        qemu = from_pidfile(f"{self.name} qemu", self.host.dir / "libvirt/qemu" / f"{self.name}.pid")
        qemu.signal(signal.SIGKILL)
        end([qemu])

    def abort_migration(self) -> None:
        """End the copy that is under way; it runs on where it is."""
        self.host.virsh("domjobabort", self.name)

    def _set_nics(self, nics: Sequence[Nic]) -> None:
        with self._state.edit() as lab:
            lab.guests[self.name].vnics = [nic.to_json() for nic in nics]
            self.facts = lab.guests[self.name]

    def _feed(self, xml: str, verb: str, *args: str) -> None:
        """A virsh command that reads XML from a file; the file's place is the last word but the options."""
        path = self.host.dir / f"{self.name}.xml"
        path.write_text(xml)
        try:
            plain = [arg for arg in args if not arg.startswith("--")]
            self.host.virsh(verb, *plain, str(path), *(arg for arg in args if arg.startswith("--")))
        finally:
            path.unlink()
