"""LLDP frames: what switches send is understood, what we send is what others understand, and nothing else harms."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from os_ken.lib.packet import lldp

from controller.errors import LldpError
from topology.lldp import MAX_ID, Announcement, decode, encode

HEADER = bytes.fromhex("0180c200000e 020000000001 88cc")
CHASSIS = b"\x02\x07\x04\x00\x1b\x21\xaa\xbb\xcc"
PORT = b"\x04\x08\x05Gi1/0/3"
TTL = b"\x06\x02\x00\x78"
END = b"\0\0"
SOURCE = bytes.fromhex("020000000001")


def element(kind: int, value: bytes) -> bytes:
    return struct.pack("!H", kind << 9 | len(value)) + value


def read(*elements: bytes) -> Announcement:
    frame = HEADER + b"".join(elements)
    return decode(frame, len(frame))


def test_what_a_switch_says() -> None:
    vlan = element(127, b"\x00\x80\xc2\x01\x00\x14")
    other = element(127, b"\x00\x12\x0f\x01\x03\x6c\x00\x00\x10")  # IEEE 802.3: MAC and PHY
    name, text = element(5, b"sw1.example"), element(6, b"Switch OS 7\r\nof 2024\r\n")
    said = read(CHASSIS, PORT, TTL, element(4, "für kvm01".encode()), name, text, other, vlan, END, bytes(20))
    assert said == Announcement(
        "00:1b:21:aa:bb:cc", "Gi1/0/3", 120, "für kvm01", "sw1.example", "Switch OS 7 of 2024", 20
    )


@pytest.mark.parametrize(
    ("chassis", "port", "words"),
    [
        (b"\x05\x01\xc0\x00\x02\x01", b"\x03\x00\x1b\x21\x00\x00\x01", ("192.0.2.1", "00:1b:21:00:00:01")),
        (b"\x05\x02" + bytes.fromhex("20010db8" + 12 * "00"), b"\x04\x01\xc0\x00\x02\x09", ("2001:db8::", "192.0.2.9")),
        (b"\x07kvm01", b"\x07\x00\x01\xff", ("kvm01", "0001ff")),
        (b"\x04abc", b"\x06\x01\x02", ("616263", "0102")),  # a MAC of three bytes; a circuit id
        (b"\x05\x01\x02", b"\x00x", ("0102", "78")),  # an address of one byte; a reserved subtype
        (b"\x06eth0\0", b"\x05  ", ("eth0", "2020")),
    ],
)
def test_ids_of_every_kind(chassis: bytes, port: bytes, words: tuple[str, str]) -> None:
    said = read(element(1, chassis), element(2, port), TTL, END)
    assert (said.chassis, said.port) == words


@pytest.mark.parametrize("vlan", [b"", b"\x00", b"\x00\x00", b"\x0f\xff", b"\xff\xff", b"\x00\x14\x00"])
def test_a_vlan_that_is_none(vlan: bytes) -> None:
    assert read(CHASSIS, PORT, TTL, element(127, b"\x00\x80\xc2\x01" + vlan), END).vlan is None


def test_what_can_not_be_shown_is_made_so_that_it_can() -> None:
    said = read(CHASSIS, PORT, TTL, element(5, b"sw\x1b[31m\xff"), element(6, b"x" * 500), END)
    assert said.system_name == "sw\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}"
    assert len(said.system_description) == MAX_ID


def test_the_first_of_two_counts() -> None:
    assert read(CHASSIS, PORT, TTL, element(5, b"one"), element(5, b"two"), END).system_name == "one"


def test_of_a_frame_that_is_cut_what_is_whole_counts() -> None:
    whole = HEADER + CHASSIS + PORT + TTL + element(5, b"sw1") + element(6, b"x" * 100) + END
    for size in range(len(whole) - 102, len(whole)):
        assert decode(whole[:size], len(whole)).system_name == "sw1"
    with pytest.raises(LldpError, match="for how long"):
        decode(whole[:30], len(whole))


@pytest.mark.parametrize(
    ("elements", "what"),
    [
        ((), "who sent it"),
        ((END,), "who sent it"),
        ((CHASSIS, PORT, END), "who sent it"),
        ((CHASSIS, PORT, b"\x06\x01\x78", END), "who sent it"),
        ((PORT, CHASSIS, TTL, END), "element 1 is of type 2"),
        ((CHASSIS, TTL, PORT, END), "element 2 is of type 3"),
        ((element(127, b"\x00\x80\xc2\x01\x00\x14"), CHASSIS, PORT, TTL, END), "element 1 is of type 127"),
        ((element(1, b"\x04"), PORT, TTL, END), "chassis id of 1 bytes"),
        ((element(1, b""), PORT, TTL, END), "chassis id of 0 bytes"),
        ((CHASSIS, element(2, b"\x05" + b"x" * 256), TTL, END), "port id of 257 bytes"),
        ((CHASSIS, PORT, TTL, b"\x0b\xff"), "an element of 511 bytes runs out"),
        ((CHASSIS, PORT, TTL, b"\x0a"), "within an element"),
    ],
)
def test_what_makes_no_sense_is_refused(elements: tuple[bytes, ...], what: str) -> None:
    with pytest.raises(LldpError, match=what):
        read(*elements)


@pytest.mark.parametrize("frame", [b"", HEADER[:13], HEADER[:12] + b"\x08\x00" + CHASSIS])
def test_another_frame_is_none(frame: bytes) -> None:
    with pytest.raises(LldpError, match="no LLDP frame"):
        decode(frame, len(frame))


elements = st.builds(element, st.integers(0, 127), st.binary(max_size=260))
frames = st.one_of(
    st.binary(max_size=80),
    st.binary(max_size=300).map(lambda rest: HEADER + rest),
    st.builds(lambda *parts: HEADER + b"".join(parts), st.binary(max_size=4), st.lists(elements).map(b"".join)),
    st.lists(elements).map(lambda rest: HEADER + CHASSIS + PORT + TTL + b"".join(rest)),
    st.builds(
        lambda chassis, port, rest: HEADER + element(1, chassis) + element(2, port) + TTL + rest,
        st.binary(max_size=257), st.binary(max_size=257), st.binary(max_size=60)),
)  # fmt: skip


@given(frames, st.integers(0, 2000))
@example(HEADER + CHASSIS + PORT + TTL, 0)
def test_no_frame_does_more_than_be_refused(frame: bytes, total: int) -> None:
    try:
        said = decode(frame, total)
    except LldpError:
        return
    texts = (said.chassis, said.port, said.port_description, said.system_name, said.system_description)
    assert all(text.isprintable() for text in texts)
    assert all(len(text) <= 2 * MAX_ID for text in texts)
    assert said.chassis
    assert said.port
    assert 0 <= said.ttl <= 0xFFFF
    assert said.vlan is None or 0 < said.vlan < 4095


words = st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), max_size=60)


@given(words.filter(bool), words.filter(bool), st.integers(0, 0xFFFF), words, words, words)
def test_what_we_say_is_what_we_mean(chassis: str, port: str, ttl: int, about: str, name: str, text: str) -> None:
    said = Announcement(chassis, port, ttl, about, name, text)
    frame = encode(SOURCE, said)
    assert len(frame) >= 60
    assert decode(frame, len(frame)) == said


def test_others_understand_what_we_say() -> None:
    said = Announcement("f1/kvm01", "ens224", 121, "uplink to physnet1", "kvm01", "fleetswitch")
    frame = encode(SOURCE, said)
    assert frame[:14] == HEADER
    told = lldp.lldp.parser(frame[14:])[0].tlvs
    assert [type(each) for each in told] == [
        lldp.ChassisID, lldp.PortID, lldp.TTL, lldp.PortDescription, lldp.SystemName, lldp.SystemDescription,
        lldp.SystemCapabilities, lldp.End,
    ]  # fmt: skip
    chassis, port, ttl, about, name, text, capabilities, _ = told
    assert (chassis.subtype, chassis.chassis_id) == (lldp.ChassisID.SUB_LOCALLY_ASSIGNED, b"f1/kvm01")
    assert (port.subtype, port.port_id) == (lldp.PortID.SUB_INTERFACE_NAME, b"ens224")
    assert ttl.ttl == 121
    assert (about.port_description, name.system_name, text.system_description) == (
        b"uplink to physnet1", b"kvm01", b"fleetswitch")  # fmt: skip
    assert capabilities.system_cap == capabilities.enabled_cap == lldp.SystemCapabilities.CAP_MAC_BRIDGE


@pytest.mark.parametrize("field", ["chassis", "port", "system_name", "port_description", "system_description"])
def test_a_text_that_is_too_long_is_refused(field: str) -> None:
    said = {"chassis": "c", "port": "p", "ttl": 1, "system_name": "", field: "x" * (MAX_ID + 1)}
    with pytest.raises(LldpError, match="do not fit"):
        encode(SOURCE, Announcement(**said))  # type: ignore[arg-type]
