"""Network: one layer-2 network over the fleet, with portgroups as its kinds of sockets."""

from __future__ import annotations

import ipaddress
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from pydantic import Field, field_validator, model_validator

from controller.model.dns import Dns
from controller.model.fields import Address, Mac, ObjectName, ProfilePart, Spec, Uuid, Vlan
from controller.model.guard import ELSEWHERE, FilterName, about_addresses, about_senders
from controller.model.host import HostSpec
from controller.model.nat import Nat
from controller.model.subnet import Dhcp, Route, Subnet, gateway_mac, link_local

Mode = Literal["isolated", "bridge", "nat", "route", "open"]
Isolation = Literal["none", "isolated", "private", "vepa", "passthrough"]

DEFAULT_PORTGROUP = "default"
UNTAGGED = 0
IPV6_MTU = 1280  # RFC 8200, 5: bytes that every wire carries
DEFAULT_MAX_MACS = 32

_NAMESPACE = uuid.UUID("5d1a5a0e-6a52-5f0d-9d7c-f1ee75a17c40")


class PortGroup(Spec):
    """A kind of socket of a network: what a vNIC gets that names it.

    isolation: ``none``; ``isolated``: no exchange with other isolated vNICs (libvirt's ``<port isolated='yes'/>``);
    ``private``: reaches the uplink only; ``vepa``: every frame leaves by the uplink, the physical switch sends it
    back; ``passthrough``: the vNIC alone has the uplink, tags included (macvtap's modes of these names).
    """

    vlan: Vlan | None = Field(default=None, description="access VLAN; the network's own when absent")
    trunk: tuple[Vlan, ...] = Field(default=(), description="VLANs that the guest sends and receives tagged")
    native: Vlan | None = Field(default=None, description="of the trunk: the VLAN of the guest's untagged frames")
    native_mode: Literal["untagged", "tagged"] = Field(
        default="untagged", description="how frames of the native VLAN reach the guest"
    )
    isolation: Isolation = "none"
    filters: tuple[FilterName, ...] | None = Field(
        default=None, description="what its vNICs may send (see Filters); from their own addresses when absent"
    )
    learning: bool = Field(
        default=False, description="others are behind its vNICs (nested guests, a bridge): their MACs are learned"
    )
    learn_addresses: int = Field(
        default=0,
        ge=0,
        le=64,
        description="of a vNIC without addresses: so many of each family that it claims are its own",
    )
    max_macs: int | None = Field(default=None, ge=1, le=4096, description=f"of learning, a vNIC: {DEFAULT_MAX_MACS}")

    @field_validator("filters", mode="before")
    @classmethod
    def _libvirts_others(cls, value: object) -> object:
        for name in value if isinstance(value, (list, tuple)) else ():
            if isinstance(name, str) and name in ELSEWHERE:
                raise ValueError(f"has libvirt's filter {name}, which is none here: {ELSEWHERE[name]}")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> PortGroup:
        if self.vlan is not None and self.trunk:
            raise ValueError("has both vlan and trunk; an access port has vlan, a trunk has trunk and native")
        if self.native is not None and not self.trunk:
            raise ValueError(f"has native {self.native} without trunk; list the trunk's VLANs, or use vlan")
        if self.native is None and self.native_mode == "tagged":
            raise ValueError("has native_mode tagged without native; name the native VLAN")
        if len(set(self.trunk)) != len(self.trunk):
            raise ValueError(f"lists a VLAN twice in trunk {list(self.trunk)}; name each once")
        if self.isolation == "passthrough" and (self.vlan is not None or self.trunk):
            raise ValueError("is passthrough and has a VLAN; passthrough hands the guest every frame as it is")
        if self.isolation == "passthrough" and self.filters:
            raise ValueError("is passthrough and has filters; passthrough takes every frame of the guest as it is")
        return self

    @model_validator(mode="after")
    def _learning_fits(self) -> PortGroup:
        if self.max_macs is not None and not self.learning:
            raise ValueError("has max_macs without learning; add learning: true, or leave max_macs out")
        if self.learning and self.isolation != "none":
            raise ValueError(f"is learning and {self.isolation}; those behind its vNICs could not be held apart; use "
                             "isolation none")  # fmt: skip
        if self.learning and (wrong := about_senders(self.filters or ())):
            raise ValueError(f"is learning and has the filter {wrong[0]}; those behind its vNICs have other addresses, "
                             "so leave it out")  # fmt: skip
        return self

    @model_validator(mode="after")
    def _learn_addresses_fits(self) -> PortGroup:
        if not self.learn_addresses:
            return self
        if self.learning:
            raise ValueError("has learn_addresses and learning; those behind its vNICs have addresses of their own, so "
                             "leave one of the two out")  # fmt: skip
        if self.isolation == "passthrough":
            raise ValueError("is passthrough and has learn_addresses; passthrough takes every frame as it is")
        if self.filters is not None and not about_addresses(self.filters):
            raise ValueError("has learn_addresses and no filter that compares addresses; name one, such as "
                             "no-ip-spoofing, or leave filters out")  # fmt: skip
        return self

    @property
    def mac_limit(self) -> int:
        """How many MACs are learned behind each vNIC; 0 is none."""
        return (self.max_macs or DEFAULT_MAX_MACS) if self.learning else 0

    def vlans(self, network_vlan: int) -> frozenset[int]:
        """VLANs of the network that a vNIC of this portgroup is a member of; 0 is the untagged one."""
        if self.trunk:
            return frozenset(self.trunk) | ({self.native} if self.native is not None else frozenset())
        return frozenset({self.vlan if self.vlan is not None else network_vlan})


_PLAIN = PortGroup()


class NetworkSpec(Spec):
    """What the operator says of a network. Modes are libvirt's words (formatnetwork, ``<forward mode>``)."""

    mode: Mode = Field(
        description="isolated: guests only; bridge: a physical network's VLANs; nat: guests, who reach the outside by "
        "the external address of the host that they are on; route: guests, who reach the outside and are reached from "
        "there by their own addresses; open: as route, and they may send from any address"
    )
    physical_network: ObjectName | None = Field(default=None, description="of mode bridge: the hosts' uplink to use")
    vlan: Vlan | None = Field(default=None, description="VLAN of vNICs whose portgroup says nothing; none is untagged")
    span: Literal["fleet", "host"] = Field(
        default="fleet",
        description="not of mode bridge: over all hosts, or each host by itself as libvirt means it",
    )
    mtu: int | None = Field(default=None, ge=576, le=65535, description="bytes; the largest that fits when absent")
    uuid: Uuid | None = Field(default=None, description="of the libvirt networks; made from the name when absent")
    portgroups: dict[ProfilePart, PortGroup] = Field(default_factory=dict)
    reserved_addresses: tuple[Address, ...] = Field(
        default=(), max_length=64, description="no vNIC's (a physical router's), unless one is registered with it"
    )
    subnets: tuple[Subnet, ...] = Field(
        default=(), max_length=8, description="the gateway's address in each, or the subnet itself; not of mode bridge"
    )
    gateway_mac: Mac | None = Field(
        default=None, description="of the gateway on every host; made from the name if absent"
    )
    dhcp: Dhcp | None = Field(default=None, description="what guests get by DHCP; nothing when absent")
    dns: Dns | None = Field(
        default=None, description="DNS at the gateway; when absent it answers for guests' names, and asks others"
    )
    nat: Nat | None = Field(
        default=None, description="of mode nat: as whom guests leave; as their host's external address when absent"
    )
    routes: tuple[Route, ...] = Field(
        default=(), max_length=64, description="of route and open: subnets behind guests, each to, and via which guest"
    )

    @model_validator(mode="after")
    def _subnets_fit(self) -> NetworkSpec:
        if self.subnets and self.mode == "bridge":
            raise ValueError("has mode bridge and subnets; the physical network has its own gateway, so leave them out")
        if self.gateway_mac is not None and not self.subnets:
            raise ValueError("has gateway_mac without subnets; add the subnets, or leave gateway_mac out")
        networks = [ipaddress.ip_interface(subnet).network for subnet in self.subnets]
        for number, one in enumerate(networks):
            for other in networks[:number]:
                if one.version == other.version and one.overlaps(other):
                    raise ValueError(f"has the subnets {other} and {one}, which overlap; keep one of them")
        if self.mtu is not None and self.mtu < IPV6_MTU and self.has_subnet(6):
            raise ValueError(f"has mtu {self.mtu} and an IPv6 subnet; IPv6 needs {IPV6_MTU} or more")
        if self.dhcp is not None:
            for problem in self.dhcp.problems(self.subnets):
                raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _dns_fits(self) -> NetworkSpec:
        if self.dns is not None and self.dns.enable and not any("." in subnet for subnet in self.subnets):
            raise ValueError("has dns without an IPv4 subnet, so no gateway to ask; add one to subnets, such as "
                             "10.10.10.0/24")  # fmt: skip
        domains = [part.domain for part in (self.dhcp, self.dns) if part is not None and part.domain is not None]
        if len({domain.lower() for domain in domains}) > 1:
            raise ValueError(f"has the domains {' and '.join(domains)}, in dhcp and in dns; keep one of them")
        if self.dns is not None and self.dns.local_only and self.dns_domain is None:
            raise ValueError("has local_only in dns without a domain; add domain there")
        return self

    @model_validator(mode="after")
    def _routes_fit(self) -> NetworkSpec:
        gateways = [*map(ipaddress.ip_interface, self.subnets)]
        for route in self.routes:
            if self.mode not in {"route", "open"}:
                raise ValueError(f"has mode {self.mode} and routes; use mode route or open, or leave routes out")
            via, to = ipaddress.ip_address(route.via), ipaddress.ip_network(route.to)
            if via.version != to.version:
                raise ValueError(f"routes {to} via {via}, of another version of IP; name an address of IPv{to.version}")
            if not any(via in each.network and via != each.ip for each in gateways):
                raise ValueError(f"routes {route.to} via {via}, which is no guest's address; use one of its subnets")
            if any(each.version == to.version and each.network.overlaps(to) for each in gateways):
                raise ValueError(f"routes {route.to}, which is its own subnet; route what is behind its guests")
        if len({route.to for route in self.routes}) != len(self.routes):
            raise ValueError("routes one subnet twice; keep one of the two")
        return self

    @model_validator(mode="after")
    def _nat_fits(self) -> NetworkSpec:
        if self.nat is not None and self.mode != "nat":
            raise ValueError(f"has mode {self.mode} and nat; use mode nat, or leave nat out")
        if self.nat is not None and self.nat.addresses and not self.has_subnet(4):
            raise ValueError("has nat.addresses and no IPv4 subnet, whose guests would use them; leave them out")
        return self

    @property
    def prefixes(self) -> tuple[str, ...]:
        """Its subnets, and those behind its guests."""
        return (*(str(ipaddress.ip_interface(each).network) for each in self.subnets), *(r.to for r in self.routes))

    @model_validator(mode="after")
    def _mode_fits(self) -> NetworkSpec:
        if self.mode == "bridge" and self.physical_network is None:
            raise ValueError("has mode bridge without physical_network; name one of the hosts' uplinks")
        if self.mode == "bridge" and self.span == "host":
            raise ValueError("has mode bridge and span host; a physical network is everywhere where its uplink is")
        if self.is_routed and not self.subnets:
            raise ValueError(f"has mode {self.mode} without a subnet; add one to subnets, such as 10.10.10.0/24")
        if self.mode != "bridge" and self.physical_network is not None:
            raise ValueError(
                f"has mode {self.mode} and names physical_network {self.physical_network}; use mode bridge"
            )
        if self.mode != "bridge":
            for name, group in self.portgroups.items():
                if group.isolation in {"private", "vepa", "passthrough"}:
                    raise ValueError(f"has mode {self.mode}, and portgroup {name} is {group.isolation}, which needs an "
                                     "uplink; use mode bridge, or isolation isolated")  # fmt: skip
        return self

    def has_subnet(self, version: Literal[4, 6]) -> bool:
        """Whether it has a subnet of that version of IP."""
        return any((":" in subnet) == (version == 6) for subnet in self.subnets)

    def autonomous(self) -> tuple[ipaddress.IPv6Network, ...]:
        """The subnets in which guests make their addresses themselves (SLAAC, RFC 4862): where none are leased, and
        the prefix leaves an interface's identifier its 64 bits (5.5.3 d)."""
        subnets = (ipaddress.IPv6Interface(subnet).network for subnet in self.subnets if ":" in subnet)
        return tuple(
            subnet
            for subnet in subnets
            if subnet.prefixlen == 64 and (self.dhcp is None or not self.dhcp.leases_in(subnet))
        )

    @property
    def is_routed(self) -> bool:
        """Whether its guests reach more than each other by their gateway."""
        return self.mode in {"nat", "route", "open"}

    @property
    def is_overlay(self) -> bool:
        """Whether it reaches from host to host through tunnels."""
        return self.mode != "bridge" and self.span == "fleet"

    @property
    def answers_dns(self) -> bool:
        """Whether the gateway answers DNS."""
        return any("." in subnet for subnet in self.subnets) and (self.dns is None or self.dns.enable)

    @property
    def dns_domain(self) -> str | None:
        """The guests' DNS domain, in lower case."""
        domain = (self.dns and self.dns.domain) or (self.dhcp and self.dhcp.domain)
        return domain.lower() if domain else None

    @property
    def untagged_vlan(self) -> int:
        """VLAN of a vNIC whose portgroup says nothing; 0 is the untagged one."""
        return self.vlan if self.vlan is not None else UNTAGGED

    def portgroup(self, name: str) -> PortGroup | None:
        """The portgroup of that name; ``default`` always exists."""
        group = self.portgroups.get(name)
        return _PLAIN if group is None and name == DEFAULT_PORTGROUP else group

    def portgroup_names(self) -> tuple[str, ...]:
        """All portgroups, ``default`` first."""
        return (DEFAULT_PORTGROUP, *sorted(name for name in self.portgroups if name != DEFAULT_PORTGROUP))

    def vlans(self) -> frozenset[int]:
        """Every VLAN of which some portgroup is a member; 0 is the untagged one."""
        found: set[int] = set()
        for name in self.portgroup_names():
            group = self.portgroup(name)
            if group is not None and group.isolation != "passthrough":
                found |= group.vlans(self.untagged_vlan)
        return frozenset(found)


def network_uuid(name: str, spec: NetworkSpec) -> str:
    """The UUID that the network has as a libvirt network on every host."""
    return spec.uuid or str(uuid.uuid5(_NAMESPACE, name))


def return_routes(spec: NetworkSpec, hosts: Mapping[str, HostSpec]) -> list[str]:
    """What the physical network's routers must know so that answers find the guests, as ``SUBNET via ADDRESS``.

    Any of the ways to a subnet is enough: the host that a packet comes to sends it on to its guest's.
    """
    if spec.mode not in {"route", "open"}:
        return []
    outsides = [host.external for _, host in sorted(hosts.items()) if host.external is not None]
    ways = [address for each in outsides for address in each.ips]
    return [f"{to} via {way}" for to in spec.prefixes for way in ways if (":" in to) == (":" in way)]


def network_gateway_mac(name: str, spec: NetworkSpec) -> str:
    """The MAC that the network's gateway has on every host."""
    return spec.gateway_mac or gateway_mac(name)


def nobodys_addresses(
    name: str, spec: NetworkSpec, hosts: Mapping[str, HostSpec], floating: Iterable[str]
) -> tuple[str, ...]:
    """Those that no vNIC of the network can learn: what is reserved, and the gateway's; where hosts meet the outside
    in it, theirs and their routers', and of the ``floating`` addresses those that they answer for there."""
    gateways = tuple(str(ipaddress.ip_interface(subnet).ip) for subnet in spec.subnets)
    own = (link_local(network_gateway_mac(name, spec)),) if spec.has_subnet(6) else ()
    return tuple(dict.fromkeys((*spec.reserved_addresses, *gateways, *own, *_outside(spec, hosts, floating))))


def _outside(spec: NetworkSpec, hosts: Mapping[str, HostSpec], floating: Iterable[str]) -> Iterator[str]:
    if spec.physical_network is None or not any(group.learn_addresses for group in spec.portgroups.values()):
        return
    vlans, subnets = spec.vlans(), set()
    for external in (host.external for host in hosts.values()):
        if external is not None and external.uplink == spec.physical_network and (external.vlan or 0) in vlans:
            yield from (*external.ips, external.gateway, *([external.gateway6] if external.gateway6 else []))
            subnets |= set(external.subnets)
    for address in floating if subnets else ():
        if any(ipaddress.ip_address(address) in subnet for subnet in subnets):
            yield address
