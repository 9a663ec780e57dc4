"""The reading side: what switches have, what caused it, and what they lack. Nothing here changes anything."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator

from controller import flow_view
from controller.agent import HostAgent
from controller.api.inspection import (
    Cause,
    Explanation,
    FlowFilter,
    FlowInfo,
    GroupInfo,
    MeterInfo,
    Placement,
    TableWalk,
)
from controller.coordinator import Coordinator
from controller.desired import HOSTS, PHYSICAL_NETWORKS, SEGMENTS
from controller.errors import HostError, NotFound, no_such
from controller.model.port import PortStatus
from controller.openflow import messages
from controller.openflow.decode import decode_aggregate
from controller.openflow.decode_flow import FlowDesc
from controller.openflow.decode_groups import decode_group_stats, decode_groups, decode_meter_stats, decode_meters
from controller.openflow.messages import Multipart
from controller.openflow.oxm import FIELDS, parse_value
from controller.origins import Concern, Origin, blocks_of, causes_of, origins_on
from controller.pipeline.app import BlockId, Scope
from controller.pipeline.cookies import (
    OWNER_BITS,
    arrived_port,
    is_learned,
    is_own,
    learned_of,
    own_cookie,
    read_cookie,
)
from controller.pipeline.names import PipelineNames
from controller.pipeline.pipeline import Entry
from controller.pipeline.ports import TUNNEL_PORTS, uplink_port
from controller.pipeline.words import Words
from controller.rows import segment_name
from controller.table_walk import table_walk

PATIENCE = 5.0  # seconds: for one of many hosts; the answer says which did not give one
_SAMPLES = 20
_HOSTS_SHOWN = 3  # samples come from these; a cookie means the same on every host
_SCOPES = {
    Scope.FLEET: "once for the fleet, on every host",
    Scope.NETWORK: "for each network, on every host that carries it",
    Scope.PORT: "for each vNIC, on every host that carries its network",
    Scope.LOCAL: "for each vNIC, on its own host",
    Scope.HOST: "for each host, on itself",
    Scope.MEMBER: "for each network on each host that carries it, there",
    Scope.REGISTRATION: "for each registered vNIC, on every host that carries its network",
    Scope.FORWARD: "for each port forward, on the hosts whose external address it means",
    Scope.PEER: "for each host, on the others with which it exchanges packets by tunnels",
}


class Inspection:
    """Implements ``controller.api.inspection.Inspections`` on the coordinator's loop."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._desired = coordinator.desired
        self._engine = coordinator.engine

    async def flows(self, host: str, wanted: FlowFilter) -> list[FlowInfo]:
        """The flows of a host, tables in their order. Raises NotFound, InvalidInput, OpenFlowError."""
        request, concern = self._request(wanted), self._concern(host, wanted)
        body = await self._agent(host).switch.read(request)
        return await asyncio.to_thread(flow_view.told, await self.view(host), body, wanted, concern)

    async def explain(self, cookie: int, host: str | None) -> Explanation:
        """What the flows with this cookie do, why, and where they are. Raises NotFound."""
        names = [host] if host is not None else sorted(self._coordinator.agents)
        counts = dict(zip(names, await asyncio.gather(*(self._count(name, cookie) for name in names)), strict=True))
        causes = await asyncio.to_thread(causes_of, blocks_of(self._engine), cookie)
        placements = [
            Placement(name, None if is_learned(cookie) else any(name in hosts for *_, hosts in causes),
                      None if note else bool(flows), flows, packets, octets, note)
            for name, (flows, packets, octets, note) in counts.items()
        ]  # fmt: skip
        samples = await self._samples(cookie, [place.host for place in placements if place.flows][:_HOSTS_SHOWN])
        if not samples:
            for _, entry, hosts in causes:
                samples += [(name, entry.described()) for name in sorted(hosts & counts.keys())[:1]]
        if not samples:
            where = f"Host {host}" if host is not None else "every host"
            raise NotFound(f"no flow has the cookie {cookie:#x}", where=where,
                           remedy="see the cookies: fleetswitch flows HOST -o json")  # fmt: skip
        views = {name: self._narrow(name, causes) for name, _ in samples}
        meaning = self._meaning(cookie, *samples[0], sum(place.flows for place in placements))
        return Explanation(
            f"{cookie:#x}", flow_view.owner_of(cookie), meaning,
            [self._cause(origin, hosts) for origin, _, hosts in causes], placements,
            [views[name].info(flow, raw=True) for name, flow in samples],
        )  # fmt: skip

    async def walk(self, host: str) -> TableWalk:
        """How many packets each table of a host sent to which. Raises NotFound, OpenFlowError."""
        body = await self._agent(host).switch.read(messages.flow_desc_request())
        uplinks = {uplink_port(n): name for name, n in self._desired.numbers(PHYSICAL_NETWORKS).items()}
        return await asyncio.to_thread(lambda: table_walk(host, self._engine.pipeline, uplinks, flow_view.decode(body)))

    async def groups(self, host: str) -> list[GroupInfo]:
        """The groups of a host's bridge, by number. Raises NotFound, OpenFlowError."""
        switch, names = self._agent(host).switch, self.names(host)
        every = messages.ALL_GROUPS.to_bytes(4, "big") + bytes(4)
        found = decode_groups(await switch.read(messages.multipart_request(Multipart.GROUP_DESC, every)))
        counted = decode_group_stats(await switch.read(messages.multipart_request(Multipart.GROUP_STATS, every)))
        return [
            GroupInfo(group.group_id, group.kind, [bucket.text(names) for bucket in group.buckets], stats.packets,
                      stats.bytes, stats.users, stats.duration_s, group.text())
            for group in found if (stats := counted.get(group.group_id)) is not None
        ]  # fmt: skip

    async def meters(self, host: str) -> list[MeterInfo]:
        """The meters of a host's bridge, by number. Raises NotFound, OpenFlowError."""
        switch = self._agent(host).switch
        every = messages.ALL_METERS.to_bytes(4, "big") + bytes(4)
        found = decode_meters(await switch.read(messages.multipart_request(Multipart.METER_CONFIG, every)))
        counted = decode_meter_stats(await switch.read(messages.multipart_request(Multipart.METER_STATS, every)))
        return [
            MeterInfo(meter.meter_id, meter.unit, [band.rate for band in meter.bands],
                      [band.burst for band in meter.bands], stats.packets, stats.bytes, stats.dropped, stats.users,
                      stats.duration_s, meter.text())
            for meter in found if (stats := counted.get(meter.meter_id)) is not None
        ]  # fmt: skip

    # What others that read build on.

    async def view(self, host: str) -> flow_view.View:
        """What is wanted of a host, and why. Raises NotFound."""
        names, refused = self.names(host), dict(self._agent(host).switch.refused)
        blocks, table = blocks_of(self._engine), list(self._engine.tables.get(host, ()))

        def made() -> flow_view.View:
            origins = origins_on(blocks, host)
            called = {block: self._called(block) for block in {origin.block for origin in origins.values()}}
            return flow_view.View(host, names, origins, called, {entry.identity: entry for entry in table}, refused)

        return await asyncio.to_thread(made)

    def names(self, host: str) -> PipelineNames:
        """Tables and OpenFlow ports of a host by name. Raises NotFound."""
        self._agent(host)
        names = {number: f"fs-{kind}" for kind, number in TUNNEL_PORTS.items()}
        names |= {uplink_port(n): physical for physical, n in self._desired.numbers(PHYSICAL_NETWORKS).items()}
        told = self._coordinator.guests.hosts.get(host)
        names |= {row.ofport: row.interface for row in told.vnics.values() if row.ofport is not None} if told else {}
        return PipelineNames({number: table.name for table, number in self._engine.pipeline.number.items()}, names)

    def words(self, host: str) -> Words:
        """What numbers mean on a host. Raises NotFound."""
        segments = {}
        for called, number in self._desired.numbers(SEGMENTS).items():
            network, _, vlan = called.rpartition("/")
            if network.startswith("@"):  # the wire to the outside, which is no network of the operator's
                network = f"outside on {network[1:].rpartition('/')[0]}"
            segments[number] = f"{network}, VLAN {vlan}" if vlan != "0" else network
        hosts = {number: name for name, number in self._desired.numbers(HOSTS).items()}
        tables = {table.name: table.about for table in self._engine.pipeline.tables}
        return Words(self.names(host), segments, hosts, tables)

    def _agent(self, host: str) -> HostAgent:
        agent = self._coordinator.agents.get(host)
        if agent is None:
            if (why := self._coordinator.driver.undriven.get(host)) is not None:
                raise HostError(why, where=f"Host {host}", remedy=f"fleetswitch doctor {host}")
            raise no_such("Host", host, self._coordinator.agents)
        return agent

    def _called(self, block: BlockId) -> str:
        """The row that caused a block; a vNIC that nobody gave a name is called by its guest and MAC."""
        if block.scope not in {Scope.PORT, Scope.LOCAL}:
            return block.row
        name, _, arriving = block.objects[0].partition("@")
        there = " where it is being copied to" if arriving else ""
        status = self._desired.statuses.get(name)
        if status is None or name in self._desired.registered:
            return f"Port {name}{there}"
        return f"Port {status.vm or status.vm_uuid} {status.mac}{there}"

    # Flows that are asked for.

    def _request(self, wanted: FlowFilter) -> bytes:
        """Of the switch only what the filter lets through, as far as it can tell. Raises NotFound, InvalidInput."""
        table = {t.name: number for t, number in self._engine.pipeline.number.items()}.get(wanted.table)
        if wanted.state == "missing":
            return messages.flow_desc_request(cookie=own_cookie(bytes(7)), cookie_mask=OWNER_BITS)
        if table is None and wanted.table and not wanted.table.isdecimal():
            raise no_such("table", wanted.table, [t.name for t in self._engine.pipeline.tables])
        number = messages.ALL_TABLES if table is None else table
        if not wanted.cookie:
            return messages.flow_desc_request(number)
        return messages.flow_desc_request(number, read_cookie(wanted.cookie), messages.MASK64)

    async def _count(self, host: str, cookie: int) -> tuple[int, int, int, str]:
        """Flows, packets and bytes of this cookie on a host; none, and why, where it does not answer."""
        request = messages.aggregate_request(cookie=cookie, cookie_mask=messages.MASK64)
        switch = self._agent(host).switch
        try:
            async with asyncio.timeout(PATIENCE):
                return *decode_aggregate(await switch.read(request)), ""
        except HostError as error:
            return 0, 0, 0, error.what
        except TimeoutError:
            return 0, 0, 0, f"does not answer within {PATIENCE:g} s"

    async def _samples(self, cookie: int, hosts: list[str]) -> list[tuple[str, FlowDesc]]:
        """Some flows with this cookie, one of each content, with their hosts; none of a host that has gone away."""
        found: dict[str, tuple[str, FlowDesc]] = {}
        request = messages.flow_desc_request(cookie=cookie, cookie_mask=messages.MASK64)
        for host in hosts:
            try:
                body = await self._agent(host).switch.read(request)
            except (HostError, NotFound):
                continue
            for flow in (await asyncio.to_thread(flow_view.decode, body))[:_SAMPLES]:
                found.setdefault(flow.text(), (host, flow))
        return list(found.values())[:_SAMPLES]

    def _concern(self, host: str, wanted: FlowFilter) -> Concern | None:
        """The rows and numbers that the filter means on this host; None when it names none. Raises NotFound."""
        if not (wanted.network or wanted.guest or wanted.port):
            return None
        ports = dict(self._ports(host, wanted))
        networks = frozenset[str]()
        if wanted.network:
            if wanted.network not in self._desired.networks:
                raise no_such("Network", wanted.network, self._desired.networks)
            if not (wanted.guest or wanted.port):
                networks = frozenset({wanted.network})
            elif not ports:
                return Concern()
        segments = self._desired.numbers(SEGMENTS)
        return Concern(
            networks, frozenset(ports),
            frozenset(segments[called] for network in networks for vlan in self._desired.networks[network].vlans()
                      if (called := segment_name(network, vlan)) in segments),
            frozenset(parse_value(FIELDS["eth_src"], status.mac) for status in ports.values()),
            frozenset(ofport for status in ports.values() for place, ofport in _places(status) if place == host),
        )  # fmt: skip

    def _ports(self, host: str, wanted: FlowFilter) -> Iterator[tuple[str, PortStatus]]:
        """The vNICs that the filter means. Raises NotFound for a guest or a port that nobody knows."""
        statuses = self._desired.statuses
        mac = wanted.port.lower().replace("-", ":")
        called = {
            n: {s.vm, s.vm_uuid, spec.vm if (spec := self._desired.registered.get(n)) is not None else None}
            for n, s in statuses.items()
        }
        guests = {n for n in statuses if not wanted.guest or wanted.guest in called[n]}
        taps = {s.tap: n for n, s in statuses.items() if s.host == host and s.tap is not None}
        one = taps.get(wanted.port, wanted.port)
        named = {n for n, s in statuses.items() if not wanted.port or one == n or mac == s.mac}
        if wanted.guest and not guests:
            raise no_such("guest", wanted.guest, {vm for words in called.values() for vm in words if vm})
        if wanted.port and not named:
            raise no_such("Port", wanted.port, statuses)
        for name in guests & named:
            if wanted.network in {"", statuses[name].network}:
                yield name, statuses[name]

    # Explanations.

    def _cause(self, origin: Origin, hosts: frozenset[str]) -> Cause:
        block = origin.block
        about = "what a table does with a packet that no flow of it wants"
        for app in self._engine.pipeline.apps:
            if app.name == block.app:
                first = (inspect.getdoc(inspect.getmodule(type(app))) or "").partition("\n")[0]
                about = first.partition(": ")[2] or first
        kind, name = origin.row
        return Cause(block.app, about, _SCOPES[block.scope], kind, name, self._called(block), origin.why, sorted(hosts))

    def _narrow(self, host: str, causes: list[tuple[Origin, Entry, frozenset[str]]]) -> flow_view.View:
        """What is known of the flows with one cookie on a host."""
        here = [(origin, entry) for origin, entry, hosts in causes if host in hosts]
        return flow_view.View(
            host, self.names(host), {entry.identity: origin for origin, entry in here},
            {origin.block: self._called(origin.block) for origin, _ in here},
            {entry.identity: entry for _, entry in here}, {},
        )  # fmt: skip

    def _meaning(self, cookie: int, host: str, flow: FlowDesc, total: int) -> list[str]:
        words = self.words(host)
        told = words.sentences(flow)
        if (arrived := arrived_port(cookie)) is not None:
            told.insert(0, "A switch learned it by itself from the first frame of a guest that migrated to OpenFlow "
                        f"port {arrived}; it goes when the guest's row says that it is there.")  # fmt: skip
        elif is_learned(cookie):
            segment, ofport = learned_of(cookie)
            about = words.segments.get(segment, "a network that is gone")
            behind = f" behind {words.names.port(ofport)}" if ofport else ""
            told.insert(0, f"A switch learned it by itself in segment {segment} ({about}){behind}, from a frame that "
                        "came in: 300 s of silence forget it.")  # fmt: skip
        elif not is_own(cookie):
            told.insert(0, "It is not fleetswitch's: somebody else put it there, and it is left alone.")
        if total > 1 and not is_own(cookie):
            told.append(f"{total} flows have this cookie; this is one of them.")
        return told


def _places(status: PortStatus) -> Iterator[tuple[str | None, int]]:
    """Host and OpenFlow port of a vNIC, and those where its guest is being copied to."""
    if status.ofport is not None:
        yield status.host, status.ofport
    if status.incoming is not None:
        yield status.incoming.host, status.incoming.ofport
