"""DHCP on the wire: clients' messages are understood, ours are what others understand, and nothing else harms."""

from __future__ import annotations

import struct
from contextlib import suppress
from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from os_ken.lib.packet import dhcp, ethernet, ipv4, packet, udp

from controller.errors import PacketError
from controller.services import datagrams
from controller.services import dhcp_message as message
from controller.services.datagrams import Datagram
from controller.services.dhcp_message import Kind, Option, Reply

MAC = "52:54:00:00:00:0a"


def asked(*options: tuple[int, bytes], kind: Kind = Kind.DISCOVER, **fields: object) -> bytes:
    """A client's message as another implementation writes it."""
    told = dhcp.options([dhcp.option(Option.KIND, bytes([kind])), *(dhcp.option(c, v) for c, v in options)])
    made = dhcp.dhcp(1, MAC, told, xid=7, **fields)
    return bytes(made.serialize())


def test_what_a_client_asks() -> None:
    read = message.decode(
        asked(
            (Option.REQUESTED, bytes([10, 0, 0, 9])), (Option.SERVER, bytes([10, 0, 0, 1])),
            (Option.HOST_NAME, b"Web-1.example\0"), (Option.ASKED_FOR, bytes([1, 3, 26])), (Option.CLIENT, b"\x01abc"),
            kind=Kind.REQUEST, flags=0x8000, ciaddr="10.0.0.8",
        )
    )  # fmt: skip
    assert (read.kind, read.xid, read.broadcast, read.ciaddr, read.chaddr) == (Kind.REQUEST, 7, True, "10.0.0.8", MAC)
    assert (read.requested, read.server, read.host_name) == ("10.0.0.9", "10.0.0.1", "web-1")
    assert (read.client_id, read.asked) == (b"\x01abc", frozenset({1, 3, 26}))


def test_options_that_go_on_in_the_file_and_server_name_fields() -> None:
    body = bytearray(asked((52, b"\x03")))
    body[108:112] = bytes([50, 4, 10, 0])  # the file field: an option that is continued in the other field
    with pytest.raises(PacketError, match="runs out"):
        message.decode(bytes(body[:108]) + bytes([50, 127]) + bytes(body[110:]))
    body[108:115] = bytes([50, 2, 10, 0, 255, 0, 0])
    body[44:49] = bytes([50, 2, 0, 9, 255])
    assert message.decode(bytes(body)).requested == "10.0.0.9"


@pytest.mark.parametrize("name", [b"", b"-a", b"a-", b"a b", b"a_b", b"\xff\xfe", b"x" * 64, b".web"])
def test_a_name_that_is_none_is_left_out(name: bytes) -> None:
    assert message.decode(asked((Option.HOST_NAME, name))).host_name == ""


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "0 bytes"),
        (asked()[:239], "239 bytes"),
        (b"\x02" + asked()[1:], "no DHCP request"),
        (asked()[:236] + b"\0\0\0\0" + asked()[240:], "no DHCP request"),
        (asked(kind=Kind.DISCOVER)[:240] + b"\xff", "no message type"),
        (asked()[:240] + bytes([53, 1, 99, 255]), "no message type"),
        (asked()[:240] + bytes([53, 2, 1, 1, 255]), "option 53 has 2 bytes"),
        (asked((Option.REQUESTED, b"\x0a\0\0"))[:], "option 50 has 3 bytes"),
        (asked()[:240] + bytes([53]), "option 53 runs out"),
        (asked()[:240] + bytes([53, 200, 1]), "option 53 runs out"),
    ],
)
def test_what_makes_no_sense_is_refused(body: bytes, said: str) -> None:
    with pytest.raises(PacketError, match=said):
        message.decode(body)


@given(st.binary(max_size=700))
def test_nothing_that_comes_does_more_than_to_be_refused(junk: bytes) -> None:
    for body in (junk, asked()[:240] + junk):
        with suppress(PacketError):
            message.decode(body)
    with suppress(PacketError):
        datagrams.decode(junk)


@given(st.data())
def test_a_right_message_that_is_damaged_does_no_more(data: st.DataObject) -> None:
    body = bytearray(asked((Option.REQUESTED, bytes([10, 0, 0, 9])), (Option.HOST_NAME, b"web")))
    for _ in range(data.draw(st.integers(1, 8))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with suppress(PacketError):
        message.decode(bytes(body[: data.draw(st.integers(0, len(body)))]))


def test_what_a_client_is_told_is_what_another_implementation_reads() -> None:
    request = message.decode(asked(flags=0x8000))
    lease = (Option.LEASE, message.seconds(3600))
    reply = Reply(Kind.OFFER, "10.0.0.9", [lease, (Option.DNS, message.addresses("10.0.0.1", "10.0.0.2"))])
    body = message.encode(request, reply)
    read, _, _ = dhcp.dhcp.parser(body)
    told = {option.tag: option.value for option in read.options.option_list}
    assert (read.op, read.xid, read.yiaddr, read.chaddr, read.flags) == (2, 7, "10.0.0.9", MAC, 0x8000)
    assert (told[53], told[51], told[6]) == (b"\x02", struct.pack("!I", 3600), bytes([10, 0, 0, 1, 10, 0, 0, 2]))
    assert len(body) >= 300  # what old clients expect at least


def test_routes_are_written_with_as_many_bytes_as_they_need() -> None:
    found = [(IPv4Network("10.0.0.0/8"), "10.0.0.1"), (IPv4Network("0.0.0.0/0"), "10.0.0.2")]
    assert message.routes(found) == bytes([8, 10, 10, 0, 0, 1, 0, 10, 0, 0, 2])


def test_a_datagram_there_and_back() -> None:
    said = Datagram("02:f5:00:00:00:01", MAC, "10.0.0.1", "10.0.0.9", 67, 68, b"hello")
    frame = datagrams.encode(said)
    read = packet.Packet(frame)
    assert read.get_protocol(udp.udp).dst_port == 68
    assert read.get_protocol(ipv4.ipv4).ttl == 64
    assert read.get_protocol(ethernet.ethernet).dst == MAC
    assert datagrams.decode(frame) == said
    assert datagrams.decode(frame + bytes(20)) == said  # an Ethernet frame may be padded


@pytest.mark.parametrize(
    ("at", "value", "said"),
    [
        (12, 0x86, "is not IPv4"),
        (14, 0x65, "IPv4 header"),
        (14, 0x44, "IPv4 header of 16"),
        (14, 0x4F, "IPv4 header of 60"),
        (17, 0x00, "packet of 0"),
        (16, 0x10, "are here"),
        (20, 0x20, "fragment"),
        (21, 0x01, "fragment"),
        (23, 6, "protocol 6"),
        (39, 2, "UDP datagram of 2"),
        (38, 9, "UDP datagram of"),
    ],
)
def test_lengths_are_checked_before_they_are_believed(at: int, value: int, said: str) -> None:
    frame = bytearray(datagrams.encode(Datagram(MAC, MAC, "10.0.0.1", "10.0.0.9", 67, 68, b"hello")))
    frame[at] = value
    with pytest.raises(PacketError, match=said):
        datagrams.decode(bytes(frame))
