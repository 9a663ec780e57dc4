"""Switches that execute the flow-mods that they would be sent, and a world of them joined as hosts are.

The tables are executed by the product's own executor, which is compared with real switches in its tests. What it
cannot model is an error here: two flows of one priority that both match, where a switch would choose, among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from controller.model.host import HostSpec
from controller.openflow.decode_flow import FlowDesc
from controller.openflow.execute import Frame, Run, Sent, Tables
from controller.openflow.match import Match
from controller.openflow.oxm import FIELDS, parse_value
from controller.pipeline.pipeline import Entry
from controller.pipeline.ports import TUNNEL_PORTS

_CONTROLLER = 0xFFFFFFFD

__all__ = ["Delivery", "Frame", "Switch", "Tunnelled", "World", "number"]


def number(name: str, text: str) -> int:
    """The value of a field as its bits."""
    return parse_value(FIELDS[name], text)


@dataclass(frozen=True)
class Tunnelled:
    """What a tunnel port gets to send: the outer address, the key, and the frame."""

    remote: int
    family: str
    key: int
    frame: Frame


class Switch:
    """One integration bridge. ``learned`` are the flows that it has learned, by table, priority and match."""

    def __init__(self) -> None:
        self.learned: dict[tuple[int, int, Match], FlowDesc] = {}
        self._installed: list[FlowDesc] = []
        self._tables = Tables(())

    def install(self, entries: Iterable[Entry]) -> None:
        """Have these flows and no others, but for learned ones."""
        self._installed = [entry.described() for entry in entries]
        self._tables = Tables([*self._installed, *self.learned.values()])

    def forget(self) -> None:
        """Have learned nothing."""
        self.learned.clear()
        self._tables = Tables(self._installed)

    def receive(self, in_port: int, frame: Frame, tunnel: Mapping[str, int] | None = None) -> list[tuple[int, object]]:
        """Ports that the frame leaves by, each with the Frame, or Tunnelled, that leaves there."""
        run = self.run(in_port, frame, tunnel)
        self.learned |= {(flow.table, flow.priority, flow.match): flow for flow in run.learned}
        return [
            (sent.port, _tunnelled(sent) if sent.port in TUNNEL_PORTS.values() else sent.frame)
            for sent in run.sent
            if sent.port != _CONTROLLER
        ]

    def run(self, in_port: int, frame: Frame, tunnel: Mapping[str, int] | None = None) -> Run:
        """What happens to the frame, step by step."""
        run = self._tables.run(in_port, frame, tunnel)
        assert not run.unknown, run.unknown
        return run


def _tunnelled(sent: Sent) -> Tunnelled:
    # An IPv4 address, where one is set, is the one that counts (flow_tnl_dst() of Open vSwitch).
    remote = next((name for name in ("tun_ipv4_dst", "tun_ipv6_dst") if sent.meta.get(name)), None)
    assert remote is not None, "into a tunnel without an address"
    return Tunnelled(sent.meta[remote], remote[:8], sent.meta.get("tunnel_id", 0), sent.frame)


@dataclass(frozen=True)
class Delivery:
    """A frame that got somewhere: to a vNIC's (host, ofport), or out on a physical network by its name."""

    place: tuple[str, int] | str
    frame: Frame

    def key(self) -> tuple[str, object]:
        return str(self.place), self.frame.key()


class World:
    """Hosts with their switches, one underlay, and physical networks that are plain wires to everybody on them.

    ``reflective``: the physical switch sends a frame back to where it came from as well (IEEE 802.1Qbg).
    """

    def __init__(self, hosts: Mapping[str, HostSpec], uplinks: Mapping[str, int], reflective: bool = False) -> None:
        self.switches = {name: Switch() for name in hosts}
        self._hosts = hosts
        self._uplinks = uplinks
        self._names = {port: name for name, port in uplinks.items()}
        self._reflective = reflective
        self._left = 0

    def from_vnic(self, host: str, ofport: int, frame: Frame) -> list[Delivery]:
        return self._run(self._at(host, ofport, frame))

    def from_outside(self, physical_network: str, frame: Frame) -> list[Delivery]:
        """Sent by a machine that is on the physical network itself."""
        return self._run(self._wire(physical_network, frame, None))

    def from_underlay(self, host: str, kind: str, source: str, key: int, frame: Frame) -> list[Delivery]:
        """A packet of a tunnel, by whoever sent it from the address ``source``."""
        family = "tun_ipv6" if ":" in source else "tun_ipv4"
        tunnel = {f"{family}_src": number(f"{family}_src", source), "tunnel_id": key}
        return self._run(self._at(host, TUNNEL_PORTS[kind], frame, tunnel))

    def _run(self, steps: Iterator[Delivery]) -> list[Delivery]:
        self._left = 200
        return list(steps)

    def _at(self, host: str, port: int, frame: Frame, tunnel: Mapping[str, int] | None = None) -> Iterator[Delivery]:
        self._left -= 1
        assert self._left > 0, "frames go round"
        for to, what in self.switches[host].receive(port, frame, tunnel):
            if isinstance(what, Tunnelled):
                yield from self._underlay(host, to, what)
            elif to in self._names:
                physical_network = self._names[to]
                if physical_network in self._hosts[host].uplinks:
                    assert isinstance(what, Frame)
                    yield Delivery(physical_network, what)
                    yield from self._wire(physical_network, what, host)
            else:
                assert isinstance(what, Frame)
                yield Delivery((host, to), what)

    def _underlay(self, host: str, port: int, packet: Tunnelled) -> Iterator[Delivery]:
        source = self._hosts[host].tunnel_ip
        if source is None or ("tun_ipv6" if ":" in source else "tun_ipv4") != packet.family:
            return  # it has no tunnel ports, or no route
        for name, spec in self._hosts.items():
            if spec.tunnel_ip is None or (":" in spec.tunnel_ip) != (packet.family == "tun_ipv6"):
                continue
            if number(f"{packet.family}_dst", spec.tunnel_ip) == packet.remote:
                assert TUNNEL_PORTS[spec.tunnel] == port, "in an encapsulation that the peer did not ask for"
                tunnel = {
                    f"{packet.family}_src": number(f"{packet.family}_src", source),
                    f"{packet.family}_dst": packet.remote, "tunnel_id": packet.key,
                }  # fmt: skip
                yield from self._at(name, port, packet.frame, tunnel)

    def _wire(self, physical_network: str, frame: Frame, sender: str | None) -> Iterator[Delivery]:
        for name, spec in self._hosts.items():
            if physical_network in spec.uplinks and (name != sender or self._reflective):
                yield from self._at(name, self._uplinks[physical_network], frame)
