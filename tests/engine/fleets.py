"""Fleets for tests: rows written in few words, with numbers as the store's pools would give them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from controller.fabric import NAT_ADDRESS
from controller.model.floating import FloatingIPSpec
from controller.model.forward import PortForwardSpec
from controller.model.host import External, HostSpec, Uplink
from controller.model.network import NetworkSpec
from controller.model.port import PortSpec, PortStatus
from controller.pipeline.ports import uplink_port
from controller.rows import Rows, nat_name, outside_segment, segment_name


@dataclass
class Numbers:
    """A pool: the lowest number that is free, and the same one ever after."""

    taken: dict[str, int] = field(default_factory=dict)

    def of(self, name: str) -> int:
        return self.taken.setdefault(name, len(self.taken) + 1)


@dataclass
class FleetRows:
    """Rows that change. ``rows()`` is what the engine gets."""

    hosts: dict[str, HostSpec] = field(default_factory=dict)
    networks: dict[str, NetworkSpec] = field(default_factory=dict)
    ports: dict[str, PortStatus] = field(default_factory=dict)
    registered: dict[str, PortSpec] = field(default_factory=dict)
    strays: dict[str, dict[str, int]] = field(default_factory=dict)
    forwards: dict[str, PortForwardSpec] = field(default_factory=dict)
    floating: dict[str, FloatingIPSpec] = field(default_factory=dict)
    nat_addresses: list[str] = field(default_factory=list)
    host_numbers: Numbers = field(default_factory=Numbers)
    segment_numbers: Numbers = field(default_factory=Numbers)
    uplink_numbers: Numbers = field(default_factory=Numbers)

    def rows(self) -> Rows:
        uplinks = {name: uplink_port(number) for name, number in self.uplink_numbers.taken.items()}
        return Rows(
            dict(self.hosts), dict(self.networks), dict(self.ports),
            dict(self.host_numbers.taken), dict(self.segment_numbers.taken), uplinks, dict(self.registered),
            dict(self.strays),
            dict(self.forwards),
            dict(self.floating),
            list(self.nat_addresses),
        )  # fmt: skip

    def put(self, kind: str, name: str, value: Any) -> None:
        """Make the object so; None takes it away. Numbers are drawn when an object first needs them."""
        tables: dict[str, Any] = {
            "Host": self.hosts, "Network": self.networks, "Port": self.ports, "PortForward": self.forwards,
            "FloatingIP": self.floating,
        }  # fmt: skip
        if kind == NAT_ADDRESS:
            self.nat_addresses = [each for each in self.nat_addresses if each != name] + ([name] if value else [])
            return
        table = self.registered if isinstance(value, PortSpec) else tables[kind]
        if value is None:
            table.pop(name, None)
            if kind == "Port":
                self.registered.pop(name, None)
            return
        table[name] = value
        if isinstance(value, HostSpec):
            self.host_numbers.of(name)
            for physical_network in sorted(value.uplinks):
                self.uplink_numbers.of(physical_network)
            if value.external is not None:
                self.segment_numbers.of(outside_segment(value.external))
        if isinstance(value, NetworkSpec):
            if value.physical_network is not None:
                self.uplink_numbers.of(value.physical_network)
            for vlan in sorted(value.vlans()):
                self.segment_numbers.of(segment_name(name, vlan))

    def host(self, name: str, tunnel_ip: str | None = None, *physical: str, tunnel: Any = "geneve") -> FleetRows:
        uplinks = {each: Uplink(interface=f"eth{number}") for number, each in enumerate(physical)}
        spec = HostSpec(ovsdb=f"unix:/{name}", tunnel_ip=tunnel_ip, tunnel=tunnel, uplinks=uplinks)
        self.put("Host", name, spec)
        return self

    def outside(self, name: str, uplink: str, address: str, **fields: Any) -> FleetRows:
        """Give a host an external address in 203.0.113.0/24, by the router 203.0.113.1."""
        external = External(uplink=uplink, address=f"{address}/24", gateway="203.0.113.1", **fields)
        self.put("Host", name, self.hosts[name].model_copy(update={"external": external}))
        return self

    def with_nat(self) -> FleetRows:
        """A guest more, on the first host, which reaches the outside by that host's address, and is reached there."""
        host = next(iter(self.hosts))
        self.put("Host", host, self.hosts[host].model_copy(update={"uplinks": {"phys9": Uplink(interface="eth9")}}))
        ipv6 = {"address6": "2001:db8::11/64", "gateway6": "fe80::1"}
        self.outside(host, "phys9", "203.0.113.11", **ipv6)
        pool = {"addresses": ["203.0.113.70-203.0.113.79"], "ports": "20000-30000"}
        self.network("nat", "nat", subnets=["10.9.0.0/24", "fd09::/64"], dhcp={}, nat=pool)
        self.allotted("nat", host, "203.0.113.70")
        self.forward("natted", "nat", {"port": "8080-8083"}, {"vnic": "natted", "port": "80-83"})
        self.forward("natted-calls", "nat", {"port": "5000-5009", "protocol": "udp"}, {"address": "10.9.0.5"})
        self.forward("natted-ipv6", "nat", {"port": "8080-8083", "family": "ipv6"}, {"vnic": "natted", "port": "80-83"})
        self.floating_ip("natted", "nat", "203.0.113.50", {"vnic": "natted"})
        self.floating_ip("natted-ipv6", "nat", "2001:db8::50", {"vnic": "natted"})
        self.network("routed", "route", subnets=["10.8.0.0/24"]).port("routed", host, "routed", addresses=("10.8.0.5",))
        return self.port("natted", host, "nat", ofport=77, addresses=("10.9.0.5", "fd09::5"))

    def allotted(self, network: str, host: str, address: str) -> FleetRows:
        """The host has this address of the network's pool."""
        self.put(NAT_ADDRESS, nat_name(network, host, address), True)
        return self

    def network(self, name: str, mode: str = "isolated", **fields: Any) -> FleetRows:
        self.put("Network", name, NetworkSpec.model_validate({"mode": mode, **fields}))
        return self

    def port(self, name: str, host: str, network: str, portgroup: str = "default", **fields: Any) -> FleetRows:
        """A vNIC that is switched; its MAC and OpenFlow port come from its place in the order unless given."""
        number = len(self.ports) + 1
        fields = {"mac": f"52:54:00:00:00:{number:02x}", "ofport": number, "state": "active", **fields}
        status = PortStatus(
            vm_uuid=f"00000000-0000-0000-0000-{number:012}", host=host, network=network, portgroup=portgroup, **fields
        )
        self.put("Port", name, status)
        self.registered.pop(name, None)
        if set(status.addresses) - set(status.learned):
            self.register(name, network, portgroup, mac=status.mac, addresses=status.addresses)
        return self

    def register(self, name: str, network: str, portgroup: str = "default", **fields: Any) -> FleetRows:
        """A registration, which a vNIC that is switched has as well when it has addresses."""
        self.put("Port", name, PortSpec(**{"vm": "guest", "network": network, "portgroup": portgroup, **fields}))
        return self

    def forward(self, name: str, network: str, listen: dict[str, Any], target: dict[str, Any]) -> FleetRows:
        self.put("PortForward", name, PortForwardSpec(network=network, listen=listen, target=target))  # type: ignore[arg-type]
        return self

    def floating_ip(self, name: str, network: str, address: str, target: dict[str, Any], **fields: Any) -> FleetRows:
        spec = {"network": network, "address": address, "target": target, **fields}
        self.put("FloatingIP", name, FloatingIPSpec.model_validate(spec))
        return self
