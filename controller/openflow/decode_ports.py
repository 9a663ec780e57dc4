"""Counters of a switch's ports (OpenFlow 1.5.1 §7.3.5.7). Strict and bounded."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from controller.openflow.wire import need, strict

_STATS = struct.Struct("!H2xIII8Q")
_UNKNOWN = 0xFFFFFFFFFFFFFFFF  # what a switch says that does not count it


@dataclass(frozen=True, slots=True)
class PortStats:
    """``rx`` is what came into the switch."""

    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int
    rx_dropped: int
    tx_dropped: int


@strict
def decode_port_stats(body: bytes) -> Mapping[int, PortStats]:
    """The counters of every port, by its number."""
    found, offset = {}, 0
    while offset < len(body):
        need(len(body) - offset >= _STATS.size, "port stats are cut short")
        size, port, _, _, *counts = _STATS.unpack_from(body, offset)
        need(_STATS.size <= size <= len(body) - offset, f"port stats of length {size}")
        found[port] = PortStats(*(0 if count == _UNKNOWN else count for count in counts[:6]))
        offset += size
    return found
