"""Matches, actions and flow descriptions from a switch as values (OpenFlow 1.5.1 §7.2, §7.3.5.2).

Strict and bounded. Fields and actions that are not known are kept as bytes; xregN and xxregN, into which Open vSwitch
joins registers, come back as regN.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from controller.openflow import actions as act
from controller.openflow.actions import Action, Unknown
from controller.openflow.conntrack import Ct, CtClear, Nat, Zone
from controller.openflow.learn import WRITE_RESULT, Learn, LearnSpec
from controller.openflow.match import Match, Term
from controller.openflow.names import PLAIN, Names
from controller.openflow.oxm import Field, field_of
from controller.openflow.wire import need, strict, tlvs

MAX_DEPTH = 8  # clone and ct nest
_EXPERIMENTER = 0xFFFF
_FLAGS = (
    (1, "send_flow_rem"),
    (2, "check_overlap"),
    (4, "reset_counts"),
    (8, "no_packet_counts"),
    (16, "no_byte_counts"),
)
_DESC = struct.Struct("!H2xBxHHHHHQ")


@dataclass(frozen=True, slots=True)
class FlowDesc:
    """One flow of a switch. Timeouts are seconds, duration too; packets and bytes count what it has matched."""

    table: int
    priority: int
    cookie: int
    match: Match
    actions: tuple[Action, ...]
    goto: int | None
    idle_timeout: int = 0
    hard_timeout: int = 0
    flags: int = 0
    importance: int = 0
    duration_s: float = 0.0
    packets: int = 0
    bytes: int = 0

    def text(self, names: Names = PLAIN) -> str:
        """As ovs-ofctl takes it, without counters."""
        head = [f"cookie={self.cookie:#x}", f"table={names.table(self.table)}", f"priority={self.priority}"]
        for word, number in (("idle_timeout", self.idle_timeout), ("hard_timeout", self.hard_timeout)):
            if number:
                head.append(f"{word}={number}")
        head += [word for bit, word in _FLAGS if self.flags & bit]
        match = self.match.text(names)
        return f"{','.join(head)}{',' + match if match else ''} actions=" + act.instructions_text(
            self.actions, self.goto, names
        )


def _field_id(data: bytes, offset: int) -> tuple[Field, int]:
    """A field named by its OXM header, and the offset behind it."""
    (header,) = struct.unpack_from("!I", data, offset)
    size, experimenter = header & 0xFF, 0
    offset += 4
    if header >> 16 == _EXPERIMENTER:
        (experimenter,) = struct.unpack_from("!I", data, offset)
        offset, size = offset + 4, size - 4
    need(size > 0, "an OXM field without a value")
    return field_of(header & ~0x1FF, size, experimenter), offset


def _oxm(data: bytes, offset: int, end: int) -> tuple[Term, int]:
    need(end - offset >= 4, "OXM header runs out of the match")
    (header,) = struct.unpack_from("!I", data, offset)
    stop = offset + 4 + (header & 0xFF)
    need(stop <= end, "OXM field runs out of the match")
    offset += 4
    experimenter = 0
    if header >> 16 == _EXPERIMENTER:
        need(stop - offset > 4, "experimenter OXM field without a value")
        (experimenter,) = struct.unpack_from("!I", data, offset)
        offset += 4
    size = stop - offset
    masked = bool(header & 0x100)
    need(size > 0 and not (masked and size % 2), f"OXM field of {size} bytes")
    if masked:
        size //= 2
    field = field_of(header & ~0x1FF, size, experimenter)
    value = int.from_bytes(data[offset : offset + size], "big")
    mask = int.from_bytes(data[offset + size : stop], "big") if masked else None
    need(value <= field.full, f"{field.name}: value {value:#x} has more than {field.bits} bits")
    if mask is not None:
        need(not value & ~mask, f"{field.name}: value {value:#x} outside mask {mask:#x}")
        mask = None if mask & field.full == field.full else mask & field.full
    return (field, value, mask), stop


@strict
def decode_oxms(data: bytes, offset: int, end: int) -> list[Term]:
    """The OXM TLVs between two offsets, in wire order."""
    need(end <= len(data), "match runs out of the message")
    terms: list[Term] = []
    while offset < end:
        term, offset = _oxm(data, offset, end)
        if term[2] != 0:
            terms.append(term)
    return terms


@strict
def decode_match(data: bytes, offset: int = 0) -> tuple[Match, int]:
    """An ofp_match and the offset behind its padding."""
    kind, size = struct.unpack_from("!HH", data, offset)
    need(kind == 1 and size >= 4, f"match of type {kind} and length {size}")
    end = offset + size
    terms = decode_oxms(data, offset + 4, end)
    stop = end + -size % 8
    need(stop <= len(data), "match padding runs out of the message")
    terms.sort(key=lambda term: term[0].order)
    return Match(tuple(terms)).canonical(), stop


@strict
def decode_actions(data: bytes, start: int = 0, end: int | None = None, depth: int = 0) -> tuple[Action, ...]:
    """A list of actions."""
    need(depth <= MAX_DEPTH, f"actions nest deeper than {MAX_DEPTH}")
    found: list[Action] = []
    for kind, begin, stop in tlvs(data, start, len(data) if end is None else end, padded=False, what="actions"):
        need((stop - begin) % 8 == 0, f"action of {stop - begin} bytes")
        found.append(_action(kind, data[begin:stop], depth))
    return tuple(found)


def _action(kind: int, raw: bytes, depth: int) -> Action:
    if kind == _EXPERIMENTER:
        need(len(raw) >= 16, "experimenter action without a subtype")
        experimenter, subtype = struct.unpack_from("!IH", raw, 4)
        nicira = _NICIRA.get(subtype) if experimenter == act.NICIRA else None
        return nicira(raw, depth) if nicira else Unknown(raw)
    standard = _STANDARD.get(kind)
    return standard(raw) if standard else Unknown(raw)


def _output(raw: bytes) -> Action:
    port, max_len = struct.unpack_from("!IH", raw, 4)
    return act.Output(port, max_len)


def _set_field(raw: bytes) -> Action:
    (field, value, mask), _ = _oxm(raw, 4, len(raw))
    need(mask != 0, "set-field with an empty mask")
    return act.SetField(field, value, mask)


def _copy(raw: bytes) -> Action:
    n_bits, src_ofs, dst_ofs = struct.unpack_from("!HHH", raw, 4)
    src, offset = _field_id(raw, 12)
    dst, _ = _field_id(raw, offset)
    return act.CopyField(src, src_ofs, dst, dst_ofs, n_bits)


_STANDARD: dict[int, Callable[[bytes], Action]] = {
    0: _output,
    17: lambda raw: act.PushVlan(struct.unpack_from("!H", raw, 4)[0]),
    18: lambda raw: act.PopVlan(),
    22: lambda raw: act.Group(struct.unpack_from("!I", raw, 4)[0]),
    24: lambda raw: act.DecNwTtl(),
    25: _set_field,
    28: _copy,
    29: lambda raw: act.Meter(struct.unpack_from("!I", raw, 4)[0]),
}


def _resubmit(raw: bytes, depth: int) -> Action:
    in_port, table = struct.unpack_from("!HB", raw, 10)
    return act.Resubmit(table, in_port)


def _output_reg(raw: bytes, depth: int) -> Action:
    (part,) = struct.unpack_from("!H", raw, 10)
    field, _ = _field_id(raw, 12)
    return act.OutputReg(field, part >> 6, (part & 0x3F) + 1)


def _output_reg2(raw: bytes, depth: int) -> Action:
    (part,) = struct.unpack_from("!H", raw, 10)
    field, _ = _field_id(raw, 14)
    return act.OutputReg(field, part >> 6, (part & 0x3F) + 1)


def _controller(raw: bytes, depth: int) -> Action:
    max_len, controller_id, reason = struct.unpack_from("!HHB", raw, 10)
    return act.Controller(max_len=max_len, reason=reason, controller_id=controller_id)


def _controller2(raw: bytes, depth: int) -> Action:
    userdata, max_len, meter_id, reason, controller_id, pause = b"", act.NO_BUFFER, 0, 1, 0, False
    for kind, begin, stop in tlvs(raw, 16, len(raw), padded=True, what="controller action"):
        body = raw[begin + 4 : stop]
        match kind:
            case 0:
                (max_len,) = struct.unpack_from("!H", body)
            case 1:
                (controller_id,) = struct.unpack_from("!H", body)
            case 2:
                reason = body[0]
            case 3:
                userdata = body
            case 4:
                pause = True
            case 5:
                (meter_id,) = struct.unpack_from("!I", body)
            case _:
                return Unknown(raw)
    return act.Controller(userdata, max_len, meter_id, reason, controller_id, pause)


def _conjunction(raw: bytes, depth: int) -> Action:
    clause, n_clauses, conj_id = struct.unpack_from("!BBI", raw, 10)
    return act.Conjunction(conj_id, clause + 1, n_clauses)


def _check_pkt_larger(raw: bytes, depth: int) -> Action:
    pkt_len, offset = struct.unpack_from("!HH", raw, 10)
    field, _ = _field_id(raw, 14)
    return act.CheckPktLarger(pkt_len, field, offset)


def _ct(raw: bytes, depth: int) -> Action:
    flags, source, zone, table, alg = struct.unpack_from("!HIHB3xH", raw, 10)
    where: int | Zone = zone
    if source:
        field, offset = _field_id(raw, 12)
        need(offset == 16, "ct zone in an experimenter field")
        where = Zone(field, zone >> 6, (zone & 0x3F) + 1)
    inner = decode_actions(raw, 24, len(raw), depth + 1)
    if flags & ~3:
        return Unknown(raw)
    return Ct(bool(flags & 1), where, table, inner, bool(flags & 2), alg)


def _nat(raw: bytes, depth: int) -> Action:
    flags, present = struct.unpack_from("!HH", raw, 12)
    if flags & ~0x1F or flags & 3 == 3 or present & ~0x3F:
        return Unknown(raw)
    offset, ends = 16, ["", "", "", ""]
    for bit, family, index in ((1, 4, 0), (2, 4, 1), (4, 6, 0), (8, 6, 1)):
        if present & bit:
            size = 4 if family == 4 else 16
            need(offset + size <= len(raw), "nat range runs out of the action")
            ends[index] = socket.inet_ntop(
                socket.AF_INET if family == 4 else socket.AF_INET6, raw[offset : offset + size]
            )
            offset += size
    ports = [0, 0]
    for bit, index in ((0x10, 0), (0x20, 1)):
        if present & bit:
            (ports[index],) = struct.unpack_from("!H", raw, offset)
            offset += 2
    names = frozenset(name for name, bit in (("persistent", 4), ("hash", 8), ("random", 16)) if flags & bit)
    kind = "src" if flags & 1 else "dst" if flags & 2 else None
    return Nat(kind, ends[0], ends[1], ports[0], ports[1], names)  # type: ignore[arg-type]


def _clone(raw: bytes, depth: int) -> Action:
    return act.Clone(decode_actions(raw, 16, len(raw), depth + 1))


def _learn(raw: bytes, depth: int) -> Action:
    need(len(raw) >= 32, "learn action is cut short")
    idle, hard, priority, cookie, flags, table, fin_idle, fin_hard = struct.unpack_from("!HHHQHBxHH", raw, 10)
    offset, limit = 32, 0
    if struct.unpack_from("!H", raw, 8)[0] == 45:
        (limit,) = struct.unpack_from("!I", raw, 32)
        offset = 40
    result = None
    if flags & WRITE_RESULT and offset == 40:
        (bit,) = struct.unpack_from("!H", raw, 36)
        field, offset = _field_id(raw, offset)
        result, flags = (field, bit), flags & ~WRITE_RESULT
    if flags & ~3:
        return Unknown(raw)
    specs: list[LearnSpec] = []
    while len(raw) - offset >= 2:
        (head,) = struct.unpack_from("!H", raw, offset)
        if head == 0:
            break
        spec, offset = _spec(raw, offset + 2, head)
        specs.append(spec)
    return Learn(table, tuple(specs), priority, idle, hard, cookie, flags, limit, fin_idle, fin_hard, result)


def _spec(raw: bytes, offset: int, head: int) -> tuple[LearnSpec, int]:
    n_bits, kind, src_ofs, dst_ofs = head & 0x7FF, head >> 11 & 3, 0, 0
    need(not head & 0xC000 and kind < 3 and n_bits > 0, f"learn spec {head:#06x}")
    src: Field | int
    if head & 0x2000:
        size = (n_bits + 15) // 16 * 2
        need(offset + size <= len(raw), "learn constant runs out of the action")
        src = int.from_bytes(raw[offset : offset + size], "big")
        offset += size
    else:
        src, offset = _field_id(raw, offset)
        (src_ofs,) = struct.unpack_from("!H", raw, offset)
        offset += 2
    dst: Field | None = None
    if kind < 2:
        dst, offset = _field_id(raw, offset)
        (dst_ofs,) = struct.unpack_from("!H", raw, offset)
        offset += 2
    return LearnSpec(("match", "load", "output")[kind], src, src_ofs, dst, dst_ofs, n_bits), offset


_NICIRA: dict[int, Callable[[bytes, int], Action]] = {
    8: lambda raw, depth: act.Note(raw[10:]),
    14: _resubmit,
    15: _output_reg,
    16: _learn,
    20: _controller,
    32: _output_reg2,
    34: _conjunction,
    35: _ct,
    36: _nat,
    37: _controller2,
    42: _clone,
    43: lambda raw, depth: CtClear(),
    45: _learn,
    49: _check_pkt_larger,
}


@strict
def decode_stats(data: bytes, offset: int) -> tuple[dict[int, bytes], int]:
    """An ofp_stats: OXS fields by number with their bytes, and the offset behind its padding."""
    _, size = struct.unpack_from("!HH", data, offset)
    need(size >= 4 and offset + size <= len(data), f"stats of length {size}")
    end, stop = offset + size, offset + size + -size % 8
    offset += 4
    found: dict[int, bytes] = {}
    while offset < end:
        need(end - offset >= 4, "OXS header runs out of the stats")
        (header,) = struct.unpack_from("!I", data, offset)
        offset += 4
        need(offset + (header & 0xFF) <= end, "OXS field runs out of the stats")
        if header >> 16 == 0x8002:
            found[header >> 9 & 0x7F] = data[offset : offset + (header & 0xFF)]
        offset += header & 0xFF
    return found, stop


def counter(stats: dict[int, bytes], number: int) -> int:
    """A counter, 0 where the switch keeps none (all ones)."""
    value = int.from_bytes(stats.get(number, b""), "big")
    return 0 if value == 0xFFFFFFFFFFFFFFFF else value


def duration(stats: dict[int, bytes], number: int = 0) -> float:
    """Seconds."""
    raw = stats.get(number, b"")
    need(len(raw) in (0, 8), "OXS duration is not 8 bytes")
    seconds, nanoseconds = struct.unpack("!II", raw) if raw else (0, 0)
    return float(seconds + nanoseconds / 1e9)


def decode_instructions(data: bytes, start: int, end: int) -> tuple[tuple[Action, ...], int | None]:
    """Apply-actions and goto-table; other instructions become Unknown among the actions."""
    found: list[Action] = []
    goto: int | None = None
    for kind, begin, stop in tlvs(data, start, end, padded=False, what="instructions"):
        need(stop - begin >= 8, f"instruction of {stop - begin} bytes")
        if kind == 4:
            found.extend(decode_actions(data, begin + 8, stop))
        elif kind == 1:
            goto = data[begin + 4]
        else:
            found.append(Unknown(data[begin:stop], instruction=True))
    return tuple(found), goto


@strict
def decode_flow_desc(body: bytes) -> list[FlowDesc]:
    """Every flow of a flow-description reply, whose joined bodies are handed in."""
    flows: list[FlowDesc] = []
    offset = 0
    while offset < len(body):
        need(len(body) - offset >= 32, "flow description is cut short")
        size, table, priority, idle, hard, flags, importance, cookie = _DESC.unpack_from(body, offset)
        need(32 <= size <= len(body) - offset, f"flow description of length {size}")
        entry = body[offset : offset + size]
        match, at = decode_match(entry, 24)
        stats, at = decode_stats(entry, at)
        actions, goto = decode_instructions(entry, at, size)
        flows.append(
            FlowDesc(
                table,
                priority,
                cookie,
                match,
                actions,
                goto,
                idle,
                hard,
                flags,
                importance,
                duration(stats),
                counter(stats, 4),
                counter(stats, 5),
            )
        )
        offset += size
    return flows
