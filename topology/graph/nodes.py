"""The nodes and edges of the topology, with what is known of each: the only place that says what attributes there are.

``python -m topology.graph`` makes docs/topology-reference.md from these classes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, Literal

Kind = Literal["host", "bridge", "uplink", "physical", "tunnel", "underlay", "network", "guest", "vnic", "device"]
Relation = Literal["has", "runs", "patch", "wire", "plugged", "member", "asks", "over", "hears"]

Scalar = str | int | bool
Plain = Scalar | list[str] | list[int] | None

UNKNOWN = "unknown"
"""Of a state that nobody has told yet."""

RELATIONS: Mapping[Relation, str] = {
    "has": "a host its bridges, a bridge its uplink or tunnel port, a guest its vNICs",
    "runs": "a host a guest",
    "patch": "the integration bridge and an uplink's bridge, by a pair of patch ports",
    "wire": "an uplink to its physical network, a tunnel endpoint to the underlay",
    "plugged": "a vNIC into the integration bridge",
    "member": "a vNIC that is switched, of its network",
    "asks": "a vNIC that is not switched (kept out, absent), for the network that it names",
    "over": "a network over its physical network, or over the underlay",
    "hears": "an uplink and a device, or another host's uplink, of which it has heard by LLDP: they share a wire",
}


def about(text: str, default: Any = MISSING) -> Any:
    """A field with its line of the reference."""
    return field(default=default, metadata={"about": text})


@dataclass(frozen=True, slots=True, kw_only=True)
class HostNode:
    """A host."""

    kind: ClassVar[Kind] = "host"
    name: str = about("the Host's name")
    state: str = about("up; degraded: a connection is not; down: none is; leaving: it is being deleted", UNKNOWN)
    reason: str = about("what is wrong with its connections", "")
    openflow: str | None = about("how the OpenFlow connection stands", None)
    ovsdb: str | None = about("how the OVSDB connection stands", None)
    libvirt: str | None = about("how the libvirt connection stands; nothing where the Host names none", None)
    datapath_id: str | None = about("of the integration bridge, 16 hex digits", None)

    @property
    def label(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeNode:
    """A bridge of fleetswitch's in a host's Open vSwitch."""

    kind: ClassVar[Kind] = "bridge"
    host: str = about("the Host's name")
    name: str = about("of the bridge")
    role: Literal["integration", "uplink"] = about("integration: guests are plugged in; uplink: holds one interface")
    datapath_type: str = about("system or netdev")
    patch_ports: tuple[str, ...] = about("of an uplink's bridge: the pair that joins it to the integration bridge", ())
    state: str = about(
        "as the host's OVSDB tells: up; degraded: a patch port of it is not there; missing: this fleet has no such "
        "bridge there",
        UNKNOWN,
    )

    @property
    def label(self) -> str:
        return f"{self.host}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UplinkNode:
    """An interface of a host towards a physical network."""

    kind: ClassVar[Kind] = "uplink"
    host: str = about("the Host's name")
    interface: str = about("of the host")
    physical_network: str = about("where it leads")
    state: str = about("up, down or missing, as the host's OVSDB tells of the interface", UNKNOWN)

    @property
    def label(self) -> str:
        return f"{self.host}/{self.interface}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PhysicalNode:
    """A physical network: switches that are not fleetswitch's."""

    kind: ClassVar[Kind] = "physical"
    name: str = about("as uplinks and networks call it")

    @property
    def label(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelNode:
    """A host's end of every tunnel."""

    kind: ClassVar[Kind] = "tunnel"
    host: str = about("the Host's name")
    type: str = about("in which encapsulation others reach it: geneve, vxlan or gre")
    address: str = about("its tunnel_ip")
    state: str = about("up or missing, as the host's OVSDB tells of the port of this type", UNKNOWN)
    ports: tuple[str, ...] = about("encapsulations whose ports are there: the others' frames come and go by those", ())

    @property
    def label(self) -> str:
        return f"{self.host}/{self.type}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnderlayNode:
    """The IP network between the tunnel endpoints of one address family."""

    kind: ClassVar[Kind] = "underlay"
    name: str = about("ipv4 or ipv6")

    @property
    def label(self) -> str:
        return f"underlay {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkNode:
    """A Network."""

    kind: ClassVar[Kind] = "network"
    name: str = about("the Network's name")
    mode: str = about("isolated, bridge or nat")
    span: str = about("fleet, or host: each host by itself")
    physical_network: str | None = about("of mode bridge", None)
    vlans: tuple[int, ...] = about("its VLANs; 0 is the untagged one", ())
    mtu: int | None = about("bytes of an IP packet", None)
    uuid: str = about("of the libvirt network on every host")
    state: str = about(
        "up: every libvirt that answers has it running; degraded: some have not; unknown: none answers", UNKNOWN
    )
    missing_on: tuple[str, ...] = about("Hosts whose libvirt has it not, or otherwise than wanted", ())

    @property
    def label(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestNode:
    """A guest: a libvirt domain, or what a registration calls one."""

    kind: ClassVar[Kind] = "guest"
    name: str | None = about("libvirt's name, or the registration's; nothing where nobody told it", None)
    uuid: str | None = about("of the domain; nothing for one that was never seen", None)
    state: Literal["running", "absent"] = about("absent: registered, and seen on no host", "absent")
    hosts: tuple[str, ...] = about("where its vNICs are", ())

    @property
    def label(self) -> str:
        return self.name or self.uuid or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VnicNode:
    """A vNIC, as its Port row says; unmanaged ones too."""

    kind: ClassVar[Kind] = "vnic"
    name: str = about("of the Port row")
    guest: str = about("the guest's name, or its UUID")
    mac: str = about("with the guest its identity")
    state: str = about("absent, pending, active, quarantined, down or unmanaged")
    reason: str = about("why it is in this state, or what is amiss", "")
    host: str | None = about("where it is", None)
    interface: str | None = about("on the host, which is the OVS interface too", None)
    ofport: int | None = about("OpenFlow port on the integration bridge", None)
    network: str | None = about("that it names, or was given", None)
    portgroup: str | None = about("of that network", None)
    vlans: tuple[int, ...] = about("that its portgroup gives; 0 is the untagged one", ())
    isolation: str = about("of its portgroup", "none")
    addresses: tuple[str, ...] = about("registered IPv4 and IPv6 addresses", ())
    mtu: int | None = about("bytes, as the guest's XML says", None)
    registered: bool = about("whether the operator registered it", False)

    @property
    def label(self) -> str:
        return f"{self.guest} {self.mac}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceNode:
    """What an uplink hears by LLDP, a physical switch as a rule. It says of itself what it likes."""

    kind: ClassVar[Kind] = "device"
    name: str = about("its system name; empty where it does not tell", "")
    chassis: str = about("its chassis id: a MAC, an address, or a name")
    description: str = about("its system description", "")

    @property
    def label(self) -> str:
        return self.name or self.chassis


Node = (
    HostNode | BridgeNode | UplinkNode | PhysicalNode | TunnelNode | UnderlayNode | NetworkNode | GuestNode | VnicNode
    | DeviceNode
)  # fmt: skip
NODES: tuple[type[Node], ...] = (
    HostNode, BridgeNode, UplinkNode, PhysicalNode, TunnelNode, UnderlayNode, NetworkNode, GuestNode, VnicNode,
    DeviceNode,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """What two nodes have with each other. There is one edge at most between two nodes, without a direction."""

    relation: Relation = field(metadata={"about": "see below"})
    vlans: tuple[int, ...] = about("of member and asks: the VLANs that the vNIC has in the network; 0 is untagged", ())
    portgroup: str | None = about("of member and asks", None)
    port: str | None = about("of hears: the device's port, as its port id says", None)
    port_description: str | None = about("of hears: what the device calls that port", None)
    port_vlan: int | None = about("of hears: the VLAN of untagged frames there, where the device tells", None)
    ttl: int | None = about("of hears: the seconds for which what was heard holds, from when it was", None)


EdgeKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Heard:
    """What an uplink has heard by LLDP, in the words of the standard. ``uplink`` is the (host, physical network) of
    this fleet that said it, None where it was somebody else."""

    chassis: str
    port: str
    port_description: str
    system_name: str
    system_description: str
    port_vlan: int | None
    ttl: int
    uplink: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Links:
    """What no row says of a host: how its connections stand at this moment, part → (state, reason); what its OVSDB has
    of ours, interfaces with their state (up, down, missing, unknown) and bridges; the networks of ours that its libvirt
    has as wanted; and what its uplinks hear, by physical network. None: nobody can tell."""

    parts: Mapping[str, tuple[str, str]]
    interfaces: Mapping[str, str] | None = None
    heard: Mapping[str, Sequence[Heard]] = field(default_factory=dict)
    bridges: Collection[str] | None = None
    networks: Collection[str] | None = None

    @property
    def state(self) -> str:
        """The one word for all of them."""
        states = {state for state, _ in self.parts.values()}
        if not states:
            return UNKNOWN
        if states == {"up"}:
            return "up"
        return "degraded" if states & {"up", "degraded"} else "down"

    @property
    def reason(self) -> str:
        """What is wrong, a part after the other."""
        return "; ".join(f"{part}: {reason or state}" for part, (state, reason) in self.parts.items() if state != "up")


def node_id(kind: Kind, *parts: str) -> str:
    """How the graph calls a node: ``host:kvm01``, ``uplink:kvm01/physnet1``."""
    return f"{kind}:{'/'.join(parts)}"


def edge_key(one: str, other: str) -> EdgeKey:
    """The key of the edge between two nodes, whichever is named first."""
    return (one, other) if one <= other else (other, one)


def attributes(value: Node | Edge) -> dict[str, Plain]:
    """Every attribute as JSON has it; ``kind`` and ``label`` first for nodes."""
    found: dict[str, Plain] = {} if isinstance(value, Edge) else {"kind": value.kind, "label": value.label}
    for each in fields(value):
        item = getattr(value, each.name)
        found[each.name] = list(item) if isinstance(item, tuple) else item
    return found


def flat_attributes(value: Node | Edge) -> dict[str, Scalar]:
    """The same for formats that know neither lists nor nothing: lists as text with blanks between, nothing left out."""
    found: dict[str, Scalar] = {}
    for name, item in attributes(value).items():
        if isinstance(item, list):
            found[name] = " ".join(map(str, item))
        elif item is not None:
            found[name] = item
    return found
