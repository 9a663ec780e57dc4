"""Flows in plain sentences: what one takes, and what it does with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from controller.openflow.actions import (
    NO_BUFFER,
    Action,
    CheckPktLarger,
    Controller,
    CopyField,
    DecNwTtl,
    Output,
    PopVlan,
    Resubmit,
    SetField,
)
from controller.openflow.conntrack import NO_TABLE, Ct, Nat
from controller.openflow.decode_flow import FlowDesc
from controller.openflow.learn import Learn
from controller.openflow.match import Match, Term
from controller.openflow.names import CONTROLLER
from controller.openflow.oxm import FIELDS, Field
from controller.pipeline.fields import (
    ISOLATED,
    NEXT_HOP,
    NEXT_HOP6,
    OUT,
    PEER,
    PRIVATE,
    REGISTER_FIELDS,
    SEGMENT,
    SOURCE,
    RegisterField,
)
from controller.pipeline.names import PipelineNames

_VLAN_PRESENT = 0x1000
_BROADCAST = 0xFFFFFFFFFFFF
_GROUP_BIT = 1 << 40  # of a MAC address: IEEE 802-2014, 8.2.2
_SOURCES = {0: "nobody yet", 1: "a vNIC", 2: "an uplink", 3: "a tunnel", 4: "the switch itself", 5: "the outside"}
_ETHERTYPES = {
    0x0806: "ARP",
    0x0800: "IPv4",
    0x86DD: "IPv6",
    0x8035: "RARP",
    0x88CC: "LLDP",
    0x8100: "a second VLAN tag",
}
_VLAN = FIELDS["vlan_vid"]
_REGISTERS = ("reg", "xxreg")


@dataclass(frozen=True, slots=True)
class Words:
    """What numbers mean in this fleet: ``segments`` and ``hosts`` by their number, ``tables`` what each is for."""

    names: PipelineNames
    segments: Mapping[int, str] = field(default_factory=dict)
    hosts: Mapping[int, str] = field(default_factory=dict)
    tables: Mapping[str, str] = field(default_factory=dict)

    def sentences(self, flow: FlowDesc) -> list[str]:
        """What the flow does, a sentence each for where, which packets, and what with them."""
        table = self.names.table(flow.table)
        about = f", which is for: {self.tables[table]}" if self.tables.get(table) else ""
        return [
            f"It stands in table {table}{about}.",
            f"It takes {self.condition(flow.match)}.",
            f"It {self.doing(flow.actions, flow.goto)}.",
        ]

    def condition(self, match: Match) -> str:
        """Which packets, such as ``packets of segment 4 (web) to 52:54:00:00:10:12``."""
        parts: list[str] = []
        rest: list[Term] = []
        for term in match.terms:
            told = list(self._term(*term))
            parts += told
            if not told:
                rest.append(term)
        if rest:
            parts.append(f"with {Match(tuple(rest)).text(self.names)}")
        return "packets " + ", ".join(parts) if parts else "every packet that no flow above it wants"

    def doing(self, actions: Sequence[Action], goto: int | None) -> str:
        """What happens to them, as verbs: ``sets segment to 4 (web), and goes on to table forward``."""
        told = [part for action in actions for part in self._action(action)]
        if goto is not None:
            told.append(f"hands them on to table {self.names.table(goto)}")
        if not told:
            return "drops them"
        return told[0] if len(told) == 1 else f"{', '.join(told[:-1])}, and {told[-1]}"

    def register(self, register: RegisterField, value: int) -> str:
        """The value of a register field, with what it means."""
        match register.name:
            case SEGMENT.name if value in self.segments:
                return f"{value} ({self.segments[value]})"
            case PEER.name if value in self.hosts:
                return f"{value} (host {self.hosts[value]})"
            case OUT.name if value:
                return self.names.port(value)
            case NEXT_HOP.name:
                return str(IPv4Address(value))
            case NEXT_HOP6.name:
                return str(IPv6Address(value))
            case SOURCE.name:
                return f"{value} ({_SOURCES.get(value, 'unknown')})"
        return str(value)

    def _term(self, fld: Field, value: int, mask: int | None) -> Iterator[str]:
        full = fld.full if mask is None else mask
        if fld.name.startswith(_REGISTERS):
            yield from self._registers(fld, value, full)
        elif fld.name == "in_port":
            yield f"that come in by {self.names.port(value)}"
        elif fld is _VLAN and mask is None:
            vlan = value & 0xFFF
            yield (f"with VLAN tag {vlan}" if vlan else "with a tag of no VLAN") if value else "without a VLAN tag"
        elif fld.name in {"eth_src", "eth_dst"}:
            yield f"{'from' if fld.name == 'eth_src' else 'to'} {_mac(value, full)}"
        elif fld.name == "eth_type" and value in _ETHERTYPES:
            yield f"that carry {_ETHERTYPES[value]}"
        elif fld.name in {"tun_ipv4_src", "tun_ipv6_src"} and mask is None:
            yield f"out of a tunnel from {Match(((fld, value, None),)).text().partition('=')[2]}"

    def _registers(self, fld: Field, value: int, mask: int) -> Iterator[str]:
        for register in REGISTER_FIELDS.values():
            if register.oxm != fld.name or register.mask & mask != register.mask:
                continue
            number = (value & register.mask) >> register.start
            match register.name:
                case SOURCE.name:
                    yield f"that came from {_SOURCES.get(number, 'an unknown source')}"
                case ISOLATED.name | PRIVATE.name:
                    yield f"{'from' if number else 'not from'} {_article(register.name)} vNIC"
                case OUT.name:
                    yield f"on their way out by {self.names.port(number)}" if number else "whose way out is not known"
                case PEER.name:
                    yield f"for host {self.hosts.get(number, str(number))}"
                case _:
                    yield f"of {register.name} {self.register(register, number)}"

    def _action(self, action: Action) -> Iterator[str]:
        match action:
            case Output(port=port, max_len=length) if port == CONTROLLER:
                yield f"sends the first {length} bytes of them to the controller"
            case Controller(max_len=length):
                yield f"sends {'all' if length == NO_BUFFER else f'the first {length} bytes'} of them to the controller"
            case Output(port=port):
                yield f"sends them out by {self.names.port(port)}"
            case Resubmit(table=table):
                yield f"looks them up in table {self.names.table(table)} and comes back"
            case Learn(table=table):
                yield f"remembers their sender in table {self.names.table(table)}"
            case Ct(table=table, actions=inner, commit=commit):
                yield "has the connection tracker remember them" if commit else "looks up their connection"
                for each in inner:
                    if isinstance(each, Nat) and each.kind is not None:
                        end = "source" if each.kind == "src" else "destination"
                        yield f"gives them the {end} {each.addr_min}"
                    elif isinstance(each, Nat):
                        yield "translates their addresses as their connection's first packet's were"
                if table != NO_TABLE:
                    yield f"hands them on to table {self.names.table(table)}"
            case CheckPktLarger(pkt_len=length):
                place = action.text(self.names).rpartition("->")[2]
                yield f"notes in {place} whether they are longer than {length} bytes"
            case DecNwTtl():
                yield "counts down their TTL"
            case PopVlan():
                yield "takes the tag off"
            case SetField(field=fld, value=value) if fld is _VLAN and value & _VLAN_PRESENT:
                yield f"writes VLAN {value & 0xFFF} into the tag"
            case SetField(field=fld, value=value, mask=mask) if fld.name.startswith(_REGISTERS):
                known = list(_written(fld, value, fld.full if mask is None else mask))
                if not known:
                    yield f"does {action.text(self.names)}"
                for register, number in known:
                    yield f"sets {register.name} to {self.register(register, number)}"
            case SetField(field=fld):
                yield f"sets {fld.ovs_name} to {action.text(self.names)[10:].partition('->')[0]}"
            case CopyField():
                source, _, target = action.text(self.names)[5:].partition("->")
                yield f"copies {source} into {target}"
            case _:
                yield f"does {action.text(self.names)}"


def _written(fld: Field, value: int, mask: int) -> Iterator[tuple[RegisterField, int]]:
    """Register fields that a load into a register writes, when it writes nothing else."""
    found = [r for r in REGISTER_FIELDS.values() if r.oxm == fld.name and r.mask & mask == r.mask]
    if sum(register.mask for register in found) == mask:
        yield from ((register, (value & register.mask) >> register.start) for register in found)


def _mac(value: int, mask: int) -> str:
    if mask == _GROUP_BIT:
        return "a group's MAC" if value else "a single one's MAC"
    text = value.to_bytes(6, "big").hex(":")
    if mask != _BROADCAST:
        return f"{text}/{mask.to_bytes(6, 'big').hex(':')}"
    return "everybody" if value == _BROADCAST else text


def _article(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"
