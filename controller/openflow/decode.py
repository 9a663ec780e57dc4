"""Messages from a switch as values (OpenFlow 1.5.1 §7). Strict, bounded; malformed input raises OpenFlowError.

A *body* is a message without its 8-byte header, a multipart body also without the multipart header.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

from os_ken.ofproto import ofproto_v1_5 as ofp

from controller.openflow.decode_flow import (
    FlowDesc,
    counter,
    decode_actions,
    decode_flow_desc,
    decode_match,
    decode_oxms,
    decode_stats,
)
from controller.openflow.match import Match
from controller.openflow.messages import VERSION
from controller.openflow.wire import need, strict, tlvs

__all__ = [
    "ErrorMessage", "Features", "FlowDesc", "FlowRemoved", "FlowUpdate", "PacketIn", "Port", "PortStatus", "Role",
    "decode_actions", "decode_aggregate", "decode_config", "decode_error", "decode_features", "decode_flow_desc",
    "decode_flow_removed", "decode_flow_updates", "decode_hello", "decode_match", "decode_packet_in",
    "decode_packet_in2", "decode_port_desc", "decode_port_status", "decode_role", "multipart_header",
    "scan_contents", "scan_flows", "split_header",
]  # fmt: skip

NICIRA = 0x2320
PACKET_IN2 = 30
_HEADER = struct.Struct("!BBHI")
_SCAN = struct.Struct("!H2xB11xQ")
_SIZE = struct.Struct("!H")
_UPDATE = struct.Struct("!4xB5xH4xQ")
_PORT = struct.Struct("!IH2x6s2x16sII")
_PACKET_IN = struct.Struct("!4xHBBQHH")
_IN_PORT = b"\x80\0\0\4"  # the OXM header of in_port without a mask

_TYPES = {v: k[6:] for k, v in vars(ofp).items() if k.startswith("OFPET_")}
_CODES = {
    0: "OFPHFC_", 1: "OFPBRC_", 2: "OFPBAC_", 3: "OFPBIC_", 4: "OFPBMC_", 5: "OFPFMFC_", 6: "OFPGMFC_",
    7: "OFPPMFC_", 8: "OFPTMFC_", 9: "OFPQOFC_", 10: "OFPSCFC_", 11: "OFPRRFC_", 12: "OFPMMFC_", 13: "OFPTFFC_",
    14: "OFPBPC_", 15: "OFPACFC_", 16: "OFPMOFC_", 17: "OFPBFC_",
}  # fmt: skip
_CODE_NAMES = {
    (kind, value): name
    for kind, prefix in _CODES.items()
    for name, value in vars(ofp).items()
    if name.startswith(prefix)
}


@strict
def split_header(data: bytes) -> tuple[int, int, int, int]:
    """Version, type, length and xid of a message's first 8 bytes."""
    version, kind, size, xid = _HEADER.unpack_from(data)
    need(size >= 8, f"message of length {size}")
    return version, kind, size, xid


@strict
def decode_hello(version: int, body: bytes) -> int:
    """The version that is spoken from here on; raises OpenFlowError if it is not 1.5 (§6.3.1).

    ``version`` is the hello's own; a version bitmap, where there is one, decides instead.
    """
    bitmap: int | None = None
    for kind, start, end in tlvs(body, 0, len(body), padded=True, what="hello"):
        if kind == 1 and end - start >= 8:
            (bitmap,) = struct.unpack_from("!I", body, start + 4)
    spoken = bool(bitmap >> VERSION & 1) if bitmap is not None else version >= VERSION
    need(spoken, f"the peer (version {version}, bitmap {bitmap}) does not speak OpenFlow 1.5")
    return VERSION


@dataclass(frozen=True, slots=True)
class ErrorMessage:
    """An error: its type and code, and as much of the message that caused it as the switch sends back."""

    type: int
    code: int
    data: bytes
    experimenter: int = 0

    @property
    def text(self) -> str:
        """Type and code by the specification's names."""
        if self.experimenter:
            return f"experimenter {self.experimenter:#x} error {self.code}"
        kind = _TYPES.get(self.type, f"type {self.type}")
        return f"{kind} {_CODE_NAMES.get((self.type, self.code), f'code {self.code}')}"


@strict
def decode_error(body: bytes) -> ErrorMessage:
    """An error message (§7.5.4)."""
    kind, code = struct.unpack_from("!HH", body)
    if kind == 0xFFFF:
        (experimenter,) = struct.unpack_from("!I", body, 4)
        return ErrorMessage(kind, code, body[8:], experimenter)
    return ErrorMessage(kind, code, body[4:])


@dataclass(frozen=True, slots=True)
class Features:
    """What a switch says of itself."""

    dpid: int
    n_buffers: int
    n_tables: int
    auxiliary_id: int
    capabilities: int


@strict
def decode_features(body: bytes) -> Features:
    """A features reply (§7.3.1)."""
    need(len(body) == 24, f"features reply of {len(body)} bytes")
    return Features(*struct.unpack_from("!QIBB2xI", body))


class PacketIn(NamedTuple):
    """A punted packet: a tuple, for one is made for each. ``oxms`` are the pipeline fields as OXM TLVs, decoded by
    :meth:`fields` when asked. ``properties`` is the whole body of an NXT_PACKET_IN2, which ``messages.resume`` takes.
    """

    table: int
    reason: int
    cookie: int
    total_len: int
    oxms: bytes
    data: bytes
    userdata: bytes = b""
    properties: bytes = b""

    @property
    def in_port(self) -> int:
        """The port on which the packet came in; 0 where the switch does not say."""
        if self.oxms[:4] == _IN_PORT and len(self.oxms) >= 8:  # where Open vSwitch puts it
            return int.from_bytes(self.oxms[4:8], "big")
        return self.fields().get("in_port", 0)

    def fields(self) -> dict[str, int]:
        """The pipeline fields by name: in_port, metadata, tunnel fields, registers."""
        terms = decode_oxms(self.oxms, 0, len(self.oxms))
        return {f.name: v for f, v, _ in Match(tuple(terms)).canonical().terms}


@strict
def decode_packet_in(body: bytes) -> PacketIn:
    """OFPT_PACKET_IN (§7.4.1)."""
    total_len, reason, table, cookie, kind, size = _PACKET_IN.unpack_from(body)
    data = 16 + (size + 7) // 8 * 8 + 2
    if kind != 1 or size < 4 or data > len(body):
        need(False, f"packet-in with a match of length {size}")
    return PacketIn(table, reason, cookie, total_len, body[20 : 16 + size], body[data:])


@strict
def decode_packet_in2(body: bytes) -> PacketIn:
    """The properties of an NXT_PACKET_IN2; ``body`` begins behind experimenter and subtype."""
    table, reason, cookie, total_len, oxms, data, userdata = 0, 0, 0, -1, b"", b"", b""
    for kind, start, end in tlvs(body, 0, len(body), padded=True, what="packet-in"):
        match kind:
            case 0:
                data = body[start + 4 : end]
            case 1:
                (total_len,) = struct.unpack_from("!I", body[:end], start + 4)
            case 3:
                table = body[:end][start + 4]
            case 4:
                (cookie,) = struct.unpack_from("!Q", body[:end], start + 8)
            case 5:
                reason = body[:end][start + 4]
            case 6:
                oxms = body[start + 4 : end]
            case 7:
                userdata = body[start + 4 : end]
            case _:
                pass  # buffer id, continuation: go back to the switch inside ``properties``
    return PacketIn(table, reason, cookie, len(data) if total_len < 0 else total_len, oxms, data, userdata, body)


@dataclass(frozen=True, slots=True)
class FlowRemoved:
    """A flow that ended. ``reason``: 0 idle, 1 hard timeout, 2 deleted, 3 group, 4 meter, 5 evicted."""

    table: int
    reason: int
    priority: int
    cookie: int
    match: Match
    packets: int
    bytes: int


@strict
def decode_flow_removed(body: bytes) -> FlowRemoved:
    """OFPT_FLOW_REMOVED (§7.4.2)."""
    table, reason, priority, _, _, cookie = struct.unpack_from("!BBHHHQ", body)
    match, at = decode_match(body, 16)
    stats, _ = decode_stats(body, at)
    return FlowRemoved(table, reason, priority, cookie, match, counter(stats, 4), counter(stats, 5))


@dataclass(frozen=True, slots=True)
class Port:
    """A port. ``state`` bit 0 is link down; ``config`` bit 0 is administratively down. Speed is kbit/s."""

    number: int
    mac: str
    name: str
    config: int
    state: int
    speed: int = 0


def _ports(body: bytes, start: int) -> list[Port]:
    found: list[Port] = []
    while start < len(body):
        need(len(body) - start >= 40, "port description is cut short")
        number, size, mac, name, config, state = _PORT.unpack_from(body, start)
        need(40 <= size <= len(body) - start, f"port description of length {size}")
        speed = 0
        for kind, begin, end in tlvs(body, start + 40, start + size, padded=True, what="port"):
            if kind == 0 and end - begin >= 32:
                (speed,) = struct.unpack_from("!I", body, begin + 24)
        text = name.split(b"\0", 1)[0].decode("utf-8", "replace")
        found.append(Port(number, mac.hex(":"), text, config, state, speed))
        start += size
    return found


@strict
def decode_port_desc(body: bytes) -> list[Port]:
    """The ports of a port-description reply."""
    return _ports(body, 0)


@dataclass(frozen=True, slots=True)
class PortStatus:
    """``reason``: 0 added, 1 deleted, 2 changed."""

    reason: int
    port: Port


@strict
def decode_port_status(body: bytes) -> PortStatus:
    """OFPT_PORT_STATUS (§7.4.3)."""
    need(len(body) >= 48, f"port status of {len(body)} bytes")
    ports = _ports(body, 8)
    need(len(ports) == 1, f"port status with {len(ports)} ports")
    return PortStatus(body[0], ports[0])


@dataclass(frozen=True, slots=True)
class Role:
    """A role and its generation."""

    role: int
    generation_id: int


@strict
def decode_role(body: bytes) -> Role:
    """A role reply or role status (§7.3.9, §7.4.4)."""
    role, generation = struct.unpack_from("!I4xQ", body)
    return Role(role, generation)


@strict
def decode_config(body: bytes) -> int:
    """The flags of a get-config reply (§7.3.2)."""
    need(len(body) == 4, f"get-config reply of {len(body)} bytes")
    return int.from_bytes(body[:2], "big")


@strict
def multipart_header(body: bytes) -> tuple[int, bool]:
    """Type of a multipart reply and whether more parts follow."""
    need(len(body) >= 8, "multipart reply without a header")
    kind, flags = struct.unpack_from("!HH", body)
    return kind, bool(flags & 1)


@strict
def scan_flows(body: bytes) -> list[tuple[int, int]]:
    """Table and cookie of every flow of a flow-description reply, with no match or action decoded."""
    found: list[tuple[int, int]] = []
    add, unpack, offset, end = found.append, _SCAN.unpack_from, 0, len(body)
    while offset < end:
        size, table, cookie = unpack(body, offset)
        if size < 32 or offset + size > end:
            need(False, f"flow description of length {size}")
        add((table, cookie))
        offset += size
    return found


@strict
def scan_contents(body: bytes) -> list[tuple[int, int, int, int, int]]:
    """Table, cookie, begin, end and content of every flow of a flow-description reply. The content is a hash of all
    that the flow is and does, counters left out, and means something in this process only."""
    found: list[tuple[int, int, int, int, int]] = []
    add, unpack, size_of, offset, end = found.append, _SCAN.unpack_from, _SIZE.unpack_from, 0, len(body)
    while offset < end:
        size, table, cookie = unpack(body, offset)
        stop = offset + size
        if size < 32 or stop > end:
            need(False, f"flow description of length {size}")
        stats = offset + 24 + (size_of(body, offset + 26)[0] + 7) // 8 * 8
        does = stats + (size_of(body, stats + 2)[0] + 7) // 8 * 8
        add((table, cookie, offset, stop, hash(body[offset + 4 : stats] + body[does:stop])))
        offset = stop
    return found


@strict
def decode_aggregate(body: bytes) -> tuple[int, int, int]:
    """Flows, packets and bytes of an aggregate reply."""
    stats, _ = decode_stats(body, 0)
    return counter(stats, 3), counter(stats, 4), counter(stats, 5)


@dataclass(frozen=True, slots=True)
class FlowUpdate:
    """What a flow monitor tells. ``xid`` is set for the abbreviation of an own change, the rest for the others."""

    event: str
    table: int = 0
    priority: int = 0
    cookie: int = 0
    xid: int = 0


_EVENTS = ("initial", "added", "removed", "modified", "abbrev", "paused", "resumed")


@strict
def decode_flow_updates(body: bytes) -> list[FlowUpdate]:
    """The updates of a flow-monitor reply (§7.3.5.17). Matches and instructions are not looked at: whoever changes
    flows in a loop shall not cost a decoding each."""
    found: list[FlowUpdate] = []
    offset = 0
    while offset < len(body):
        size, event = struct.unpack_from("!HH", body, offset)
        need(8 <= size <= len(body) - offset and event < len(_EVENTS), f"flow update {event} of length {size}")
        if event < 4:
            need(size >= 32, f"flow update of length {size}")
            table, priority, cookie = _UPDATE.unpack_from(body, offset)
            found.append(FlowUpdate(_EVENTS[event], table, priority, cookie))
        else:
            xid = int.from_bytes(body[offset + 4 : offset + 8], "big") if event == 4 else 0
            found.append(FlowUpdate(_EVENTS[event], xid=xid))
        offset += size
    return found
