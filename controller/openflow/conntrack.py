"""The connection-tracking actions: ct, nat, ct_clear (ovs-actions(7))."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, field
from typing import Literal

from controller.errors import PipelineError
from controller.openflow.actions import Action, check_part, encode_actions, join_text, nicira
from controller.openflow.names import PLAIN, Names
from controller.openflow.oxm import Field

ALGS = {21: "ftp", 69: "tftp"}
NO_TABLE = 255
_NAT_FLAGS = {"persistent": 4, "hash": 8, "random": 16}


@dataclass(frozen=True, slots=True)
class Zone:
    """A conntrack zone that is read from a field's bits."""

    field: Field
    start: int = 0
    n_bits: int = 16

    def __post_init__(self) -> None:
        check_part(self.field, self.start, self.n_bits)


@dataclass(frozen=True, slots=True)
class Nat:
    """Address translation inside ct. ``kind`` ``None`` applies what an earlier commit decided."""

    kind: Literal["src", "dst"] | None = None
    addr_min: str = ""
    addr_max: str = ""
    port_min: int = 0
    port_max: int = 0
    flags: frozenset[str] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        unknown = self.flags - set(_NAT_FLAGS)
        if unknown:
            raise PipelineError(f"no such flag: {', '.join(sorted(unknown))}", where="nat")
        if self.kind is None and (self.addr_min or self.port_min or self.flags):
            raise PipelineError("a range needs the kind src or dst", where="nat")
        if not self.addr_min and (self.addr_max or self.port_min or self.port_max):
            raise PipelineError("a range needs a lowest address", where="nat")
        for address in (self.addr_min, self.addr_max):
            _address(address)

    def encode(self) -> bytes:
        flags = {None: 0, "src": 1, "dst": 2}[self.kind] | sum(_NAT_FLAGS[f] for f in self.flags)
        shift = 2 if ":" in self.addr_min else 0
        present, body = 0, b""
        for bit, address in ((1, self.addr_min), (2, self.addr_max)):
            if address:
                present |= bit << shift
                body += _address(address)
        for bit, port in ((0x10, self.port_min), (0x20, self.port_max)):
            if port:
                present |= bit
                body += port.to_bytes(2, "big")
        return nicira(36, struct.pack("!2xHH", flags, present) + body)

    def text(self, names: Names = PLAIN) -> str:
        if self.kind is None:
            return "nat"
        addresses = [f"[{a}]" if ":" in a and self.port_min else a for a in (self.addr_min, self.addr_max) if a]
        ports = [str(p) for p in (self.port_min, self.port_max) if p]
        span = "-".join(addresses) + (":" + "-".join(ports) if ports else "")
        head = f"{self.kind}={span}" if span else self.kind
        return f"nat({','.join([head, *sorted(self.flags)])})"


@dataclass(frozen=True, slots=True)
class Ct:
    """Send through the connection tracker. ``table`` 255: the packet itself goes on untracked.

    ``actions`` are Nat and SetField of ct_mark and ct_label; the latter need ``commit``.
    """

    commit: bool = False
    zone: int | Zone = 0
    table: int = NO_TABLE
    actions: tuple[Action, ...] = ()
    force: bool = False
    alg: int = 0

    def encode(self) -> bytes:
        if isinstance(self.zone, Zone):
            source, zone = self.zone.field.id(), self.zone.start << 6 | self.zone.n_bits - 1
        else:
            source, zone = bytes(4), self.zone
        head = struct.pack("!H4sHB3xH", self.commit | self.force << 1, source, zone, self.table, self.alg)
        return nicira(35, head + encode_actions(self.actions))

    def text(self, names: Names = PLAIN) -> str:
        parts = [word for word, on in (("commit", self.commit), ("force", self.force)) if on]
        if self.table != NO_TABLE:
            parts.append(f"table={names.table(self.table)}")
        if isinstance(self.zone, Zone):
            parts.append(f"zone={names.part(self.zone.field, self.zone.start, self.zone.n_bits)}")
        elif self.zone:
            parts.append(f"zone={self.zone}")
        parts += [a.text(names) for a in self.actions if isinstance(a, Nat)]
        marks = [a for a in self.actions if not isinstance(a, Nat)]
        if marks:
            parts.append(f"exec({join_text(marks, names)})")
        if self.alg:
            parts.append(f"alg={ALGS.get(self.alg, self.alg)}")
        return f"ct({','.join(parts)})"


@dataclass(frozen=True, slots=True)
class CtClear:
    """Forget the tracking state of the packet."""

    def encode(self) -> bytes:
        return nicira(43, b"")

    def text(self, names: Names = PLAIN) -> str:
        return "ct_clear"


def _address(text: str) -> bytes:
    if not text:
        return b""
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except OSError:
        raise PipelineError(f"{text!r} is not an address", where="nat") from None
