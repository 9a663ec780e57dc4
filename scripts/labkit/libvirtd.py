"""libvirtd of one host: its settings, and its start inside the host's namespaces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from .pki import Pki
from .run import LabError, run

# What libvirt learns about QEMU takes seconds to probe and depends on this machine only: kept over labs.
CACHE = Path("/var/cache/fleetswitch-lab/libvirt")

# No AppArmor, no cgroups, no device nodes of its own: QEMU runs as root inside the host's namespaces.
_QEMU_CONF = """security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
remember_owner = 0
dynamic_ownership = 0
user = "root"
group = "root"
migration_host = "{address}"
"""

_LIBVIRTD_CONF = """listen_tls = {tls:d}
listen_tcp = 1
listen_addr = "{address}"
auth_tcp = "none"
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_group = "root"
host_uuid = "{uuid}"
log_outputs = "2:file:/var/log/libvirt/libvirtd.log"
"""


_TLS_CONF = """ca_file = "/etc/libvirt/cacert.pem"
cert_file = "/etc/libvirt/servercert.pem"
key_file = "/etc/libvirt/serverkey.pem"
"""


def configure(directory: Path, address: str, uuid: str, pki: Pki | None = None) -> None:
    """Write the files that the host sees as /etc/libvirt. The address serves remote clients and migration; with an
    authority that signs its certificate, also over TLS."""
    etc = directory / "libvirt-etc"
    (etc / "qemu/networks").mkdir(parents=True)
    (etc / "hooks").mkdir()
    (etc / "qemu.conf").write_text(_QEMU_CONF.format(address=address))
    settings = _LIBVIRTD_CONF.format(tls=pki is not None, address=address, uuid=uuid)
    if pki is not None:
        settings += _TLS_CONF
        pki.issue(address, etc, "server")
    (etc / "libvirtd.conf").write_text(settings)
    (etc / "libvirt.conf").touch()


def start(argv_inside: Callable[[Sequence[str]], list[str]], directory: Path) -> None:
    """Start the daemon; returns when its sockets listen. Raises LabError with the end of its log when it fails."""
    argv = ["libvirtd", "--daemon", "--listen", "--pid-file", "/run/libvirt/libvirtd.pid"]
    try:
        run(argv_inside(argv), timeout=30.0)
    except LabError as error:
        log = directory / "libvirt-log" / "libvirtd.log"
        tail = log.read_text(errors="replace")[-1500:] if log.exists() else "(no log)"
        raise LabError(f"{error}\n{tail}") from error
