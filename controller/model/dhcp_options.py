"""Options of DHCPv4 that an operator can have guests told, by dnsmasq's names or by number, and how they are written.

Sources: RFC 2132, 3397 (domain search), 4833 (time zones), 5859 (TFTP server addresses); the names are those that
``dnsmasq --help dhcp`` prints.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

LONGEST = 255  # bytes of an option (RFC 2132, 2)
_HEX = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2})*")
_SIZED, _SIZES = re.compile(r"(\d+)([bsi])"), {"b": "!B", "s": "!H", "i": "!I"}  # dnsmasq(8), --dhcp-option
_DOMAIN = re.compile(r"([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


def _addresses(values: Sequence[str]) -> bytes:
    return b"".join(ipaddress.IPv4Address(value).packed for value in values)


def _text(values: Sequence[str]) -> bytes:
    """Commas are dnsmasq's separators and may stand in a text as well."""
    text = ",".join(values)
    if not text.isascii() or not text.isprintable():
        raise ValueError("use printable ASCII characters")
    return text.encode("ascii")


def _names(values: Sequence[str]) -> bytes:
    """RFC 1035, 3.1, without compression."""
    found = b""
    for value in values:
        if not _DOMAIN.fullmatch(value) or len(value) > 253:
            raise ValueError(f"{value!r} is no domain; write example.org")
        found += b"".join(bytes([len(label)]) + label.encode() for label in value.split(".")) + b"\0"
    return found


def _number(form: str) -> Callable[[Sequence[str]], bytes]:
    def written(values: Sequence[str]) -> bytes:
        (value,) = values
        try:
            return struct.pack(form, int(value))
        except struct.error:
            raise ValueError(f"does not fit into {struct.calcsize(form)} bytes") from None

    return written


def _guessed(values: Sequence[str]) -> bytes:
    """Of an option that has no name here: bytes in hex, addresses, or a text."""
    if len(values) == 1:
        if ":" in values[0] and _HEX.fullmatch(values[0]):
            return bytes.fromhex(values[0].replace(":", ""))
        if values[0].isdecimal():
            raise ValueError(f"may be of 1, 2 or 4 bytes; write {values[0]}b, {values[0]}s or {values[0]}i")
        if match := _SIZED.fullmatch(values[0]):
            return _number(_SIZES[match[2]])([match[1]])
    try:
        return _addresses(values)
    except ValueError:
        return _text(values)


@dataclass(frozen=True, slots=True)
class _Kind:
    code: int
    written: Callable[[Sequence[str]], bytes]
    example: str


def _table() -> Mapping[str, _Kind]:
    addresses = {
        "time-server": 4, "log-server": 7, "lpr-server": 9, "nis-server": 41, "ntp-server": 42, "netbios-ns": 44,
        "netbios-dd": 45, "x-windows-fs": 48, "x-windows-dm": 49, "nis+-server": 65, "smtp-server": 69,
        "pop3-server": 70, "nntp-server": 71, "irc-server": 74, "tftp-server-address": 150,
    }  # fmt: skip
    texts = {
        "root-path": 17, "extension-path": 18, "nis-domain": 40, "netbios-scope": 47, "vendor-class": 60,
        "nis+-domain": 64, "tftp-server": 66, "bootfile-name": 67, "posix-timezone": 100, "tzdb-timezone": 101,
    }  # fmt: skip
    numbers = {
        "time-offset": (2, "!i"), "boot-file-size": (13, "!H"), "ip-forward-enable": (19, "!B"),
        "non-local-source-routing": (20, "!B"), "max-datagram-reassembly": (22, "!H"), "default-ttl": (23, "!B"),
        "router-discovery": (31, "!B"), "arp-timeout": (35, "!I"), "tcp-ttl": (37, "!B"), "tcp-keepalive": (38, "!I"),
        "netbios-nodetype": (46, "!B"),
    }  # fmt: skip
    found = {name: _Kind(code, _addresses, "10.10.10.3") for name, code in addresses.items()}
    found |= {name: _Kind(code, _text, "a text") for name, code in texts.items()}
    found |= {name: _Kind(code, _number(form), "a number") for name, (code, form) in numbers.items()}
    found["domain-search"] = _Kind(119, _names, "example.org")
    return found


OPTIONS: Mapping[str, _Kind] = _table()
_NAMES = {kind.code: name for name, kind in OPTIONS.items()}

OURS: Mapping[int, tuple[str, str]] = {
    1: ("netmask", "the subnet says it"),
    3: ("router", "write dhcp.router"),
    6: ("dns-server", "write dhcp.dns"),
    12: ("hostname", "write the name of a reservation in dhcp.hosts"),
    15: ("domain-name", "write dhcp.domain"),
    26: ("mtu", "write the Network's mtu"),
    28: ("broadcast", "the subnet says it"),
    33: ("static-route", "write dhcp.routes"),
    51: ("lease-time", "write dhcp.lease"),
    58: ("t1", "half of dhcp.lease is told"),
    59: ("t2", "seven eighths of dhcp.lease are told"),
    81: ("fqdn", "names are those that clients say"),
    121: ("classless-static-route", "write dhcp.routes"),
    249: ("classless-static-route", "write dhcp.routes"),
}
"""What has a field of its own, or follows from others: name, and what to do instead."""
_PROTOCOL = frozenset({0, 50, 52, 53, 54, 55, 56, 57, 61, 82, 90, 118, 255})  # RFC 2131, 3046, 3118, 3011


def option_name(text: str) -> str:
    """The one name of an option: dnsmasq's where that has one, else its number. Raises ValueError."""
    word = text.strip().lower()
    own = {name: code for code, (name, _) in OURS.items()}
    code = own.get(word, OPTIONS[word].code if word in OPTIONS else int(word) if word.isdecimal() else -1)
    if code in OURS:
        called, remedy = OURS[code]
        raise ValueError(f"option {code} ({called}) is not set so; {remedy}")
    if code in _PROTOCOL:
        raise ValueError(f"option {text} is DHCP's own; leave it out")
    if not 0 < code < 255:
        raise ValueError(f"{text!r} is no option of DHCPv4; write a number, or a name of dnsmasq's such as ntp-server")
    return _NAMES.get(code, str(code))


def encoded(name: str, values: Sequence[str]) -> tuple[int, bytes]:
    """Number and value of an option by what ``option_name`` gives. Raises ValueError for values that it cannot have."""
    kind = OPTIONS.get(name) or _Kind(int(name), _guessed, "bytes in hex, such as 01:0a")
    try:
        value = kind.written(values) if values else b""
    except ValueError as error:
        remedy = "" if "; " in str(error) else f"; write {kind.example}"
        raise ValueError(f"option {name} is {', '.join(values)}: {error}{remedy}") from None
    if not value or len(value) > LONGEST:
        raise ValueError(f"option {name} has {len(value)} bytes; write 1 to {LONGEST}, such as {kind.example}")
    return kind.code, value


def canonical(name: str, values: Sequence[str]) -> list[str]:
    """The values of an option in their one form: a text is one, however many commas are in it."""
    kind = OPTIONS.get(name)
    written = kind.written if kind is not None else _guessed
    if written is _guessed and len(values) > 1:
        try:
            _addresses(values)
        except ValueError:
            written = _text
    return [",".join(values)] if written is _text else list(values)
