"""Played switches whose guests send to machines outside of which nobody knows where they are.

Each packet costs the controller two answers: it asks for the machine by ARP, and when that has answered it sends the
packet on.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Any

from apps import APPS
from controller.pipeline.cookies import own_cookie
from controller.pipeline.fields import NEXT_HOP
from controller.pipeline.pipeline import Pipeline
from controller.pipeline.tables import GATEWAY, HOP_KNOWN

from .punting import PACKETS, Punting, packet_in

_ARP, _IPV4, _VERSION = 0x0806, 0x0800, 6
_COOKIE = own_cookie(bytes(7))
_REG = 0x00010004 | NEXT_HOP.register << 9  # OXM header of a register of Nicira's class
_ROUTER = bytes.fromhex("020000000f01")


def with_outside(hosts: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The hosts' documents, each with an address in one outside."""
    return [
        {**host, "external": {"uplink": "physnet1", "address": f"198.51.{n // 250}.{n % 250 + 2}/16",
                              "gateway": "198.51.0.1"}}
        for n, host in enumerate(hosts)
    ]  # fmt: skip


class Unknowing(Punting):
    """A switch that knows no machine outside. ``datapath`` is its host's datapath id."""

    def __init__(self, port: int, datapath: int, window: int) -> None:
        tables = Pipeline(APPS).number
        self._gateway = tables[GATEWAY]
        packets = [_to_machine(tables[HOP_KNOWN], machine) for machine in range(PACKETS)]
        super().__init__(port, datapath, _VERSION, window, packets)

    def _answers(self, packet_out: bytes) -> bool:
        actions = struct.unpack_from("!H", packet_out, 12)[0]
        match = struct.unpack_from("!H", packet_out, 18)[0]
        frame = packet_out[16 + (match + 7) // 8 * 8 + actions :]
        if frame[12:14] != _ARP.to_bytes(2, "big"):
            return True
        self._send(packet_in(_VERSION, self._gateway, _COOKIE, b"", _reply(frame)))
        return False


def _to_machine(table: int, machine: int) -> bytes:
    oxms = struct.pack("!IIII", 0x80000004, 5, _REG, 0xC6338000 | machine + 1)  # 198.51.128.0 and above
    frame = bytes.fromhex("02f500000001525400000001") + _IPV4.to_bytes(2, "big") + b"\x45" + bytes(45)
    return packet_in(_VERSION, table, _COOKIE, oxms, frame)


def _reply(request: bytes) -> bytes:
    """RFC 826: the machine that is asked for says where it is."""
    asking, wanted = request[22:32], request[38:42]
    head = asking[:6] + _ROUTER + request[12:20] + (2).to_bytes(2, "big")
    return (head + _ROUTER + wanted + asking).ljust(60, b"\0")
