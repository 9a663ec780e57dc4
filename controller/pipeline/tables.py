"""Stages, tables and flows: the order in which a packet walks, and what it meets there.

A stage is a place in the walk; a table belongs to a stage. An app declares its tables and says where a packet goes
next by stage, so a feature that is not there leaves no hole.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from controller.openflow.match import Match


class Stage(IntEnum):
    """In the order of the walk. Tables of one stage stand in the order in which apps declare them."""

    CLASSIFY = 0
    SPOOF_GUARD = 1
    EGRESS_POLICY = 2
    SERVICES = 3
    TRANSLATE_IN = 4
    ROUTE = 5
    TRANSLATE_OUT = 6
    FORWARD = 7
    FLOOD = 8
    INGRESS_POLICY = 9
    DELIVER = 10


class Priority(IntEnum):
    """Bands: the more particular stands above the more general."""

    MISS = 0
    FALLBACK = 50
    ANYWHERE = 100  # wherever in the fleet it is
    HERE = 200  # on this host, which knows better
    EXCEPTION = 300  # a port that goes another way altogether
    FORBIDDEN = 400  # from nobody, whatever its port


@dataclass(frozen=True, slots=True)
class Drop:
    """What a table does with a packet that no flow of it wants."""


DROP = Drop()


@dataclass(frozen=True, slots=True)
class Next:
    """The table behind this one, whichever that is."""


NEXT = Next()


class Action(Protocol):
    """An action of the codec, or one of the pipeline's own that names a table (see actions.py)."""


@dataclass(frozen=True, slots=True)
class Table:
    """One OpenFlow table. ``miss`` is what happens when nothing matches: DROP, NEXT, a stage, or a later table.

    ``learned``: the switch writes flows of its own into it.
    """

    name: str
    stage: Stage
    miss: Drop | Next | Stage | Table
    about: str
    learned: bool = False

    def flow(self, priority: int, match: Match, *actions: Action, why: str) -> Flow:
        """A flow of this table; no action at all drops."""
        return Flow(self, priority, match, actions, why)


@dataclass(frozen=True, slots=True)
class Flow:
    """What an app wants a switch to have. ``why`` is one plain sentence for the operator.

    Our flows have no timeouts: guests keep talking while the controller is away.
    """

    table: Table
    priority: int
    match: Match
    actions: tuple[Action, ...]
    why: str


# The spine, which several apps write to.
CLASSIFY = Table("classify", Stage.CLASSIFY, DROP, "who sent this: sets segment and source, strips the tag")
GATEWAY = Table("gateway", Stage.SERVICES, NEXT, "what is for the gateway: answered here, or by the controller")
ICMP_ERROR = Table("icmp_error", Stage.ROUTE, DROP, "cannot be routed: the controller tells the vNIC that sent it")
OVERSIZED = Table("oversized", Stage.ROUTE, NEXT, "larger than fits where it goes: the controller tells its sender")
NAT_OUT = Table("nat_out", Stage.TRANSLATE_OUT, DROP, "to the outside: the connection is looked up")
HOP = Table("next_hop", Stage.TRANSLATE_OUT, DROP, "the MAC of the next hop outside")
HOP_KNOWN = Table("next_hop_known", Stage.TRANSLATE_OUT, DROP, "on when the next hop is known; else it is asked for")
ERROR_IN = Table(
    "error_in",
    Stage.TRANSLATE_OUT,
    DROP,
    "ICMP errors for floating addresses: the controller translates what they quote",
)
ERROR_OUT = Table("error_out", Stage.TRANSLATE_OUT, DROP, "ICMP errors of guests with floating addresses: likewise")
FORWARD = Table("forward", Stage.FORWARD, Stage.FLOOD, "segment and destination MAC: where it leaves")
LEARNED = Table(
    "learned",
    Stage.FORWARD,
    DROP,
    "written by the switch itself: MAC addresses behind uplinks and learning vNICs",
    learned=True,
)
ARRIVED = Table(
    "arrived",
    Stage.DELIVER,
    DROP,
    "written by the switch itself: places that migrating guests have come to",
    learned=True,
)
DELIVER = Table("deliver", Stage.DELIVER, DROP, "tags as the port wants it, and out")
