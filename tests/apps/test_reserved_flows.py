"""Reserved: what is between switches goes to nobody, whichever way a vNIC is switched."""

from __future__ import annotations

from fleets import FleetRows
from golden_flows import check


def test_every_host_has_them() -> None:
    check("reserved", "reserved", FleetRows().host("kvm1").host("kvm2", None, "phys1"))
