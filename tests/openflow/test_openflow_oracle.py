"""Our bytes equal os-ken's wherever os-ken can build the thing."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openflow_strategies import (
    NOT_IN_OSKEN,
    SORTED_ELSEWHERE,
    controllers,
    copies,
    learns,
    matches,
    osken_value,
    output_regs,
    set_fields,
    terms,
    tracks,
)  # fmt: skip
from os_ken.ofproto import ofproto_v1_5 as ofp
from os_ken.ofproto import ofproto_v1_5_parser as osk

from controller.openflow import actions as act
from controller.openflow import messages as msg
from controller.openflow.conntrack import Ct, CtClear, Nat, Zone
from controller.openflow.learn import Learn
from controller.openflow.match import Match
from controller.openflow.oxm import FIELDS

DATAPATH = SimpleNamespace(ofproto=ofp, ofproto_parser=osk)
KNOWN = {e.name for e in ofp.oxm_types}


def serialized(thing: Any) -> bytes:
    buf = bytearray()
    thing.serialize(buf, 0)
    return bytes(buf)


_LEARN2 = 45  # NXAST_LEARN2
_LEARN_FIXED = 22  # bytes of timeouts, priority, cookie, flags and table


def padded(action: bytes) -> bytes:
    """os-ken counts the padding of Open vSwitch's actions in their length, and leaves it to what follows."""
    return action + bytes(-len(action) % 8)


def built(message: Any, xid: int = 0) -> bytes:
    message.set_xid(xid)
    message.serialize()
    return bytes(message.buf)


def osken_terms(match: Match) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field, value, mask in match.terms:
        shown = osken_value(field, value)
        found[field.name] = shown if mask is None else (shown, osken_value(field, mask))
    return found


def osken_match(match: Match) -> Any:
    return osk.OFPMatch(**osken_terms(match))


@given(terms(frozenset(NOT_IN_OSKEN | SORTED_ELSEWHERE)))
def test_match(wanted: dict[str, tuple[int, int | None]]) -> None:
    match = Match.of(**wanted)
    assert match.encode() == serialized(osken_match(match))


@pytest.mark.parametrize("name", sorted(set(FIELDS) - NOT_IN_OSKEN))
def test_every_field_alone(name: str) -> None:
    field = FIELDS[name]
    value = field.full // 3
    one = serialized(osk.OFPMatch(**{name: osken_value(field, value)}))
    assert field.encode(value) == one[4 : 4 + len(field.encode(value))]
    masked = serialized(osk.OFPMatch(**{name: (osken_value(field, 1), osken_value(field, 1))}))
    assert field.encode(1, 1) == masked[4 : 4 + len(field.encode(1, 1))]


def to_osken(action: act.Action) -> Any:
    match action:
        case act.Output(port, max_len):
            return osk.OFPActionOutput(port, max_len)
        case act.OutputReg(field, start, n_bits):
            return osk.NXActionOutputReg2(ofs_nbits=start << 6 | n_bits - 1, src=field.name, max_len=0xFFFF)
        case act.Group(group_id):
            return osk.OFPActionGroup(group_id)
        case act.Meter(meter_id):
            return osk.OFPActionMeter(meter_id)
        case act.SetField(field, value, mask):
            shown = osken_value(field, value)
            name = "in_port_nxm" if field.name == "in_port" else field.name
            return osk.OFPActionSetField(**{name: shown if mask is None else (shown, osken_value(field, mask))})
        case act.CopyField(src, src_ofs, dst, dst_ofs, n_bits):
            return osk.OFPActionCopyField(n_bits, src_ofs, dst_ofs, [osk.OFPOxmId(src.name), osk.OFPOxmId(dst.name)])
        case act.PushVlan(ethertype):
            return osk.OFPActionPushVlan(ethertype)
        case act.PopVlan():
            return osk.OFPActionPopVlan()
        case act.DecNwTtl():
            return osk.OFPActionDecNwTtl()
        case act.Resubmit(table, in_port):
            return osk.NXActionResubmitTable(in_port, table)
        case act.Conjunction(conj_id, clause, n_clauses):
            return osk.NXActionConjunction(clause - 1, n_clauses, conj_id)
        case act.Note(data):
            return osk.NXActionNote(list(data))
        case act.Controller():
            known: dict[str, Any] = {"max_len": action.max_len} if action.max_len != 0xFFFF else {}
            known |= {"reason": action.reason} if action.reason != 1 else {}
            known |= {"controller_id": action.controller_id} if action.controller_id else {}
            known |= {"userdata": list(action.userdata)} if action.userdata else {}
            known |= {"pause": True} if action.pause else {}
            return osk.NXActionController2(**known)
        case CtClear():
            return osk.NXActionCTClear()
        case Ct(commit, zone, table, inner, force, alg):
            return osk.NXActionCT(
                flags=commit | force << 1,
                zone_src=zone.field.name if isinstance(zone, Zone) else "",
                zone_ofs_nbits=zone.start << 6 | zone.n_bits - 1 if isinstance(zone, Zone) else zone,
                recirc_table=table, alg=alg, actions=[to_osken(a) for a in inner],
            )  # fmt: skip
        case Nat():
            flags = {None: 0, "src": 1, "dst": 2}[action.kind]
            flags |= sum({"persistent": 4, "hash": 8, "random": 16}[f] for f in action.flags)
            six = "ipv6" if ":" in action.addr_min else "ipv4"
            span = {f"range_{six}_min": action.addr_min, f"range_{six}_max": action.addr_max}
            ports = {"range_proto_min": action.port_min or None, "range_proto_max": action.port_max or None}
            return osk.NXActionNAT(flags=flags, **span, **ports)
        case Learn():
            learn = osk.NXActionLearn(
                table_id=action.table, idle_timeout=action.idle_timeout, hard_timeout=action.hard_timeout,
                priority=action.priority, cookie=action.cookie, flags=action.flags | (4 if action.result else 0),
                fin_idle_timeout=action.fin_idle_timeout, fin_hard_timeout=action.fin_hard_timeout,
                specs=[to_osken_spec(s) for s in action.specs],
            )  # fmt: skip
            return limited(learn, action.limit, action.result) if action.limit or action.result else learn
    raise AssertionError(action)


def limited(learn: Any, limit: int, result: tuple[Any, int] | None) -> Any:
    """NXAST_LEARN2, which os-ken lacks: after the fixed part of NXAST_LEARN come the limit, the offset of the bit that
    tells whether it was reached, two bytes of padding, and the field of that bit (Open vSwitch, struct
    nx_action_learn2)."""
    body = bytes(learn.serialize_body())
    header, bit = bytearray(), 0
    if result is not None:
        field, bit = result
        ofp.oxm_serialize_header(ofp.oxm_from_user_header(field.name), header, 0)
    told = limit.to_bytes(4, "big") + bit.to_bytes(2, "big") + bytes(2) + bytes(header)
    data = body[:_LEARN_FIXED] + told + body[_LEARN_FIXED:]
    head = 10  # type, length, vendor, subtype
    return osk.NXActionUnknown(_LEARN2, bytearray(data + bytes(-(head + len(data)) % 8)))


def to_osken_spec(spec: Any) -> Any:
    def named(field: Any) -> str:
        return "in_port_nxm" if field.name == "in_port" else field.name

    src = spec.src if isinstance(spec.src, int) else (named(spec.src), spec.src_ofs)
    if spec.kind == "output":
        return osk.NXFlowSpecOutput(src=src, dst="", n_bits=spec.n_bits)
    made = {"match": osk.NXFlowSpecMatch, "load": osk.NXFlowSpecLoad}[spec.kind]
    return made(src=src, dst=(named(spec.dst), spec.dst_ofs), n_bits=spec.n_bits)


ACTIONS = st.one_of(
    st.builds(act.Output, st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFF)),
    st.builds(act.Group, st.integers(0, 0xFFFFFFFF)),
    st.builds(act.Meter, st.integers(0, 0xFFFFFFFF)),
    st.builds(act.PushVlan, st.integers(0, 0xFFFF)),
    st.builds(act.Resubmit, st.integers(0, 255), st.integers(0, 0xFFFF)),
    st.builds(act.Conjunction, st.integers(0, 0xFFFFFFFF), st.integers(1, 64), st.integers(1, 64)),
    st.sampled_from([act.PopVlan(), act.DecNwTtl(), CtClear(), act.SetField(FIELDS["in_port"], 0)]),
    st.binary(min_size=6, max_size=6).map(act.Note),
    output_regs(), set_fields(), copies(), controllers(),
    tracks().filter(lambda ct: not any(isinstance(a, Nat) for a in ct.actions)),
    learns(),
)  # fmt: skip


ALIGNED = ACTIONS.filter(lambda action: len(serialized(to_osken(action))) % 8 == 0)  # or os-ken's bucket is short


@given(ACTIONS)
def test_action(action: act.Action) -> None:
    assert action.encode() == padded(serialized(to_osken(action)))


@given(st.sampled_from(["src", "dst"]), st.integers(1, 0xFFFF), st.integers(0, 0xFFFF), st.booleans())
def test_nat(kind: Any, low: int, high: int, six: bool) -> None:
    nat = Nat(kind, "fd00::1" if six else "192.0.2.1", "fd00::9" if six else "192.0.2.9", low, high)
    assert nat.encode() == padded(serialized(to_osken(nat)))


@given(matches(NOT_IN_OSKEN | SORTED_ELSEWHERE), st.lists(ACTIONS, max_size=4), st.integers(0, 254), st.data())
def test_flow_mod(match: Match, actions: list[act.Action], table: int, data: st.DataObject) -> None:
    goto = data.draw(st.one_of(st.none(), st.integers(table, 254)))
    u16, u64 = st.integers(0, 0xFFFF), st.integers(0, msg.MASK64)
    idle, hard, flags, priority, importance = (data.draw(u16) for _ in range(5))
    cookie, mask, command = data.draw(u64), data.draw(u64), data.draw(st.sampled_from(list(msg.Command)))
    instructions = []
    if actions:
        instructions.append(osk.OFPInstructionActions(ofp.OFPIT_APPLY_ACTIONS, [to_osken(a) for a in actions]))
    if goto is not None:
        instructions.append(osk.OFPInstructionGotoTable(goto))
    theirs = osk.OFPFlowMod(
        DATAPATH, cookie=cookie, cookie_mask=mask, table_id=table, command=int(command), idle_timeout=idle,
        hard_timeout=hard, priority=priority, flags=flags, importance=importance, match=osken_match(match),
        instructions=instructions, out_port=ofp.OFPP_ANY, out_group=ofp.OFPG_ANY,
    )  # fmt: skip
    ours = msg.flow_mod(
        table, command, cookie, mask, priority, match.encode(), act.instructions(actions, goto), idle_timeout=idle,
        hard_timeout=hard, flags=flags, importance=importance, xid=77,
    )  # fmt: skip
    assert ours == built(theirs, 77)


def test_small_messages() -> None:
    # os-ken leaves a hello's elements out; these are the bytes of §7.5.1 with bit 6 set.
    assert msg.hello(3) == bytes.fromhex("06000010 00000003 0001 0008 00000040")
    assert msg.echo_request(b"abc", 3) == built(osk.OFPEchoRequest(DATAPATH, b"abc"), 3)
    assert msg.echo_reply(b"abc", 3) == built(osk.OFPEchoReply(DATAPATH, b"abc"), 3)
    assert msg.features_request(3) == built(osk.OFPFeaturesRequest(DATAPATH), 3)
    assert msg.barrier_request(3) == built(osk.OFPBarrierRequest(DATAPATH), 3)
    assert msg.set_config(128, xid=3) == built(osk.OFPSetConfig(DATAPATH, 0, 128), 3)
    assert msg.role_request(msg.Role.MASTER, 9, 3) == built(
        osk.OFPRoleRequest(DATAPATH, role=2, short_id=ofp.OFPCID_UNDEFINED, generation_id=9), 3
    )
    assert msg.port_desc_request(xid=3) == built(osk.OFPPortDescStatsRequest(DATAPATH, 0, ofp.OFPP_ANY), 3)


def test_set_async() -> None:
    kinds = [
        (ofp.OFPACPT_PACKET_IN_SLAVE, 0x3F), (ofp.OFPACPT_PACKET_IN_MASTER, 0x3F), (ofp.OFPACPT_PORT_STATUS_SLAVE, 7),
        (ofp.OFPACPT_PORT_STATUS_MASTER, 7), (ofp.OFPACPT_FLOW_REMOVED_SLAVE, 0xF),
        (ofp.OFPACPT_FLOW_REMOVED_MASTER, 0xF),
    ]  # fmt: skip
    properties = [osk.OFPAsyncConfigPropReasons(kind, 8, mask) for kind, mask in kinds]
    assert msg.set_async(xid=3) == built(osk.OFPSetAsync(DATAPATH, properties), 3)


@given(st.integers(0, 255), st.integers(0, msg.MASK64), st.integers(0, msg.MASK64))
def test_flow_desc_request(table: int, cookie: int, mask: int) -> None:
    theirs = osk.OFPFlowDescStatsRequest(
        DATAPATH, 0, table, ofp.OFPP_ANY, ofp.OFPG_ANY, cookie, mask, osk.OFPMatch()
    )  # fmt: skip
    assert msg.flow_desc_request(table, cookie, mask, 3) == built(theirs, 3)
    other = osk.OFPAggregateStatsRequest(DATAPATH, 0, table, ofp.OFPP_ANY, ofp.OFPG_ANY, cookie, mask, osk.OFPMatch())
    assert msg.aggregate_request(table, cookie, mask, 3) == built(other, 3)


@given(st.integers(0, 0xFFFFFFFF), st.integers(1, 127))
def test_flow_monitor_request(monitor: int, flags: int) -> None:
    theirs = osk.OFPFlowMonitorRequest(
        DATAPATH, 0, monitor, ofp.OFPP_ANY, ofp.OFPG_ANY, flags, 255, ofp.OFPFMC_ADD, osk.OFPMatch()
    )  # fmt: skip
    assert msg.flow_monitor_request(monitor, flags, xid=3) == built(theirs, 3)


@given(st.binary(max_size=64), st.lists(ALIGNED, max_size=3), st.integers(0, 0xFEFF), st.integers(0, 0xFFFFFFFF))
def test_packet_out(data: bytes, actions: list[act.Action], port: int, reg: int) -> None:
    match = Match.of(in_port=port, reg0=reg)
    theirs = osk.OFPPacketOut(
        DATAPATH, buffer_id=ofp.OFP_NO_BUFFER, match=osken_match(match), actions=[to_osken(a) for a in actions],
        data=data,
    )  # fmt: skip
    assert msg.packet_out(data, act.encode_actions(actions), match=match.encode(), xid=3) == built(theirs, 3)
    plain = osk.OFPPacketOut(
        DATAPATH, buffer_id=ofp.OFP_NO_BUFFER, match=osk.OFPMatch(in_port=port), actions=[], data=data
    )  # fmt: skip
    assert msg.packet_out(data, b"", in_port=port, xid=3) == built(plain, 3)


@given(st.lists(st.tuples(ALIGNED, st.integers(0, 0xFFFF)), max_size=4), st.sampled_from(["", "hash", "dp_hash"]))
def test_group_mod(buckets: list[tuple[act.Action, int]], selection: str) -> None:
    ours = [msg.Bucket(i, a.encode(), weight, 7) for i, (a, weight) in enumerate(buckets)]
    theirs = [
        osk.OFPBucket(
            bucket_id=i, actions=[to_osken(a)],
            properties=[
                osk.OFPGroupBucketPropWeight(weight=weight, length=8, type_=ofp.OFPGBPT_WEIGHT),
                osk.OFPGroupBucketPropWatch(watch=7, length=8, type_=ofp.OFPGBPT_WATCH_PORT),
            ],
        )
        for i, (a, weight) in enumerate(buckets)
    ]  # fmt: skip
    properties = []
    if selection:
        raw = bytes(4) + selection.encode().ljust(16, b"\0") + (5).to_bytes(8, "big")
        words = [int.from_bytes(raw[i : i + 4], "big") for i in range(0, len(raw), 4)]
        properties.append(osk.OFPGroupPropExperimenter(type_=0xFFFF, experimenter=0x154D, exp_type=1, data=words))
    message = osk.OFPGroupMod(DATAPATH, ofp.OFPGC_ADD, ofp.OFPGT_SELECT, 6, ofp.OFPG_BUCKET_ALL, theirs, properties)
    kind = msg.GroupType.SELECT
    param = 5 if selection else 0
    assert msg.group_mod(
        msg.GroupCommand.ADD, 6, kind, ours, selection=selection, selection_param=param, xid=3
    ) == built(message, 3)  # fmt: skip


@given(st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF), st.booleans())
def test_meter_mod(rate: int, burst: int, pktps: bool) -> None:
    flags = (ofp.OFPMF_PKTPS if pktps else ofp.OFPMF_KBPS) | ofp.OFPMF_STATS | (ofp.OFPMF_BURST if burst else 0)
    theirs = osk.OFPMeterMod(DATAPATH, ofp.OFPMC_ADD, flags, 4, [osk.OFPMeterBandDrop(rate, burst)])
    ours = msg.meter_mod(msg.MeterCommand.ADD, 4, rate=rate, burst=burst, pktps=pktps, xid=3)
    assert ours == built(theirs, 3)


@given(st.integers(0, 0xFFFFFFFF), st.sampled_from(list(msg.Bundle)), st.integers(0, 3))
def test_bundle(bundle_id: int, kind: msg.Bundle, flags: int) -> None:
    theirs = osk.OFPBundleCtrlMsg(DATAPATH, bundle_id, int(kind), flags, [])
    assert msg.bundle_control(bundle_id, kind, flags, 3) == built(theirs, 3)
    inner = osk.OFPBarrierRequest(DATAPATH)
    inner.set_xid(3)
    added = osk.OFPBundleAddMsg(DATAPATH, bundle_id, flags, inner, [])
    assert msg.bundle_add(bundle_id, msg.barrier_request(), 3, flags) == built(added, 3)


def test_a_bundled_message_is_for_any_connection_and_comes_out_as_it_was() -> None:
    flow = msg.delete_flow(3, 0xF5 << 56 | 77)
    data = msg.bundled(flow, 0xF5 << 56 | 77)
    assert msg.unbundled(data) == flow
    assert data[4:8] == data[20:24] == (1 << 31 | 77).to_bytes(4, "big")
    assert msg.is_bundled(int.from_bytes(data[4:8], "big"))
    assert not msg.is_bundled((1 << 31) - 1)


@given(st.lists(st.binary(min_size=1, max_size=400)), st.integers(1, 1000))
def test_writes_keep_every_byte_and_the_limit(messages: list[bytes], limit: int) -> None:
    made = list(msg.writes(messages, limit))
    assert b"".join(made) == b"".join(messages)
    assert all(len(write) <= limit for write in made)


def test_addresses_of_the_registry() -> None:
    assert FIELDS["ipv4_src"].encode(0x0A000001)[4:] == socket.inet_aton("10.0.0.1")
