"""ICMP errors: who is told of what, and that bytes of a guest's making harm nobody."""

from __future__ import annotations

import socket
import struct

import pytest
from fleets import FleetRows
from hypothesis import given
from hypothesis import strategies as st

from controller.errors import PacketError
from controller.fabric import Fabric
from controller.openflow.actions import Resubmit
from controller.openflow.decode import PacketIn
from controller.openflow.oxm import FIELDS
from controller.pipeline.actions import match
from controller.reader import Reader
from controller.services.icmp_errors import IcmpErrors, Ways, gateway_address
from controller.services.icmp_message import Quoted, Why, decode
from controller.services.icmp_message import encode as made
from controller.views import GatewayView

GATEWAY = GatewayView("02:f5:00:00:00:01", ("10.0.0.1/24", "fd00::1/64", "10.0.1.1/24"), False, "route")
TO, BY = bytes.fromhex("02f500000001"), bytes.fromhex("525400000001")
ICMP, UDP = 1, 17
HEADERS = struct.pack("!HHHH", 5, 33434, 8, 0)


def frame(
    body: bytes = HEADERS, *, src: str = "10.0.0.5", dst: str = "10.9.0.5", protocol: int = UDP, ttl: int = 64,
    fragment: int = 0, first: int = 0x45, kind: int = 0x0800, to: bytes = TO, by: bytes = BY,
) -> bytes:  # fmt: skip
    """A frame of a guest for its gateway; ``fragment`` is flags and offset, ``first`` version and header length."""
    ends = socket.inet_aton(src) + socket.inet_aton(dst)
    head = struct.pack("!BBHHHBBH", first, 0, 20 + len(body), 7, fragment, ttl, protocol, 0)
    return to + by + struct.pack("!H", kind) + head + ends + body


def checksum(data: bytes) -> int:
    """RFC 1071; 0 over what has a right one in it."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) // 2 * 2])) + (data[-1] << 8) * (len(data) % 2)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


BODY6 = struct.pack("!HHHH", 5, 33434, 8, 0)


def frame6(
    body: bytes = BODY6, *, src: str = "fd00::5", dst: str = "fd09::5", header: int = UDP, hops: int = 64,
    to: bytes = TO, by: bytes = BY, length: int | None = None, first: int = 0x60,
) -> bytes:  # fmt: skip
    """As ``frame``, of IPv6; ``header`` is what comes next, ``length`` what is said of the body's."""
    ends = socket.inet_pton(socket.AF_INET6, src) + socket.inet_pton(socket.AF_INET6, dst)
    head = struct.pack("!IHBB", first << 24, len(body) if length is None else length, header, hops)
    return to + by + b"\x86\xdd" + head + ends + body


def extension(following: int, more: bytes = bytes(6)) -> bytes:
    """A header between IPv6's and what is carried, of 8 bytes."""
    return bytes([following, 0]) + more


def encode(about: Quoted, why: Why, mtu: int = 0) -> bytes:
    """What the gateway says."""
    return made(about, GATEWAY.mac, gateway_address(about, GATEWAY), why, mtu)


def ends(said: bytes) -> tuple[str, str]:
    return socket.inet_ntoa(said[26:30]), socket.inet_ntoa(said[30:34])


def test_the_sender_is_told_by_its_gateway_with_the_beginning_of_what_it_sent() -> None:
    sent = frame(HEADERS + b"x" * 41, ttl=1)
    said = encode(decode(sent), Why.TIME_IS_OVER)
    assert said[:14] == BY + TO + b"\x08\x00"
    assert ends(said) == ("10.0.0.1", "10.0.0.5")
    assert (said[14], said[23], tuple(said[34:36])) == (0x45, ICMP, (11, 0))
    assert said[42:] == sent[14:]
    assert (checksum(said[14:34]), checksum(said[34:])) == (0, 0)
    assert struct.unpack_from("!H", said, 16)[0] == len(said) - 14


def test_of_several_gateways_the_one_in_the_senders_subnet_tells() -> None:
    assert ends(encode(decode(frame(src="10.0.1.5")), Why.NO_HOST)) == ("10.0.1.1", "10.0.1.5")
    # somebody behind a guest of a network with mode open
    assert ends(encode(decode(frame(src="192.168.7.7")), Why.NO_HOST)) == ("10.0.0.1", "192.168.7.7")


def test_of_one_that_is_too_big_the_sender_is_told_what_would_fit() -> None:
    said = encode(decode(frame(bytes(1472))), Why.TOO_BIG, 1450)
    assert (tuple(said[34:36]), struct.unpack_from("!HH", said, 38)) == ((3, 4), (0, 1450))  # RFC 1191, 4
    assert checksum(said[34:]) == 0


def test_an_error_is_no_longer_than_576_bytes_and_quotes_no_padding() -> None:
    assert len(encode(decode(frame(bytes(1400))), Why.NO_HOST)) == 14 + 576
    assert encode(decode(frame() + bytes(18)), Why.NO_HOST)[42:] == frame()[14:]


@pytest.mark.parametrize(
    "sent",
    [
        frame(b"\x03\x01" + bytes(6), protocol=ICMP),
        frame(b"\x0b\x00" + bytes(6), protocol=ICMP),
        frame(b"\x4d\x00" + bytes(6), protocol=ICMP),
        frame(b"", protocol=ICMP),
        frame(dst="224.0.0.1"),
        frame(dst="255.255.255.255"),
        frame(src="0.0.0.0"),
        frame(src="127.0.0.1"),
        frame(src="224.0.0.1"),
        frame(to=b"\xff" * 6),
        frame(by=b"\xff" * 6),
        frame(fragment=0x2005),
        frame(fragment=5),
        frame(kind=0x0806),
        frame()[:30],
        frame()[:38],
        frame(first=0x44),
        frame(first=0x4F),
        frame(first=0x65),
        b"",
    ],
)
def test_nobody_is_told_of_what_nobody_may_be_told_of(sent: bytes) -> None:
    with pytest.raises(PacketError):
        decode(sent)


def test_a_ping_is_no_error_and_a_first_fragment_is_told_of() -> None:
    decode(frame(b"\x08\x00" + bytes(6), protocol=ICMP))
    decode(frame(fragment=0x2000))


def test_a_sender_is_told_in_ipv6_too() -> None:
    for why, mtu, told in (
        (Why.TIME_IS_OVER, 0, (3, 0, 0)), (Why.NO_HOST, 0, (1, 3, 0)), (Why.PROHIBITED, 0, (1, 1, 0)),
        (Why.NO_NETWORK, 0, (1, 0, 0)), (Why.TOO_BIG, 1450, (2, 0, 1450)),
    ):  # fmt: skip
        sent = frame6(BODY6 + b"x" * 41)
        said = encode(decode(sent), why, mtu)
        assert said[:14] == BY + TO + b"\x86\xdd"
        ends = [socket.inet_ntop(socket.AF_INET6, said[at : at + 16]) for at in (22, 38)]
        assert ends == ["fd00::1", "fd00::5"]
        assert (said[54], said[55], struct.unpack_from("!I", said, 58)[0]) == told
        assert said[62:] == sent[14:]
        pseudo = said[22:54] + struct.pack("!II", len(said) - 54, 58)
        assert checksum(pseudo + said[54:]) == 0
    assert len(encode(decode(frame6(bytes(1400))), Why.NO_HOST)) == 14 + 1280  # RFC 4443, 2.4 c
    assert encode(decode(frame6() + bytes(18)), Why.NO_HOST)[62:] == frame6()[14:]


@pytest.mark.parametrize(
    "sent",
    [
        frame6(b"\x01\x00" + bytes(6), header=58),
        frame6(b"\x89\x00" + bytes(38), header=58),
        frame6(b"", header=58),
        frame6(extension(58) + b"\x02\x00" + bytes(6), header=0),
        frame6(extension(60) + b"\x3a\x00", header=60),
        frame6(extension(UDP, b"\x00\x08" + bytes(4)) + BODY6, header=44),
        frame6(b"\x3a\xff" + bytes(6), header=60),
        frame6(b"\x11", header=43),
        frame6(dst="ff02::1"),
        frame6(dst="fe80::1"),
        frame6(src="::"),
        frame6(src="::1"),
        frame6(src="ff02::1"),
        frame6(src="fe80::5"),
        frame6(to=b"\x33\x33\x00\x00\x00\x01"),
        frame6(by=b"\x33\x33\x00\x00\x00\x01"),
        frame6(length=9),
        frame6(first=0x40),
        frame6()[:50],
    ],
)
def test_nobody_is_told_in_ipv6_of_what_nobody_may_be_told_of(sent: bytes) -> None:
    with pytest.raises(PacketError):
        decode(sent)


def test_in_ipv6_a_ping_a_first_fragment_and_options_are_told_of() -> None:
    decode(frame6(b"\x80\x00" + bytes(6), header=58))
    decode(frame6(extension(58, b"\x00\x01" + bytes(4)) + b"\x80\x00" + bytes(6), header=44))
    decode(frame6(extension(60) + extension(UDP) + BODY6, header=0))


@given(st.binary(max_size=120), st.integers(0, 80))
def test_bytes_of_any_kind_are_told_of_or_refused_in_ipv6(noise: bytes, kept: int) -> None:
    try:
        about = decode(frame6(extension(58) + b"\x80\x00" + bytes(20), header=0)[:kept] + noise)
    except PacketError:
        return
    assert 40 <= len(about.start) <= about.size
    if str(about.source) != "fd00::1":
        made(about, GATEWAY.mac, "fd00::1", Why.NO_HOST)


def test_the_gateway_tells_itself_nothing() -> None:
    with pytest.raises(PacketError):
        encode(decode(frame(src="10.0.0.1")), Why.NO_HOST)


DELIVER, HOP, NAT_OUT = 50, 30, 28  # numbers of tables
UPLINK, TRACKED = 64001, 0x2A


class Played:
    """A host with a guest of each of two networks, and what its switch is told."""

    def __init__(self) -> None:
        made = FleetRows().host("kvm1", "192.0.2.1", "phys1")
        ipv6 = {"address6": "2001:db8::11/64", "gateway6": "fe80::1"}
        made.outside("kvm1", "phys1", "203.0.113.11", mac="02:f5:00:00:01:00", mtu=1350, **ipv6)
        made.host("kvm2", "192.0.2.2", "phys1").outside("kvm2", "phys1", "203.0.113.12", mac="02:f5:00:00:02:00")
        made.network("web", "nat", subnets=["10.0.0.0/24", "fd00::/64"], gateway_mac=GATEWAY.mac)
        behind = [{"to": "10.50.0.7/32", "via": "10.9.0.7"}]
        made.network("api", "route", subnets=["10.9.0.0/24", "fd09::/64"], mtu=1300, routes=behind)
        subnets = [
            "10.9.0.0/24",
            "fd09::/56",
            "10.8.0.0/24",
        ]  # as its guests reach nobody else, they may be others' too
        made.network("alone", subnets=subnets, mtu=1440)
        made.port("a", "kvm1", "web", ofport=7, addresses=("10.0.0.5", "fd00::5"))
        made.network("small", "nat", subnets=["10.7.0.0/24"], mtu=1200)
        for host in ("kvm1", "kvm2"):
            made.port(f"on {host}", host, "small", ofport=9, addresses=(f"10.7.0.{host[-1]}",))
            made.floating_ip(host, "small", f"203.0.113.5{host[-1]}", {"address": f"10.7.0.{host[-1]}"})
        made.network("small6", "nat", subnets=["fd07::/64"], mtu=1290)
        made.port("six", "kvm1", "small6", ofport=10, addresses=("fd07::1",))
        made.floating_ip("six", "small6", "2001:db8::51", {"vnic": "six"})
        self.segments = dict(made.segment_numbers.taken)
        self._rows, self._fabric = made, Fabric()
        self._fabric.update(made.rows())
        self.sent: list[bytes] = []
        self.errors = IcmpErrors(self._fabric.reader, Ways(DELIVER, HOP, NAT_OUT), self._send)

    def _send(self, host: str, message: bytes) -> bool:
        assert host == "kvm1"
        self.sent.append(message)
        return True

    def resize(self, network: str, mtu: int) -> None:
        self._rows.put("Network", network, self._rows.networks[network].model_copy(update={"mtu": mtu}))
        self._fabric.update(self._rows.rows())
        self.errors.changed()

    def _packet_in(self, sent: bytes, in_port: int, **fields: int) -> PacketIn:
        segment = self.segments["web/0" if in_port == 7 else "@phys1/0/0"]
        terms = match(segment=segment, **fields).terms
        oxms = FIELDS["in_port"].encode(in_port) + b"".join(field.encode(value, mask) for field, value, mask in terms)
        return PacketIn(21, 1, 0, len(sent), oxms, sent)

    def unrouted(self, sent: bytes) -> bytes:
        """What the guest is told whose packet leads nowhere; nothing when it is told nothing."""
        self.sent.clear()
        self.errors.unrouted("kvm1", self._packet_in(sent, 7))
        return b"".join(self.sent)

    def told(self, sent: bytes, in_port: int, **fields: int) -> tuple[int, bytes] | None:
        """By which table the error to such a packet leaves, and the message that ends with the error."""
        self.sent.clear()
        self.errors.too_big("kvm1", self._packet_in(sent, in_port, **fields))
        if not self.sent:
            return None
        [message] = self.sent
        table = next(each for each in (DELIVER, HOP, NAT_OUT) if Resubmit(each).encode() in message)
        return table, message


@pytest.mark.parametrize(
    ("sent", "mtu", "by"),
    [
        (frame(bytes(1400)), 1300, "10.0.0.1"),
        (frame6(bytes(1400)), 1300, "fd00::1"),
        (frame(bytes(1400), dst="198.51.100.7"), 1350, "10.0.0.1"),
        (frame6(bytes(1400), dst="2001:db8:1::7"), 1350, "fd00::1"),
        (frame(bytes(1200), dst="203.0.113.51"), 1200, "10.0.0.1"),  # a floating address of this host
        (frame(bytes(1400), dst="203.0.113.52"), 1350, "10.0.0.1"),  # one of another
        (frame6(bytes(1400), dst="2001:db8::51"), 1290, "fd00::1"),
    ],
)
def test_a_guest_is_told_by_its_gateway_what_fits_where_it_sends(sent: bytes, mtu: int, by: str) -> None:
    table, message = Played().told(sent, 7) or (0, b"")
    assert table == DELIVER
    assert message.endswith(made(decode(sent), GATEWAY.mac, by, Why.TOO_BIG, mtu))


@pytest.mark.parametrize(("tracked", "table"), [(0, HOP), (TRACKED, NAT_OUT)])
@pytest.mark.parametrize(
    ("sent", "by"),
    [
        (frame(bytes(1400), src="198.51.100.7"), "203.0.113.11"),
        (frame6(bytes(1400), src="2001:db8:1::7"), "2001:db8::11"),
    ],
)
def test_a_machine_outside_is_told_by_the_host(sent: bytes, by: str, tracked: int, table: int) -> None:
    way, message = Played().told(sent, UPLINK, ct_state=tracked) or (0, b"")
    assert way == table
    assert message.endswith(made(decode(sent), "02:f5:00:00:01:00", by, Why.TOO_BIG, 1300))


@pytest.mark.parametrize(
    ("sent", "by", "mtu"),
    [
        (frame(bytes(1200), src="198.51.100.7", dst="203.0.113.51"), "203.0.113.11", 1200),
        (frame6(bytes(1280), src="2001:db8:1::7", dst="2001:db8::51"), "2001:db8::11", 1290),
    ],
)
def test_a_machine_outside_is_told_what_fits_where_a_floating_address_leads(sent: bytes, by: str, mtu: int) -> None:
    table, message = Played().told(sent, UPLINK) or (0, b"")
    assert table == HOP
    assert message.endswith(made(decode(sent), "02:f5:00:00:01:00", by, Why.TOO_BIG, mtu))


def test_nobody_is_told_of_what_fits_and_nobody_who_is_not_known() -> None:
    played = Played()
    assert played.told(frame(bytes(1280)), 7) is None
    assert played.told(frame(bytes(1400)), 8) is None
    assert played.told(frame(b"\x03\x04" + bytes(1400), protocol=ICMP), 7) is None


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (frame(dst="10.9.0.9"), Why.NO_HOST),
        (frame6(dst="fd09::9"), Why.NO_HOST),
        (frame(dst="10.50.0.7"), Why.NO_HOST),
        (frame(dst="10.0.0.9"), Why.PROHIBITED),
        (frame(dst="10.8.0.9"), Why.PROHIBITED),
        (frame6(dst="fd09:0:0:8::9"), Why.PROHIBITED),
        (frame(dst="198.51.100.9"), Why.NO_NETWORK),
        (frame(dst="10.9.0.9", ttl=1), Why.TIME_IS_OVER),
        (frame(dst="10.9.0.0"), None),
        (frame(dst="10.9.0.255"), None),
    ],
)
def test_a_guest_is_told_why_its_packet_leads_nowhere(sent: bytes, why: Why | None) -> None:
    by = "10.0.0.1" if sent[12:14] == b"\x08\x00" else "fd00::1"
    said = Played().unrouted(sent)
    assert said.endswith(made(decode(sent), GATEWAY.mac, by, why)) if why is not None else not said


def test_networks_are_looked_through_when_they_change_and_not_for_each_packet(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many packets as a guest likes: with a thousand networks each would take a fiftieth of a second."""
    played, looks = Played(), []
    networks = Reader.networks
    monkeypatch.setattr(Reader, "networks", lambda reader: looks.append(reader) or networks(reader))
    for number in range(9):
        assert played.told(frame(bytes(1400), dst=f"10.9.0.{number + 1}"), 7)
        assert played.unrouted(frame(dst=f"10.9.0.{number + 1}"))
    assert len(looks) == 1
    played.resize("api", 1440)
    assert played.told(frame(bytes(1400)), 7) is None
    assert len(looks) == 2


@given(st.binary(max_size=120), st.integers(0, 34))
def test_bytes_of_any_kind_are_told_of_or_refused(noise: bytes, kept: int) -> None:
    sent = frame()[:kept] + noise
    try:
        about = decode(sent)
    except PacketError:
        return
    assert 20 <= (sent[14] & 15) * 4 <= len(about.start) <= 548
    try:
        encode(about, Why.NO_HOST)
    except PacketError:
        assert str(about.source) in {"10.0.0.1", "10.0.1.1"}
