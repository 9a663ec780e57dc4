"""What the topology's queries answer. ``sequence`` is the moment that the answer is of: it counts changes of rows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """A node in an answer. ``state`` is empty for what has none."""

    id: str
    kind: str
    label: str
    state: str


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A neighbour, and what the two have with each other. ``port``: where one hears the other by LLDP, the device's."""

    relation: str
    place: Place
    port: str | None


@dataclass(frozen=True, slots=True)
class Neighbours:
    """All neighbours of a node, by relation and label."""

    sequence: int
    place: Place
    neighbours: tuple[Neighbour, ...]


@dataclass(frozen=True, slots=True)
class Hop:
    """A node on a way, and the relation by which it is reached from the one before (empty for the first)."""

    by: str
    place: Place


@dataclass(frozen=True, slots=True)
class Way:
    """The way between two nodes. Not found: ``reason`` says why. ``network`` and ``vlan`` are the segment that a
    vNIC's frames take; ``remark`` says what the flows forbid all the same."""

    sequence: int
    found: bool
    reason: str
    network: str | None
    vlan: int | None
    remark: str
    hops: tuple[Hop, ...]


@dataclass(frozen=True, slots=True)
class Member:
    """A vNIC of a segment."""

    id: str
    guest: str
    mac: str
    host: str | None
    isolation: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SharedSegment:
    """A segment and all that are in it."""

    network: str
    vlan: int | None
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Shared:
    """The segments of a node's vNICs; ``kept_out`` are those of its vNICs that are in none, with the reason."""

    sequence: int
    place: Place
    segments: tuple[SharedSegment, ...]
    kept_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CutOff:
    """A vNIC that runs on and loses others of its segment: ``peers`` it had, ``left`` it keeps. ``outside``: it loses
    the physical network too."""

    member: Member
    peers: int
    left: int
    outside: bool


@dataclass(frozen=True, slots=True)
class SegmentLoss:
    """What a failure does to a segment: of its ``members``, ``stopped`` run no more, and ``cut`` lose somebody that
    runs on."""

    network: str
    vlan: int | None
    members: int
    stopped: int
    cut: tuple[CutOff, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """What fails with a node: guests that stop, and what becomes of each segment that is concerned."""

    sequence: int
    place: Place
    guests: tuple[Place, ...]
    segments: tuple[SegmentLoss, ...]
