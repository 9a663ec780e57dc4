"""Messages to a switch as bytes (OpenFlow 1.5.1 §7). Every function returns one whole message.

``xid`` is 0 unless given: the connection stamps messages whose answer matters with :func:`stamp`. Matches,
instructions and actions are handed in as bytes (``Match.encode``, ``actions.instructions``, ``encode_actions``), so a
caller encodes them once however many switches get them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from controller.errors import PipelineError

VERSION = 6
HEADER = struct.Struct("!BBHI")
ANY, NO_BUFFER = 0xFFFFFFFF, 0xFFFFFFFF
ALL_TABLES = 255
MASK64 = 0xFFFFFFFFFFFFFFFF
MAX_MESSAGE = 0xFFFF
WRITE = 65536
_JOINED = 4096  # messages that are copied together: half a megabyte of flows
EMPTY_MATCH = b"\0\1\0\4\0\0\0\0"


class Type(IntEnum):
    """Message types (§7.1)."""

    HELLO = 0
    ERROR = 1
    ECHO_REQUEST = 2
    ECHO_REPLY = 3
    EXPERIMENTER = 4
    FEATURES_REQUEST = 5
    FEATURES_REPLY = 6
    GET_CONFIG_REQUEST = 7
    GET_CONFIG_REPLY = 8
    SET_CONFIG = 9
    PACKET_IN = 10
    FLOW_REMOVED = 11
    PORT_STATUS = 12
    PACKET_OUT = 13
    FLOW_MOD = 14
    GROUP_MOD = 15
    PORT_MOD = 16
    MULTIPART_REQUEST = 18
    MULTIPART_REPLY = 19
    BARRIER_REQUEST = 20
    BARRIER_REPLY = 21
    ROLE_REQUEST = 24
    ROLE_REPLY = 25
    SET_ASYNC = 28
    METER_MOD = 29
    ROLE_STATUS = 30
    TABLE_STATUS = 31
    REQUESTFORWARD = 32
    BUNDLE_CONTROL = 33
    BUNDLE_ADD = 34
    CONTROLLER_STATUS = 35


class Multipart(IntEnum):
    """Multipart types (§7.3.5)."""

    DESC = 0
    FLOW_DESC = 1
    AGGREGATE = 2
    TABLE = 3
    PORT_STATS = 4
    GROUP_STATS = 6
    GROUP_DESC = 7
    METER_STATS = 9
    METER_CONFIG = 10
    PORT_DESC = 13
    FLOW_MONITOR = 16


class Command(IntEnum):
    """Flow-mod commands (§7.3.4.1)."""

    ADD = 0
    MODIFY = 1
    MODIFY_STRICT = 2
    DELETE = 3
    DELETE_STRICT = 4


class Role(IntEnum):
    """Controller roles (§7.3.9). Only a change to MASTER or SLAVE carries a generation."""

    NOCHANGE = 0
    EQUAL = 1
    MASTER = 2
    SLAVE = 3


class Bundle(IntEnum):
    """Bundle control types (§7.3.10)."""

    OPEN = 0
    OPEN_REPLY = 1
    CLOSE = 2
    CLOSE_REPLY = 3
    COMMIT = 4
    COMMIT_REPLY = 5
    DISCARD = 6
    DISCARD_REPLY = 7


ATOMIC, ORDERED = 1, 2
SEND_FLOW_REM, CHECK_OVERLAP, RESET_COUNTS = 1, 2, 4
BY_ACTION = 1 << 1  # of set_async: packets that a flow sends to the controller (OFPR_APPLY_ACTION)
MATCH_FRAGMENTS = 3  # of set_config: Open vSwitch's OFPC_FRAG_NX_MATCH (openflow/nicira-ext.h)
PORT_DOWN, NO_RECV, NO_FWD, NO_PACKET_IN = 1 << 0, 1 << 2, 1 << 5, 1 << 6  # of port_mod (§7.2.1)

_FLOW_MOD = struct.Struct("!BBHIQQBBHHHIIIHH").pack
_PACKET_OUT = struct.Struct("!BBHIIHxx").pack
_IN_PORT = struct.Struct("!HHII4x").pack
_MULTIPART = struct.Struct("!BBHIHH4x").pack
_FLOW_DESC = struct.Struct("!BBHIHH4xB3xII4xQQ").pack
_BUNDLE = struct.Struct("!BBHIIHH").pack
_ADD = struct.Struct("!BBHII2xH4sI").pack


def message(kind: int, body: bytes = b"", xid: int = 0) -> bytes:
    """A message of any type. Raises PipelineError past 65,535 bytes."""
    size = 8 + len(body)
    if size > MAX_MESSAGE:
        raise PipelineError(f"a message of {size} bytes is longer than OpenFlow's 65535")
    return HEADER.pack(VERSION, kind, size, xid) + body


def stamp(data: bytes, xid: int) -> bytes:
    """The message with another transaction id."""
    return data[:4] + xid.to_bytes(4, "big") + data[8:]


def hello(xid: int = 0) -> bytes:
    """Hello with a version bitmap that holds 1.5 alone."""
    return message(Type.HELLO, struct.pack("!HHI", 1, 8, 1 << VERSION), xid)


def hello_failed(text: str, xid: int = 0) -> bytes:
    """The error that says that no version is shared."""
    return message(Type.ERROR, struct.pack("!HH", 0, 0) + text.encode("ascii", "replace"), xid)


def echo_request(data: bytes = b"", xid: int = 0) -> bytes:
    """Asks whether the peer is alive."""
    return message(Type.ECHO_REQUEST, data, xid)


def echo_reply(data: bytes, xid: int) -> bytes:
    """The answer to an echo request, with its data and xid."""
    return message(Type.ECHO_REPLY, data, xid)


def features_request(xid: int = 0) -> bytes:
    """Asks for the datapath id."""
    return message(Type.FEATURES_REQUEST, b"", xid)


def set_config(miss_send_len: int = 0xFFFF, flags: int = 0, xid: int = 0) -> bytes:
    """How much of a missed packet is punted; Open vSwitch sends nothing asynchronous while it is 0 by default."""
    return message(Type.SET_CONFIG, struct.pack("!HH", flags, miss_send_len), xid)


def get_config_request(xid: int = 0) -> bytes:
    """Asks for what ``set_config`` set."""
    return message(Type.GET_CONFIG_REQUEST, b"", xid)


def port_mod(number: int, mac: str, config: int, mask: int, xid: int = 0) -> bytes:
    """Sets the bits of ``mask`` in a port's configuration (§7.3.4.4). ``mac`` is its own, as the switch says it."""
    body = struct.pack("!I4x6s2xII", number, bytes.fromhex(mac.replace(":", "")), config, mask)
    return message(Type.PORT_MOD, body, xid)


def set_async(packet_in: int = 0x3F, port_status: int = 7, flow_removed: int = 0xF, *, xid: int = 0) -> bytes:
    """Which asynchronous messages come, as bit masks of reasons, for master and slave alike.

    Open vSwitch refuses masks with bits that it does not know.
    """
    pairs = ((0, 1), (2, 3), (4, 5))
    masks = (packet_in, port_status, flow_removed)
    body = b"".join(struct.pack("!HHI", prop, 8, m) for both, m in zip(pairs, masks, strict=True) for prop in both)
    return message(Type.SET_ASYNC, body, xid)


def set_packet_in_format(fmt: int = 2, xid: int = 0) -> bytes:
    """NXT_SET_PACKET_IN_FORMAT; 2 is NXT_PACKET_IN2, the only one that carries a controller action's userdata."""
    return message(Type.EXPERIMENTER, struct.pack("!III", 0x2320, 16, fmt), xid)


def set_controller_id(number: int, xid: int = 0) -> bytes:
    """NXT_SET_CONTROLLER_ID: controller actions with this id come to this connection."""
    return message(Type.EXPERIMENTER, struct.pack("!II6xH", 0x2320, 20, number), xid)


def resume(properties: bytes, xid: int = 0) -> bytes:
    """NXT_RESUME: continues a paused packet; ``properties`` are the packet-in's, as it was or changed."""
    return message(Type.EXPERIMENTER, struct.pack("!II", 0x2320, 28) + properties, xid)


def role_request(role: Role, generation_id: int = 0, xid: int = 0) -> bytes:
    """Claims a role; the switch refuses a generation older than the newest that it saw."""
    return message(Type.ROLE_REQUEST, struct.pack("!I4xQ", role, generation_id), xid)


def barrier_request(xid: int = 0) -> bytes:
    """Answered when everything before it is done."""
    return message(Type.BARRIER_REQUEST, b"", xid)


def flow_mod(
    table: int,
    command: int,
    cookie: int,
    cookie_mask: int,
    priority: int,
    match: bytes,
    instructions: bytes,
    *,
    idle_timeout: int = 0,
    hard_timeout: int = 0,
    flags: int = 0,
    importance: int = 0,
    xid: int = 0,
) -> bytes:
    """Add, change or delete flows. Timeouts are seconds; ``cookie_mask`` filters on every command but ADD."""
    size = 48 + len(match) + len(instructions)
    if size > MAX_MESSAGE - 16:
        raise PipelineError(f"a flow of {size} bytes does not fit into a bundle's message")
    head = _FLOW_MOD(
        6, 14, size, xid, cookie, cookie_mask, table, command, idle_timeout, hard_timeout, priority, NO_BUFFER, ANY,
        ANY, flags, importance,
    )  # fmt: skip
    return head + match + instructions


def delete_flow(table: int, cookie: int, cookie_mask: int = MASK64, xid: int = 0) -> bytes:
    """Delete what has this cookie in this table."""
    return flow_mod(table, Command.DELETE, cookie, cookie_mask, 0, EMPTY_MATCH, b"", xid=xid)


def multipart_request(kind: int, body: bytes = b"", xid: int = 0) -> bytes:
    """A multipart request in one part."""
    return _MULTIPART(VERSION, Type.MULTIPART_REQUEST, 16 + len(body), xid, kind, 0) + body


def flow_desc_request(table: int = ALL_TABLES, cookie: int = 0, cookie_mask: int = 0, xid: int = 0) -> bytes:
    """Asks for the flows of a table or of all, with this cookie under its mask."""
    head = _FLOW_DESC(6, 18, 56, xid, Multipart.FLOW_DESC, 0, table, ANY, ANY, cookie, cookie_mask)
    return head + EMPTY_MATCH


def aggregate_request(table: int = ALL_TABLES, cookie: int = 0, cookie_mask: int = 0, xid: int = 0) -> bytes:
    """Asks for the number of flows, packets and bytes under a cookie mask."""
    head = _FLOW_DESC(6, 18, 56, xid, Multipart.AGGREGATE, 0, table, ANY, ANY, cookie, cookie_mask)
    return head + EMPTY_MATCH


def port_desc_request(port: int = ANY, xid: int = 0) -> bytes:
    """Asks for one port or all."""
    return multipart_request(Multipart.PORT_DESC, struct.pack("!I4x", port), xid)


INITIAL, ADDS, REMOVES, MODIFIES, WITH_INSTRUCTIONS, NO_ABBREV, ONLY_OWN = 1, 2, 4, 8, 16, 32, 64


def flow_monitor_request(
    monitor_id: int = 1, flags: int = ADDS | REMOVES | MODIFIES, table: int = ALL_TABLES, xid: int = 0
) -> bytes:
    """Asks to be told of flow changes; own changes come as an abbreviation unless NO_ABBREV is set."""
    body = struct.pack("!IIIHBB", monitor_id, ANY, ANY, flags, table, 0) + EMPTY_MATCH
    return multipart_request(Multipart.FLOW_MONITOR, body, xid)


def packet_out(data: bytes, actions: bytes, in_port: int = 0xFFFFFFFD, match: bytes = b"", xid: int = 0) -> bytes:
    """Sends a packet through actions. ``match`` sets in_port, metadata and registers and replaces ``in_port``."""
    if not match:
        match = _IN_PORT(1, 12, 0x80000004, in_port)
    size = 16 + len(match) + len(actions) + len(data)
    if size > MAX_MESSAGE:
        raise PipelineError(f"a packet-out of {size} bytes is longer than OpenFlow's 65535")
    return _PACKET_OUT(6, 13, size, xid, NO_BUFFER, len(actions)) + match + actions + data


@dataclass(frozen=True, slots=True)
class Bucket:
    """A group's bucket: actions as bytes, and for select groups a weight."""

    bucket_id: int
    actions: bytes
    weight: int | None = None
    watch_port: int | None = None

    def encode(self) -> bytes:
        props = b"" if self.weight is None else struct.pack("!HHH2x", 0, 8, self.weight)
        if self.watch_port is not None:
            props += struct.pack("!HHI", 1, 8, self.watch_port)
        size = 8 + len(self.actions) + len(props)
        return struct.pack("!HHI", size, len(self.actions), self.bucket_id) + self.actions + props


class GroupCommand(IntEnum):
    """Group-mod commands (§7.3.4.3); ADD_OR_MODIFY is Open vSwitch's."""

    ADD = 0
    MODIFY = 1
    DELETE = 2
    INSERT_BUCKET = 3
    REMOVE_BUCKET = 5
    ADD_OR_MODIFY = 0x8000


class GroupType(IntEnum):
    """Group types (§5.10.1)."""

    ALL = 0
    SELECT = 1
    INDIRECT = 2
    FAST_FAILOVER = 3


ALL_GROUPS, ALL_BUCKETS = 0xFFFFFFFC, 0xFFFFFFFF
ALL_METERS, SLOWPATH_METER, CONTROLLER_METER = 0xFFFFFFFF, 0xFFFFFFFD, 0xFFFFFFFE


def group_mod(
    command: GroupCommand,
    group_id: int,
    kind: GroupType = GroupType.ALL,
    buckets: Sequence[Bucket] = (),
    *,
    selection: str = "",
    selection_param: int = 0,
    fields: bytes = b"",
    xid: int = 0,
) -> bytes:
    """Add, change or delete a group. ``selection`` is ``hash`` or ``dp_hash``; ``fields`` are OXM TLVs with masks."""
    body = b"".join([b.encode() for b in buckets])
    props = b""
    if selection:
        size = 40 + len(fields)
        name = selection.encode("ascii")
        props = struct.pack("!HHIII16sQ", 0xFFFF, size, 0x154D, 1, 0, name, selection_param) + fields
        props += bytes(-size % 8)
    head = struct.pack("!HBxIH2xI", command, kind, group_id, len(body), ALL_BUCKETS)
    return message(Type.GROUP_MOD, head + body + props, xid)


class MeterCommand(IntEnum):
    """Meter-mod commands (§7.3.4.5)."""

    ADD = 0
    MODIFY = 1
    DELETE = 2


def meter_mod(
    command: MeterCommand, meter_id: int, *, rate: int = 0, burst: int = 0, pktps: bool = False, xid: int = 0
) -> bytes:
    """A meter with one drop band: ``rate`` in kbit/s or with ``pktps`` packets/s, ``burst`` in kbit or packets."""
    flags = (2 if pktps else 1) | (4 if burst else 0) | 8
    body = struct.pack("!HHI", command, flags if command != MeterCommand.DELETE else 1, meter_id)
    if command != MeterCommand.DELETE:
        body += struct.pack("!HHII4x", 1, 16, rate, burst)
    return message(Type.METER_MOD, body, xid)


BUNDLE = 1
"""The id of every bundle: of a connection one is under way at a time."""
_BUNDLED = 1 << 31


def is_bundled(xid: int) -> bool:
    """Whether it is a transaction id that ``bundled`` gives; all others are below."""
    return bool(xid & _BUNDLED)


def bundled(inner: bytes, number: int) -> bytes:
    """A message as a bundle takes it, on whatever connection. ``number`` tells it from the others of the bundle; its
    lowest 31 bits count."""
    return bundle_add(BUNDLE, inner, _BUNDLED | number & _BUNDLED - 1)


def unbundled(data: bytes) -> bytes:
    """The message that ``bundled`` was given, with transaction id 0."""
    return stamp(data[16:], 0)


def bundle_control(bundle_id: int, kind: Bundle, flags: int = ATOMIC | ORDERED, xid: int = 0) -> bytes:
    """Opens, commits or discards a bundle."""
    return _BUNDLE(VERSION, Type.BUNDLE_CONTROL, 16, xid, bundle_id, kind, flags)


def bundle_add(bundle_id: int, inner: bytes, xid: int = 0, flags: int = ATOMIC | ORDERED) -> bytes:
    """Puts a message into a bundle; the inner message gets the same xid, by which an error is led back to it."""
    size = 16 + len(inner)
    if size > MAX_MESSAGE:
        raise PipelineError(f"a message of {len(inner)} bytes does not fit into a bundle")
    return _ADD(VERSION, 34, size, xid, bundle_id, flags, inner[:4], xid) + inner[8:]


def writes(messages: Sequence[bytes], limit: int = WRITE) -> Iterator[bytes]:
    """Messages as one stream, in pieces of ``limit`` bytes: one wake-up of the switch a write, not a message."""
    for first in range(0, len(messages), _JOINED):
        data = b"".join(messages[first : first + _JOINED])
        for at in range(0, len(data), limit):
            yield data[at : at + limit]
