"""The words in which apps write flows: matches and actions over fields, register fields and tables by name."""

from __future__ import annotations

from dataclasses import dataclass

from controller.errors import PipelineError
from controller.openflow.actions import (
    CheckPktLarger,
    Controller,
    CopyField,
    DecNwTtl,
    Output,
    PopVlan,
    PushVlan,
    SetField,
)
from controller.openflow.conntrack import Nat
from controller.openflow.learn import DELETE_LEARNED, LearnSpec
from controller.openflow.match import Match, Value
from controller.openflow.names import CONTROLLER
from controller.openflow.oxm import FIELDS, Field, parse_value
from controller.pipeline.fields import REGISTER_FIELDS, RegisterField
from controller.pipeline.tables import Next, Stage, Table

Target = Table | Stage | Next

_ETHERNET = 14  # bytes of a header without a tag, which check_pkt_larger counts too (ovs-actions(7))


@dataclass(frozen=True, slots=True)
class Goto:
    """Ends the work of this table: on to the target."""

    target: Target


@dataclass(frozen=True, slots=True)
class Resubmit:
    """Look up in the target, and come back for the next action."""

    target: Target


@dataclass(frozen=True, slots=True)
class LearnInto:
    """Write a flow into a table from the packet that passes. Learned flows die with the flow that learns.

    ``hard_timeout`` in seconds, 0 is none: from the last packet that wrote it on, since to write it again begins anew
    (ovs-actions(7), learn). An idle timeout would count what the learned flow itself matches.
    ``limit`` bounds how many flows of its cookie may be there at once; 0 is no bound. ``result`` is a register field of
    one bit that says whether the flow is there afterwards.
    """

    table: Table
    priority: int
    hard_timeout: int
    cookie: int
    specs: tuple[LearnSpec, ...]
    limit: int = 0
    flags: int = DELETE_LEARNED
    result: RegisterField | None = None


@dataclass(frozen=True, slots=True)
class Track:
    """Ends the work of this table: through the connection tracker (ovs-actions(7), ct), and on in the target.

    ``nat`` says how addresses are translated; an empty one applies what the connection's first packet was given, None
    leaves them alone. ``mark`` is the register field that becomes the mark of the connection, ``label`` its label, 0
    none; both need ``commit``.
    """

    target: Target
    zone: int
    nat: Nat | None
    commit: bool = False
    mark: RegisterField | None = None
    label: int = 0


def match(**terms: Value) -> Match:
    """A match from OXM names and register fields by their names.

    Raises PipelineError that names an unknown or overfilled field.
    """
    plain: dict[str, Value] = {}
    registers: dict[str, tuple[int, int]] = {}
    for name, value in terms.items():
        field = REGISTER_FIELDS.get(name)
        if field is None:
            plain[name] = value
            continue
        register = field.oxm
        old_value, old_mask = registers.get(register, (0, 0))
        registers[register] = (old_value | _shifted(field, value), old_mask | field.mask)
    return Match.of(**plain, **registers)


def load(field: RegisterField | str, value: int | str) -> SetField:
    """Write a constant into a register field or, by its OXM name, into a packet field."""
    if isinstance(field, RegisterField):
        return SetField(FIELDS[field.oxm], _shifted(field, value), field.mask)
    return SetField(FIELDS[field], parse_value(FIELDS[field], value))


def move(source: RegisterField | str, target: RegisterField | str, bits: int | None = None) -> CopyField:
    """Copy a field into another; as many of the lowest bits as both have, unless ``bits`` says."""
    from_field, from_start, from_width = _place(source)
    to_field, to_start, to_width = _place(target)
    return CopyField(from_field, from_start, to_field, to_start, bits or min(from_width, to_width))


def goto(target: Target) -> Goto:
    return Goto(target)


def resubmit(target: Target) -> Resubmit:
    return Resubmit(target)


def output(port: int) -> Output:
    return Output(port)


def punt(max_len: int) -> Output:
    """To the controllers that want packets, ``max_len`` bytes of it, however many there are."""
    return Output(CONTROLLER, max_len)


def metered_punt(max_len: int, meter: int) -> Controller:
    """The same, as often as the meter lets through."""
    return Controller(max_len=max_len, meter_id=meter)


def dec_ttl() -> DecNwTtl:
    return DecNwTtl()


def check_size(mtu: int, into: RegisterField) -> CheckPktLarger:
    """Note in a register field of one bit whether the IP packet is larger than ``mtu`` bytes."""
    return CheckPktLarger(mtu + _ETHERNET, FIELDS[into.oxm], into.start)


def pop_vlan() -> PopVlan:
    return PopVlan()


def push_vlan(vlan: int) -> tuple[PushVlan, SetField]:
    """A new 802.1Q tag with that VLAN."""
    return PushVlan(), SetField(FIELDS["vlan_vid"], 0x1000 | vlan)


def learned_match(target: RegisterField | str, source: RegisterField | str | None = None) -> LearnSpec:
    """The learned flow matches ``target`` as ``source`` (itself when None) is in the packet now."""
    to_field, to_start, width = _place(target)
    from_field, from_start, _ = _place(source if source is not None else target)
    return LearnSpec.match(to_field, from_field, width, src_ofs=from_start, dst_ofs=to_start)


def learned_load(target: RegisterField | str, source: RegisterField | str | int) -> LearnSpec:
    """The learned flow writes into ``target`` what ``source`` is in the packet now, or a constant."""
    to_field, to_start, to_width = _place(target)
    if isinstance(source, int):
        return LearnSpec.load(to_field, source, to_width, dst_ofs=to_start)
    from_field, from_start, from_width = _place(source)
    return LearnSpec.load(to_field, from_field, min(to_width, from_width), src_ofs=from_start, dst_ofs=to_start)


def learned_output(source: RegisterField | str) -> LearnSpec:
    """The learned flow sends to the port whose number ``source`` holds now."""
    from_field, from_start, from_width = _place(source)
    return LearnSpec.output(from_field, from_width, src_ofs=from_start)


def _place(field: RegisterField | str) -> tuple[Field, int, int]:
    """OXM field, first bit and width."""
    if isinstance(field, RegisterField):
        return FIELDS[field.oxm], field.start, field.width
    if field == "in_port":
        return FIELDS["in_port"], 0, 16  # Open vSwitch's ports have 16 bits, also where OpenFlow writes 32
    return FIELDS[field], 0, FIELDS[field].bits


def _shifted(field: RegisterField, value: Value) -> int:
    if not isinstance(value, int) or not 0 <= value < 1 << field.width:
        raise PipelineError(f"{value!r} does not fit into {field.width} bits", where=field.name)
    return value << field.start
