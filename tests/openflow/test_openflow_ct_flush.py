"""Connections that a switch is to forget: the message, and what a running Open vSwitch forgets by it."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

import pytest
from openflow_vswitch import Vswitch, wait_for
from test_openflow_real_switch import SECONDS, with_switch

from controller.openflow import messages as msg
from controller.openflow.actions import encode_actions
from controller.openflow.connection import Connection
from controller.openflow.conntrack import Ct, Nat
from controller.openflow.ct_flush import Remembered, Way, ct_flush

ZONE = 62965
HOST, FAR = "203.0.113.11", "198.51.100.7"


# As ``ovs-ofctl ct-flush`` of Open vSwitch 3.1 sends them, with xid 2.
@pytest.mark.parametrize(
    ("which", "sent"),
    [
        (
            Remembered(ZONE, Way(src="10.0.0.5")),
            "06040040000000020000232000000020000000000000000000000020000000000000001400000000000000000000ffff0a0000050000"
            "000000020008f5f50000",
        ),
        (
            Remembered(ZONE, Way(dst="203.0.113.9", dst_port=80), Way(src="10.0.0.5"), 6),
            "06040068000000020000232000000020060000000000000000000028000000000001001400000000000000000000ffffcb0071090000"
            "00000003000800500000000100200000000000000014000000000000"
            "00000000ffff0a0000050000000000020008f5f50000",
        ),
        (
            Remembered(ZONE, Way(src="fd00::5")),
            "060400400000000200002320000000200000000000000000000000200000000000000014fd0000000000000000000000000000050000"
            "000000020008f5f50000",
        ),
    ],
)
def test_the_message_is_that_of_ovs_ofctl(which: Remembered, sent: str) -> None:
    assert msg.stamp(ct_flush(which), 2).hex() == sent


def datagram(source: str, port: int, target: str, to: int) -> bytes:
    udp = struct.pack("!HHHH", port, to, 8, 0)
    ends = IPv4Address(source).packed + IPv4Address(target).packed
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + ends
    total = sum(struct.unpack("!10H", head))
    checksum = 0xFFFF - (total + (total >> 16) & 0xFFFF)
    return bytes(12) + b"\x08\x00" + head[:10] + checksum.to_bytes(2, "big") + head[12:] + udp


def test_a_switch_forgets_what_was_named_and_nothing_else(vswitch: Vswitch) -> None:
    path = vswitch.bridge("forgets")
    out, into = Nat("src", HOST), Nat("dst", "10.0.0.5", port_min=80)
    begun = {
        "one": (datagram("10.0.0.5", 4000, FAR, 53), out),
        "two": (datagram("10.0.0.6", 4000, FAR, 53), out),
        "in": (datagram(FAR, 4001, HOST, 8080), into),
    }

    def known() -> set[str]:
        lines = vswitch.appctl("dpctl/dump-conntrack", "dummy@ovs-dummy", f"zone={ZONE}").splitlines()
        names = {"orig=(src=10.0.0.5,": "one", "orig=(src=10.0.0.6,": "two", f"orig=(src={FAR},": "in"}
        return {name for line in lines for part, name in names.items() if part in line}

    async def work(connection: Connection) -> None:
        for frame, nat in begun.values():
            connection.send(msg.packet_out(frame, encode_actions([Ct(True, ZONE, actions=(nat,))])))
        await connection.request(msg.barrier_request(), SECONDS)

    with_switch(path, work)
    wait_for(lambda: known() == set(begun), "the connections")
    for which, left in (
        (Remembered(ZONE + 1, Way(src="10.0.0.6")), {"one", "two", "in"}),
        (Remembered(ZONE, Way(src="10.0.0.6")), {"one", "in"}),
        (Remembered(ZONE, Way(dst=HOST, dst_port=8081), Way(src="10.0.0.5"), 17), {"one", "in"}),
        (Remembered(ZONE, Way(dst=HOST, dst_port=8080), Way(src="10.0.0.5"), 17), {"one"}),
        (Remembered(ZONE, reply=Way(dst="203.0.113.12")), {"one"}),
        (Remembered(ZONE, reply=Way(dst=HOST)), set()),
    ):

        async def forget(connection: Connection, which: Remembered = which) -> None:
            connection.send(ct_flush(which))
            await connection.request(msg.barrier_request(), SECONDS)

        with_switch(path, forget)
        assert known() == left, which
