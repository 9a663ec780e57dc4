"""Who is where and how busy, read from many switches at once: one that does not answer is named, and keeps no other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Container, Iterable, Iterator, Mapping
from ipaddress import ip_address
from typing import Literal

from controller.api.whereabouts import Counters, Fdb, FdbEntry, LeaseInfo, PortCounters, Unread
from controller.desired import HOSTS, SEGMENTS
from controller.errors import HostError, no_such
from controller.flow_view import decode
from controller.history import rfc3339
from controller.leases import Leases
from controller.model.lease import Lease
from controller.model.network import NetworkSpec
from controller.model.port import PortStatus
from controller.openflow import messages
from controller.openflow.actions import SetField
from controller.openflow.decode import scan_flows
from controller.openflow.decode_flow import FlowDesc
from controller.openflow.decode_ports import PortStats, decode_port_stats
from controller.openflow.messages import Multipart
from controller.openflow.oxm import FIELDS, format_value
from controller.pipeline.cookies import OWNER_BITS, arrived_port, learned_cookie, learned_of
from controller.pipeline.fields import OUT, PEER, RegisterField
from controller.pipeline.names import PipelineNames
from controller.pipeline.ports import TUNNEL_PORTS, TUNNELS, UPLINK_FIRST
from controller.pipeline.tables import LEARNED
from controller.rows import segment_name
from controller.tracing.tracer import Tracing

_PATIENCE = 5.0  # seconds for one of many hosts
_AT_ONCE = 64  # hosts that are read at the same time
MOST_ENTRIES = 20_000
_EVERY_PORT = messages.ANY.to_bytes(4, "big") + bytes(4)

_Vnics = Mapping[tuple[str | None, int | None], tuple[str, PortStatus]]
"""Name and status of vNICs by host and OpenFlow port."""


class Whereabouts(Tracing):
    """Traces, inspection, and what is asked of many switches."""

    async def fdb(self, network: str) -> Fdb:
        """Everybody who is known in a network. Raises NotFound."""
        spec = self._desired.networks.get(network)
        if spec is None:
            raise no_such("Network", network, self._desired.networks)
        members = {name: s for name, s in self._desired.statuses.items() if s.network == network}
        entries = [entry for status in members.values() for entry in _known(status, spec)]
        numbers = self._desired.numbers(SEGMENTS)
        vlans = {numbers[called]: vlan for vlan in spec.vlans()
                 if (called := segment_name(network, vlan)) in numbers}  # fmt: skip
        table = self._engine.pipeline.number[LEARNED]
        request = messages.flow_desc_request(table, learned_cookie(0), OWNER_BITS)
        carriers = {s.host for s in members.values() if s.state == "active" and s.host in self._coordinator.agents}
        bodies, unread = await self._read_many((host for host in carriers if host is not None), request)
        hosts = {number: name for name, number in self._desired.numbers(HOSTS).items()}
        places, names = self._by_place(), {host: self.names(host) for host in bodies}

        def learned() -> None:
            for host, body in bodies.items():
                try:
                    entries.extend(_learned(host, _of_segments(body, vlans), vlans, hosts, places, names[host]))
                except HostError as error:
                    unread.append(Unread(host, error.what))
            entries.sort(key=lambda entry: (entry.vlan, entry.mac, entry.host or ""))

        await asyncio.to_thread(learned)
        return Fdb(network, entries[:MOST_ENTRIES], unread, max(0, len(entries) - MOST_ENTRIES))

    async def leases(self, network: str) -> list[LeaseInfo]:
        """Who has which address by DHCP, by address. Raises NotFound."""
        if network not in self._desired.networks:
            raise no_such("Network", network, self._desired.networks)
        now, found = time.time(), self._desired.leases.get(network, Leases())
        return [_lease(found[ip], self._desired.statuses, now) for ip in sorted(found, key=_in_order)]

    async def counters(self, host: str | None) -> Counters:
        """The counters of every port of every host, or of one. Raises NotFound."""
        if host is not None:
            self._agent(host)
        names = [host] if host is not None else list(self._coordinator.agents)
        request = messages.multipart_request(Multipart.PORT_STATS, _EVERY_PORT)
        bodies, unread = await self._read_many(names, request)
        now, found = time.monotonic(), list[PortCounters]()
        places, called = self._by_place(), {name: self.names(name) for name in bodies}

        def counted() -> None:
            for name, body in bodies.items():
                try:
                    found.extend(_counted(name, decode_port_stats(body), places, called[name]))
                except HostError as error:
                    unread.append(Unread(name, error.what))

        await asyncio.to_thread(counted)
        return Counters(now, found, unread)

    async def _read_many(self, hosts: Iterable[str], request: bytes) -> tuple[dict[str, bytes], list[Unread]]:
        """What each host answers, by name; and who does not."""
        places = asyncio.Semaphore(_AT_ONCE)

        async def read(host: str) -> tuple[str, bytes | Unread]:
            try:
                async with places, asyncio.timeout(_PATIENCE):
                    return host, await self._agent(host).switch.read(request)
            except HostError as error:
                return host, Unread(host, error.what)
            except TimeoutError:
                return host, Unread(host, f"does not answer within {_PATIENCE:g} s")

        answers = await asyncio.gather(*(read(host) for host in sorted(hosts)))
        return (
            {host: answer for host, answer in answers if isinstance(answer, bytes)},
            [answer for _, answer in answers if isinstance(answer, Unread)],
        )

    def _by_place(self) -> _Vnics:
        return {(s.host, s.ofport): (name, s) for name, s in self._desired.statuses.items()}


def _of_segments(body: bytes, segments: Container[int]) -> list[FlowDesc]:
    """Of the learned flows of a reply those in these segments: to decode one takes as long as to skip a hundred."""
    kept, offset = [], 0
    for _, cookie in scan_flows(body):
        size = int.from_bytes(body[offset : offset + 2], "big")
        if learned_of(cookie)[0] in segments:
            kept.append(body[offset : offset + size])
        offset += size
    return decode(b"".join(kept))


def _learned(
    host: str, flows: Iterable[FlowDesc], vlans: Mapping[int, int], hosts: Mapping[int, str], vnics: _Vnics,
    names: PipelineNames,
) -> Iterator[FdbEntry]:  # fmt: skip
    for flow in flows:
        segment, _ = learned_of(flow.cookie)
        mac = next((value for field, value, _ in flow.match.terms if field.name == "eth_dst"), None)
        if mac is None or segment not in vlans or arrived_port(flow.cookie) is not None:
            continue
        out, peer = _register(flow, OUT), _register(flow, PEER)
        port = f"tunnel to {hosts.get(peer, peer)}" if out == TUNNELS else names.port(out)
        ofport = out if out and out != TUNNELS else None
        _, behind = vnics.get((host, ofport), (None, None)) if ofport is not None else (None, None)
        guest = (behind.vm or behind.vm_uuid) if behind is not None else None
        yield FdbEntry(
            format_value(FIELDS["eth_dst"], mac), vlans[segment], "learned", host, port, ofport, guest, [], "learned",
            flow.duration_s, flow.packets,
        )  # fmt: skip


def _counted(host: str, stats: Mapping[int, PortStats], vnics: _Vnics, names: PipelineNames) -> Iterator[PortCounters]:
    for ofport, each in stats.items():
        name, status = vnics.get((host, ofport), (None, None))
        tunnel, uplink = ofport in TUNNEL_PORTS.values(), UPLINK_FIRST <= ofport < TUNNELS
        yield PortCounters(
            host, names.port(ofport), ofport,
            "vnic" if status is not None else "tunnel" if tunnel else "uplink" if uplink else "other",
            name, (status.vm or status.vm_uuid) if status is not None else None,
            status.mac if status is not None else None, status.network if status is not None else None,
            each.rx_packets, each.rx_bytes, each.tx_packets, each.tx_bytes, each.rx_dropped, each.tx_dropped,
        )  # fmt: skip


def _known(status: PortStatus, network: NetworkSpec) -> Iterator[FdbEntry]:
    group = network.portgroup(status.portgroup) if status.portgroup is not None else None
    for vlan in sorted(group.vlans(network.untagged_vlan)) if group is not None else [network.untagged_vlan]:
        yield FdbEntry(
            status.mac, vlan, "vnic", status.host, status.tap, status.ofport, status.vm or status.vm_uuid,
            list(status.addresses), status.state,
        )  # fmt: skip


def _register(flow: FlowDesc, wanted: RegisterField) -> int:
    """What a learned flow writes into a register field; 0 when it does not."""
    for action in flow.actions:
        if isinstance(action, SetField) and action.field.name == wanted.oxm:
            return (action.value & wanted.mask) >> wanted.start
    return 0


def _in_order(address: str) -> tuple[bool, bytes]:
    """IPv4 before IPv6, each by number."""
    return ":" in address, ip_address(address).packed


def _lease(lease: Lease, statuses: Mapping[str, PortStatus], now: float) -> LeaseInfo:
    vnic = statuses.get(lease.port)
    state: Literal["leased", "ended", "declined"] = lease.state
    if lease.expires <= now:
        state = "ended"
    return LeaseInfo(
        lease.ip, lease.mac, lease.name, vnic.vm if vnic is not None else None,
        vnic.host if vnic is not None else None, state, rfc3339(lease.expires),
    )  # fmt: skip
