"""A packet's way from host to host: each host's flows executed, and its copies led to where they come in next."""

from __future__ import annotations

import asyncio
import ipaddress
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from controller.errors import HostError
from controller.flow_view import View
from controller.model.host import HostSpec
from controller.openflow.execute import Frame, Run, Sent, Tables
from controller.openflow.names import PORTS
from controller.openflow.oxm import FIELDS, format_value, parse_value
from controller.pipeline.fields import OUT
from controller.pipeline.ports import TUNNEL_PORTS
from controller.tracing.places import Place, Places

MOST_LEGS = 16

Reading = Callable[[str], Awaitable[tuple[Tables, View]]]


@dataclass(frozen=True, slots=True)
class Entry:
    """A packet that comes in: where, by what, as what, and out of which tunnel."""

    host: str
    port: int
    frame: Frame
    text: str
    tunnel: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy that left. ``place`` is the vNIC or the physical network (by name) that it came to, if it came to one;
    ``leads``: it went where the target is."""

    sent: Sent
    text: str
    place: Place | str | None = None
    onto: tuple[Entry, ...] = ()
    leads: bool = False


@dataclass(slots=True)
class Leg:
    """What happened on one host. ``unread`` says why its flows could not be read."""

    entry: Entry
    view: View | None = None
    run: Run = field(default_factory=Run)
    copies: list[Copy] = field(default_factory=list)
    unread: str = ""

    @property
    def unknown(self) -> str:
        return self.unread or self.run.unknown

    def leading(self, ofport: int | None) -> set[int]:
        """Numbers of the steps on the way that counts: of the copies that lead to the target, or to where it ended."""
        ends = [copy.sent.step for copy in self.copies if copy.leads]
        if not ends and (number := self.ending(ofport)) is not None:
            ends = [number]
        found: set[int] = set()
        for number in ends:
            while number >= 0 and number not in found:
                found.add(number)
                number = self.run.steps[number].parent
        return found

    def ending(self, ofport: int | None) -> int | None:
        """Number of the step that ended the copy for the target's OpenFlow port here, or else the whole packet."""
        ends = [number for number, step in enumerate(self.run.steps) if step.ends]
        for number in ends:
            out = (self.run.steps[number].meta.get(f"reg{OUT.register}", 0) & OUT.mask) >> OUT.start
            if ofport is not None and out == ofport:
                return number
        return ends[-1] if ends and not self.run.sent else None


class Walk:
    """Leads a packet from where it comes in to the target. Copies that go elsewhere are told, and not followed."""

    def __init__(
        self, reading: Reading, hosts: Mapping[str, HostSpec], uplinks: Mapping[int, str], places: Places, target: Place
    ) -> None:
        self._reading = reading
        self._hosts = hosts
        self._uplinks = uplinks
        self._places = places
        self._target = target
        self._addresses = {
            str(ipaddress.ip_address(spec.tunnel_ip)): name
            for name, spec in hosts.items()
            if spec.tunnel_ip is not None
        }

    async def follow(self, first: Entry) -> list[Leg]:
        """Every host that the packet comes to on its way to the target, in order."""
        legs: list[Leg] = []
        waiting = deque([first])
        while waiting and len(legs) < MOST_LEGS:
            leg = await self._leg(waiting.popleft())
            legs.append(leg)
            for copy in leg.copies:
                waiting.extend(copy.onto)
        return legs

    async def _leg(self, entry: Entry) -> Leg:
        try:
            tables, view = await self._reading(entry.host)
        except HostError as error:
            return Leg(entry, unread=f"its flows cannot be read: {error.what}")
        run = await asyncio.to_thread(tables.run, entry.port, entry.frame, entry.tunnel)
        return Leg(entry, view, run, [self._copy(entry, sent, view) for sent in run.sent])

    def _copy(self, entry: Entry, sent: Sent, view: View) -> Copy:
        if sent.port in self._uplinks:
            return self._by_uplink(entry, sent)
        if sent.port in TUNNEL_PORTS.values():
            return self._by_tunnel(entry, sent)
        if sent.port in PORTS:
            return Copy(sent, f"to {PORTS[sent.port]}")
        place = self._places.at(entry.host, sent.port)
        interface = view.names.port(sent.port)
        if place is None:
            return Copy(sent, f"to {interface}, where no vNIC is known")
        leads = place.port == self._target.port
        return Copy(sent, f"to {place.called} ({interface}){_tags(sent.frame)}", place, leads=leads)

    def _by_uplink(self, entry: Entry, sent: Sent) -> Copy:
        physical = self._uplinks[sent.port]
        if not self._has_uplink(entry.host, physical):
            return Copy(sent, f"to {physical}, of which {entry.host} has no uplink: it ends there")
        text = f"to {physical}{_tags(sent.frame) or ', untagged'}"
        onto = tuple(
            Entry(host, sent.port, sent.frame, f"from {physical}")
            for host in self._target_hosts() if host != entry.host and self._has_uplink(host, physical)
        )  # fmt: skip
        return Copy(sent, text, physical, onto, leads=bool(onto) or self._target.is_outside)

    def _by_tunnel(self, entry: Entry, sent: Sent) -> Copy:
        # An IPv4 address, where one is set, is the one that counts (flow_tnl_dst() of Open vSwitch).
        name = next((each for each in ("tun_ipv4_dst", "tun_ipv6_dst") if sent.meta.get(each)), None)
        kind = next(kind for kind, port in TUNNEL_PORTS.items() if port == sent.port)
        if name is None:
            return Copy(sent, f"into {kind} without an address: it ends there")
        family, remote = name[:8], format_value(FIELDS[name], sent.meta[name])
        spec = self._hosts.get(entry.host)
        peer, own = self._addresses.get(remote), spec.tunnel_ip if spec is not None else None
        key = sent.meta.get("tunnel_id", 0)
        text = f"to {peer or remote} by {kind}, key {key}"
        if peer is None or own is None or (":" in own) != (":" in remote):
            return Copy(sent, f"{text}: no way leads there")
        if peer not in self._target_hosts():
            return Copy(sent, text)
        source = f"{family}_src"
        tunnel = {source: parse_value(FIELDS[source], own), name: sent.meta[name], "tunnel_id": key}
        return Copy(sent, text, onto=(Entry(peer, sent.port, sent.frame, f"from {entry.host} by {kind}", tunnel),),
                    leads=True)  # fmt: skip

    def _has_uplink(self, host: str, physical: str) -> bool:
        """A host that is being let go of has none any more."""
        return host in self._hosts and physical in self._hosts[host].uplinks

    def _target_hosts(self) -> Sequence[str]:
        return [host for host, _ in self._target.hosts if host in self._hosts]


def _tags(frame: Frame) -> str:
    return "".join(f", VLAN {tag}" for tag in frame.tags)
