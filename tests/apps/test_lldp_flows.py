"""LLDP: each host listens on its own uplinks, and nowhere else."""

from __future__ import annotations

from fleets import FleetRows
from golden_flows import check, flows_of


def two_hosts() -> FleetRows:
    return FleetRows().host("kvm1", None, "phys1", "phys2").host("kvm2", None, "phys2").host("kvm3", "192.0.2.3")


def test_who_listens_where() -> None:
    check("lldp", "lldp", two_hosts())


def test_an_uplink_that_goes_takes_its_flow_along() -> None:
    fleet = two_hosts()
    assert "in_port=64002" in flows_of("lldp", fleet)
    for name in ("kvm1", "kvm2"):
        fleet.put("Host", name, fleet.hosts[name].model_copy(update={"uplinks": {}}))
    assert "in_port" not in flows_of("lldp", fleet)
