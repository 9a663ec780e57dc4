"""A guest's vNICs, out of the domain XML that its host's libvirtd gives.

Source: libvirt's formatdomain page, and virDomainNetDefFormat of libvirt 9.0.0. Two forms are read:

* live (``<domain id='3'>``): a vNIC of a libvirt network shows what the network made of it. ``<interface
  type='bridge'>`` with ``<source network= portgroup= portid= bridge=>`` is one on a bridge network.
* inactive: as it was defined. What the network will make of the vNIC is not known yet.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Literal
from xml.etree.ElementTree import Element

from controller.errors import LibvirtError, Problem
from topology.xml_reader import parse_uuid, parsed, read_identified, shown, text_value

MAX_VNICS = 256
"""Of one domain. PCI has room for fewer."""

NativeMode = Literal["tagged", "untagged"]

_NATIVE_MODES: dict[str, NativeMode] = {"tagged": "tagged", "untagged": "untagged"}
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_TAP = re.compile(r"[^\s/\x00-\x1f\x7f]{1,15}")  # IFNAMSIZ - 1, dev_valid_name() of the kernel
_DECIMAL = re.compile(r"[0-9]{1,6}")

_UNMANAGED = {
    "direct": "macvtap: its frames never meet Open vSwitch",
    "hostdev": "a PCI device of the host: its frames never meet Open vSwitch",
    "vdpa": "a vDPA device of the host: its frames never meet Open vSwitch",
    "user": "user-mode networking inside QEMU or passt: it has no port on the host",
    "mcast": "a multicast socket of QEMU: it has no port on the host",
    "udp": "a UDP socket of QEMU: it has no port on the host",
    "client": "a TCP socket of QEMU: it has no port on the host",
    "server": "a TCP socket of QEMU: it has no port on the host",
    "internal": "an internal network of the hypervisor, which Open vSwitch does not see",
    "vds": "a VMware distributed switch, which Open vSwitch does not see",
    "null": "connected to nothing",
}


@dataclass(frozen=True, slots=True)
class VnicView:
    """One ``<interface>``. ``unmanaged`` is why fleetswitch cannot switch it, and empty when it can."""

    mac: str
    """Lower case, with colons."""
    type: str
    """As the XML says: in live XML a vNIC of a libvirt network has ``bridge`` or ``direct`` here; ask ``network``."""
    tap: str | None
    """The host's device (``target dev``). libvirt numbers ``vnetN`` anew at each start: never a key."""
    network: str | None
    portgroup: str | None
    bridge: str | None
    virtualport: str | None
    iface_id: str | None
    """A UUID; neither unique nor stable: libvirt draws another one at each start and migration unless it is pinned."""
    profileid: str | None
    vlan_tags: tuple[int, ...]
    vlan_trunk: bool
    native: tuple[int, NativeMode] | None
    mtu: int | None
    """Bytes."""
    link_up: bool
    alias: str | None
    """``net0``: what DEVICE_REMOVED names."""
    trust_guest_rx_filters: bool
    unmanaged: str
    bandwidth: bool = False
    """Whether the XML asks for limits or guarantees."""
    filter: str | None = None
    """The nwfilter that it names."""
    isolated: bool = False
    """``<port isolated='yes'/>``."""

    @property
    def managed(self) -> bool:
        return not self.unmanaged


@dataclass(frozen=True, slots=True)
class DomainView:
    """One domain. ``problems`` are the interfaces that could not be understood and are not in ``vnics``, and the MACs
    that two of them share (those are in ``vnics``)."""

    uuid: str
    """Lower case."""
    name: str
    live: bool
    """Whether this is the XML of a running (or paused) domain."""
    vnics: tuple[VnicView, ...]
    problems: tuple[Problem, ...] = ()


def parse_domain(xml: str, host: str = "") -> DomainView:
    """Raises LibvirtError, naming ``host``, the domain and the place, when no domain can be made of it. An interface
    that is wrong becomes a problem of the view, and hides no other."""
    root, place, name, uuid = read_identified(xml, "domain", host)
    live = root.get("id", "-1") != "-1"
    interfaces = root.findall("devices/interface")
    if len(interfaces) > MAX_VNICS:
        raise LibvirtError(f"{len(interfaces)} interfaces, more than {MAX_VNICS}", where=place)
    vnics: list[VnicView] = []
    problems: list[Problem] = []
    for number, interface in enumerate(interfaces):
        where = f"{place}, interface {_name_of(interface, number)}"
        try:
            vnics.append(_vnic(interface, live, where))
        except LibvirtError as error:
            problems.append(Problem(error.where, error.what, error.remedy or f"virsh edit {name}"))
    for mac, count in Counter(vnic.mac for vnic in vnics).items():
        if count > 1:
            what = f"{count} interfaces have MAC {mac}, so that none of them can be told apart"
            problems.append(Problem(place, what, f"give each its own MAC: virsh edit {name}"))
    return DomainView(uuid, name, live, tuple(vnics), tuple(problems))


def _name_of(interface: Element, number: int) -> str:
    mac, alias = interface.find("mac"), interface.find("alias")
    for found in (alias.get("name") if alias is not None else None, mac.get("address") if mac is not None else None):
        if found:
            return shown(found)
    return f"#{number}"


def _vnic(interface: Element, live: bool, where: str) -> VnicView:
    def attribute(path: str, name: str) -> str | None:
        element = interface.find(path)
        return text_value(element.get(name), f"{path} {name}", where) if element is not None else None

    mac = parsed(attribute("mac", "address"), _mac, "MAC", where)
    if mac is None:
        raise LibvirtError("it has no MAC", where=where)
    kind = text_value(interface.get("type"), "type", where)
    if kind is None:
        raise LibvirtError("it has no type", where=where)
    tags, trunk, native = _vlan(interface.find("vlan"), where)
    network = attribute("source", "network")
    bridge = attribute("source", "bridge")
    virtualport = attribute("virtualport", "type")
    return VnicView(
        mac=mac,
        type=kind,
        tap=parsed(attribute("target", "dev"), _tap, "target dev", where),
        network=network,
        portgroup=attribute("source", "portgroup"),
        bridge=bridge,
        virtualport=virtualport,
        iface_id=parsed(attribute("virtualport/parameters", "interfaceid"), parse_uuid, "interfaceid", where),
        profileid=attribute("virtualport/parameters", "profileid"),
        vlan_tags=tags,
        vlan_trunk=trunk,
        native=native,
        mtu=parsed(attribute("mtu", "size"), _mtu, "mtu size", where),
        link_up=attribute("link", "state") != "down",
        alias=attribute("alias", "name"),
        trust_guest_rx_filters=interface.get("trustGuestRxFilters") == "yes",
        unmanaged=_unmanaged(kind, virtualport, network, bridge, live),
        bandwidth=interface.find("bandwidth") is not None,
        filter=attribute("filterref", "filter"),
        isolated=attribute("port", "isolated") == "yes",
    )


def _unmanaged(kind: str, virtualport: str | None, network: str | None, bridge: str | None, live: bool) -> str:
    if kind in ("ethernet", "vhostuser"):
        return ""  # whoever made the port, or the bridge's own row, decides; it is found by its name
    if kind in ("network", "bridge"):
        if virtualport == "openvswitch":
            return ""
        if virtualport is not None:
            return f"virtualport of type {shown(virtualport)}, which Open vSwitch does not serve"
        if kind == "network" and not live:
            return ""  # the network brings its virtualport along when the domain starts
        at = f"network {shown(network)}" if network else f"bridge {shown(bridge or '?')}"
        return f"on a Linux bridge ({at}): only a <virtualport type='openvswitch'/> leads to Open vSwitch"
    return _UNMANAGED.get(kind, f"interface type {shown(kind)} is not known")


def _vlan(vlan: Element | None, where: str) -> tuple[tuple[int, ...], bool, tuple[int, NativeMode] | None]:
    """Tags in the XML's order; two or more are a trunk though nothing says so (formatdomain, "Setting VLAN tag")."""
    if vlan is None:
        return (), False, None
    tags: list[int] = []
    native: tuple[int, NativeMode] | None = None
    for element in vlan.findall("tag"):
        tag = parsed(element.get("id"), _vlan_id, "vlan tag", where)
        if tag is None:
            raise LibvirtError("a vlan tag has no id", where=where)
        tags.append(tag)
        mode = element.get("nativeMode")
        if mode is None:
            continue
        if native is not None:
            raise LibvirtError("two vlan tags have a nativeMode", where=where)
        if mode not in _NATIVE_MODES:
            raise LibvirtError(f"nativeMode {shown(mode)!r} is neither tagged nor untagged", where=where)
        native = (tag, _NATIVE_MODES[mode])
    return tuple(tags), vlan.get("trunk") == "yes" or len(tags) > 1, native


def _mac(text: str) -> str:
    mac = text.lower()
    if not _MAC.fullmatch(mac) or int(mac[:2], 16) & 1:
        raise ValueError(text)
    return mac


def _tap(text: str) -> str:
    if not _TAP.fullmatch(text) or text in (".", ".."):
        raise ValueError(text)
    return text


def _bounded(text: str, low: int, high: int) -> int:
    if not _DECIMAL.fullmatch(text) or not low <= int(text) <= high:
        raise ValueError(text)
    return int(text)


def _vlan_id(text: str) -> int:
    return _bounded(text, 0, 4095)  # what libvirt lets through: whether 0 and 4095 are wanted is for the model to say


def _mtu(text: str) -> int:
    return _bounded(text, 68, 65535)
