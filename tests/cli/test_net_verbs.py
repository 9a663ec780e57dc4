"""net define, import, undefine, list, info, dumpxml."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tests.api.fake_fleet import Served

Run = Callable[..., Result]

NAT = """<network><name>lab</name><forward mode='nat'/><bridge name='virbr9'/>
<ip address='10.9.0.1' prefix='24'><dhcp>
<host mac='52:54:00:00:00:01' ip='10.9.0.1{0}'/><host mac='52:54:00:00:00:02' ip='10.9.0.12'/>
<host mac='52:54:00:00:00:03' ip='10.9.0.13'/><host mac='52:54:00:00:00:04' ip='10.9.0.14'/>
</dhcp></ip></network>"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "lab.xml"
    path.write_text(NAT.format(1))
    return str(path)


def test_define_tells_what_was_taken_and_what_not(run: Run, served: Served, file: str) -> None:
    result = run("net", "define", file)
    assert result.exit_code == 0, result.stderr
    lines = [line.split(maxsplit=1) for line in result.stdout.splitlines()]
    assert ["forward@mode", "nat"] in lines
    assert ["ip/dhcp/host@ip", "10.9.0.11,10.9.0.12,10.9.0.13 and 1 more"] in lines
    assert result.stdout.endswith("Network lab created\n")
    assert "warning: network/bridge@name: 'virbr9': a network here has no bridge" in result.stderr
    assert "confirmed by every switch" in result.stderr
    assert ("Network", "lab") in served.fleet.rows


def test_dry_run_shows_the_difference(run: Run, served: Served, file: str) -> None:
    result = run("net", "define", file, "--dry-run")
    assert "+mode: nat" in result.stdout
    assert "Network lab would be created" in result.stdout
    assert not served.fleet.rows


def test_from_standard_input_and_back(run: Run, file: str) -> None:
    assert run("net", "define", "-", stdin=NAT.format(1)).exit_code == 0
    xml = run("net", "dumpxml", "lab").stdout
    assert xml.startswith("<network>\n  <name>lab</name>\n  <uuid>")
    result = run("net", "define", "-", stdin=xml)
    assert result.stdout.endswith("Network lab unchanged\n")
    assert "warning" not in result.stderr


def test_what_is_refused_is_named_by_file_and_element(run: Run, served: Served, tmp_path: Path) -> None:
    path = tmp_path / "bad.xml"
    path.write_text(
        "<network><name>r</name><forward mode='vepa'/><ip address='10.0.0.1'><tftp root='/'/></ip></network>"
    )
    result = run("net", "define", str(path))
    assert result.exit_code == 1
    assert f"error: {path}: network/ip/tftp: no files are served here (serve TFTP" in result.stderr
    assert f"error: {path}: network/forward@mode: 'vepa': frames of macvtap and SR-IOV" in result.stderr
    assert not served.fleet.rows
    result = run("net", "define", str(tmp_path / "none.xml"))
    assert result.exit_code == 1
    assert "none.xml: cannot be read: No such file" in result.stderr


def test_a_physical_network_for_a_bridge(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "br.xml"
    path.write_text("<network><name>br</name><forward mode='bridge'/><bridge name='br0'/></network>")
    assert "--physical-network NAME" in run("net", "define", str(path)).stderr
    assert run("net", "define", str(path), "--physical-network", "physnet1").exit_code == 0
    assert json.loads(run("net", "info", "br", "-o", "json").stdout)["physical_network"] == "physnet1"


def test_when_libvirt_cannot_be_asked_that_is_told(run: Run, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("topology.network_schema._PROGRAM", Path("/nowhere"))
    result = run("net", "define", file)
    assert result.exit_code == 0
    assert "not checked against libvirt's schema: libvirt could not be asked" in result.stderr


def test_import_list_and_undefine(run: Run, served: Served) -> None:
    served.fleet.host_networks["kvm01", "default"] = NAT.format(1)
    result = run("net", "import", "kvm01", "default", "--name", "home")
    assert result.exit_code == 0, result.stderr
    assert "Network home created" in result.stdout
    assert run("net", "list").stdout.splitlines()[1].split()[:2] == ["home", "nat"]
    result = run("net", "import", "kvm01", "nix")
    assert result.exit_code == 1
    assert "there is no network of kvm01's libvirt nix" in result.stderr
    assert "would be deleted" in run("net", "undefine", "home", "--dry-run").stdout
    assert run("net", "undefine", "home").exit_code == 0
    assert run("net", "dumpxml", "home").exit_code == 1


def test_update_takes_an_element_or_a_file_by_virshs_words(run: Run, served: Served, file: str, tmp_path: Path) -> None:
    run("net", "define", file)
    element = "<host mac='52:54:00:00:00:05' ip='10.9.0.15' name='five'/>"
    result = run("net", "update", "lab", "add", "ip-dhcp-host", element, "--live", "--config", "--parent-index", "0")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "Network lab changed\n"
    assert {"mac": "52:54:00:00:00:05", "ip": "10.9.0.15", "name": "five"} in json.loads(
        run("net", "info", "lab", "-o", "json").stdout
    )["dhcp"]["hosts"]
    (tmp_path / "host.xml").write_text(element)
    shown = run("net", "update", "lab", "delete", "ip-dhcp-host", str(tmp_path / "host.xml"), "--dry-run")
    assert "-  - ip: 10.9.0.15" in shown.stdout
    result = run("net", "update", "lab", "add", "ip-dhcp-host", element)
    assert result.exit_code == 1
    assert "error: ip-dhcp-host: there is one already: mac 52:54:00:00:00:05" in result.stderr
    assert run("net", "update", "lab", "add", "coffee", "<a/>").exit_code == 2
    refused = run("net", "update", "lab", "add", "forward-interface", "<interface dev='eth0'/>").stderr
    assert "never meet Open vSwitch" in refused
