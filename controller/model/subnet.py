"""A network's subnets, and what its DHCP server hands out."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from controller.model.dhcp_options import canonical, encoded, option_name
from controller.model.fields import Address, Mac, Spec

DEFAULT_LEASE_SECONDS = 3600  # what libvirt's dnsmasq gives (formatnetwork, "lease")
LONGEST_ROUTE = 96  # bits of a subnet behind a guest; routing's priorities go no further
MOST_ROUTES = 32  # that guests are told of: a client that takes 1,500 bytes has room for them
SHORTEST_LEASE_SECONDS = 120  # formatnetwork: "the minimum value is 2 minutes"

_OCTET = re.compile(r"[0-9a-f]{1,2}")
_HOST_NAME = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"  # RFC 1123, 2.1


def _subnet(value: object) -> str:
    """``ADDRESS/LENGTH`` of the gateway: the subnet's first address where only the subnet is written."""
    text = str(value)
    try:
        interface = ipaddress.ip_interface(text)
    except ValueError:
        raise ValueError(f"{value!r} is no subnet; write 10.10.10.0/24 or, with the gateway, 10.10.10.254/24") from None
    network, address = interface.network, interface.ip
    longest = network.max_prefixlen - 2
    if "/" not in text or not 1 <= network.prefixlen <= longest:
        raise ValueError(f"{value!r} has no room for guests; write a prefix length of 1 to {longest}")
    every_wires = network.version == 6 and network.is_link_local  # RFC 4291, 2.5.6: the gateway has one there anyway
    if network.is_multicast or network.is_loopback or network.is_unspecified or every_wires:
        raise ValueError(f"{value!r} is not for guests; use a unicast subnet such as 10.10.10.0/24")
    if address == network.network_address:
        address = network[1]
    if network.version == 4 and address == network.broadcast_address:
        raise ValueError(f"{value!r} has the broadcast address as its gateway; use another of {network}")
    return f"{address}/{network.prefixlen}"


Subnet = Annotated[str, BeforeValidator(_subnet)]
"""The gateway's address with the prefix length, such as ``10.10.10.1/24``."""

Ipv4 = Annotated[Address, AfterValidator(lambda value: _of_family(value, 4))]
Ipv6 = Annotated[Address, AfterValidator(lambda value: _of_family(value, 6))]
Range = tuple[Ipv4, Ipv4]
Range6 = tuple[Ipv6, Ipv6]


def _of_family(value: str, version: int) -> str:
    if ipaddress.ip_address(value).version != version:
        raise ValueError(f"{value} is no IPv{version} address; range is for IPv4, range6 for IPv6")
    return value


def _duid(value: object) -> str:
    """Two hex digits an octet, with colons; libvirt leaves leading zeros out."""
    octets = value.lower().split(":") if isinstance(value, str) else []
    if not 3 <= len(octets) <= 130 or not all(_OCTET.fullmatch(octet) for octet in octets):
        raise ValueError(f'{value!r} is no DUID; write it in quotes, as "00:03:00:01:52:54:00:12:34:56"')
    return ":".join(octet.zfill(2) for octet in octets)


Duid = Annotated[str, BeforeValidator(_duid)]
"""What a DHCPv6 client calls itself: a type of two octets, and 1 to 128 more (RFC 8415, 11.1)."""


def _ranges(value: Any) -> Any:
    """One range may be written without a list around it."""
    is_one = isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(end, str) for end in value)
    return [value] if is_one else value


class DhcpHost(Spec):
    """A reservation: this client always gets that address, and nobody else does.

    The client is the one with this ``mac``; by DHCPv6 also one that says this ``id`` or, without both, this ``name``.
    """

    mac: Mac | None = None
    id: Duid | None = Field(default=None, description="of IPv6: the client's DUID")
    ip: Address
    name: Annotated[str, Field(pattern=f"^{_HOST_NAME}$")] | None = None

    @model_validator(mode="after")
    def _says_whose(self) -> DhcpHost:
        if "." in self.ip and (self.mac is None or self.id is not None):
            raise ValueError(f"reserves {self.ip} not by mac alone; DHCPv4 knows clients by their mac")
        if self.mac is None and self.id is None and self.name is None:
            raise ValueError(f"reserves {self.ip} for nobody; add the client's mac, id or name")
        if self.mac is not None and self.id is not None:
            raise ValueError(f"reserves {self.ip} by mac and id; keep one of them")
        return self

    @property
    def client(self) -> tuple[str, str]:
        """What the client is known by: ``mac``, ``id`` or ``name``, and which."""
        for what in ("mac", "id"):
            if (value := getattr(self, what)) is not None:
                return what, value
        return "name", (self.name or "").lower()

    @property
    def version(self) -> int:
        return 6 if ":" in self.ip else 4


def _prefix(value: str) -> str:
    try:
        prefix = ipaddress.ip_network(value)
    except ValueError:
        prefix = None
    usable = prefix is not None and not (prefix.is_multicast or prefix.is_loopback or prefix.is_link_local)
    if prefix is None or not usable or "/" not in value or not 1 <= prefix.prefixlen <= LONGEST_ROUTE:
        raise ValueError(f"{value!r} is no subnet that a route can lead to; write 10.50.0.0/16 or fd50::/48, with "
                         f"{LONGEST_ROUTE} bits at most")  # fmt: skip
    return str(prefix)


class Route(Spec):
    """A way to a subnet that is behind a guest."""

    to: Annotated[str, AfterValidator(_prefix)] = Field(description="the subnet, such as 10.50.0.0/16 or fd50::/48")
    via: Address = Field(description="the guest's address in this network, of the same version of IP")


def _told_prefix(value: str) -> str:
    try:
        prefix = ipaddress.IPv4Network(value)
    except ValueError:
        prefix = None
    if prefix is None or "/" not in value or not prefix.prefixlen or prefix.is_multicast or prefix.is_loopback:
        raise ValueError(f"{value!r} is no IPv4 subnet that guests can be told a way to; write 10.50.0.0/16")
    return str(prefix)


class GuestRoute(Spec):
    """A way that guests are told of (classless static route, RFC 3442)."""

    to: Annotated[str, AfterValidator(_told_prefix)] = Field(description="the subnet, such as 10.50.0.0/16")
    via: Ipv4 = Field(description="the address of this network that leads there")


class Boot(Spec):
    """What a guest boots from by network (PXE, HTTP boot)."""

    file: Annotated[str, Field(pattern=r"^[\x21-\x7e]+$", max_length=127)] = Field(
        description="the boot file's path on the server, or a URL"
    )
    server: Ipv4 | None = Field(default=None, description="the TFTP server; not needed of a URL")

    @model_validator(mode="after")
    def _says_where(self) -> Boot:
        if self.server is None and "://" not in self.file:
            raise ValueError(f"boots {self.file} from nowhere: no files are served here; name your TFTP server in "
                             "server, or write a URL")  # fmt: skip
        return self


def _option_names(value: object) -> object:
    """Options by their one name, values as lists."""
    if not isinstance(value, Mapping):
        return value
    found: dict[str, object] = {}
    for name, said in value.items():
        known = option_name(str(name))
        if known in found:
            raise ValueError(f"names option {known} twice; keep one of them")
        values = [str(each) for each in said] if isinstance(said, (list, tuple)) else [str(said)]
        found[known] = canonical(known, values)
    return found


class Dhcp(Spec):
    """What the DHCP server of a network hands out. It answers on every host by itself."""

    range: Annotated[tuple[Range, ...], BeforeValidator(_ranges)] = Field(
        default=(), description="first and last address to lease, or a list of such pairs; none: reservations only"
    )
    range6: Annotated[tuple[Range6, ...], BeforeValidator(_ranges)] = Field(
        default=(), description="the same of IPv6; in a subnet without any, guests make their addresses themselves"
    )
    hosts: tuple[DhcpHost, ...] = Field(
        default=(), description="reservations: ip, mac (of IPv6 also id or name instead) and, if it has one, name"
    )
    lease: int = Field(
        default=DEFAULT_LEASE_SECONDS, ge=SHORTEST_LEASE_SECONDS, le=2**31, description="seconds that a lease lasts"
    )
    domain: Annotated[str, Field(pattern=rf"^{_HOST_NAME}(\.{_HOST_NAME})*$", max_length=253)] | None = Field(
        default=None, description="the guests' DNS domain"
    )
    dns: tuple[Address, ...] = Field(default=(), max_length=8, description="name servers that guests are told of")

    router: tuple[Ipv4, ...] | None = Field(
        default=None, max_length=8, description="where guests send what is for elsewhere; nowhere: []"
    )
    routes: tuple[GuestRoute, ...] = Field(
        default=(), max_length=MOST_ROUTES, description="ways that guests are told of: each to, and via which address"
    )
    boot: Boot | None = Field(default=None, description="what guests boot from by network: file and server")
    options: Annotated[dict[str, tuple[str, ...]], BeforeValidator(_option_names)] = Field(
        default_factory=dict, description="more options of IPv4, by dnsmasq's names or by number"
    )

    @model_validator(mode="after")
    def _options_fit(self) -> Dhcp:
        for name, values in self.options.items():
            encoded(name, values)
        if self.boot is not None and (twice := self.options.keys() & {"tftp-server", "bootfile-name"}):
            raise ValueError(f"has boot and option {', '.join(sorted(twice))}, which boot sets; keep one of them")
        seen: set[str] = set()
        for route in self.routes:
            if route.to in seen:
                raise ValueError(f"has two routes to {route.to}; keep one of them")
            seen.add(route.to)
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Dhcp:
        for ranges in (self.range, self.range6):
            _ordered(ranges)
        for what in ("mac", "id", "ip", "name"):
            seen: set[tuple[int, str]] = set()
            for host in self.hosts:
                value = getattr(host, what)
                if (host.version, value) in seen:
                    raise ValueError(f"reserves {what} {value} twice; keep one of them")
                if value is not None:
                    seen.add((host.version, value))
        return self

    def hosts_of(self, version: int) -> list[DhcpHost]:
        """The reservations of that version of IP."""
        return [host for host in self.hosts if host.version == version]

    def dns_of(self, version: int) -> tuple[str, ...]:
        """The name servers of that version of IP."""
        return tuple(server for server in self.dns if (":" in server) == (version == 6))

    def leases_in(self, subnet: ipaddress.IPv6Network) -> bool:
        """Whether guests are given addresses of that subnet."""
        given = (*(low for low, _ in self.range6), *(host.ip for host in self.hosts_of(6)))
        return any(ipaddress.IPv6Address(address) in subnet for address in given)

    def problems(self, subnets: tuple[str, ...]) -> Iterator[str]:
        """What does not fit the network's subnets, as ``what; remedy``."""
        if not subnets:
            yield "has dhcp without subnets; add one, such as 10.10.10.0/24"
            return
        yield from self._ways_astray([ipaddress.IPv4Interface(subnet) for subnet in subnets if "." in subnet])
        for version, ranges, example in ((4, self.range, "10.10.10.0/24"), (6, self.range6, "fd10::/64")):
            gateways = [each for each in map(ipaddress.ip_interface, subnets) if each.version == version]
            told = ", ".join(str(each.network) for each in gateways)
            if not gateways and (ranges or self.hosts_of(version)):
                yield f"has dhcp for IPv{version} without such a subnet; add one to subnets, such as {example}"
                continue
            for low, high in ranges:
                if not any(_usable(low, each) and _usable(high, each) for each in gateways):
                    yield f"leases {low} to {high}, which is not within one subnet; use addresses of {told}"
            for host in self.hosts_of(version):
                if not any(_usable(host.ip, each) and host.ip != str(each.ip) for each in gateways):
                    yield f"reserves {host.ip}, which is no guest's address; use one of {told}, and not the gateway's"

    def _ways_astray(self, gateways: list[ipaddress.IPv4Interface]) -> Iterator[str]:
        """Next hops that guests do not reach."""
        told = ", ".join(str(each.network) for each in gateways) or "an IPv4 subnet"
        ways = [("names the router", router) for router in self.router or ()]
        ways += [(f"routes {route.to} via", route.via) for route in self.routes]
        for what, address in ways:
            if not any(_usable(address, each) for each in gateways):
                yield f"{what} {address}, which guests do not reach; use an address of {told}"


def _ordered(ranges: tuple[tuple[str, str], ...]) -> None:
    last = -1
    for low, high in sorted(ranges, key=lambda pair: int(ipaddress.ip_address(pair[0]))):
        first, end = int(ipaddress.ip_address(low)), int(ipaddress.ip_address(high))
        if first > end:
            raise ValueError(f"has a range from {low} to {high}, which ends before it begins; swap the two")
        if first <= last:
            raise ValueError(f"has {low} in two ranges; let them not overlap")
        last = end


def _usable(address: str, gateway: ipaddress.IPv4Interface | ipaddress.IPv6Interface) -> bool:
    """Whether it is an address of the subnet that a machine can have."""
    number, network = ipaddress.ip_address(address), gateway.network
    if network.version == 6:  # the first one is all routers' (RFC 4291, 2.6.1), and there is no broadcast
        return number in network and number != network.network_address
    return number in network and number not in {network.network_address, network.broadcast_address}


def link_local(mac: str) -> str:
    """The link-local address that a MAC makes (RFC 4291, appendix A)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    identifier = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return str(ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + identifier))


def gateway_mac(network: str) -> str:
    """The MAC of a network's gateway, the same on every host: locally administered (IEEE 802-2014, 8.4)."""
    return "02:f5:" + blake2b(network.encode(), digest_size=4).digest().hex(":")
