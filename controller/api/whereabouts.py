"""Who is where and how busy: the values of ``fdb`` and ``top``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Unread:
    """A host whose switch did not answer, and why: what it knows is missing."""

    host: str
    reason: str


@dataclass(frozen=True, slots=True)
class FdbEntry:
    """A MAC in a network. A ``vnic`` is known from its row and never learned; ``learned`` was learned by that host's
    switch from a frame that came in at ``port``: an interface, a physical network or ``tunnel to HOST``.

    ``vlan`` is 0 for the untagged one; a vNIC in several VLANs has an entry for each. ``state`` is a vNIC's. ``age`` is
    seconds since it was learned, ``packets`` how many were sent there by that flow; null for vNICs.
    """

    mac: str
    vlan: int
    kind: Literal["vnic", "learned"]
    host: str | None
    port: str | None
    ofport: int | None
    vm: str | None
    addresses: list[str]
    state: str
    age: float | None = None
    packets: int | None = None


@dataclass(frozen=True, slots=True)
class Fdb:
    """Everybody who is known in a network, by VLAN and MAC. ``left_out`` counts entries beyond what is told at once."""

    network: str
    entries: list[FdbEntry]
    unread: list[Unread]
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class LeaseInfo:
    """An address that somebody has by DHCP. ``name`` is what the client calls itself, or is called by its reservation;
    ``expires`` is RFC 3339. A ``declined`` address is one at which its client found somebody else: nobody gets it."""

    address: str
    mac: str
    name: str
    vm: str | None
    host: str | None
    state: Literal["leased", "ended", "declined"]
    expires: str


@dataclass(frozen=True, slots=True)
class PortCounters:
    """What one port of an integration bridge has met since it was plugged in, as the switch counts it: ``sent`` is what
    a guest sent, ``received`` what was sent to it, dropped packets of either direction not among them.

    ``kind``: ``vnic``, ``uplink``, ``tunnel`` or ``other``; ``name`` is a vNIC's Port.
    """

    host: str
    interface: str
    ofport: int
    kind: Literal["vnic", "uplink", "tunnel", "other"]
    name: str | None
    vm: str | None
    mac: str | None
    network: str | None
    sent_packets: int
    sent_bytes: int
    received_packets: int
    received_bytes: int
    sent_dropped: int
    received_dropped: int


@dataclass(frozen=True, slots=True)
class Counters:
    """The counters of all ports, and ``time``: seconds of a clock of the controller, for rates between two."""

    time: float
    ports: list[PortCounters]
    unread: list[Unread]
