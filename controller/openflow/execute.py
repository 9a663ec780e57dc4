"""Flow tables executed on one packet, as Open vSwitch does it (ovs-actions(7), ofproto-dpif-xlate.c).

What a resubmit changes stays changed, nothing is sent to the port that ``in_port`` names, and a learned flow replaces
the one of the same match. What is not modelled (connection tracking, groups that choose, ``NORMAL``, fields and actions
that nobody knows, two flows between which a switch would have to choose) ends the walk and is named.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from controller.openflow import actions as act
from controller.openflow.decode_flow import FlowDesc
from controller.openflow.decode_groups import GroupDesc
from controller.openflow.learn import Learn
from controller.openflow.match import Match, Term
from controller.openflow.names import CONTROLLER, PORTS
from controller.openflow.oxm import FIELDS, Field

_RESUBMITS = 4096  # of one packet that Open vSwitch allows (ofproto-dpif-xlate.c, MAX_RESUBMITS)
_DEPTH = 64  # of resubmits within each other (MAX_DEPTH)
MOST_FLOWS = 10_000_000
"""A packet's look-ups may go through so many, some 0.5 us each: a switch may lead it through all that it has, often."""
_VLAN_PRESENT = 0x1000  # OpenFlow 1.5.1, 7.2.3.8: OFPVID_PRESENT
_TAG, _TAG_BYTES = 0x8100, 4
_IN_PORT, _LOCAL = 0xFFFFFFF8, 0xFFFFFFFE
_WIDE = "xxreg"  # four registers as one (ovs-fields(7))
_SWITCHS_OWN = ("reg", "tun", "in_port", "metadata", "pkt_mark")
_UNTRACKED = ("ct_",)  # all zero while a packet was not sent through the connection tracker
_OTHER_OPTION = {1: "ipv6_nd_sll", 2: "ipv6_nd_tll"}


@dataclass(frozen=True)
class Frame:
    """An Ethernet frame: its headers' fields by OXM name, and its VLAN tags (VIDs), the outer one first.

    ``size`` is its bytes without tags; 0 is small.
    """

    fields: Mapping[str, int]
    tags: tuple[int, ...] = ()
    size: int = 0

    def __getitem__(self, name: str) -> int:
        return self.fields[name]

    def key(self) -> tuple[tuple[int, ...], tuple[tuple[str, int], ...]]:
        """What two frames have in common when they are the same."""
        return self.tags, tuple(sorted(self.fields.items()))

    def changed(self, **fields: int) -> Frame:
        """The frame with other values in some fields."""
        return replace(self, fields={**self.fields, **fields})


@dataclass(frozen=True, slots=True)
class Sent:
    """A copy that leaves: by which port, as which frame, with what the switch knew of it (registers, tunnel fields).

    ``step`` is the number of the step that sent it.
    """

    port: int
    frame: Frame
    meta: Mapping[str, int]
    step: int


@dataclass(frozen=True, slots=True)
class Step:
    """One look-up: in which table, how deep in resubmits, with what the switch knew before, and which flow decided.

    No ``flow`` matched where it is None. ``parent`` is the number of the step that led here, -1 of the first.
    """

    table: int
    depth: int
    parent: int
    meta: Mapping[str, int]
    flow: FlowDesc | None

    @property
    def ends(self) -> bool:
        """Whether the packet goes no further from here: no flow, or one that only drops."""
        return self.flow is None or not (self.flow.actions or self.flow.goto is not None)


@dataclass(slots=True)
class Run:
    """What happened to a packet. ``unknown`` says what could not be modelled, and what came before it is still true.

    ``learned`` are the flows that it has written.
    """

    steps: list[Step] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    learned: list[FlowDesc] = field(default_factory=list)
    unknown: str = ""


class Tables:
    """The flows and groups of one switch."""

    def __init__(self, flows: Iterable[FlowDesc], groups: Iterable[GroupDesc] = ()) -> None:
        self._flows: dict[int, list[FlowDesc]] = {}
        for flow in sorted(flows, key=_rank):
            self._flows.setdefault(flow.table, []).append(flow)
        self._groups = {group.group_id: group for group in groups}
        self._left = MOST_FLOWS

    def put(self, flow: FlowDesc) -> None:
        """Add a flow; one of the same table, priority and match gives way."""
        flows = self._flows.setdefault(flow.table, [])
        flows[:] = [old for old in flows if (old.priority, old.match) != (flow.priority, flow.match)]
        flows.insert(bisect_right(flows, _rank(flow), key=_rank), flow)

    def has_room(self, flow: FlowDesc, limit: int) -> bool:
        """Whether a flow that is learned keeps the limit (0: none) of flows with its cookie; one that is there does."""
        alike = [old for old in self._flows.get(flow.table, ()) if old.cookie == flow.cookie]
        there = any((old.priority, old.match) == (flow.priority, flow.match) for old in alike)
        return not limit or there or len(alike) < limit

    def run(self, in_port: int, frame: Frame, tunnel: Mapping[str, int] | None = None) -> Run:
        """A frame that comes in by a port, out of a tunnel with these fields. Learned flows are kept.

        It may take seconds.
        """
        self._left = MOST_FLOWS
        meta = {"in_port": in_port, **(tunnel or {})}
        walk = _Walk(self, _Packet(dict(frame.fields), list(frame.tags), meta, len(frame.tags) > 1, frame.size))
        try:
            walk.table(0, 0, -1)
        except _UnmodelledError as unmodelled:
            walk.done.unknown = str(unmodelled)
        return walk.done

    def lookup(self, table: int, packet: _Packet) -> FlowDesc | None:
        """The flow that takes the packet."""
        best: FlowDesc | None = None
        flows = self._flows.get(table, ())
        self._left -= len(flows)
        if self._left < 0:
            raise _UnmodelledError(f"look-ups that go through more than {MOST_FLOWS} flows")
        for flow in flows:
            if best is not None and flow.priority < best.priority:
                break
            if not packet.meets(flow.match):
                continue
            if any(isinstance(action, act.Conjunction) for action in flow.actions):
                raise _UnmodelledError(f"conjunctive match {flow.actions[0].text()}")
            if best is None:
                best = flow
            elif (flow.actions, flow.goto) != (best.actions, best.goto):
                both = f"{best.match.text()!r} and {flow.match.text()!r}"
                raise _UnmodelledError(f"two flows of priority {flow.priority} take it, {both}: a switch would choose")
        return best

    def group(self, group_id: int) -> GroupDesc:
        """The group of this number."""
        if group_id not in self._groups:
            raise _UnmodelledError(f"group {group_id} is not there")
        return self._groups[group_id]


def _words(name: str) -> list[tuple[str, int]]:
    """The registers that xxregN is made of, each with how far to the left it stands."""
    first = 4 * int(name.removeprefix(_WIDE))
    return [(f"reg{first + number}", 96 - 32 * number) for number in range(4)]


class _UnmodelledError(Exception):
    """Ends a walk; it never leaves ``Tables.run``."""


@dataclass
class _Packet:
    """A frame under way: headers, tags, and what only the switch knows of it."""

    fields: dict[str, int]
    tags: list[int]
    meta: dict[str, int]
    hidden: bool = False  # it came with more tags than Open vSwitch looks behind (vlan-limit is 1)
    size: int = 0

    def read(self, name: str) -> int | None:
        if name.startswith(_WIDE):
            return sum(self.meta.get(part, 0) << shift for part, shift in _words(name))
        if name.startswith(_SWITCHS_OWN):
            return self.meta.get("in_port" if name.startswith("in_port") else name, 0)
        if name == "vlan_vid":
            return self.tags[0] | _VLAN_PRESENT if self.tags else 0
        if self.hidden and not name.startswith(("eth_src", "eth_dst")):
            return _TAG if name == "eth_type" else None
        if name in self.fields:
            return self.fields[name]
        if name.startswith(_UNTRACKED) or name == "vlan_pcp":
            return 0
        if name not in FIELDS:
            raise _UnmodelledError(f"a match on {name}, a field that is not known")
        return None

    def meets(self, match: Match) -> bool:
        return all(map(self._has, match.terms))

    def _has(self, term: Term) -> bool:
        fld, value, mask = term
        have = self.read(fld.name)
        return have is not None and have & (fld.full if mask is None else mask) == value

    def write(self, fld: Field, value: int, mask: int) -> None:
        name = fld.name
        old = self.read(name)
        if old is None:
            raise _UnmodelledError(f"writes {name} into a packet that has none")
        new = old & ~mask | value & mask
        if name.startswith(_WIDE):
            self.meta |= {part: new >> shift & 0xFFFFFFFF for part, shift in _words(name)}
        elif name.startswith(_SWITCHS_OWN):
            self.meta["in_port" if name.startswith("in_port") else name] = new
        elif name == "vlan_vid":
            if not self.tags or not new & _VLAN_PRESENT:
                raise _UnmodelledError("writes a VLAN into a packet without a tag")
            self.tags[0] = new & 0xFFF
        else:
            self.fields[name] = new
            if name == "nd_options_type" and new in _OTHER_OPTION:  # the packet's one option becomes the other one
                self.fields.setdefault(_OTHER_OPTION[new], self.fields.pop(_OTHER_OPTION[3 - new], 0))

    def copy(self) -> _Packet:
        return _Packet(dict(self.fields), list(self.tags), dict(self.meta), self.hidden, self.size)


class _Walk:
    """One packet's walk."""

    def __init__(self, tables: Tables, packet: _Packet) -> None:
        self._tables = tables
        self._packet = packet
        self.done = Run()

    def table(self, table: int, depth: int, parent: int) -> None:
        """Look up in a table, and in those that flows go on to."""
        to: int | None = table
        while to is not None:
            number = len(self.done.steps)
            to = self._lookup(to, depth, parent)
            parent = number

    def _lookup(self, table: int, depth: int, parent: int) -> int | None:
        """Do what the flow of a table says; gives the table that it goes on to."""
        number = len(self.done.steps)
        if number >= _RESUBMITS or depth > _DEPTH:
            raise _UnmodelledError("more resubmits than Open vSwitch does")
        meta = dict(self._packet.meta)
        self.done.steps.append(Step(table, depth, parent, meta, None))
        flow = self._tables.lookup(table, self._packet)
        self.done.steps[number] = Step(table, depth, parent, meta, flow)
        if flow is None:
            return None
        for action in flow.actions:
            self._do(action, number)
        return flow.goto

    def _do(self, action: act.Action, step: int) -> None:
        packet = self._packet
        match action:
            case act.Output(port=port):
                self._output(port, step)
            case act.OutputReg(field=fld, start=start, n_bits=n_bits):
                self._output(self._bits(fld, start, n_bits), step)
            case act.SetField(field=fld, value=value, mask=mask):
                packet.write(fld, value, fld.full if mask is None else mask)
            case act.CopyField(src=src, src_ofs=src_ofs, dst=dst, dst_ofs=dst_ofs, n_bits=n_bits):
                packet.write(dst, self._bits(src, src_ofs, n_bits) << dst_ofs, (1 << n_bits) - 1 << dst_ofs)
            case act.CheckPktLarger(pkt_len=most, dst=fld, dst_ofs=bit):
                larger = packet.size + _TAG_BYTES * len(packet.tags) > most
                packet.write(fld, larger << bit, 1 << bit)
            case act.PushVlan():
                packet.tags.insert(0, 0)
            case act.PopVlan():
                del packet.tags[:1]
            case act.DecNwTtl():
                if (ttl := packet.read("nw_ttl") or 0) <= 1:
                    raise _UnmodelledError("a packet whose TTL is over")
                packet.write(FIELDS["nw_ttl"], ttl - 1, FIELDS["nw_ttl"].full)
            case act.Resubmit(table=table, in_port=act.TO_IN_PORT):
                self.table(table, self.done.steps[step].depth + 1, step)
            case Learn():
                self._learn(action)
            case act.Group(group_id=group_id):
                self._group(self._tables.group(group_id), step)
            case act.Clone(actions=actions):
                self._on_a_copy(actions, step)
            case act.Controller():
                self._output(CONTROLLER, step)
            case act.Meter() | act.Note():
                pass  # a meter lets through what stays below its rate
            case _:
                raise _UnmodelledError(f"action {action.text()}")

    def _bits(self, fld: Field, start: int, n_bits: int) -> int:
        have = self._packet.read(fld.name)
        if have is None:
            raise _UnmodelledError(f"reads {fld.name} from a packet that has none")
        return have >> start & (1 << n_bits) - 1

    def _output(self, port: int, step: int) -> None:
        packet = self._packet
        if port == packet.meta["in_port"]:
            return
        if port == _IN_PORT:
            port = packet.meta["in_port"]
        elif port in PORTS and port not in {CONTROLLER, _LOCAL}:
            raise _UnmodelledError(f"output to {PORTS[port]}")
        frame = Frame(dict(packet.fields), tuple(packet.tags), packet.size)
        self.done.sent.append(Sent(port, frame, dict(packet.meta), step))

    def _group(self, group: GroupDesc, step: int) -> None:
        if group.kind not in {"all", "indirect"}:
            raise _UnmodelledError(f"group {group.group_id} ({group.kind}), which chooses a bucket")
        for bucket in group.buckets:
            self._on_a_copy(bucket.actions, step)

    def _on_a_copy(self, actions: Iterable[act.Action], step: int) -> None:
        before, self._packet = self._packet, self._packet.copy()
        for action in actions:
            self._do(action, step)
        self._packet = before

    def _learn(self, learn: Learn) -> None:
        terms: list[Term] = []
        then: list[act.Action] = []
        for spec in learn.specs:
            source = spec.src
            value = source if isinstance(source, int) else self._bits(source, spec.src_ofs, spec.n_bits)
            if spec.dst is None:
                then.append(act.Output(value))
                continue
            mask = (1 << spec.n_bits) - 1 << spec.dst_ofs
            if spec.kind == "match":
                terms.append((spec.dst, value << spec.dst_ofs, None if mask == spec.dst.full else mask))
            else:
                then.append(act.SetField(spec.dst, value << spec.dst_ofs, mask))
        flow = FlowDesc(
            learn.table, learn.priority, learn.cookie, Match.build(terms), tuple(then), None, learn.idle_timeout,
            learn.hard_timeout,
        )  # fmt: skip
        room = self._tables.has_room(flow, learn.limit)
        if room:
            self._tables.put(flow)
            self.done.learned.append(flow)
        if learn.result is not None:
            fld, bit = learn.result
            self._packet.write(fld, int(room) << bit, 1 << bit)


def _rank(flow: FlowDesc) -> int:
    return -flow.priority
