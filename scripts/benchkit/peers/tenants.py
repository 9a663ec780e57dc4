"""Tenants of 20 guests each, spread evenly over the hosts, so that every host has guests of every tenant."""

from __future__ import annotations

from dataclasses import dataclass

SIZE = 20


@dataclass(frozen=True, slots=True)
class Guest:
    """One of a tenant, with one vNIC. ``number`` is its own in the whole fleet, ``nth`` in its tenant; ``host`` the
    index of its host."""

    number: int
    host: int
    tenant: int
    nth: int

    @property
    def network(self) -> str:
        return network(self.tenant)

    @property
    def name(self) -> str:
        return f"vm{self.number:04}"

    @property
    def tap(self) -> str:
        return f"vnet{self.number}"

    @property
    def mac(self) -> str:
        return f"52:54:00:00:{self.number >> 8:02x}:{self.number & 255:02x}"

    @property
    def address(self) -> str:
        return f"10.94.{self.tenant}.{self.nth + 10}"

    @property
    def uuid(self) -> str:
        return f"00000000-0000-4000-8000-{self.number:012}"

    @property
    def iface_id(self) -> str:
        return f"00000000-0000-4000-9000-{self.number:012}"

    @property
    def external_ids(self) -> dict[str, str]:
        """What libvirt writes on its interface."""
        return {"attached-mac": self.mac, "iface-id": self.iface_id, "vm-id": self.uuid, "iface-status": "active",
                "port-profile": f"{self.network}:default"}  # fmt: skip


def network(tenant: int) -> str:
    return f"tenant{tenant}"


def subnet(tenant: int) -> str:
    return f"10.94.{tenant}.0/24"


def gateway(tenant: int) -> str:
    return f"10.94.{tenant}.1"


def guests(hosts: int, count: int) -> list[Guest]:
    """Those that are there from the beginning."""
    return [Guest(number, number % hosts, number // SIZE, number % SIZE) for number in range(count)]


def newcomers(hosts: int, count: int, more: int) -> list[Guest]:
    """So many more than those: a 21st of the first tenants, and on."""
    tenants = -(-count // SIZE)
    return [Guest(count + n, n % hosts, n % tenants, SIZE + n // tenants) for n in range(more)]
