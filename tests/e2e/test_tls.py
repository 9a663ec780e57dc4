"""TLS between controller and hosts: OVSDB and OpenFlow, both sides with certificates."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e_fleet import Fleet, lab_name
from labkit import Lab, Nic, wait_for

pytestmark = pytest.mark.lab


class Pki:
    """An authority of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.ca = self._certificate("ca", "-addext", "basicConstraints=critical,CA:TRUE")

    def issue(self, name: str) -> tuple[Path, Path]:
        """Key and certificate with this common name."""
        self._certificate(name, "-CA", str(self.ca), "-CAkey", str(self.folder / "ca.key"))
        return self.folder / f"{name}.key", self.folder / f"{name}.pem"

    def _certificate(self, name: str, *options: str) -> Path:
        made = self.folder / f"{name}.pem"
        argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
        files = ["-keyout", str(self.folder / f"{name}.key"), "-out", str(made)]
        subprocess.run([*argv, *files, *options], check=True, capture_output=True)
        return made


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("tls") / "pki")


@pytest.fixture(scope="module")
def secured(pki: Pki) -> Iterator[Fleet]:
    """Two hosts, each with a certificate of its name."""
    with Lab(lab_name("t"), 2, libvirt=False) as lab:
        for name, host in lab.hosts.items():
            key, certificate = pki.issue(name)
            host.vsctl("set-ssl", str(key), str(certificate), str(pki.ca))
            host.vsctl("set-manager", f"pssl:6641:{host.mgmt}")
        key, certificate = pki.issue("controller")
        tls = ["--tls-key", str(key), "--tls-cert", str(certificate), "--tls-ca", str(pki.ca)]
        lab.controller.start("--listen", f"ssl:{lab.controller.address}:6653", *tls)
        yield Fleet(lab)


def test_hosts_are_driven_over_tls_and_one_with_anothers_certificate_is_refused(secured: Fleet, pki: Pki) -> None:
    documents = [
        {**secured.host_document(name), "ovsdb": f"ssl:{host.mgmt}:6641"} for name, host in secured.hosts.items()
    ]
    network = {"kind": "Network", "name": "app", "mode": "isolated"}
    answer = secured.client.post("/apply", [*documents, network], wait=30)
    assert answer["unconfirmed"] == []
    assert states(secured, "h1") == states(secured, "h2") == {"ovsdb": "up", "openflow": "up"}

    shows(secured, pki, "h2", "h1")
    told = "a certificate of h1 is not this host's"
    wait_for("it is refused", lambda: set(states(secured, "h2").values()) == {"down"}, 30.0, every=0.2)
    for what in ("ovsdb", "openflow"):
        wait_for(f"why at {what}", lambda what=what: told in status(secured, "h2")[what]["reason"], 30.0, every=0.2)
    assert states(secured, "h1") == {"ovsdb": "up", "openflow": "up"}
    shows(secured, pki, "h2", "h2")
    both = {"ovsdb": "up", "openflow": "up"}
    wait_for("it is let in again", lambda: states(secured, "h2") == both, 60.0, every=0.2)

    one, other = (secured.lab.start_light("h1", f"t{n}", [Nic("app", addresses=(f"10.1.0.{n}/24",))]) for n in (1, 2))
    wait_for("they reach each other", lambda: one.run("ping -c1 -W1 10.1.0.2")[0] == 0, 10.0, every=0.1)
    assert other.run("ping -c1 -W1 10.1.0.1")[0] == 0


def test_whoever_has_no_certificate_is_refused(secured: Fleet) -> None:
    where = f"{secured.controller.address}:6653"
    argv = ["openssl", "s_client", "-connect", where, "-quiet"]
    hello = bytes.fromhex("0604000800000001")
    answer = subprocess.run(argv, input=hello, capture_output=True, timeout=20, check=False).stdout
    assert answer == b"", "it was greeted in OpenFlow"
    wait_for("the refusal", lambda: "handshake: TLS: " in secured.controller.log.read_text(), 20.0, every=0.1)


def test_a_reload_shows_the_renewed_certificate_and_cuts_nobody_off(secured: Fleet, pki: Pki) -> None:
    process, log = secured.controller.process(), secured.controller.log
    assert process is not None
    before, begun = serial(secured), len(log.read_text())
    pki.issue("controller")
    process.signal(signal.SIGHUP)
    wait_for("the new certificate", lambda: serial(secured) != before, 10.0, every=0.1)
    new = serial(secured)
    certificate = pki.folder / "controller.pem"
    good = certificate.read_text()
    certificate.write_text("this is no certificate")
    process.signal(signal.SIGHUP)
    wait_for("the error in the log", lambda: "used on" in log.read_text()[begun:], 10.0, every=0.1)
    assert serial(secured) == new
    certificate.write_text(good)
    assert process.alive
    assert "lost:" not in log.read_text()[begun:]
    secured.hosts["h1"].appctl("bridge/reconnect", "br-int")
    wait_for("h1 is connected again", lambda: "h1: OpenFlow connected" in log.read_text()[begun:], 10.0, every=0.1)


def status(fleet: Fleet, host: str) -> dict[str, Any]:
    return {item["name"]: item["status"] for item in fleet.list("Host")}[host]


def states(fleet: Fleet, host: str) -> dict[str, str]:
    """How its connections stand that are under TLS."""
    return {what: status(fleet, host)[what]["state"] for what in ("ovsdb", "openflow")}


def shows(fleet: Fleet, pki: Pki, name: str, certificate: str) -> None:
    """From now on the host has this certificate, and both its connections begin anew."""
    host, files = fleet.hosts[name], pki.folder
    host.vsctl("set-ssl", str(files / f"{certificate}.key"), str(files / f"{certificate}.pem"), str(pki.ca))
    host.appctl("bridge/reconnect", "br-int")
    host.restart("ovsdb-server")


def serial(fleet: Fleet) -> str:
    """Of the certificate that the controller shows to whoever connects."""
    where = f"{fleet.controller.address}:6653"
    shown = subprocess.run(["openssl", "s_client", "-connect", where], input=b"", capture_output=True, timeout=20,
                           check=False).stdout  # fmt: skip
    read = ["openssl", "x509", "-noout", "-serial"]
    return subprocess.run(read, input=shown, capture_output=True, timeout=20, check=True).stdout.decode()
