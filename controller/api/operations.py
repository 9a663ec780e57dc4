"""What the face asks of the controller: one protocol, and the values that travel through it.

Everything behind HTTP and the command line goes through ``Operations``; the face knows nothing else of the controller.
Errors are those of ``controller.errors``.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from controller.api.exposition import Sample
from controller.api.inspection import Inspections
from controller.history import EventFilter, Found
from controller.model.documents import Document

if TYPE_CHECKING:  # networkx takes its time to load, and the command line reads this module
    from topology.graph.topology import Topology

Action = Literal["created", "changed", "unchanged", "deleted"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one object. ``diff`` is a unified diff of its YAML, empty when nothing changed."""

    kind: str
    name: str
    action: Action
    diff: str


@dataclass(frozen=True, slots=True)
class Applied:
    """A change that is stored. ``sequence`` is what ``Operations.wait`` asks for; 0 for a dry run."""

    outcomes: tuple[Outcome, ...]
    sequence: int


@dataclass(frozen=True, slots=True)
class Listing:
    """Documents of one moment, and the change of the store that they are as of."""

    documents: list[dict[str, Any]]
    sequence: int


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """One connection of one host that has not confirmed a change, and why."""

    host: str
    what: Literal["openflow", "ovsdb", "libvirt"]
    reason: str


@dataclass(frozen=True, slots=True)
class Trouble:
    """One connection of one host that cannot do all that it should, and could not before the change either."""

    host: str
    what: Literal["openflow", "ovsdb", "libvirt"]
    reason: str


@dataclass(frozen=True, slots=True)
class UnknownSwitch:
    """A switch that connected and was turned away. ``datapath_id`` is null for one that did not get as far as telling
    it, ``host`` the Host whose datapath id it claims. ``since`` and ``last`` are times (RFC 3339) of the first and the
    last attempt, ``attempts`` how many there were; ``remedy`` is what to type."""

    datapath_id: str | None
    address: str
    host: str | None
    reason: str
    since: str
    last: str
    attempts: int
    remedy: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is to be told of the fleet. An ``error`` keeps somebody from talking or from being driven, a
    ``warning`` may, ``info`` is good to know. ``check`` says what was looked at, ``remedy`` what to do or to type."""

    severity: Literal["error", "warning", "info"]
    check: str
    place: str
    what: str
    remedy: str
    host: str | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """``live``: the process works. ``ready``: it drives its hosts; ``reasons`` say what is missing."""

    live: bool
    ready: bool
    reasons: tuple[str, ...]
    version: str


@dataclass(frozen=True, slots=True)
class HostNetwork:
    """A libvirt network of one host that is none of fleetswitch's."""

    host: str
    name: str
    uuid: str


class Operations(Inspections, Protocol):
    """The controller as the face sees it. Every method runs on the controller's asyncio loop."""

    async def apply(self, documents: Sequence[Document], dry_run: bool) -> Applied:
        """Make these objects as described, all or none.

        Without documents nothing changes, and ``sequence`` is that of the last change.
        Raises InvalidInput, Conflict, StoreError.
        """

    async def delete(
        self, targets: Sequence[tuple[str, str]], generation: int | None, force: bool, dry_run: bool
    ) -> Applied:
        """Delete objects by (kind, name), all or none.

        Raises NotFound, Conflict, InvalidInput (still in use: names by whom), StoreError.
        """

    async def wait(self, sequence: int, seconds: float, since: int | None = None) -> tuple[Unconfirmed, ...]:
        """Wait until every switch has confirmed the change; empty when all did.

        What was wrong with a host before the change ``since`` already is no matter; by default this change.
        """

    async def troubles(self, since: int) -> tuple[Trouble, ...]:
        """What was wrong with hosts before this change already, and is so still."""

    async def list(self, kind: str) -> Listing:
        """All objects of a kind as flat documents (kind, name, fields, generation, status), sorted by name."""

    async def get(self, kind: str, name: str) -> dict[str, Any]:
        """One such document. Raises NotFound."""

    async def network_xml(self, host: str, name: str) -> str:
        """A network of a host's libvirt, as it is defined there. Raises NotFound, HostError."""

    async def foreign_networks(self, name: str, uuid: str) -> builtins.list[HostNetwork]:
        """Networks of hosts that have this name or UUID, and are none of fleetswitch's; as last read."""

    async def unknown_switches(self) -> builtins.list[UnknownSwitch]:
        """Who was turned away at the OpenFlow port, the latest first; at most some hundred."""

    async def events(self, wanted: EventFilter, seconds: float) -> Found:
        """What happened, the oldest first; where nothing did, the first that comes within these seconds."""

    async def doctor(self, host: str | None) -> builtins.list[Finding]:
        """What is wrong in the fleet, or with one host; the worst first. Raises NotFound."""

    async def topology(self) -> Topology:
        """The fleet as a graph, all of one moment; a value that may be read in any thread."""

    async def metrics(self) -> builtins.list[Sample]:
        """What it says of itself and its hosts in numbers; no host is asked."""

    async def health(self) -> Health:
        """How the controller does."""
