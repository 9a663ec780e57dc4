"""Against a running Open vSwitch: what it takes from us, gives back, and makes of our text."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from openflow_strategies import ADDRESSES4, ADDRESSES6, flow_actions, matches, tracks
from openflow_vswitch import Vswitch

from controller.errors import OpenFlowError
from controller.openflow import actions as act
from controller.openflow import decode
from controller.openflow import messages as msg
from controller.openflow.connection import BundleRefused, Connection, Handlers, Limits, Refused
from controller.openflow.conntrack import Ct, Nat
from controller.openflow.learn import Learn, LearnSpec
from controller.openflow.match import Match
from controller.openflow.oxm import FIELDS

T = TypeVar("T")
SECONDS = 20.0
Work = Callable[[Connection], Awaitable[T]]


def with_switch(path: str, work: Work[T], handlers: Handlers | None = None) -> T:
    """Runs ``work`` on a connection to a bridge's management socket."""

    async def main() -> T:
        ready = asyncio.Event()

        def on_ready(connection: Connection, features: decode.Features) -> bool:
            ready.set()
            return True

        _, connection = await asyncio.get_running_loop().create_unix_connection(
            lambda: Connection(on_ready, handlers=handlers), path
        )
        async with asyncio.timeout(SECONDS):
            await ready.wait()
            try:
                return await work(connection)
            finally:
                connection.abort("the test is over")

    return asyncio.run(main())


@pytest.fixture(scope="session")
def bridge(vswitch: Vswitch) -> str:
    return vswitch.bridge("real")


def add(i: int, match: Match, actions: Sequence[act.Action], goto: int | None = None, table: int = 0) -> bytes:
    """A flow whose priority and cookie are ``i``."""
    return msg.flow_mod(table, msg.Command.ADD, i, 0, i, match.encode(), act.instructions(actions, goto))


def bundled(*messages: bytes) -> list[bytes]:
    return [msg.bundled(data, number) for number, data in enumerate(messages)]


async def replace(connection: Connection, flows: list[bytes]) -> bytes:
    """Leaves exactly these flows; gives the raw flow description."""
    everything = msg.flow_mod(255, msg.Command.DELETE, 0, 0, 0, msg.EMPTY_MATCH, b"")
    await connection.bundle(bundled(everything, *flows), SECONDS)
    return await connection.multipart(msg.flow_desc_request(), SECONDS)


def contents(body: bytes) -> dict[int, tuple[Any, ...]]:
    """By cookie what a flow says: the match as raw bytes, the actions decoded (some have two encodings)."""
    found: dict[int, tuple[Any, ...]] = {}
    offset = 0
    while offset < len(body):
        size, priority, cookie = struct.unpack_from("!H4xH8xQ", body, offset)
        (flow,) = decode.decode_flow_desc(body[offset : offset + size])
        stats = offset + 24 + (struct.unpack_from("!H", body, offset + 26)[0] + 7) // 8 * 8
        found[cookie] = priority, body[offset + 24 : stats], flow.actions, flow.goto
        offset += size
    return found


def same_from_text(vswitch: Vswitch, path: str, flows: list[bytes], texts: list[str]) -> list[decode.FlowDesc]:
    """Installs the bytes, then the texts with ovs-ofctl, and compares what the switch says of both."""
    sent = with_switch(path, lambda c: replace(c, flows))
    vswitch.ofctl("del-flows", f"unix:{path}")
    vswitch.ofctl("add-flows", f"unix:{path}", "-", stdin="\n".join(texts) + "\n")
    typed = with_switch(path, lambda c: c.multipart(msg.flow_desc_request(), SECONDS))
    assert contents(typed) == contents(sent)
    assert len(contents(sent)) == len(flows)
    return sorted(decode.decode_flow_desc(sent), key=lambda f: f.cookie)


def text(i: int, match: Match, actions: Sequence[act.Action], goto: int | None = None) -> str:
    shown = match.text()
    return f"cookie={i},priority={i}{',' + shown if shown else ''} actions={act.instructions_text(actions, goto)}"


LIVE = settings(
    max_examples=25, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)  # fmt: skip


@LIVE
@given(found=st.lists(matches(), min_size=1, max_size=30))
def test_matches(vswitch: Vswitch, bridge: str, found: list[Match]) -> None:
    flows = [add(i, m, [], 9) for i, m in enumerate(found, 1)]
    texts = [text(i, m, [], 9) for i, m in enumerate(found, 1)]
    described = same_from_text(vswitch, bridge, flows, texts)
    for match, flow in zip(found, described, strict=True):
        assert flow.match == match.canonical()
        assert (flow.actions, flow.goto, flow.table) == ((), 9, 0)


@LIVE
@given(found=st.lists(flow_actions(), min_size=1, max_size=15))
def test_actions(vswitch: Vswitch, bridge: str, found: list[tuple[act.Action, ...]]) -> None:
    flows = [add(i, Match(), a) for i, a in enumerate(found, 1)]
    texts = [text(i, Match(), a) for i, a in enumerate(found, 1)]
    described = same_from_text(vswitch, bridge, flows, texts)
    for actions, flow in zip(found, described, strict=True):
        assert flow.actions == actions


@LIVE
@given(four=st.lists(tracks(ADDRESSES4), min_size=1, max_size=10), six=st.lists(tracks(ADDRESSES6), max_size=10))
def test_conntrack(vswitch: Vswitch, bridge: str, four: list[Ct], six: list[Ct]) -> None:
    pairs = [(Match.of(eth_type=0x0800), ct) for ct in four] + [(Match.of(eth_type=0x86DD), ct) for ct in six]
    flows = [add(i, m, [ct]) for i, (m, ct) in enumerate(pairs, 1)]
    texts = [text(i, m, [ct]) for i, (m, ct) in enumerate(pairs, 1)]
    described = same_from_text(vswitch, bridge, flows, texts)
    assert [f.actions for f in described] == [(ct,) for _, ct in pairs]


def test_every_action_class(vswitch: Vswitch, bridge: str) -> None:
    async def prepare(connection: Connection) -> None:
        connection.send(msg.meter_mod(msg.MeterCommand.ADD, 3, rate=1000))
        connection.send(msg.meter_mod(msg.MeterCommand.ADD, 4, rate=10, burst=10, pktps=True))
        bucket = msg.Bucket(0, act.Output(2).encode(), 10)
        group = msg.group_mod(msg.GroupCommand.ADD, 7, msg.GroupType.SELECT, [bucket], selection="dp_hash")
        await connection.bundle(bundled(group), SECONDS)
        await connection.request(msg.barrier_request(), SECONDS)

    with_switch(bridge, prepare)
    reg, ip, icmp6 = FIELDS["reg0"], Match.of(eth_type=0x0800), {"eth_type": 0x86DD, "ip_proto": 58}
    cases: list[tuple[Match, tuple[act.Action, ...], int | None]] = [
        (Match.of(in_port=1), (act.Output(2), act.Output(0xFFFFFFF8), act.OutputReg(reg, 0, 16)), None),
        (Match(), (act.Output(0xFFFFFFFD, 128),), None),
        (Match(), (act.Group(7),), None),
        (Match(), (act.Meter(3), act.Output(2)), 4),
        (Match(), (act.SetField(FIELDS["in_port"], 0), act.SetField(reg, 0x12, 0xFF), act.Output(1)), None),
        (Match(), (act.CopyField(FIELDS["in_port"], 0, reg, 16, 16), act.Resubmit(9), act.Resubmit(8, 0)), None),
        (Match.of(vlan_vid=0x1005), (act.PopVlan(), act.PushVlan(), act.SetField(FIELDS["vlan_vid"], 0x1009)), 7),
        (ip, (act.DecNwTtl(), act.SetField(FIELDS["ipv4_src"], 0x01020304), act.Output(1)), None),
        (ip, (Ct(True, 5, 20, (Nat("src", "192.0.2.1", "192.0.2.9", 10, 20),)),), None),
        (ip, (Ct(False, 5, 20, (Nat(),)),), None),
        (Match.of(eth_type=0x0800, ip_proto=6), (Ct(True, 5, alg=21),), None),
        (Match(), (act.Conjunction(9, 1, 2), act.Conjunction(10, 2, 2)), None),
        (Match.of(conj_id=9), (act.CheckPktLarger(1500, reg, 3),), 4),
        (Match(), (act.Clone((act.SetField(reg, 1), act.Output(1))), act.Note(b"abcdef")), None),
        (Match(), (act.Controller(b"\1\2", 128, 4, 0), act.Controller(b"x", pause=True)), None),
        (Match(), (act.Controller(max_len=99, reason=2),), None),
        (
            Match(),
            (Learn(3, (
                LearnSpec.match(FIELDS["vlan_tci"], FIELDS["vlan_tci"], 12), LearnSpec.load(reg, FIELDS["in_port"], 16),
                LearnSpec.match(FIELDS["eth_dst"], FIELDS["eth_src"]), LearnSpec.output(FIELDS["in_port"]),
            ), 50, 300, 0, 0x77, limit=100),),
            None,
        ),
        (
            Match(),
            (Learn(3, (LearnSpec.match(FIELDS["eth_dst"], FIELDS["eth_src"]), LearnSpec.load(reg, 65000, 16)), cookie=7,
                   flags=2, limit=4, result=(FIELDS["reg1"], 4)),),
            5,
        ),
        (
            Match.of(**icmp6, icmpv6_type=135, ipv6_nd_target="fd00::1"),
            (
                act.SetField(FIELDS["nd_options_type"], 2), act.SetField(FIELDS["nd_reserved"], 0xE0000000),
                act.SetField(FIELDS["icmpv6_type"], 136), act.Resubmit(4),
            ),
            None,
        ),
        (Match.of(**icmp6, icmpv6_type=136), (act.SetField(FIELDS["ipv6_nd_tll"], 5), act.Output(0xFFFFFFF8)), None),
        (
            Match.of(eth_type=0x0806, arp_op=1, arp_tpa="10.0.0.1"),
            (
                act.CopyField(FIELDS["eth_src"], 0, FIELDS["eth_dst"], 0, 48), act.SetField(FIELDS["arp_op"], 2),
                act.CopyField(FIELDS["arp_spa"], 0, FIELDS["arp_tpa"], 0, 32), act.SetField(FIELDS["arp_sha"], 9),
            ),
            None,
        ),
    ]  # fmt: skip
    flows = [add(i, *case) for i, case in enumerate(cases, 1)]
    described = same_from_text(vswitch, bridge, flows, [text(i, *case) for i, case in enumerate(cases, 1)])
    for case, flow in zip(cases, described, strict=True):
        assert (flow.match, flow.actions, flow.goto) == case
    dumped = vswitch.ofctl("--no-stats", "dump-flows", f"unix:{bridge}")
    typed = [line.strip() for line in dumped.splitlines() if line.strip()]
    vswitch.ofctl("del-flows", f"unix:{bridge}")
    vswitch.ofctl("add-flows", f"unix:{bridge}", "-", stdin="\n".join(typed) + "\n")
    again = with_switch(bridge, lambda c: c.multipart(msg.flow_desc_request(), SECONDS))
    assert sorted(decode.decode_flow_desc(again), key=lambda f: f.cookie)[0].text() == described[0].text()
    decoded = {f.cookie: (f.match, f.actions) for f in decode.decode_flow_desc(again)}
    assert decoded == {f.cookie: (f.match, f.actions) for f in described}


def test_bundle_is_all_or_nothing(bridge: str) -> None:
    async def work(connection: Connection) -> None:
        before = await replace(connection, [add(1, Match.of(in_port=1), [act.Output(2)])])
        bad_add = [add(2, Match(), []), msg.meter_mod(msg.MeterCommand.ADD, 9, rate=1), add(3, Match(), [])]
        with pytest.raises(BundleRefused, match="UNSUP") as refused:
            await connection.bundle(bundled(*bad_add), SECONDS)
        assert [i for i, _ in refused.value.failures] == [1]
        bad_commit = [add(2, Match(), []), add(3, Match(), [act.Meter(4711)])]
        with pytest.raises(BundleRefused, match=r"message 1: .*INVALID_METER"):
            await connection.bundle(bundled(*bad_commit), SECONDS)
        same = [msg.bundled(data, 7) for data in bad_add]  # then none of them can be told from the others
        with pytest.raises(BundleRefused, match="UNSUP") as refused:
            await connection.bundle(same, SECONDS)
        assert [i for i, _ in refused.value.failures] == [0, 1, 2]
        after = await connection.multipart(msg.flow_desc_request(), SECONDS)
        assert contents(after) == contents(before)
        await connection.bundle(bundled(msg.delete_flow(0, 1)), SECONDS)
        assert decode.scan_flows(await connection.multipart(msg.flow_desc_request(), SECONDS)) == []

    with_switch(bridge, work)


def test_many_flows_in_one_bundle_and_scan(bridge: str) -> None:
    count = 20_000

    async def work(connection: Connection) -> None:
        flows = [
            msg.flow_mod(i % 5, 0, i, 0, 9, Match.of(metadata=7, eth_dst=i).encode(), act.instructions([act.Output(1)]))
            for i in range(1, count + 1)
        ]
        body = await replace(connection, flows)
        assert sorted(decode.scan_flows(body), key=lambda f: f[1]) == [(i % 5, i) for i in range(1, count + 1)]
        counted = await connection.multipart(msg.aggregate_request(), SECONDS)
        assert decode.decode_aggregate(counted) == (count, 0, 0)
        with pytest.raises(OpenFlowError, match="longer than allowed"):
            await connection.multipart(msg.flow_desc_request(), SECONDS, max_bytes=100_000)
        await connection.request(msg.barrier_request(), SECONDS)
        await replace(connection, [])

    with_switch(bridge, work)


def test_a_whole_flow_reads_back_as_text(vswitch: Vswitch, bridge: str) -> None:
    match = Match.of(in_port=2, eth_type=0x0800, ipv4_dst="10.1.0.0/16")
    flow = msg.flow_mod(
        3, msg.Command.ADD, 0xABC, 0, 77, match.encode(), act.instructions([act.Output(1)], 9), idle_timeout=60,
        hard_timeout=600, flags=msg.SEND_FLOW_REM,
    )  # fmt: skip
    (first,) = decode.decode_flow_desc(with_switch(bridge, lambda c: replace(c, [flow])))
    assert first.text() == (
        "cookie=0xabc,table=3,priority=77,idle_timeout=60,hard_timeout=600,send_flow_rem,ip,in_port=2,"
        "nw_dst=10.1.0.0/16 actions=output:1,goto_table:9"
    )
    vswitch.ofctl("del-flows", f"unix:{bridge}")
    vswitch.ofctl("add-flow", f"unix:{bridge}", first.text())
    (second,) = decode.decode_flow_desc(
        with_switch(bridge, lambda c: c.multipart(msg.flow_desc_request(), SECONDS))
    )  # fmt: skip
    assert (second.text(), second.flags) == (first.text(), first.flags)


def test_generation_fences_an_older_master(bridge: str) -> None:
    async def work(connection: Connection) -> None:
        granted = await connection.request(msg.role_request(msg.Role.MASTER, 10), SECONDS)
        assert decode.decode_role(granted) == decode.Role(2, 10)
        with pytest.raises(Refused, match="STALE"):
            await connection.request(msg.role_request(msg.Role.MASTER, 9), SECONDS)

    with_switch(bridge, work)


def test_ports(bridge: str) -> None:
    ports = decode.decode_port_desc(with_switch(bridge, lambda c: c.multipart(msg.port_desc_request(), SECONDS)))
    assert {p.number: p.name for p in ports} == {0xFFFFFFFE: "real", **{i: f"realp{i}" for i in range(1, 5)}}


def test_unasked_messages(vswitch: Vswitch, bridge: str) -> None:
    seen: dict[str, list[Any]] = {"in": [], "removed": [], "port": [], "monitor": [], "error": []}
    handlers = Handlers(
        packet_in=lambda c, m: seen["in"].append(m),
        # a flow that an earlier test left behind may still be reported
        flow_removed=lambda c, m: seen["removed"].append(m) if m.cookie == 9 else None,
        port_status=lambda c, m: seen["port"].append(m),
        flow_updates=lambda c, m: seen["monitor"].extend(m),
        error=lambda c, xid, e: seen["error"].append((xid, e)),
    )

    async def until(kind: str, count: int, connection: Connection) -> list[Any]:
        while len(seen[kind]) < count:
            await connection.request(msg.barrier_request(), SECONDS)
        return seen[kind]

    async def work(connection: Connection) -> None:
        await replace(connection, [])
        for setting in (msg.set_async(), msg.set_config(), msg.set_packet_in_format()):
            connection.send(setting)
        assert await connection.multipart(msg.flow_monitor_request(), SECONDS) == b""
        punt = act.encode_actions([act.SetField(FIELDS["reg3"], 7), act.Controller(b"why", 128)])
        connection.send(msg.packet_out(bytes(60), punt, match=Match.of(in_port=1, metadata=5).encode()))
        punted = (await until("in", 1, connection))[0]
        assert (punted.userdata, punted.data, punted.total_len, punted.in_port) == (b"why", bytes(60), 60, 1)
        assert punted.fields()["reg3"] == 7
        assert punted.fields()["metadata"] == 5
        match = Match.of(eth_type=0x0800, ip_proto=6, tcp_dst=80)
        connection.send(
            msg.flow_mod(4, 0, 9, 0, 7, match.encode(), act.instructions([]), flags=msg.SEND_FLOW_REM, xid=99)
        )
        assert (await until("monitor", 1, connection))[0].xid == 99
        await asyncio.to_thread(vswitch.ofctl, "del-flows", f"unix:{bridge}", "cookie=9/-1")
        removed = (await until("removed", 1, connection))[0]
        assert (removed.table, removed.priority, removed.cookie, removed.match, removed.reason) == (4, 7, 9, match, 2)
        update = (await until("monitor", 2, connection))[1]
        assert (update.event, update.table, update.priority, update.cookie) == ("removed", 4, 7, 9)
        await asyncio.to_thread(vswitch.ofctl, "mod-port", f"unix:{bridge}", "1", "down")
        status = (await until("port", 1, connection))[0]
        assert (status.reason, status.port.number, status.port.config & 1) == (2, 1, 1)
        connection.send(
            add(1, Match(), [act.Group(999)])[:4] + (4242).to_bytes(4, "big") + add(1, Match(), [act.Group(999)])[8:]
        )
        xid, error = (await until("error", 1, connection))[0]
        assert (xid, error.text) == (4242, "BAD_ACTION OFPBAC_BAD_OUT_GROUP")

    with_switch(bridge, work, handlers)


def test_first_fragments_show_their_ports(bridge: str, vswitch: Vswitch) -> None:
    async def work(connection: Connection) -> None:
        for flags, mode in ((0, "normal"), (msg.MATCH_FRAGMENTS, "nx-match")):
            connection.send(msg.set_config(flags=flags))
            await connection.request(msg.barrier_request(), SECONDS)
            assert (await asyncio.to_thread(vswitch.ofctl, "get-frags", f"unix:{bridge}")).strip() == mode

    with_switch(bridge, work)


def test_punt_without_packet_in2(bridge: str) -> None:
    punted: list[decode.PacketIn] = []
    handlers = Handlers(packet_in=lambda c, m: punted.append(m))

    async def work(connection: Connection) -> None:
        connection.send(msg.set_async())
        connection.send(msg.set_config())
        out = act.encode_actions([act.Output(0xFFFFFFFD, 0xFFFF)])
        connection.send(msg.packet_out(bytes(60), out, match=Match.of(in_port=2, metadata=6).encode()))
        while not punted:
            await connection.request(msg.barrier_request(), SECONDS)

    with_switch(bridge, work, handlers)
    assert (punted[0].in_port, punted[0].data, punted[0].fields()["metadata"]) == (2, bytes(60), 6)


def test_oskens_messages_can_be_sent(bridge: str) -> None:
    async def work(connection: Connection) -> bytes:
        parser, ofproto = connection.ofproto_parser, connection.ofproto
        match = parser.OFPMatch(in_port=3)
        connection.send(msg.delete_flow(255, 0, 0))
        connection.send_msg(
            parser.OFPFlowMod(
                connection, cookie=321, table_id=2, command=ofproto.OFPFC_ADD, match=match, instructions=[]
            )
        )
        await connection.request(msg.barrier_request(), SECONDS)
        return await connection.multipart(msg.flow_desc_request(), SECONDS)

    assert decode.scan_flows(with_switch(bridge, work)) == [(2, 321)]


def test_echo_keeps_a_quiet_connection(bridge: str) -> None:
    async def main() -> str | None:
        limits = Limits(echo_interval=0.05, echo_misses=10)
        ready = asyncio.Event()

        def on_ready(connection: Connection, features: decode.Features) -> bool:
            ready.set()
            return True

        _, connection = await asyncio.get_running_loop().create_unix_connection(
            lambda: Connection(on_ready, limits=limits), bridge
        )
        async with asyncio.timeout(SECONDS):
            await ready.wait()
        await asyncio.sleep(1.0)  # twice what a switch that answers no echo gets
        reason = connection.closed_reason
        connection.abort("the test is over")
        return reason

    assert asyncio.run(main()) is None
