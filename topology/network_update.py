"""One element of a Network added, changed or taken away, by the words of ``virsh net-update``.

What is added is read as the file that has it would be; what is to be changed or taken away is found by what the element
says, as libvirt finds it (network_conf.c, virNetworkDefUpdateSection). What libvirt does not do either is refused by
name.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element, SubElement

from controller.errors import InvalidInput, LibvirtError, Problem
from controller.model.documents import Document, dump_spec, load_objects
from controller.model.network import NetworkSpec
from controller.model.subnet import DEFAULT_LEASE_SECONDS
from topology.network_definition import define_network
from topology.network_findings import Findings
from topology.xml_reader import read_xml, shown

COMMANDS = ("add", "add-first", "add-last", "delete", "modify")
_MODIFY = "modify"
_OF_XML = frozenset({"vlan", "trunk", "native", "native_mode", "learning"})  # what XML says of a portgroup
_Item = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Section:
    """Where such elements are: ``path`` in the XML below ``<network>``, ``field`` in the Network.

    ``same`` says whether an element that is there is in the way of a new one, ``found`` whether it is the one to be
    taken away; ``known`` is what the one to be changed is known by, where there may be one.
    """

    path: str
    field: tuple[str, ...]
    same: Callable[[_Item, _Item], bool]
    found: Callable[[_Item, _Item], bool]
    known: tuple[str, ...] = ()

    @property
    def tag(self) -> str:
        return self.path.rpartition("/")[2]


def _says(have: _Item, wanted: _Item) -> bool:
    """All that the other one says."""
    return bool(wanted) and all(have.get(name) == value for name, value in wanted.items())


def _one_of(*names: str) -> Callable[[_Item, _Item], bool]:
    """Whether they agree in one of these."""
    return lambda have, other: any(have.get(name) is not None and have.get(name) == other.get(name) for name in names)


def _same_client(have: _Item, other: _Item) -> bool:
    """By what a client is known by; a reservation of the other version of IP is another."""
    return _version(have) == _version(other) and _one_of("mac", "id", "ip", "name")(have, other)


def _named(have: _Item, wanted: _Item) -> bool:
    """Of a DNS host: the address, or one of the names, where they are said."""
    names = wanted.get("names") or []
    return bool(wanted) and wanted.get("ip") in {None, have["ip"]} and (not names or bool({*names} & {*have["names"]}))


_SECTIONS: Mapping[str, _Section] = {
    "ip-dhcp-host": _Section("ip/dhcp/host", ("dhcp", "hosts"), _same_client, _says, ("mac", "id", "name")),
    "ip-dhcp-range": _Section("ip/dhcp/range", ("dhcp", "range"), _says, _says),
    "portgroup": _Section("portgroup", ("portgroups",), _one_of("name"), _says, ("name",)),
    "dns-host": _Section("dns/host", ("dns", "hosts"), _one_of("ip"), _named),
    "dns-txt": _Section("dns/txt", ("dns", "txt"), _one_of("name"), _says),
    "dns-srv": _Section("dns/srv", ("dns", "srv"), _says, _says),
}
_OTHERS: Mapping[str, str] = {
    "bridge": "a network here has no bridge of its own on a host",
    "domain": "apply the Network with another domain",
    "ip": "apply the Network with other subnets",
    "forward": "apply the Network with another mode",
    "forward-interface": "frames of macvtap and SR-IOV never meet Open vSwitch; give the Host uplinks",
    "forward-pf": "frames of macvtap and SR-IOV never meet Open vSwitch",
}
SECTIONS = (*_SECTIONS, *_OTHERS)


def update_network(name: str, spec: NetworkSpec, command: str, section: str, xml: str) -> Document:
    """The Network after it; ``command`` is one of ``COMMANDS``, ``section`` of ``SECTIONS``.

    Raises InvalidInput for what cannot be done.
    """
    where = _section(command, section)
    element = _element(xml, where.tag)
    fields = dump_spec(spec)
    items = _items(fields, where)
    if command == "delete":
        _delete(items, where, section, element)
    else:
        made = _read(name, spec, where, element)
        if command == _MODIFY and _changed(items, where, made[0]) is None:
            raise _refused(section, f"there is no {_told(element)}", "add it, or name one that is there")
        for item in made:
            _set(items, where, section, command, item)
    _put(fields, where, items)
    return load_objects([{"kind": "Network", "name": name, **fields}], f"net update {section}")[0]


def _set(items: list[_Item], where: _Section, section: str, command: str, made: _Item) -> None:
    """Add it, or put it in the place of the one that it changes."""
    at = _changed(items, where, made) if command == _MODIFY else None
    if at is not None and where.field == ("portgroups",):  # what XML has no words for stays as it is
        made = {name: value for name, value in items[at].items() if name not in _OF_XML} | made
    if at is not None:
        items[at] = made
        return
    if there := next((item for item in items if where.same(item, made)), None):
        told = ", ".join(f"{name} {value}" for name, value in there.items() if isinstance(value, str))
        raise _refused(section, f"there is one already: {told}", "modify it, or delete it first")
    items.insert(0 if command == "add-first" else len(items), made)


def _changed(items: Sequence[_Item], where: _Section, made: _Item) -> int | None:
    """Which one it is that this one changes."""
    for name in where.known:
        for number, item in enumerate(items):
            if made.get(name) is not None and item.get(name) == made[name] and _version(item) == _version(made):
                return number
    return None


def _version(item: _Item) -> int:
    return 6 if ":" in item.get("ip", "") else 4


def _section(command: str, section: str) -> _Section:
    if section in _OTHERS:
        raise _refused(section, "is not updated by itself", _OTHERS[section])
    if command == _MODIFY and not _SECTIONS[section].known:
        raise _refused(section, "is not modified, as with libvirt", "delete it and add it")
    return _SECTIONS[section]


def _refused(section: str, what: str, remedy: str) -> InvalidInput:
    return InvalidInput([Problem(section, what, remedy)])


def _element(xml: str, tag: str) -> Element:
    try:
        return read_xml(xml, tag, "XML")
    except LibvirtError as error:
        raise InvalidInput([Problem("XML", error.what, f"write one <{tag}> element")]) from None


def _told(element: Element) -> str:
    said = " ".join(f"{name}={shown(value)!r}" for name, value in element.items())
    return f"<{element.tag}{' ' if said else ''}{said}>"


# The Network's side


def _items(fields: dict[str, Any], where: _Section) -> list[_Item]:
    """All of the section, each as one object."""
    if where.field == ("portgroups",):
        return [{"name": name, **group} for name, group in fields.get("portgroups", {}).items()]
    holder, field = where.field
    part = fields.get(holder) or {}
    if field == "range":
        return [{"start": low, "end": high} for low, high in (*part.get("range", ()), *part.get("range6", ()))]
    return [dict(item) for item in part.get(field, ())]


def _put(fields: dict[str, Any], where: _Section, items: Sequence[_Item]) -> None:
    if where.field == ("portgroups",):
        fields["portgroups"] = {item["name"]: {k: v for k, v in item.items() if k != "name"} for item in items}
        return
    holder, field = where.field
    part = dict(fields.get(holder) or {})
    if field == "range":
        for version, name in ((4, "range"), (6, "range6")):
            part[name] = [[item["start"], item["end"]] for item in items if (":" in item["start"]) == (version == 6)]
    else:
        part[field] = list(items)
    fields[holder] = part
    if holder == "dhcp" and not any(part.values()):
        fields["dhcp"] = None  # nothing is left that a server could hand out, as libvirt starts none then


# The XML's side


def _read(name: str, spec: NetworkSpec, where: _Section, element: Element) -> list[_Item]:
    """What the element is in a Network like this one. Raises InvalidInput."""
    root = Element("network")
    SubElement(root, "name").text = name
    if where.field == ("portgroups",):
        SubElement(root, "forward", mode="bridge", dev="physnet")  # where any portgroup may be
        root.append(element)
        groups = dump_spec(define_network(root).document.spec)["portgroups"]
        return [{"name": name, **group} for name, group in groups.items()]
    _place(root, spec, where, element)
    made = define_network(root).document
    found = dump_spec(made.spec)
    lease = made.spec.dhcp.lease if isinstance(made.spec, NetworkSpec) and made.spec.dhcp is not None else None
    own = spec.dhcp.lease if spec.dhcp is not None else DEFAULT_LEASE_SECONDS
    if element.find("lease") is not None and lease != own:
        raise _refused("lease", f"{lease} s: a network has one lease time, of {own} s", "apply it as dhcp.lease")
    return _items(found, where)


def _place(root: Element, spec: NetworkSpec, where: _Section, element: Element) -> None:
    """Below the subnet that it is of, and beside all of them."""
    below = None
    says = element.get("ip") or element.get("start") or ""
    for subnet in map(ipaddress.ip_interface, spec.subnets):
        ip = SubElement(root, "ip", family=f"ipv{subnet.version}", address=str(subnet.ip),
                        prefix=str(subnet.network.prefixlen))  # fmt: skip
        if below is None or _is_in(says, subnet):
            below = ip
    if where.field[0] == "dns":
        SubElement(root, "dns").append(element)
    elif below is None:
        raise _refused(where.tag, "the network has no subnet", "apply the Network with subnets first")
    else:
        SubElement(below, "dhcp").append(element)


def _is_in(address: str, subnet: ipaddress.IPv4Interface | ipaddress.IPv6Interface) -> bool:
    try:
        return ipaddress.ip_address(address) in subnet.network
    except ValueError:
        return False


def _delete(items: list[_Item], where: _Section, section: str, element: Element) -> None:
    """What an element says of itself is enough, if it is of one only."""
    found = Findings()
    found.judge(element, where.path, where.path)
    if found.problems:
        raise InvalidInput(found.problems)
    wanted = _wanted(section, element)
    at = [number for number, item in enumerate(items) if where.found(item, wanted)]
    if len(at) != 1:
        what = f"there is no {_told(element)}" if not at else f"{len(at)} are {_told(element)}"
        raise _refused(section, what, "see them: fleetswitch net dumpxml NETWORK")
    del items[at[0]]


def _wanted(section: str, element: Element) -> _Item:
    """What the element says, as the Network has it."""
    said: _Item = {name: _canonical(name, value) for name, value in element.items()}
    if section == "portgroup":
        return {"name": said.get("name")}
    if section == "dns-srv" and said.get("target") == ".":
        del said["target"]  # there is none (RFC 2782)
    if section == "dns-host" and (names := [(each.text or "").strip().lower() for each in element.findall("hostname")]):
        said["names"] = names
    return said


def _canonical(name: str, value: str) -> Any:
    if name in {"port", "priority", "weight"} and value.isdecimal():
        return int(value)
    if name == "mac" or (name in {"domain", "target"}):
        return value.lower()
    if name == "id":
        return ":".join(octet.zfill(2) for octet in value.lower().split(":"))
    if name in {"ip", "start", "end"}:
        try:
            return str(ipaddress.ip_address(value))
        except ValueError:
            return value
    return value
