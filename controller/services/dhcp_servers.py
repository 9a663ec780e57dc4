"""The DHCP servers of all networks, made of the fleet's rows: each once, until one of its rows changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, ip_address

from controller.addresses import Addresses
from controller.desired import Desired
from controller.model.dhcp_options import encoded
from controller.model.kinds import network_mtu, overlay_mtu
from controller.model.network import NetworkSpec, network_gateway_mac
from controller.model.subnet import Dhcp, DhcpHost
from controller.services.dhcp import Server
from controller.services.dhcp6 import Asked, Server6, reserved_for
from controller.services.pool import Pool
from controller.store.rows import Change


@dataclass(frozen=True, slots=True)
class _Known:
    server: Server
    server6: Server6
    reserved6: Mapping[tuple[str, str], DhcpHost]


class Servers:
    """Everything on the loop."""

    def __init__(self, desired: Desired) -> None:
        self._desired = desired
        self._known: dict[str, _Known] = {}

    def changed(self, changes: Iterable[Change]) -> None:
        """Rows changed."""
        for change in changes:
            if change.kind == "Host":
                self._known.clear()  # the networks' MTU may be another
            elif change.kind == "Network":
                self._known.pop(change.name, None)

    def of(self, network: str, spec: NetworkSpec, dhcp: Dhcp) -> Server:
        """The server of IPv4."""
        return self._of(network, spec, dhcp).server

    def of6(self, network: str, spec: NetworkSpec, dhcp: Dhcp, asked: Asked) -> Server6:
        """The server of IPv6, as it is to this client."""
        known = self._of(network, spec, dhcp)
        host = reserved_for(known.reserved6, asked)
        if host is None:
            return known.server6
        pool = replace(known.server6.pool, reserved={asked.mac: host.ip})
        return replace(known.server6, pool=pool, name=host.name)

    def _of(self, network: str, spec: NetworkSpec, dhcp: Dhcp) -> _Known:
        known = self._known.get(network)
        if known is None:
            reserved6 = {host.client: host for host in dhcp.hosts_of(6)}
            known = _Known(self._server(network, spec, dhcp), self._server6(network, spec, dhcp), reserved6)
            self._known[network] = known
        return known

    def _server(self, name: str, spec: NetworkSpec, dhcp: Dhcp) -> Server:
        gateways = tuple(IPv4Interface(subnet) for subnet in spec.subnets if "." in subnet)
        hosts = {host.mac: host for host in dhcp.hosts_of(4) if host.mac is not None}
        reserved = {mac: host.ip for mac, host in hosts.items()}
        pool = Pool(dhcp.range, reserved, frozenset(reserved.values()), self._taken(name, spec, gateways))
        return Server(
            name, network_gateway_mac(name, spec), gateways, pool, dhcp.lease,
            network_mtu(spec, overlay_mtu(self._desired.hosts.values())), spec.mode != "isolated",
            dhcp.domain or spec.dns_domain, dhcp.dns_of(4),
            {mac: host.name for mac, host in hosts.items() if host.name is not None}, spec.answers_dns,
            dhcp.router, tuple((IPv4Network(route.to), route.via) for route in dhcp.routes), dhcp.boot,
            tuple(encoded(option, values) for option, values in dhcp.options.items()),
        )  # fmt: skip

    def _server6(self, name: str, spec: NetworkSpec, dhcp: Dhcp) -> Server6:
        gateways = tuple(IPv6Interface(subnet) for subnet in spec.subnets if ":" in subnet)
        kept = frozenset(host.ip for host in dhcp.hosts_of(6))
        pool = Pool(dhcp.range6, {}, kept, self._taken(name, spec, gateways))
        subnets = tuple(gateway.network for gateway in gateways)
        mac = network_gateway_mac(name, spec)
        return Server6(name, mac, subnets, pool, dhcp.lease, dhcp.domain or spec.dns_domain, dhcp.dns_of(6))

    def _taken(self, name: str, spec: NetworkSpec, gateways: tuple[IPv4Interface | IPv6Interface, ...]) -> _Taken:
        own = frozenset(str(gateway.ip) for gateway in gateways)
        return _Taken(name, self._desired.addresses, own, frozenset(spec.reserved_addresses), gateways)


@dataclass(frozen=True, slots=True)
class _Taken:
    """Addresses of a network that are somebody's: those of vNICs as they are at any moment, and what is no guest's."""

    network: str
    vnics: Addresses
    gateways: frozenset[str]
    reserved: frozenset[str]
    subnets: tuple[IPv4Interface | IPv6Interface, ...]

    def owner(self, address: str) -> str | None:
        if address in self.gateways:
            return ""
        owner = self.vnics.owner(self.network, address)
        return "" if owner is None and address in self.reserved else owner

    def of(self, mac: str) -> Iterator[str]:
        for address in self.vnics.of(self.network, mac):
            if address not in self.gateways and any(ip_address(address) in each.network for each in self.subnets):
                yield address
