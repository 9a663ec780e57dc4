"""Port: one vNIC. Observed when a guest runs; it can also be registered ahead, to give it addresses or to admit it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from controller.model.fields import Address, Mac, ObjectName, ProfilePart, Spec
from controller.model.network import DEFAULT_PORTGROUP

PortState = Literal["absent", "pending", "active", "quarantined", "down", "unmanaged"]


class PortSpec(Spec):
    """A vNIC that the operator registers ahead."""

    vm: ObjectName = Field(description="the guest: its libvirt name or UUID")
    mac: Mac = Field(description="of the vNIC; with the guest it is the vNIC's identity")
    network: ProfilePart = Field(description="the network that it is admitted to")
    portgroup: ProfilePart = DEFAULT_PORTGROUP
    addresses: tuple[Address, ...] = Field(default=(), description="its IPv4 and IPv6 addresses")
    libvirt: bool = Field(
        default=True, description="its host's libvirt must run it; false for a guest that is none of libvirt's"
    )


class Incoming(BaseModel):
    """Where a guest is being copied to while it runs elsewhere: everything is ready there, and it is not there yet."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    host: str
    tap: str
    ofport: int
    iface_id: str | None = None


class Rival(BaseModel):
    """Another interface that says it is this vNIC, and is kept out."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    host: str
    tap: str
    ofport: int


class PortStatus(BaseModel):
    """What was observed of a vNIC.

    ``vm_uuid`` and ``mac`` are its identity: iface-id, tap and OpenFlow port all change over its life.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    vm_uuid: str
    vm: str | None = Field(default=None, description="the guest's libvirt name, when libvirt told it")
    mac: str
    host: str | None = None
    tap: str | None = Field(default=None, description="the interface on the host, which is the OVS interface too")
    ofport: int | None = Field(default=None, description="OpenFlow port on the integration bridge")
    iface_id: str | None = None
    network: str | None = None
    portgroup: str | None = None
    addresses: tuple[str, ...] = ()
    learned: tuple[str, ...] = Field(default=(), description="those of its addresses that it claimed, and now has")
    mtu: int | None = Field(default=None, description="bytes, as the guest's XML says")
    incoming: Incoming | None = Field(default=None, description="the place that it is being copied to (live migration)")
    rivals: tuple[Rival, ...] = Field(default=(), description="interfaces that say they are it, and are kept out")
    state: PortState
    reason: str = Field(default="", description="why it is in this state, when that is not 'active'")


def port_name(vm_uuid: str, mac: str) -> str:
    """Name of the row of an observed vNIC that nobody registered."""
    return f"{vm_uuid}.{mac.replace(':', '')}"
