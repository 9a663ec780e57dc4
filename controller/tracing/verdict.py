"""One plain sentence on what became of a packet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from controller.api.inspection import FlowInfo
from controller.api.tracing import Outcome
from controller.engine import PIPELINE
from controller.openflow.execute import Frame, Step
from controller.openflow.oxm import FIELDS, format_value
from controller.pipeline.fields import SOURCE, Source
from controller.tracing.places import Place
from controller.tracing.walk import Leg


@dataclass(frozen=True, slots=True)
class Decision:
    """The flow that ended a packet: on which host, at which step, as which frame."""

    host: str
    table: str
    step: Step
    info: FlowInfo | None


@dataclass(frozen=True, slots=True)
class Facts:
    """What a verdict is made from. ``apart`` says why the two cannot meet at all, empty when they can; ``guards`` are
    the tables that judge what a vNIC sends."""

    source: Place
    target: Place
    legs: Sequence[Leg]
    frame: Frame
    apart: str
    guards: frozenset[str]


def verdict(facts: Facts) -> tuple[Outcome, str]:
    """What became of the packet, and the sentence."""
    source, target = facts.source, facts.target
    if told := _reached(facts):
        return told
    decision = _decision(facts)
    barred = source.trouble or (_guarded(facts, decision) if decision is not None else "")
    if barred:
        return "dropped", barred
    unknown = next((leg for leg in facts.legs if leg.unknown), None)
    if unknown is not None:
        return "unknown", f"it cannot be told: on {unknown.entry.host} {unknown.unknown}"
    if target.trouble:
        return "dropped", target.trouble
    if facts.apart:
        return "dropped", facts.apart
    if decision is not None:
        return "dropped", _ended(decision, target)
    last = facts.legs[-1].entry.host
    return "dropped", f"no copy of it goes from {last} to {target.called}"


def _reached(facts: Facts) -> tuple[Outcome, str] | None:
    source, target = facts.source, facts.target
    for leg in facts.legs:
        for copy in leg.copies:
            place, frame = copy.place, copy.sent.frame
            host = leg.entry.host
            if isinstance(place, Place) and place.port == target.port:
                shown = "".join(f", with VLAN tag {tag}" for tag in frame.tags)
                return "delivered", f"delivered to {target.called} on {host}{shown}"
            if isinstance(place, str) and target.is_outside:
                shown = f"with VLAN tag {frame.tags[0]}" if frame.tags else "untagged"
                return "delivered", f"leaves {host} by its uplink to {place}, {shown}"
            by_switch = copy.sent.meta.get(f"reg{SOURCE.register}", 0) & SOURCE.mask == Source.SWITCH
            if isinstance(place, Place) and place.port == source.port and by_switch:
                name = "arp_sha" if "arp_sha" in frame.fields else "ipv6_nd_tll"
                mac = format_value(FIELDS["eth_src"], frame.fields.get(name, 0))
                return "answered", f"the switch of {host} answers for {target.called}: it is at {mac}"
    return None


def _decision(facts: Facts) -> Decision | None:
    """What ended it, on the last host that it came to first."""
    for leg in reversed(facts.legs):
        ofport = dict(facts.target.hosts).get(leg.entry.host)
        number = leg.ending(ofport)
        if number is not None and leg.view is not None and not leg.run.unknown:
            step = leg.run.steps[number]
            info = leg.view.info(step.flow) if step.flow is not None else None
            return Decision(leg.entry.host, leg.view.names.table(step.table), step, info)
    return None


def _guarded(facts: Facts, decision: Decision) -> str:
    """Why the sender may not send this; empty when it was not a guard that ended it."""
    called, fields = facts.source.called, facts.frame.fields
    info = decision.info
    if decision.table not in facts.guards or info is None:
        return ""

    def told(name: str) -> str:
        return format_value(FIELDS[name], fields.get(name, 0))

    own = decision.table in {"spoof_guard", "address_guard", "neighbour_guard"} and "somebody else's" in info.why
    if decision.table == "spoof_guard" and info.app == PIPELINE:
        return f"spoof guard: {told('eth_src')} is not the MAC of {called}"
    if own and decision.table == "address_guard":
        return f"spoof guard: {told('ipv6_src' if 'ipv6_src' in fields else 'ipv4_src')} is not an address of {called}"
    if own and decision.table == "neighbour_guard" and "arp_spa" in fields:
        return f"spoof guard: {called} may not speak for {told('arp_spa')} at {told('arp_sha')} (ARP)"
    if own and decision.table == "neighbour_guard":
        return f"spoof guard: {called} may not speak for {told('ipv6_src')} (ND)"
    guard = "ownership" if info.app == "ownership" else "spoof guard"
    return f"{guard}: {info.why}"


def _ended(decision: Decision, target: Place) -> str:
    where = f"on {decision.host}, table {decision.table}"
    info = decision.info
    if decision.table == "tunnel" and info is not None and info.app == PIPELINE:
        return f"no tunnel leads from {decision.host} to {target.called}"
    if info is None:
        return f"{where}: no flow takes it"
    if info.owner == "foreign":
        return f"{where}: a flow that is not fleetswitch's drops it, cookie {info.cookie}"
    because = f" ({info.source})" if info.kind else ""
    return f"{where}: {info.why}{because}"
