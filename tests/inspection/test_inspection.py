"""What is told of real switches: whose flows they have, what caused each, what is too much and what is missing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import count

import pytest
from fleets import FleetRows
from inspected import Inspected, LiveSwitch, connected
from openflow_vswitch import Vswitch

from apps import APPS
from controller import flow_view
from controller.api.inspection import FlowFilter, FlowInfo
from controller.api.tracing import Question
from controller.errors import NotFound, OpenFlowError
from controller.openflow import messages
from controller.openflow.decode_flow import FlowDesc, decode_flow_desc
from controller.pipeline.cookies import arrival_cookie, learned_cookie
from controller.pipeline.pipeline import Pipeline
from controller.pipeline.tables import FORWARD, LEARNED

_BRIDGES = count()
_NUMBERS = Pipeline(APPS).number
_FORWARD, _LEARNED = _NUMBERS[FORWARD], _NUMBERS[LEARNED]
_FOREIGN = "cookie=0xabc,table=0,priority=7,in_port=2 actions=drop"


def fleet() -> FleetRows:
    rows = FleetRows().host("kvm1", "192.0.2.1", "phys1").host("kvm2", "192.0.2.2", "phys1")
    rows.network("web").network("lan", "bridge", physical_network="phys1", portgroups={"ten": {"vlan": 10}})
    rows.port("a", "kvm1", "web", ofport=1, vm="web1", tap="vnet1", addresses=("10.0.0.1", "fd00::1"))
    rows.port("b", "kvm2", "web", ofport=1, vm="web2", tap="vnet1", addresses=("10.0.0.2",))
    rows.port("c", "kvm1", "lan", "ten", ofport=3, vm="web1")
    return rows.port("d", "kvm1", "lan", "ten", ofport=4, vm="db1", state="quarantined", reason="it has two homes")


def inspected(vswitch: Vswitch, work: Callable[[Inspected, str], Awaitable[None]]) -> None:
    """Run on a fleet whose kvm1 is a real bridge (its name is handed over), and whose kvm2 nobody reaches."""
    bridge = f"ins{next(_BRIDGES)}"
    path = vswitch.bridge(bridge)

    async def main() -> None:
        async with connected(path) as connection:
            await work(Inspected(fleet(), {"kvm1": LiveSwitch(connection), "kvm2": LiveSwitch(None)}), path)

    asyncio.run(main())


def test_every_flow_has_its_row_and_reason(vswitch: Vswitch) -> None:
    async def work(it: Inspected, bridge: str) -> None:
        await it.install("kvm1")
        vswitch.ofctl("add-flow", bridge, _FOREIGN)
        found = await it.inspection.flows("kvm1", FlowFilter())
        assert len(found) == len(it.engine.tables["kvm1"]) + 1
        assert all(flow.why and flow.app and flow.source for flow in found if flow.owner == "fleetswitch")
        [foreign] = [flow for flow in found if flow.owner == "foreign"]
        assert (foreign.table, foreign.match, foreign.actions, foreign.state) == (
            "classify", "in_port=2", "drop", "extra",
        )  # fmt: skip
        [guard] = [flow for flow in found if flow.table == "spoof_guard" and flow.match == (
            "in_port=vnet1,dl_src=52:54:00:00:00:01")]  # fmt: skip
        assert (guard.app, guard.kind, guard.name, guard.why) == ("spoofguard", "Port", "a", "sent from its own MAC")
        [barred] = [flow for flow in found if flow.app == "quarantine"]
        assert (barred.match, barred.why) == ("in_port=vnet4", "db1 52:54:00:00:00:04 is kept out: it has two homes")

    inspected(vswitch, work)


def test_filters_mean_rows_and_what_names_them(vswitch: Vswitch) -> None:
    async def work(it: Inspected, bridge: str) -> None:
        await it.install("kvm1")

        async def told(**wanted: str) -> list[FlowInfo]:
            found = await it.inspection.flows("kvm1", FlowFilter(**wanted))
            assert found, wanted
            return [replace(flow, duration=0) for flow in found]

        every = await told()
        web1, db1 = await told(guest="web1"), await told(guest="db1")
        assert {flow.name for flow in web1 if flow.kind == "Port"} == {"a", "c"}
        assert [flow.app for flow in db1] == ["quarantine"]
        assert await told(port="a") == await told(port="52:54:00:00:00:01") == await told(port="vnet1")
        remote = await told(port="b")
        assert {flow.table for flow in remote} >= {"forward", "neighbours"}
        assert not any("in_port" in flow.match for flow in remote)  # its OpenFlow port counts on its own host alone
        lan = await told(network="lan")
        assert {flow.app for flow in lan} >= {"classify", "l2"}
        assert not {flow.name for flow in lan} & {"a", "b", "web"}
        assert await told(network="lan", guest="web1") == await told(port="c")
        assert await it.inspection.flows("kvm1", FlowFilter(network="web", guest="db1")) == []
        forward = await told(table="forward")
        assert forward == [flow for flow in every if flow.table == "forward"]
        assert await told(cookie=forward[0].cookie) == [forward[0]]
        for wrong in (
            FlowFilter(guest="web3"),
            FlowFilter(port="x"),
            FlowFilter(network="w"),
            FlowFilter(table="forwrd"),
        ):
            with pytest.raises(NotFound):
                await it.inspection.flows("kvm1", wrong)

    inspected(vswitch, work)


def test_what_is_missing_and_what_is_too_much(vswitch: Vswitch) -> None:
    async def work(it: Inspected, bridge: str) -> None:
        lost, refused = [entry for entry in it.engine.tables["kvm1"] if entry.table == _FORWARD][:2]
        await it.install("kvm1", leave_out=(lost.cookie, refused.cookie))
        it.switches["kvm1"].refused[refused.identity] = "bad match"
        vswitch.ofctl("add-flow", bridge, _FOREIGN)
        vswitch.ofctl(
            "add-flow", bridge, f"cookie=0xf500000000000001,table={_FORWARD},priority=9,in_port=9 actions=drop"
        )
        missing = await it.inspection.flows("kvm1", FlowFilter(state="missing"))
        notes = {flow.cookie: flow.note for flow in missing}
        assert notes == {
            f"{lost.cookie:#x}": "the switch has not confirmed it yet",
            f"{refused.cookie:#x}": "the switch refuses it: bad match",
        }
        assert all(flow.state == "missing" and flow.why for flow in missing)
        extra = await it.inspection.flows("kvm1", FlowFilter(state="extra"))
        assert [(flow.owner, flow.table) for flow in extra] == [("foreign", "classify"), ("fleetswitch", "forward")]
        assert await it.inspection.flows("kvm1", FlowFilter(state="missing", table="classify")) == []

    inspected(vswitch, work)


def described(body: bytes) -> list[tuple[object, ...]]:
    """Flows without what only time tells."""

    def key(flow: FlowDesc) -> tuple[object, ...]:
        return (flow.table, flow.priority, flow.cookie, flow.match.text(), flow.actions, flow.goto, flow.idle_timeout,
                flow.hard_timeout, flow.flags)  # fmt: skip

    return sorted(map(key, decode_flow_desc(body)), key=repr)


def test_raw_flows_are_taken_back_by_ovs_ofctl(vswitch: Vswitch) -> None:
    """Every flow of every app, a learned one and a stranger's."""
    other = vswitch.bridge("insback")

    async def work(it: Inspected, bridge: str) -> None:
        await it.install("kvm1")
        vswitch.ofctl("add-flow", bridge, _FOREIGN)
        vswitch.ofctl("add-flow", bridge, f"cookie=0xf600000000000002,table={_LEARNED},priority=100,hard_timeout=300,"
                      "reg0=2/0x7fffff,dl_dst=02:00:00:00:00:09 actions=set_field:0xfa01/0xffff->reg2")  # fmt: skip
        found = await it.inspection.flows("kvm1", FlowFilter(raw=True))
        assert {flow.owner for flow in found} == {"fleetswitch", "learned", "foreign"}
        vswitch.ofctl("add-flows", other, "-", stdin="\n".join(flow.raw for flow in found))
        async with connected(other) as connection:
            again = await connection.multipart(messages.flow_desc_request(), 20.0)
        before = await it.switches["kvm1"].read(messages.flow_desc_request())
        assert described(again) == described(before)

    inspected(vswitch, work)


def test_a_cookie_is_explained_with_its_cause_and_its_hosts(vswitch: Vswitch) -> None:
    async def work(it: Inspected, bridge: str) -> None:
        await it.install("kvm1")
        [flow] = [f for f in await it.inspection.flows("kvm1", FlowFilter(table="forward", port="b")) if f.source]
        told = await it.inspection.explain(int(flow.cookie, 0), None)
        assert told.meaning == [
            "It stands in table forward, which is for: segment and destination MAC: where it leaves.",
            "It takes packets of segment 1 (web), that came from a vNIC, to 52:54:00:00:00:02.",
            "It sets peer to 2 (host kvm2), and hands them on to table tunnel.",
        ]
        [cause] = told.causes
        assert (cause.app, cause.kind, cause.name, cause.hosts) == ("overlay", "Port", "b", ["kvm1", "kvm2"])
        assert (cause.about, cause.why) == (
            "networks that span the fleet through tunnels.", "this vNIC is on host kvm2",
        )  # fmt: skip
        here, away = told.hosts
        assert (here.host, here.wanted, here.installed, here.flows) == ("kvm1", True, True, 1)
        assert (away.host, away.wanted, away.installed, away.note) == (
            "kvm2", True, None, "is not connected: nobody is there",
        )  # fmt: skip
        assert told.flows[0].raw.startswith(f"cookie={flow.cookie},table={_FORWARD},")
        assert (await it.inspection.explain(int(flow.cookie, 0), "kvm1")).hosts == [here]

    inspected(vswitch, work)


def test_learned_and_foreign_cookies_are_explained_too(vswitch: Vswitch) -> None:
    async def work(it: Inspected, bridge: str) -> None:
        await it.install("kvm1")
        vswitch.ofctl("add-flow", bridge, _FOREIGN)
        for mac in (1, 2):
            match = f"table={_LEARNED},priority=100,reg0=3/0x7fffff,dl_dst=02:00:00:00:00:0{mac}"
            vswitch.ofctl(
                "add-flow", bridge, f"cookie=0xf600000000000002,{match} actions=set_field:0xfa01/0xffff->reg2"
            )
        foreign = await it.inspection.explain(0xABC, None)
        assert foreign.owner == "foreign"
        assert foreign.meaning[0] == "It is not fleetswitch's: somebody else put it there, and it is left alone."
        assert foreign.meaning[-1] == "It drops them."
        assert (foreign.causes, [place.wanted for place in foreign.hosts]) == ([], [False, False])
        learned = await it.inspection.explain(0xF600000000000002, "kvm1")
        assert learned.owner == "learned"
        assert learned.meaning[0].startswith("A switch learned it by itself in segment 2 (lan), from a frame")
        assert learned.meaning[-1] == "2 flows have this cookie; this is one of them."
        assert learned.hosts[0].flows == len(learned.flows) == 2
        assert learned.hosts[0].wanted is None
        with pytest.raises(NotFound, match="no flow has the cookie 0xdead"):
            await it.inspection.explain(0xDEAD, None)

    inspected(vswitch, work)


def test_groups_and_meters_read_as_ovs_ofctl_takes_them(vswitch: Vswitch) -> None:
    async def work(it: Inspected, bridge: str) -> None:
        groups = [
            "group_id=1,type=all,bucket=bucket_id:0,actions=output:1,bucket=bucket_id:1,actions=output:2",
            "group_id=7,type=select,bucket=bucket_id:4,weight:3,actions=output:2",
            "group_id=9,type=ff,bucket=bucket_id:2,watch_port:1,actions=output:1",
        ]
        meters = [
            "meter=2,kbps,stats,bands=type=drop,rate=1000",
            "meter=3,pktps,burst,stats,bands=type=drop,rate=10,burst_size=5",
        ]
        for group in groups:
            vswitch.ofctl("add-group", bridge, group)
        for meter in meters:
            vswitch.ofctl("add-meter", bridge, meter)
        vswitch.ofctl("add-flow", bridge, "table=1,priority=1 actions=meter:2,group:7")
        found = await it.inspection.groups("kvm1")
        assert [group.raw for group in found] == groups
        assert [(group.group_id, group.type, group.users) for group in found] == [
            (1, "all", 0), (7, "select", 1), (9, "ff", 0),
        ]  # fmt: skip
        assert found[0].buckets[0] == "bucket=bucket_id:0,actions=output:vnet1"
        told = await it.inspection.meters("kvm1")
        assert [meter.raw for meter in told] == meters
        assert [(m.meter_id, m.unit, m.rates, m.bursts, m.users) for m in told] == [
            (2, "kbps", [1000], [0], 1), (3, "pktps", [10], [5], 0),
        ]  # fmt: skip
        for group in groups:  # what is told is taken back
            vswitch.ofctl("del-groups", bridge, group.partition(",")[0])
        for one in found:
            vswitch.ofctl("add-group", bridge, one.raw)
        for one_meter in told:
            vswitch.ofctl("mod-meter", bridge, one_meter.raw)
        assert [group.raw for group in await it.inspection.groups("kvm1")] == groups

    inspected(vswitch, work)


def test_what_a_vnic_learned_and_who_has_come_are_told_by_their_cookies(vswitch: Vswitch) -> None:
    async def work(it: Inspected, bridge: str) -> None:
        behind, arrived = learned_cookie(2, 3), arrival_cookie(3)
        for cookie in (behind, arrived):
            vswitch.ofctl("add-flow", bridge, f"cookie={cookie:#x},table=30,in_port={cookie >> 40 & 7} actions=drop")
        told = await it.inspection.explain(behind, "kvm1")
        assert told.meaning[0].startswith("A switch learned it by itself in segment 2 (lan) behind vnet3, from a frame")
        told = await it.inspection.explain(arrived, "kvm1")
        assert "of a guest that migrated to OpenFlow port 3" in told.meaning[0]
        assert [flow.app for flow in told.flows] == ["migration"]

    inspected(vswitch, work)


def test_more_flows_than_anybody_reads_are_refused(vswitch: Vswitch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a switch with millions of flows one table can still be asked for, and nothing else is held up."""

    async def work(it: Inspected, bridge: str) -> None:
        await it.install("kvm1")
        monkeypatch.setattr(flow_view, "MOST_FLOWS", 50)
        with pytest.raises(OpenFlowError, match="flows are too many to be read at once"):
            await it.inspection.flows("kvm1", FlowFilter())
        assert await it.inspection.flows("kvm1", FlowFilter(table="forward"))
        told = await it.inspection.trace(Question("a", "b"))
        assert (told.outcome, "too many" in told.verdict) == ("unknown", True)

    inspected(vswitch, work)
