"""FloatingIP: an address outside that is one guest's, wherever it runs."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b

from pydantic import Field, model_validator

from controller.errors import Problem
from controller.model import target
from controller.model.fields import Address, Mac, ProfilePart, Spec
from controller.model.host import HostSpec, external_mac
from controller.model.network import NetworkSpec, network_gateway_mac
from controller.model.port import PortSpec
from controller.model.target import Family, GuestTarget, family_of

_Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network


class FloatingIPSpec(Spec):
    """What the operator says of a floating address. It is where its target is, and leads to its address there."""

    network: ProfilePart = Field(description="the network of the guest, with mode nat")
    address: Address = Field(description="outside: of the subnet of hosts' external addresses, of IPv4 or IPv6")
    target: GuestTarget
    mac: Mac | None = Field(
        default=None, description="by which it is reached outside; made from the address when absent"
    )

    @model_validator(mode="after")
    def _one_family(self) -> FloatingIPSpec:
        if self.target.address is not None and family_of(self.target.address) != self.family:
            raise ValueError(
                f"has the address {self.address} and the target.address {self.target.address}; addresses are "
                "translated within one family: make a FloatingIP for each"
            )
        return self

    @property
    def family(self) -> Family:
        return family_of(self.address)

    @property
    def eth(self) -> str:
        """The MAC that goes with the address: locally administered (IEEE 802-2014, 8.4)."""
        return self.mac or "02:f1:" + blake2b(f"floating {self.address}".encode(), digest_size=4).digest().hex(":")

    def is_in(self, subnets: Iterable[_Subnet]) -> bool:
        """Whether some of the subnets has the address."""
        return any(ipaddress.ip_address(self.address) in subnet for subnet in subnets)


def outside_subnets(hosts: Mapping[str, HostSpec]) -> frozenset[_Subnet]:
    """Those of the hosts' external addresses."""
    found = (host.external.subnets for host in hosts.values() if host.external is not None)
    return frozenset(subnet for subnets in found for subnet in subnets)


_Wire = tuple[str, int]
"""A physical network, and the VLAN there; 0 is the untagged one."""


def problems(
    floating: Mapping[str, FloatingIPSpec],
    hosts: Mapping[str, HostSpec],
    networks: Mapping[str, NetworkSpec],
    ports: Mapping[str, PortSpec],
) -> Iterator[Problem]:
    """What does not hold between the floating addresses and the rest of a fleet."""
    if not floating:
        return
    outside, macs = _Outside(hosts), _macs(hosts, networks, ports)
    guests = _guests({spec.address for spec in floating.values()}, networks, ports)
    seen: dict[tuple[str, str], str] = {}
    for name, spec in sorted(floating.items()):
        where = f"FloatingIP {name}"
        yield from outside.problems(where, spec)
        for wire, whose in guests[spec.address]:
            if wire in outside.wires(spec.address):
                yield Problem(f"{where}: address", f"{spec.address} is {whose}", "choose another")
                break
        if spec.eth in macs:
            yield Problem(f"{where}: mac", f"{spec.eth} is {macs[spec.eth]}", "choose another, or leave mac out")
        yield from target.problems(where, spec.network, spec.target, spec.family, networks)
        for what, value, remedy in (
            ("address", spec.address, "give each its own"),
            ("mac", spec.eth, "give each its own"),
            ("target", f"{spec.network}: {spec.family} {spec.target!r}", "a guest's address has one floating address"),
        ):
            if (other := seen.setdefault((what, value), name)) != name:
                told = "its guest" if what == "target" else value
                yield Problem(f"{where}: {what}", f"{told} is FloatingIP {other}'s already", remedy)


class _Outside:
    """Where hosts meet the outside, read once for however many addresses."""

    def __init__(self, hosts: Mapping[str, HostSpec]) -> None:
        self._wires: dict[_Subnet, set[_Wire]] = defaultdict(set)
        self._taken: dict[str, str] = {}
        for name, host in sorted(hosts.items()):
            if (external := host.external) is not None:
                for subnet in external.subnets:
                    self._wires[subnet].add((external.uplink, external.vlan or 0))
                for address in external.ips:
                    self._taken.setdefault(address, f"Host {name}'s external address")
                for router in (external.gateway, external.gateway6):
                    if router is not None:
                        self._taken.setdefault(router, f"the router of Host {name}")

    def wires(self, address: str) -> set[_Wire]:
        """The wires where hosts answer for the address."""
        there = ipaddress.ip_address(address)
        return {wire for subnet, wires in self._wires.items() if there in subnet for wire in wires}

    def problems(self, where: str, spec: FloatingIPSpec) -> Iterator[Problem]:
        address = ipaddress.ip_address(spec.address)
        there = [subnet for subnet in self._wires if address in subnet]
        if not there:
            yield Problem(f"{where}: address", f"{address} is in no subnet of a host's external address",
                          f"those are: {', '.join(sorted(map(str, self._wires))) or 'none yet'}")  # fmt: skip
        if spec.address in self._taken:
            yield Problem(f"{where}: address", f"{address} is {self._taken[spec.address]}", "choose another")
            return
        for subnet in there:
            # Of IPv6 the first one is all routers' (RFC 4291, 2.6.1), and the last one a machine's like any other.
            if address in {subnet.network_address, *([subnet.broadcast_address] if subnet.version == 4 else [])}:
                yield Problem(f"{where}: address", f"{address} is no address of a machine in {subnet}",
                              "choose another")  # fmt: skip
                return


def _guests(
    wanted: set[str], networks: Mapping[str, NetworkSpec], ports: Mapping[str, PortSpec]
) -> Mapping[str, list[tuple[_Wire, str]]]:
    """Of these addresses those that are registered guests' on a wire, with the wire and whose each is."""
    found: dict[str, list[tuple[_Wire, str]]] = defaultdict(list)
    for name, port in sorted(ports.items()):
        network = networks.get(port.network)
        if network is None or network.physical_network is None:
            continue
        for address in wanted.intersection(port.addresses):
            whose = f"Port {name}'s on Network {port.network}"
            found[address] += (((network.physical_network, vlan), whose) for vlan in network.vlans())
    return found


def _macs(
    hosts: Mapping[str, HostSpec], networks: Mapping[str, NetworkSpec], ports: Mapping[str, PortSpec]
) -> Mapping[str, str]:
    """The MACs that are somebody's, and whose: by them switches tell apart what is routed, and for whom."""
    found = {port.mac: f"Port {name}'s" for name, port in ports.items()}
    for name, network in networks.items():
        if network.subnets:
            found[network_gateway_mac(name, network)] = f"the gateway's of Network {name}"
    for name, host in hosts.items():
        if host.external is not None:
            found[external_mac(name, host.external)] = f"that of Host {name}'s external address"
    return found
