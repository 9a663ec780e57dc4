"""Traces over bridges of a running Open vSwitch: where packets go, which flow decided, and what is not known."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from itertools import count
from typing import Any

import pytest
from fleets import FleetRows
from inspected import Inspected, LiveSwitch, connected
from openflow_vswitch import Vswitch

from controller.api.tracing import Question, Trace
from controller.errors import InvalidInput, NotFound
from controller.model.port import Incoming
from controller.tracing import tracer

_BRIDGES = count()
Work = Callable[[Inspected, dict[str, str]], Awaitable[None]]


def fleet() -> FleetRows:
    rows = (
        FleetRows()
        .host("kvm1", "192.0.2.1", "phys1")
        .host("kvm2", "192.0.2.2", "phys1")
        .host("kvm3", "192.0.2.3")
        .host("kvm4")
    )
    rows.network("web", portgroups={"quiet": {"isolation": "isolated"}}).network("db")
    rows.network("lan", "bridge", physical_network="phys1",
                 portgroups={"ten": {"vlan": 10}, "twenty": {"vlan": 20}, "all": {"trunk": [10, 20]}})  # fmt: skip
    plan: list[tuple[str, str, str, str, dict[str, Any]]] = [
        ("web1", "kvm1", "web", "default", {"addresses": ("10.0.0.1", "fd00::1")}),
        ("web2", "kvm2", "web", "default", {"addresses": ("10.0.0.2", "fd00::2")}),
        ("web3", "kvm1", "web", "default", {}),
        ("quiet1", "kvm1", "web", "quiet", {"addresses": ("10.0.0.4",)}),
        ("quiet2", "kvm2", "web", "quiet", {"addresses": ("10.0.0.5",)}),
        ("db1", "kvm2", "db", "default", {"addresses": ("10.1.0.1",)}),
        ("ten1", "kvm1", "lan", "ten", {"addresses": ("10.2.0.1",)}),
        ("ten2", "kvm2", "lan", "ten", {"addresses": ("10.2.0.2",)}),
        ("twenty2", "kvm2", "lan", "twenty", {"addresses": ("10.2.0.3",)}),
        ("trunk1", "kvm1", "lan", "all", {"addresses": ("10.2.0.4",)}),
        ("barred", "kvm2", "web", "default", {"state": "quarantined", "reason": "its MAC is that of another"}),
        ("far", "kvm4", "web", "default", {"addresses": ("10.0.0.7",)}),
        ("away", "kvm3", "web", "default", {"addresses": ("10.0.0.9",)}),
    ]
    for ofport, (name, host, network, group, fields) in enumerate(plan, start=1):
        rows.port(name, host, network, group, vm=name, tap=f"vnet{ofport}", ofport=ofport, **fields)
    rows.register("absent", "web", mac="52:54:00:00:00:99", addresses=("10.0.0.8",))
    return rows


def traced(vswitch: Vswitch, work: Work, rows: FleetRows | None = None) -> None:
    """Run on a fleet whose kvm1 and kvm2 are real bridges (by name), and whose kvm3 nobody reaches."""
    bridges = {host: f"tra{next(_BRIDGES)}" for host in ("kvm1", "kvm2")}
    paths = {host: vswitch.bridge(bridge) for host, bridge in bridges.items()}

    async def main() -> None:
        async with AsyncExitStack() as stack:
            switches = {h: LiveSwitch(await stack.enter_async_context(connected(path))) for h, path in paths.items()}
            it = Inspected(rows or fleet(), {**switches, "kvm3": LiveSwitch(None), "kvm4": LiveSwitch(None)})
            for host in paths:
                await it.install(host)
            await work(it, paths)

    asyncio.run(main())


def ask(vswitch: Vswitch, *questions: tuple[str, str, dict[str, Any]]) -> list[Trace]:
    """The answers to (FROM, TO, what else) on the fleet."""
    found = []

    async def work(it: Inspected, paths: dict[str, str]) -> None:
        for source, target, more in questions:
            found.append(await it.inspection.trace(Question(source, target, **more)))

    traced(vswitch, work)
    return found


def test_a_packet_goes_from_host_to_host_with_the_reason_at_every_table(vswitch: Vswitch) -> None:
    [told] = ask(vswitch, ("web1", "web2", {"protocol": "tcp", "port": 80}))
    assert (told.outcome, told.verdict) == ("delivered", "delivered to web2 on kvm2")
    assert told.packet == (
        "tcp 10.0.0.1 → 10.0.0.2 port 80, 52:54:00:00:00:01 → 52:54:00:00:00:02, untagged"
    )  # fmt: skip
    first, second = told.hops
    assert (first.host, first.entered, first.sent) == ("kvm1", "from web1 (vnet1)", ["to kvm2 by geneve, key 1"])
    assert (second.host, second.entered, second.sent) == ("kvm2", "from kvm1 by geneve", ["to web2 (vnet2)"])
    assert [step.table for step in first.steps] == [
        "classify", "spoof_guard", "server_guard", "neighbour_guard", "address_guard", "origin", "gateway",
        "neighbours", "answer_nd", "nat_in", "learn", "forward", "tunnel",
    ]  # fmt: skip
    guard = first.steps[4]
    assert (guard.app, guard.source, guard.why) == ("spoofguard", "Port web1", "from its own 10.0.0.1")
    assert (guard.match, guard.owner) == ("ip,in_port=vnet1,nw_src=10.0.0.1", "fleetswitch")
    assert all(step.leads and step.cookie and step.why for hop in told.hops for step in hop.steps)
    assert told.delivered == ["kvm2/vnet2"]
    assert told.assumed == []


def test_who_is_meant(vswitch: Vswitch) -> None:
    """A guest, a Port, a MAC in any spelling, an address, a host's interface."""
    same = [("web1", "web2"), ("52-54-00-00-00-01", "10.0.0.2"), ("kvm1/vnet1", "52:54:00:00:00:02"),
            ("10.0.0.1", "fd00:0::2")]  # fmt: skip
    for told in ask(vswitch, *((source, target, {}) for source, target in same)):
        assert (told.source, told.target, told.outcome) == ("web1", "web2", "delivered")

    async def work(it: Inspected, paths: dict[str, str]) -> None:
        for wrong in (Question("web9", "web1"), Question("02:00:00:00:00:77", "web1")):
            with pytest.raises(NotFound):
                await it.inspection.trace(wrong)
        for pair in (("web1", "web1"), ("outside", "10.9.9.9"), ("outside", "web1")):
            with pytest.raises(InvalidInput):
                await it.inspection.trace(Question(*pair))
        with pytest.raises(InvalidInput, match="is no IPv4 address"):
            await it.inspection.trace(Question("web1", "web2", from_address="10.0.0"))

    traced(vswitch, work)


CASES: list[tuple[str, str, dict[str, Any], str, str]] = [
    ("web1", "db1", {}, "dropped", "web1 and db1 are in different networks: web and db"),
    ("ten1", "twenty2", {}, "dropped", "ten1 and twenty2 are in different VLANs of lan: 10 and 20"),
    ("web1", "web2", {"from_address": "10.0.0.9"}, "dropped", "spoof guard: 10.0.0.9 is not an address of web1"),
    ("web1", "web2", {"from_address": "fd00::9"}, "dropped", "spoof guard: fd00::9 is not an address of web1"),
    ("web1", "web2", {"from_mac": "52:54:00:00:00:77"}, "dropped",
     "spoof guard: 52:54:00:00:00:77 is not the MAC of web1"),
    ("web1", "web2", {"protocol": "udp", "port": 68}, "dropped",
     "spoof guard: DHCP to a client: no vNIC sends that unless it is allowed to"),
    ("web1", "web2", {"protocol": "arp", "from_address": "10.0.0.9"}, "dropped",
     "spoof guard: web1 may not speak for 10.0.0.9 at 52:54:00:00:00:01 (ARP)"),
    ("web3", "web2", {"from_address": "10.0.0.1"}, "dropped",
     "ownership: 10.0.0.1 is that of another vNIC, 52:54:00:00:00:01"),
    ("web1", "web2", {"vlan": 7}, "dropped", "on kvm1, table classify: nothing else in this table wanted it"),
    ("quiet1", "quiet2", {}, "dropped",
     "on kvm2, table isolation: isolated vNICs do not meet each other (Port quiet2)"),
    ("web1", "quiet2", {}, "delivered", "delivered to quiet2 on kvm2"),
    ("web1", "barred", {}, "dropped", "barred is quarantined: its MAC is that of another"),
    ("barred", "web1", {}, "dropped", "barred is quarantined: its MAC is that of another"),
    ("web1", "absent", {}, "dropped", "absent does not run"),
    ("absent", "web1", {}, "not sent", "absent does not run"),
    ("web1", "web2", {"protocol": "arp"}, "answered",
     "the switch of kvm1 answers for web2: it is at 52:54:00:00:00:02"),
    ("web1", "web2", {"protocol": "arp", "ipv6": True}, "answered",
     "the switch of kvm1 answers for web2: it is at 52:54:00:00:00:02"),
    ("web1", "web3", {"protocol": "arp"}, "delivered", "delivered to web3 on kvm1"),
    ("web1", "web2", {"ipv6": True}, "delivered", "delivered to web2 on kvm2"),
    ("ten1", "ten2", {}, "delivered", "delivered to ten2 on kvm2"),
    ("trunk1", "ten2", {}, "delivered", "delivered to ten2 on kvm2"),
    ("trunk1", "twenty2", {}, "delivered", "delivered to twenty2 on kvm2"),
    ("trunk1", "twenty2", {"vlan": 10}, "dropped",
     "on kvm2, table overlay_flood: nothing else in this table wanted it"),
    ("ten2", "trunk1", {}, "delivered", "delivered to trunk1 on kvm1, with VLAN tag 10"),
    ("ten1", "10.2.0.99", {}, "delivered", "leaves kvm1 by its uplink to phys1, with VLAN tag 10"),
    ("outside", "twenty2", {}, "delivered", "delivered to twenty2 on kvm2"),
    ("10.2.0.99", "trunk1", {"protocol": "tcp", "port": 1}, "delivered",
     "delivered to trunk1 on kvm1, with VLAN tag 10"),
    ("web1", "far", {}, "dropped", "no tunnel leads from kvm1 to far"),
    ("web1", "away", {}, "unknown",
     "it cannot be told: on kvm3 its flows cannot be read: is not connected: nobody is there"),
    ("away", "web1", {}, "unknown",
     "it cannot be told: on kvm3 its flows cannot be read: is not connected: nobody is there"),
]  # fmt: skip


@pytest.fixture(scope="module")
def answers(vswitch: Vswitch) -> list[Trace]:
    """To all cases, on one fleet."""
    return ask(vswitch, *((source, target, more) for source, target, more, _, _ in CASES))


@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{s}-{t}-{m}" for s, t, m, _, _ in CASES])
def test_the_verdict(answers: list[Trace], number: int) -> None:
    *_, outcome, verdict = CASES[number]
    assert (answers[number].outcome, answers[number].verdict) == (outcome, verdict)


def test_a_migrating_guest_is_reached_in_both_places(vswitch: Vswitch) -> None:
    rows = fleet()
    status = rows.ports["web3"]
    rows.ports["web3"] = status.model_copy(update={"incoming": Incoming(host="kvm2", tap="vnet44", ofport=44)})

    async def work(it: Inspected, paths: dict[str, str]) -> None:
        told = await it.inspection.trace(Question("web1", "web3"))
        assert (told.outcome, told.delivered) == ("delivered", ["kvm1/vnet3"])
        assert [hop.host for hop in told.hops] == ["kvm1", "kvm2"]
        assert told.hops[1].sent == []  # held back until the guest has come

    traced(vswitch, work, rows)


def test_what_others_put_there_counts_as_well(vswitch: Vswitch) -> None:
    """The flows that the switch has are executed, not those that it should have."""

    async def work(it: Inspected, paths: dict[str, str]) -> None:
        drop = "cookie=0xabc,table=0,priority=999,in_port=1,dl_dst=52:54:00:00:00:02 actions=drop"
        vswitch.ofctl("add-flow", paths["kvm1"], drop)
        told = await it.inspection.trace(Question("web1", "web2"))
        assert (told.outcome, told.verdict) == (
            "dropped", "on kvm1, table classify: a flow that is not fleetswitch's drops it, cookie 0xabc",
        )  # fmt: skip
        vswitch.ofctl("add-flow", paths["kvm1"], drop.replace("drop", "NORMAL"))
        told = await it.inspection.trace(Question("web1", "web2"))
        assert (told.outcome, told.verdict) == ("unknown", "it cannot be told: on kvm1 output to NORMAL")
        vswitch.ofctl("del-flows", paths["kvm2"])
        told = await it.inspection.trace(Question("web3", "web2"))
        assert (told.outcome, told.verdict) == ("dropped", "on kvm2, table classify: no flow takes it")

    traced(vswitch, work)


def test_what_is_learned_on_the_way_is_told(vswitch: Vswitch) -> None:
    [told] = ask(vswitch, ("outside", "ten1", {}))
    [learned] = told.hops[0].learned
    assert "table=learned" in learned
    assert "dl_dst=02:00:00:00:00:fe actions=set_field:phys1->out" in learned
    assert "no IPv4 address of outside is known: 192.0.2.1 stands for it" in told.assumed
    assert "outside sends with VLAN tag 10, which leads to ten1" in told.assumed


def test_a_switch_that_hangs_is_named_in_time(vswitch: Vswitch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracer, "PATIENCE", 0.2)

    async def never(request: bytes) -> bytes:
        await asyncio.Event().wait()
        return b""

    async def work(it: Inspected, paths: dict[str, str]) -> None:
        monkeypatch.setattr(it.switches["kvm2"], "read", never)
        told = await it.inspection.trace(Question("web1", "web2"))
        assert (told.outcome, told.verdict) == (
            "unknown", "it cannot be told: on kvm2 its flows cannot be read: does not answer within 0.2 s",
        )  # fmt: skip

    traced(vswitch, work)


def test_a_host_that_is_being_let_go_of_leads_nowhere(vswitch: Vswitch) -> None:
    """Its row is gone, and its flows are still there."""

    async def work(it: Inspected, paths: dict[str, str]) -> None:
        del it.fleet.hosts["kvm1"]
        overlay, lan = [await it.inspection.trace(Question(*pair)) for pair in (("web1", "web2"), ("ten1", "ten2"))]
        assert overlay.hops[0].sent == ["to kvm2 by geneve, key 1: no way leads there"]
        assert lan.hops[0].sent == ["to phys1, of which kvm1 has no uplink: it ends there"]
        assert (overlay.outcome, lan.outcome) == ("dropped", "dropped")

    traced(vswitch, work)
