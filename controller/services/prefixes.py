"""Whose an address is: the network's with the most particular prefix that it is in."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address

from controller.views import GatewayView, Subnet


class Prefixes:
    """Of these gateways. To look one up takes as long with a thousand networks as with one: guests make us do it."""

    def __init__(self, gateways: Iterable[GatewayView]) -> None:
        found: dict[tuple[int, int], dict[int, tuple[Subnet, GatewayView]]] = {}
        for gateway in gateways:
            for subnet in gateway.prefixes:
                bits = subnet.max_prefixlen - subnet.prefixlen
                same = found.setdefault((bits, subnet.version), {})
                same.setdefault(int(subnet.network_address) >> bits, (subnet, gateway))
        self._found = sorted(found.items(), key=lambda each: each[0])

    def of(self, address: IPv4Address | IPv6Address) -> tuple[Subnet, GatewayView] | None:
        """The prefix, and whose it is; None when it is in none."""
        for (bits, version), same in self._found:
            if version == address.version and (whose := same.get(int(address) >> bits)) is not None:
                return whose
        return None
