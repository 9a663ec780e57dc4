"""One Open vSwitch: an ovsdb-server and an ovs-vswitchd of its own in a namespace, and the tools to talk to it."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

from . import netns as ns
from .procs import Process, end, from_pidfile
from .run import LabError, run
from .state import StateFile

SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
DAEMONS = ("ovsdb-server", "ovs-vswitchd")

_TLS = (("private-key", "private_key"), ("certificate", "certificate"), ("ca-cert", "ca_cert"))


class Ovs:
    """Open vSwitch of `owner` ("h1", "net") with its files in `rundir`, running in the namespace `netns`."""

    def __init__(self, owner: str, rundir: Path, netns: str, state: StateFile, listen: str | None = None) -> None:
        self.owner = owner
        self.rundir = rundir
        self.netns = netns
        self.listen = listen  # address for ptcp:6640, None for the unix socket alone
        self._state = state

    @property
    def db(self) -> str:
        """The database's address on this machine, as ovs-vsctl(8) writes it; works from any namespace."""
        return f"unix:{self.rundir}/db.sock"

    @property
    def _env(self) -> dict[str, str]:
        here = str(self.rundir)
        return {**os.environ, "OVS_RUNDIR": here, "OVS_LOGDIR": here, "OVS_DBDIR": here, "OVS_SYSCONFDIR": here}

    def create(self) -> None:
        """Make the database and start both daemons."""
        self.rundir.mkdir(parents=True)
        if not SCHEMA.exists():
            raise LabError(f"{SCHEMA} is missing: apt-get install openvswitch-switch")
        run(["ovsdb-tool", "create", str(self.rundir / "conf.db"), str(SCHEMA)])
        self.start("ovsdb-server")
        self.vsctl("--no-wait", "init")
        version = run(["ovs-vswitchd", "--version"]).stdout.split()[3]  # "ovs-vswitchd (Open vSwitch) 3.1.0 ..."
        facts = [f"external_ids:system-id={self.owner}", f"ovs_version={version}"]  # as Debian's ovs-ctl does
        self.vsctl("--no-wait", "set", "Open_vSwitch", ".", *facts)
        self.start("ovs-vswitchd")

    def start(self, daemon: str) -> Process:
        """Start "ovsdb-server" or "ovs-vswitchd"; returns when it serves."""
        common = ["--detach", "--no-chdir", "--pidfile", "--log-file", "-vconsole:off", "-vsyslog:off"]
        if daemon == "ovsdb-server":
            argv = [
                *("ovsdb-server", str(self.rundir / "conf.db"), f"--remote=p{self.db}"),
                "--remote=db:Open_vSwitch,Open_vSwitch,manager_options",
                *([f"--remote=ptcp:6640:{self.listen}"] if self.listen else []),
                # as Debian's ovs-ctl: `ovs-vsctl set-ssl` and `set-manager pssl:` work
                *(f"--{option}=db:Open_vSwitch,SSL,{column}" for option, column in _TLS),
            ]
        elif daemon == "ovs-vswitchd":
            argv = ["ovs-vswitchd", self.db, "--disable-system"]
        else:
            raise LabError(f"no daemon {daemon!r} in Open vSwitch")
        run(ns.argv_in(self.netns, [*argv, *common]), env=self._env)
        pidfile = self.rundir / f"{daemon}.pid"
        return self._state.remember(from_pidfile(f"{self.owner} {daemon}", pidfile))

    def process(self, daemon: str) -> Process:
        """The daemon as it was last started."""
        for process in self._state.processes():
            if process.what == f"{self.owner} {daemon}":
                return process
        raise LabError(f"{self.owner}: {daemon} was never started")

    def kill(self, daemon: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to the daemon; after SIGKILL and SIGTERM, return when it is gone."""
        process = self.process(daemon)
        process.signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            end([process])

    def vsctl(self, *args: str, check: bool = True, timeout: float = 20.0) -> str:
        """ovs-vsctl(8) with these arguments; its output without the newline at the end."""
        argv = ["ovs-vsctl", f"--db={self.db}", f"--timeout={timeout:.0f}", *args]
        return run(argv, check=check, timeout=timeout + 5).stdout.rstrip("\n")

    def ofctl(self, command: str, bridge: str, *args: str, check: bool = True, input: str | None = None) -> str:
        """ovs-ofctl(8) in OpenFlow 1.5, as in `ofctl("add-flow", "br-int", "actions=NORMAL")`."""
        argv = ["ovs-ofctl", "-O", "OpenFlow15", command, f"{self.rundir}/{bridge}.mgmt", *args]
        return run(argv, check=check, input=input).stdout.rstrip("\n")

    def appctl(self, *args: str, daemon: str = "ovs-vswitchd", check: bool = True) -> str:
        """ovs-appctl(8) to one of the daemons."""
        target = f"{self.rundir}/{daemon}.{self.process(daemon).pid}.ctl"
        return run(["ovs-appctl", "-t", target, *args], check=check).stdout.rstrip("\n")

    def add_bridge(self, name: str, *, fail_mode: str = "secure", columns: Sequence[str] = ()) -> None:
        """Make a bridge of the userspace datapath; `columns` are further settings of the Bridge row."""
        self.vsctl(
            *("--", "--may-exist", "add-br", name),
            *("--", "set", "Bridge", name, "datapath_type=netdev", f"fail_mode={fail_mode}", *columns),
        )
