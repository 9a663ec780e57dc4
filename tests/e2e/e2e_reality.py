"""What is really there, read from the hosts' OVSDB and libvirt alone, and what the topology says is there.

Both are told as facts: (what, host, ...). A graph that tells the truth has the same facts, no more and no fewer.
"""

from __future__ import annotations

import json
import select
import socket
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any
from xml.etree import ElementTree as Xml

import libvirt
from labkit.host import Host

Fact = tuple[Any, ...]
Row = Mapping[str, Any]

MARK = "fleetswitch"
_TABLES = {
    "Bridge": ("name", "ports", "external_ids"), "Port": ("name", "interfaces"),
    "Interface": ("name", "type", "ofport", "options", "external_ids", "link_state"),
}  # fmt: skip


def reality(hosts: Iterable[Host]) -> set[Fact]:
    """The facts of these hosts, all read at once."""
    hosts = list(hosts)
    with ThreadPoolExecutor(2 * len(hosts)) as pool:
        found = [*pool.map(_of_ovsdb, hosts), *pool.map(_of_libvirt, hosts)]
    return set().union(*found)


def reality_of_libvirt(hosts: Iterable[Host]) -> set[Fact]:
    return set().union(*map(_of_libvirt, hosts))


def follow_ovsdb(hosts: Iterable[Host], done: Callable[[], bool]) -> Iterator[set[Fact]]:
    """The facts of these hosts' OVSDB now and after every transaction on any of them, until ``done``. Nothing that was
    so for however short a time is missed."""
    with ExitStack() as stack:
        databases = [stack.enter_context(closing(_Database(host))) for host in hosts]
        yield set().union(*(each.facts() for each in databases))
        while not done():
            for changed in select.select(databases, [], [], 0.1)[0]:
                for _ in changed.read():
                    yield set().union(*(each.facts() for each in databases))


class _Database:
    """A host's OVSDB, followed by transactions (RFC 7047, 4.1.5 and 4.1.6)."""

    def __init__(self, host: Host) -> None:
        self._host = host.name
        self._rows: dict[str, dict[str, Row]] = {table: {} for table in _TABLES}
        self._unread = ""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(20.0)
        self._socket.connect(host.db.removeprefix("unix:"))
        wanted = {table: {"columns": columns} for table, columns in _TABLES.items()}
        ask = {"id": 0, "method": "monitor", "params": ["Open_vSwitch", None, wanted]}
        self._socket.sendall(json.dumps(ask).encode())
        while not any(True for _ in self.read()):
            pass

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def read(self) -> Iterator[None]:
        """Take what the server has sent; stops at each transaction."""
        data = self._socket.recv(1 << 16)
        assert data, f"{self._host}: its OVSDB has hung up"
        self._unread += data.decode()
        while self._unread:
            try:
                message, length = json.JSONDecoder().raw_decode(self._unread)
            except json.JSONDecodeError:
                return  # the rest is under way
            self._unread = self._unread[length:]
            self._take(message["params"][1] if message.get("method") == "update" else message["result"])
            yield

    def _take(self, tables: Mapping[str, Mapping[str, Row]]) -> None:
        for table, changes in tables.items():
            for uuid, change in changes.items():
                self._rows[table].pop(uuid, None)
                if "new" in change:
                    self._rows[table][uuid] = {name: _plain(value) for name, value in change["new"].items()}

    def facts(self) -> set[Fact]:
        return _facts(self._host, *self._rows.values())


def _of_ovsdb(host: Host) -> set[Fact]:
    with closing(_Database(host)) as database:
        return database.facts()


def _facts(host: str, bridges: Mapping[str, Row], ports: Mapping[str, Row], interfaces: Mapping[str, Row]) -> set[Fact]:
    """Rows by their UUIDs."""
    found: set[Fact] = set()
    on: dict[str, str] = {}  # a port's bridge
    patched: dict[Fact, int] = defaultdict(int)  # how many ends of a pair there are
    ours = [bridge for bridge in bridges.values() if MARK in bridge["external_ids"]]
    for bridge in ours:
        found.add(("bridge", host, bridge["name"]))
        for port in (ports[uuid] for uuid in _set(bridge["ports"])):
            on[port["name"]] = bridge["name"]
    for bridge in ours:
        for uuid in _set(bridge["ports"]):
            for interface in (interfaces[i] for i in _set(ports[uuid]["interfaces"])):
                if interface["type"] == "patch" and MARK in interface["external_ids"]:
                    pair = sorted((bridge["name"], on.get(interface["options"].get("peer"), "")))
                    patched["patch", host, *pair] += _is_plugged(interface)
                elif interface["name"] != bridge["name"]:
                    found |= _of_interface(host, bridge["name"], interface)
    return found | {pair for pair, ends in patched.items() if ends == 2}


def _is_plugged(row: Row) -> bool:
    return isinstance(row["ofport"], int) and row["ofport"] > 0  # an empty set: not yet; -1: there is no such device


def _of_interface(host: str, bridge: str, row: Row) -> set[Fact]:
    """What an interface on a bridge of ours is: a vNIC unless we made it."""
    ids, options = row["external_ids"], row["options"]
    if MARK not in ids:
        ofport = row["ofport"] if isinstance(row["ofport"], int) else None  # an empty set while there is none
        return {("vnic", host, bridge, row["name"], ofport, ids.get("attached-mac"), ids.get("vm-id"))}
    if not _is_plugged(row):
        return set()
    if row["type"] == "":
        return {("uplink", host, bridge, row["name"], "up" if row["link_state"] == "up" else "down")}
    return {("tunnel", host, bridge, row["type"], options["local_ip"])}


def _of_libvirt(host: Host) -> set[Fact]:
    connection = libvirt.openReadOnly(host.libvirt_uri)
    try:
        nets = connection.listAllNetworks(libvirt.VIR_CONNECT_LIST_NETWORKS_ACTIVE)
        found: set[Fact] = {("network", host.name, net.name(), net.UUIDString()) for net in nets}
        for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
            try:
                text = domain.XMLDesc()
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                    raise
                continue  # it ended between the two questions
            found.add(("guest", host.name, domain.name(), domain.UUIDString()))
            for nic in Xml.fromstring(text).iterfind("devices/interface"):
                mac, target, switched = (
                    nic.find("mac"),
                    nic.find("target"),
                    nic.find("virtualport[@type='openvswitch']"),
                )
                assert mac is not None
                if switched is None:
                    found.add(("unmanaged", host.name, domain.name(), mac.get("address")))
                elif target is not None:
                    found.add(("libvirt's vnic", host.name, domain.name(), target.get("dev"), mac.get("address")))
    finally:
        connection.close()
    return found


def _plain(value: Any) -> Any:
    """RFC 7047, 5.1: atoms, and lists that begin with the word for what they are."""
    match value:
        case ["uuid", text]:
            return text
        case ["map", pairs]:
            return dict(pairs)
        case ["set", values]:
            return [_plain(each) for each in values]
    return value


def _set(value: Any) -> list[str]:
    """A set of one is written as its only member."""
    return value if isinstance(value, list) else [value]


def graph_facts(answer: Mapping[str, Any]) -> set[Fact]:
    """The same facts as the topology (JSON, node-link) tells them. Where something is, its edges say."""
    nodes = {node["id"]: node for node in answer["nodes"]}
    near: dict[str, list[tuple[str, Row]]] = defaultdict(list)
    for edge in answer["edges"]:
        for one, other in ((edge["source"], edge["target"]), (edge["target"], edge["source"])):
            near[one].append((edge["relation"], nodes[other]))
    found: set[Fact] = set()
    networks = [node for node in nodes.values() if node["kind"] == "network"]
    for name, node in nodes.items():
        around = near[name]
        match node["kind"]:
            case "host":
                found |= {("network", node["name"], net["name"], net["uuid"]) for net in networks
                          if net["state"] != "unknown" and node["name"] not in net["missing_on"]}  # fmt: skip
                found |= {("bridge", node["name"], each["name"]) for relation, each in around
                          if relation == "has" and each["state"] in {"up", "degraded"}}  # fmt: skip
                found |= {("guest", node["name"], each["name"], each["uuid"]) for relation, each in around
                          if relation == "runs" and each["name"] is not None}  # fmt: skip
            case "bridge":
                found |= {("patch", node["host"], *sorted((node["name"], each["name"])))
                          for relation, each in around if relation == "patch" and "up" == node["state"]
                          == each["state"]}  # fmt: skip
                for relation, each in around:
                    if relation == "has" and each["kind"] == "uplink" and each["state"] in {"up", "down"}:
                        found.add(("uplink", node["host"], node["name"], each["interface"], each["state"]))
                    if relation == "has" and each["kind"] == "tunnel":
                        found |= {("tunnel", node["host"], node["name"], type_, each["address"])
                                  for type_ in each["ports"]}  # fmt: skip
            case "vnic":
                found |= _of_vnic(node, around)
    return found


def _of_vnic(node: Row, around: list[tuple[str, Row]]) -> set[Fact]:
    guests = [each for relation, each in around if relation == "has"]
    assert len(guests) == 1, (node, around)
    guest = guests[0]
    if node["state"] == "unmanaged":
        return {("unmanaged", node["host"], guest["name"], node["mac"])}
    found: set[Fact] = set()
    for relation, bridge in around:
        if relation == "plugged":
            host, name = bridge["host"], bridge["name"]
            found.add(("vnic", host, name, node["interface"], node["ofport"], node["mac"], guest["uuid"]))
            if guest["name"] is not None:  # of light guests, which are no libvirt's, only the UUID is known
                found.add(("libvirt's vnic", host, guest["name"], node["interface"], node["mac"]))
    return found
