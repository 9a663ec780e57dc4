"""Whether a vNIC may be switched, and as what: OVSDB, libvirt and the operator's registration must agree.

Pure. A vNIC that is not certain is kept out (its frames match no flow) and the reason is told.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from controller.model.host import HostSpec
from controller.model.kinds import DEFAULT_MTU
from controller.model.network import DEFAULT_PORTGROUP, NetworkSpec, PortGroup
from controller.model.port import PortSpec, PortState
from controller.ovsdb.host import VnicRow
from controller.pipeline.ports import UPLINK_FIRST
from topology.disregarded import disregarded
from topology.domain_xml import VnicView


class Witness(Enum):
    """What the host's libvirt is worth as a witness."""

    NONE = "the host has no libvirt connection: OVSDB and registrations decide"
    HOOK = "the same, but a hook in its libvirt reports vNICs"
    AWAY = "it is configured and does not answer now"
    PRESENT = "it answers"


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known of one vNIC on one host. ``confirmed`` is the network and portgroup that it was switched in
    before, when nothing of its row has changed since: who was certain stays so while libvirt is away. ``socket`` is the
    network and portgroup that it was plugged into, by the host's hook, when its XML is not known."""

    row: VnicRow
    xml: VnicView | None
    witness: Witness
    registered: PortSpec | None
    confirmed: tuple[str, str] | None
    socket: tuple[str, str | None] | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """``reason`` says why it is not active, or what is amiss although it is."""

    state: PortState
    reason: str = ""
    network: str | None = None
    portgroup: str | None = None


_UNREPORTED = (
    "the host's hook has not reported it: plug it in with <source network='NAME' portgroup='PG'/>, or register it; "
    "restarting libvirtd has all guests reported again"
)
_PROFILE = re.compile(r"([^:\s]{1,18}):([^:\s]{1,18})")


def judge(evidence: Evidence, host: HostSpec, networks: Mapping[str, NetworkSpec], mtus: Mapping[str, int]) -> Verdict:
    """The verdict on a vNIC that OVSDB shows with an identity. ``mtus``: bytes by network."""
    place = _place(evidence)
    if isinstance(place, Verdict):
        return place
    network, portgroup = place
    spec = networks.get(network)
    if spec is None:
        return Verdict("quarantined", f"there is no Network {network}", network, portgroup)
    group = spec.portgroup(portgroup)
    if group is None:
        names = ", ".join(spec.portgroup_names())
        return Verdict(
            "quarantined", f"Network {network} has no portgroup {portgroup}; it has: {names}", network, portgroup
        )
    if evidence.xml is not None and not evidence.xml.link_up:
        return Verdict("down", "its link is set down (virsh domif-setlink)", network, portgroup)
    if evidence.row.ofport is not None and evidence.row.ofport >= UPLINK_FIRST:
        reason = f"has OpenFlow port {evidence.row.ofport}, which is reserved: plug it in again"
        return Verdict("quarantined", reason, network, portgroup)
    if evidence.row.ofport is None:
        return Verdict("pending", evidence.row.error or "Open vSwitch has not plugged it in yet", network, portgroup)
    if not evidence.row.device and evidence.xml is None and evidence.witness is not Witness.AWAY:
        return Verdict("pending", "its device is gone", network, portgroup)
    physical = spec.physical_network
    if physical is not None and physical not in host.uplinks and group.isolation not in {"none", "isolated"}:
        return Verdict("quarantined", f"the host has no uplink to {physical}", network, portgroup)
    return Verdict("active", "; ".join(_amiss(evidence, host, spec, group, mtus[network])), network, portgroup)


def _amiss(evidence: Evidence, host: HostSpec, network: NetworkSpec, group: PortGroup, mtu: int) -> Iterator[str]:
    """What the operator should know of a vNIC that is switched all the same."""
    physical = network.physical_network
    if physical is not None and physical not in host.uplinks:
        yield f"the host has no uplink to {physical}: it reaches this host only"
    if network.is_overlay and host.tunnel_ip is None:
        yield "the host has no tunnel_ip: it reaches this host only"
    if evidence.xml is None:
        return
    if (own := evidence.xml.mtu or DEFAULT_MTU) > mtu:
        yield f"its MTU is {own} and the network carries {mtu}: set <mtu size='{mtu}'/> in its domain XML"
    yield from disregarded(evidence.xml, network, group)


def _place(evidence: Evidence) -> tuple[str, str] | Verdict:
    """Network and portgroup, or why there are none."""
    row, xml, witness, registered = evidence.row, evidence.xml, evidence.witness, evidence.registered
    claimed = _profile(row.profile)
    admitted = (registered.network, registered.portgroup) if registered is not None else None
    told = (xml.network, xml.portgroup) if xml is not None else evidence.socket
    if witness in {Witness.PRESENT, Witness.HOOK} and told is not None:
        stated = (told[0], told[1] or DEFAULT_PORTGROUP) if told[0] is not None else None
        if claimed is not None and stated is None and admitted is None:
            return Verdict("quarantined", f"claims profile {row.profile}, but its domain XML names no network")
        if claimed is not None and stated is not None and claimed != stated:
            return Verdict(
                "quarantined", f"OVSDB says profile {row.profile}, its domain XML {':'.join(stated)}", *stated
            )
        if claimed is None and stated is not None:
            return Verdict(
                "quarantined", f"has no profile: Network {stated[0]} has no portgroup {stated[1]} on this host", *stated
            )
    elif witness is Witness.HOOK and admitted is None:
        # A vNIC that a running guest got on a bridge, not on a network, is reported by nobody, whatever it claims.
        return evidence.confirmed or Verdict("pending", _UNREPORTED)
    elif witness in {Witness.PRESENT, Witness.AWAY} and not (registered is not None and not registered.libvirt):
        if witness is Witness.PRESENT:
            left = "it has no device: a guest left it behind, and it goes by itself"
            stray = "if it is none of libvirt's, register it so"
            return Verdict("quarantined", f"the host's libvirt runs no such vNIC; {stray if row.is_plugged else left}")
        if evidence.confirmed is None:
            return Verdict("pending", "waits for the host's libvirt to confirm it")
        if admitted is None:
            return evidence.confirmed
    if admitted is not None and claimed is not None and admitted != claimed:
        return Verdict(
            "quarantined", f"is registered for {':'.join(admitted)}, but OVSDB says {row.profile}", *admitted
        )
    place = admitted or claimed
    if place is None:
        return Verdict(
            "quarantined", "names no network; attach it with <source network='NAME' portgroup='PG'/>, or register it"
        )
    return place


def _profile(text: str | None) -> tuple[str, str] | None:
    """Network and portgroup of a profile id as our libvirt networks carry it."""
    found = _PROFILE.fullmatch(text or "")
    return (found[1], found[2]) if found is not None else None
