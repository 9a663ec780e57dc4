"""Neighbours of the hosts' uplinks: what they say of themselves by LLDP, and what the hosts say of theirs.

What is heard is kept in memory, for as long as its sender says: a controller that starts hears all of it again within
half a minute, and no row is written twice a minute for each wire of the fleet.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from importlib.metadata import version
from typing import Any

from controller.agent import HostAgent
from controller.desired import PHYSICAL_NETWORKS, Desired
from controller.errors import LldpError, OpenFlowError
from controller.openflow.actions import Output, encode_actions
from controller.openflow.decode import PacketIn
from controller.openflow.messages import packet_out
from controller.pipeline.ports import uplink_port
from topology.graph.nodes import Heard
from topology.lldp import Announcement, decode, encode

log = logging.getLogger(__name__)

INTERVAL = 30.0  # IEEE 802.1AB-2016, 9.2.5.7: msgTxInterval
HOLDS = 121  # seconds (9.2.5.22): four intervals and one
MOST_NEIGHBOURS = 16  # of an uplink; a wire to a switch has one
MOST_FRAMES = 50  # of a host in a second; the rest is not looked at
_TICK = 1.0

Wire = tuple[str, str]
"""Host and physical network: an uplink."""


@dataclass(frozen=True, slots=True)
class _Kept:
    said: Announcement
    until: float  # the loop's time


class Lldp:
    """Everything on the loop. ``run()`` makes it speak and forget."""

    def __init__(self, desired: Desired, agents: Mapping[str, HostAgent]) -> None:
        self._desired = desired
        self._agents = agents
        self._fleet = ""
        self._heard: dict[Wire, dict[tuple[str, str], _Kept]] = {}
        self._due: dict[Wire, float] = {}
        self._frames: dict[str, int] = {}  # that a host has sent since the last tick
        self._flooded: set[str] = set()

    async def run(self, fleet: str) -> None:
        """Until it is cancelled. ``fleet`` is the mark of this fleet: other fleets may have hosts of the same name."""
        self._fleet = fleet
        while True:
            try:
                self._tick(asyncio.get_running_loop().time())
            except Exception:
                log.exception("LLDP: this round failed; the next one comes")
            await asyncio.sleep(_TICK)

    def take(self, host: str, packet: PacketIn) -> None:
        """A frame that an uplink of the host has heard."""
        try:
            in_port = packet.in_port
        except OpenFlowError as error:
            log.debug("%s: %s", host, error)
            return
        wire = next((wire for wire, port in self._wires(host) if port == in_port), None)
        if wire is None:
            return
        count = self._frames[host] = self._frames.get(host, 0) + 1
        if count > MOST_FRAMES:
            if host not in self._flooded:
                self._flooded.add(host)
                log.warning("%s: more than %d LLDP frames in a second; the rest is left out", host, MOST_FRAMES)
            return
        try:
            said = decode(packet.data, packet.total_len)
        except LldpError as error:
            log.debug("%s: LLDP on %s: %s", host, wire[1], error)
            return
        self._keep(wire, said, asyncio.get_running_loop().time())

    def heard(self, host: str) -> dict[str, tuple[Heard, ...]]:
        """The neighbours of each of the host's uplinks whose link is up, by physical network."""
        now, dark, found = asyncio.get_running_loop().time(), self._dark(host), {}
        for wire, _ in self._wires(host):
            if (kept := self._heard.get(wire)) and wire not in dark:
                told = (self._as_heard(wire, each.said) for each in kept.values() if each.until > now)
                found[wire[1]] = tuple(each for each in told if each is not None)
        return found

    def _keep(self, wire: Wire, said: Announcement, now: float) -> None:
        kept = self._heard.setdefault(wire, {})
        key = (said.chassis, said.port)
        if said.ttl == 0:
            kept.pop(key, None)
        elif key in kept or len(kept) < MOST_NEIGHBOURS:
            if key not in kept:
                log.info("%s: hears %s, port %s, on %s", wire[0], said.system_name or said.chassis, said.port, wire[1])
                self._due[wire] = now  # so that it soon knows us too (9.2.5.5)
            kept[key] = _Kept(said, now + said.ttl)

    def _as_heard(self, wire: Wire, said: Announcement) -> Heard | None:
        """None for what a host of this fleet says that is not, or not any more, so."""
        fleet, _, name = said.chassis.partition("/")
        uplink = None
        if fleet == self._fleet:
            spec = self._desired.hosts.get(name)
            uplinks = spec.uplinks.items() if spec is not None else ()
            physical = next((physical for physical, other in uplinks if other.interface == said.port), None)
            if physical is None or (name, physical) == wire:
                return None
            uplink = (name, physical)
        return Heard(
            said.chassis, said.port, said.port_description, said.system_name, said.system_description, said.vlan,
            said.ttl, uplink,
        )  # fmt: skip

    def _tick(self, now: float) -> None:
        self._flooded &= {host for host, count in self._frames.items() if count > MOST_FRAMES}
        self._frames.clear()
        ports = dict(wire for host in self._desired.hosts for wire in self._wires(host))
        dark = {wire for host in {host for host, _ in self._heard} for wire in self._dark(host)}
        self._heard = {
            wire: {key: each for key, each in kept.items() if each.until > now}
            for wire, kept in self._heard.items()
            if wire in ports and wire not in dark
        }
        self._due = {wire: due for wire, due in self._due.items() if wire in ports}
        for wire, port in ports.items():
            if not self._desired.hosts[wire[0]].lldp:
                self._due.pop(wire, None)
            elif self._due.get(wire, now) <= now and self._say(wire, port):
                self._due[wire] = self._next(wire, now)

    def _next(self, wire: Wire, now: float) -> float:
        """When it is an uplink's turn again: each has its own moment of the interval, so that not all hosts of a fleet
        that connected together speak together for ever."""
        moment = int.from_bytes(self._mac(wire)) % (INTERVAL * 1000) / 1000
        return now + INTERVAL - (now - moment) % INTERVAL

    def _wires(self, host: str) -> Iterator[tuple[Wire, int]]:
        """The host's uplinks, with the OpenFlow port that leads to each."""
        spec, numbers = self._desired.hosts.get(host), self._desired.numbers(PHYSICAL_NETWORKS)
        for physical in spec.uplinks if spec is not None else ():
            if physical in numbers:
                yield (host, physical), uplink_port(numbers[physical])

    def _dark(self, host: str) -> set[Wire]:
        """The uplinks that are known to have no link: what was heard there is of a wire that is not there."""
        spec, agent = self._desired.hosts.get(host), self._agents.get(host)
        if spec is None or agent is None:
            return set()
        links = agent.ovsdb.links()
        return {(host, name) for name, uplink in spec.uplinks.items() if links.get(uplink.interface, "up") != "up"}

    def _say(self, wire: Wire, port: int) -> bool:
        """Whether the host could be told to say who it is."""
        host, physical = wire
        agent = self._agents.get(host)
        if agent is None or agent.switch.state.state == "down":
            return False
        interface = self._desired.hosts[host].uplinks[physical].interface
        said = Announcement(
            f"{self._fleet}/{host}", interface, HOLDS, f"uplink to {physical}", host,
            f"fleetswitch {_version()}, Open vSwitch {agent.ovsdb.state.ovs_version or ''}".strip(),
        )  # fmt: skip
        return agent.switch.send(packet_out(encode(self._mac(wire), said), encode_actions([Output(port)])))

    def _mac(self, wire: Wire) -> bytes:
        """A locally administered address (IEEE 802-2014, 8.4) for the frames of one uplink, the same every time."""
        host, physical = wire
        return b"\x02" + blake2b(f"{self._fleet}/{host}/{physical}".encode(), digest_size=5).digest()


def shown(heard: Mapping[str, Sequence[Heard]]) -> list[dict[str, Any]]:
    """What a host's uplinks hear as documents, one a neighbour (``HeardStatus``)."""
    return [
        {
            "uplink": physical, "system_name": each.system_name, "chassis": each.chassis, "port": each.port,
            "port_description": each.port_description, "port_vlan": each.port_vlan, "ttl": each.ttl,
            "host": each.uplink[0] if each.uplink is not None else None,
        }
        for physical, found in sorted(heard.items()) for each in found
    ]  # fmt: skip


@cache
def _version() -> str:
    """Asked once: it is read from files."""
    return version("fleetswitch")
