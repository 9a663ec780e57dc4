"""What DNS at a network's gateway answers besides the names of guests, and whom it asks about the rest."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from controller.model.fields import Address, Spec

_HOST_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")  # RFC 1123, 2.1
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")  # with the underscores of RFC 8552
_LONGEST_TEXT = 1000  # bytes: with what is around it, it fits into a datagram
_LONGEST = 253  # letters of a name as text (RFC 1035, 3.1: 255 octets as it travels)


def is_host_name(text: str) -> bool:
    """Whether it is the name of a machine, in lower case: labels of RFC 1123 with dots between them."""
    return len(text) <= _LONGEST and all(_HOST_LABEL.fullmatch(label) for label in text.split("."))


def _host_name(value: str) -> str:
    text = value.lower().removesuffix(".")
    if not is_host_name(text):
        raise ValueError(f"{value!r} is no name of a machine; use letters, digits and '-', with dots between labels")
    return text


def _name(value: str) -> str:
    text = value.lower().removesuffix(".")
    if len(text) > _LONGEST or not all(_LABEL.fullmatch(label) for label in text.split(".")):
        raise ValueError(f"{value!r} is no DNS name; use letters, digits, '-' and '_', with dots between labels")
    return text


def _text(value: str) -> str:
    size = len(value.encode())
    if not value.isprintable() or size > _LONGEST_TEXT:
        raise ValueError(
            f"{value[:40]!r} has {size} bytes; a TXT record is 1 to {_LONGEST_TEXT} bytes of printable text"
        )
    return value


def _server(value: str) -> str:
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        raise ValueError(f"{value!r} is no IP address; write that of a name server, such as 10.0.0.53") from None
    if address.is_multicast or address.is_unspecified or getattr(address, "scope_id", None) is not None:
        raise ValueError(f"{value!r} is not the address of one name server; write one such as 10.0.0.53")
    return str(address)


HostName = Annotated[str, AfterValidator(_host_name)]
DnsName = Annotated[str, AfterValidator(_name)]
_Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9-]{0,60}[A-Za-z0-9])?$")]
_Number = Annotated[int, Field(strict=True, ge=0, le=65535)]


class DnsHost(Spec):
    """Names of an address, also of one that is no guest's (libvirt's ``<host ip><hostname>``)."""

    ip: Address
    names: tuple[HostName, ...] = Field(
        min_length=1, max_length=64, description="the first is what the address is called"
    )


class DnsTxt(Spec):
    """A TXT record."""

    name: DnsName
    value: Annotated[str, AfterValidator(_text)] = Field(min_length=1)


class DnsSrv(Spec):
    """Where a service is (RFC 2782)."""

    service: _Word = Field(description="without its underscore, such as ldap")
    protocol: _Word = Field(description="without its underscore, such as tcp")
    domain: DnsName | None = Field(default=None, description="the network's own when absent")
    target: HostName | None = Field(default=None, description="the machine; absent: there is no such service here")
    port: Annotated[int, Field(strict=True, ge=1, le=65535)] | None = Field(default=None, description="with target")
    priority: _Number = 0
    weight: _Number = 0

    @model_validator(mode="after")
    def _target_has_a_port(self) -> DnsSrv:
        if self.target is None and {"port", "priority", "weight"} & self.model_fields_set:
            raise ValueError("has port, priority or weight without target; name the machine that has the service")
        if self.target is not None and self.port is None:
            raise ValueError(f"has the target {self.target} without port; say at which port the service is")
        return self


class Forwarder(Spec):
    """A name server that is asked; with ``domain``, about that domain only."""

    addr: Annotated[str, AfterValidator(_server)] | None = Field(
        default=None, description="of the name server; absent, with domain: those of the controller's machine"
    )
    domain: DnsName | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Forwarder:
        if self.addr is None and self.domain is None:
            raise ValueError("has neither addr nor domain; write the name server's addr")
        return self


class Dns(Spec):
    """DNS at the gateway, on every host."""

    enable: bool = Field(default=True, description="whether the gateway answers, and guests are told so by DHCP")
    domain: HostName | None = Field(default=None, description="the guests' DNS domain; that of dhcp when absent")
    local_only: bool = Field(default=False, description="nobody else is asked about names of the domain")
    forward_plain_names: bool = Field(default=True, description="others are asked about names without a dot, too")
    hosts: tuple[DnsHost, ...] = Field(default=(), max_length=1024, description="ip and its names")
    txt: tuple[DnsTxt, ...] = Field(default=(), max_length=256, description="TXT records: name, value")
    srv: tuple[DnsSrv, ...] = Field(default=(), max_length=256, description="where services are")
    forwarders: tuple[Forwarder, ...] | None = Field(
        default=None, max_length=16, description="who is asked about other names; absent: the name servers of the "
        "controller's machine, and of an isolated network nobody; an empty list: nobody"
    )  # fmt: skip

    @model_validator(mode="after")
    def _says_nothing_in_vain(self) -> Dns:
        told = {"hosts": self.hosts, "txt": self.txt, "srv": self.srv, "forwarders": self.forwarders}
        if not self.enable and (vain := next((name for name, value in told.items() if value), None)):
            raise ValueError(f"has {vain} and enable false; leave one of them out")
        return self
