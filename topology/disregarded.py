"""What a vNIC's domain XML asks for in vain: libvirt takes it, and on Open vSwitch in flow mode nobody does it.

Source: libvirt's formatdomain page, "Network interfaces". What a portgroup does in the same words is not in vain.
"""

from __future__ import annotations

from collections.abc import Iterator

from controller.model.network import UNTAGGED, NetworkSpec, PortGroup
from topology.domain_xml import VnicView
from topology.xml_reader import shown


def disregarded(xml: VnicView, network: NetworkSpec, group: PortGroup) -> Iterator[str]:
    """One sentence for each, with what to do instead."""
    if xml.vlan_tags and not _same_vlans(xml, network, group):
        tags = ", ".join(map(str, xml.vlan_tags))
        yield f"<vlan> of its domain XML ({tags}) plays no part: the portgroup says its VLANs"
    if xml.bandwidth:
        yield "<bandwidth> of its domain XML is not honoured yet"
    if xml.filter is not None and xml.filter not in (group.filters or ()):
        yield f"<filterref> of its domain XML ({shown(xml.filter)}) plays no part: the portgroup says its filters"
    if xml.isolated and group.isolation not in {"isolated", "private"}:
        yield "<port isolated='yes'/> of its domain XML plays no part: use a portgroup with isolation: isolated"
    trusted = group.learning or group.filters == () or group.isolation == "passthrough"
    if xml.trust_guest_rx_filters and not trusted:
        yield "trustGuestRxFilters of its domain XML plays no part: a portgroup with learning: true trusts it"


def _same_vlans(xml: VnicView, network: NetworkSpec, group: PortGroup) -> bool:
    """Whether the XML says what the portgroup says."""
    wanted = group.vlans(network.untagged_vlan) - {UNTAGGED}
    native = (group.native, group.native_mode) if group.native is not None else None
    return frozenset(xml.vlan_tags) == wanted and xml.vlan_trunk == bool(group.trunk) and xml.native == native
