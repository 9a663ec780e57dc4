"""A guest's network card, as both kinds of guests take it."""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass, field
from typing import Any


def random_mac() -> str:
    """A MAC address of the range that libvirt gives to QEMU guests."""
    return "52:54:00:" + ":".join(f"{random.randrange(256):02x}" for _ in range(3))


@dataclass(frozen=True, slots=True)
class Nic:
    """One vNIC.

    network, portgroup: the libvirt network; a bridge instead of a network makes `<interface type='bridge'>`.
    addresses, gateways: "10.0.0.5/24", "fd00::5/64"; none means that a real guest asks DHCP.
    vlans: sub-interfaces of a real guest, VLAN id to addresses.
    iface_id: pins the OVS iface-id (libvirt's interfaceid); profile_id: the port-profile, NETWORK:PORTGROUP if None.
    """

    network: str | None = "lab"
    portgroup: str | None = None
    mac: str = field(default_factory=random_mac)
    addresses: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    vlans: dict[int, tuple[str, ...]] = field(default_factory=dict)
    mtu: int | None = None
    bridge: str | None = None
    iface_id: str | None = None
    profile_id: str | None = None
    dhcp: bool = True

    @property
    def profile(self) -> str | None:
        """The port-profile that libvirt would write for this vNIC."""
        if self.profile_id is None and self.network and not self.bridge:
            return f"{self.network}:{self.portgroup or 'default'}"
        return self.profile_id

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Nic:
        vlans = {int(tag): tuple(addresses) for tag, addresses in data["vlans"].items()}
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**{**plain, "vlans": vlans})
