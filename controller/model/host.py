"""Host: one KVM machine with Open vSwitch and, usually, libvirt."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from controller.model.fields import Address, InterfaceName, ObjectName, OvsdbRemote, Spec
from controller.model.libvirt_uri import check_uri

TunnelType = Literal["geneve", "vxlan", "gre"]

# Bytes that encapsulation adds in front of a guest's IP packet: outer IPv4 20, UDP 8 or GRE 8, the tunnel's
# header 8 (geneve and vxlan), inner Ethernet 14. An IPv6 underlay adds 20 more.
_OVERHEAD = {"geneve": 50, "vxlan": 50, "gre": 42}


class Uplink(Spec):
    """The way from a host to one physical network: an interface that fleetswitch puts in a bridge of its own."""

    interface: InterfaceName = Field(description="the network interface, for example ens224")


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

    def overlay_mtu(self) -> int:
        """Bytes that an IP packet of a guest may have to reach this host through its tunnel."""
        return self.underlay_mtu - _OVERHEAD[self.tunnel] - (20 if self.tunnel_ip and ":" in self.tunnel_ip else 0)
