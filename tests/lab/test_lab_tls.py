"""A host's libvirt over TLS: driven with the right certificates, refused with a reason with another authority's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from labkit import Lab, wait_for
from labkit.pki import Pki

pytestmark = pytest.mark.lab


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab("tj", hosts=2, tls=True) as lab:
        lab.controller.start()
        yield lab


def libvirt_of(lab: Lab, host: str) -> dict[str, Any]:
    """What the command line shows of the connection to a host's libvirt."""
    hosts = json.loads(lab.controller.fleetswitch("host", "list", "-o", "json"))
    return dict(next(each for each in hosts if each["name"] == host)["status"].get("libvirt") or {})


def test_a_host_is_driven_over_tls_and_another_authority_is_refused(lab: Lab, tmp_path: Path) -> None:
    lab.pki.issue(lab.controller.address, tmp_path / "ours", "client")
    Pki(tmp_path / "authority").issue(lab.controller.address, tmp_path / "foreign", "client")
    fleet = lab.fleet_yaml() + "---\nkind: Network\nname: app\nmode: isolated\n"
    for name, pki in (("h1", "ours"), ("h2", "foreign")):
        host = lab.hosts[name]
        fleet = fleet.replace(host.libvirt_uri, f"{host.libvirt_tls_uri}?pkipath={tmp_path / pki}")
    path = tmp_path / "fleet.yaml"
    path.write_text(fleet)
    lab.controller.fleetswitch("apply", "-f", str(path), check=False)  # libvirt of h2 does not confirm

    lab.hosts["h1"].wait_network("app", timeout=30.0)
    wait_for("h1 over TLS", lambda: libvirt_of(lab, "h1").get("state") == "up", 30.0, every=0.2)
    wait_for("a reason for h2", lambda: libvirt_of(lab, "h2").get("reason"), 30.0, every=0.2)
    refused = libvirt_of(lab, "h2")
    assert refused["state"] != "up"
    assert "Failed to verify peer's certificate" in refused["reason"]
    assert "certificates of one authority" in refused["reason"]
    line = next(line for line in lab.controller.fleetswitch("host", "list").splitlines() if line.startswith("h2"))
    assert "certificate" in line
    assert "app" not in lab.hosts["h2"].virsh("net-list", "--all", "--name").split()
