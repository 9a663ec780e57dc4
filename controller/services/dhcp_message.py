"""DHCPv4 messages (RFC 2131, 2132): what a client asks, and what it is told."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network

from os_ken.lib.packet import dhcp

from controller.errors import PacketError

CLIENT_PORT, SERVER_PORT = 68, 67
NOBODY = "0.0.0.0"  # noqa: S104

_HEAD = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s")
_COOKIE = b"\x63\x82\x53\x63"  # RFC 2131, 3
_PAD, _END, _OVERLOAD = 0, 255, 52
_ETHERNET, _REQUEST, _REPLY = 1, 1, 2
_BROADCAST = 0x8000
SHORTEST = 576  # bytes of an IP packet that every client takes (RFC 2131, 2)
_HEADERS = 28  # bytes of IPv4 and UDP
_PIECE = 255  # bytes of an option; what is longer stands in several of its code (RFC 3396, 5)
_SMALLEST = 300  # bytes that a BOOTP client must accept (RFC 1542, 2.1)


class Kind(IntEnum):
    """Message types (RFC 2132, 9.6)."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7
    INFORM = 8


class Option(IntEnum):
    """The options that are read or written (RFC 2132, 3442)."""

    SUBNET_MASK = 1
    ROUTER = 3
    DNS = 6
    HOST_NAME = 12
    DOMAIN_NAME = 15
    MTU = 26
    BROADCAST = 28
    REQUESTED = 50
    LEASE = 51
    KIND = 53
    SERVER = 54
    ASKED_FOR = 55
    MESSAGE = 56
    RENEWAL = 58
    REBINDING = 59
    CLIENT = 61
    LONGEST = 57
    TFTP_SERVER = 66
    BOOT_FILE = 67
    ROUTES = 121
    ROUTES_OF_MICROSOFT = 249


@dataclass(frozen=True, slots=True)
class Request:
    """What a client sent. Addresses are text, ``0.0.0.0`` or None where it names none; ``asked`` are the options that
    it wants to be told, ``longest`` is how many bytes of an IP packet it takes."""

    kind: Kind
    xid: int
    broadcast: bool
    ciaddr: str
    giaddr: str
    chaddr: str
    requested: str | None
    server: str | None
    client_id: bytes
    host_name: str
    asked: frozenset[int]
    longest: int = SHORTEST


@dataclass(frozen=True, slots=True)
class Reply:
    """What a client is told. ``options`` are code and value, what it needs most first; ``room`` is bytes of an IP
    packet. It boots from ``file`` of ``next_server``."""

    kind: Kind
    yiaddr: str = NOBODY
    options: Sequence[tuple[int, bytes]] = field(default_factory=tuple)
    room: int = SHORTEST
    next_server: str = NOBODY
    file: str = ""


def decode(payload: bytes) -> Request:
    """A client's message. Raises PacketError for what is none, or is cut short."""
    if len(payload) < _HEAD.size + 4:
        raise PacketError(f"{len(payload)} bytes are no DHCP message")
    op, htype, hlen, _, xid, _, flags, ciaddr, _, _, giaddr, chaddr, sname, file = _HEAD.unpack_from(payload)
    if op != _REQUEST or htype != _ETHERNET or hlen != 6 or payload[_HEAD.size : _HEAD.size + 4] != _COOKIE:
        raise PacketError("is no DHCP request of an Ethernet client")
    options: dict[int, bytes] = {}
    _read(payload[_HEAD.size + 4 :], options)
    overload = _one(options, _OVERLOAD, 1) or b"\0"
    if overload[0] & 1:  # RFC 2132, 9.3
        _read(file, options)
    if overload[0] & 2:
        _read(sname, options)
    kind = _one(options, Option.KIND, 1)
    if kind is None or kind[0] not in set(Kind):
        raise PacketError(f"has no message type of DHCP: {kind!r}")
    requested, server = (_one(options, code, 4) for code in (Option.REQUESTED, Option.SERVER))
    return Request(
        Kind(kind[0]), xid, bool(flags & _BROADCAST), _dotted(ciaddr), _dotted(giaddr), chaddr[:6].hex(":"),
        _dotted(requested) if requested else None, _dotted(server) if server else None,
        options.get(Option.CLIENT, b"")[:64], _name(options.get(Option.HOST_NAME, b"")),
        frozenset(options.get(Option.ASKED_FOR, b"")),
        max(SHORTEST, int.from_bytes(_one(options, Option.LONGEST, 2) or b"", "big")),
    )  # fmt: skip


def encode(request: Request, reply: Reply) -> bytes:
    """The message that answers a request; options that find no room are left out."""
    told = [(int(Option.KIND), bytes([reply.kind])), *reply.options]
    options = dhcp.options([dhcp.option(code, value) for code, value in _fitting(told, reply.room)])
    made = dhcp.dhcp(
        _REPLY, request.chaddr, options, xid=request.xid, flags=_BROADCAST if request.broadcast else 0,
        ciaddr=request.ciaddr if reply.kind is Kind.ACK else NOBODY, yiaddr=reply.yiaddr, giaddr=request.giaddr,
        siaddr=reply.next_server, boot_file=reply.file,
    )  # fmt: skip
    return bytes(made.serialize()).ljust(_SMALLEST, b"\0")


def _fitting(told: Sequence[tuple[int, bytes]], room: int) -> Iterator[tuple[int, bytes]]:
    left = room - _HEADERS - _HEAD.size - len(_COOKIE) - 1  # and the end
    for code, value in told:
        pieces = [value[at : at + _PIECE] for at in range(0, len(value), _PIECE)] or [value]
        if (size := 2 * len(pieces) + len(value)) <= left:
            left -= size
            yield from ((code, piece) for piece in pieces)


def addresses(*texts: str) -> bytes:
    """IPv4 addresses as an option holds them."""
    return b"".join(IPv4Address(text).packed for text in texts)


def seconds(count: int) -> bytes:
    """A time as an option holds it."""
    return struct.pack("!I", count)


def routes(found: Sequence[tuple[IPv4Network, str]]) -> bytes:
    """Classless static routes: destination and next hop (RFC 3442)."""
    parts = []
    for network, via in found:
        significant = (network.prefixlen + 7) // 8
        parts.append(bytes([network.prefixlen]) + network.network_address.packed[:significant] + addresses(via))
    return b"".join(parts)


def _read(data: bytes, options: dict[int, bytes]) -> None:
    """Add the options of one field. One that comes again goes on (RFC 3396)."""
    at = 0
    while at < len(data) and data[at] != _END:
        if data[at] == _PAD:
            at += 1
            continue
        if at + 2 > len(data) or at + 2 + data[at + 1] > len(data):
            raise PacketError(f"option {data[at]} runs out of its field")
        code, end = data[at], at + 2 + data[at + 1]
        options[code] = options.get(code, b"") + data[at + 2 : end]
        at = end


def _one(options: dict[int, bytes], code: int, size: int) -> bytes | None:
    """The value of an option of this size; None where it is not there."""
    value = options.get(code)
    if value is not None and len(value) != size:
        raise PacketError(f"option {code} has {len(value)} bytes instead of {size}")
    return value


def _name(value: bytes) -> str:
    """A host name that can be shown and resolved; empty where the client's cannot (RFC 1123, 2.1)."""
    text = value.rstrip(b"\0").decode("ascii", "replace").split(".")[0].lower()
    fits = 0 < len(text) <= 63 and all(each.isascii() and (each.isalnum() or each == "-") for each in text)
    return text if fits and not text.startswith("-") and not text.endswith("-") else ""


def _dotted(address: bytes) -> str:
    return ".".join(map(str, address))
