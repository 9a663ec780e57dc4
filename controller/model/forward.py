"""PortForward: ports of hosts' external addresses that lead to a guest of a nat network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from pydantic import Field, model_validator

from controller.errors import Problem
from controller.model import target
from controller.model.fields import Address, ObjectName, Ports, ProfilePart, Spec, span
from controller.model.host import HostSpec
from controller.model.network import NetworkSpec
from controller.model.target import Family, GuestTarget, family_of

Protocol = Literal["tcp", "udp", "sctp"]

MAX_SHIFTED = 1024  # ports of a range that become others: each is a flow of its own


class Listen(Spec):
    """Where machines outside connect to."""

    port: Ports = Field(description="one port, or a range as LOW-HIGH")
    protocol: Protocol = "tcp"
    host: ObjectName | None = Field(
        default=None, description="whose external address; that of every host which has one when absent"
    )
    address: Address | None = Field(default=None, description="instead of host: the external address itself")
    family: Family | None = Field(
        default=None, description="ipv6 for external.address6; when absent that of the addresses here, else ipv4"
    )

    @model_validator(mode="after")
    def _one_place(self) -> Listen:
        if self.host is not None and self.address is not None:
            raise ValueError("has both host and address; keep one of them")
        return self


class ForwardTarget(GuestTarget):
    """The guest that a forward leads to, and the port there."""

    port: Ports | None = Field(default=None, description="there; the same as outside when absent")


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

    @model_validator(mode="after")
    def _one_family(self) -> PortForwardSpec:
        for what, address in (("listen", self.listen.address), ("target", self.target.address)):
            if address is not None and family_of(address) != self.family:
                raise ValueError(
                    f"is of {self.family} and has the {what}.address {address}; addresses are translated within one "
                    "family: make a PortForward for each"
                )
        return self

    @property
    def family(self) -> Family:
        """Which addresses of hosts it means, and of its target."""
        written = self.listen.address or self.target.address
        return self.listen.family or (family_of(written) if written is not None else "ipv4")

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
            if (own := _external_ip(host, self.family)) is not None
            and listen.host in {None, name}
            and listen.address in {None, own}
        )


def _external_ip(host: HostSpec, family: Family) -> str | None:
    if host.external is None:
        return None
    return host.external.ip6 if family == "ipv6" else host.external.ip


def problems(
    forwards: Mapping[str, PortForwardSpec], hosts: Mapping[str, HostSpec], networks: Mapping[str, NetworkSpec]
) -> Iterator[Problem]:
    """What does not hold between the forwards and the rest of a fleet."""
    for name, forward in sorted(forwards.items()):
        where = f"PortForward {name}"
        yield from _listens(where, forward, hosts)
        yield from target.problems(where, forward.network, forward.target, forward.family, networks)
    yield from _twice(forwards, hosts)


def _listens(where: str, forward: PortForwardSpec, hosts: Mapping[str, HostSpec]) -> Iterator[Problem]:
    listen = forward.listen
    outside = {name: own for name, host in sorted(hosts.items()) if (own := _external_ip(host, forward.family))}
    known = ", ".join(outside) or "none yet"
    field = "external.address6" if forward.family == "ipv6" else "external"
    if listen.host is not None and listen.host not in hosts:
        yield Problem(f"{where}: listen.host", f"there is no Host {listen.host!r}", f"those with {field} are: {known}")
    elif listen.host is not None and listen.host not in outside:
        which = "IPv6 address outside" if forward.family == "ipv6" else "external address"
        yield Problem(f"{where}: listen.host", f"Host {listen.host} has no {which}",
                      f"give it {field}, or choose one of: {known}")  # fmt: skip
    elif listen.address is not None and not forward.listens_on(hosts):
        known = ", ".join(sorted(outside.values())) or "none"
        yield Problem(f"{where}: listen.address", f"{listen.address} is no host's external address",
                      f"those are: {known}")  # fmt: skip
    for name in sorted(forward.listens_on(hosts)) if listen.protocol == "sctp" else ():
        if hosts[name].datapath_type == "netdev":  # measured with Open vSwitch 3.1: it tracks SCTP without its ports
            yield Problem(f"{where}: listen.protocol", f"Host {name} has datapath_type netdev, which does not know the "
                          "ports of sctp", "choose a host with datapath_type system, or another protocol")  # fmt: skip


def _twice(forwards: Mapping[str, PortForwardSpec], hosts: Mapping[str, HostSpec]) -> Iterator[Problem]:
    """Two forwards that mean one port of one address."""
    by_host: dict[tuple[str, str, Family], list[tuple[tuple[int, int], str]]] = {}
    for name, forward in sorted(forwards.items()):
        for host in forward.listens_on(hosts):
            by_host.setdefault((host, forward.listen.protocol, forward.family), []).append((forward.ports, name))
    found: dict[tuple[str, str], tuple[str, int, str]] = {}
    for (host, protocol, _), spans in sorted(by_host.items()):
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
