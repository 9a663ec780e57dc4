"""One host's flows as people read them: each with its row and its reason, what is missing, what is too much."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from controller.api.inspection import FlowFilter, FlowInfo
from controller.api.tracing import Owner
from controller.errors import OpenFlowError
from controller.openflow.actions import instructions_text
from controller.openflow.decode import scan_flows
from controller.openflow.decode_flow import FlowDesc, decode_flow_desc
from controller.origins import Concern, Identity, Origin
from controller.pipeline.app import BlockId
from controller.pipeline.cookies import arrived_port, is_learned, is_own
from controller.pipeline.names import PipelineNames
from controller.pipeline.pipeline import Entry

MOST_FLOWS = 200_000  # some 50 us each, and 5 KB while they are told


@dataclass(frozen=True, slots=True)
class View:
    """All that is needed to tell of one host's flows, taken from the rows at one moment."""

    host: str
    names: PipelineNames
    origins: Mapping[Identity, Origin]
    called: Mapping[BlockId, str]
    wanted: Mapping[Identity, Entry]
    refused: Mapping[Identity, str]

    def info(self, flow: FlowDesc, raw: bool = False, missing: bool = False) -> FlowInfo:
        """A flow as people read it."""
        identity = flow.table, flow.cookie
        owner = owner_of(flow.cookie)
        origin = self.origins.get(identity)
        app, source, why, kind, name = "", "", "", "", ""
        if origin is not None:
            app, source, why = origin.block.app, self.called[origin.block], origin.why
            kind, name = origin.row
        elif owner == "learned":
            arrival = arrived_port(flow.cookie) is not None
            app = "migration" if arrival else "l2"
            why = "a migrating guest has sent from there" if arrival else "learned from a frame that came in there"
        note = ""
        if missing:
            refusal = self.refused.get(identity)
            note = f"the switch refuses it: {refusal}" if refusal else "the switch has not confirmed it yet"
        return FlowInfo(
            table=self.names.table(flow.table), priority=flow.priority, match=flow.match.text(self.names),
            actions=instructions_text(flow.actions, flow.goto, self.names), cookie=f"{flow.cookie:#x}",
            packets=flow.packets, bytes=flow.bytes, duration=flow.duration_s, owner=owner, app=app, source=source,
            why=why, kind=kind, name=name, host=self.host, note=note, raw=flow.text() if raw else "",
            state="missing" if missing else "installed" if owner == "learned" or identity in self.wanted else "extra",
        )  # fmt: skip

    def missing(self, found: Iterable[FlowDesc]) -> list[FlowDesc]:
        """What the host should have and is not among these."""
        there = {(flow.table, flow.cookie) for flow in found}
        return [entry.described() for identity, entry in self.wanted.items() if identity not in there]


def decode(body: bytes) -> list[FlowDesc]:
    """The flows of a reply. Raises OpenFlowError for more than anybody would read."""
    count = len(scan_flows(body))
    if count > MOST_FLOWS:
        remedy = "name a --table or a --cookie; ovs-ofctl dump-flows on the host shows all"
        raise OpenFlowError(f"{count} flows are too many to be read at once", remedy=remedy)
    return decode_flow_desc(body)


def owner_of(cookie: int) -> Owner:
    """Whose a flow is."""
    return "fleetswitch" if is_own(cookie) else "learned" if is_learned(cookie) else "foreign"


def told(view: View, body: bytes, wanted: FlowFilter, concern: Concern | None) -> list[FlowInfo]:
    """The flows of a reply that the filter lets through. Runs beside the loop: thousands of flows take their time."""
    found, missing = decode(body), wanted.state == "missing"
    if missing:
        found = view.missing(found)
    shown = []
    for flow in found:
        if concern is not None and not concern.takes(flow, view.origins.get((flow.table, flow.cookie))):
            continue
        info = view.info(flow, wanted.raw, missing)
        if wanted.takes(info):
            shown.append((flow.table, -flow.priority, info.match, info))
    # A switch gives those of one priority in another order each time.
    return [info for *_, info in sorted(shown, key=lambda each: each[:3])]
