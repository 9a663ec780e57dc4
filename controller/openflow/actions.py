"""Actions of OpenFlow 1.5 and of Open vSwitch: values that know their bytes and their ovs-ofctl text.

Standard actions: OpenFlow 1.5.1 §7.2.6. Open vSwitch's own (experimenter 0x2320): ovs-actions(7). Learn stands in
``learn``, Ct and Nat in ``conntrack``. A flow has two instructions at most, apply-actions and goto-table; in 1.5 a
meter is an action.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from controller.errors import PipelineError
from controller.openflow.names import CONTROLLER, PLAIN, PORTS, Names
from controller.openflow.oxm import IN_PORT, IN_PORT_NXM, Field, format_value

NICIRA = 0x2320
TO_IN_PORT = 0xFFF8  # 16-bit form of OFPP_IN_PORT
NO_BUFFER = 0xFFFF
REASONS = ("no_match", "action", "invalid_ttl", "action_set", "group", "packet_out")

_OUTPUT = struct.Struct("!HHIH6x").pack
_SHORT = struct.Struct("!HHI").pack
_COPY = struct.Struct("!HHHHHH").pack
_RESUBMIT = struct.Struct("!HHIHHB3x").pack
_NX = struct.Struct("!HHIH").pack


class Action(Protocol):
    """What every action can do."""

    def encode(self) -> bytes:
        """The action's bytes, a multiple of 8 long."""

    def text(self, names: Names = PLAIN) -> str:
        """The action as ovs-ofctl takes it, or in the words of ``names``."""


def wire_field(field: Field) -> Field:
    """The field as actions name it: in_port by its 16-bit twin, the only one that Open vSwitch lets an action set."""
    return IN_PORT_NXM if field is IN_PORT else field


def check_part(field: Field, start: int, n_bits: int) -> None:
    """Raises PipelineError unless the bits lie inside the field."""
    if start < 0 or n_bits < 1 or start + n_bits > wire_field(field).bits:
        raise PipelineError(f"bits {start}..{start + n_bits - 1} lie outside its {field.bits} bits", where=field.name)


def nicira(subtype: int, body: bytes) -> bytes:
    """An experimenter action of Open vSwitch, padded to 8 bytes."""
    size = 10 + len(body)
    pad = -size % 8
    return _NX(0xFFFF, size + pad, NICIRA, subtype) + body + bytes(pad)


def encode_actions(actions: Sequence[Action]) -> bytes:
    """The bytes of a list of actions."""
    return b"".join([a.encode() for a in actions])


def join_text(actions: Sequence[Action], names: Names = PLAIN) -> str:
    """Actions joined by commas."""
    return ",".join([a.text(names) for a in actions])


def instructions(actions: Sequence[Action], goto: int | None = None) -> bytes:
    """Apply-actions (left out when empty) and goto-table (left out when ``None``)."""
    body = b"".join([a.encode() for a in actions])
    if len(body) > 0xFFF7:
        raise PipelineError(f"{len(body)} bytes of actions do not fit into one flow")
    apply = (b"\0\4" + (len(body) + 8).to_bytes(2, "big") + b"\0\0\0\0" + body) if body else b""
    return apply if goto is None else apply + b"\0\1\0\x08" + bytes((goto, 0, 0, 0))


def instructions_text(actions: Sequence[Action], goto: int | None = None, names: Names = PLAIN) -> str:
    """What stands behind ``actions=`` in a flow."""
    parts = [a.text(names) for a in actions]
    if goto is not None:
        parts.append(f"goto_table:{names.table(goto)}")
    return ",".join(parts) or "drop"


@dataclass(frozen=True, slots=True)
class Output:
    """Send to a port. ``max_len`` matters for the controller's port only."""

    port: int
    max_len: int = 0

    def encode(self) -> bytes:
        return _OUTPUT(0, 16, self.port, self.max_len)

    def text(self, names: Names = PLAIN) -> str:
        if self.port == CONTROLLER:
            return f"CONTROLLER:{self.max_len}"
        return names.port(self.port) if self.port in PORTS else f"output:{names.port(self.port)}"


@dataclass(frozen=True, slots=True)
class OutputReg:
    """Send to the port whose number stands in a field's bits (NXAST_OUTPUT_REG2)."""

    field: Field
    start: int
    n_bits: int

    def __post_init__(self) -> None:
        check_part(self.field, self.start, self.n_bits)

    def encode(self) -> bytes:
        part = self.start << 6 | self.n_bits - 1
        return nicira(32, struct.pack("!HH", part, NO_BUFFER) + wire_field(self.field).id())

    def text(self, names: Names = PLAIN) -> str:
        return f"output:{names.part(wire_field(self.field), self.start, self.n_bits)}"


@dataclass(frozen=True, slots=True)
class Group:
    """Hand to a group."""

    group_id: int

    def encode(self) -> bytes:
        return _SHORT(22, 8, self.group_id)

    def text(self, names: Names = PLAIN) -> str:
        return f"group:{self.group_id}"


@dataclass(frozen=True, slots=True)
class Meter:
    """Pass a meter, which may drop."""

    meter_id: int

    def encode(self) -> bytes:
        return _SHORT(29, 8, self.meter_id)

    def text(self, names: Names = PLAIN) -> str:
        return f"meter:{self.meter_id}"


@dataclass(frozen=True, slots=True)
class SetField:
    """Write a value, or with a mask some of its bits, into a field. ``in_port`` takes 0 to let a packet go back."""

    field: Field
    value: int
    mask: int | None = None

    def __post_init__(self) -> None:
        full = wire_field(self.field).full
        mask = full if self.mask is None else self.mask
        if not 0 <= self.value <= full or not 0 < mask <= full or self.value & ~mask:
            shown = f"{self.value:#x}" + ("" if self.mask is None else f"/{self.mask:#x}")
            raise PipelineError(f"{shown} cannot be set in {full.bit_length()} bits", where=self.field.name)
        if mask == full:
            object.__setattr__(self, "mask", None)

    def encode(self) -> bytes:
        oxm = wire_field(self.field).encode(self.value, self.mask)
        size = len(oxm) + 4
        pad = -size % 8
        return b"\0\x19" + (size + pad).to_bytes(2, "big") + oxm + bytes(pad)

    def text(self, names: Names = PLAIN) -> str:
        own = names.load(self.field, self.value, self.mask)
        if own is not None:
            return own
        mask = "" if self.mask is None else "/" + format_value(self.field, self.mask)
        return f"set_field:{format_value(self.field, self.value)}{mask}->{self.field.ovs_name}"


@dataclass(frozen=True, slots=True)
class CopyField:
    """Copy ``n_bits`` from one field to another; offsets count from the lowest bit."""

    src: Field
    src_ofs: int
    dst: Field
    dst_ofs: int
    n_bits: int

    def __post_init__(self) -> None:
        check_part(self.src, self.src_ofs, self.n_bits)
        check_part(self.dst, self.dst_ofs, self.n_bits)

    def encode(self) -> bytes:
        ids = wire_field(self.src).id() + wire_field(self.dst).id()
        pad = -(12 + len(ids)) % 8
        return _COPY(28, 12 + len(ids) + pad, self.n_bits, self.src_ofs, self.dst_ofs, 0) + ids + bytes(pad)

    def text(self, names: Names = PLAIN) -> str:
        src = names.part(wire_field(self.src), self.src_ofs, self.n_bits)
        return f"move:{src}->{names.part(wire_field(self.dst), self.dst_ofs, self.n_bits)}"


@dataclass(frozen=True, slots=True)
class PushVlan:
    """Push an empty tag of this ethertype; set vlan_vid after it."""

    ethertype: int = 0x8100

    def encode(self) -> bytes:
        return struct.pack("!HHH2x", 17, 8, self.ethertype)

    def text(self, names: Names = PLAIN) -> str:
        return f"push_vlan:{self.ethertype:#06x}"


@dataclass(frozen=True, slots=True)
class PopVlan:
    """Pop the outer tag."""

    def encode(self) -> bytes:
        return _SHORT(18, 8, 0)

    def text(self, names: Names = PLAIN) -> str:
        return "pop_vlan"


@dataclass(frozen=True, slots=True)
class DecNwTtl:
    """Decrement the TTL; a packet whose TTL ends is dropped or punted."""

    def encode(self) -> bytes:
        return _SHORT(24, 8, 0)

    def text(self, names: Names = PLAIN) -> str:
        return "dec_ttl"


@dataclass(frozen=True, slots=True)
class Resubmit:
    """Look up in another table and come back (NXAST_RESUBMIT_TABLE)."""

    table: int
    in_port: int = TO_IN_PORT

    def encode(self) -> bytes:
        return _RESUBMIT(0xFFFF, 16, NICIRA, 14, self.in_port, self.table)

    def text(self, names: Names = PLAIN) -> str:
        port = "" if self.in_port == TO_IN_PORT else names.port(self.in_port)
        return f"resubmit({port},{names.table(self.table)})"


@dataclass(frozen=True, slots=True)
class Controller:
    """Punt to the controller with ``userdata`` (NXAST_CONTROLLER2); ``meter_id`` 0 is no meter of its own."""

    userdata: bytes = b""
    max_len: int = NO_BUFFER
    meter_id: int = 0
    reason: int = 1
    controller_id: int = 0
    pause: bool = False

    def encode(self) -> bytes:
        body = bytes(6)
        if self.max_len != NO_BUFFER:
            body += struct.pack("!HHH2x", 0, 8, self.max_len)
        if self.controller_id:
            body += struct.pack("!HHH2x", 1, 8, self.controller_id)
        if self.reason != 1:
            body += struct.pack("!HHB3x", 2, 5, self.reason)
        if self.userdata:
            size = 4 + len(self.userdata)
            body += struct.pack("!HH", 3, size) + self.userdata + bytes(-size % 8)
        if self.pause:
            body += struct.pack("!HH4x", 4, 4)
        if self.meter_id:
            body += struct.pack("!HHI", 5, 8, self.meter_id)
        return nicira(37, body)

    def text(self, names: Names = PLAIN) -> str:
        parts = [] if self.reason == 1 else [f"reason={REASONS[self.reason]}"]
        parts.append(f"max_len={self.max_len}")
        if self.controller_id:
            parts.append(f"id={self.controller_id}")
        if self.userdata:
            parts.append(f"userdata={self.userdata.hex('.')}")
        if self.pause:
            parts.append("pause")
        if self.meter_id:
            parts.append(f"meter_id={self.meter_id}")
        return f"controller({','.join(parts)})"


@dataclass(frozen=True, slots=True)
class Conjunction:
    """This flow satisfies one dimension of a conjunctive match; ``clause`` counts from 1 as in ovs-ofctl."""

    conj_id: int
    clause: int
    n_clauses: int

    def encode(self) -> bytes:
        return nicira(34, struct.pack("!BBI", self.clause - 1, self.n_clauses, self.conj_id))

    def text(self, names: Names = PLAIN) -> str:
        return f"conjunction({self.conj_id},{self.clause}/{self.n_clauses})"


@dataclass(frozen=True, slots=True)
class CheckPktLarger:
    """Set one bit of a field to whether the packet, with its Ethernet header, is longer than ``pkt_len`` bytes."""

    pkt_len: int
    dst: Field
    dst_ofs: int

    def __post_init__(self) -> None:
        check_part(self.dst, self.dst_ofs, 1)

    def encode(self) -> bytes:
        body = struct.pack("!HH", self.pkt_len, self.dst_ofs) + self.dst.id()
        return nicira(49, body)

    def text(self, names: Names = PLAIN) -> str:
        return f"check_pkt_larger({self.pkt_len})->{names.part(self.dst, self.dst_ofs, 1)}"


@dataclass(frozen=True, slots=True)
class Clone:
    """Run actions on a copy of the packet; what they change is undone behind them."""

    actions: tuple[Action, ...]

    def encode(self) -> bytes:
        return nicira(42, bytes(6) + encode_actions(self.actions))

    def text(self, names: Names = PLAIN) -> str:
        return f"clone({join_text(self.actions, names)})"


@dataclass(frozen=True, slots=True)
class Note:
    """Bytes that the switch keeps and ignores; it gives them back padded with zeros to 6, 14, 22, … bytes."""

    data: bytes

    def encode(self) -> bytes:
        return nicira(8, self.data)

    def text(self, names: Names = PLAIN) -> str:
        return f"note:{self.data.hex('.')}"


@dataclass(frozen=True, slots=True)
class Unknown:
    """An action, or with ``instruction`` an instruction, that a switch has and this module does not know."""

    data: bytes
    instruction: bool = False

    def encode(self) -> bytes:
        return self.data

    def text(self, names: Names = PLAIN) -> str:
        return f"unknown({self.data.hex()})"
