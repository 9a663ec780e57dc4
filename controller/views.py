"""What apps see of the fleet: hosts, networks and vNICs as values."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network

from controller.model.guard import CLAIMS, Check, kind_of
from controller.model.network import Isolation, Mode, PortGroup
from controller.model.subnet import link_local

Subnet = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Way:
    """How a host meets the outside in one version of IP: its own address, the subnet there, the router there."""

    address: str
    subnet: str
    gateway: str

    @property
    def version(self) -> int:
        return 6 if ":" in self.address else 4


@dataclass(frozen=True, slots=True)
class ExternalView:
    """Where a host meets the outside: ``segment`` is the one of that VLAN, ``network`` the network that has it,
    ``uplink`` the OpenFlow port that leads there, ``mtu`` the bytes that an IP packet may have there. ``ipv6`` is None
    where it has no address of IPv6."""

    network: str
    segment: int
    uplink: int
    mac: str
    address: str
    subnet: str
    gateway: str
    mtu: int = 1500
    ipv6: Way | None = None

    @property
    def ways(self) -> tuple[Way, ...]:
        """In each version of IP that it has an address of."""
        return Way(self.address, self.subnet, self.gateway), *([self.ipv6] if self.ipv6 is not None else [])

    def holds(self, address: str) -> bool:
        """Whether the address belongs to the subnet there of its version of IP."""
        way = self.way(6 if ":" in address else 4)
        return way is not None and ip_address(address) in ip_network(way.subnet)

    def way(self, version: int) -> Way | None:
        """The one in that version of IP."""
        return next((way for way in self.ways if way.version == version), None)


@dataclass(frozen=True, slots=True)
class HostView:
    """A host. ``number`` is fleet-wide; ``tunnel_ip`` is None where no overlay can reach; ``uplinks`` are physical
    networks with the OpenFlow port of their patch port; ``external`` is None where guests cannot reach the outside."""

    name: str
    number: int
    tunnel_ip: str | None
    tunnel: str
    uplinks: tuple[tuple[str, int], ...]
    external: ExternalView | None = None


@dataclass(frozen=True, slots=True)
class GatewayView:
    """What a network's gateway is, the same on every host. ``addresses`` are with their prefix lengths, such as
    ``10.10.10.1/24``; ``dhcp`` says that DHCPv4 is answered, ``dhcp6`` that DHCPv6 is, ``dns`` that it is a
    name server. ``mode`` is the network's, of which these follow:

    ========  ======================  ==============================
    mode      ``sends``: guests       ``takes``: from the outside and
              reach others            other networks, unasked
    ========  ======================  ==============================
    isolated  no                      no
    nat       as their host outside   answers only
    route     as themselves           yes
    open      as themselves           yes
    ========  ======================  ==============================

    ``routes`` are subnets behind guests, each with the guest's address. ``mtu`` is the bytes that an IP packet of the
    network may have. ``pool`` are the subnets of the addresses outside as which guests leave, each host with one of
    them (see ``Reader.nat_address``); their host's external address where it is empty. ``ports`` are the first and
    last of those that they come from, None any.
    """

    mac: str
    addresses: tuple[str, ...]
    dhcp: bool
    mode: Mode = "isolated"
    routes: tuple[tuple[str, str], ...] = ()
    dns: bool = False
    dhcp6: bool = False
    mtu: int = 1500
    pool: tuple[IPv4Network, ...] = ()
    ports: tuple[int, int] | None = None

    @property
    def nat(self) -> bool:
        """Whether guests reach the outside by an address of their host's."""
        return self.mode == "nat"

    @property
    def sends(self) -> bool:
        """Whether guests reach more than each other."""
        return self.mode in {"nat", "route", "open"}

    @property
    def takes(self) -> bool:
        """Whether guests are reached from elsewhere by their own addresses."""
        return self.mode in {"route", "open"}

    @property
    def subnets(self) -> tuple[Subnet, ...]:
        return tuple(ip_interface(address).network for address in self.addresses)

    @property
    def versions(self) -> tuple[int, ...]:
        """The versions of IP that it has subnets of."""
        return tuple(sorted({subnet.version for subnet in self.subnets}))

    @property
    def prefixes(self) -> tuple[Subnet, ...]:
        """Its subnets, and those behind its guests."""
        return (*self.subnets, *(ip_network(to) for to, _ in self.routes))

    def behind(self, address: str) -> tuple[Subnet, ...]:
        """The subnets behind the guest of that address."""
        return tuple(ip_network(to) for to, via in self.routes if via == address)

    @property
    def ipv4(self) -> tuple[str, ...]:
        return tuple(a.partition("/")[0] for a in self.addresses if "." in a)

    @property
    def ipv6(self) -> tuple[str, ...]:
        """With the link-local one, as a router needs it (RFC 4861, 6.1.2), where there is any."""
        written = tuple(a.partition("/")[0] for a in self.addresses if ":" in a)
        return (*written, link_local(self.mac)) if written else ()


@dataclass(frozen=True, slots=True)
class NetworkView:
    """A network. ``segments`` maps its VLANs (0 untagged) to fleet-wide numbers.

    ``uplink`` is the OpenFlow port of its physical network's patch port, the same on every host; None without one.
    ``overlay`` says that it reaches over tunnels; ``learning``, that some portgroup of it is learning. ``gateway`` is
    None where it has no subnets. ``reserved`` addresses are no vNIC's.
    """

    name: str
    segments: tuple[tuple[int, int], ...]
    overlay: bool
    physical_network: str | None
    uplink: int | None
    learning: bool = False
    gateway: GatewayView | None = None
    reserved: tuple[str, ...] = ()

    @property
    def implicit(self) -> bool:
        """Whether it is a wire to the outside that is no network of the operator's: no vNIC can be there."""
        return self.name.startswith("@")

    @property
    def alone(self) -> bool:
        """Whether it leads to no other host: each host has it by itself."""
        return not self.overlay and self.uplink is None

    def segment(self, vlan: int) -> int | None:
        """Number of the VLAN's segment, or None when the network has no such VLAN."""
        return dict(self.segments).get(vlan)


@dataclass(frozen=True, slots=True)
class Membership:
    """A vNIC's part in a segment, in IEEE 802.1Q's terms.

    ``untagged_in``: the guest's untagged frames belong here; ``tag_in``: frames with that tag do (None: none);
    ``tag_out``: the tag with which the guest gets the segment's frames (None: untagged).
    """

    segment: int
    untagged_in: bool
    tag_in: int | None
    tag_out: int | None


@dataclass(frozen=True, slots=True)
class PortView:
    """A vNIC that is switched. ``host`` and ``ofport`` are where it is now; ``mac_limit`` is how many MACs are learned
    behind it, 0 none; ``learned`` are those of its addresses that it claimed, of at most ``learns`` of each kind (0: it
    learns none); ``guest`` is its guest's UUID, and name where that is known.

    While its guest is copied to another host there are two, which name each other's host in ``other``; ``arriving`` is
    the one at the place that the guest has not come to yet.
    """

    name: str
    mac: str
    network: str
    host: str
    ofport: int
    isolation: Isolation
    memberships: tuple[Membership, ...]
    addresses: tuple[str, ...]
    checks: frozenset[Check]
    mac_limit: int = 0
    learned: tuple[str, ...] = ()
    learns: int = 0
    guest: frozenset[str] = frozenset()
    other: str | None = None
    arriving: bool = False

    @property
    def open(self) -> bool:
        """Whether others than the vNIC itself may be behind it: it is not held to its own MAC."""
        return "mac" not in self.checks

    @property
    def unheld(self) -> frozenset[Check]:
        """Those of ``CLAIMS`` that are not checked: there it could claim what is another's."""
        return CLAIMS - self.checks - ({"ipv6"} if "no_ipv6" in self.checks else set())

    @property
    def may_learn(self) -> bool:
        """Whether a claim could give it one more address, of some kind."""
        kinds, known = [kind_of(address) for address in self.learned], self.leased_kinds
        return any(kinds.count(kind) < self.learns and kind not in known for kind in ("ipv4", "ipv6", "link-local"))

    @property
    def leased_kinds(self) -> frozenset[str]:
        """Kinds of which it has addresses that it did not learn: where it learns any, they are leased to it."""
        return frozenset(kind_of(address) for address in self.addresses if address not in self.learned)

    @property
    def ipv4(self) -> tuple[str, ...]:
        return tuple(a for a in self.addresses if "." in a)

    @property
    def ipv6(self) -> tuple[str, ...]:
        return tuple(a for a in self.addresses if ":" in a)


@dataclass(frozen=True, slots=True)
class RegistrationView:
    """A vNIC that the operator registered, whether it runs or not, and the segments where it belongs. ``guest`` is a
    name or UUID: the UUID once the guest was seen."""

    name: str
    guest: str
    mac: str
    network: str
    segments: tuple[int, ...]
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ForwardView:
    """A port forward whose target is known. ``hosts`` are those whose external address it means, and from which the
    target can be reached; ``ports`` and ``target_ports`` are first and last; ``address`` is that of the vNIC ``port``
    in ``network``."""

    name: str
    network: str
    protocol: str
    hosts: tuple[str, ...]
    ports: tuple[int, int]
    address: str
    target_ports: tuple[int, int]
    port: str

    @property
    def version(self) -> int:
        """Of IP."""
        return 6 if ":" in self.address else 4


@dataclass(frozen=True, slots=True)
class FloatingView:
    """A floating address whose target is known. ``address`` and ``mac`` are outside, ``inside`` is the address of the
    vNIC ``port`` in ``network``."""

    name: str
    network: str
    address: str
    mac: str
    inside: str
    port: str

    @property
    def version(self) -> int:
        """Of IP."""
        return 6 if ":" in self.address else 4


@dataclass(frozen=True, slots=True)
class BarredView:
    """A port of the integration bridge that is kept out: ``who`` is a vNIC, or an interface of which nobody knows whose
    it is."""

    who: str
    host: str
    ofport: int
    reason: str


def memberships(group: PortGroup, network: NetworkView, network_vlan: int) -> tuple[Membership, ...]:
    """What a vNIC of the portgroup is a member of, in the order of the tags."""
    access = not group.trunk
    found = []
    for vlan in sorted(group.vlans(network_vlan)):
        segment = network.segment(vlan)
        if segment is None:
            continue
        native = vlan == group.native
        untagged_out = access or (native and group.native_mode == "untagged")
        found.append(Membership(segment, access or native, None if access else vlan, None if untagged_out else vlan))
    return tuple(found)
