"""A real router outside: bird(8) on the lab's outside machine, with a cable to the controller."""

from __future__ import annotations

import ipaddress
import os
import re
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

from e2e_fleet import eventually
from labkit import Lab, netns
from labkit.run import run

ROUTER_AS, FLEET_AS = 64512, 4200000001
PASSWORD = "correct horse"

_CONFIG = """\
router id {router};
protocol device {{ }}
protocol kernel {{ ipv4 {{ export all; }}; }}
protocol kernel {{ ipv6 {{ export all; }}; }}
protocol bgp fleet {{
  local {router} as {router_as};
  neighbor {controller} as {fleet_as};
  passive;
  password "{password}";
  ipv4 {{ import all; export none; }};
  ipv6 {{ import all; export none; }};
}}
"""


class Bird:
    """``route`` says what its kernel does with an address, ``changes`` what became of routes since it runs."""

    def __init__(self, lab: Lab) -> None:
        pair = ipaddress.IPv4Address("198.18.0.0") + 2 * (os.getpid() % 2**15)  # RFC 2544; this process's own
        self.controller, self.router = str(pair), str(pair + 1)
        self._netns, self._cable = lab.outside, f"{lab.name}bgp"
        self._folder = tempfile.TemporaryDirectory(prefix="fleetswitch-bird-")
        self._path = Path(self._folder.name)
        self.password_file = self._path / "password"
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Bird:
        try:
            self._begin()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _begin(self) -> None:
        run(["ip", "link", "add", self._cable, "type", "veth", "peer", "name", "bgp", "netns", self._netns])
        netns.ip_batch([f"addr add {self.controller}/31 dev {self._cable}", f"link set {self._cable} up"])
        netns.ip_batch([f"addr add {self.router}/31 dev bgp", "link set bgp up"], self._netns)
        self.password_file.write_text(f"{PASSWORD}\n")
        (self._path / "bird.conf").write_text(_CONFIG.format(
            router=self.router, controller=self.controller, router_as=ROUTER_AS, fleet_as=FLEET_AS, password=PASSWORD,
        ))  # fmt: skip
        with (self._path / "changes").open("wb") as changes:
            self._start(["ip", "monitor", "route"], changes)
        self._start(["bird", "-f", "-c", str(self._path / "bird.conf"), "-s", str(self._path / "bird.ctl")])
        eventually("bird answers", lambda: "BIRD" in self.says("show", "status"))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._started:
            process.terminate()
            process.wait(10.0)
        run(["ip", "link", "del", self._cable], check=False)
        self._folder.cleanup()

    def _start(self, argv: list[str], output: object = subprocess.DEVNULL) -> None:
        self._started.append(subprocess.Popen(
            netns.argv_in(self._netns, argv), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.DEVNULL  # type: ignore[call-overload]
        ))  # fmt: skip

    def says(self, *words: str) -> str:
        """What birdc(8) prints."""
        return run(["birdc", "-s", str(self._path / "bird.ctl"), *words], check=False).stdout

    def is_established(self) -> bool:
        return "Established" in self.says("show", "protocols", "fleet")

    def route(self, address: str) -> str | None:
        """The next hop of the route that bird's kernel has to just this address."""
        of, length = ("-6", 128) if ":" in address else ("-4", 32)
        said = run(["ip", "-n", self._netns, of, "route", "show", "exact", f"{address}/{length}"]).stdout
        found = re.search(r"via (\S+) .*proto bird", said)
        return found[1] if found is not None else None

    def deleted(self, address: str) -> bool:
        """Whether the route to just this address was ever taken away."""
        text = (self._path / "changes").read_text()
        return re.search(rf"Deleted {re.escape(address)} via", text) is not None
