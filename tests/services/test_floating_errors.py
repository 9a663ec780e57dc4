"""ICMP errors for floating addresses and of their guests: what they quote is translated, and harms nobody."""

from __future__ import annotations

import contextlib
import socket
import struct

import pytest
from fleets import FleetRows
from hypothesis import given
from hypothesis import strategies as st

from apps import APPS
from controller.engine import Engine
from controller.errors import PacketError
from controller.openflow.decode import PacketIn
from controller.pipeline.actions import load
from controller.pipeline.fields import NEXT_HOP6 as NEXT_HOP6_FIELD
from controller.pipeline.pipeline import Pipeline
from controller.reader import Reader
from controller.services.floating_errors import FloatingErrors, translated

OUTSIDE, INSIDE, FAR = "203.0.113.50", "10.0.0.5", "198.51.100.7"
MACS = bytes.fromhex("02f100000050 525400000001")
ICMP, UDP = 1, 17
PIPELINE = Pipeline(APPS)


def checksum(data: bytes) -> int:
    """RFC 1071; 0 over what has a right one in it."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) // 2 * 2])) + (data[-1] << 8) * (len(data) % 2)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(src: str, dst: str, protocol: int, body: bytes, options: bytes = b"") -> bytes:
    first = 0x45 + len(options) // 4
    ends = socket.inet_aton(src) + socket.inet_aton(dst)
    head = struct.pack("!BBHHHBBH", first, 0, 20 + len(options) + len(body), 7, 0, 64, protocol, 0) + ends + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def error(src: str, dst: str, quoted: bytes, kind: int = 3, code: int = 4, options: bytes = b"") -> bytes:
    message = struct.pack("!BBHHH", kind, code, 0, 0, 1400) + quoted
    message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
    return MACS + b"\x08\x00" + ipv4(src, dst, ICMP, message, options)


def udp(src: str, dst: str, options: bytes = b"") -> bytes:
    return ipv4(src, dst, UDP, struct.pack("!HHHH", 5000, 53, 9, 0) + b"x", options)


@pytest.mark.parametrize("options", [b"", b"\x01" * 8])
def test_a_router_outside_tells_of_the_guests_own_packet(options: bytes) -> None:
    frame = error(FAR, OUTSIDE, udp(OUTSIDE, "192.0.2.9", options), options=options)
    assert translated(frame, OUTSIDE, INSIDE, inward=True) == error(
        FAR, INSIDE, udp(INSIDE, "192.0.2.9", options), options=options
    )


def test_a_guest_tells_of_the_packet_that_a_machine_outside_sent() -> None:
    frame = error(INSIDE, FAR, udp(FAR, INSIDE), 3, 3)
    assert translated(frame, INSIDE, OUTSIDE, inward=False) == error(OUTSIDE, FAR, udp(FAR, OUTSIDE), 3, 3)


OUTSIDE6, INSIDE6, FAR6 = "2001:db8::50", "fd00::5", "2001:db8:ffff::7"
ICMPV6 = 58


def ipv6(src: str, dst: str, protocol: int, body: bytes) -> bytes:
    ends = socket.inet_pton(socket.AF_INET6, src) + socket.inet_pton(socket.AF_INET6, dst)
    return struct.pack("!IHBB", 6 << 28, len(body), protocol, 64) + ends + body


def error6(src: str, dst: str, quoted: bytes, kind: int = 2, code: int = 0) -> bytes:
    message = struct.pack("!BBHI", kind, code, 0, 1280) + quoted
    covered = ipv6(src, dst, ICMPV6, b"")[8:] + struct.pack("!II", len(message), ICMPV6) + message
    message = message[:2] + struct.pack("!H", checksum(covered)) + message[4:]
    return MACS + b"\x86\xdd" + ipv6(src, dst, ICMPV6, message)


def udp6(src: str, dst: str, data: bytes = b"x") -> bytes:
    return ipv6(src, dst, UDP, struct.pack("!HHHH", 5000, 53, 8 + len(data), 1) + data)


@pytest.mark.parametrize("kind", [1, 2, 3, 4])
@pytest.mark.parametrize("data", [b"", b"x"])
def test_errors_of_ipv6_are_translated_both_ways(kind: int, data: bytes) -> None:
    came = error6(FAR6, OUTSIDE6, udp6(OUTSIDE6, "2001:db8:9::9", data), kind)
    assert translated(came + bytes(3), OUTSIDE6, INSIDE6, inward=True) == error6(
        FAR6, INSIDE6, udp6(INSIDE6, "2001:db8:9::9", data), kind
    )
    sent = error6(INSIDE6, FAR6, udp6(FAR6, INSIDE6, data), kind)
    assert translated(sent, INSIDE6, OUTSIDE6, inward=False) == error6(OUTSIDE6, FAR6, udp6(FAR6, OUTSIDE6, data), kind)


def test_padding_is_no_part_of_it() -> None:
    frame = error(FAR, OUTSIDE, udp(OUTSIDE, FAR))
    assert translated(frame + bytes(18), OUTSIDE, INSIDE, inward=True) == error(FAR, INSIDE, udp(INSIDE, FAR))


@pytest.mark.parametrize(
    "frame",
    [
        error(FAR, OUTSIDE, udp("203.0.113.51", FAR)),  # about another's packet
        error(FAR, OUTSIDE, udp(OUTSIDE, FAR), kind=8),
        error(FAR, OUTSIDE, udp(OUTSIDE, FAR), kind=5),  # a redirect
        error(FAR, OUTSIDE, udp(OUTSIDE, FAR)[:19]),
        error(FAR, OUTSIDE, b""),
        error(FAR, OUTSIDE, b"\x60" + udp(OUTSIDE, FAR)[1:]),
        MACS + b"\x08\x00" + udp(OUTSIDE, FAR),
        error6(FAR6, OUTSIDE6, udp6(OUTSIDE6, FAR6)),
        error(FAR, OUTSIDE, udp(OUTSIDE, FAR))[:40],
        b"",
    ],
)
def test_what_is_no_error_about_it_goes_no_further(frame: bytes) -> None:
    with pytest.raises(PacketError):
        translated(frame, OUTSIDE, INSIDE, inward=True)


@pytest.mark.parametrize(
    "frame",
    [
        error6(FAR6, OUTSIDE6, udp6("2001:db8::51", FAR6)),
        error6(FAR6, OUTSIDE6, udp6(OUTSIDE6, FAR6), kind=128),
        error6(FAR6, OUTSIDE6, udp6(OUTSIDE6, FAR6), kind=137),  # a redirect
        error6(FAR6, OUTSIDE6, udp6(OUTSIDE6, FAR6)[:39]),
        error6(FAR6, OUTSIDE6, b""),
        error6(FAR6, OUTSIDE6, udp(OUTSIDE, FAR) + bytes(20)),
        MACS + b"\x86\xdd" + udp6(OUTSIDE6, FAR6),
        MACS + b"\x86\xdd" + ipv6(FAR6, OUTSIDE6, 44, bytes(8) + udp6(OUTSIDE6, FAR6)),  # a fragment
        error6(FAR6, OUTSIDE6, udp6(OUTSIDE6, FAR6))[:60],
        error(FAR, OUTSIDE, udp(OUTSIDE, FAR)),
    ],
)
def test_what_is_no_error_of_ipv6_about_it_goes_no_further(frame: bytes) -> None:
    with pytest.raises(PacketError):
        translated(frame, OUTSIDE6, INSIDE6, inward=True)


class World:
    """A host with a guest that has a floating address, and ``others``; ``sent`` is what its switch was told."""

    def __init__(self, others: int = 0) -> None:
        fleet = FleetRows().host("kvm1", "192.0.2.1", "phys1")
        fleet.outside("kvm1", "phys1", "203.0.113.11", address6="2001:db8::11/64", gateway6="fe80::1")
        fleet.network("web", "nat", subnets=["10.0.0.0/24", "fd00::/64"])
        fleet.port("a", "kvm1", "web", addresses=(INSIDE, INSIDE6), ofport=5)
        fleet.floating_ip("one", "web", OUTSIDE, {"vnic": "a"}, mac="02:f1:00:00:00:50")
        fleet.floating_ip("one6", "web", OUTSIDE6, {"vnic": "a"}, mac="02:f1:00:00:06:50")
        for each in range(100, 100 + others):
            fleet.port(f"p{each}", "kvm1", "web", addresses=(f"10.0.0.{each}",), ofport=each)
            fleet.floating_ip(f"f{each}", "web", f"203.0.113.{each}", {"vnic": f"p{each}"})
        engine = Engine(PIPELINE)
        engine.update(fleet.rows())
        view = engine.fabric.reader().host("kvm1")
        assert view is not None
        assert view.external is not None
        self.mac = view.external.mac
        self.sent: list[tuple[str, bytes]] = []
        self.service = FloatingErrors(engine.fabric.reader, 1, 2, 3, self.send)

    def send(self, host: str, message: bytes) -> bool:
        self.sent.append((host, message))
        return True


IN_PORT_5 = bytes.fromhex("80000004 00000005")  # an OXM TLV
OTHER_PORT = bytes.fromhex("80000004 00000006")


def packet(data: bytes, oxms: bytes = IN_PORT_5) -> PacketIn:
    return PacketIn(0, 0, 0, len(data), oxms, data)


def test_only_the_host_that_answers_for_it_and_only_its_guest() -> None:
    world = World()
    world.service.inward("kvm1", packet(error(FAR, OUTSIDE, udp(OUTSIDE, FAR))))
    [(host, message)] = world.sent
    assert host == "kvm1"
    assert bytes.fromhex("525400000001 02f100000050 0800") + error(FAR, INSIDE, udp(INSIDE, FAR))[14:] in message
    world.service.outward("kvm1", packet(error(INSIDE, FAR, udp(FAR, INSIDE), 3, 3)))
    assert error(OUTSIDE, FAR, udp(FAR, OUTSIDE), 3, 3)[14:] in world.sent[1][1]
    world.sent.clear()
    world.service.inward("kvm2", packet(error(FAR, OUTSIDE, udp(OUTSIDE, FAR))))
    world.service.inward("kvm1", packet(error(FAR, "203.0.113.51", udp("203.0.113.51", FAR))))
    world.service.outward("kvm1", packet(error(INSIDE, FAR, udp(FAR, INSIDE)), OTHER_PORT))
    world.service.outward("kvm1", packet(error("10.0.0.6", FAR, udp(FAR, "10.0.0.6"))))
    assert world.sent == []


NEXT_HOP6 = b"".join(  # NXM TLVs of the four registers
    struct.pack("!II", 0x00010000 | (8 + number) << 9 | 4, word)
    for number, word in enumerate(struct.unpack("!4I", socket.inet_pton(socket.AF_INET6, FAR6)))
)


def test_those_of_ipv6_go_on_too() -> None:
    """To the guest; to the machine outside, by the next hop that the packet had; to a guest of the host."""
    world = World()
    world.service.inward("kvm1", packet(error6(FAR6, OUTSIDE6, udp6(OUTSIDE6, FAR6))))
    inside = bytes.fromhex("525400000001 02f100000650 86dd") + error6(FAR6, INSIDE6, udp6(INSIDE6, FAR6))[14:]
    assert inside in world.sent[0][1]
    world.service.outward("kvm1", packet(error6(INSIDE6, FAR6, udp6(FAR6, INSIDE6), 1), IN_PORT_5 + NEXT_HOP6))
    [_, (_, message)] = world.sent
    assert error6(OUTSIDE6, FAR6, udp6(FAR6, OUTSIDE6), 1)[14:] in message
    assert load(NEXT_HOP6_FIELD, int.from_bytes(socket.inet_pton(socket.AF_INET6, FAR6), "big")).encode() in message
    host = "2001:db8::11"
    world.service.outward("kvm1", packet(error6(INSIDE6, host, udp6(host, INSIDE6), 1), IN_PORT_5))
    outside = bytes.fromhex(world.mac.replace(":", ""))
    assert (
        outside + bytes.fromhex("02f100000650 86dd") + error6(OUTSIDE6, host, udp6(host, OUTSIDE6), 1)[14:]
        in (world.sent[2][1])
    )
    world.sent.clear()
    world.service.outward("kvm1", packet(error6(INSIDE6, FAR6, udp6(FAR6, INSIDE6), 1), OTHER_PORT))
    world.service.inward("kvm2", packet(error6(FAR6, OUTSIDE6, udp6(OUTSIDE6, FAR6))))
    assert world.sent == []


def test_only_the_address_that_an_error_is_about_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody outside sends them: with a thousand addresses each would take a hundredth of a second."""
    world, looked = World(others=20), []
    port = Reader.port
    monkeypatch.setattr(Reader, "port", lambda reader, name: looked.append(name) or port(reader, name))
    world.service.inward("kvm1", packet(error(FAR, OUTSIDE, udp(OUTSIDE, FAR))))
    world.service.outward("kvm1", packet(error(INSIDE, FAR, udp(FAR, INSIDE), 3, 3)))
    assert (len(world.sent), looked) == (2, ["a", "a"])


FRAMES = (
    (error(FAR, OUTSIDE, udp(OUTSIDE, FAR)), OUTSIDE, INSIDE), (error(INSIDE, FAR, udp(FAR, INSIDE)), OUTSIDE, INSIDE),
    (error6(FAR6, OUTSIDE6, udp6(OUTSIDE6, FAR6)), OUTSIDE6, INSIDE6),
    (error6(INSIDE6, FAR6, udp6(FAR6, INSIDE6)), OUTSIDE6, INSIDE6),
)  # fmt: skip


@given(st.sampled_from(FRAMES), st.lists(st.tuples(st.integers(0, 110), st.integers(0, 255)), max_size=8),
       st.integers(0, 130))  # fmt: skip
def test_bytes_of_anybodys_making_harm_nobody(
    sent: tuple[bytes, str, str], changes: list[tuple[int, int]], size: int
) -> None:
    frame, old, new = sent
    data = bytearray(frame)
    for at, value in changes:
        data[at % len(data)] = value
    made = bytes(data[:size])
    with contextlib.suppress(PacketError):
        assert len(translated(made, old, new, inward=True)) <= len(made)
    world = World()
    world.service.inward("kvm1", packet(made))
    world.service.outward("kvm1", packet(made))
