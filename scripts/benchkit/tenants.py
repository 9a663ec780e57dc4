"""A fleet of tenants: networks of twenty guests each, which are scattered over the hosts, a vNIC to a guest."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

TENANT = 20
"""Guests of a network."""


@dataclass(frozen=True, slots=True)
class Tenants:
    """So many hosts and guests. Every host has as many guests as any other, of tenants that chance put together: the
    same ones for the same sizes."""

    hosts: int
    guests: int

    @property
    def size(self) -> dict[str, int]:
        return {"hosts": self.hosts, "guests": self.guests}

    def documents(self) -> list[dict[str, Any]]:
        """Hosts whose OVSDB refuses at once, and that have no libvirt; networks with a subnet and DHCP."""
        hosts = [
            {"kind": "Host", "name": host_name(n), "ovsdb": f"unix:/nonexistent/fleetswitch-bench/{n}",
             "tunnel_ip": f"198.18.{n // 250}.{n % 250 + 1}"}
            for n in range(self.hosts)
        ]  # fmt: skip
        networks = [
            {"kind": "Network", "name": network_name(n), "mode": "isolated", "subnets": [f"{_prefix(n)}.0/24"],
             "dhcp": {"range": [f"{_prefix(n)}.100", f"{_prefix(n)}.200"]}}
            for n in range(-(-self.guests // TENANT))
        ]  # fmt: skip
        return [*hosts, *networks]

    def vnics(self) -> list[dict[str, Any]]:
        """Rows of their vNICs, as the controller left them."""
        return [row(guest, host, nth) for guest, (host, nth) in enumerate(self._places())]

    def _places(self) -> Iterator[tuple[int, int]]:
        """Of each guest: its host, and the how manieth it is there."""
        chance = random.Random(1)
        for first in range(0, self.guests, self.hosts):
            hosts = chance.sample(range(self.hosts), min(self.hosts, self.guests - first))
            yield from ((host, first // self.hosts) for host in hosts)


def host_name(number: int) -> str:
    return f"kvm{number:04}"


def network_name(number: int) -> str:
    return f"tenant{number:04}"


def row(guest: int, host: int, nth: int, **more: Any) -> dict[str, Any]:
    """The row of a guest's vNIC that is on a host, at the OpenFlow port ``nth + 1``."""
    tenant, mac = guest // TENANT, f"52:54:00:{guest >> 16:02x}:{guest >> 8 & 255:02x}:{guest & 255:02x}"
    uuid = f"00000000-0000-4000-8000-{guest:012}"
    status = {
        "vm_uuid": uuid, "vm": f"vm{guest:05}", "mac": mac, "host": host_name(host), "tap": f"vnet{nth}",
        "ofport": nth + 1, "network": network_name(tenant), "portgroup": "default", "mtu": 1450, "state": "active",
        "addresses": [f"{_prefix(tenant)}.{guest % TENANT + 10}"], **more,
    }  # fmt: skip
    return {"name": f"{uuid}.{mac.replace(':', '')}", "spec": "{}", "status": json.dumps(status)}


def _prefix(tenant: int) -> str:
    return f"10.{tenant >> 8}.{tenant & 255}"
