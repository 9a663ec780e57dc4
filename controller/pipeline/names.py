"""Flows in our words: tables by name, registers by what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address

from controller.openflow.names import Names
from controller.openflow.oxm import Field
from controller.pipeline.fields import NEXT_HOP, NEXT_HOP6, OUT, REGISTER_FIELDS, RegisterField


class PipelineNames(Names):
    """Writes ``goto_table:forward`` and ``segment=17`` where Open vSwitch says ``goto_table:7`` and ``reg0=0x11``."""

    __slots__ = ("_ports", "_tables")

    def __init__(self, tables: Mapping[int, str], ports: Mapping[int, str] | None = None) -> None:
        self._tables = tables
        self._ports = ports or {}

    def table(self, number: int) -> str:
        return self._tables.get(number, str(number))

    def port(self, number: int) -> str:
        return self._ports.get(number) or super().port(number)

    def term(self, field: Field, value: int, mask: int | None) -> list[str] | None:
        rest = field.full if mask is None else mask
        parts = []
        for register in _fields_in(field):
            if rest & register.mask == register.mask:
                parts.append(f"{register.name}={self._value(register, value)}")
                rest &= ~register.mask
        if not parts:
            return None
        if rest:
            parts.append(f"{field.name}={value & rest:#x}/{rest:#x}")
        return parts

    def part(self, field: Field, start: int, n_bits: int) -> str:
        covered = [f for f in _fields_in(field) if start <= f.start and f.start + f.width <= start + n_bits]
        if covered and sum(f.width for f in covered) == n_bits:
            return "+".join(f.name for f in covered)
        return super().part(field, start, n_bits)

    def load(self, field: Field, value: int, mask: int | None) -> str | None:
        rest = field.full if mask is None else mask
        covered = [f for f in _fields_in(field) if rest & f.mask == f.mask]
        if not covered or sum(f.mask for f in covered) != rest:
            return None
        return ",".join(f"set_field:{self._value(f, value)}->{f.name}" for f in covered)

    def _value(self, field: RegisterField, register: int) -> str:
        value = (register & field.mask) >> field.start
        if field is NEXT_HOP:
            return str(IPv4Address(value))
        if field is NEXT_HOP6:
            return str(IPv6Address(value))
        return self.port(value) if field is OUT and value else str(value)


def _fields_in(field: Field) -> list[RegisterField]:
    return _BY_REGISTER.get(field.name, [])


_BY_REGISTER: dict[str, list[RegisterField]] = {}
for _field in REGISTER_FIELDS.values():
    _BY_REGISTER.setdefault(_field.oxm, []).append(_field)
