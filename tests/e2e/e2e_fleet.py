"""A lab with its controller as the tests see it: apply, start guests, wait until all of it is switched."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import yaml
from labkit import Guest, Lab, LabError, LightGuest, Nic, netns, wait_for
from labkit.host import Host
from labkit.run import run

from controller.cli.client import Client, object_path, parse_address
from controller.pipeline.cookies import is_own

Document = dict[str, Any]

PATIENCE = 20.0  # seconds: for what takes one on an idle machine


def lab_name(letters: str = "e") -> str:
    """A name of this process's own, of four characters: two runs of the tests stand side by side."""
    digits = 4 - len(letters)
    return f"{letters}{os.getpid() % 10**digits:0{digits}}"


class Fleet:
    """One lab, its controller started on it and its hosts applied."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.controller = lab.controller

    @property
    def client(self) -> Client:
        return Client(parse_address(self.controller.api))

    @property
    def hosts(self) -> Mapping[str, Host]:
        return self.lab.hosts

    # -- what is wanted

    def apply(self, text: str, wait: float = 30.0) -> None:
        """Apply YAML documents; every switch has confirmed them when this returns. Raises FleetError, LabError."""
        documents = [document for document in yaml.safe_load_all(text) if document]
        self._confirmed(self.client.post("/apply", documents, wait=wait))

    def delete(self, targets: Iterable[tuple[str, str]], *, force: bool = False, wait: float = 30.0) -> None:
        """Delete objects by (kind, name), all at once; every switch has confirmed it when this returns."""
        body = [{"kind": kind, "name": name} for kind, name in targets]
        self._confirmed(self.client.post("/delete", body, force=force, wait=wait))

    def host_document(self, name: str) -> Document:
        """The document of one host of the lab."""
        documents = yaml.safe_load_all(self.lab.fleet_yaml())
        return next(document for document in documents if document["name"] == name)

    def change_hosts(self, **fields: Any) -> None:
        """Apply all hosts of the lab with these fields changed."""
        documents = [{**d, **fields} for d in yaml.safe_load_all(self.lab.fleet_yaml())]
        self.apply(yaml.safe_dump_all(documents))

    def _confirmed(self, answer: Document) -> None:
        if not answer["confirmed"]:
            raise LabError(f"not confirmed: {answer['unconfirmed']}")

    # -- what is

    def get(self, kind: str, name: str) -> Document:
        return dict(self.client.get(object_path(kind, name)))

    def list(self, kind: str) -> list[Document]:
        return list(self.client.items(f"/{kind.lower()}s"))

    def port_of(self, mac: str) -> Document:
        """The Port row of a vNIC; empty when there is none."""
        return next((p for p in self.list("Port") if (p["status"].get("mac") or p.get("mac")) == mac), {})

    def settle(self, wait: float = PATIENCE) -> None:
        """Return when every switch has all that is wanted now."""
        self._confirmed(self.client.get("/wait", wait=wait))

    def wait_active(self, macs: Iterable[str], timeout: float = PATIENCE) -> None:
        """Return when these vNICs are active, and every switch has confirmed their flows."""
        wanted = set(macs)

        def missing() -> dict[str, str]:
            states = {p["status"].get("mac"): p["status"] for p in self.list("Port")}
            return {mac: str(states.get(mac)) for mac in wanted if (states.get(mac) or {}).get("state") != "active"}

        try:
            wait_for("active vNICs", lambda: not missing(), timeout, every=0.05)
        except LabError as error:
            raise LabError(f"{error}: {missing()}") from error
        self.settle()

    # -- guests

    def lights(self, wanted: Mapping[str, tuple[str, Sequence[Nic]]]) -> dict[str, LightGuest]:
        """Start light guests, name → (host, vNICs), register their vNICs and wait until they are switched."""
        guests: dict[str, LightGuest] = {}
        for host in sorted({host for host, _ in wanted.values()}):
            self.hosts[host].wait_bridge("br-int")
            named = [(name, nics) for name, (on, nics) in wanted.items() if on == host]
            guests |= {guest.name: guest for guest in self.lab.start_lights(host, named)}
        self.apply("".join(guest.ports_yaml() for guest in guests.values()))
        self.wait_active(nic.mac for guest in guests.values() for nic in guest.nics)
        return guests

    def stop(self, guests: Iterable[LightGuest]) -> None:
        """Stop light guests and forget their registrations."""
        guests = list(guests)
        self.lab.stop_lights(guests)
        self.delete([("Port", f"{g.name}-{index}") for g in guests for index in range(len(g.nics))])

    def real(self, host: str, name: str, nics: Sequence[Nic], *, wait: bool = True) -> Guest:
        """Boot a real guest on networks that the controller has brought to the host's libvirt."""
        for network in {nic.network for nic in nics if nic.network and not nic.bridge}:
            self.hosts[host].wait_network(network)
        return self.lab.start_guest(host, name, nics, wait=wait)

    def clear(self) -> None:
        """Stop every guest, delete everything but the hosts."""
        self.lab.state.load()
        guests = [self.lab.guest(name) for name in list(self.lab.state.now.guests)]
        self.lab.stop_lights([guest for guest in guests if isinstance(guest, LightGuest)])
        for guest in guests:
            if isinstance(guest, Guest):
                guest.remove()
        registered = [("Port", p["name"]) for p in self.list("Port") if p.get("vm")]
        networks = [("Network", n["name"]) for n in self.list("Network")]
        forwards = [(kind, f["name"]) for kind in ("PortForward", "FloatingIP") for f in self.list(kind)]
        if registered or networks or forwards:
            self.delete([*registered, *networks, *forwards], force=True)
        wait_for("no Port left", lambda: not self.list("Port"), PATIENCE, every=0.05)

    # -- ways to look

    def said(self, host: str) -> str:
        """All that the controller logged of a host."""
        lines = self.controller.log.read_text(errors="replace").splitlines()
        return "\n".join(line for line in lines if f"{host}:" in line)

    def flows(self, host: str) -> list[Document]:
        """What the host's switch has, as the API shows it."""
        return list(self.client.items(f"/hosts/{host}/flows"))


def pings(guest: LightGuest | Guest, address: str, *words: str, tries: int = 5) -> bool:
    """Whether one of a few pings is answered; none is sent after that."""
    ping = f"ping {'-n ' if isinstance(guest, LightGuest) else ''}-c1 -W1 {' '.join(words)} {address}"
    return guest.run(f"for n in $(seq {tries}); do {ping} && exit 0; done; exit 1")[0] == 0


def silent(guest: LightGuest | Guest, address: str) -> bool:
    """Whether pings to an address go out, and stay without any answer."""
    # busybox's ping, which real guests have, knows whole seconds only
    how = "-n -c2 -i0.1 -W0.3" if isinstance(guest, LightGuest) else "-c2 -W1"
    text = guest.run(f"ping {how} {address}")[1]
    return "2 packets transmitted" in text and "bytes from" not in text


def wait_ping(guest: LightGuest | Guest, address: str, *words: str, timeout: float = PATIENCE) -> None:
    """Return when a ping is answered. What is first sent into a tunnel waits for ARP between the hosts."""
    wait_for(f"{guest.name} reaches {address}", lambda: pings(guest, address, *words, tries=2), timeout, every=0.05)


def outside(lab: Lab, vlan: int, command: str) -> tuple[int, str]:
    """Run a shell line on the outside machine, in a VLAN: (exit code, output)."""
    done = run(["ip", "netns", "exec", lab.outside_vlan(vlan), "sh", "-c", command], check=False)
    return done.returncode, done.stdout + done.stderr


def eventually(what: str, probe: Callable[[], object], timeout: float = PATIENCE) -> None:
    """Return when the probe gives something true; it is asked often."""
    wait_for(what, lambda: probe() or None, timeout, every=0.05)


def our_rows(host: Host) -> list[str]:
    """Every row of the host's OVSDB that carries a fleetswitch's mark, as "Table name"."""
    found = []
    for table in ("Bridge", "Port", "Interface", "Controller"):
        text = host.vsctl("--format=json", "--columns=_uuid,external_ids", "list", table)
        for uuid, ids in json.loads(text)["data"]:
            if any(key == "fleetswitch" for key, _ in ids[1]):
                found.append(f"{table} {uuid[1]}")
    return found


_UNDER_WAY = 20  # pings, of which a loaded machine may owe the answers when it ends
_LASTS = 1.0  # seconds at least
_FEWEST = 30  # answers, of some hundred pings: with fewer nothing was watched


class Pinging:
    """Pings at 100 a second while the block runs; it begins when one was answered, and lasts a second at least.

    ``lost`` are those without an answer after the first that had one, but for the last that were sent, whose answers
    were under way. What is lost shortly behind the block counts too. Raises LabError when hardly any was answered.
    """

    def __init__(self, guest: LightGuest, address: str) -> None:
        self.lost: list[int] = []
        self.answered = self.sent = 0
        self._what = f"{guest.name} to {address}"
        self._argv = netns.argv_in(guest.netns, ["ping", "-n", "-i", "0.01", address])
        self._begun = 0.0

    def __enter__(self) -> Pinging:
        self._said = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(self._argv, stdin=subprocess.DEVNULL, stdout=self._said)
        try:
            wait_for(f"{self._what}: a first answer", self._numbers, PATIENCE, every=0.01)
        except LabError:
            self._end()
            raise
        self._begun = time.monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        time.sleep(max(2 * _UNDER_WAY / 100, self._begun + _LASTS - time.monotonic()))
        numbers = self._end()
        self.answered = len(numbers)
        self.lost = sorted(set(range(numbers[0], self.sent - _UNDER_WAY)) - set(numbers))
        if kind is None and self.answered < _FEWEST:
            raise LabError(str(self))

    def _text(self) -> str:
        return os.pread(self._said.fileno(), 1 << 26, 0).decode()

    def _numbers(self) -> list[int]:
        """Of the pings that were answered until now."""
        return sorted({int(number) for number in re.findall(r"bytes from .* icmp_seq=(\d+)", self._text())})

    def _end(self) -> list[int]:
        """The numbers of all that were answered."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(10.0)
        sent = re.search(r"(\d+) packets transmitted", self._text())
        self.sent = int(sent[1]) if sent else 0
        numbers = self._numbers()
        self._said.close()
        return numbers

    def __str__(self) -> str:
        return f"{self._what}: {self.answered} of {self.sent} answered, {len(self.lost)} lost {self.lost[:5]}"


def installed(host: Host) -> dict[tuple[int, int], float]:
    """Our flows that the host's switch has, (table, cookie), with the seconds that each has been there."""
    found = {}
    for line in host.ofctl("dump-flows", "br-int").splitlines():
        if match := re.search(r"cookie=0x([0-9a-f]+), duration=([\d.]+)s, table=(\d+)", line):
            found[int(match[3]), int(match[1], 16)] = float(match[2])
    return {identity: seconds for identity, seconds in found.items() if is_own(identity[1])}
