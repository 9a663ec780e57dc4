"""Plans over mirrors: what is ours is made and mended, what is not is refused or left alone."""

from __future__ import annotations

from dataclasses import fields
from typing import Any
from uuid import UUID, uuid4

import pytest

from controller.errors import OvsdbError
from controller.model.host import HostSpec, Uplink
from controller.ovsdb.hygiene import remove_reports
from controller.ovsdb.plan import guests, plan, removal
from controller.ovsdb.rows import BridgeRow, InterfaceRow, Mirror, PortRow
from controller.ovsdb.wanted import MARK, WantedBridge, WantedInterface, datapath_id, wanted_bridges

OURS = {MARK: "fleet1"}
BRIDGE = WantedBridge(
    "br-int", "system", "secure", (WantedInterface("fs-geneve", "geneve", 65001),), "f1ee000000000001"
)


def blank(kind: type[Any], **columns: Any) -> Any:
    """A row of which only these columns matter."""
    return kind(**{field.name: columns.get(field.name) for field in fields(kind)})


def add_port(mirror: Mirror, name: str, marked: bool = False) -> UUID:
    interface, port = uuid4(), uuid4()
    ids = OURS if marked else {}
    mirror.interfaces[interface] = blank(InterfaceRow, name=name, type="", options={}, external_ids=ids)
    mirror.ports[port] = blank(
        PortRow, name=name, interfaces=frozenset({interface}), trunks=frozenset(), other_config={}, external_ids=ids
    )
    return port


def add_bridge(mirror: Mirror, name: str, ids: dict[str, str], *ports: UUID) -> None:
    own = add_port(mirror, name)
    mirror.bridges[uuid4()] = blank(
        BridgeRow, name=name, ports=frozenset({own, *ports}), controllers=frozenset(), datapath_type="",
        protocols=frozenset(), other_config={}, external_ids=ids, flood_vlans=0,
    )  # fmt: skip


def steps(mirror: Mirror, *bridges: WantedBridge) -> list[str]:
    return [step.what for step in plan(bridges, mirror, "fleet1", "kvm1")]


def test_an_empty_host() -> None:
    assert steps(Mirror(), BRIDGE) == ["add bridge br-int", "add port fs-geneve to br-int"]


@pytest.mark.parametrize(
    ("ids", "whose"),
    [({}, "not fleetswitch's"), ({MARK: "fleet2"}, "another fleetswitch's")],
)
def test_a_bridge_of_somebody_else_is_refused(ids: dict[str, str], whose: str) -> None:
    mirror = Mirror()
    add_bridge(mirror, "br-int", ids)
    with pytest.raises(OvsdbError, match=whose) as caught:
        steps(mirror, BRIDGE)
    assert "ovs-vsctl set bridge br-int external_ids:fleetswitch=fleet1" in str(caught.value)


def test_an_interface_in_a_bridge_of_somebody_else_is_refused() -> None:
    mirror = Mirror()
    add_bridge(mirror, "br-ex", {}, add_port(mirror, "ens224"))
    with pytest.raises(OvsdbError, match="ens224 is a port of bridge br-ex") as caught:
        steps(mirror, WantedBridge("fs-up1", "system", "standalone", (WantedInterface("ens224"),)))
    assert "ovs-vsctl del-port br-ex ens224" in str(caught.value)


def test_what_is_to_go_goes_first() -> None:
    mirror = Mirror()
    add_bridge(mirror, "fs-up9", OURS, add_port(mirror, "ens224", True))
    add_bridge(mirror, "br-int", OURS, add_port(mirror, "fs-old", True), add_port(mirror, "vnet0"))
    assert steps(mirror, BRIDGE) == ["delete bridge fs-up9", "delete port fs-old of br-int"]


def test_a_bridge_with_guests_is_never_deleted() -> None:
    mirror = Mirror()
    add_bridge(mirror, "br-old", OURS, add_port(mirror, "vnet0"), add_port(mirror, "fs-geneve", True))
    assert [guests(row, mirror, "fleet1") for row in mirror.bridges.values()] == [["vnet0"]]
    wanted = WantedBridge("br-int", "system", "secure", ())
    assert steps(mirror, wanted) == ["release bridge br-old, which guests are plugged into"]
    assert [step.what for step in removal(mirror, "fleet1")] == ["release bridge br-old, which guests are plugged into"]


def test_removal_touches_nothing_of_others() -> None:
    mirror = Mirror()
    add_bridge(mirror, "br-ex", {}, add_port(mirror, "ens1"))
    add_bridge(mirror, "br-two", {MARK: "fleet2"})
    add_bridge(mirror, "fs-up1", OURS, add_port(mirror, "ens224", True))
    assert [step.what for step in removal(mirror, "fleet1")] == ["delete bridge fs-up1"]
    assert removal(Mirror(), "fleet1") == []


def test_what_a_host_should_have() -> None:
    spec = HostSpec(
        ovsdb="unix:/db", tunnel_ip="192.0.2.1", datapath_type="netdev",
        uplinks={"phys2": Uplink(interface="e2"), "phys1": Uplink(interface="e1")},
    )  # fmt: skip
    integration, first, second = wanted_bridges(spec, 7, {"phys1": 4, "phys2": 2}, ("tcp:192.0.2.9:6653",))
    assert (integration.name, integration.fail_mode, integration.datapath_id) == (
        "br-int",
        "secure",
        "f1ee000000000007",
    )
    assert int(integration.datapath_id or "", 16) == datapath_id(7)
    assert {i.name: i.ofport for i in integration.interfaces} == {
        "fs-geneve": 65001, "fs-vxlan": 65002, "fs-gre": 65003, "fs-int4": 64004, "fs-int2": 64002,
    }  # fmt: skip
    assert (first.name, [i.name for i in first.interfaces]) == ("fs-up4", ["e1", "fs-ext4"])
    assert (second.name, second.controllers, second.fail_mode) == ("fs-up2", (), "standalone")
    assert {bridge.datapath_type for bridge in (integration, first, second)} == {"netdev"}


def test_no_tunnels_without_an_address() -> None:
    [integration] = wanted_bridges(HostSpec(ovsdb="unix:/db"), 1, {}, ())
    assert integration.interfaces == ()


def test_names_of_interfaces_fit_linux() -> None:
    spec = HostSpec(ovsdb="unix:/db", tunnel_ip="192.0.2.1", uplinks={"p": Uplink(interface="e1")})
    bridges = wanted_bridges(spec, 1, {"p": 900}, ())
    assert all(len(name) <= 15 for b in bridges for name in (b.name, *(i.name for i in b.interfaces)))


def test_a_bridge_that_was_released_is_taken_back_by_its_own_fleet_alone() -> None:
    mirror = Mirror()
    add_bridge(mirror, "br-int", {"fleetswitch-released": "fleet1"}, add_port(mirror, "vnet0"))
    wanted = WantedBridge("br-int", "system", "secure", ())
    assert any("external_ids" in step for step in steps(mirror, wanted))
    with pytest.raises(OvsdbError, match="exists and is not fleetswitch's"):
        plan([wanted], mirror, "fleet2", "kvm1")


def told(mirror: Mirror, for_hook: str | None = "web:default") -> list[str]:
    """The steps that concern the hook, for a bridge that differs in more than that."""
    wanted = WantedBridge("br-int", "", "secure", (), for_hook=for_hook)
    return [step for step in steps(mirror, wanted) if "hook" in step]


def test_a_hook_is_told_which_networks_there_are_and_only_where_there_is_one() -> None:
    say = ["tell the hook of bridge br-int which networks there are"]
    for ids, wanted in (
        ({}, []),
        ({"fleetswitch-hook": "1 no"}, say),
        ({"fleetswitch-hook": "1 no", "fleetswitch-networks": "web:default"}, []),
        ({"fleetswitch-hook": "1 no", "fleetswitch-networks": "web:other"}, say),
        ({"fleetswitch-networks": "web:default"}, say),
    ):
        mirror = Mirror()
        add_bridge(mirror, "br-int", {**OURS, **ids})
        assert told(mirror) == wanted
    mirror = Mirror()
    add_bridge(mirror, "br-int", {**OURS, "fleetswitch-hook": "1 no", "fleetswitch-networks": "web:default"})
    assert told(mirror, for_hook=None) == say


def test_words_of_the_hook_alone_are_forgotten() -> None:
    mirror = Mirror()
    key = "fleetswitch-port-x"
    add_bridge(mirror, "br-int", {**OURS, key: "y"})
    found = remove_reports("br-int", [key, "fleetswitch-port-gone", "fleetswitch", "vnet0"], mirror)
    assert [step.what for step in found] == ["forget fleetswitch-port-x, which the hook left on br-int"]
    assert remove_reports("br-ex", [key], mirror) == []
