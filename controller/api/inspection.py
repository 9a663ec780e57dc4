"""What the face asks of the switches: flows, why they are there, groups and meters; and the values that travel.

Everything here reads. What a switch has is read when it is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from controller.api.tracing import Owner, Question, Trace
from controller.api.whereabouts import Counters, Fdb, LeaseInfo

FlowState = Literal["installed", "extra", "missing"]


@dataclass(frozen=True, slots=True)
class FlowInfo:
    """One flow as the switch has it now. ``cookie`` is ``0x…``, ``duration`` seconds.

    ``owner`` says whether fleetswitch installed it, a learn action did, or somebody else; ``app``, ``source`` (the row
    that caused it, such as ``Network web``; ``kind`` and ``name`` are that row's) and ``why`` are empty for flows that
    are not fleetswitch's. ``state``: ``installed`` is as it should be, ``extra`` is what no row wants, ``missing`` is
    wanted and not there, and ``note`` says why. Rates are per second, null without two readings. ``raw`` is what
    ``ovs-ofctl -O OpenFlow15 add-flow`` takes, empty unless asked for.
    """

    table: str
    priority: int
    match: str
    actions: str
    cookie: str
    packets: int
    bytes: int
    duration: float
    owner: Owner
    app: str
    source: str
    why: str
    kind: str = ""
    name: str = ""
    host: str = ""
    state: FlowState = "installed"
    note: str = ""
    packet_rate: float | None = None
    byte_rate: float | None = None
    raw: str = ""


@dataclass(frozen=True, slots=True)
class FlowFilter:
    """Which flows are wanted; what is empty does not matter.

    ``match`` is a part of the match's text. ``network``, ``guest`` (name or UUID) and ``port`` (name, MAC or
    interface) mean flows that these rows caused, or that name their segment, MAC or OpenFlow port.
    """

    table: str = ""
    app: str = ""
    owner: str = ""
    match: str = ""
    cookie: str = ""
    state: str = ""
    network: str = ""
    guest: str = ""
    port: str = ""
    raw: bool = False

    def takes(self, flow: FlowInfo) -> bool:
        """Whether the flow is wanted, as far as it says that itself."""
        return (
            self.table in {"", flow.table}
            and self.app in {"", flow.app}
            and self.owner in {"", flow.owner}
            and self.cookie in {"", flow.cookie}
            and self.state in {"", flow.state}
            and self.match in flow.match
        )


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a flow is wanted: the block of an app, the row that it was computed for, and where it is wanted.

    ``scope`` says for what the app computes such flows, and where they go.
    """

    app: str
    about: str
    scope: str
    kind: str
    name: str
    source: str
    why: str
    hosts: list[str]


@dataclass(frozen=True, slots=True)
class Placement:
    """A cookie on one host. ``wanted`` is null for what switches learn by themselves. ``installed`` is null where the
    switch cannot be asked, and ``note`` says why.

    ``flows`` counts those with the cookie, ``packets`` and ``bytes`` what all of them have met.
    """

    host: str
    wanted: bool | None
    installed: bool | None
    flows: int
    packets: int
    bytes: int
    note: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """A cookie explained: ``meaning`` in plain sentences. ``flows`` are samples, one of each content."""

    cookie: str
    owner: Owner
    meaning: list[str]
    causes: list[Cause]
    hosts: list[Placement]
    flows: list[FlowInfo]


@dataclass(frozen=True, slots=True)
class GroupInfo:
    """One group; ``users`` are the flows and groups that name it."""

    group_id: int
    type: str
    buckets: list[str]
    packets: int
    bytes: int
    users: int
    duration: float
    raw: str = ""


@dataclass(frozen=True, slots=True)
class MeterInfo:
    """One meter: rates in its ``unit`` (``kbps`` or ``pktps``), ``dropped`` packets, ``users`` that name it."""

    meter_id: int
    unit: str
    rates: list[int]
    bursts: list[int]
    packets: int
    bytes: int
    dropped: int
    users: int
    duration: float
    raw: str = ""


@dataclass(frozen=True, slots=True)
class TableInfo:
    """One table of a host: how many flows, how many packets they met, and how many of those ended there.

    ``dropped`` met a flow that leads nowhere; ``sent`` counts copies that left the switch from here.
    """

    number: int
    name: str
    stage: str
    about: str
    flows: int
    packets: int
    dropped: int
    sent: int


@dataclass(frozen=True, slots=True)
class Arrow:
    """Packets that go from a table to another, to a kind of ports, or from one into the first table.

    ``returns``: a look-up that comes back, one for each copy.
    """

    source: str
    target: str
    packets: int
    returns: bool = False


@dataclass(frozen=True, slots=True)
class TableWalk:
    """A host's tables in their order and what goes between them, by the counters of its flows since each is there.

    ``ports`` are what packets come from and go to: ``vNICs``, physical networks, tunnels.
    """

    host: str
    tables: list[TableInfo]
    ports: list[str]
    arrows: list[Arrow]


class Inspections(Protocol):
    """The switches as the face sees them. Every method runs on the controller's asyncio loop."""

    async def flows(self, host: str, wanted: FlowFilter) -> list[FlowInfo]:
        """The flows of a host, tables in their order. Raises NotFound, InvalidInput, HostError."""

    async def explain(self, cookie: int, host: str | None) -> Explanation:
        """What the flows with this cookie do, why, and where they are. Raises NotFound, HostError."""

    async def fdb(self, network: str) -> Fdb:
        """Everybody who is known in a network, as far as the switches answer. Raises NotFound."""

    async def leases(self, network: str) -> list[LeaseInfo]:
        """The addresses that guests of a network have by DHCP. Raises NotFound."""

    async def counters(self, host: str | None) -> Counters:
        """The counters of every port of every host that answers, or of one host. Raises NotFound."""

    async def groups(self, host: str) -> list[GroupInfo]:
        """The groups of a host's bridge, by number. Raises NotFound, HostError."""

    async def meters(self, host: str) -> list[MeterInfo]:
        """The meters of a host's bridge, by number. Raises NotFound, HostError."""

    async def walk(self, host: str) -> TableWalk:
        """How many packets each table of a host sent to which. Raises NotFound, HostError."""

    async def trace(self, question: Question) -> Trace:
        """Where a packet goes, by the flows that the switches have now. Raises NotFound, InvalidInput."""
