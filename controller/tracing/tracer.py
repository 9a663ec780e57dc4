"""Traces of packets over the fleet, executed on the flows that its switches really have."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from controller.api.tracing import Hop, Question, Trace, TraceStep
from controller.desired import PHYSICAL_NETWORKS
from controller.errors import InvalidInput, OpenFlowError, Problem
from controller.flow_view import View, decode
from controller.inspection import PATIENCE, Inspection
from controller.openflow import messages
from controller.openflow.decode_groups import decode_groups
from controller.openflow.execute import Step, Tables
from controller.openflow.messages import Multipart
from controller.pipeline.ports import uplink_port
from controller.pipeline.tables import Stage
from controller.tracing.packets import Asked, describe, packet, tagged
from controller.tracing.places import Place, Places
from controller.tracing.verdict import Facts, verdict
from controller.tracing.walk import Copy, Entry, Leg, Walk
from controller.views import NetworkView, PortView


class Tracing(Inspection):
    """Inspection, and traces."""

    async def trace(self, question: Question) -> Trace:
        """Where a packet goes, by the flows that the switches have now. Raises NotFound, InvalidInput."""
        places = Places(self._desired.registered, self._desired.statuses)
        source, target = places.pair(question.source, question.target)
        asked = packet(question, source, target)
        asked = self._with_tag(question, asked, source, target)
        entry = self._entry(asked, source, target)
        told = Trace(source.called, target.called, asked.text, asked.assumed, [], "not sent", "", [])
        if isinstance(entry, str):
            return replace(told, verdict=entry)
        uplinks = {uplink_port(n): name for name, n in self._desired.numbers(PHYSICAL_NETWORKS).items()}
        readings: dict[str, tuple[Tables, View]] = {}

        async def read(host: str) -> tuple[Tables, View]:
            if host not in readings:
                readings[host] = await self._tables(host)
            return readings[host]

        legs = await Walk(read, self._desired.hosts, uplinks, places, target).follow(entry)
        apart = "" if target.is_outside or source.is_outside else self._apart(source, target)
        guards = frozenset(t.name for t in self._engine.pipeline.tables if t.stage is Stage.SPOOF_GUARD)
        outcome, sentence = verdict(Facts(source, target, legs, asked.frame, apart, guards))
        delivered = [where for leg in legs for copy in leg.copies if (where := _where(leg, copy))]
        hops = [_hop(leg, target) for leg in legs]
        return replace(told, hops=hops, outcome=outcome, verdict=sentence, delivered=delivered)

    async def _tables(self, host: str) -> tuple[Tables, View]:
        """What a host's switch has now. Raises OpenFlowError."""
        switch = self._agent(host).switch
        every = messages.ALL_GROUPS.to_bytes(4, "big") + bytes(4)
        try:
            async with asyncio.timeout(PATIENCE):
                flows = await switch.read(messages.flow_desc_request())
                groups = await switch.read(messages.multipart_request(Multipart.GROUP_DESC, every))
        except TimeoutError:
            raise OpenFlowError(f"does not answer within {PATIENCE:g} s", where=f"Host {host}") from None

        def decoded() -> Tables:
            return Tables(decode(flows), decode_groups(groups))

        return await asyncio.to_thread(decoded), await self.view(host)

    def _with_tag(self, question: Question, asked: Asked, source: Place, target: Place) -> Asked:
        """With the tag that the sender has to put on for the target's VLAN, unless the question says which."""
        if question.vlan is not None:
            return asked
        vlan = self._vlan_outside(target) if source.is_outside else self._own_tag(source, target)
        if not vlan:
            return asked
        frame = tagged(asked.frame, (vlan,))
        why = f"{source.called} sends with VLAN tag {vlan}, which leads to {target.called}"
        return Asked(frame, describe(frame), [*asked.assumed, why])

    def _own_tag(self, source: Place, target: Place) -> int | None:
        """The tag of a trunk for the first VLAN that the target is in as well."""
        here, there = self._port(source), self._port(target)
        for part in here.memberships if here is not None else ():
            if there is None or part.segment in {other.segment for other in there.memberships}:
                return None if part.untagged_in else part.tag_in
        return None

    def _vlan_outside(self, place: Place) -> int | None:
        """The VLAN of a vNIC on its physical network."""
        port = self._port(place)
        network = self._network(place)
        if port is None or network is None:
            return None
        vlans = {segment: vlan for vlan, segment in network.segments}
        return next((vlans[part.segment] for part in port.memberships), None)

    def _entry(self, asked: Asked, source: Place, target: Place) -> Entry | str:
        """Where it comes in; or why it does not."""
        if not source.is_outside:
            for host, ofport in source.hosts[:1]:
                return Entry(host, ofport, asked.frame, f"from {source.called} ({self.names(host).port(ofport)})")
            return source.trouble or f"{source.called} is plugged in nowhere"
        network = self._network(target)
        if network is None or network.uplink is None or network.physical_network is None:
            what = f"network {target.network} of {target.called} has no physical network"
            raise InvalidInput([Problem("trace", what, "nothing comes to it from outside: name another vNIC")])
        for host, _ in target.hosts:
            spec = self._desired.hosts.get(host)
            if spec is not None and network.physical_network in spec.uplinks:
                return Entry(host, network.uplink, asked.frame, f"from {network.physical_network}")
        return target.trouble or f"no host of {target.called} has an uplink to {network.physical_network}"

    def _apart(self, source: Place, target: Place) -> str:
        """Why no frame of the one is for the other, in networks and VLANs."""
        if source.network != target.network:
            one, other = source.network or "none", target.network or "none"
            return f"{source.called} and {target.called} are in different networks: {one} and {other}"
        here, there, network = self._port(source), self._port(target), self._network(source)
        if here is None or there is None or network is None:
            return ""
        vlans = {segment: vlan for vlan, segment in network.segments}
        mine, others = ({vlans[part.segment] for part in port.memberships} for port in (here, there))
        if mine & others or not (mine and others):
            return ""
        return (f"{source.called} and {target.called} are in different VLANs of {network.name}: "
                f"{_vlans(mine)} and {_vlans(others)}")  # fmt: skip

    def _port(self, place: Place) -> PortView | None:
        return self._engine.fabric.reader().port(place.port)

    def _network(self, place: Place) -> NetworkView | None:
        return self._engine.fabric.reader().network(place.network) if place.network is not None else None


def _hop(leg: Leg, target: Place) -> Hop:
    leading = leg.leading(dict(target.hosts).get(leg.entry.host))
    steps, learned = [], []
    if leg.view is not None:
        steps = [_step(leg.view, step, number in leading) for number, step in enumerate(leg.run.steps)]
        learned = [flow.text(leg.view.names) for flow in leg.run.learned]
    return Hop(leg.entry.host, leg.entry.text, describe(leg.entry.frame), steps, [copy.text for copy in leg.copies],
               learned, leg.unknown)  # fmt: skip


def _step(view: View, step: Step, leads: bool) -> TraceStep:
    table = view.names.table(step.table)
    if step.flow is None:
        return TraceStep(table, step.depth, leads, 0, "", "", "", "", "", "", "no flow takes it")
    info = view.info(step.flow)
    return TraceStep(table, step.depth, leads, info.priority, info.match, info.actions, info.cookie, info.owner,
                     info.app, info.source, info.why)  # fmt: skip


def _where(leg: Leg, copy: Copy) -> str:
    """The place that a copy came to, for good."""
    if isinstance(copy.place, str):
        return copy.place
    if copy.place is None or leg.view is None:
        return ""
    return f"{leg.entry.host}/{leg.view.names.port(copy.sent.port)}"


def _vlans(vlans: set[int]) -> str:
    return ", ".join("untagged" if vlan == 0 else str(vlan) for vlan in sorted(vlans))
