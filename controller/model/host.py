"""Host: one KVM machine with Open vSwitch and, usually, libvirt."""

from __future__ import annotations

import ipaddress
from hashlib import blake2b
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from controller.model.fields import Address, InterfaceName, Mac, ObjectName, OvsdbRemote, Spec, Vlan
from controller.model.libvirt_uri import check_uri

TunnelType = Literal["geneve", "vxlan", "gre"]

# Bytes that encapsulation adds in front of a guest's IP packet: outer IPv4 20, UDP 8 or GRE 8, the tunnel's
# header 8 (geneve and vxlan), inner Ethernet 14. An IPv6 underlay adds 20 more.
_OVERHEAD = {"geneve": 50, "vxlan": 50, "gre": 42}


def _external_address(value: str) -> str:
    try:
        interface = ipaddress.IPv4Interface(value)
    except ValueError:
        interface = None
    network = interface.network if interface is not None else None
    edges = {network.network_address, network.broadcast_address} if network is not None else set()
    if interface is None or "/" not in value or not 1 <= interface.network.prefixlen <= 30 or interface.ip in edges:
        raise ValueError(f"{value!r} is no address of a machine with its prefix length; write 203.0.113.11/24")
    return str(interface)


def _external_address6(value: str) -> str:
    try:
        interface = ipaddress.IPv6Interface(value)
    except ValueError:
        interface = None
    usable = interface is not None and not (interface.is_multicast or interface.is_link_local or interface.is_loopback)
    if interface is None or not usable or "/" not in value or not 1 <= interface.network.prefixlen <= 126:
        raise ValueError(f"{value!r} is no address of a machine with its prefix length; write 2001:db8::11/64")
    if interface.ip == interface.network.network_address:
        raise ValueError(f"{value!r} is all routers' address (RFC 4291, 2.6.1); write another of {interface.network}")
    return str(interface)


class Uplink(Spec):
    """The way from a host to one physical network: an interface that fleetswitch puts in a bridge of its own."""

    interface: InterfaceName = Field(description="the network interface, for example ens224")


class External(Spec):
    """Where the host's guests of routed networks reach the outside: its address on a physical network."""

    uplink: ObjectName = Field(description="one of the host's uplinks")
    vlan: Vlan | None = Field(default=None, description="the VLAN there; untagged when absent")
    address: Annotated[str, AfterValidator(_external_address)] = Field(
        description="the host's own address there with its prefix length, such as 203.0.113.11/24"
    )
    gateway: Address = Field(description="the router there, to which goes what is for elsewhere")
    mac: Mac | None = Field(default=None, description="made from the host's name when absent")
    address6: Annotated[str, AfterValidator(_external_address6)] | None = Field(
        default=None, description="its IPv6 address there with its prefix length, such as 2001:db8::11/64"
    )
    gateway6: Address | None = Field(default=None, description="the router there for IPv6; may be link-local")
    mtu: int = Field(default=1500, ge=576, le=65535, description="bytes that an IP packet may have on that wire")

    @property
    def ip(self) -> str:
        return self.address.partition("/")[0]

    @property
    def subnet(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Interface(self.address).network

    @property
    def ip6(self) -> str | None:
        return self.address6.partition("/")[0] if self.address6 is not None else None

    @property
    def ips(self) -> tuple[str, ...]:
        """Its addresses, of IPv4 first."""
        return self.ip, *([self.ip6] if self.ip6 is not None else [])

    @property
    def subnet6(self) -> ipaddress.IPv6Network | None:
        return ipaddress.IPv6Interface(self.address6).network if self.address6 is not None else None

    @property
    def subnets(self) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        return self.subnet, *([self.subnet6] if self.subnet6 is not None else [])

    @model_validator(mode="after")
    def _ipv6_is_whole(self) -> External:
        if (self.address6 is None) != (self.gateway6 is None):
            lacks, has = ("gateway6", "address6") if self.gateway6 is None else ("address6", "gateway6")
            raise ValueError(f"has {has} without {lacks}; add {lacks}, or leave {has} out")
        if self.address6 is None or self.gateway6 is None or self.subnet6 is None:
            return self
        router = ipaddress.ip_address(self.gateway6)
        if router.version != 6 or not (router.is_link_local or router in self.subnet6) or self.gateway6 == self.ip6:
            raise ValueError(f"has the gateway6 {self.gateway6}, which is no other machine of {self.subnet6}; name the "
                             "router there, by an address of that subnet or a link-local one")  # fmt: skip
        if self.mtu < 1280:  # RFC 8200, 5
            raise ValueError(f"has address6 and mtu {self.mtu}; IPv6 needs 1280 or more")
        return self

    @model_validator(mode="after")
    def _gateway_is_there(self) -> External:
        if "." not in self.gateway or ipaddress.IPv4Address(self.gateway) not in self.subnet:
            raise ValueError(f"has the gateway {self.gateway}, which is not in {self.subnet}; name the router there")
        if self.gateway == self.ip:
            raise ValueError(f"has {self.gateway} as its address and as its gateway; the gateway is another machine")
        return self


class HostStatus(BaseModel):
    """What was observed of a host and is kept in its row."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    strays: dict[str, int] = Field(
        default_factory=dict, description="interfaces on its bridge that are no guest's, with their OpenFlow ports"
    )


class HostSpec(Spec):
    """What the operator says of a host."""

    ovsdb: OvsdbRemote = Field(description="where its ovsdb-server listens: tcp:, ssl: or unix:")
    libvirt: Annotated[str, AfterValidator(check_uri)] | None = Field(
        default=None, description="its libvirtd; without it vNICs are known from OVSDB, and from a hook if it has one"
    )
    tunnel_ip: Address | None = Field(default=None, description="its address on the underlay; needed for overlays")
    tunnel: TunnelType = Field(default="geneve", description="the encapsulation in which others reach this host")
    underlay_mtu: int = Field(default=1500, ge=576, le=65535, description="the MTU between tunnel addresses, bytes")
    bridge: InterfaceName = Field(default="br-int", description="the integration bridge; guests attach to it")
    datapath_type: Literal["system", "netdev"] = Field(
        default="system", description="system is the kernel's datapath, netdev is userspace and DPDK"
    )
    uplinks: dict[ObjectName, Uplink] = Field(default_factory=dict, description="physical network → uplink")
    external: External | None = Field(default=None, description="where its guests of routed networks reach the outside")
    lldp: bool = Field(default=True, description="whether it says who it is on its uplinks, by LLDP; it listens anyway")

    @model_validator(mode="after")
    def _one_interface_one_uplink(self) -> HostSpec:
        seen: dict[str, str] = {}
        for physical_network, uplink in self.uplinks.items():
            other = seen.setdefault(uplink.interface, physical_network)
            if other != physical_network:
                raise ValueError(
                    f"uplinks {other} and {physical_network} both use {uplink.interface}; give each its own"
                )
        return self

    @model_validator(mode="after")
    def _external_has_an_uplink(self) -> HostSpec:
        if self.external is not None and self.external.uplink not in self.uplinks:
            known = ", ".join(sorted(self.uplinks)) or "none"
            raise ValueError(f"has external on {self.external.uplink}, which is no uplink of it; there are: {known}")
        return self

    def overlay_mtu(self) -> int:
        """Bytes that an IP packet of a guest may have to reach this host through its tunnel."""
        return self.underlay_mtu - _OVERHEAD[self.tunnel] - (20 if self.tunnel_ip and ":" in self.tunnel_ip else 0)


def external_mac(host: str, external: External) -> str:
    """The MAC that a host has at its external address: locally administered (IEEE 802-2014, 8.4)."""
    return external.mac or "02:f5:" + blake2b(f"host {host}".encode(), digest_size=4).digest().hex(":")
