"""A played switch that tells what it has as a real one does: its flows in full, a group, a meter, its ports."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from played_switch import Identity, PlayedSwitch

from controller.openflow.messages import ALL_TABLES, Multipart, unbundled

_MATCH = 48  # where the match stands in a flow-mod (OpenFlow 1.5.1, 7.3.4.2)
_PACKETS, _OCTETS, _SECONDS = 7, 700, 9


class ToldSwitch(PlayedSwitch):
    """Every flow has met some packets."""

    def __init__(self) -> None:
        super().__init__()
        self._mods: dict[Identity, bytes] = {}

    async def bundle(self, messages: Sequence[bytes], within: float) -> None:
        await super().bundle(messages, within)
        self._mods |= {(data[24], int.from_bytes(data[8:16], "big")): data for data in map(unbundled, messages)}

    async def multipart(self, data: bytes, within: float) -> bytes:
        await self._answer()
        match struct.unpack_from("!H", data, 8)[0]:
            case Multipart.FLOW_DESC:
                return b"".join(_description(self._mods[flow]) for flow in self._asked(data))
            case Multipart.AGGREGATE:
                many = len([*self._asked(data)])
                return _stats({3: many, 4: many * _PACKETS, 5: many * _OCTETS})
            case Multipart.GROUP_DESC:
                return struct.pack("!HBxIH6x", 16, 0, 1, 0)
            case Multipart.GROUP_STATS:
                return struct.pack("!H2xII4xQQII", 40, 1, 0, _PACKETS, _OCTETS, _SECONDS, 0)
            case Multipart.METER_CONFIG:
                return struct.pack("!HHI", 24, 1, 1) + struct.pack("!HHII4x", 1, 16, 1000, 0)
            case Multipart.METER_STATS:
                return struct.pack("!IH6xIQQIIQQ", 1, 56, 0, _PACKETS, _OCTETS, _SECONDS, 0, 3, 300)
            case Multipart.PORT_STATS:
                return struct.pack("!H2xIII8Q", 80, 5, _SECONDS, 0, 1, 2, 3, 4, 0, 0, 0, 0)
            case kind:
                raise AssertionError(f"nobody asks a switch for {kind}")

    def _asked(self, data: bytes) -> Iterator[Identity]:
        """Flows of the table that a request names, with its cookie under its mask."""
        table = data[16]
        cookie, mask = struct.unpack_from("!QQ", data, 32)
        return (f for f in sorted(self.flows) if table in (ALL_TABLES, f[0]) and f[1] & mask == cookie & mask)


def _description(mod: bytes) -> bytes:
    """A flow as its description (7.3.5.2) has it, from the flow-mod that made it."""
    cookie, _, table, _, idle, hard, priority, *_, flags, importance = struct.unpack_from("!QQBBHHHIIIHH", mod, 8)
    (length,) = struct.unpack_from("!H", mod, _MATCH + 2)
    instructions = _MATCH + length + -length % 8
    body = mod[_MATCH:instructions] + _stats({0: _SECONDS << 32, 4: _PACKETS, 5: _OCTETS}) + mod[instructions:]
    head = struct.pack("!H2xBxHHHHHQ", 24 + len(body), table, priority, idle, hard, flags, importance, cookie)
    return head + body


def _stats(counters: dict[int, int]) -> bytes:
    """An ofp_stats (7.2.4.1); the number of flows is the one that has four bytes."""
    fields = b"".join(
        struct.pack("!I", 0x8002 << 16 | number << 9 | size) + value.to_bytes(size, "big")
        for number, value in counters.items()
        for size in [4 if number == 3 else 8]
    )
    return struct.pack("!HH", 0, 4 + len(fields)) + fields + bytes(-(4 + len(fields)) % 8)
