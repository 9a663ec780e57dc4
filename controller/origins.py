"""What caused a host's flows, and which flows have to do with a network, a guest or a port."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from controller.engine import Block, Engine
from controller.openflow.actions import Action, Output, SetField
from controller.openflow.decode_flow import FlowDesc
from controller.openflow.match import Term
from controller.pipeline.app import BlockId, Scope
from controller.pipeline.fields import OUT, SEGMENT, RegisterField
from controller.pipeline.pipeline import Entry

Identity = tuple[int, int]

_OF_PORTS = frozenset({Scope.PORT, Scope.LOCAL, Scope.REGISTRATION})
_OF_NETWORKS = frozenset({Scope.NETWORK, Scope.MEMBER})


@dataclass(frozen=True, slots=True)
class Origin:
    """The block that a flow came from, and why it is there."""

    block: BlockId
    why: str

    @property
    def row(self) -> tuple[str, str]:
        """Kind and name of the row that caused it; empty where every row did."""
        if self.block.scope is Scope.FLEET:
            return "", ""
        if self.block.scope in {Scope.HOST, Scope.PEER}:
            return "Host", self.block.objects[0]
        if self.block.scope is Scope.FORWARD:
            return "PortForward", self.block.objects[0]
        name = self.block.objects[0].partition("@")[0]  # behind it stands the place that a vNIC is being copied to
        return "Port" if self.block.scope in _OF_PORTS else "Network", name


Blocks = Sequence[tuple[BlockId, Block]]


def blocks_of(engine: Engine) -> Blocks:
    """All blocks as they are now. To look at each takes tens of milliseconds in a large fleet: that is for a thread."""
    return list(engine.blocks.items())


def origins_on(blocks: Blocks, host: str) -> Mapping[Identity, Origin]:
    """What caused each flow that the host should have."""
    return {
        entry.identity: Origin(block, why)
        for block, content in blocks
        if host in content.hosts
        for why, entry in zip(content.whys, content.entries, strict=True)
    }


def causes_of(blocks: Blocks, cookie: int) -> list[tuple[Origin, Entry, frozenset[str]]]:
    """Every block that wants a flow with this cookie, that flow, and the hosts where it is wanted."""
    return [
        (Origin(block, why), entry, content.hosts)
        for block, content in blocks
        for why, entry in zip(content.whys, content.entries, strict=True)
        if entry.cookie == cookie
    ]


@dataclass(frozen=True, slots=True)
class Concern:
    """What somebody asks about: rows, and the numbers by which flows of one host name them."""

    networks: frozenset[str] = frozenset()
    ports: frozenset[str] = frozenset()
    segments: frozenset[int] = frozenset()
    macs: frozenset[int] = frozenset()
    ofports: frozenset[int] = frozenset()

    def takes(self, flow: FlowDesc, origin: Origin | None) -> bool:
        """Whether one of the rows caused the flow, or the flow names one of the numbers."""
        if origin is not None:
            _, name = origin.row
            if origin.block.scope in _OF_PORTS and name in self.ports:
                return True
            if origin.block.scope in _OF_NETWORKS and name in self.networks:
                return True
        return any(map(self._in_term, flow.match.terms)) or any(map(self._in_action, flow.actions))

    def _in_term(self, term: Term) -> bool:
        field, value, mask = term
        if field.name == "in_port":
            return value in self.ofports
        if field.kind == "mac":
            return mask is None and value in self.macs
        full = field.full if mask is None else mask
        return _has(SEGMENT, field.name, value, full, self.segments) or _has(OUT, field.name, value, full, self.ofports)

    def _in_action(self, action: Action) -> bool:
        match action:
            case Output(port=port):
                return port in self.ofports
            case SetField(field=field, value=value, mask=mask):
                return self._in_term((field, value, mask))
        return False


def _has(register: RegisterField, name: str, value: int, mask: int, numbers: frozenset[int]) -> bool:
    exact = name == register.oxm and mask & register.mask == register.mask
    return exact and (value & register.mask) >> register.start in numbers
