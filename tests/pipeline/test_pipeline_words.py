"""Flows in plain sentences: those of the outside, whose actions are Open vSwitch's own."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from apps import APPS
from controller.openflow.actions import Controller, DecNwTtl
from controller.openflow.conntrack import Ct, Nat
from controller.pipeline.actions import load, match
from controller.pipeline.fields import NEXT_HOP
from controller.pipeline.pipeline import Pipeline
from controller.pipeline.words import Words

PIPELINE = Pipeline(APPS)
WORDS = Words(PIPELINE.names)
HOP = next(number for table, number in PIPELINE.number.items() if table.name == "next_hop")


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (Controller(meter_id=7), "sends all of them to the controller"),
        (Controller(max_len=128), "sends the first 128 bytes of them to the controller"),
        (DecNwTtl(), "counts down their TTL"),
        (Ct(zone=1), "looks up their connection"),
        (
            Ct(True, 1, HOP, (Nat("src", "203.0.113.11"),)),
            "has the connection tracker remember them, gives them the source 203.0.113.11, and hands them on to table "
            "next_hop",
        ),
        (Ct(actions=(Nat("dst", "10.0.0.5"),)), "looks up their connection, and gives them the destination 10.0.0.5"),
        (load(NEXT_HOP, int(IPv4Address("203.0.113.1"))), "sets next_hop to 203.0.113.1"),
    ],
)
def test_what_it_does(action: object, said: str) -> None:
    assert WORDS.doing([action], None) == said  # type: ignore[list-item]


def test_which_packets() -> None:
    assert WORDS.condition(match(source=5)) == "packets that came from the outside"
    assert WORDS.condition(match(next_hop=int(IPv4Address("203.0.113.1")))) == "packets of next_hop 203.0.113.1"
