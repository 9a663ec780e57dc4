"""As whom guests of a nat network leave: addresses of a pool, of which each host has its own, and ports."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, summarize_address_range
from itertools import pairwise
from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from controller.model.fields import Ports, Spec, span

Span = tuple[IPv4Address, IPv4Address]
"""The first and the last address."""


def _range(value: object) -> str:
    """An address, or LOW-HIGH; a range of one address is that address."""
    low, _, high = (each.strip() for each in str(value).partition("-"))
    try:
        first, last = IPv4Address(low), IPv4Address(high or low)
    except ValueError:
        first, last = IPv4Address(1), IPv4Address(0)
    if first > last or first.is_multicast or last.is_multicast or first.is_unspecified or first.is_loopback:
        raise ValueError(f"{value!r} is no IPv4 address and no range of them; write 203.0.113.20, or "
                         "203.0.113.20-203.0.113.29")  # fmt: skip
    return str(first) if first == last else f"{first}-{last}"


AddressRange = Annotated[str, BeforeValidator(_range)]
"""One IPv4 address, or a range as ``LOW-HIGH``."""


class Nat(Spec):
    """As whom guests of a nat network leave."""

    addresses: tuple[AddressRange, ...] = Field(
        default=(), max_length=16, description="outside, of the subnets of hosts' external addresses: each host that "
        "has guests of the network gets one for itself; its external address when absent"
    )  # fmt: skip
    ports: Ports | None = Field(
        default=None, description="LOW-HIGH: the ports that translated connections come from; 1024-65535 when absent"
    )

    @model_validator(mode="after")
    def _says_something(self) -> Nat:
        if not self.addresses and self.ports is None:
            raise ValueError("has nat without addresses and ports; add one of them, or leave nat out")
        for one, other in pairwise(sorted(self.spans)):
            if other[0] <= one[1]:
                raise ValueError(f"has {other[0]} twice in nat.addresses; name each address once")
        return self

    @property
    def spans(self) -> tuple[Span, ...]:
        return tuple(address_span(each) for each in self.addresses)

    @property
    def subnets(self) -> tuple[IPv4Network, ...]:
        """The addresses, as few subnets as there can be."""
        return tuple(subnet for low, high in sorted(self.spans) for subnet in summarize_address_range(low, high))

    @property
    def port_span(self) -> tuple[int, int] | None:
        """The first and the last port."""
        return span(self.ports) if self.ports is not None else None

    def holds(self, address: IPv4Address) -> bool:
        """Whether it is one of the addresses."""
        return any(low <= address <= high for low, high in self.spans)

    def within(self, subnet: IPv4Network) -> Iterator[IPv4Address]:
        """Its addresses in a subnet, the lowest first."""
        first, last = int(subnet.network_address), int(subnet.broadcast_address)
        for low, high in sorted(self.spans):
            for number in range(max(int(low), first), min(int(high), last) + 1):
                yield IPv4Address(number)


def address_span(text: str) -> Span:
    """The ends of an AddressRange."""
    low, _, high = text.partition("-")
    return IPv4Address(low), IPv4Address(high or low)
