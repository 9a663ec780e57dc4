"""A network's subnets, and what its DHCP server hands out."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from hashlib import blake2b
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from controller.model.fields import Address, Mac, Spec

DEFAULT_LEASE_SECONDS = 3600  # what libvirt's dnsmasq gives (formatnetwork, "lease")
SHORTEST_LEASE_SECONDS = 120  # formatnetwork: "the minimum value is 2 minutes"

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
    if network.is_multicast or network.is_loopback or network.is_unspecified:
        raise ValueError(f"{value!r} is not for guests; use a unicast subnet such as 10.10.10.0/24")
    if address == network.network_address:
        address = network[1]
    if network.version == 4 and address == network.broadcast_address:
        raise ValueError(f"{value!r} has the broadcast address as its gateway; use another of {network}")
    return f"{address}/{network.prefixlen}"


Subnet = Annotated[str, BeforeValidator(_subnet)]
"""The gateway's address with the prefix length, such as ``10.10.10.1/24``."""

Ipv4 = Annotated[Address, AfterValidator(lambda value: _of_family(value, 4))]
Range = tuple[Ipv4, Ipv4]


def _of_family(value: str, version: int) -> str:
    if ipaddress.ip_address(value).version != version:
        raise ValueError(f"{value} is no IPv{version} address; DHCP here is DHCPv4")
    return value


def _ranges(value: Any) -> Any:
    """One range may be written without a list around it."""
    is_one = isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(end, str) for end in value)
    return [value] if is_one else value


class DhcpHost(Spec):
    """A reservation: this client always gets that address, and nobody else does."""

    mac: Mac
    ip: Ipv4
    name: Annotated[str, Field(pattern=f"^{_HOST_NAME}$")] | None = None


class Dhcp(Spec):
    """What the DHCP server of a network hands out. It answers on every host by itself."""

    range: Annotated[tuple[Range, ...], BeforeValidator(_ranges)] = Field(
        default=(), description="first and last address to lease, or a list of such pairs; none: reservations only"
    )
    hosts: tuple[DhcpHost, ...] = Field(default=(), description="reservations: mac, ip and, if it has one, name")
    lease: int = Field(
        default=DEFAULT_LEASE_SECONDS, ge=SHORTEST_LEASE_SECONDS, le=2**31, description="seconds that a lease lasts"
    )
    domain: Annotated[str, Field(pattern=rf"^{_HOST_NAME}(\.{_HOST_NAME})*$", max_length=253)] | None = Field(
        default=None, description="the guests' DNS domain"
    )
    dns: tuple[Ipv4, ...] = Field(default=(), max_length=8, description="name servers that guests are told of")

    @model_validator(mode="after")
    def _consistent(self) -> Dhcp:
        last = -1
        for low, high in sorted(self.range, key=lambda pair: int(ipaddress.ip_address(pair[0]))):
            first, end = int(ipaddress.ip_address(low)), int(ipaddress.ip_address(high))
            if first > end:
                raise ValueError(f"has a range from {low} to {high}, which ends before it begins; swap the two")
            if first <= last:
                raise ValueError(f"has {low} in two ranges; let them not overlap")
            last = end
        for what in ("mac", "ip", "name"):
            seen: set[str] = set()
            for host in self.hosts:
                value = getattr(host, what)
                if value in seen:
                    raise ValueError(f"reserves {what} {value} twice; keep one of them")
                if value is not None:
                    seen.add(value)
        return self

    def problems(self, subnets: tuple[str, ...]) -> Iterator[str]:
        """What does not fit the network's subnets, as ``what; remedy``."""
        gateways = [ipaddress.IPv4Interface(s) for s in subnets if "." in s]
        if not gateways:
            yield "has dhcp without an IPv4 subnet; add one to subnets, such as 10.10.10.0/24"
            return
        told = ", ".join(str(each.network) for each in gateways)
        for low, high in self.range:
            if not any(_usable(low, each) and _usable(high, each) for each in gateways):
                yield f"leases {low} to {high}, which is not within one subnet; use addresses of {told}"
        for host in self.hosts:
            if not any(_usable(host.ip, each) and host.ip != str(each.ip) for each in gateways):
                yield f"reserves {host.ip}, which is no guest's address; use one of {told}, and not the gateway's"


def _usable(address: str, gateway: ipaddress.IPv4Interface) -> bool:
    """Whether it is an address of the subnet that a machine can have."""
    number, network = ipaddress.IPv4Address(address), gateway.network
    return number in network and number not in {network.network_address, network.broadcast_address}


def gateway_mac(network: str) -> str:
    """The MAC of a network's gateway, the same on every host: locally administered (IEEE 802-2014, 8.4)."""
    return "02:f5:" + blake2b(network.encode(), digest_size=4).digest().hex(":")
