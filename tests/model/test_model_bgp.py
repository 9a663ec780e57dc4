"""BGP peers: what one refuses by itself, and what does not hold between two."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from controller.model.bgp import BgpPeerSpec
from controller.model.kinds import Fleet


def peer(**fields: Any) -> BgpPeerSpec:
    return BgpPeerSpec.model_validate({"address": "203.0.113.1", "remote_as": 64512, "local_as": 64513, **fields})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"address": "tor1"}, "'tor1' is no IP address"),
        ({"address": "fd00::1"}, "fd00::1 is no IPv4 address"),
        ({"remote_as": 0}, "0 is nobody's AS number; private ones are 64512 to 65534"),
        ({"local_as": 23456}, "23456 is nobody's AS number"),
        ({"local_as": 2**32}, "4294967296 is nobody's AS number"),
        ({"remote_as": "64512"}, "valid integer"),
        ({"hold_time": 2}, "greater than or equal to 3"),
        ({"restart_time": 4096}, "less than or equal to 4095"),
        ({"port": 0}, "greater than or equal to 1"),
        ({"password_file": "secret"}, "'secret' is no absolute path; write /etc/"),
        ({"password": "secret"}, "Extra inputs are not permitted"),
    ],
)
def test_what_it_refuses(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        peer(**fields)
    assert said in str(caught.value)


def test_what_is_left_out() -> None:
    found = peer()
    assert (found.port, found.hold_time, found.restart_time, found.uplink) == (179, 90, 120, None)


def test_a_router_is_one_peer() -> None:
    fleet = Fleet(bgp_peers={"a": peer(), "b": peer(port=1179), "c": peer()})
    assert [str(problem) for problem in fleet.problems()] == [
        "BgpPeer c: address: 203.0.113.1 is BgpPeer a's already (keep one of the two: a router has one connection to a "
        "speaker)"
    ]
