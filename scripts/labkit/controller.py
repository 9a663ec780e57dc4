"""The fleetswitch controller over a lab: the fleet as YAML, the program started on it, its command line."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from .host import Host
from .procs import Process, end, from_pidfile
from .run import LabError, run, wait_for
from .state import LabState, StateFile

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = REPOSITORY / ".venv/bin/fleetswitch"
OPENFLOW_PORT = 6653


def fleet_yaml(lab: LabState, hosts: Mapping[str, Host], *, tcp: bool = False) -> str:
    """The Host documents of the lab; `tcp` reaches libvirt and OVSDB over the management network, else unix sockets."""
    documents = []
    for host in hosts.values():
        lines = ["kind: Host", f"name: {host.name}"]
        lines.append(f"ovsdb: tcp:{host.mgmt}:6640" if tcp else f"ovsdb: {host.db}")
        if host.facts.libvirt:
            lines.append(f"libvirt: {host.libvirt_tcp_uri if tcp else host.libvirt_uri}")
        lines += [f"tunnel_ip: {host.tunnel_ip}", f"underlay_mtu: {lab.underlay_mtu}", "datapath_type: netdev"]
        lines.append("uplinks:")
        lines += [f"  physnet{n}: {{interface: eth{n + 1}}}" for n in range(1, lab.physnets + 1)]
        documents.append("\n".join(lines) + "\n")
    return "---\n".join(documents)


class Controller:
    """One controller of a lab, in the root namespace, with its state in the lab's run directory."""

    def __init__(self, state: StateFile) -> None:
        self._state = state
        self.dir = state.dir / "controller"
        self.log = self.dir / "controller.log"

    @property
    def api(self) -> str:
        """The API's address, as `fleetswitch --api` and FLEETSWITCH_API take it."""
        return f"unix:{self.dir}/api.sock"

    @property
    def page(self) -> str:
        """The address for a browser on this machine."""
        settings = self._state.load().controller
        if settings is None:
            raise LabError("no controller was started in this lab")
        return f"http://127.0.0.1:{settings['port']}"

    @property
    def address(self) -> str:
        """The address of this machine on the lab's management network."""
        return f"{self._state.now.mgmt_net}.254"

    def _serve(self, port: int, options: Sequence[str], program: Sequence[str]) -> list[str]:
        """The command line that runs the controller."""
        paths = ["--state-dir", str(self.dir / "state"), "--api-socket", f"{self.dir}/api.sock"]
        listen = [] if "--listen" in options else ["--listen", f"tcp:{self.address}:{OPENFLOW_PORT}"]
        return [*program, "up", *paths, "--api-tcp", f"127.0.0.1:{port}", *listen, *options]

    def start(self, *options: str, timeout: float = 20.0, program: Sequence[str] = ()) -> Process:
        """Start it, or start it again on the state that it left; returns when its API answers.

        `options` go to `fleetswitch up` as they are; without a --listen it listens on the management network.
        `program` is what runs in the place of `fleetswitch`.
        """
        if not PROGRAM.exists():
            raise LabError(f"{PROGRAM} is missing: scripts/quickstart and scripts/test install it")
        if (running := self.process()) is not None:
            raise LabError(f"the controller runs already (process {running.pid})")
        self.dir.mkdir(exist_ok=True)
        with self._state.edit() as lab:
            # a lab's management network is its own, so labs that start together do not choose the same port
            first = 8640 + 4 * int(lab.mgmt_net.split(".")[2])
            lab.controller = lab.controller or {"port": _free_port(first)}
            port = lab.controller["port"]
        pidfile = self.dir / "controller.pid"
        pidfile.unlink(missing_ok=True)
        # setsid -f: no child of ours, so it outlives this program and is reaped when it ends
        argv = [
            "setsid",
            "-f",
            "sh",
            "-c",
            'echo $$ >"$0" && exec "$@"',
            str(pidfile),
            *self._serve(port, options, program or (str(PROGRAM),)),
        ]
        with self.log.open("a") as log:
            subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True)
        process = self._state.remember(from_pidfile("controller", pidfile))
        try:
            wait_for("the controller's API", lambda: not process.alive or self._answers(), timeout, every=0.05)
            if not process.alive:
                raise LabError("the controller ended at once")
        except LabError as error:
            end([process])
            raise LabError(f"{error}\n{self.log.read_text(errors='replace')[-2000:]}") from error
        return process

    def process(self) -> Process | None:
        """The running controller."""
        return next((p for p in self._state.processes() if p.what == "controller" and p.alive), None)

    def stop(self, number: int | None = None) -> None:
        """End it (SIGTERM, then SIGKILL), or send it this signal first. No error when it does not run."""
        if (process := self.process()) is not None:
            if number is not None:
                process.signal(number)
            end([process])

    def fleetswitch(self, *args: str, input: str | None = None, check: bool = True, timeout: float = 90.0) -> str:
        """The command line `fleetswitch ARGS` against this controller; its standard output."""
        environment = {**os.environ, "FLEETSWITCH_API": self.api}
        return run([str(PROGRAM), *args], input=input, check=check, timeout=timeout, env=environment).stdout

    def apply(self, yaml: str, wait: float = 30.0) -> str:
        """Apply documents and wait until the switches have confirmed them."""
        path = self.dir / "apply.yaml"
        path.write_text(yaml)
        return self.fleetswitch("apply", "-f", str(path), "--wait", f"{wait:.0f}", timeout=wait + 30.0)

    def mtu(self, network: str) -> int:
        """The largest IP packet, in bytes, that a network carries everywhere; guests on it need to know."""
        return int(json.loads(self.fleetswitch("get", "network", network, "-o", "json"))["status"]["mtu"])

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("localhost", timeout=2.0)
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(2.0)
                sock.connect(f"{self.dir}/api.sock")
                connection.sock = sock
                connection.request("GET", "/healthz")
                return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False


def _free_port(first: int) -> int:
    """The first loopback port from here on that nobody has."""
    for port in range(first, first + 4):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise LabError(f"no free port from {first} on")
