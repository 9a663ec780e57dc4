"""OVN over hosts that run: its two databases and northd in a folder, and an ovn-controller on each host."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from labkit import procs
from labkit.run import LabError, run, wait_for

from . import tenants
from .hosts import Daemons, DummyHost
from .tenants import Guest

_SCHEMAS = Path("/usr/share/ovn")
_PATIENCE = 180.0


class Ovn:
    """Its central part, and what runs on hosts because of it."""

    def __init__(self, folder: Path, hosts: Sequence[DummyHost]) -> None:
        self._central = Daemons(folder)
        self._hosts = hosts

    def start(self) -> None:
        central = self._central
        self._nb = central.database("nb", _SCHEMAS / "ovn-nb.ovsschema")
        self._sb = central.database("sb", _SCHEMAS / "ovn-sb.ovsschema")
        central.start("ovn-northd", f"--ovnnb-db={self._nb}", f"--ovnsb-db={self._sb}")
        for number, host in enumerate(self._hosts, start=1):
            ids = {"ovn-remote": self._sb, "ovn-encap-type": "geneve", "ovn-encap-ip": f"198.18.0.{number}"}
            host.vsctl("--no-wait", "set", "Open_vSwitch", ".",
                       *(f'external_ids:{key}="{value}"' for key, value in ids.items()))  # fmt: skip
            host.start("ovn-controller", host.db)

    def stop(self) -> None:
        central = list(self._central.running.values())
        procs.end([*central, *(host.running[name] for host in self._hosts
                               for name in host.running if name == "ovn-controller")])  # fmt: skip

    @property
    def pids(self) -> list[int]:
        """All its processes, without those of Open vSwitch."""
        return [*self._central.pids(), *(pid for host in self._hosts for pid in host.pids("ovn-controller"))]

    def configure(self, guests: Sequence[Guest]) -> None:
        """The guests' tenants (those that are new), and a port for each; all in one transaction."""
        words: list[str] = []
        known = self._nbctl("--bare", "--columns=name", "list", "Logical_Switch").split()
        for tenant in sorted({guest.tenant for guest in guests}):
            if tenants.network(tenant) not in known:
                words += _tenant(tenant)
        for guest in guests:
            if tenants.network(guest.tenant) in known:
                options = self._nbctl("--bare", "--columns=_uuid", "find", "DHCP_Options",
                                      f'cidr="{tenants.subnet(guest.tenant)}"')  # fmt: skip
            else:
                options = f"@dhcp{guest.tenant}"
            words += _port(guest, options)
        self._nbctl(*words[1:])

    def confirmed(self, count: int) -> None:
        """Return when so many ports are up, and every host has said that its switch has all flows of that moment."""

        def up() -> bool:
            ports = self._nbctl("--bare", "--columns=name", "find", "Logical_Switch_Port", "up=true").split()
            return len(ports) >= count

        wait_for(f"{count} ports of OVN up", up, _PATIENCE, every=0.05)
        self._nbctl("--wait=hv", "sync")

    def _nbctl(self, *args: str) -> str:
        return run(["ovn-nbctl", f"--db={self._nb}", f"--timeout={_PATIENCE:.0f}", *args], timeout=2 * _PATIENCE).stdout


def _tenant(number: int) -> list[str]:
    """Words of ovn-nbctl(8) that add a tenant's switch and what its guests are told by DHCP."""
    gateway = tenants.gateway(number)
    options = {"server_id": gateway, "server_mac": f"0a:00:00:00:00:{number:02x}", "lease_time": "3600", "mtu": "1442"}
    return ["--", "ls-add", tenants.network(number), "--", f"--id=@dhcp{number}", "create", "DHCP_Options",
            f'cidr="{tenants.subnet(number)}"',
            *(f'options:{key}="{value}"' for key, value in options.items())]  # fmt: skip


def _port(guest: Guest, dhcp: str) -> list[str]:
    own = f"{guest.mac} {guest.address}"
    return ["--", "lsp-add", guest.network, guest.iface_id, "--", "lsp-set-addresses", guest.iface_id, own,
            "--", "lsp-set-port-security", guest.iface_id, own,
            "--", "set", "Logical_Switch_Port", guest.iface_id, f"dhcpv4_options={dhcp.strip()}"]  # fmt: skip


@contextmanager
def ovn(folder: Path, hosts: Sequence[DummyHost]) -> Iterator[Ovn]:
    """OVN, which runs from its ``start`` on; ended on leaving. Raises LabError where it is not installed."""
    if not (_SCHEMAS / "ovn-nb.ovsschema").exists():
        raise LabError(f"{_SCHEMAS} is missing: apt-get install ovn-central ovn-host")
    peer = Ovn(folder, hosts)
    try:
        yield peer
    finally:
        peer.stop()
