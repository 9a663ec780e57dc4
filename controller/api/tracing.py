"""What the face asks of a trace, and what it is told: values alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Owner = Literal["fleetswitch", "learned", "foreign"]
Protocol = Literal["icmp", "tcp", "udp", "arp"]
Outcome = Literal["delivered", "answered", "dropped", "not sent", "unknown"]


@dataclass(frozen=True, slots=True)
class Question:
    """A packet to follow. ``source`` and ``target``: a guest, a Port, a MAC, an address, or ``outside``.

    ``port`` is the TCP or UDP port that it is for, ``from_port`` the one that it comes from. With ``ipv6`` ``arp`` is a
    neighbour solicitation. ``vlan`` is the tag that the guest itself puts on. ``from_address``, ``from_mac`` and
    ``to_mac`` say what else than its own the packet carries.
    """

    source: str
    target: str
    protocol: Protocol = "icmp"
    port: int = 0
    from_port: int = 49152  # RFC 6335, 6: the first of the dynamic ports
    ipv6: bool = False
    vlan: int | None = None
    from_address: str = ""
    from_mac: str = ""
    to_mac: str = ""


@dataclass(frozen=True, slots=True)
class TraceStep:
    """One table that the packet was looked up in, and the flow that decided; texts are empty where none matched.

    ``depth`` counts the look-ups that come back; ``leads`` says that this step is on the way of the copy that counts.
    """

    table: str
    depth: int
    leads: bool
    priority: int
    match: str
    actions: str
    cookie: str
    owner: Owner | Literal[""]
    app: str
    source: str
    why: str


@dataclass(frozen=True, slots=True)
class Hop:
    """The packet on one host: where it came in, its way through the tables, and where copies of it went.

    ``learned`` are flows that it would write. ``unknown`` says what could not be modelled, or why the flows could not
    be read.
    """

    host: str
    entered: str
    packet: str
    steps: list[TraceStep]
    sent: list[str]
    learned: list[str]
    unknown: str


@dataclass(frozen=True, slots=True)
class Trace:
    """A packet's way. ``assumed`` is what was taken for granted; ``verdict`` is the one sentence that counts.

    ``delivered`` are all places that a copy came to, ``HOST/INTERFACE`` or a physical network.
    """

    source: str
    target: str
    packet: str
    assumed: list[str]
    hops: list[Hop]
    outcome: Outcome
    verdict: str
    delivered: list[str]
