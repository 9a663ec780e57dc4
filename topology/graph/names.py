"""Which node is meant by what a person types: names, UUIDs, MACs, addresses, HOST/INTERFACE."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from controller.errors import InvalidInput, NotFound, Problem, alike
from controller.model.fields import parse_mac
from topology.graph.nodes import (
    BridgeNode,
    DeviceNode,
    GuestNode,
    HostNode,
    NetworkNode,
    Node,
    PhysicalNode,
    TunnelNode,
    UnderlayNode,
    UplinkNode,
    VnicNode,
)
from topology.graph.topology import Topology

_SHOWN = 8


def resolve(topology: Topology, text: str, where: str = "") -> str:
    """The id of the node that is meant; ``where`` is how an error calls the place of the text.

    Raises NotFound when there is none, InvalidInput when there are several.
    """
    if text in topology.nodes:
        return text
    known: dict[str, set[str]] = defaultdict(set)
    for name, node in topology.nodes.items():
        for word in words(node):
            known[word].add(name)
    found = known.get(text) or known.get(_canonical(text), set())
    found = _without_parts(topology, found)
    if not found:
        guess = alike(text, known)
        remedy = f"did you mean {guess}?" if guess else "name a host, guest, vNIC, network, uplink or physical network"
        raise NotFound(f"nothing is called {text!r:.80}", where=where, remedy=remedy)
    if len(found) > 1:
        several = sorted(found)
        more = f" and {len(several) - _SHOWN} more" if len(several) > _SHOWN else ""
        raise InvalidInput([Problem(where, f"{text!r:.80} may be {', '.join(several[:_SHOWN])}{more}",
                                    "name one of them like this")])  # fmt: skip
    return found.pop()


def words(node: Node) -> Iterator[str]:
    """Everything that a node is called."""
    match node:
        case HostNode() | NetworkNode() | PhysicalNode():
            yield node.name
        case UnderlayNode():
            yield from ("underlay", node.label)
        case BridgeNode():
            yield node.label
        case UplinkNode():
            yield from (node.label, f"{node.host}/{node.physical_network}")
        case TunnelNode():
            yield from (node.label, node.address)
        case GuestNode():
            yield from filter(None, (node.name, node.uuid))
        case DeviceNode():
            yield from filter(None, (node.name, node.chassis))
        case VnicNode():
            yield from (node.name, node.mac, f"{node.guest}/{node.mac}", *node.addresses)
            if node.network is not None:
                yield f"{node.guest}/{node.network}"
            if node.host is not None and node.interface is not None:
                yield f"{node.host}/{node.interface}"


def _canonical(text: str) -> str:
    try:
        return parse_mac(text)
    except ValueError:
        return text.lower()


def _without_parts(topology: Topology, found: set[str]) -> set[str]:
    """A guest and a vNIC of its own of one name: the guest is meant, which has the vNIC; a device never is, where
    something of the fleet has the name."""
    ours = {name for name in found if not isinstance(topology.nodes[name], DeviceNode)}
    found = ours or found  # a device calls itself what it likes, and shall not take a name away
    guests = {name for name in found if isinstance(topology.nodes[name], GuestNode)}
    return found - {name for name in found for guest in guests if name in topology.near(guest)}
