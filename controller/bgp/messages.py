"""BGP-4 messages (RFC 4271): those that we send as bytes, and what a router says, with every length checked.

Routes that a router sends are of no use here: they are counted, not kept.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, ip_address

from controller.errors import BgpError

HEADER_BYTES = 19
MOST_BYTES = 4096  # of a message, its header included (RFC 4271, 4.1)
_FRAME_BYTES = 96  # at most: what is around the prefixes of an UPDATE

_MARKER = b"\xff" * 16
_HEAD = struct.Struct("!16sHB")
_OPEN = struct.Struct("!BHH4sB")
_VERSION = 4
_AS_TRANS = 23456  # what stands for an AS number that has no two octets (RFC 6793, 9)
_IPV4, _IPV6, _UNICAST = 1, 2, 1
_PARAMETER_CAPABILITIES, _EXTENDED = 2, 255  # RFC 5492, 9072
_MULTIPROTOCOL, _REFRESH, _GRACEFUL, _FOUR_OCTETS = 1, 2, 64, 65
_RESTARTED, _PRESERVED = 0x8000, 0x80  # RFC 4724, 3
_ORIGIN, _AS_PATH, _NEXT_HOP, _LOCAL_PREF, _REACH, _UNREACH = 1, 2, 3, 5, 14, 15
_LONG = 0x90  # optional, its length has two octets
_TRANSITIVE, _SEQUENCE, _IGP = 0x40, 2, 0
_DEFAULT_PREFERENCE = 100


class Kind(IntEnum):
    """Types of messages (RFC 4271, 4.1; RFC 2918)."""

    OPEN = 1
    UPDATE = 2
    NOTIFICATION = 3
    KEEPALIVE = 4
    ROUTE_REFRESH = 5


class Code(IntEnum):
    """Why a connection ends (RFC 4271, 4.5)."""

    HEADER = 1
    OPEN = 2
    UPDATE = 3
    HOLD_TIMER = 4
    STATE = 5
    CEASE = 6


_LEAST = {Kind.OPEN: 29, Kind.UPDATE: 23, Kind.NOTIFICATION: 21, Kind.KEEPALIVE: 19, Kind.ROUTE_REFRESH: 23}
_EXACT = frozenset({Kind.KEEPALIVE, Kind.ROUTE_REFRESH})

_SAID: Mapping[tuple[int, int], str] = {
    (Code.OPEN, 1): "it speaks another version of BGP",
    (Code.OPEN, 2): "local_as is not the AS that it expects",
    (Code.OPEN, 3): "it does not take our BGP identifier",
    (Code.OPEN, 4): "it does not know an optional parameter",
    (Code.OPEN, 6): "hold_time is not acceptable to it",
    (Code.OPEN, 7): "it lacks a capability",
    (Code.HOLD_TIMER, 0): "it heard nothing from us for the hold time",
    (Code.CEASE, 1): "we announce more prefixes than it takes",
    (Code.CEASE, 2): "it was shut down by its administrator",
    (Code.CEASE, 3): "we are no neighbour of it any more",
    (Code.CEASE, 4): "it was reset by its administrator",
    (Code.CEASE, 5): "it rejects the connection: we are no neighbour that it is configured with",
    (Code.CEASE, 6): "its configuration changed",
    (Code.CEASE, 7): "it has another connection with us",
    (Code.CEASE, 8): "it is out of resources",
}
_WHERE: Mapping[int, str] = {
    Code.HEADER: "header", Code.OPEN: "OPEN", Code.UPDATE: "UPDATE", Code.STATE: "unexpected message",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Open:
    """What a router says of itself. ``hold_time`` is seconds; ``restart_time`` too, None where it takes no part in
    graceful restart."""

    asn: int
    hold_time: int
    identifier: str
    four_octets: bool = False
    ipv4: bool = True
    ipv6: bool = False
    restart_time: int | None = None


# What we say.


def open_message(asn: int, hold_time: int, identifier: str, restart_time: int, restarted: bool) -> bytes:
    """OPEN: IPv4 and IPv6 unicast, route refresh, AS numbers of four octets, graceful restart with what forwards kept.

    ``restarted`` says that we may have been another process before (RFC 4724, 3, Restart State).
    """
    graceful = struct.pack("!H", restart_time | (_RESTARTED if restarted else 0))
    graceful += b"".join(struct.pack("!HBB", family, _UNICAST, _PRESERVED) for family in (_IPV4, _IPV6))
    capabilities = b"".join(
        struct.pack("!BB", code, len(value)) + value
        for code, value in (
            (_MULTIPROTOCOL, struct.pack("!HBB", _IPV4, 0, _UNICAST)),
            (_MULTIPROTOCOL, struct.pack("!HBB", _IPV6, 0, _UNICAST)),
            (_REFRESH, b""),
            (_FOUR_OCTETS, struct.pack("!I", asn)),
            (_GRACEFUL, graceful),
        )
    )
    parameters = struct.pack("!BB", _PARAMETER_CAPABILITIES, len(capabilities)) + capabilities
    short = asn if asn < 2**16 else _AS_TRANS
    head = _OPEN.pack(_VERSION, short, hold_time, IPv4Address(identifier).packed, len(parameters))
    return _message(Kind.OPEN, head + parameters)


def keepalive() -> bytes:
    return _message(Kind.KEEPALIVE, b"")


def notification(code: int, subcode: int, data: bytes = b"") -> bytes:
    return _message(Kind.NOTIFICATION, bytes([code, subcode]) + data)


def end_of_rib(ipv6: bool) -> bytes:
    """All routes were sent (RFC 4724, 2), of IPv6 too: those from before that were not among them are no more."""
    return _message(Kind.UPDATE, bytes(4)) + (_message(Kind.UPDATE, _unreach(b"")) if ipv6 else b"")


def updates(announced: Mapping[str, str], withdrawn: Iterable[str], local_as: int, internal: bool) -> Iterator[bytes]:
    """UPDATEs that announce these prefixes, each with its next hop, and then withdraw those.

    ``internal`` is for a router of the same AS (RFC 4271, 5.1.2, 5.1.5).
    """
    by_next_hop: dict[str, list[str]] = defaultdict(list)
    for prefix, next_hop in announced.items():
        by_next_hop[next_hop].append(prefix)
    for next_hop, prefixes in sorted(by_next_hop.items()):
        for part in _parts(prefixes):
            yield _message(Kind.UPDATE, _reach(part, next_hop, local_as, internal))
    gone = list(withdrawn)
    for part in _parts(prefix for prefix in gone if "." in prefix):
        yield _message(Kind.UPDATE, struct.pack("!H", len(part)) + part + bytes(2))
    for part in _parts(prefix for prefix in gone if "." not in prefix):
        yield _message(Kind.UPDATE, _unreach(part))


def _message(kind: Kind, body: bytes) -> bytes:
    return _HEAD.pack(_MARKER, HEADER_BYTES + len(body), kind) + body


def _reach(prefixes: bytes, next_hop: str, local_as: int, internal: bool) -> bytes:
    """Of IPv4 as RFC 4271 has it, of IPv6 as an attribute (RFC 4760, 3), whose next hop is a global address."""
    path = b"" if internal else struct.pack("!BBI", _SEQUENCE, 1, local_as)
    values = [(_ORIGIN, bytes([_IGP])), (_AS_PATH, path)]
    hop = ip_address(next_hop)
    if hop.version == 4:
        values.append((_NEXT_HOP, hop.packed))
    if internal:
        values.append((_LOCAL_PREF, struct.pack("!I", _DEFAULT_PREFERENCE)))
    attributes = b"".join(struct.pack("!BBB", _TRANSITIVE, kind, len(value)) + value for kind, value in values)
    if hop.version == 6:
        value = struct.pack("!HBB", _IPV6, _UNICAST, len(hop.packed)) + hop.packed + bytes(1) + prefixes
        attributes += struct.pack("!BBH", _LONG, _REACH, len(value)) + value
        prefixes = b""
    return bytes(2) + struct.pack("!H", len(attributes)) + attributes + prefixes


def _unreach(prefixes: bytes) -> bytes:
    """Prefixes of IPv6 that are no more (RFC 4760, 4)."""
    attribute = struct.pack("!BBHHB", _LONG, _UNREACH, len(prefixes) + 3, _IPV6, _UNICAST) + prefixes
    return bytes(2) + struct.pack("!H", len(attribute)) + attribute


def _parts(prefixes: Iterable[str]) -> Iterator[bytes]:
    """The prefixes as bytes, so many at once as fit."""
    part = b""
    for prefix in sorted(prefixes):
        address, _, length = prefix.partition("/")
        each = bytes([int(length)]) + ip_address(address).packed[: (int(length) + 7) // 8]
        if len(part) + len(each) > MOST_BYTES - _FRAME_BYTES:
            yield part
            part = b""
        part += each
    if part:
        yield part


# What a router says.


def read_header(data: bytes) -> tuple[Kind, int]:
    """Kind of the message, and how many bytes follow its header. Raises BgpError."""
    marker, size, number = _HEAD.unpack(data)
    _need(marker == _MARKER, "is out of step", Code.HEADER, 1)
    _need(number in Kind.__members__.values(), f"sends a message of type {number}", Code.HEADER, 3, bytes([number]))
    kind = Kind(number)
    fits = size == _LEAST[kind] if kind in _EXACT else _LEAST[kind] <= size <= MOST_BYTES
    _need(fits, f"sends {kind.name} of {size} bytes", Code.HEADER, 2, struct.pack("!H", size))
    return kind, size - HEADER_BYTES


def read_open(body: bytes) -> Open:
    """Raises BgpError."""
    version, short, hold_time, identifier, size = _OPEN.unpack_from(body)
    _need(version == _VERSION, f"speaks BGP version {version}", Code.OPEN, 1, struct.pack("!H", _VERSION))
    _need(any(identifier), "has no BGP identifier", Code.OPEN, 3)
    found = Open(short, hold_time, str(IPv4Address(identifier)))
    start, wide = _OPEN.size, False
    if size == _EXTENDED and len(body) >= start + 3 and body[start] == _EXTENDED:
        size, wide, start = int.from_bytes(body[start + 1 : start + 3], "big"), True, start + 3
    _need(start + size == len(body), "sends an OPEN whose length is wrong", Code.OPEN, 0)
    capabilities = [
        capability
        for kind, value in _elements(body[start:], wide)
        for capability in (_elements(value, False) if kind == _PARAMETER_CAPABILITIES else ())
    ]
    return _with_capabilities(found, capabilities)


def count_routes(body: bytes) -> int:
    """How many IPv4 prefixes an UPDATE announces. Raises BgpError where its lengths are wrong (RFC 4271, 6.3)."""
    withdrawn = int.from_bytes(body[:2], "big")
    _need(withdrawn + 4 <= len(body), "sends an UPDATE whose length is wrong", Code.UPDATE, 1)
    _prefixes(body[2 : 2 + withdrawn])
    attributes = int.from_bytes(body[2 + withdrawn : 4 + withdrawn], "big")
    _need(withdrawn + 4 + attributes <= len(body), "sends an UPDATE whose length is wrong", Code.UPDATE, 1)
    return _prefixes(body[4 + withdrawn + attributes :])


def said(body: bytes) -> str:
    """A NOTIFICATION in words."""
    code, subcode = body[0], body[1]
    about = f" with our {_WHERE[code]}" if code in _WHERE else ""
    return _SAID.get((code, subcode), f"it ends the connection: error {code}/{subcode}{about}")


def _with_capabilities(found: Open, capabilities: Iterable[tuple[int, bytes]]) -> Open:
    asn, families, restart_time = None, set(), None
    for code, value in capabilities:
        if code == _FOUR_OCTETS and len(value) == 4:
            asn = int.from_bytes(value, "big")
        elif code == _MULTIPROTOCOL and len(value) == 4:
            families.add((int.from_bytes(value[:2], "big"), value[3]))
        elif code == _GRACEFUL and len(value) >= 2:
            restart_time = int.from_bytes(value[:2], "big") & 0xFFF
    return Open(
        found.asn if asn is None else asn, found.hold_time, found.identifier, asn is not None,
        not families or (_IPV4, _UNICAST) in families, (_IPV6, _UNICAST) in families, restart_time,
    )  # fmt: skip


def _elements(data: bytes, wide: bool) -> Iterator[tuple[int, bytes]]:
    """Type and value of each; a length has two octets where these are ``wide``."""
    head = 3 if wide else 2
    start = 0
    while start < len(data):
        _need(len(data) - start >= head, "sends an OPEN with a parameter that is cut off", Code.OPEN, 0)
        end = start + head + int.from_bytes(data[start + 1 : start + head], "big")
        _need(end <= len(data), "sends an OPEN with a parameter that is cut off", Code.OPEN, 0)
        yield data[start], data[start + head : end]
        start = end


def _prefixes(data: bytes) -> int:
    """How many there are."""
    start = count = 0
    while start < len(data):
        length = data[start]
        start += 1 + (length + 7) // 8
        _need(length <= 32 and start <= len(data), "sends a prefix that is none", Code.UPDATE, 10)
        count += 1
    return count


def _need(condition: bool, what: str, code: Code, subcode: int, data: bytes = b"") -> None:
    if not condition:
        raise BgpError(what, notification(code, subcode, data))
