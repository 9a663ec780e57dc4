"""The learn action: a packet that passes writes a flow (NXAST_LEARN, NXAST_LEARN2; ovs-actions(7))."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

from controller.errors import PipelineError
from controller.openflow.actions import check_part, nicira, wire_field
from controller.openflow.names import PLAIN, Names
from controller.openflow.oxm import Field, format_value

SEND_FLOW_REM, DELETE_LEARNED, WRITE_RESULT = 1, 2, 4
_KINDS = ("match", "load", "output")
_IMMEDIATE = 1 << 13


@dataclass(frozen=True, slots=True)
class LearnSpec:
    """One part of the learned flow. ``src`` is a field of the packet or a constant.

    Build with :meth:`match` (the flow matches dst = src), :meth:`load` (it writes src to dst), :meth:`output` (it
    outputs to the port that src holds now).
    """

    kind: Literal["match", "load", "output"]
    src: Field | int
    src_ofs: int
    dst: Field | None
    dst_ofs: int
    n_bits: int

    def __post_init__(self) -> None:
        if isinstance(self.src, Field):
            check_part(self.src, self.src_ofs, self.n_bits)
        elif not 0 <= self.src < 1 << self.n_bits:
            raise PipelineError(f"{self.src:#x} does not fit into {self.n_bits} bits", where="learn")
        if self.dst is not None:
            check_part(self.dst, self.dst_ofs, self.n_bits)

    @classmethod
    def match(cls, dst: Field, src: Field | int, n_bits: int = 0, *, src_ofs: int = 0, dst_ofs: int = 0) -> LearnSpec:
        """The learned flow matches ``dst`` = ``src``; all bits of ``dst`` unless ``n_bits`` is given."""
        return cls("match", src, src_ofs, dst, dst_ofs, n_bits or wire_field(dst).bits)

    @classmethod
    def load(cls, dst: Field, src: Field | int, n_bits: int = 0, *, src_ofs: int = 0, dst_ofs: int = 0) -> LearnSpec:
        """The learned flow sets ``dst`` to ``src``; all bits of ``dst`` unless ``n_bits`` is given."""
        return cls("load", src, src_ofs, dst, dst_ofs, n_bits or wire_field(dst).bits)

    @classmethod
    def output(cls, src: Field, n_bits: int = 0, *, src_ofs: int = 0) -> LearnSpec:
        """The learned flow outputs to the port whose number is in ``src`` now."""
        return cls("output", src, src_ofs, None, 0, n_bits or wire_field(src).bits)

    def encode(self) -> bytes:
        head = _KINDS.index(self.kind) << 11 | self.n_bits
        if isinstance(self.src, Field):
            body = head.to_bytes(2, "big") + wire_field(self.src).id() + self.src_ofs.to_bytes(2, "big")
        else:
            body = (head | _IMMEDIATE).to_bytes(2, "big") + self.src.to_bytes((self.n_bits + 15) // 16 * 2, "big")
        if self.dst is not None:
            body += wire_field(self.dst).id() + self.dst_ofs.to_bytes(2, "big")
        return body

    def text(self, names: Names = PLAIN) -> str:
        src = names.part(wire_field(self.src), self.src_ofs, self.n_bits) if isinstance(self.src, Field) else ""
        if self.dst is None:
            return f"output:{src}"
        dst = names.part(wire_field(self.dst), self.dst_ofs, self.n_bits)
        if self.kind == "load":
            return f"load:{src or hex(int(self.src))}->{dst}"  # type: ignore[arg-type]
        if src:
            return f"{dst}={src}"
        value = int(self.src)  # type: ignore[arg-type]
        whole = self.n_bits == self.dst.bits
        return f"{self.dst.ovs_name}={format_value(self.dst, value)}" if whole else f"{dst}={value:#x}"


@dataclass(frozen=True, slots=True)
class Learn:
    """Add or refresh a flow in ``table`` made from the packet.

    Timeouts are seconds, 0 is none. ``limit`` bounds the flows that this action may have in the table, 0 is no bound.
    ``flags``: SEND_FLOW_REM, DELETE_LEARNED (learned flows die with this one). ``result`` is a field and the number of
    its bit that becomes 1 when the flow is there afterwards, and 0 when the limit kept it out.
    """

    table: int
    specs: tuple[LearnSpec, ...]
    priority: int = 0x8000
    idle_timeout: int = 0
    hard_timeout: int = 0
    cookie: int = 0
    flags: int = 0
    limit: int = 0
    fin_idle_timeout: int = 0
    fin_hard_timeout: int = 0
    result: tuple[Field, int] | None = None

    def __post_init__(self) -> None:
        if self.result is not None:
            check_part(*self.result, 1)

    def encode(self) -> bytes:
        head = struct.pack(
            "!HHHQHBxHH", self.idle_timeout, self.hard_timeout, self.priority, self.cookie,
            self.flags | (WRITE_RESULT if self.result is not None else 0), self.table,
            self.fin_idle_timeout, self.fin_hard_timeout,
        )  # fmt: skip
        specs = b"".join([s.encode() for s in self.specs])
        if self.result is not None:
            field, bit = self.result
            return nicira(45, head + struct.pack("!IH2x", self.limit, bit) + wire_field(field).id() + specs)
        if self.limit:
            return nicira(45, head + struct.pack("!IH2x", self.limit, 0) + specs)
        return nicira(16, head + specs)

    def text(self, names: Names = PLAIN) -> str:
        parts = [f"table={names.table(self.table)}"]
        for word, number in (
            ("idle_timeout", self.idle_timeout), ("hard_timeout", self.hard_timeout),
            ("fin_idle_timeout", self.fin_idle_timeout), ("fin_hard_timeout", self.fin_hard_timeout),
        ):  # fmt: skip
            if number:
                parts.append(f"{word}={number}")
        parts.append(f"priority={self.priority}")
        if self.flags & SEND_FLOW_REM:
            parts.append("send_flow_rem")
        if self.flags & DELETE_LEARNED:
            parts.append("delete_learned")
        if self.cookie:
            parts.append(f"cookie={self.cookie:#x}")
        if self.limit:
            parts.append(f"limit={self.limit}")
        if self.result is not None:
            field, bit = self.result
            parts.append(f"result_dst={names.part(wire_field(field), bit, 1)}")
        return f"learn({','.join([*parts, *(s.text(names) for s in self.specs)])})"
