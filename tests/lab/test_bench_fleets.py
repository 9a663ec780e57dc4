"""The cases of scripts/bench that have a fleet of tenants are measured, in a small one."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from benchkit.__main__ import main
from benchkit.bare import flows_alone
from benchkit.figures import Figure
from benchkit.plot import plot
from benchkit.sinks import BARRIER, message
from benchkit.tenants import TENANT, Tenants

from controller.openflow import messages as msg


def test_every_host_has_as_many_guests_and_every_tenant_its_twenty() -> None:
    rows = Tenants(8, 64).vnics()
    assert [sum(f'"kvm{host:04}"' in row["status"] for row in rows) for host in range(8)] == [8] * 8
    assert sum('"tenant0000"' in row["status"] for row in rows) == TENANT
    assert Tenants(8, 64).vnics() == rows


def test_what_is_written_again_is_what_made_flows() -> None:
    bundle = msg.bundle_control(1, msg.Bundle.OPEN) + msg.bundled(msg.delete_flow(0, 1), 1)
    meter = msg.meter_mod(msg.MeterCommand.ADD, 7, rate=1)
    sent = msg.hello(1) + bundle + msg.echo_request(b"there?") + meter
    assert flows_alone(sent) == bundle + meter + message(BARRIER, xid=0x7E57)


def test_what_was_measured_at_two_sizes_is_drawn(tmp_path: Path) -> None:
    figures = [Figure("sync", "<all>", seconds, "s", {"hosts": hosts, "guests": 20})
               for hosts, seconds in ((4, 0.5), (40, 3.0))]  # fmt: skip
    once = Figure("sync", "once", 1.0, "s", {"hosts": 4, "guests": 20})
    [path] = plot(tmp_path / "drawn", [*figures, once])
    assert path.name == "sync-over-hosts-s.svg"
    drawn = ElementTree.parse(path).getroot()
    words = [each.text for each in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"4", "40", "<all>", "100 ms", "10 s"} <= set(words)
    assert "once" not in words


@pytest.mark.alone
def test_a_cold_start_is_measured_beside_bare_writing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sync-null", "--size", "3,20"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("first switch connects") and "bare writing" in line for line in lines)
    assert any(line.startswith("flows a host") for line in lines)
