"""LLDP frames (IEEE 802.1AB-2016, clause 8): what a neighbour says of itself, and what we say of ours.

Whoever is on the wire may send anything: every length is checked before it is believed, and what is a text is made fit
to be shown. Nothing in a frame proves who sent it.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from controller.errors import LldpError

ETHERTYPE = 0x88CC
NEAREST_BRIDGE = bytes.fromhex("0180c200000e")  # table 7-1
MAX_ID = 255  # bytes of a chassis or port id (8.5.2.3, 8.5.3.3)

_END, _CHASSIS, _PORT, _TTL, _PORT_TEXT, _NAME, _TEXT, _CAPABILITIES, _ORGANISATION = 0, 1, 2, 3, 4, 5, 6, 7, 127
_PORT_VLAN = b"\x00\x80\xc2\x01"  # IEEE 802.1Q-2018, annex D.2.1
_BRIDGE = 1 << 2  # of the system capabilities (8.5.8.1)
_LOCAL = 7  # subtype of a chassis or port id that is a text of the sender's own
_NAMED_PORT = 5  # subtype of a port id: the interface's name
_TEXTS = {_CHASSIS: {1, 2, 3, 6, 7}, _PORT: {1, 2, 5, 7}}  # subtypes whose ids are texts (tables 8-2 and 8-3)
_MACS = {_CHASSIS: 4, _PORT: 3}
_ADDRESSES = {_CHASSIS: 5, _PORT: 4}
_FAMILIES = {(1, 4), (2, 16)}  # ianaAddressFamilyNumbers, with the bytes of an address


@dataclass(frozen=True, slots=True)
class Announcement:
    """What a frame says. ``ttl``: seconds for which it holds; 0 takes back what was said before. ``vlan``: the one in
    which the sender has untagged frames of the port."""

    chassis: str
    port: str
    ttl: int
    port_description: str = ""
    system_name: str = ""
    system_description: str = ""
    vlan: int | None = None


def decode(frame: bytes, total: int) -> Announcement:
    """An Ethernet frame of which at least the beginning is here; ``total`` is how long it was.

    What is behind the end of what is here was not said. Raises LldpError.
    """
    if len(frame) < 14 or frame[12:14] != ETHERTYPE.to_bytes(2, "big"):
        raise LldpError("is no LLDP frame")
    found: dict[int, bytes] = {}
    vlan = None
    for number, (kind, value) in enumerate(_elements(frame[14:], cut=total > len(frame))):
        if number < 3 and kind != number + 1:
            raise LldpError(f"element {number + 1} is of type {kind}, where {number + 1} has to be")
        if kind == _ORGANISATION and value[:4] == _PORT_VLAN and len(value) == 6:
            vlan = int.from_bytes(value[4:], "big")
        else:
            found.setdefault(kind, value)
    if _TTL not in found or len(found[_TTL]) < 2:
        raise LldpError("does not say who sent it, and for how long that holds")
    return Announcement(
        _identity(_CHASSIS, found[_CHASSIS]),
        _identity(_PORT, found[_PORT]),
        int.from_bytes(found[_TTL][:2], "big"),
        _shown(found.get(_PORT_TEXT, b"")),
        _shown(found.get(_NAME, b"")),
        _shown(found.get(_TEXT, b"")),
        vlan if vlan is not None and 0 < vlan < 4095 else None,
    )


def encode(source: bytes, said: Announcement) -> bytes:
    """The frame of a bridge that says this, from a MAC of 6 bytes. Its port's id is an interface's name.

    Raises LldpError when a text is longer than there is room for.
    """
    payload = b"".join((
        _element(_CHASSIS, bytes([_LOCAL]) + said.chassis.encode()),
        _element(_PORT, bytes([_NAMED_PORT]) + said.port.encode()),
        _element(_TTL, said.ttl.to_bytes(2, "big")),
        _element(_PORT_TEXT, said.port_description.encode()),
        _element(_NAME, said.system_name.encode()),
        _element(_TEXT, said.system_description.encode()),
        _element(_CAPABILITIES, struct.pack("!HH", _BRIDGE, _BRIDGE)),
        _element(_END, b""),
    ))  # fmt: skip
    return (NEAREST_BRIDGE + source + struct.pack("!H", ETHERTYPE) + payload).ljust(60, b"\0")


def _elements(payload: bytes, *, cut: bool) -> Iterator[tuple[int, bytes]]:
    """Type and value of each element until the last (8.4); one that is ``cut`` off is left out."""
    at = 0
    while at + 2 <= len(payload):
        head = int.from_bytes(payload[at : at + 2], "big")
        kind, end = head >> 9, at + 2 + (head & 0x1FF)
        if kind == _END:
            return
        if end > len(payload):
            if cut:
                return
            raise LldpError(f"an element of {head & 0x1FF} bytes runs out of the frame")
        yield kind, payload[at + 2 : end]
        at = end
    if not cut and at < len(payload):
        raise LldpError("ends within an element")


def _element(kind: int, value: bytes) -> bytes:
    if len(value) > MAX_ID + (kind in {_CHASSIS, _PORT}):
        raise LldpError(f"{len(value)} bytes do not fit into an element of type {kind}")
    return struct.pack("!H", kind << 9 | len(value)) + value


def _identity(kind: int, value: bytes) -> str:
    """A chassis or port id in words; what its subtype does not explain is hexadecimal."""
    if not 2 <= len(value) <= MAX_ID + 1:
        raise LldpError(f"{'chassis' if kind == _CHASSIS else 'port'} id of {len(value)} bytes")
    subtype, rest = value[0], value[1:]
    if subtype == _MACS[kind] and len(rest) == 6:
        return rest.hex(":")
    if subtype == _ADDRESSES[kind] and (rest[0], len(rest) - 1) in _FAMILIES:
        return str(ipaddress.ip_address(rest[1:]))
    if subtype in _TEXTS[kind]:
        text = _shown(rest)
        if "\N{REPLACEMENT CHARACTER}" not in text and text.strip():
            return text
    return rest.hex()


def _shown(value: bytes) -> str:
    """A text that can be shown, of as many characters as the standard allows; C strings are tolerated."""
    text = value.rstrip(b"\0").decode("utf-8", "replace")[:MAX_ID]
    text = " ".join(text.split())  # descriptions have several lines
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
