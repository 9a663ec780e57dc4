"""Faucet from PyPI in an environment of its own, run beside a lab's host."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from labkit.host import Host
from labkit.image import CACHE
from labkit.run import LabError, run, say

VERSION = "1.10.12"
BRIDGE = "br-faucet"
PORT = 6654
_BACKOFF = 1000  # ms at most between a switch's attempts to connect, as fleetswitch sets it; 8 s else


def installed() -> Path:
    """Its programs' folder. Raises LabError with what pip says when it cannot be installed."""
    folder = CACHE / f"faucet-{VERSION}"
    done = folder / "done"
    if not done.exists():
        say(f"installing faucet {VERSION} into {folder}")
        run([sys.executable, "-m", "venv", "--clear", str(folder)])
        pip = [str(folder / "bin/pip"), "install", "--quiet", "--disable-pip-version-check", f"faucet=={VERSION}"]
        run(pip, timeout=300.0)
        done.touch()
    return folder / "bin"


class Faucet:
    """One that runs a bridge of a host. ``vlans``: OpenFlow port → name of its VLAN."""

    def __init__(self, programs: Path, folder: Path, host: Host, address: str) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._address = address
        self._path = f"{programs}:{os.environ['PATH']}"  # it runs osken-manager by its name
        self._process: subprocess.Popen[bytes] | None = None
        self._argv = [str(programs / "faucet"), f"--ryu-ofp-listen-host={address}", f"--ryu-ofp-tcp-listen-port={PORT}"]
        target = f"tcp:{address}:{PORT}"
        host.vsctl("set", "Bridge", BRIDGE, "protocols=OpenFlow13", "--", "set-controller", BRIDGE, target, "--", "set",
                   "Controller", BRIDGE, "connection_mode=out-of-band", f"max_backoff={_BACKOFF}")  # fmt: skip
        self._dpid = host.vsctl("get", "Bridge", BRIDGE, "datapath_id").strip().strip('"')

    def configure(self, vlans: Sequence[tuple[int, str]]) -> None:
        """Write its configuration, and have it read that if it runs already."""
        names = {"bench": 100, "other": 200}
        lines = ["vlans:", *(f"  {name}: {{vid: {vid}}}" for name, vid in names.items()), "dps:", "  bench:",
                 f"    dp_id: 0x{self._dpid}", "    hardware: Open vSwitch", "    interfaces:"]  # fmt: skip
        lines += [f"      {ofport}: {{native_vlan: {vlan}}}" for ofport, vlan in vlans]
        (self._folder / "faucet.yaml").write_text("\n".join(lines) + "\n")
        if self._process is not None:
            if self._process.poll() is not None:
                raise LabError(f"faucet ended: {(self._folder / 'stderr.log').read_text()[-1000:]}")
            self._process.send_signal(signal.SIGHUP)

    def start(self) -> None:
        """Returns at once: when it works is what is measured."""
        here = self._folder
        own = {"CONFIG": f"{here}/faucet.yaml", "LOG": f"{here}/faucet.log", "EXCEPTION_LOG": f"{here}/exception.log",
               "PROMETHEUS_ADDR": self._address}  # fmt: skip
        env = {**os.environ, "PATH": self._path, **{f"FAUCET_{key}": value for key, value in own.items()}}
        with (here / "stderr.log").open("a") as log:
            self._process = subprocess.Popen(self._argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env,
                                             process_group=0)  # fmt: skip

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
