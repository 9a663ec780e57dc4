"""What is observed of each kind, as the API shows it: for the OpenAPI document and the names of filters."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, Field

from controller.model.port import PortStatus


class LinkStatus(BaseModel):
    """One of the controller's connections to a host."""

    state: str = Field(description="up, down, or a word between them")
    reason: str = Field(default="", description="why it is not up")


class HookStatus(BaseModel):
    """The hook in a host's libvirt."""

    version: int | None = Field(description="of what it writes; none: not understood")
    refuses: bool = Field(default=False, description="it turns away vNICs that name no network or portgroup of ours")
    reason: str = Field(default="", description="what is wrong with it")


class HeardStatus(BaseModel):
    """A neighbour of an uplink, as it says of itself by LLDP."""

    uplink: str = Field(description="physical network")
    system_name: str = ""
    chassis: str = Field(description="its chassis id")
    port: str = Field(description="the id of its port that the uplink is connected with")
    port_description: str = ""
    port_vlan: int | None = Field(default=None, description="VLAN of untagged frames on that port, where it tells")
    ttl: int = Field(description="seconds for which this holds, from when it was heard")
    host: str | None = Field(default=None, description="the Host of this fleet that it is")


class HostStatus(BaseModel):
    """What was observed of a host."""

    openflow: LinkStatus | None = Field(default=None, description="none: not driven yet")
    ovsdb: LinkStatus | None = None
    libvirt: LinkStatus | None = Field(default=None, description="none: the host names no libvirt")
    hook: HookStatus | None = Field(default=None, description="none: its libvirt has no hook that reports vNICs")
    datapath_id: str | None = None
    ovs_version: str | None = None
    flows: int = 0
    ports: int = 0
    strays: list[str] = Field(default_factory=list, description="interfaces of the bridge that are no guest's")
    hears: list[HeardStatus] = Field(default_factory=list, description="who its uplinks are connected with, by LLDP")
    not_understood: list[str] = Field(default_factory=list, description="what of its libvirt's XML makes no sense")
    deleting: bool = Field(default=False, description="being taken down; it goes when that is done")


class NetworkStatus(BaseModel):
    """What was made of a network."""

    uuid: str = Field(description="of the libvirt network on every host")
    mtu: int | None = Field(default=None, description="bytes, as guests are told")
    segments: dict[str, int | None] = Field(
        default_factory=dict, description="VLAN → tunnel key; 0 is the untagged one"
    )
    hosts: list[str] = Field(default_factory=list, description="hosts that carry it")
    ports: int = 0
    return_routes: list[str] = Field(
        default_factory=list, description="of route and open: routes that the routers of the physical network need"
    )
    nat_addresses: dict[str, str] = Field(
        default_factory=dict, description="host → its address of the network's pool, as which its guests leave"
    )
    no_nat_address: dict[str, str] = Field(
        default_factory=dict, description="host that gets none, and whose guests do not reach the outside → why"
    )


class ForwardStatus(BaseModel):
    """Where a port forward leads at this moment."""

    addresses: list[str] = Field(default_factory=list, description="external addresses that it listens on")
    target: str | None = Field(default=None, description="the address of its target")
    host: str | None = Field(default=None, description="the host of its target")
    reason: str = Field(default="", description="why it leads nowhere")


class BgpPeerStatus(BaseModel):
    """How it stands with a router at this moment, and what it was told."""

    state: str = Field(
        default="idle", description="established, or a word of RFC 4271 before that; idle between attempts"
    )
    since: str | None = Field(default=None, description="since when it is established, or is not")
    reason: str = Field(default="", description="why it is not established")
    announced: int = Field(default=0, description="prefixes that the router was told")
    received: int = Field(default=0, description="prefixes that the router told, which are not used")
    hold_time: int | None = Field(default=None, description="seconds, as agreed")
    restart_time: int | None = Field(
        default=None,
        description="that the router says of itself; none: it keeps no routes while there is no controller",
    )
    routes: list[str] = Field(default_factory=list, description="prefixes that the router was told, and by which way")


class FloatingStatus(BaseModel):
    """Where a floating address leads at this moment."""

    target: str | None = Field(default=None, description="the address of its target")
    host: str | None = Field(default=None, description="the host of its target, which answers for it")
    mac: str | None = Field(default=None, description="by which it is reached outside")
    reason: str = Field(default="", description="why it leads nowhere")


STATUSES: Mapping[str, type[BaseModel]] = {
    "Host": HostStatus, "Network": NetworkStatus, "Port": PortStatus, "PortForward": ForwardStatus,
    "BgpPeer": BgpPeerStatus,
    "FloatingIP": FloatingStatus,
}  # fmt: skip
