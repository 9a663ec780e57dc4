"""A running Open vSwitch as the tests use it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

DEADLINE = 20.0


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Polls until the condition holds."""
    end = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not happen within {DEADLINE} s")
        time.sleep(0.01)


@dataclass
class Vswitch:
    """A running ovs-vswitchd."""

    folder: Path

    def vsctl(self, *args: str) -> str:
        command = ["ovs-vsctl", "--timeout=10", f"--db=unix:{self.folder}/db.sock", *args]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def ofctl(self, *args: str, stdin: str = "") -> str:
        command = ["ovs-ofctl", "-O", "OpenFlow15", *args]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, f"{args}: {done.stderr}"
        return done.stdout

    def appctl(self, *args: str) -> str:
        command = ["ovs-appctl", "-t", f"{self.folder}/vs.ctl", *args]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout

    def bridge(self, name: str, controller: str = "") -> str:
        """A bridge with dummy ports 1 to 4; gives the path of its management socket."""
        args = ["add-br", name, "--", "set", "bridge", name, "datapath_type=dummy", "fail_mode=secure"]
        for port in range(1, 5):
            args += ["--", "add-port", name, f"{name}p{port}"]
            args += ["--", "set", "interface", f"{name}p{port}", "type=dummy", f"ofport_request={port}"]
        if controller:
            args += ["--", "set-controller", name, controller]
            args += ["--", "set", "controller", name, "connection_mode=out-of-band"]
        self.vsctl(*args)
        return str(self.folder / f"{name}.mgmt")


@contextmanager
def running(folder: Path) -> Iterator[Vswitch]:
    """A private one in this folder: own run directory, dummy datapath, ended by pid."""
    env = {**os.environ, "OVS_RUNDIR": str(folder), "OVS_LOGDIR": str(folder), "OVS_DBDIR": str(folder)}
    subprocess.run(
        ["ovsdb-tool", "create", str(folder / "conf.db"), "/usr/share/openvswitch/vswitch.ovsschema"], check=True
    )
    running: list[subprocess.Popen[bytes]] = []

    def run(*command: str) -> None:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        running.append(subprocess.Popen(command, env=env, cwd=folder, **quiet))  # type: ignore[call-overload]

    try:
        database = f"unix:{folder}/db.sock"
        run("ovsdb-server", "conf.db", f"--remote=p{database}", f"--unixctl={folder}/db.ctl")
        wait_for((folder / "db.sock").exists, "ovsdb-server's socket")
        switch = Vswitch(folder)
        switch.vsctl("--no-wait", "init")
        run("ovs-vswitchd", database, "--enable-dummy", "--disable-system", f"--unixctl={folder}/vs.ctl")
        wait_for((folder / "vs.ctl").exists, "ovs-vswitchd's socket")
        yield switch
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait(DEADLINE)
