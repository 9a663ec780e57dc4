"""DHCPv6 on the wire: clients' messages are understood, ours are what others understand, and nothing else harms."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from os_ken.lib.packet import ethernet, ipv6, packet, packet_utils, udp

from controller.errors import PacketError
from controller.services import datagrams6
from controller.services import dhcp6_message as message
from controller.services.datagrams6 import Datagram6
from controller.services.dhcp6_message import Association, Kind, Option, Request, Status

MAC = "52:54:00:00:00:0a"
DUID = bytes.fromhex("00030001525400 00000a".replace(" ", ""))


def option(code: int, value: bytes) -> bytes:
    return struct.pack("!HH", code, len(value)) + value


def address(last: int) -> bytes:
    return option(Option.IA_ADDRESS, bytes.fromhex("fd00") + bytes(13) + bytes([last]) + bytes(8))


def asked(*options: bytes, kind: int = Kind.SOLICIT) -> bytes:
    """A client's message: one IA_NA with a hint, besides what is given."""
    ours = option(Option.IA_NA, struct.pack("!III", 7, 0, 0) + address(9))
    return bytes([kind]) + b"xid" + option(Option.CLIENT_ID, DUID) + ours + b"".join(options)


def test_what_a_client_asks() -> None:
    fqdn = option(Option.FQDN, b"\0\x05Web-1\x07example\0")
    second = option(Option.IA_NA, struct.pack("!III", 8, 0, 0))
    read = message.decode(asked(option(Option.SERVER_ID, DUID), fqdn, option(Option.RAPID_COMMIT, b""), second))
    associations = (Association(7, ("fd00::9",)), Association(8))
    assert read == Request(Kind.SOLICIT, b"xid", DUID, DUID, associations, "web-1", rapid=True)


@pytest.mark.parametrize(
    "name", [b"", b"\0", b"\0\0", b"\0\x09web", b"\0\x02-a", b"\0\x02a-", b"\0\x01\xff", b"\0\x03a.b"]
)
def test_a_name_that_is_none_is_left_out(name: bytes) -> None:
    assert message.decode(asked(option(Option.FQDN, name))).name == ""


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no DHCPv6 client's message"),
        (b"\x01xi", "no DHCPv6 client's message"),
        (asked(kind=Kind.REPLY), "no DHCPv6 client's message"),
        (asked(kind=12), "no DHCPv6 client's message"),  # of a relay agent
        (asked(b"\0"), "1 bytes are no option"),
        (asked(b"\0\1\0\x09abc"), "option 1 of 9 bytes runs out"),
        (asked(option(Option.CLIENT_ID, DUID)), "option 1 is there twice"),
        (asked(option(Option.SERVER_ID, b"\0\1")), "no DUID: 2 bytes"),
        (asked(option(Option.SERVER_ID, bytes(131))), "no DUID: 131 bytes"),
        (asked(option(Option.IA_NA, bytes(11))), "an IA_NA of 11 bytes"),
        (asked(option(Option.IA_NA, bytes(12) + option(Option.IA_ADDRESS, bytes(23)))), "an address in 23 bytes"),
        (asked(option(Option.IA_NA, bytes(12) + b"\0\5\0\x18")), "runs out"),
    ],
)
def test_what_makes_no_sense_is_refused(body: bytes, said: str) -> None:
    with pytest.raises(PacketError, match=said):
        message.decode(body)


def test_of_a_message_that_never_ends_only_the_beginning_is_looked_at() -> None:
    many = option(Option.IA_NA, bytes(12) + address(1) * 50)
    read = message.decode(asked(*[many] * 20))
    assert (len(read.associations), len(read.associations[1].addresses)) == (16, 16)


@given(st.binary(max_size=300))
def test_nothing_that_comes_does_more_than_to_be_refused(junk: bytes) -> None:
    for body in (junk, b"\x01xid" + junk, asked(junk), asked(option(Option.IA_NA, bytes(12) + junk))):
        with suppress(PacketError):
            message.decode(body)
    with suppress(PacketError):
        datagrams6.decode(junk)


@given(st.data())
def test_a_right_message_that_is_damaged_does_no_more(data: st.DataObject) -> None:
    body = bytearray(asked(option(Option.FQDN, b"\0\x03web")))
    for _ in range(data.draw(st.integers(1, 8))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with suppress(PacketError):
        message.decode(bytes(body[: data.draw(st.integers(0, len(body)))]))


def test_an_answer_reads_as_what_a_client_could_have_said() -> None:
    given_ = message.association(7, 3600, [("fd00::9", 3600), ("fd00::8", 0)])
    assert given_[:12] == struct.pack("!III", 7, 1800, 2880)
    assert given_[32:40] == struct.pack("!II", 3600, 3600)
    body = message.encode(Kind.REPLY, b"xid", [(Option.CLIENT_ID, DUID), (Option.IA_NA, given_)])
    assert body[:4] == b"\x07xid"
    assert message.decode(b"\x03" + body[1:]).associations == (Association(7, ("fd00::9", "fd00::8")),)
    assert message.association(7, 0, (), Status.NO_ADDRESS)[12:] == option(Option.STATUS, b"\0\2")
    assert message.domain("example.org") == b"\x07example\x03org\0"


SAID = Datagram6("02:f5:00:00:00:01", MAC, "fe80::1", "fe80::9", 547, 546, b"hello")


def test_a_datagram_there_and_back() -> None:
    frame = datagrams6.encode(SAID)
    read = packet.Packet(frame)
    head, inner = read.get_protocol(ipv6.ipv6), read.get_protocol(udp.udp)
    assert (inner.dst_port, head.hop_limit, read.get_protocol(ethernet.ethernet).dst) == (546, 64, MAC)
    zeroed = frame[54:60] + b"\0\0" + frame[62:]
    assert inner.csum == packet_utils.checksum_ip(head, len(zeroed), zeroed) != 0
    assert datagrams6.decode(frame) == SAID
    assert datagrams6.decode(frame + bytes(20)) == SAID  # an Ethernet frame may be padded


@pytest.mark.parametrize(
    ("at", "value", "said"),
    [
        (12, 0x08, "is no IPv6 with header 17"),
        (14, 0x40, "version 4"),
        (20, 0, "header 0"),
        (19, 12, "UDP datagram of 13 bytes in 12"),
        (18, 1, "of which 13 are here"),
        (59, 7, "UDP datagram of 7"),
        (58, 1, "UDP datagram of 269"),
    ],
)
def test_lengths_are_checked_before_they_are_believed(at: int, value: int, said: str) -> None:
    frame = bytearray(datagrams6.encode(SAID))
    frame[at] = value
    with pytest.raises(PacketError, match=said):
        datagrams6.decode(bytes(frame))
    for size in (53, 61):
        with pytest.raises(PacketError):
            datagrams6.decode(bytes(frame[:size]))
