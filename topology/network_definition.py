"""A Network out of libvirt's network XML, as people give it to ``virsh net-define``.

network_rules.py says what becomes of each element and attribute; here they are judged by it one by one, and the Network
is made of those that are taken. What is refused is refused with all the rest; nothing is left out without a word.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

from controller.errors import InvalidInput, LibvirtError, Problem
from controller.model.documents import Document, load_objects
from controller.model.network import DEFAULT_PORTGROUP, NetworkSpec, network_uuid
from controller.model.subnet import gateway_mac
from topology.merge_patch import patched
from topology.network_addresses import read_dhcp, read_subnet
from topology.network_dns import read_dns
from topology.network_findings import Findings
from topology.network_rules import DEFAULT_PORTS, MODES
from topology.network_xml import NAMESPACE
from topology.xml_reader import parse_uuid, read_xml, shown

SPEC = f"{{{NAMESPACE}}}spec"
"""In ``<metadata>``: a JSON merge patch (RFC 7396), with what a Network says and libvirt has no words for."""

_OWNER = f"{{{NAMESPACE}}}net"
LEARNED = 16
"""Addresses of each family that a vNIC of a routed network may make or set itself: libvirt's networks do not ask whose
an address is, and nobody who is not known is reached from elsewhere."""
_NO_BRIDGE = "a network of mode bridge is on a physical network, to which hosts have uplinks"
_NAME_IT = "name it: --physical-network NAME, or <forward mode='bridge' dev='NAME'/>"


@dataclass(frozen=True, slots=True)
class Taken:
    """An element or attribute that the Network has now, by its path below ``<network>``, with its values."""

    where: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NetworkDefinition:
    """``warnings`` are what was ignored, each with the reason. ``uuid`` is what the XML itself says."""

    document: Document
    uuid: str | None
    taken: tuple[Taken, ...]
    warnings: tuple[Problem, ...]


def read_network_xml(xml: str) -> Element:
    """The tree of a ``<network>`` from anybody. Raises InvalidInput for what is none, is too large or has a DTD."""
    try:
        return read_xml(xml, "network", "network")
    except LibvirtError as error:
        raise InvalidInput([Problem("network", error.what, "write what virsh net-dumpxml prints")]) from None


def as_new(root: Element, name: str | None) -> None:
    """Make a network of some host one to be defined anew: that host's keeps its UUID, and its name if one is given."""
    for element in root.findall("uuid"):
        root.remove(element)
    root.attrib.pop("connections", None)
    found = root.find("name")
    if name is not None and found is not None:
        found.text = name


def define_network(root: Element, physical_network: str | None = None) -> NetworkDefinition:
    """The Network that the XML describes; ``physical_network`` is that of one of mode bridge, if the XML names none.

    Raises InvalidInput with every element that cannot be honoured.
    """
    reading = _Reading(root, physical_network)
    if reading.problems:
        raise InvalidInput(reading.problems)
    taken = tuple(Taken(path, tuple(values)) for path, values in reading.taken.items())
    return NetworkDefinition(reading.document(), reading.uuid, taken, tuple(reading.warnings))


class _Reading(Findings):
    """One document, and the fields of the Network that it describes."""

    def __init__(self, root: Element, physical_network: str | None) -> None:
        super().__init__()
        self.uuid: str | None = None
        self._name = (root.findtext("name") or "").strip()
        self.judge(root)
        self._fields = dict(self._read(root, physical_network))
        if (extra := root.find(f"metadata/{SPEC}")) is not None:
            self._fields = patched(self._fields, self._said_beside(extra))

    def document(self) -> Document:
        """By the model that everything goes through. Raises InvalidInput."""
        return load_objects([{"kind": "Network", "name": self._name, **self._fields}], "network")[0]

    def _read(self, root: Element, physical_network: str | None) -> Iterator[tuple[str, Any]]:
        if root.find(f"metadata/{_OWNER}") is not None:
            self.refuse("metadata", "it is a network that fleetswitch itself keeps on its hosts",
                         f"fleetswitch net dumpxml {self._name}")  # fmt: skip
            return
        extra = root.find(f"metadata/{SPEC}")
        for other in root.findall("metadata/*"):
            if other is not extra:
                self.warnings.append(Problem("network/metadata", f"<{shown(other.tag)}> is another program's; ignored"))
        yield from self._uuid(root.findtext("uuid"))
        yield from self._forward(root.find("forward"), physical_network)
        yield from self._numbers(root)
        yield from self._portgroups(root, root.find("forward"))
        subnets = [subnet for ip in root.findall("ip") if (subnet := read_subnet(self, ip)) is not None]
        yield "subnets", subnets
        yield from read_dhcp(self, root)
        yield from read_dns(self, root)

    def _said_beside(self, extra: Element) -> Mapping[str, Any]:
        """The patch in fleetswitch's own element; what it says goes through the model with the rest."""
        try:
            patch = json.loads(extra.text or "{}")
        except (ValueError, RecursionError):
            patch = None
        if not isinstance(patch, dict) or extra.items() or len(extra):
            self.refuse("metadata", "fleetswitch's own element holds no JSON object", "leave it out")
            return {}
        return patch

    def _uuid(self, text: str | None) -> Iterator[tuple[str, str]]:
        if text is None:
            return
        try:
            self.uuid = parse_uuid(text)
        except ValueError:
            self.refuse("uuid", f"{shown(text)!r} is no UUID", "leave it out, or write what uuidgen prints")
            return
        if self.uuid != network_uuid(self._name, NetworkSpec(mode="isolated")):
            yield "uuid", self.uuid

    def _forward(self, forward: Element | None, physical_network: str | None) -> Iterator[tuple[str, Any]]:
        mode = "isolated" if forward is None else forward.get("mode", "nat")
        rule = MODES.get(mode)
        if rule is not None and rule.verdict == "refused":
            self.refuse("forward@mode", f"{mode!r}: {rule.about}", rule.remedy)
            return
        if rule is None and forward is not None:
            self.refuse("forward@mode", f"{shown(mode)!r} is no mode of libvirt's", f"one of: {', '.join(MODES)}")
            return
        yield "mode", mode
        if forward is not None and (nat := forward.find("nat")) is not None:
            yield from self._nat(nat)
        device = forward.get("dev") if forward is not None else None
        if mode != "bridge":
            if device is not None:
                self.refuse("forward@dev", f"{shown(device)!r}: guests leave by their own host's external address",
                             "leave it out; the Host's field external names the uplink")  # fmt: skip
            if physical_network is not None:
                self.refuse("forward@mode", f"{mode!r} has no physical network", "leave --physical-network out")
            return
        if (physical := physical_network or device) is None:
            self.refuse("forward", _NO_BRIDGE, _NAME_IT)
            return
        yield "physical_network", physical

    def _nat(self, nat: Element) -> Iterator[tuple[str, Any]]:
        """The pool and the ports, where they say more than what holds anyway."""
        found: dict[str, Any] = {}
        ends = [(each.get("start", ""), each.get("end", "")) for each in nat.findall("address")]
        if ends:
            found["addresses"] = [low if low == high else f"{low}-{high}" for low, high in ends]
        port = nat.find("port")
        if port is not None and dict(port.items()) != DEFAULT_PORTS:
            found["ports"] = f"{port.get('start', '')}-{port.get('end', '')}"
        if found:
            yield "nat", found

    def _numbers(self, root: Element) -> Iterator[tuple[str, Any]]:
        if (mtu := root.find("mtu")) is not None and (size := self.count(mtu, "size", "mtu@size")) is not None:
            yield "mtu", size
        if (mac := root.find("mac")) is not None and (address := mac.get("address")) is not None:
            if root.find("ip") is None:
                self.ignore("mac@address", "the network has no gateway, which would have it")
            elif address.lower() != gateway_mac(self._name):
                yield "gateway_mac", address
        if (vlan := root.find("vlan")) is not None:
            found = self._vlan(vlan, "vlan")
            if "trunk" in found:
                self.refuse("vlan", "a network as a whole is no trunk", "write the trunk in its portgroups")
            yield from found.items()
        self._virtualport(root, "")

    def _vlan(self, vlan: Element, where: str) -> dict[str, Any]:
        """``vlan``, or ``trunk`` and ``native`` (formatnetwork, "Setting VLAN tag")."""
        tags = [tag for one in vlan.findall("tag") if (tag := self.count(one, "id", f"{where}/tag@id")) is not None]
        native = [one for one in vlan.findall("tag") if one.get("nativeMode") is not None]
        trunk = vlan.get("trunk")
        if not tags:
            self.refuse(where, "names no VLAN", "write <tag id='10'/>")
            return {}
        if trunk not in (None, "yes") and len(tags) > 1:
            self.refuse(f"{where}@trunk", f"{shown(trunk or '')!r} with {len(tags)} tags", "leave it out")
        if trunk != "yes" and len(tags) == 1:
            if native:
                self.refuse(f"{where}/tag@nativeMode", "only a trunk has a native VLAN", "add trunk='yes'")
            return {"vlan": tags[0]}
        if len(native) > 1:
            self.refuse(f"{where}/tag@nativeMode", "two VLANs are native", "keep one of them")
        found: dict[str, Any] = {"trunk": tags}
        if native:
            found["native"] = self.count(native[0], "id", f"{where}/tag@id")
            found["native_mode"] = native[0].get("nativeMode")
        return found

    def _virtualport(self, holder: Element, where: str) -> None:
        for port in holder.findall("virtualport"):
            kind = port.get("type", "openvswitch")
            if kind != "openvswitch":
                self.refuse(f"{where}virtualport@type", f"{shown(kind)!r}: it belongs to another kind of switch",
                             "write openvswitch, or leave it out")  # fmt: skip

    # Portgroups

    def _portgroups(self, root: Element, forward: Element | None) -> Iterator[tuple[str, Any]]:
        isolated = (port := root.find("port")) is not None and port.get("isolated") == "yes"
        groups: dict[str, dict[str, Any]] = {}
        defaults = []
        for element in root.findall("portgroup"):
            name = element.get("name", "")
            if name in groups:
                self.refuse("portgroup", f"{shown(name)!r} stands there a second time", "keep one of them")
            groups[name] = self._portgroup(element)
            if element.get("default") == "yes":
                defaults.append(name)
        self._default(groups, defaults)
        if isolated:
            for name in {DEFAULT_PORTGROUP: None, **groups}:
                groups.setdefault(name, {}).setdefault("isolation", "isolated")
        if forward is not None and forward.get("mode", "nat") != "bridge" and root.find("ip") is not None:
            for name in {DEFAULT_PORTGROUP: None, **groups}:
                if not groups.setdefault(name, {}).get("learning"):
                    groups[name]["learn_addresses"] = LEARNED
        yield "portgroups", groups

    def _portgroup(self, element: Element) -> dict[str, Any]:
        where = f"portgroup {shown(element.get('name', ''))}/"
        self._virtualport(element, where)
        vlan = element.find("vlan")
        group = self._vlan(vlan, f"{where}vlan") if vlan is not None else {}
        if element.get("trustGuestRxFilters") == "yes":
            group["learning"] = True
        return group

    def _default(self, groups: dict[str, dict[str, Any]], defaults: list[str]) -> None:
        """vNICs that name no portgroup are of the one that is called ``default`` here."""
        if len(defaults) > 1:
            self.refuse("portgroup@default", f"{', '.join(map(shown, defaults))} are the default", "keep one of them")
            return
        where = f"network/portgroup {DEFAULT_PORTGROUP}"
        if defaults and defaults[0] != DEFAULT_PORTGROUP:
            if DEFAULT_PORTGROUP in groups:
                self.problems.append(Problem(where, f"is called {DEFAULT_PORTGROUP!r}, and the default is another",
                                             "give it another name"))  # fmt: skip
            groups[DEFAULT_PORTGROUP] = dict(groups[defaults[0]])
        elif not defaults and groups.get(DEFAULT_PORTGROUP):
            self.warnings.append(Problem(where, "vNICs that name no portgroup are of this one, also without "
                                         "default='yes'"))  # fmt: skip
