"""PortForward: ports of hosts' external addresses that lead to a guest of a nat network."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from controller.errors import Problem
from controller.model.fields import ObjectName, ProfilePart, Spec
from controller.model.host import HostSpec
from controller.model.network import NetworkSpec
from controller.model.subnet import Ipv4

Protocol = Literal["tcp", "udp", "sctp"]

MAX_SHIFTED = 1024  # ports of a range that become others: each is a flow of its own

_RANGE = re.compile(r"(\d{1,5})\s*-\s*(\d{1,5})")


def _ports(value: object) -> int | str:
    """A port, or LOW-HIGH; a range of one port is that port."""
    found = _RANGE.fullmatch(value) if isinstance(value, str) else None
    number = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value
    if found is not None:
        low, high = int(found[1]), int(found[2])
    elif isinstance(number, int) and not isinstance(number, bool):
        low = high = number
    else:
        low = high = 0
    if not 1 <= low <= high <= 65535:
        raise ValueError(f"{value!r} is no port and no range of ports; write 8080, or 8000-8010")
    return low if low == high else f"{low}-{high}"


Ports = Annotated[int | str, BeforeValidator(_ports)]
"""One port, or a range as ``LOW-HIGH``."""


def span(ports: int | str) -> tuple[int, int]:
    """The first and the last of Ports."""
    low, _, high = str(ports).partition("-")
    return int(low), int(high or low)


class Listen(Spec):
    """Where machines outside connect to."""

    port: Ports = Field(description="one port, or a range as LOW-HIGH")
    protocol: Protocol = "tcp"
    host: ObjectName | None = Field(
        default=None, description="whose external address; that of every host which has one when absent"
    )
    address: Ipv4 | None = Field(default=None, description="instead of host: the external address itself")

    @model_validator(mode="after")
    def _one_place(self) -> Listen:
        if self.host is not None and self.address is not None:
            raise ValueError("has both host and address; keep one of them")
        return self


class ForwardTarget(Spec):
    """The guest that a forward leads to: by its name, its vNIC's, or its address."""

    vm: ObjectName | None = Field(default=None, description="the guest: its libvirt name or UUID")
    vnic: ObjectName | None = Field(default=None, description="the Port")
    address: Ipv4 | None = Field(default=None, description="whoever has this address in the network")
    port: Ports | None = Field(default=None, description="there; the same as outside when absent")

    @model_validator(mode="after")
    def _one_guest(self) -> ForwardTarget:
        named = [what for what in ("vm", "vnic", "address") if getattr(self, what) is not None]
        if len(named) != 1:
            raise ValueError(f"names {' and '.join(named) or 'nobody'}; name one of vm, vnic and address")
        return self


class PortForwardSpec(Spec):
    """What the operator says of a port forward. It leads to where its target is and what its address is at the time."""

    network: ProfilePart = Field(description="the network of the guest, with mode nat")
    listen: Listen
    target: ForwardTarget

    @model_validator(mode="after")
    def _ranges_fit(self) -> PortForwardSpec:
        outside, inside = self.ports, self.target_ports
        if outside[1] - outside[0] != inside[1] - inside[0]:
            raise ValueError(
                f"listens on {self.listen.port} and leads to {self.target.port}, which are not equally many ports; "
                "write ranges of one length"
            )
        if outside != inside and outside[1] - outside[0] >= MAX_SHIFTED:
            raise ValueError(
                f"leads {self.listen.port} to other ports, and those are more than {MAX_SHIFTED}; leave out the "
                "target's port, or divide the range"
            )
        return self

    @property
    def ports(self) -> tuple[int, int]:
        """First and last outside."""
        return span(self.listen.port)

    @property
    def target_ports(self) -> tuple[int, int]:
        """First and last at the guest."""
        return span(self.target.port if self.target.port is not None else self.listen.port)

    @property
    def is_particular(self) -> bool:
        """Whether it means one host."""
        return self.listen.host is not None or self.listen.address is not None

    def listens_on(self, hosts: Mapping[str, HostSpec]) -> frozenset[str]:
        """The hosts whose external address it means."""
        listen = self.listen
        return frozenset(
            name
            for name, host in hosts.items()
            if host.external is not None and listen.host in {None, name} and listen.address in {None, host.external.ip}
        )


def problems(
    forwards: Mapping[str, PortForwardSpec], hosts: Mapping[str, HostSpec], networks: Mapping[str, NetworkSpec]
) -> Iterator[Problem]:
    """What does not hold between the forwards and the rest of a fleet."""
    for name, forward in sorted(forwards.items()):
        where = f"PortForward {name}"
        yield from _listens(where, forward, hosts)
        yield from _leads(where, forward, networks)
    yield from _twice(forwards, hosts)


def _listens(where: str, forward: PortForwardSpec, hosts: Mapping[str, HostSpec]) -> Iterator[Problem]:
    listen = forward.listen
    known = ", ".join(name for name, host in sorted(hosts.items()) if host.external is not None) or "none yet"
    if listen.host is not None and listen.host not in hosts:
        yield Problem(f"{where}: listen.host", f"there is no Host {listen.host!r}", f"those with external are: {known}")
    elif listen.host is not None and hosts[listen.host].external is None:
        yield Problem(f"{where}: listen.host", f"Host {listen.host} has no external address",
                      f"give it external, or choose one of: {known}")  # fmt: skip
    elif listen.address is not None and not forward.listens_on(hosts):
        known = ", ".join(sorted(host.external.ip for host in hosts.values() if host.external is not None)) or "none"
        yield Problem(f"{where}: listen.address", f"{listen.address} is no host's external address",
                      f"those are: {known}")  # fmt: skip
    for name in sorted(forward.listens_on(hosts)) if listen.protocol == "sctp" else ():
        if hosts[name].datapath_type == "netdev":  # measured with Open vSwitch 3.1: it tracks SCTP without its ports
            yield Problem(f"{where}: listen.protocol", f"Host {name} has datapath_type netdev, which does not know the "
                          "ports of sctp", "choose a host with datapath_type system, or another protocol")  # fmt: skip


def _leads(where: str, forward: PortForwardSpec, networks: Mapping[str, NetworkSpec]) -> Iterator[Problem]:
    network = networks.get(forward.network)
    if network is None or network.mode != "nat":
        what = f"there is no Network {forward.network!r}" if network is None else (
            f"Network {forward.network} has mode {network.mode}")  # fmt: skip
        known = ", ".join(name for name, each in sorted(networks.items()) if each.mode == "nat") or "none yet"
        yield Problem(f"{where}: network", what, f"name one with mode nat; there are: {known}")
        return
    address = forward.target.address
    gateways = [ipaddress.IPv4Interface(subnet) for subnet in network.subnets if "." in subnet]
    if address is not None and not any(ipaddress.IPv4Address(address) in each.network for each in gateways):
        told = ", ".join(str(each.network) for each in gateways)
        yield Problem(f"{where}: target.address", f"{address} is not in Network {forward.network}",
                      f"use an address of {told}")  # fmt: skip
    elif address in {str(each.ip) for each in gateways}:
        yield Problem(f"{where}: target.address", f"{address} is the gateway's", "name a guest's address")


def _twice(forwards: Mapping[str, PortForwardSpec], hosts: Mapping[str, HostSpec]) -> Iterator[Problem]:
    """Two forwards that mean one port of one address."""
    by_host: dict[tuple[str, str], list[tuple[tuple[int, int], str]]] = {}
    for name, forward in sorted(forwards.items()):
        for host in forward.listens_on(hosts):
            by_host.setdefault((host, forward.listen.protocol), []).append((forward.ports, name))
    found: dict[tuple[str, str], tuple[str, int, str]] = {}
    for (host, protocol), spans in sorted(by_host.items()):
        for one, other, port in _overlaps(spans):
            found.setdefault((max(one, other), min(one, other)), (host, port, protocol))
    for (name, other), (host, port, protocol) in sorted(found.items()):
        yield Problem(f"PortForward {name}: listen", f"{protocol} port {port} of Host {host} is PortForward {other}'s "
                      "already", "choose another port, or another host")  # fmt: skip


def _overlaps(spans: Iterable[tuple[tuple[int, int], str]]) -> Iterator[tuple[str, str, int]]:
    """Pairs of names whose spans share a port, and the first that they share."""
    last, holder = 0, ""
    for (low, high), name in sorted(spans):
        if low <= last:
            yield holder, name, low
        if high > last:
            last, holder = high, name
