"""Ownership: who is kept from a registered address, and who is not."""

from __future__ import annotations

from typing import Any

import pytest
from fleets import FleetRows
from golden_flows import check, flows_of

from apps import APPS
from controller.engine import Engine
from controller.pipeline.app import BlockId, Scope
from controller.pipeline.pipeline import Pipeline

ADDRESSES = ("10.0.0.1", "fd00::1")


def two_vnics(**network: Any) -> FleetRows:
    """One that is registered, one that is not."""
    fleet = FleetRows().host("kvm1", "192.0.2.1", "phys1").host("kvm2", "192.0.2.2", "phys1").network("web", **network)
    return fleet.port("a", "kvm1", "web", addresses=ADDRESSES).port("b", "kvm2", "web")


def test_what_is_registered_to_one_is_refused_from_others() -> None:
    check("ownership", "ownership", two_vnics())


def test_an_owner_that_is_not_compared_may_use_what_is_its_own() -> None:
    groups = {"mac": {"filters": ["no-mac-spoofing"]}, "clean": {"filters": ["clean-traffic"]}, "off": {"filters": []}}
    fleet = FleetRows().host("kvm1", "192.0.2.1").network("web", portgroups=groups)
    for number, group in enumerate(groups, start=1):
        fleet.port(group, "kvm1", "web", group, addresses=(f"10.0.0.{number}", f"fd00::{number}"))
    check("ownership_unchecked", "ownership", fleet)


def test_the_addresses_of_a_trunk_are_its_own_in_each_of_its_vlans() -> None:
    fleet = FleetRows().host("kvm1", "192.0.2.1").network("web", portgroups={"all": {"trunk": [10, 20]}})
    fleet.port("a", "kvm1", "web", "all", addresses=("10.0.0.1",)).port("b", "kvm1", "web", "all")
    check("ownership_trunk", "ownership", fleet)


def test_where_every_vnic_is_compared_no_flow_says_what_is_anothers() -> None:
    fleet = FleetRows().host("kvm1", "192.0.2.1").host("kvm2", "192.0.2.2").network("web")
    fleet.port("a", "kvm1", "web", addresses=ADDRESSES).port("b", "kvm2", "web", addresses=("10.0.0.2", "fd00::2"))
    assert flows_of("ownership", fleet) == "\n"


@pytest.mark.parametrize(
    ("filters", "claims"),
    [
        (["no-arp-spoofing", "no-ip-spoofing"], {"fd00::1"}),
        (["no-arp-spoofing", "no-ipv6-spoofing"], {"nw_src=10.0.0.1"}),
        (["no-ip-spoofing", "no-ipv6-spoofing"], {"arp_spa=10.0.0.1"}),
        (["no-mac-spoofing"], {"fd00::1", "nw_src=10.0.0.1", "arp_spa=10.0.0.1"}),
        (["clean-traffic"], set()),
    ],
)
def test_what_a_filter_leaves_out_is_said_there(filters: list[str], claims: set[str]) -> None:
    fleet = FleetRows().host("kvm1", "192.0.2.1").network("web", portgroups={"b": {"filters": filters}})
    fleet.port("a", "kvm1", "web", addresses=ADDRESSES).port("b", "kvm1", "web", "b", addresses=("10.0.0.2", "fd00::2"))
    said = flows_of("ownership", fleet)
    assert {claim for claim in ("fd00::1", "nw_src=10.0.0.1", "arp_spa=10.0.0.1") if claim in said} == claims


def test_who_is_not_compared_comes_with_what_it_may_not_claim_in_one_change_and_takes_it_along() -> None:
    fleet, engine = FleetRows().host("kvm1", "192.0.2.1").network("web"), Engine(Pipeline(APPS))
    engine.update(fleet.port("a", "kvm1", "web", addresses=ADDRESSES).rows())

    def others() -> set[Any]:
        blocks = [block for key, block in engine.blocks.items() if key.app == "ownership"]
        return {entry.identity for block in blocks for entry in block.entries}

    assert not others()
    came = engine.update(fleet.port("b", "kvm1", "web").rows(), {("Port", "b")})["kvm1"]
    said = others()
    assert said
    assert said <= came.adds.keys()
    del fleet.ports["b"]
    went = engine.update(fleet.rows(), {("Port", "b")})["kvm1"]
    assert not others()
    assert said <= went.removes


def test_where_each_host_is_by_itself_so_are_its_addresses() -> None:
    check("ownership_span_host", "ownership", two_vnics(span="host"))


def test_a_vnic_that_does_not_run_keeps_what_is_registered_to_it() -> None:
    fleet = two_vnics()
    running = flows_of("ownership", fleet).split("local:")[0]
    del fleet.ports["a"]
    resting = flows_of("ownership", fleet)
    assert resting == running.replace("kvm1, kvm2", "kvm2")
    fleet.registered.clear()
    assert flows_of("ownership", fleet) == "\n"


def test_who_is_registered_while_it_runs_may_use_its_address_from_the_first_moment() -> None:
    """Its row gets the addresses a little later than its registration does."""
    fleet, engine = two_vnics(), Engine(Pipeline(APPS))
    engine.update(fleet.rows())
    seen = fleet.ports["b"]
    fleet.register("b-registered", "web", vm=seen.vm_uuid, mac=seen.mac, addresses=("10.0.0.2",))
    delta = engine.update(fleet.rows(), {("Port", "b-registered")})["kvm2"]
    block = engine.blocks[BlockId("ownership", Scope.LOCAL, ("b",))]
    assert len(block.entries) == 2
    assert {entry.identity for entry in block.entries} < delta.adds.keys()


@pytest.mark.parametrize("seen", [False, True])
def test_another_guest_with_the_mac_of_a_registered_one_does_not_get_its_addresses(seen: bool) -> None:
    """The owner does not run, or is kept out; whoever may define guests may give one the owner's MAC, and its name."""
    fleet = two_vnics().port("thief", "kvm2", "web", mac="52:54:00:00:00:01", vm="guest" if seen else "thief")
    fleet.put("Port", "a", fleet.ports["a"].model_copy(update={"state": "quarantined" if seen else "absent"}))
    assert "local: " not in flows_of("ownership", fleet)


def test_nor_does_one_that_is_called_like_its_uuid() -> None:
    fleet = two_vnics()
    owner = fleet.ports["a"]
    fleet.port("thief", "kvm2", "web", mac=owner.mac, vm=owner.vm_uuid)
    fleet.put("Port", "a", owner.model_copy(update={"state": "quarantined"}))
    assert "local: " not in flows_of("ownership", fleet)


def test_behind_a_learning_vnic_is_anybody_but_a_known_vnic() -> None:
    fleet = two_vnics(portgroups={"nested": {"learning": True}})
    check("ownership_learning", "ownership", fleet.port("c", "kvm1", "web", "nested"))


def test_passthrough_claims_nothing() -> None:
    fleet = FleetRows().host("kvm1", None, "phys1")
    fleet.network("lan", "bridge", physical_network="phys1", portgroups={"raw": {"isolation": "passthrough"}})
    assert flows_of("ownership", fleet.port("a", "kvm1", "lan", "raw", addresses=ADDRESSES)) == "\n"


def test_what_is_learned_is_refused_from_others_below_what_is_registered() -> None:
    fleet = FleetRows().host("kvm1", "192.0.2.1").host("kvm2", "192.0.2.2")
    fleet.network("web", portgroups={"own": {"learn_addresses": 2}})
    fleet.port("a", "kvm1", "web", "own", addresses=ADDRESSES, learned=ADDRESSES).port("b", "kvm2", "web")
    check("ownership_learned", "ownership", fleet)


def test_what_is_reserved_is_refused_from_all_but_who_is_registered_with_it() -> None:
    check("ownership_reserved", "ownership", two_vnics(reserved_addresses=["10.0.0.1", "fd00::fe"], span="host"))
