"""BGP messages: ours are what os-ken reads, what routers send is read as os-ken wrote it, and nonsense does no harm."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from os_ken.lib.packet import bgp

from controller.bgp import messages
from controller.bgp.messages import Kind, Open
from controller.errors import BgpError

AS2, AS4 = 64512, 4200000001
PREFIXES = st.builds(
    lambda bits, length: str(IPv4Network((bits >> (32 - length) << (32 - length), length))),
    st.integers(0, 2**32 - 1), st.integers(0, 32),
)  # fmt: skip
PREFIXES6 = st.builds(
    lambda bits, length: str(IPv6Network((bits >> (128 - length) << (128 - length), length))),
    st.integers(0, 2**128 - 1), st.integers(0, 128),
)  # fmt: skip
HOPS = st.sampled_from(["203.0.113.11", "203.0.113.12", "203.0.113.13"])
HOPS6 = st.sampled_from(["2001:db8::11", "2001:db8::12"])
WAYS = st.builds(
    lambda of4, of6: of4 | of6,
    st.dictionaries(PREFIXES, HOPS, max_size=30),
    st.dictionaries(PREFIXES6, HOPS6, max_size=30),
)


def read_by_os_ken(stream: bytes) -> Iterator[bgp.BGPMessage]:
    while stream:
        assert len(stream) >= int.from_bytes(stream[16:18], "big") <= messages.MOST_BYTES
        message, _, stream = bgp.BGPMessage.parser(stream)
        yield message


def prefixes(routes: Iterable[Any]) -> list[str]:
    """As we write them: os-ken has ``::0.1.0.0/112`` where we have ``::1:0/112``."""
    return [str(ip_network(route.prefix)) for route in routes]


def body(message: bytes) -> bytes:
    kind, size = messages.read_header(message[: messages.HEADER_BYTES])
    assert len(message) == messages.HEADER_BYTES + size, kind
    return message[messages.HEADER_BYTES :]


@pytest.mark.parametrize("asn", [AS2, AS4])
@pytest.mark.parametrize("restarted", [False, True])
def test_os_ken_reads_what_we_say_of_ourselves(asn: int, restarted: bool) -> None:
    (read,) = read_by_os_ken(messages.open_message(asn, 90, "192.0.2.1", 120, restarted))
    assert (read.version, read.hold_time, read.bgp_identifier) == (4, 90, "192.0.2.1")
    assert read.my_as == (asn if asn < 2**16 else 23456)
    graceful = read.get_opt_param_cap(bgp.BGP_CAP_GRACEFUL_RESTART)
    assert (graceful.flags, graceful.time, graceful.tuples) == (
        8 if restarted else 0,
        120,
        [(1, 1, 0x80), (2, 1, 0x80)],
    )
    assert read.get_opt_param_cap(bgp.BGP_CAP_FOUR_OCTET_AS_NUMBER).as_number == asn
    families = [each for each in read.opt_param if each.cap_code == bgp.BGP_CAP_MULTIPROTOCOL]
    assert [(each.afi, each.safi) for each in families] == [(1, 1), (2, 1)]
    assert read.get_opt_param_cap(bgp.BGP_CAP_ROUTE_REFRESH) is not None


@given(WAYS, st.sets(st.one_of(PREFIXES, PREFIXES6), max_size=30), st.booleans())
def test_os_ken_reads_what_we_announce_and_withdraw(
    announced: dict[str, str], withdrawn: set[str], internal: bool
) -> None:
    found: dict[str, str] = {}
    gone: list[str] = []
    for update in read_by_os_ken(b"".join(messages.updates(announced, withdrawn, AS4, internal))):
        attributes = update.pathattr_map
        gone += prefixes(update.withdrawn_routes)
        if (unreach := attributes.get(bgp.BGP_ATTR_TYPE_MP_UNREACH_NLRI)) is not None:
            gone += prefixes(unreach.withdrawn_routes)
        reach = attributes.get(bgp.BGP_ATTR_TYPE_MP_REACH_NLRI)
        routes = update.nlri if reach is None else reach.nlri
        if not routes:
            continue
        assert attributes[bgp.BGP_ATTR_TYPE_ORIGIN].value == bgp.BGP_ATTR_ORIGIN_IGP
        assert attributes[bgp.BGP_ATTR_TYPE_AS_PATH].value == ([] if internal else [[AS4]])
        assert (bgp.BGP_ATTR_TYPE_LOCAL_PREF in attributes) == internal
        hop = attributes[bgp.BGP_ATTR_TYPE_NEXT_HOP].value if reach is None else reach.next_hop
        assert not found.keys() & set(prefixes(routes))
        found |= dict.fromkeys(prefixes(routes), hop)
    assert found == announced
    assert sorted(gone) == sorted(withdrawn)


def test_many_routes_are_several_messages() -> None:
    announced = {f"10.1.{n // 256}.{n % 256}/32": "203.0.113.11" for n in range(2000)}
    sent = list(messages.updates(announced, announced, AS4, internal=False))
    assert len(sent) == 6
    assert max(map(len, sent)) <= messages.MOST_BYTES
    of6 = {f"fd00::{n:x}/128": "2001:db8::11" for n in range(2000)}
    assert all(len(each) <= messages.MOST_BYTES for each in messages.updates(of6, of6, AS4, internal=True))
    assert sum(messages.count_routes(body(each)) for each in sent) == 2000


@given(
    st.integers(1, 65535), st.integers(0, 65535), st.one_of(st.none(), st.integers(1, 2**32 - 1)),
    st.one_of(st.none(), st.integers(0, 4095)), st.booleans(),
)  # fmt: skip
def test_what_a_router_says_of_itself(
    short: int, hold_time: int, asn: int | None, restart_time: int | None, together: bool
) -> None:
    capabilities = [bgp.BGPOptParamCapabilityUnknown(cap_code=73, cap_value=b"\x04edge\x00")]
    if asn is not None:
        capabilities.append(bgp.BGPOptParamCapabilityFourOctetAsNumber(as_number=asn))
    if restart_time is not None:
        capabilities.append(bgp.BGPOptParamCapabilityGracefulRestart(flags=0, time=restart_time, tuples=[(1, 1, 0)]))
    written = bgp.BGPOpen(short, "192.0.2.9", hold_time=hold_time, opt_param=capabilities).serialize()
    if together:  # one parameter with all capabilities, as some routers have it
        each = b"".join(bytes(capability.serialize()[2:]) for capability in capabilities)
        head = bytes(written[19:28])
        written = _framed(head + bytes([len(each) + 2, 2, len(each)]) + each)
    expected = Open(short if asn is None else asn, hold_time, "192.0.2.9", asn is not None, restart_time=restart_time)
    assert messages.read_open(body(bytes(written))) == expected


def test_parameters_of_more_than_255_octets() -> None:
    capability = bytes([65, 4]) + AS4.to_bytes(4, "big")
    parameters = bytes([2]) + len(capability).to_bytes(2, "big") + capability
    head = bytes([4, 0x5B, 0xA0, 0, 90, 192, 0, 2, 9])
    opened = messages.read_open(head + bytes([255, 255]) + len(parameters).to_bytes(2, "big") + parameters)
    assert (opened.asn, opened.four_octets) == (AS4, True)


def _framed(data: bytes) -> bytes:
    return b"\xff" * 16 + (len(data) + 19).to_bytes(2, "big") + bytes([Kind.OPEN]) + data


@pytest.mark.parametrize(
    ("header", "answer"),
    [
        (bytes(16) + b"\0\x13\x04", (1, 1)),
        (b"\xff" * 16 + b"\0\x12\x04", (1, 2)),
        (b"\xff" * 16 + b"\0\x14\x04", (1, 2)),
        (b"\xff" * 16 + b"\x10\x01\x02", (1, 2)),
        (b"\xff" * 16 + b"\0\x1c\x01", (1, 2)),
        (b"\xff" * 16 + b"\0\x13\x06", (1, 3)),
    ],
)
def test_headers_that_make_no_sense(header: bytes, answer: tuple[int, int]) -> None:
    with pytest.raises(BgpError) as caught:
        messages.read_header(header)
    assert tuple(caught.value.answer[19:21]) == answer


LEAST = {Kind.OPEN: 10, Kind.UPDATE: 4, Kind.NOTIFICATION: 2}


@settings(max_examples=500)
@given(st.sampled_from(list(LEAST)), st.binary(max_size=300), st.data())
def test_a_body_of_anything_is_read_or_refused(kind: Kind, data: bytes, more: st.DataObject) -> None:
    data = data.ljust(LEAST[kind], b"\0")
    if kind == Kind.OPEN and more.draw(st.booleans()):  # far enough for the parameters to be looked at
        data = bytes([4]) + data[1:9] + bytes([min(255, len(data) - 10)]) + data[10:265]
    with contextlib.suppress(BgpError):
        if kind == Kind.OPEN:
            assert 0 <= messages.read_open(data).asn < 2**32
        elif kind == Kind.UPDATE:
            assert 0 <= messages.count_routes(data) <= len(data)
        else:
            assert messages.said(data)


@given(st.binary(min_size=19, max_size=19))
def test_a_header_of_anything_is_read_or_refused(data: bytes) -> None:
    for each in (data, b"\xff" * 16 + data[16:]):
        with contextlib.suppress(BgpError):
            kind, size = messages.read_header(each)
            assert LEAST.get(kind, 0) <= size <= messages.MOST_BYTES - messages.HEADER_BYTES


@pytest.mark.parametrize(
    ("code", "words"),
    [((2, 2), "local_as is not the AS that it expects"), ((6, 5), "no neighbour"), ((4, 9), "error 4/9"),
     ((3, 5), "error 3/5 with our UPDATE"), ((99, 1), "error 99/1")],
)  # fmt: skip
def test_why_a_router_ends_it(code: tuple[int, int], words: str) -> None:
    assert words in messages.said(bytes(code) + b"\xff\xfe")
