"""Field types that several kinds share, each with a message that names the value and what would be right."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from controller.model.remotes import parse_remote

# A network's and a portgroup's name travel together as the profile id "NETWORK:PORTGROUP" through libvirt and
# ovs-vsctl, which carry 39 characters and break on blanks and quotes (measured against libvirt 9.0).
_PROFILE_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,17}")
_OBJECT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_INTERFACE = re.compile(r"[A-Za-z0-9_.:@-]{1,15}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_PORT_RANGE = re.compile(r"(\d{1,5})\s*-\s*(\d{1,5})")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class Spec(BaseModel):
    """Base of everything an operator writes: unknown fields are errors, values do not change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


def _profile_part(value: str) -> str:
    if not _PROFILE_PART.fullmatch(value):
        raise ValueError(
            f"{value!r} is no usable name; 1 to 18 letters, digits, '_', '.', '-', a letter or digit first"
        )
    return value


def _object_name(value: str) -> str:
    if not _OBJECT_NAME.fullmatch(value):
        raise ValueError(
            f"{value!r} is no usable name; 1 to 63 letters, digits, '_', '.', '-', a letter or digit first"
        )
    return value


def _interface(value: str) -> str:
    if not _INTERFACE.fullmatch(value) or value in {".", ".."}:
        raise ValueError(f"{value!r} is no interface name; Linux allows 1 to 15 characters without blanks or '/'")
    return value


def parse_mac(text: str) -> str:
    """Canonical form (lower case, colons) of a unicast MAC address.

    Raises ValueError for what is no MAC address, for a multicast one and for zero (IEEE 802-2014, 8.2).
    """
    value = text.lower().replace("-", ":")
    if not _MAC.fullmatch(value):
        raise ValueError(f"{text!r} is no MAC address; write six hex pairs such as 52:54:00:12:34:56")
    if int(value[:2], 16) & 1 or value == "00:00:00:00:00:00":
        raise ValueError(f"{text!r} is not the address of one machine; the first pair of a unicast address is even")
    return value


def _mac(value: object) -> str:
    if not isinstance(value, str):  # YAML 1.1 reads 52:54:00:12:34:56 without quotes as a base-60 number
        raise ValueError(f"{value!r} is no MAC address; put it in quotes")
    return parse_mac(value)


def _address(value: object) -> str:
    try:
        parsed = ipaddress.ip_address(str(value))
    except ValueError:
        raise ValueError(f"{value!r} is no IP address; write 10.0.0.5 or fd00::5, without a prefix length") from None
    if getattr(parsed, "scope_id", None) is not None:
        raise ValueError(f"{value!r} names an interface; write the address alone, without %")
    if parsed.is_multicast or parsed.is_unspecified or parsed.is_loopback:
        raise ValueError(f"{value!r} is not the address of one machine; a unicast address is needed")
    return str(parsed)


def _ovsdb_remote(value: str) -> str:
    try:
        remote = parse_remote(value)
        if remote.method != "unix":
            ipaddress.ip_address(remote.host)
        elif not remote.path.startswith("/"):
            raise ValueError
    except ValueError:
        raise ValueError(
            f"{value!r} is no OVSDB remote; write tcp:ADDRESS:6640, ssl:ADDRESS:6640 (an IP address) or "
            "unix:/path/db.sock, without commas"
        ) from None
    return value


def is_uuid(text: str) -> bool:
    """Whether it is written as a UUID: then it means a guest by that, and none that is called so."""
    return _UUID.fullmatch(text.lower()) is not None


def _uuid(value: str) -> str:
    if not is_uuid(value):
        raise ValueError(f"{value!r} is no UUID; write 8-4-4-4-12 hex digits, as uuidgen prints")
    return value.lower()


def _vlan(value: int) -> int:
    if not 1 <= value <= 4094:
        raise ValueError(f"{value} is no VLAN; IEEE 802.1Q allows 1 to 4094")
    return value


def _ports(value: object) -> int | str:
    """A port, or LOW-HIGH; a range of one port is that port."""
    found = _PORT_RANGE.fullmatch(value) if isinstance(value, str) else None
    number = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value
    if found is not None:
        low, high = int(found[1]), int(found[2])
    elif isinstance(number, int) and not isinstance(number, bool):
        low = high = number
    else:
        low = high = 0
    if not 1 <= low <= high <= 65535:
        raise ValueError(f"{value!r} is no port and no range of ports; write 8080, or 8000-8010")
    return low if low == high else f"{low}-{high}"


ObjectName = Annotated[str, AfterValidator(_object_name)]
ProfilePart = Annotated[str, AfterValidator(_profile_part)]
InterfaceName = Annotated[str, AfterValidator(_interface)]
Mac = Annotated[str, BeforeValidator(_mac)]
Address = Annotated[str, BeforeValidator(_address)]
OvsdbRemote = Annotated[str, AfterValidator(_ovsdb_remote)]
Uuid = Annotated[str, AfterValidator(_uuid)]
Vlan = Annotated[int, Field(strict=True), AfterValidator(_vlan)]
Ports = Annotated[int | str, BeforeValidator(_ports)]
"""One port, or a range as ``LOW-HIGH``."""


def span(ports: int | str) -> tuple[int, int]:
    """The first and the last of Ports."""
    low, _, high = str(ports).partition("-")
    return int(low), int(high or low)
