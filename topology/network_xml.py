"""The libvirt network that stands on every host for one network of the fleet.

It holds only what ties a vNIC to fleetswitch: the bridge, and for each port group a ``profileid`` ``NET:PG``, which
libvirt writes into the OVSDB row (``external_ids:port-profile``). VLANs and bandwidth stay out: libvirt's own handling
of them on Open vSwitch loses a tag when a vNIC changes its port group, and has no limit without ``peak``.

There is always a default port group: libvirt accepts a port group that does not exist without a word, and a vNIC
without a ``profileid`` is in no network of ours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from xml.etree.ElementTree import Element, SubElement, indent, register_namespace, tostring

from controller.errors import LibvirtError
from topology.xml_reader import parsed, read_identified, text_value

NAMESPACE = "urn:fleetswitch:net:1"
MAX_PORTGROUPS = 4096
_MOST_SHARED = 1 << 13  # characters: what one host says at length takes no room of the others

_OWNER = f"{{{NAMESPACE}}}net"
register_namespace("fleetswitch", NAMESPACE)


@dataclass(frozen=True, slots=True)
class PortgroupView:
    """One ``<portgroup>``. ``digest`` is of all that it says."""

    name: str
    default: bool
    profileid: str | None
    digest: str


@dataclass(frozen=True, slots=True)
class HostNetworkView:
    """A libvirt network of a host, ours or not."""

    name: str
    uuid: str
    owner_id: str | None
    """Whose it is, by the metadata that ``host_network_xml`` puts in; None for a network that is not fleetswitch's."""
    bridge: str | None
    portgroups: tuple[PortgroupView, ...]
    digest: str
    """Of all that the XML says, however it is written: two XMLs with the same meaning have the same."""
    base_digest: str
    """The same without the port groups: what libvirt can change on an active network only by starting it anew."""
    connections: int
    """vNICs that libvirt counts on it now."""

    def owned_by(self, owner_id: str) -> bool:
        return self.owner_id == owner_id


def profile_id(network: str, portgroup: str) -> str:
    """The ``profileid`` of a port group, and the ``port-profile`` that OVSDB shows."""
    return f"{network}:{portgroup}"


def host_network_xml(name: str, uuid: str, bridge: str, portgroups: Sequence[str], default: str, owner_id: str) -> str:
    """The ``<network>`` to define. ``default`` is added to ``portgroups`` when it is not one of them."""
    network = Element("network")
    SubElement(network, "name").text = name
    SubElement(network, "uuid").text = uuid
    SubElement(SubElement(network, "metadata"), _OWNER, owner=owner_id)
    SubElement(network, "forward", mode="bridge")
    SubElement(network, "bridge", name=bridge)
    SubElement(network, "virtualport", type="openvswitch")
    for portgroup in dict.fromkeys((*portgroups, default)):
        network.append(_portgroup(name, portgroup, portgroup == default))
    return _text(network)


def portgroup_xml(network: str, portgroup: str, default: bool) -> str:
    """One ``<portgroup>`` alone, as virNetworkUpdate takes it."""
    return _text(_portgroup(network, portgroup, default))


def parse_host_network(xml: str, host: str = "") -> HostNetworkView:
    """Any libvirt network. Raises LibvirtError that names ``host`` and the network. Hosts that say the same share one
    view: a network of the fleet is on all of them, and is read there again and again."""
    if len(xml) > _MOST_SHARED:
        return _view(xml, host)
    try:
        return _shared_view(xml)
    except LibvirtError:
        return _view(xml, host)


@lru_cache(maxsize=4096)
def _shared_view(xml: str) -> HostNetworkView:
    return _view(xml, "")


def _view(xml: str, host: str) -> HostNetworkView:
    root, place, name, uuid = read_identified(xml, "network", host)
    groups = root.findall("portgroup")
    if len(groups) > MAX_PORTGROUPS:
        raise LibvirtError(f"{len(groups)} port groups, more than {MAX_PORTGROUPS}", where=place)
    owner = root.find(f"metadata/{_OWNER}")
    bridge = root.find("bridge")
    return HostNetworkView(
        name=name,
        uuid=uuid,
        owner_id=text_value(owner.get("owner"), "owner", place) if owner is not None else None,
        bridge=text_value(bridge.get("name"), "bridge", place) if bridge is not None else None,
        portgroups=tuple(_portgroup_view(group, place) for group in groups),
        digest=_digest(root),
        base_digest=_digest(root, without="portgroup"),
        connections=parsed(root.get("connections"), _count, "connections", place) or 0,
    )


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise ValueError(text)
    return int(text)


def _portgroup(network: str, portgroup: str, default: bool) -> Element:
    element = Element("portgroup", name=portgroup)
    if default:
        element.set("default", "yes")
    virtualport = SubElement(element, "virtualport", type="openvswitch")
    SubElement(virtualport, "parameters", profileid=profile_id(network, portgroup))
    return element


def _portgroup_view(group: Element, place: str) -> PortgroupView:
    name = text_value(group.get("name"), "portgroup name", place)
    if name is None:
        raise LibvirtError("a port group has no name", where=place)
    parameters = group.find("virtualport/parameters")
    return PortgroupView(
        name=name,
        default=group.get("default") == "yes",
        profileid=text_value(parameters.get("profileid"), "profileid", place) if parameters is not None else None,
        digest=_digest(group),
    )


def _text(element: Element) -> str:
    indent(element)
    return tostring(element, encoding="unicode")


def _digest(element: Element, without: str = "") -> str:
    """Of tags, attributes, texts and children in any order: libvirt sorts, indents and quotes as it likes."""
    children = sorted(_digest(child) for child in element if child.tag != without)
    # how many vNICs use the network now is no part of what it is
    attributes = sorted((name, value) for name, value in element.items() if name != "connections")
    content = repr((element.tag, attributes, (element.text or "").strip(), children))
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()
