"""What stands around the grid: the title, what needs a look, the networks; and how to read it all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from topology.graph.nodes import BridgeNode, HostNode, NetworkNode, TunnelNode, UplinkNode, VnicNode
from topology.graph.picture.boxes import Chip
from topology.graph.picture.canvas import Canvas
from topology.graph.picture.chips import draw_chip
from topology.graph.picture.plan import MARGIN
from topology.graph.picture.text import fit, width
from topology.graph.topology import Topology

_CARD, _CARD_HEIGHT = 250.0, 36.0

_LEGEND = (
    ("active", "switched"), ("remark", "switched, with a remark"), ("pending", "pending"), ("quarantined", "kept out"),
    ("down", "link down"), ("unmanaged", "not seen by Open vSwitch"), ("absent", "registered, not running"),
)  # fmt: skip


def draw_head(canvas: Canvas, topology: Topology, wide: float) -> None:
    canvas.text(MARGIN, 44, "fleetswitch", 24, style='font-weight="700"')
    counts: Counter[str] = Counter(node.kind for node in topology.nodes.values())
    words = ("host", "guest", "network")
    said = [f"{counts[word]} {word}{'' if counts[word] == 1 else 's'}" for word in words]
    said.insert(2, f"{counts['vnic']} vNIC{'' if counts['vnic'] == 1 else 's'}")
    canvas.text(MARGIN + width("fleetswitch", 24, True) + 8, 44, " · ".join(said), 14, "soft")
    moment = f"change {topology.sequence}"
    canvas.text(wide - MARGIN, 44, moment, 12, "soft", 'text-anchor="end"')
    amiss = _amiss(topology)
    canvas.sign("cross" if amiss else "check", MARGIN, 60, 11, "bad" if amiss else "good")
    text = f"needs a look: {', '.join(amiss)}" if amiss else "everything is up and switched"
    canvas.text(MARGIN + 18, 70, fit(text, wide - 2 * MARGIN - 18, 13), 13, "bad" if amiss else "good")


def _amiss(topology: Topology) -> list[str]:
    """What a person should look at, counted."""
    counts: Counter[str] = Counter()
    for node in topology.nodes.values():
        match node:
            case HostNode(state="down" | "degraded" | "leaving"):
                counts[f"host {node.state}"] += 1
            case UplinkNode(state="down" | "missing"):
                counts[f"uplink {node.state}"] += 1
            case BridgeNode(state="missing" | "degraded") | TunnelNode(state="missing") | NetworkNode(state="degraded"):
                counts[f"{node.kind} {node.state}"] += 1
            case VnicNode(state="quarantined" | "pending" | "down"):
                counts[f"vNIC {node.state}"] += 1
            case VnicNode(state="active") if node.reason:
                counts["vNIC with a remark"] += 1
    return [f"{count} {what.replace(' ', 's ', 1) if count > 1 else what}" for what, count in sorted(counts.items())]


def head_height(cards: int, wide: float) -> float:
    across = max(1, int((wide - 2 * MARGIN + 12) // (_CARD + 12)))
    return 88 + -(-cards // across) * (_CARD_HEIGHT + 8) + 16


def draw_cards(canvas: Canvas, topology: Topology, colours: Mapping[str, str], wide: float) -> None:
    """A card a network: its colour, and what it is."""
    across = max(1, int((wide - 2 * MARGIN + 12) // (_CARD + 12)))
    members: Counter[str] = Counter()
    for node in topology.nodes.values():
        if isinstance(node, VnicNode) and node.state == "active" and node.network is not None:
            members[node.network] += 1
    for number, name in enumerate(colours):
        node = topology.nodes[f"network:{name}"]
        if not isinstance(node, NetworkNode):
            continue
        x = MARGIN + number % across * (_CARD + 12)
        y = 88 + number // across * (_CARD_HEIGHT + 8)
        lacking = f"\nnot as wanted in the libvirt of {', '.join(node.missing_on)}" if node.missing_on else ""
        title = (
            f"network {name}: {node.state}\nmode {node.mode}, span {node.span}\nMTU {node.mtu}\n{node.uuid}{lacking}"
        )
        with canvas.group(title):
            canvas.rect(x, y, _CARD, _CARD_HEIGHT, 'class="box"', 5)
            canvas.rect(x, y, 8, _CARD_HEIGHT, f'fill="{colours[name]}"', 3)
            count = f"{members[name]} vNIC{'' if members[name] == 1 else 's'}"
            room = _CARD - 24 - width(count, 10.5)
            canvas.text(x + 16, y + 15, fit(name, room, 12.5, True), 12.5, style='font-weight="700"')
            canvas.text(x + _CARD - 8, y + 15, count, 10.5, "soft", 'text-anchor="end"')
            about = f"not on {_some(node.missing_on)}" if node.missing_on else _about(node)
            kind = "bad" if node.missing_on else "soft"
            canvas.text(x + 16, y + 29, fit(about, _CARD - 24, 10.5), 10.5, kind)


def _some(hosts: Sequence[str]) -> str:
    return hosts[0] if len(hosts) == 1 else f"{len(hosts)} hosts"


def _about(node: NetworkNode) -> str:
    tagged = [str(vlan) for vlan in node.vlans if vlan]
    vlans = f", VLAN{'s' if len(tagged) > 1 else ''} {', '.join(tagged)}" if tagged else ""
    if node.physical_network is not None:
        return f"on {node.physical_network}{vlans or ', untagged'}"
    return f"{'over tunnels' if node.span == 'fleet' else 'each host by itself'}{vlans}"


def draw_legend(canvas: Canvas, y: float, wide: float) -> float:
    """How to read it; returns where the drawing ends."""
    canvas.text(MARGIN, y + 12, "A chip is a vNIC, in the colour of its network:", 11, "soft")
    x = MARGIN + width("A chip is a vNIC, in the colour of its network:", 11) + 10
    for look, words in _LEGEND:
        chip = Chip("lan 10", None, look, words)
        size = chip.width + 6 + width(words, 11) + 20
        if x + size > wide - MARGIN + 20:
            x, y = MARGIN, y + 24
        draw_chip(canvas, Chip(chip.text, "", look, words), x, y, {"": "#0072b2"})
        canvas.text(x + chip.width + 6, y + 12, words, 11, "soft")
        x += size
    return y + 24 + MARGIN / 2
