"""What is really there of what the rows want: states of bridges, uplinks, tunnels and networks, as their hosts tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from controller.ovsdb.wanted import tunnel_port
from controller.pipeline.ports import TUNNEL_PORTS
from topology.graph.nodes import BridgeNode, Links, NetworkNode, Node, TunnelNode, UplinkNode, node_id


def standing(nodes: Mapping[str, Node], link: Links) -> dict[str, Node]:
    """Those of a host's nodes of which its OVSDB tells, as it tells; the rest is as it was."""
    return dict(_standing(nodes, link))


def _standing(nodes: Mapping[str, Node], link: Links) -> Iterator[tuple[str, Node]]:
    bridges, interfaces = link.bridges, link.interfaces
    for name, node in nodes.items():
        match node:
            case BridgeNode() if bridges is not None and interfaces is not None:
                whole = all(interfaces.get(port) == "up" for port in node.patch_ports)
                state = "missing" if node.name not in bridges else "up" if whole else "degraded"
                yield name, replace(node, state=state)
            case UplinkNode() if interfaces is not None:
                yield name, replace(node, state=interfaces.get(node.interface, "missing"))
            case TunnelNode() if interfaces is not None:
                ports = tuple(kind for kind in TUNNEL_PORTS if interfaces.get(tunnel_port(kind)) == "up")
                state = interfaces.get(tunnel_port(node.type), "missing")
                yield name, replace(node, state=state, ports=ports)


def networks_on(nodes: Mapping[str, Node], links: Mapping[str, Links]) -> dict[str, Node]:
    """The networks, as the hosts' libvirts tell."""
    telling = {host: link.networks for host, link in links.items()
               if link.networks is not None and node_id("host", host) in nodes}  # fmt: skip
    found: dict[str, Node] = {}
    if telling:
        for name, node in nodes.items():
            if isinstance(node, NetworkNode):
                missing = tuple(sorted(host for host, networks in telling.items() if node.name not in networks))
                found[name] = replace(node, state="degraded" if missing else "up", missing_on=missing)
    return found
