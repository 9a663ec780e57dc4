"""vNICs that libvirt runs and that are not on the integration bridge: how they are shown, and what to do about it."""

from __future__ import annotations

from collections.abc import Collection

from controller.model.port import PortSpec, PortState
from topology.domain_xml import VnicView
from topology.xml_reader import shown

_PLUGGED_BY_OTHERS = frozenset({"ethernet", "vhostuser"})


def unplugged(
    vnic: VnicView, bridge: str, strays: Collection[str], registered: PortSpec | None
) -> tuple[PortState, str]:
    """State and reason. ``bridge`` is the host's integration bridge; ``strays`` are the interfaces on it without a
    guest's identity."""
    state, reason = _seen(vnic, bridge, strays)
    if state == "unmanaged" and registered is not None:
        reason += f". Its registration for {registered.network}:{registered.portgroup} has no effect"
    return state, reason


def _seen(vnic: VnicView, bridge: str, strays: Collection[str]) -> tuple[PortState, str]:
    switched = "to have it switched, use <interface type='network'> with a Network of fleetswitch"
    if vnic.unmanaged:
        return "unmanaged", f"{vnic.unmanaged}; {switched}"
    if vnic.type in _PLUGGED_BY_OTHERS:
        ids = "external_ids vm-id and attached-mac, and register a Port"
        if vnic.tap in strays:
            return "pending", f"{vnic.tap} is on {bridge}, and nothing there says whose it is: give its Interface {ids}"
        return "unmanaged", (
            f"an interface of type {vnic.type}, which libvirt plugs in nowhere: add its port to {bridge}, give it {ids}"
        )
    if vnic.bridge is not None and vnic.bridge != bridge:
        return "unmanaged", f"on bridge {shown(vnic.bridge)}, and fleetswitch switches what is on {bridge}; {switched}"
    return "pending", (
        f"libvirt runs it, but it is not plugged into the integration bridge {bridge}: restart libvirtd there, which "
        "plugs it in again, or detach and attach it"
    )
