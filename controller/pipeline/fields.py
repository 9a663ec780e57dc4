"""What a packet carries from table to table: named bit ranges of Open vSwitch's registers.

Declared here and nowhere else; no other place names a register by its number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum


@dataclass(frozen=True, slots=True)
class RegisterField:
    """``width`` bits of register ``register`` (``regN``), from bit ``start`` upwards; or all of that and the three
    behind it (``xxregN``)."""

    name: str
    register: int
    start: int
    width: int
    about: str

    @property
    def oxm(self) -> str:
        """The OXM name of its register."""
        return f"reg{self.register}" if self.width <= 32 else f"xxreg{self.register // 4}"

    @property
    def mask(self) -> int:
        """The field's bits within its register."""
        return ((1 << self.width) - 1) << self.start


class Source(IntEnum):
    """Where a packet came from. 0 is a packet that was not classified."""

    VNIC = 1
    UPLINK = 2
    TUNNEL = 3
    SWITCH = 4  # the switch answers by itself
    OUTSIDE = 5  # an answer from outside, translated back: it is for a guest of ours


# A tunnel's key is the segment with the isolation bit above it: 24 bits, which geneve, vxlan and gre all carry.
SEGMENT = RegisterField("segment", 0, 0, 23, "the layer-2 segment: one VLAN of one network, by its fleet-wide number")
ISOLATED = RegisterField("isolated", 0, 23, 1, "the sender is an isolated vNIC; travels in the tunnel key")
SOURCE = RegisterField("source", 1, 0, 3, "1 a vNIC, 2 an uplink, 3 a tunnel, 4 the switch itself, 5 the outside")
PRIVATE = RegisterField("private", 1, 3, 1, "the sender is a private vNIC: it reaches the uplink only")
LEARNED_SENDER = RegisterField("learned_sender", 1, 4, 1, "the switch has learned where the sender is")
RESOLVED = RegisterField("resolved", 1, 5, 1, "the MAC of the next hop is known")
NATTED = RegisterField("natted", 1, 6, 1, "the sender is in a network of mode nat: others may only answer it")
FOREIGN = RegisterField("foreign", 1, 7, 1, "the sender's address is none of its network's: mode open lets it send so")
TOO_BIG = RegisterField("too_big", 1, 8, 1, "larger than the MTU of the network or wire where it is to go")
OUT = RegisterField("out", 2, 0, 16, "the OpenFlow port to leave by; 0 while it is not known")
PEER = RegisterField("peer", 3, 0, 16, "the host to reach through a tunnel, or that a tunnel comes from, by its number")

NEXT_HOP = RegisterField("next_hop", 4, 0, 32, "IPv4 address outside to which the packet goes next")
NEXT_HOP6 = RegisterField("next_hop6", 8, 0, 128, "IPv6 address outside to which the packet goes next")

TUNNEL_KEY_BITS = SEGMENT.width + ISOLATED.width
MAX_SEGMENT = (1 << SEGMENT.width) - 1
MAX_HOST = (1 << PEER.width) - 1

REGISTER_FIELDS: Mapping[str, RegisterField] = {
    field.name: field
    for field in (
        SEGMENT,
        ISOLATED,
        SOURCE,
        PRIVATE,
        LEARNED_SENDER,
        RESOLVED,
        NATTED,
        FOREIGN,
        TOO_BIG,
        OUT,
        PEER,
        NEXT_HOP,
        NEXT_HOP6,
    )
}
