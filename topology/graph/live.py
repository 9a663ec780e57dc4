"""The topology, kept current from the store's rows: a change of one row touches the nodes that are made from it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from controller.model.kinds import overlay_mtu
from topology.graph.derive import (
    GraphRows,
    Key,
    Part,
    guest_of,
    guest_part,
    host_part,
    network_part,
    port_part,
    shared_part,
)
from topology.graph.nodes import DeviceNode, Edge, EdgeKey, HostNode, Links, Node, UplinkNode, edge_key, node_id
from topology.graph.standing import networks_on, standing
from topology.graph.topology import Topology

_PLAIN = re.compile(r"[A-Za-z0-9 .:/_+@-]+")
_SHARED = frozenset({"guest", "physical", "underlay"})


class LiveTopology:
    """Belongs to the loop. Nodes and edges after any sequence of updates are those of one update with all rows."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._edges: dict[EdgeKey, Edge] = {}
        self._parts: dict[Key, Part] = {}
        self._users: dict[Key, set[Key]] = defaultdict(set)
        self._uuids: dict[str, dict[str, int]] = defaultdict(dict)  # guest's name → UUID → how many rows say so
        self._shared: set[Key] = set()  # what this update touched
        self._named: set[str] = set()

    def update(self, rows: GraphRows, changed: Iterable[tuple[str, str]] | None = None) -> None:
        """Take the rows in; ``changed`` names the (kind, name) that differ, None means all."""
        todo = set(changed) if changed is not None else self._everything(rows)
        hosts = {name for kind, name in todo if kind == "Host"}
        networks = {name for kind, name in todo if kind == "Network"}
        ports = {name for kind, name in todo if kind == "Port"}
        for kind, names in (("host", hosts), ("network", networks)):
            ports |= {user[1] for name in names for user in self._users.get((kind, name), ())}
        for name in hosts:
            self._put(("host of the fleet", name), host_part(name, rows))
        if hosts:  # they say how large a packet may be, and which underlays there are
            networks |= rows.networks.keys()
        if networks:
            limit = overlay_mtu(rows.hosts.values())
            underlays = [name for name in ("ipv4", "ipv6") if self._users.get(("underlay", name))]
            for name in networks:
                self._put(("network of the fleet", name), network_part(name, rows, underlays, limit))
        self._update_ports(ports, rows)
        self._update_shared(rows)

    def snapshot(self, sequence: int, links: Mapping[str, Links]) -> Topology:
        """What is now; ``sequence`` counts the changes of rows, ``links`` says by host what is no row."""
        nodes, edges = dict(self._nodes), dict(self._edges)
        for host, link in links.items():
            own = node_id("host", host)
            node = nodes.get(own)
            if isinstance(node, HostNode):
                states = {part: state for part, (state, _) in link.parts.items()}
                nodes[own] = replace(
                    node, state=node.state if node.state == "leaving" else link.state, reason=link.reason,
                    openflow=states.get("openflow"), ovsdb=states.get("ovsdb"), libvirt=states.get("libvirt"),
                )  # fmt: skip
            part = self._parts.get(("host of the fleet", host))
            nodes |= standing(part.nodes, link) if part is not None else {}
        nodes |= networks_on(nodes, links)
        for host, link in links.items():
            _hear(host, link, nodes, edges)
        return Topology(sequence, nodes, edges)

    def _everything(self, rows: GraphRows) -> set[tuple[str, str]]:
        kinds = {"host of the fleet": "Host", "network of the fleet": "Network", "port of the fleet": "Port"}
        found = {(kinds[key[0]], key[1]) for key in self._parts if key[0] in kinds}
        found |= {("Host", name) for name in (*rows.hosts, *rows.leaving)}
        found |= {("Network", name) for name in rows.networks}
        return found | {("Port", name) for name in (*rows.registered, *rows.statuses)}

    def _update_ports(self, ports: set[str], rows: GraphRows) -> None:
        """First those that were seen: they say which guests there are, and the others belong to one of them or not."""
        seen, waiting = {name for name in ports if name in rows.statuses}, set()
        for name in ports:
            if name in seen:
                self._put(("port of the fleet", name), port_part(name, rows, guest_of(name, rows, {})))
            else:  # what it said of its guest until now counts no more
                self._put(("port of the fleet", name), Part())
                waiting |= {name} & rows.registered.keys()
        for name in self._named:
            waiting |= {user[1] for user in self._users.get(("waiting", name), ())}
        self._named.clear()
        for name in waiting:
            self._put(("port of the fleet", name), port_part(name, rows, guest_of(name, rows, self._uuids)))

    def _update_shared(self, rows: GraphRows) -> None:
        shared, self._shared = self._shared, set()
        for key in shared:
            users = self._users.get(key, ())
            if key[0] == "guest":
                self._put(key, guest_part(key[1], (user[1] for user in users), rows))
            else:
                self._put(key, shared_part(key, bool(users)))

    def _put(self, owner: Key, new: Part) -> None:
        """Give an owner its part; what it had and has no more goes."""
        old = self._parts.get(owner)
        if old is None:
            old = Part()
        for node in old.nodes.keys() - new.nodes.keys():
            del self._nodes[node]
        for edge in old.edges.keys() - new.edges.keys():
            del self._edges[edge]
        self._nodes.update(new.nodes)
        self._edges.update(new.edges)
        if new.nodes:
            self._parts[owner] = new
        else:
            self._parts.pop(owner, None)
        for key in old.uses - new.uses:
            self._users[key].discard(owner)
            if not self._users[key]:
                del self._users[key]
            self._note(key, -1)
        for key in new.uses - old.uses:
            self._users[key].add(owner)
            self._note(key, 1)
        self._shared |= {key for key in old.uses | new.uses if key[0] in _SHARED}

    def _note(self, key: Key, more: int) -> None:
        """Who is called by a name, as rows come and go."""
        if key[0] != "called":
            return
        _, name, uuid = key
        counts = self._uuids[name]
        counts[uuid] = counts.get(uuid, 0) + more
        if not counts[uuid]:
            del counts[uuid]
            if not counts:
                del self._uuids[name]
        self._named.add(name)


def _hear(host: str, link: Links, nodes: dict[str, Node], edges: dict[EdgeKey, Edge]) -> None:
    """Put in what the host's uplinks hear. Others remember for two minutes whoever has lost its link."""
    for physical, found in link.heard.items():
        uplink = node_id("uplink", host, physical)
        for heard in found if _has_link(nodes.get(uplink)) else ():
            if heard.uplink is not None:  # the nodes tell what it would say of the port
                other, edge = node_id("uplink", *heard.uplink), Edge(relation="hears", ttl=heard.ttl)
                if not _has_link(nodes.get(other)):
                    continue
            else:
                other = node_id("device", _plain(heard.chassis))
                edge = Edge(
                    relation="hears", port=heard.port, port_description=heard.port_description,
                    port_vlan=heard.port_vlan, ttl=heard.ttl,
                )  # fmt: skip
                nodes[other] = DeviceNode(
                    name=heard.system_name, chassis=heard.chassis, description=heard.system_description
                )
            edges[edge_key(uplink, other)] = edge


def _plain(chassis: str) -> str:
    """What a device calls itself, fit for an id; hexadecimal where it is anything but plain."""
    return chassis if _PLAIN.fullmatch(chassis) else chassis.encode(errors="replace").hex()


def _has_link(node: Node | None) -> bool:
    return isinstance(node, UplinkNode) and node.state not in {"down", "missing"}
