"""BgpPeer: a router outside that is told by BGP at which host's external address guests of routed networks are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import AfterValidator, Field

from controller.errors import Problem
from controller.model.fields import ObjectName, Spec
from controller.model.subnet import Ipv4

PORT = 179
_RESERVED = frozenset({0, 23456, 65535, 2**32 - 1})  # RFC 7607, 6793, 7300


def _as_number(value: int) -> int:
    if not 0 < value < 2**32 or value in _RESERVED:
        raise ValueError(f"{value} is nobody's AS number; private ones are 64512 to 65534 and 4200000000 to 4294967294")
    return value


def _absolute(value: str) -> str:
    if not value.startswith("/") or "\0" in value:
        raise ValueError(f"{value!r} is no absolute path; write /etc/fleetswitch/bgp-password")
    return value


AsNumber = Annotated[int, Field(strict=True), AfterValidator(_as_number)]


class BgpPeerSpec(Spec):
    """What the operator says of a router that speaks BGP with the controller."""

    address: Ipv4 = Field(description="the router's address, to which the controller connects")
    port: int = Field(default=PORT, ge=1, le=65535, description="the TCP port there")
    remote_as: AsNumber = Field(description="the router's AS")
    local_as: AsNumber = Field(description="the fleet's AS; the router's own for iBGP")
    hold_time: int = Field(
        default=90, ge=3, le=65535, description="seconds of silence after which it is given up; the smaller one counts"
    )
    restart_time: int = Field(
        default=120,
        ge=0,
        le=4095,
        description="seconds for which the router is asked to keep routes without a controller",
    )
    password_file: Annotated[str, AfterValidator(_absolute)] | None = Field(
        default=None, description="on the controller's machine: the file with the password (TCP MD5)"
    )
    uplink: ObjectName | None = Field(
        default=None, description="only hosts whose external address is on this physical network; all when absent"
    )


def problems(peers: Mapping[str, BgpPeerSpec]) -> Iterator[Problem]:
    """What does not hold between the peers."""
    seen: dict[tuple[str, int], str] = {}
    for name, peer in sorted(peers.items()):
        other = seen.setdefault((peer.address, peer.port), name)
        if other != name:
            yield Problem(f"BgpPeer {name}: address", f"{peer.address} is BgpPeer {other}'s already",
                          "keep one of the two: a router has one connection to a speaker")  # fmt: skip
