"""Machines outside: how they are asked for, what their answers say, and what then happens to what waits."""

from __future__ import annotations

import asyncio
import socket
import struct
from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.errors import PacketError
from controller.openflow.decode import PacketIn
from controller.openflow.match import Match
from controller.pipeline.actions import load, match
from controller.pipeline.fields import RESOLVED
from controller.services import arp, nd
from controller.services.next_hops import SILENT_SECONDS, NextHops
from controller.views import ExternalView, Way

OWN, ROUTER = "02:f5:00:00:01:00", "02:00:00:00:0f:01"
OUTSIDE = ExternalView(
    "@phys1/0", 9, 64001, OWN, "203.0.113.11", "203.0.113.0/24", "203.0.113.1",
    ipv6=Way("2001:db8::11", "2001:db8::/64", "fe80::1"),
)  # fmt: skip
FORWARD, HOP = 40, 30


def packed(address: str) -> bytes:
    return IPv6Address(address).packed


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def says(target: str = "fe80::1", *, hops: int = 255, option: bytes = b"\x02\x01" + mac(ROUTER)) -> bytes:
    """An advertisement of the target, to the host."""
    body = struct.pack("!BBHI", 136, 0, 0, 0x60000000) + packed(target) + option
    head = struct.pack("!IHBB", 6 << 28, len(body), 58, hops) + packed("fe80::1") + packed("2001:db8::11")
    return mac(OWN) + mac(ROUTER) + b"\x86\xdd" + head + body


def test_an_answer_says_where_the_machine_is() -> None:
    assert nd.is_advertisement(says())
    assert nd.decode(says("2001:db8::7")) == arp.Told(ROUTER, "2001:db8::7")


@pytest.mark.parametrize(
    "frame",
    [says(hops=64), says(option=b""), says(option=b"\x01\x01" + mac(ROUTER)), says(option=b"\x02\x02" + mac(ROUTER)),
     says()[:-1], b""],
)  # fmt: skip
def test_what_came_through_a_router_or_says_nothing_is_no_answer(frame: bytes) -> None:
    with pytest.raises(PacketError):
        nd.decode(frame)


@given(st.binary(max_size=100), st.integers(0, 90))
def test_bytes_of_any_kind_are_an_answer_or_refused(noise: bytes, kept: int) -> None:
    nd.is_advertisement(says()[:kept] + noise)
    try:
        told = nd.decode(says()[:kept] + noise)
    except PacketError:
        return
    assert IPv6Address(told.address)


def test_a_question_is_for_the_targets_own_group() -> None:
    asked = nd.request(OWN, "2001:db8::11", "2001:db8::12:3456")
    assert asked[:14] == bytes.fromhex("3333ff123456") + mac(OWN) + b"\x86\xdd"
    assert (asked[20], asked[21], asked[54]) == (58, 255, 135)
    assert asked[22:54] == packed("2001:db8::11") + packed("ff02::1:ff12:3456")
    assert asked[62:] == packed("2001:db8::12:3456") + b"\x01\x01" + mac(OWN)


def punted(frame: bytes, **fields: int) -> PacketIn:
    registers: Match = match(**fields).canonical()
    oxms = b"".join(field.encode(value, mask) for field, value, mask in registers.terms)
    return PacketIn(31, 1, 0, len(frame), oxms, frame)


def guests(target: str) -> PacketIn:
    """A guest's packet, whose next hop is the target."""
    if ":" in target:
        return punted(mac(OWN) + mac(OWN) + b"\x86\xdd" + bytes(40), next_hop6=int(IPv6Address(target)))
    number = int.from_bytes(socket.inet_aton(target), "big")
    return punted(mac(OWN) + mac(OWN) + b"\x08\x00" + bytes(20), next_hop=number)


class Played:
    """A host with NextHops, and what was sent to its switch."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.hops = NextHops(self._hosts, {"kvm1": OUTSIDE}.get, FORWARD, HOP, self._send)
        self.looked_at_all = 0

    def _hosts(self) -> list[str]:
        self.looked_at_all += 1
        return ["kvm1"]

    def _send(self, host: str, message: bytes) -> bool:
        assert host == "kvm1"
        self.sent.append(message)
        return True


@pytest.mark.parametrize(
    ("target", "asked", "answer"),
    [
        ("2001:db8::7", nd.request(OWN, "2001:db8::11", "2001:db8::7"), says("2001:db8::7")),
        ("fe80::1", nd.request(OWN, "2001:db8::11", "fe80::1"), says()),
    ],
)
def test_what_waits_for_a_machine_goes_on_when_it_answers(target: str, asked: bytes, answer: bytes) -> None:
    async def play() -> None:
        played, waiting = Played(), guests(target)
        played.hops.unknown("kvm1", waiting)
        [question] = played.sent
        assert question.endswith(asked)
        played.hops.told("kvm1", punted(answer))
        [_, going] = played.sent
        assert not played.looked_at_all  # a packet costs the same however many hosts there are
        assert going.endswith(waiting.data)
        assert packed(target) in going  # it is told which next hop is meant,
        assert load("eth_dst", ROUTER).encode() in going  # and where that is: the switch may have no room to learn it
        assert load(RESOLVED, 1).encode() in going
        played.hops.told("kvm1", punted(answer))
        assert len(played.sent) == 2

    asyncio.run(play())


def test_a_router_of_each_version_is_asked_and_missed() -> None:
    async def play() -> None:
        played, now = Played(), asyncio.get_running_loop().time()
        played.hops._tick(now - SILENT_SECONDS - 1)
        questions = {message[-len(each) :] for message in played.sent for each in (ARP, ND) if message.endswith(each)}
        assert questions == {ARP, ND}
        assert "203.0.113.1 has not answered ARP" in played.hops.silent("kvm1")
        body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2) + mac(ROUTER) + socket.inet_aton("203.0.113.1")
        played.hops.told("kvm1", punted(mac(OWN) + mac(ROUTER) + b"\x08\x06" + body + bytes(10)))
        assert "fe80::1 has not answered ND" in played.hops.silent("kvm1")
        played.hops.told("kvm1", punted(says()))
        assert played.hops.silent("kvm1") == ""

    asyncio.run(play())


ARP = arp.request(OWN, "203.0.113.11", "203.0.113.1")
ND = nd.request(OWN, "2001:db8::11", "fe80::1")
