"""Addresses of OVSDB servers, in the words of ovsdb(7): ``tcp:HOST:PORT``, ``ssl:HOST:PORT``, ``unix:PATH``."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Literal, cast

from controller.errors import InvalidInput, Problem


@dataclass(frozen=True, slots=True)
class Address:
    """One server. ``host`` is a name or an IP address without brackets; ``path`` belongs to ``unix``."""

    method: Literal["tcp", "ssl", "unix"]
    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.method == "unix":
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.method}:{host}:{self.port}"

    @property
    def is_numeric(self) -> bool:
        """Whether ``host`` needs no name server."""
        try:
            ipaddress.ip_address(self.host.partition("%")[0])
        except ValueError:
            return False
        return True


def parse_remotes(text: str) -> tuple[Address, ...]:
    """``tcp:a:6641,tcp:b:6641`` as addresses. Raises InvalidInput with every part that is wrong."""
    addresses: list[Address] = []
    problems: list[Problem] = []
    for part in text.split(","):
        try:
            addresses.append(parse_remote(part.strip()))
        except ValueError as error:
            problems.append(Problem(text, str(error), "write tcp:HOST:PORT, ssl:HOST:PORT or unix:PATH"))
    if problems:
        raise InvalidInput(problems)
    return tuple(addresses)


def parse_remote(text: str) -> Address:
    """One address. Raises ValueError that says what is wrong."""
    if "," in text:
        raise ValueError(f"{text!r} holds a comma, which ends an address")
    method, _, rest = text.partition(":")
    if method == "unix":
        if not rest or "\0" in rest:
            raise ValueError(f"{text!r} names no socket")
        return Address("unix", path=rest)
    if method not in ("tcp", "ssl"):
        raise ValueError(f"{text!r} is no address of an OVSDB server")
    host, _, port = rest.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not host or not host.isprintable() or " " in host:
        raise ValueError(f"{text!r} names no host")
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError(f"{text!r} has no port between 1 and 65535")
    return Address(cast(Literal["tcp", "ssl"], method), host, int(port))
