"""FloatingIP: an address outside that is one guest's, wherever it runs."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from hashlib import blake2b

from pydantic import Field

from controller.errors import Problem
from controller.model import target
from controller.model.fields import Mac, ProfilePart, Spec
from controller.model.host import External, HostSpec
from controller.model.network import NetworkSpec
from controller.model.port import PortSpec
from controller.model.subnet import Ipv4
from controller.model.target import GuestTarget


class FloatingIPSpec(Spec):
    """What the operator says of a floating address. It is where its target is, and leads to its address there."""

    network: ProfilePart = Field(description="the network of the guest, with mode nat")
    address: Ipv4 = Field(description="outside: of the subnet of hosts' external addresses")
    target: GuestTarget
    mac: Mac | None = Field(
        default=None, description="by which it is reached outside; made from the address when absent"
    )

    @property
    def eth(self) -> str:
        """The MAC that goes with the address: locally administered (IEEE 802-2014, 8.4)."""
        return self.mac or "02:f1:" + blake2b(f"floating {self.address}".encode(), digest_size=4).digest().hex(":")

    def answered_by(self, hosts: Mapping[str, HostSpec]) -> frozenset[str]:
        """The hosts that meet the outside where the address is."""
        return frozenset(
            name for name, host in hosts.items() if host.external is not None and self.is_at(host.external)
        )

    def is_at(self, external: External) -> bool:
        return ipaddress.IPv4Address(self.address) in external.subnet


def problems(
    floating: Mapping[str, FloatingIPSpec],
    hosts: Mapping[str, HostSpec],
    networks: Mapping[str, NetworkSpec],
    ports: Mapping[str, PortSpec],
) -> Iterator[Problem]:
    """What does not hold between the floating addresses and the rest of a fleet."""
    seen: dict[tuple[str, str], str] = {}
    for name, spec in sorted(floating.items()):
        where = f"FloatingIP {name}"
        yield from _outside(where, spec, hosts)
        yield from _guests(where, spec, hosts, networks, ports)
        yield from target.problems(where, spec.network, spec.target, networks)
        for what, value, remedy in (
            ("address", spec.address, "give each its own"),
            ("mac", spec.eth, "give each its own"),
            ("target", f"{spec.network}: {spec.target!r}", "a guest's address has one floating address"),
        ):
            if (other := seen.setdefault((what, value), name)) != name:
                told = "its guest" if what == "target" else value
                yield Problem(f"{where}: {what}", f"{told} is FloatingIP {other}'s already", remedy)


def _outside(where: str, spec: FloatingIPSpec, hosts: Mapping[str, HostSpec]) -> Iterator[Problem]:
    there = spec.answered_by(hosts)
    if not there:
        subnets = sorted({str(host.external.subnet) for host in hosts.values() if host.external is not None})
        yield Problem(f"{where}: address", f"{spec.address} is in no subnet of a host's external address",
                      f"those are: {', '.join(subnets) or 'none yet'}")  # fmt: skip
    address = ipaddress.IPv4Address(spec.address)
    for name, external in sorted((name, each) for name, host in hosts.items() if (each := host.external) is not None):
        if spec.address == external.ip:
            yield Problem(f"{where}: address", f"{address} is Host {name}'s external address", "choose another")
        elif spec.address == external.gateway:
            yield Problem(f"{where}: address", f"{address} is the router of Host {name}", "choose another")
        elif name in there and address in {external.subnet.network_address, external.subnet.broadcast_address}:
            yield Problem(f"{where}: address", f"{address} is no address of a machine in {external.subnet}",
                          "choose another")  # fmt: skip
        else:
            continue
        return


def _guests(
    where: str,
    spec: FloatingIPSpec,
    hosts: Mapping[str, HostSpec],
    networks: Mapping[str, NetworkSpec],
    ports: Mapping[str, PortSpec],
) -> Iterator[Problem]:
    """An address of the wire that is a registered guest's there."""
    outsides = (hosts[name].external for name in spec.answered_by(hosts))
    wires = {(each.uplink, each.vlan or 0) for each in outsides if each is not None}
    for name, port in sorted(ports.items()):
        network = networks.get(port.network)
        if spec.address not in port.addresses or network is None or network.physical_network is None:
            continue
        if any((network.physical_network, vlan) in wires for vlan in network.vlans()):
            yield Problem(f"{where}: address", f"{spec.address} is Port {name}'s on Network {port.network}",
                          "choose another")  # fmt: skip
