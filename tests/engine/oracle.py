"""Who must receive a frame, from the rows alone, in the plainest words; nothing here knows a flow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from fleets import FleetRows
from senders import in_force, link_local, may_send
from switch_model import Delivery, Frame, number

from controller.model.network import NetworkSpec, PortGroup
from controller.model.port import PortStatus

BROADCAST = number("eth_dst", "ff:ff:ff:ff:ff:ff")
_MULTICAST = 1 << 40
Segment = tuple[str, int]


def mac_of(port: PortStatus) -> int:
    return number("eth_src", port.mac)


def address(text: str) -> int:
    return number("ipv6_src" if ":" in text else "ipv4_src", text)


def claims(frame: Frame) -> set[tuple[int, int]]:
    """(IP version, address) that the sender says are its own."""
    get = frame.fields.get
    found = {(4, get("arp_spa")), (4, get("ipv4_src")), (6, get("ipv6_src"))}
    about_to_take = get("icmpv6_type") == 135 and get("ipv6_src") == 0  # RFC 4862, 5.4.2
    if get("icmpv6_type") == 136 or about_to_take:
        found.add((6, get("ipv6_nd_target")))
    if get("eth_type") == 0x8035:  # RARP announces a MAC
        found.discard((4, get("arp_spa")))
    return {(version, value) for version, value in found if value is not None}


def everything_of(mac: str, addresses: Iterable[str]) -> set[tuple[int, int]]:
    """The addresses of a vNIC; with an IPv6 one goes the link-local one that its MAC makes."""
    found = {(6 if ":" in text else 4, address(text)) for text in addresses}
    if any(version == 6 for version, _ in found):
        found.add((6, link_local(number("eth_src", mac))))
    return found


@dataclass
class Oracle:
    """``seen``: where each host has heard an address that is no vNIC's, by segment: "wire", the name of a learning vNIC
    of its own, or of another host, as ("port", name), ("host", name).

    Without ``guard`` a vNIC may send what it likes.
    """

    fleet: FleetRows
    reflective: bool = False
    guard: bool = True
    seen: dict[tuple[str, Segment, int], tuple[str, str]] = field(default_factory=dict)

    # What a vNIC is.

    def network(self, port: PortStatus) -> NetworkSpec:
        assert port.network is not None
        return self.fleet.networks[port.network]

    def group(self, port: PortStatus) -> PortGroup:
        group = self.network(port).portgroup(port.portgroup or "")
        assert group is not None
        return group

    def filters(self, port: PortStatus) -> tuple[str, ...] | None:
        group = self.group(port)
        return () if group.filters is None and group.learning else group.filters

    def learns_addresses(self, port: PortStatus) -> bool:
        return self.group(port).learn_addresses > 0 and set(port.addresses) <= set(port.learned)

    def is_open(self, port: PortStatus) -> bool:
        """Whether others may be behind it."""
        return "no-mac-spoofing" not in in_force(self.filters(port), port.addresses, self.learns_addresses(port))

    def isolation(self, port: PortStatus) -> str:
        return self.group(port).isolation

    def place(self, port: PortStatus) -> tuple[str, int]:
        assert port.host is not None
        assert port.ofport is not None
        return port.host, port.ofport

    def vlans(self, port: PortStatus) -> frozenset[int]:
        """VLANs of its network in which the vNIC is; 0 is the untagged one."""
        group, network = self.group(port), self.network(port)
        if group.isolation == "passthrough":
            return frozenset()
        if group.trunk:
            return frozenset({*group.trunk, *([group.native] if group.native else [])})
        return frozenset({group.vlan or network.vlan or 0})

    def vlan_of(self, port: PortStatus, frame: Frame) -> int | None:
        """The VLAN that the vNIC's frame belongs to; None: to none, it is dropped."""
        group = self.group(port)
        tag = frame.tags[0] if frame.tags else 0
        if not group.trunk:
            return next(iter(self.vlans(port))) if tag == 0 else None
        if tag == 0:
            return group.native
        return tag if tag in self.vlans(port) else None

    def as_received(self, port: PortStatus, vlan: int, inner: Frame) -> Delivery:
        group = self.group(port)
        plain = not group.trunk or (vlan == group.native and group.native_mode == "untagged")
        return Delivery(self.place(port), Frame(inner.fields, inner.tags if plain else (vlan, *inner.tags)))

    # Who reaches whom.

    def connected(self, one: str, other: str, network: NetworkSpec) -> bool:
        """Whether the network leads from one host to another."""
        if one == other:
            return True
        a, b = self.fleet.hosts[one], self.fleet.hosts[other]
        if network.mode == "bridge":
            return network.physical_network in a.uplinks and network.physical_network in b.uplinks
        if network.span == "host" or a.tunnel_ip is None or b.tunnel_ip is None:
            return False
        return (":" in a.tunnel_ip) == (":" in b.tunnel_ip)

    def may_meet(self, sender: PortStatus, receiver: PortStatus) -> bool:
        ours, theirs = self.isolation(sender), self.isolation(receiver)
        if ours == "isolated" and theirs == "isolated":
            return False
        if ours == "private":
            return False
        if sender.host == receiver.host and not self.reflective:
            return ours != "vepa" and theirs not in {"private", "vepa"}
        return True

    def members(self, segment: Segment) -> list[PortStatus]:
        name, vlan = segment
        return [p for p in self.fleet.ports.values() if p.network == name and vlan in self.vlans(p)]

    def on_wire(self, network: NetworkSpec, vlan: int, inner: Frame) -> Delivery:
        assert network.physical_network is not None
        return Delivery(network.physical_network, Frame(inner.fields, (vlan, *inner.tags) if vlan else inner.tags))

    # What must come of a frame.

    def passes(self, sender: PortStatus, frame: Frame) -> bool:
        """Whether the frame has a VLAN of its sender's, and is one that the sender may send."""
        if self.isolation(sender) == "passthrough":
            return True
        if self.vlan_of(sender, frame) is None:
            return False
        inner = Frame(frame.fields, frame.tags[1:])
        if not self.guard:
            return True
        if self.group(sender).learning and self.is_taken(sender, frame):
            return False
        learns = self.learns_addresses(sender)
        return may_send(sender, self.filters(sender), learns, inner) and not self.claims_anothers(sender, frame)

    def is_taken(self, sender: PortStatus, frame: Frame) -> bool:
        """Whether somebody behind the vNIC says that he is another one, or a group."""
        source, vlan = frame["eth_src"], self.vlan_of(sender, frame)
        if source == mac_of(sender):
            return False
        running = {mac_of(port) for port in self.members((sender.network or "", vlan or 0))}
        return bool(source & _MULTICAST) or source in running | self.registered_macs(sender.network or "", vlan or 0)

    def registered_macs(self, network: str, vlan: int) -> set[int]:
        spec = self.fleet.networks[network]
        found = set()
        for each in self.fleet.registered.values():
            group = spec.portgroup(each.portgroup) if each.network == network else None
            if group is not None and group.isolation != "passthrough" and vlan in group.vlans(spec.untagged_vlan):
                found.add(number("eth_src", each.mac))
        return found

    def learns(self, sender: PortStatus, segment: Segment, frame: Frame) -> bool:
        """Who is behind a learning vNIC is remembered on its host; False when it is one too many."""
        group, source = self.group(sender), frame["eth_src"]
        if not group.learning or source == mac_of(sender):
            return True
        here = ("port", self.name(sender))
        known = [key for key, place in self.seen.items() if place == here and key[1] == segment]
        key = (sender.host or "", segment, source)
        if key not in known and len(known) >= group.mac_limit:
            return False
        self.seen[key] = here
        return True

    def name(self, port: PortStatus) -> str:
        return next(name for name, each in self.fleet.ports.items() if each == port)

    def hear_by_tunnel(self, sender: PortStatus, segment: Segment, frame: Frame, at: tuple[str, str] | None) -> None:
        """Hosts that get the frame through a tunnel remember who is behind a learning vNIC of another host."""
        network, to = self.network(sender), frame["eth_dst"]
        learning = any(group.learning for group in network.portgroups.values())
        if network.mode != "isolated" or network.span == "host" or not learning:
            return
        if self.owner(segment, frame["eth_src"], sender.host or "") is not None:
            return
        members = [port for port in self.members(segment) if port.host != sender.host]
        if not to & _MULTICAST:
            owner = self.owner(segment, to, sender.host or "")
            members = [p for p in members if (p is owner if owner is not None else self.is_open(p))]
        hosts = {port.host or "" for port in members} if at is None else {at[1]} if at[0] == "host" else set()
        for host in hosts:
            if self.connected(sender.host or "", host, network):
                self.seen[host, segment, frame["eth_src"]] = ("host", sender.host or "")

    def claims_anothers(self, sender: PortStatus, frame: Frame) -> bool:
        """Whether the frame says that its sender has an address that is somebody else's in the VLAN, or reserved."""
        if self.filters(sender) == () or self.group(sender).learning or len(frame.tags) > 1:
            return False
        vlan, claimed = self.vlan_of(sender, frame), claims(frame)
        own = everything_of(sender.mac, sender.addresses)
        reserved = {(6 if ":" in text else 4, address(text)) for text in self.network(sender).reserved_addresses}
        if claimed & reserved - own:
            return True
        for port in self.members((sender.network or "", vlan or 0)):
            near = self.network(sender).span != "host" or port.host == sender.host
            if port is not sender and near and claimed & everything_of(port.mac, port.learned) - own:
                return True
        for name, spec in self.fleet.registered.items():
            running = self.fleet.ports.get(name)
            near = self.network(sender).span != "host" or (running is not None and running.host == sender.host)
            if spec.network != sender.network or spec.mac == sender.mac or not near:
                continue
            group = self.network(sender).portgroup(spec.portgroup)
            assert group is not None
            vlans = {*group.trunk, *([group.native] if group.native else [])} or {
                group.vlan or self.network(sender).vlan or 0
            }
            if group.isolation != "passthrough" and vlan in vlans and claimed & everything_of(spec.mac, spec.addresses):
                return True
        return False

    def from_vnic(self, sender: PortStatus, frame: Frame) -> list[Delivery]:
        network = self.network(sender)
        if self.isolation(sender) == "passthrough":
            assert network.physical_network is not None
            wire = [Delivery(network.physical_network, frame)]
            return wire + self.from_wire(network.physical_network, frame, sender.host)
        vlan = self.vlan_of(sender, frame)
        if vlan is None or not self.passes(sender, frame):
            return []
        segment = (sender.network or "", vlan)
        inner = Frame(frame.fields, frame.tags[1:])
        answer = self.answer(sender, segment, inner)
        if answer is not None:
            return [self.as_received(sender, vlan, answer)]
        if not self.learns(sender, segment, inner):
            return []
        found: list[Delivery] = []
        at = self.whereabouts(sender, segment, inner)
        self.hear_by_tunnel(sender, segment, inner, at)
        if self.takes_wire(sender, segment, inner):
            found.append(self.on_wire(network, vlan, inner))
            found += self.to_passthrough(sender, self.on_wire(network, vlan, inner))
            self.hear(segment, inner, sender.host)
        for port in self.members(segment):
            if port is sender or not self.connected(sender.host or "", port.host or "", network):
                continue
            if at is not None and at not in {("wire", ""), ("port", self.name(port)), ("host", port.host)}:
                continue
            if self.wants(port, segment, inner) and self.may_meet(sender, port):
                found.append(self.as_received(port, vlan, inner))
        return found

    def to_passthrough(self, sender: PortStatus, wire: Delivery) -> list[Delivery]:
        """vNICs that have an uplink to themselves hear all that is on the wire."""
        return [
            Delivery(self.place(port), wire.frame)
            for port in self.fleet.ports.values()
            if self.isolation(port) == "passthrough"
            and self.network(port).physical_network == wire.place
            and (port.host != sender.host or self.reflective)
        ]

    def takes_wire(self, sender: PortStatus, segment: Segment, frame: Frame) -> bool:
        """Whether the frame leaves the sender's host for the physical network."""
        network, host = self.network(sender), sender.host or ""
        if network.physical_network is None or network.physical_network not in self.fleet.hosts[host].uplinks:
            return False
        if self.isolation(sender) == "vepa":
            return True
        if (self.whereabouts(sender, segment, frame) or ("wire",))[0] != "wire":
            return False
        owner = self.owner(segment, frame["eth_dst"], host)
        if owner is None:
            return True
        return owner.host != host or self.isolation(owner) == "vepa"

    def whereabouts(self, sender: PortStatus, segment: Segment, frame: Frame) -> tuple[str, str] | None:
        """Where the sender's host has heard the destination, when that is no vNIC."""
        to, host = frame["eth_dst"], sender.host or ""
        if to & _MULTICAST or self.isolation(sender) == "vepa" or self.owner(segment, to, host) is not None:
            return None
        return self.seen.get((host, segment, to))

    def owner(self, segment: Segment, mac: int, host: str) -> PortStatus | None:
        """The vNIC with that MAC, as far as the host knows: of a network of span host it knows its own vNICs only."""
        alone = self.fleet.networks[segment[0]].span == "host"
        found = (port for port in self.members(segment) if not alone or port.host == host)
        return next((port for port in found if mac_of(port) == mac), None)

    def wants(self, port: PortStatus, segment: Segment, frame: Frame) -> bool:
        """Whether a frame for this destination goes to the vNIC."""
        to = frame["eth_dst"]
        if to & _MULTICAST:
            return True
        if self.owner(segment, to, port.host or "") is not None:
            return mac_of(port) == to
        # Nobody's whom we know: who may have others behind him gets it, unless the host has heard where it is.
        at = self.seen.get((port.host or "", segment, to))
        return self.is_open(port) if at is None else at == ("port", self.name(port))

    def hear(self, segment: Segment, frame: Frame, sender_host: str | None) -> None:
        """Hosts that get the frame from the physical network remember its sender."""
        network = self.fleet.networks[segment[0]]
        for name, host in self.fleet.hosts.items():
            here = [port for port in self.fleet.ports.values() if port.host == name]
            carries = any(port.network == segment[0] for port in here)
            taken = any(
                self.isolation(port) == "passthrough"
                and self.network(port).physical_network == network.physical_network
                for port in here
            )  # fmt: skip
            reached = network.physical_network in host.uplinks and (name != sender_host or self.reflective)
            if carries and reached and not taken:
                self.seen[name, segment, frame["eth_src"]] = ("wire", "")

    def from_wire(self, physical_network: str, frame: Frame, sender_host: str | None = None) -> list[Delivery]:
        """A frame of a machine that is no vNIC of a segment, on every uplink but the sender's own."""
        found: list[Delivery] = []
        tag = frame.tags[0] if frame.tags else 0
        inner = Frame(frame.fields, frame.tags[1:])
        for name, network in self.fleet.networks.items():
            if network.physical_network == physical_network and tag in network.vlans():
                self.hear((name, tag), inner, sender_host)
        for port in self.fleet.ports.values():
            network = self.network(port)
            if network.physical_network != physical_network or port.host == sender_host:
                continue
            if physical_network not in self.fleet.hosts[port.host or ""].uplinks:
                continue
            if self.isolation(port) == "passthrough":
                found.append(Delivery(self.place(port), frame))
            elif tag in self.vlans(port) and self.wants(port, (port.network or "", tag), inner):
                found.append(self.as_received(port, tag, inner))
        return found

    # Neighbours.

    def answer(self, asker: PortStatus, segment: Segment, frame: Frame) -> Frame | None:
        """What the switch itself answers, instead of letting the question through."""
        if self.isolation(asker) != "none":
            return None
        arp = frame.fields.get("arp_op") == 1 and frame["eth_dst"] == BROADCAST
        solicitation = frame.fields.get("icmpv6_type") == 135 and frame["eth_dst"] >> 24 == 0x3333FF
        if not arp and not solicitation:
            return None
        wanted = frame["arp_tpa"] if arp else frame["ipv6_nd_target"]
        texts = {t for p in self.members(segment) for t in p.addresses if (":" in t) == solicitation}
        text = next((t for t in texts if address(t) == wanted), None)
        if text is None or text in asker.addresses or (solicitation and frame["ipv6_src"] == 0):
            return None
        owners = [p for p in self.members(segment) if text in p.addresses and self.isolation(p) == "none"]
        if self.network(asker).span == "host":
            owners = [p for p in owners if p.host == asker.host]
        if not owners:
            return None
        mac = mac_of(owners[0])
        both = {"eth_dst": frame["eth_src"], "eth_src": mac}
        if arp:
            return frame.changed(
                **both, arp_op=2, arp_tha=frame["arp_sha"], arp_tpa=frame["arp_spa"], arp_sha=mac, arp_spa=wanted
            )
        fields = {
            **frame.fields, **both, "icmpv6_type": 136, "ipv6_src": wanted, "ipv6_dst": frame["ipv6_src"],
            "nd_reserved": 0x60000000, "nd_options_type": 2, "ipv6_nd_tll": mac,
        }  # fmt: skip
        del fields["ipv6_nd_sll"]
        return Frame(fields, frame.tags)
