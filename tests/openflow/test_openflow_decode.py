"""Decoders: what is right comes back, and whatever else comes raises OpenFlowError within bounded time."""

from __future__ import annotations

import contextlib
import random
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openflow_strategies import flow_actions, matches, tracks

from controller.errors import OpenFlowError
from controller.openflow import actions as act
from controller.openflow import decode, messages
from controller.openflow.conntrack import Ct, Nat
from controller.openflow.decode_flow import decode_oxms
from controller.openflow.learn import Learn, LearnSpec
from controller.openflow.match import Match
from controller.openflow.oxm import FIELDS
from controller.openflow.wire import tlvs


def oxs(**counters: int) -> bytes:
    """An ofp_stats as Open vSwitch sends it."""
    body = struct.pack("!III", 0x80020008, counters.get("seconds", 0), 500_000_000)
    body += struct.pack("!IQ", 0x80020208, 0)
    if "flows" in counters:
        body += struct.pack("!II", 0x80020604, counters["flows"])
    body += struct.pack("!IQ", 0x80020808, counters.get("packets", 0))
    body += struct.pack("!IQ", 0x80020A08, counters.get("bytes", 0))
    size = 4 + len(body)
    return struct.pack("!HH", 0, size) + body + bytes(-size % 8)


def flow_entry(table: int, priority: int, cookie: int, match: Match, instructions: bytes) -> bytes:
    rest = match.encode() + oxs(seconds=3, packets=4, bytes=5) + instructions
    head = struct.pack("!H2xBxHHHHHQ", 24 + len(rest), table, priority, 6, 7, 1, 2, cookie)
    return head + rest


@given(st.integers(0, 254), st.integers(0, 0xFFFF), st.integers(0, messages.MASK64), matches(set()), flow_actions())
def test_flow_desc(table: int, priority: int, cookie: int, match: Match, actions: tuple[act.Action, ...]) -> None:
    entry = flow_entry(table, priority, cookie, match, act.instructions(actions, 9))
    found = decode.decode_flow_desc(entry * 2)
    assert len(found) == 2
    expected = decode.FlowDesc(table, priority, cookie, match.canonical(), actions, 9, 6, 7, 1, 2, 3.5, 4, 5)
    assert found[0] == expected
    assert decode.scan_flows(entry * 3) == [(table, cookie)] * 3


@given(tracks())
def test_conntrack(ct: Ct) -> None:
    assert decode.decode_actions(ct.encode()) == (ct,)


def test_unknown_things_are_kept() -> None:
    strange = bytes.fromhex("ffff0010 00002320 03e7 000102030405")
    write = struct.pack("!HH4xQQ", 2, 24, 1, 2)
    odd = struct.pack("!HHI", 1, 4 + 12, 0x00FF0408) + bytes(8)
    body = odd + bytes(-len(odd) % 8) + oxs() + act.instructions([act.Output(1)])[:8].replace(b"\0\x18", b"\0\x28")
    body += act.Output(1).encode() + strange + write
    (flow,) = decode.decode_flow_desc(struct.pack("!H2xBxHHHHHQ", 24 + len(body), 0, 1, 0, 0, 0, 0, 2) + body)
    assert flow.actions == (act.Output(1), act.Unknown(strange), act.Unknown(write, instruction=True))
    assert flow.match.text() == "oxm_007f82_8=0x0"
    assert flow.match.encode()[:16] == odd[:16]


def test_hello() -> None:
    def element(kind: int, body: bytes) -> bytes:
        return struct.pack("!HH", kind, 4 + len(body)) + body + bytes(-(4 + len(body)) % 8)

    assert decode.decode_hello(6, b"") == 6
    assert decode.decode_hello(4, element(1, struct.pack("!I", 1 << 6 | 1 << 4))) == 6
    assert decode.decode_hello(7, element(9, b"x") + element(1, struct.pack("!I", 1 << 6))) == 6
    for version, body in (
        (4, b""),
        (6, element(1, struct.pack("!I", 1 << 4))),
        (6, bytes.fromhex("00010000 00000040")),
    ):
        with pytest.raises(OpenFlowError):
            decode.decode_hello(version, body)


def test_errors_have_names() -> None:
    error = decode.decode_error(struct.pack("!HH", 2, 4) + b"cause")
    assert (error.text, error.data) == ("BAD_ACTION OFPBAC_BAD_OUT_PORT", b"cause")
    assert decode.decode_error(struct.pack("!HH", 2, 99)).text == "BAD_ACTION code 99"
    assert decode.decode_error(struct.pack("!HH", 77, 1)).text == "type 77 code 1"
    assert decode.decode_error(struct.pack("!HHI", 0xFFFF, 36, 0x2320)).text == "experimenter 0x2320 error 36"


def test_features() -> None:
    body = struct.pack("!QIBB2xII", 0x42, 0, 254, 0, 0x4F, 0)
    assert decode.decode_features(body) == decode.Features(0x42, 0, 254, 0, 0x4F)
    with pytest.raises(OpenFlowError):
        decode.decode_features(body[:-1])


def nested_clones(depth: int) -> bytes:
    inner = act.Output(1).encode()
    for _ in range(depth):
        inner = act.nicira(42, bytes(6) + inner)
    return inner


def test_nesting_is_bounded() -> None:
    assert decode.decode_actions(nested_clones(8))
    with pytest.raises(OpenFlowError, match="nest deeper"):
        decode.decode_actions(nested_clones(3000))


def port(number: int, name: bytes) -> bytes:
    ethernet = struct.pack("!HH4xIIIIII", 0, 32, 0, 0, 0, 0, 10_000_000, 0)
    return struct.pack("!IH2x6s2x16sII", number, 72, b"\2\0\0\0\0\1", name, 1, 4) + ethernet


def test_ports() -> None:
    found = decode.decode_port_desc(port(1, b"eth0") + port(2, b"\xffbad"))
    assert found[0] == decode.Port(1, "02:00:00:00:00:01", "eth0", 1, 4, 10_000_000)
    assert found[1].name == "\ufffdbad"
    status = decode.decode_port_status(b"\2" + bytes(7) + port(1, b"eth0"))
    assert (status.reason, status.port) == (2, found[0])


def packet_in2(*properties: tuple[int, bytes]) -> bytes:
    body = b""
    for kind, value in properties:
        size = 4 + len(value)
        body += struct.pack("!HH", kind, size) + value + bytes(-size % 8)
    return body


REG0, REG1 = FIELDS["reg0"], FIELDS["reg1"]
LEARN = Learn(
    3,
    (LearnSpec.match(FIELDS["eth_dst"], FIELDS["eth_src"]), LearnSpec.load(FIELDS["reg1"], 5, 16)),
    limit=9,
    result=(REG0, 3),
)
RICH = act.instructions(
    [
        act.Output(1), act.SetField(REG0, 1, 3), act.CopyField(REG0, 0, REG1, 0, 8), LEARN,
        Ct(True, 5, 7, (Nat("src", "10.0.0.1", "10.0.0.9", 1, 2), act.SetField(FIELDS["ct_mark"], 1))),
        act.Clone((act.Output(1),)), act.Controller(b"data", 64, 3), act.Note(b"abc"), act.Resubmit(4),
        act.CheckPktLarger(1500, FIELDS["reg2"], 1), act.OutputReg(FIELDS["reg2"], 0, 16),
    ],
    7,
)  # fmt: skip


@given(st.permutations([Match.of(in_port=7), Match.of(metadata=5), Match.of(reg4=9)]), st.integers(0, 3))
def test_the_port_is_found_wherever_it_stands(fields: list[Match], count: int) -> None:
    oxms = b"".join(_oxms(field) for field in fields[:count])
    packet = decode.PacketIn(0, 0, 0, 0, oxms, b"")
    assert packet.in_port == packet.fields().get("in_port", 0)


def _oxms(match: Match) -> bytes:
    return b"".join(field.encode(value, mask) for field, value, mask in match.terms)


MATCH = Match.of(in_port=1, xreg1=5, eth_type=0x0800, ip_proto=6, ipv4_src="10.0.0.0/8", tcp_dst=80)
OXMS = b"".join(field.encode(value, mask) for field, value, mask in MATCH.terms)
ENTRY = flow_entry(1, 2, 3, MATCH, RICH)
UPDATE = struct.pack("!HHBBHHH4xQ", 24 + len(MATCH.encode()) + len(RICH), 1, 1, 0, 0, 0, 9, 7) + MATCH.encode() + RICH
DECODERS: dict[str, tuple[Callable[[bytes], Any], bytes]] = {
    "split_header": (decode.split_header, messages.hello(1)),
    "hello": (lambda b: decode.decode_hello(6, b), messages.hello(1)[8:]),
    "error": (decode.decode_error, struct.pack("!HH", 2, 4) + b"cause"),
    "features": (decode.decode_features, struct.pack("!QIBB2xII", 0x42, 0, 254, 0, 0x4F, 0)),
    "packet_in": (
        decode.decode_packet_in,
        struct.pack("!IHBBQ", 0xFFFFFFFF, 60, 1, 3, 9) + Match.of(in_port=1).encode() + bytes(2) + bytes(60),
    ),
    "packet_in2": (
        lambda b: decode.decode_packet_in2(b).fields(),
        packet_in2((0, bytes(60)), (1, b"\0\0\0\x3c"), (3, b"\4"), (4, bytes(12)), (5, b"\1"),
                   (6, OXMS), (7, b"user"), (8, bytes(12))),
    ),
    "flow_removed": (
        decode.decode_flow_removed, struct.pack("!BBHHHQ", 1, 2, 3, 4, 5, 6) + MATCH.encode() + oxs(packets=1),
    ),
    "port_desc": (decode.decode_port_desc, port(1, b"eth0") + port(2, b"eth1")),
    "port_status": (decode.decode_port_status, b"\2" + bytes(7) + port(1, b"eth0")),
    "role": (decode.decode_role, struct.pack("!I4xQ", 2, 9)),
    "multipart": (decode.multipart_header, struct.pack("!HH4x", 1, 1)),
    "scan": (decode.scan_flows, ENTRY * 3),
    "flow_desc": (decode.decode_flow_desc, ENTRY * 3),
    "aggregate": (decode.decode_aggregate, oxs(flows=5, packets=6, bytes=7)),
    "flow_updates": (decode.decode_flow_updates, UPDATE + struct.pack("!HHI", 8, 4, 77) + UPDATE),
    "match": (decode.decode_match, MATCH.encode()),
    "oxms": (lambda b: decode_oxms(b, 0, len(b)), OXMS),
    "actions": (decode.decode_actions, RICH[8:-8]),
    "learn": (decode.decode_actions, LEARN.encode()),
}  # fmt: skip


@pytest.mark.parametrize("name", DECODERS)
def test_the_right_bytes_are_taken(name: str) -> None:
    decoder, good = DECODERS[name]
    decoder(good)


def mutated(good: bytes, chance: random.Random) -> bytes:
    data = bytearray(good)
    for _ in range(chance.randint(1, 4)):
        match chance.randint(0, 4):
            case 0 if data:
                data[chance.randrange(len(data))] = chance.choice((0, 1, 4, 8, 0x7F, 0xFF, chance.randrange(256)))
            case 1 if len(data) > 1:
                del data[chance.randrange(len(data)) :]
            case 2 if len(data) > 2:
                at = chance.randrange(len(data) - 1)
                data[at : at + 2] = b"\0\0"
            case 3:
                data += chance.randbytes(chance.randint(1, 24))
            case _:
                at = chance.randrange(len(data) + 1)
                data[at:at] = chance.randbytes(chance.randint(1, 8))
    return bytes(data)


@pytest.mark.parametrize("name", DECODERS)
def test_wrong_bytes_raise_openflow_error_only(name: str) -> None:
    decoder, good = DECODERS[name]
    chance = random.Random(name)
    refused = 0
    for round_ in range(1500):
        data = mutated(good, chance) if round_ % 3 else chance.randbytes(chance.randint(0, 200))
        start = time.process_time()
        try:
            decoder(data)
        except OpenFlowError:
            refused += 1
        assert time.process_time() - start < 1.0, data.hex()
    assert refused > 0


@pytest.mark.parametrize("fill", [b"\0", b"\xff", b"\0\4", b"\0\0\0\1", b"\0\x08", b"\0\x01\0\x04"])
@pytest.mark.parametrize("name", DECODERS)
def test_a_long_message_of_one_pattern_ends_soon(name: str, fill: bytes) -> None:
    decoder, _ = DECODERS[name]
    start = time.process_time()
    with contextlib.suppress(OpenFlowError):
        decoder((fill * 65535)[:65527])
    assert time.process_time() - start < 2.0


@given(st.binary(max_size=64), st.booleans())
def test_tlvs_always_move_on(data: bytes, padded: bool) -> None:
    try:
        found = list(tlvs(data, 0, len(data), padded=padded, what="test"))
    except OpenFlowError:
        return
    assert len(found) <= len(data) / 4
    assert all(end - start >= 4 and end <= len(data) for _, start, end in found)


def test_scanning_costs_little() -> None:
    """The aim is 0.1 s for 100,000 flows; ten times that for slow and busy machines."""
    entry = flow_entry(1, 2, 3, Match.of(metadata=1, eth_dst=2), act.instructions([act.Output(1)]))
    body = entry * 100_000
    start = time.process_time()
    assert len(decode.scan_flows(body)) == 100_000
    assert time.process_time() - start < 1.0


def test_who_floods_with_flow_updates_costs_no_decoding_each() -> None:
    def seconds(decoder: Callable[[bytes], Any], body: bytes) -> float:
        begin = time.perf_counter()
        decoder(body)
        return time.perf_counter() - begin

    update = struct.pack("!HHBBHHH4xQ", 24 + len(MATCH.encode()), 1, 1, 0, 0, 0, 9, 7) + MATCH.encode()
    told = min(seconds(decode.decode_flow_updates, update * 1000) for _ in range(5))
    decoded = min(
        seconds(lambda body: [decode.decode_match(body) for _ in range(1000)], MATCH.encode()) for _ in range(5)
    )
    assert told < decoded / 2
