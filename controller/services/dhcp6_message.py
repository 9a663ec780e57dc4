"""DHCPv6 messages (RFC 8415): what a client asks, and what it is told."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv6Address

from controller.errors import PacketError

CLIENT_PORT, SERVER_PORT = 546, 547

_OPTION = struct.Struct("!HH")
_IA_NA = struct.Struct("!III")
_IA_ADDRESS = struct.Struct("!16sII")
_LONGEST_ID = 130  # RFC 8415, 11.1
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")  # RFC 1123, 2.1
_MOST = 16  # IA_NAs of a message, and addresses of one, that are looked at


class Kind(IntEnum):
    """Message types (RFC 8415, 7.3) that a client and a server exchange."""

    SOLICIT = 1
    ADVERTISE = 2
    REQUEST = 3
    CONFIRM = 4
    RENEW = 5
    REBIND = 6
    REPLY = 7
    RELEASE = 8
    DECLINE = 9
    INFORMATION_REQUEST = 11


class Option(IntEnum):
    """The options that are read or written (RFC 8415, 21; 3646; 4704)."""

    CLIENT_ID = 1
    SERVER_ID = 2
    IA_NA = 3
    IA_ADDRESS = 5
    PREFERENCE = 7
    STATUS = 13
    RAPID_COMMIT = 14
    DNS = 23
    DOMAIN_LIST = 24
    FQDN = 39


class Status(IntEnum):
    """RFC 8415, 21.13."""

    SUCCESS = 0
    NO_ADDRESS = 2
    NO_BINDING = 3
    NOT_ON_LINK = 4


_OF_CLIENTS = frozenset(Kind) - {Kind.ADVERTISE, Kind.REPLY}


@dataclass(frozen=True, slots=True)
class Association:
    """An IA_NA: the client's number for it, and the addresses that it names, as text."""

    iaid: int
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """What a client sent. ``client_id`` and ``server_id`` are DUIDs, empty where there is none; ``name`` is what it
    calls itself; ``rapid``: it takes an answer in two messages."""

    kind: Kind
    xid: bytes
    client_id: bytes
    server_id: bytes
    associations: tuple[Association, ...] = ()
    name: str = ""
    rapid: bool = False


def decode(payload: bytes) -> Request:
    """A client's message. Raises PacketError for what is none, or is cut short."""
    if len(payload) < 4 or payload[0] not in _OF_CLIENTS:
        raise PacketError(f"{len(payload)} bytes, beginning with {payload[:1].hex()}, are no DHCPv6 client's message")
    ids: dict[int, bytes] = {}
    associations: list[Association] = []
    name, rapid = "", False
    for code, value in _options(payload[4:]):
        if code in {Option.CLIENT_ID, Option.SERVER_ID}:
            if code in ids or not 3 <= len(value) <= _LONGEST_ID:
                raise PacketError(f"option {code} is there twice, or is no DUID: {len(value)} bytes")
            ids[code] = value
        elif code == Option.IA_NA and len(associations) < _MOST:
            associations.append(_association(value))
        elif code == Option.FQDN:
            name = _label(value[1:])
        elif code == Option.RAPID_COMMIT:
            rapid = True
    return Request(
        Kind(payload[0]), payload[1:4], ids.get(Option.CLIENT_ID, b""), ids.get(Option.SERVER_ID, b""),
        tuple(associations), name, rapid,
    )  # fmt: skip


def encode(kind: Kind, xid: bytes, options: Sequence[tuple[int, bytes]]) -> bytes:
    """A message of the server; ``options`` are code and value, in order."""
    return bytes([kind]) + xid + _written(options)


def association(iaid: int, seconds: int, given: Sequence[tuple[str, int]], status: Status | None = None) -> bytes:
    """An IA_NA: addresses, each with the seconds that it lasts, of which the client renews the first after half of
    ``seconds`` (RFC 8415, 21.4)."""
    options = [(Option.IA_ADDRESS, _IA_ADDRESS.pack(IPv6Address(a).packed, lasts, lasts)) for a, lasts in given]
    body = _IA_NA.pack(iaid, seconds // 2, seconds * 4 // 5) + _written(options)
    return body if status is None else body + _written([(Option.STATUS, status_code(status))])


def status_code(status: Status) -> bytes:
    """A status, without words."""
    return status.to_bytes(2, "big")


def addresses(servers: Sequence[str]) -> bytes:
    """IPv6 addresses as an option holds them."""
    return b"".join(IPv6Address(server).packed for server in servers)


def domain(name: str) -> bytes:
    """A domain name as a list of one (RFC 3646, 4; RFC 1035, 3.1)."""
    return b"".join(bytes([len(label)]) + label.encode("ascii") for label in name.split(".")) + b"\0"


def _options(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        if at + _OPTION.size > len(data):
            raise PacketError(f"{len(data) - at} bytes are no option")
        code, size = _OPTION.unpack_from(data, at)
        at += _OPTION.size
        if at + size > len(data):
            raise PacketError(f"option {code} of {size} bytes runs out of its field")
        yield code, data[at : at + size]
        at += size


def _association(value: bytes) -> Association:
    if len(value) < _IA_NA.size:
        raise PacketError(f"an IA_NA of {len(value)} bytes")
    found: list[str] = []
    for code, inner in _options(value[_IA_NA.size :]):
        if code == Option.IA_ADDRESS and len(found) < _MOST:
            if len(inner) < _IA_ADDRESS.size:
                raise PacketError(f"an address in {len(inner)} bytes")
            found.append(str(IPv6Address(inner[:16])))
    return Association(_IA_NA.unpack_from(value)[0], tuple(found))


def _label(value: bytes) -> str:
    """The first label of a name in DNS's form, where it is a host's name (RFC 4704, 4.2); else empty."""
    size = value[0] if value else 0
    text = value[1 : 1 + size].decode("ascii", "replace").lower()
    return text if len(text) == size and _LABEL.fullmatch(text) else ""


def _written(options: Sequence[tuple[int, bytes]]) -> bytes:
    return b"".join(_OPTION.pack(code, len(value)) + value for code, value in options)
