"""The kinds that an operator can write, and what must hold between objects of a fleet."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from controller.errors import Problem
from controller.model import bgp, floating, forward, nat_pools
from controller.model.bgp import BgpPeerSpec
from controller.model.fields import Spec
from controller.model.floating import FloatingIPSpec
from controller.model.forward import PortForwardSpec
from controller.model.host import HostSpec
from controller.model.network import IPV6_MTU, NetworkSpec, network_uuid
from controller.model.port import PortSpec

KINDS: Mapping[str, type[Spec]] = {
    "Host": HostSpec, "Network": NetworkSpec, "Port": PortSpec, "PortForward": PortForwardSpec,
    "BgpPeer": BgpPeerSpec,
    "FloatingIP": FloatingIPSpec,
}  # fmt: skip

DEFAULT_MTU = 1500  # RFC 894; what libvirt gives a vNIC that says nothing

# The name of a network is half of a profile id; the others follow the wider rule.
PROFILE_NAMED = frozenset({"Network"})


@dataclass(slots=True)
class Fleet:
    """All specs of a fleet by kind and name, as they are wanted to be after a change."""

    hosts: dict[str, HostSpec] = field(default_factory=dict)
    networks: dict[str, NetworkSpec] = field(default_factory=dict)
    ports: dict[str, PortSpec] = field(default_factory=dict)
    forwards: dict[str, PortForwardSpec] = field(default_factory=dict)
    floating: dict[str, FloatingIPSpec] = field(default_factory=dict)
    bgp_peers: dict[str, BgpPeerSpec] = field(default_factory=dict)

    def put(self, name: str, spec: Spec) -> None:
        match spec:
            case HostSpec():
                self.hosts[name] = spec
            case NetworkSpec():
                self.networks[name] = spec
            case PortSpec():
                self.ports[name] = spec
            case PortForwardSpec():
                self.forwards[name] = spec
            case BgpPeerSpec():
                self.bgp_peers[name] = spec
            case FloatingIPSpec():
                self.floating[name] = spec

    def problems(self) -> list[Problem]:
        """What does not hold between the objects; empty when the fleet is consistent."""
        forwards = forward.problems(self.forwards, self.hosts, self.networks)
        outside = floating.problems(self.floating, self.hosts, self.networks, self.ports)
        pools = nat_pools.problems(self.networks, self.hosts, self.floating, self.ports)
        routers = bgp.problems(self.bgp_peers)
        return [*self._hosts(), *self._networks(), *self._ports(), *forwards, *outside, *pools, *routers]

    def _hosts(self) -> list[Problem]:
        found = []
        for what in ("ovsdb", "tunnel_ip", "libvirt"):
            seen: dict[str, str] = {}
            for name, host in sorted(self.hosts.items()):
                value = getattr(host, what)
                if value is None:
                    continue
                other = seen.setdefault(value, name)
                if other != name:
                    found.append(Problem(f"Host {name}: {what}", f"{value} is Host {other}'s already",
                                         "give each host its own"))  # fmt: skip
        outside: dict[str, str] = {}
        for name, host in sorted(self.hosts.items()):
            for address in host.external.ips if host.external is not None else ():
                if (other := outside.setdefault(address, name)) != name:
                    what = "address6" if ":" in address else "address"
                    found.append(Problem(f"Host {name}: external.{what}", f"{address} is Host {other}'s already",
                                         "give each host its own"))  # fmt: skip
        return found

    def _networks(self) -> list[Problem]:
        found = []
        vlans: dict[tuple[str, int], str] = {}
        uuids: dict[str, str] = {}
        limit = overlay_mtu(self.hosts.values())
        for name, network in sorted(self.networks.items()):
            other = uuids.setdefault(network_uuid(name, network), name)
            if other != name:
                found.append(Problem(f"Network {name}: uuid", f"is Network {other}'s already", "leave it out"))
            if network.physical_network is not None:
                for vlan in sorted(network.vlans()):
                    other = vlans.setdefault((network.physical_network, vlan), name)
                    if other != name:
                        found.append(Problem(
                            f"Network {name}: vlan", f"{vlan or 'untagged'} on {network.physical_network} is Network "
                            f"{other}'s already", f"choose another VLAN, or use a portgroup of {other}"))  # fmt: skip
            found += _mtu_problems(name, network, limit if network.is_overlay else None)
        return [*found, *self._subnets()]

    def _subnets(self) -> list[Problem]:
        """Whoever is routed has addresses that nobody else has: by them it is found, and answers are told apart."""
        found: list[Problem] = []
        taken: list[tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, str]] = []
        for name, host in sorted(self.hosts.items()):
            for subnet in host.external.subnets if host.external is not None else ():
                if subnet not in [other for other, _ in taken]:
                    taken.append((subnet, f"outside of Host {name}"))
        for name, network in sorted(self.networks.items()):
            own = [*map(ipaddress.ip_network, network.prefixes if network.is_routed else ())]
            for subnet in own:
                for other, whose in taken:
                    if other.version == subnet.version and other.overlaps(subnet):
                        found.append(Problem(f"Network {name}: subnets", f"{subnet} overlaps {other}, {whose}",
                                             "give each network that is routed addresses of its own"))  # fmt: skip
            taken += [(subnet, f"Network {name}") for subnet in own]
        return found

    def _ports(self) -> list[Problem]:
        found = []
        identities: dict[tuple[str, str], str] = {}
        macs: dict[tuple[str, str], str] = {}
        addresses: dict[tuple[str, str], str] = {}
        for name, port in sorted(self.ports.items()):
            where = f"Port {name}"
            network = self.networks.get(port.network)
            if network is None:
                known = ", ".join(sorted(self.networks)[:8]) or "none yet"
                found.append(Problem(f"{where}: network", f"there is no Network {port.network!r}",
                                     f"apply it first or in the same set; there are: {known}"))  # fmt: skip
            elif network.portgroup(port.portgroup) is None:
                found.append(Problem(f"{where}: portgroup", f"Network {port.network} has no portgroup "
                                     f"{port.portgroup!r}",
                                     f"it has: {', '.join(network.portgroup_names())}"))  # fmt: skip
            other = identities.setdefault((port.vm, port.mac), name)
            if other != name:
                found.append(Problem(f"{where}: mac", f"{port.mac} of {port.vm} is registered as Port {other} already",
                                     "delete one of the two"))  # fmt: skip
                continue
            other = macs.setdefault((port.network, port.mac), name)
            if other != name:
                found.append(Problem(f"{where}: mac", f"{port.mac} is Port {other}'s on Network {port.network} already",
                                     "give each vNIC its own MAC address"))  # fmt: skip
            for address in port.addresses:
                owners = [addresses.setdefault((scope, address), name) for scope in _address_scopes(port, network)]
                other = next((owner for owner in owners if owner != name), name)
                if other != name:
                    found.append(Problem(f"{where}: addresses", f"{address} is Port {other}'s in the same VLAN of "
                                         f"Network {port.network} already", "give each vNIC its own"))  # fmt: skip
        return found


def _address_scopes(port: PortSpec, network: NetworkSpec | None) -> list[str]:
    """Ports of one VLAN share one space of addresses; the same address may be used again in another VLAN."""
    group = network.portgroup(port.portgroup) if network is not None else None
    vlans = sorted(group.vlans(network.untagged_vlan)) if network is not None and group is not None else []
    return [f"{port.network}/{vlan}" for vlan in vlans]


def _mtu_problems(name: str, network: NetworkSpec, limit: int | None) -> list[Problem]:
    """``limit`` is what tunnels carry, for a network that needs them."""
    if limit is not None and limit < IPV6_MTU and network.has_subnet(6):
        return [Problem(f"Network {name}: subnets", f"IPv6 needs {IPV6_MTU} bytes, and the fleet's tunnels carry "
                        f"{limit}", "raise underlay_mtu of the hosts, or leave IPv6 out")]  # fmt: skip
    if network.mtu is None or limit is None or network.mtu <= limit:
        return []
    return [Problem(f"Network {name}: mtu", f"{network.mtu} does not fit through the fleet's tunnels, which carry "
                    f"{limit}", f"use {limit} or less, or raise underlay_mtu of the hosts")]  # fmt: skip


def overlay_mtu(hosts: Iterable[HostSpec]) -> int | None:
    """The largest IP packet, in bytes, that every tunnel of these HostSpecs carries; None when there is no tunnel."""
    limits = [host.overlay_mtu() for host in hosts if host.tunnel_ip is not None]
    return min(limits, default=None)


def network_mtu(network: NetworkSpec, overlay_limit: int | None) -> int:
    """Bytes that an IP packet of the network's guests may have; what the guests must be told.

    ``overlay_limit`` is ``overlay_mtu`` of the fleet's hosts.
    """
    if network.mtu is not None:
        return network.mtu
    limit = overlay_limit if network.is_overlay else None
    return DEFAULT_MTU if limit is None else min(limit, DEFAULT_MTU)
