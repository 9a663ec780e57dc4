"""DNS on the wire: what is known, what is not, and what is somebody else's; nothing a guest sends harms."""

from __future__ import annotations

import struct
from typing import Any

import dns.edns
import dns.flags
import dns.message
import pytest
from dns.rcode import Rcode
from hypothesis import given
from hypothesis import strategies as st

from controller.errors import PacketError
from controller.model.network import NetworkSpec
from controller.services import dns_message as m
from controller.services.dns_zone import zone_of

HOSTS = [
    {"ip": "10.0.0.9", "names": ["printer"]},
    {"ip": "fd00::9", "names": ["both"]},
    {"ip": "10.0.0.10", "names": ["both"]},
    *({"ip": f"10.0.1.{n}", "names": ["crowd"]} for n in range(1, 101)),
]
SPEC: dict[str, Any] = {
    "domain": "example.org",
    "hosts": HOSTS,
    "txt": [{"name": "note", "value": "x" * 300}, {"name": "long", "value": "y" * 1000}],
    "srv": [
        {"service": "ldap", "protocol": "tcp", "target": "printer", "port": 389, "priority": 1, "weight": 2},
        {"service": "none", "protocol": "udp"},
    ],
}


def ask(
    name: str,
    kind: str = "A",
    *,
    asks: bool = False,
    plain: bool = True,
    room: int = 1232,
    spec: Any = None,
    **how: Any,
) -> dns.message.Message | None:
    """What a guest reads; None when somebody else is to be asked."""
    network = NetworkSpec.model_validate(
        {"mode": "isolated", "subnets": ["10.0.0.0/23"], "dns": {**SPEC, **(spec or {})}}
    )
    question = dns.message.make_query(name, kind, **how)
    query = m.decode(question.to_wire())
    found = m.find(zone_of("web", network, (), {}, 0.0), query, asks=asks, asks_plain=plain)
    if found is None:
        return None
    wire = m.encode(query, found, room)
    assert len(wire) <= room
    reply = dns.message.from_wire(wire)
    assert question.is_response(reply)
    return reply


def told(reply: dns.message.Message | None) -> list[str]:
    assert reply is not None
    return sorted(str(record) for each in reply.answer for record in each)


def is_ours(reply: dns.message.Message | None) -> bool:
    return reply is not None and bool(reply.flags & dns.flags.AA)


@pytest.mark.parametrize(
    ("name", "kind", "records"),
    [
        ("printer", "A", ["10.0.0.9"]),
        ("PRINTER.Example.org", "A", ["10.0.0.9"]),
        ("both", "AAAA", ["fd00::9"]),
        ("both", "ANY", ["10.0.0.10", "fd00::9"]),
        ("9.0.0.10.in-addr.arpa", "PTR", ["printer.example.org."]),
        ("_ldap._tcp.example.org", "SRV", ["1 2 389 printer.example.org."]),
        ("_none._udp.example.org", "SRV", ["0 0 0 ."]),
        ("note.example.org", "TXT", [f'"{"x" * 255}" "{"x" * 45}"']),
    ],
)
def test_what_is_known(name: str, kind: str, records: list[str]) -> None:
    reply = ask(name, kind)
    assert told(reply) == records
    assert is_ours(reply)


@pytest.mark.parametrize(
    ("name", "kind", "rcode", "domain"),
    [
        ("printer.example.org", "AAAA", Rcode.NOERROR, "example.org."),
        ("nobody.example.org", "A", Rcode.NXDOMAIN, "example.org."),
        ("_tcp.example.org", "SRV", Rcode.NOERROR, "example.org."),  # RFC 8020: there is something below it
        ("example.org", "A", Rcode.NOERROR, "example.org."),
        ("8.0.0.10.in-addr.arpa", "PTR", Rcode.NXDOMAIN, "0.0.10.in-addr.arpa."),
        ("9.0.0.10.in-addr.arpa", "A", Rcode.NOERROR, "0.0.10.in-addr.arpa."),
    ],
)
@pytest.mark.parametrize("asks", [True, False])
def test_what_is_not_there_is_denied_for_a_short_while(
    name: str, kind: str, rcode: Rcode, domain: str, asks: bool
) -> None:
    reply = ask(name, kind, asks=asks, spec={"local_only": True})
    assert reply is not None
    assert reply.rcode() == rcode
    assert is_ours(reply)
    assert not reply.answer
    (soa,) = reply.authority
    assert soa.name.to_text() == domain
    assert soa.ttl == soa[0].minimum == m.NEGATIVE_TTL


def test_the_domain_has_an_soa() -> None:
    assert told(ask("example.org", "SOA", spec={"local_only": True}))[0].startswith("example.org. nobody.invalid.")


@pytest.mark.parametrize(
    ("name", "kind", "how", "others"),
    [
        ("www.example.com", "A", {}, True),
        ("nobody.example.org", "A", {}, True),  # others may know more of the domain
        ("nobody.example.org", "A", {"spec": {"local_only": True}}, False),
        ("nobody", "A", {}, True),
        ("nobody", "A", {"plain": False}, False),
        ("printer.example.org", "AAAA", {}, False),
        ("printer", "TXT", {}, True),  # a guest that calls itself com hides nothing of com
        ("77.0.0.10.in-addr.arpa", "PTR", {}, False),
        ("77.0.9.10.in-addr.arpa", "PTR", {}, True),
        (".", "NS", {}, True),
        (".", "NS", {"plain": False}, True),
        (r"a\.0.0.10.in-addr.arpa", "PTR", {}, True),  # a.0 is one label
    ],
)
def test_what_others_are_asked_about(name: str, kind: str, how: dict[str, Any], others: bool) -> None:
    assert (ask(name, kind, asks=True, **how) is None) == others


@pytest.mark.parametrize(
    ("name", "rcode"),
    [("www.example.com", Rcode.REFUSED), ("nobody", Rcode.NXDOMAIN), ("nobody.example.org", Rcode.NXDOMAIN)],
)
def test_when_there_is_nobody_to_ask(name: str, rcode: Rcode) -> None:
    reply = ask(name)
    assert reply is not None
    assert reply.rcode() == rcode


@pytest.mark.parametrize(
    ("kind", "how", "rcode"),
    [
        ("AXFR", {}, Rcode.REFUSED),
        ("TXT", {"rdclass": "CH"}, Rcode.REFUSED),
        ("A", {"use_edns": 1}, Rcode.BADVERS),
    ],
)
def test_what_is_not_spoken(kind: str, how: dict[str, Any], rcode: Rcode) -> None:
    reply = ask("printer", kind, asks=True, **how)
    assert reply is not None
    assert reply.rcode() == rcode


@pytest.mark.parametrize(
    ("name", "kind", "how", "cut"),
    [
        ("crowd", "A", {}, True),
        ("crowd", "A", {"use_edns": 0, "payload": 600}, True),
        ("long", "TXT", {"use_edns": 0, "payload": 4096}, False),
        ("long", "TXT", {"use_edns": 0, "payload": 4096, "room": 548}, True),  # what the network's MTU lets through
        ("long", "TXT", {"use_edns": 0, "payload": 1}, True),
        ("note", "TXT", {}, False),
    ],
)
def test_an_answer_that_does_not_fit_says_so(name: str, kind: str, how: dict[str, Any], cut: bool) -> None:
    reply = ask(name, kind, **how)
    assert reply is not None
    assert bool(reply.flags & dns.flags.TC) == cut
    assert bool(reply.answer) != cut
    assert (reply.edns == 0) == ("use_edns" in how)


QUESTION = dns.message.make_query("printer", "A", use_edns=0, id=1).to_wire()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        QUESTION[:11],
        QUESTION[:20],
        QUESTION + bytes(500),
        QUESTION[:2] + b"\x80" + QUESTION[3:],  # an answer
        QUESTION[:2] + b"\x28" + QUESTION[3:],  # an update
        QUESTION[:4] + b"\0\2" + QUESTION[6:],  # two questions
        QUESTION[:12] + b"\xc0\x0c" + QUESTION[-4:],  # a name that is itself
    ],
)
def test_what_is_no_question(payload: bytes) -> None:
    with pytest.raises(PacketError):
        m.decode(payload)


def mangled(wire: bytes) -> st.SearchStrategy[bytes]:
    """Questions with some bytes changed, cut, or with something behind."""

    def change(edits: list[tuple[int, int]], end: int, more: bytes) -> bytes:
        made = bytearray(wire)
        for at, value in edits:
            made[at % len(made)] = value
        return bytes(made[: end % (len(made) + 1)] if end % 3 == 0 else made) + more

    edits = st.lists(st.tuples(st.integers(0, 511), st.integers(0, 255)), max_size=5)
    return st.builds(change, edits, st.integers(0, 511), st.binary(max_size=60))


def extras() -> st.SearchStrategy[bytes]:
    """A right question with records of any type behind it."""
    one = st.builds(
        lambda owner, kind, rdclass, ttl, body: owner + struct.pack("!HHIH", kind, rdclass, ttl, len(body)) + body,
        st.sampled_from([b"\0", b"\xc0\x0c"]), st.one_of(st.integers(0, 70), st.integers(0, 65535)),
        st.sampled_from([1, 255, 4096]), st.sampled_from([0, 1 << 15, 1 << 16]),
        st.one_of(st.binary(max_size=200), st.just(b"\xc0\x0c" * 90)),
    )  # fmt: skip
    head = struct.pack("!HHHHH", 1, 0x0100, 1, 0, 0)
    question = b"\7printer\0\0\1\0\1"
    return st.lists(one, min_size=1, max_size=2).map(
        lambda found: head + struct.pack("!H", len(found)) + question + b"".join(found)
    )


@given(st.one_of(st.binary(max_size=600), mangled(QUESTION), extras()))
def test_whatever_a_guest_sends_is_answered_in_its_size_or_refused(payload: bytes) -> None:
    zone = zone_of("web", NetworkSpec.model_validate({"mode": "isolated", "subnets": ["10.0.0.0/24"]}), (), {}, 0.0)
    try:
        query = m.decode(payload)
    except PacketError:
        return
    found = m.find(zone, query, asks=True, asks_plain=True)
    if found is None:
        sent = m.asking(query, 7, 1232)
        assert len(sent) <= m.LONGEST_QUESTION
        assert m.answers(sent, sent[:2] + b"\x80" + sent[3:])
    else:
        assert len(m.encode(query, found, 1232)) <= max(query.room, m.LONGEST_QUESTION)


def test_others_are_asked_in_our_own_words() -> None:
    """EDNS options such as a client's subnet or cookie go nowhere; its size and flags count."""
    wire = dns.message.make_query(
        "WWW.example.com", "AAAA", payload=4096, want_dnssec=True, options=[dns.edns.GenericOption(10, b"12345678")]
    ).to_wire()
    sent = dns.message.from_wire(m.asking(m.decode(wire), 77, 1200))
    assert (sent.id, sent.payload, sent.options) == (77, 1200, ())
    assert sent.ednsflags & dns.flags.DO
    assert str(sent.question[0]) == "WWW.example.com. IN AAAA"
    plain = dns.message.from_wire(m.asking(m.decode(dns.message.make_query("a.b", "A").to_wire()), 1, 1200))
    assert plain.edns == -1


def test_only_the_answer_to_the_question_is_taken() -> None:
    question = dns.message.make_query("www.example.com", "A", id=5)
    sent = question.to_wire()
    right = dns.message.make_response(question).to_wire()
    assert m.answers(sent, right)
    assert m.answers(sent, right.replace(b"example", b"EXAMPLE"))
    assert not m.answers(sent, sent)
    assert not m.answers(sent, b"\0\6" + right[2:])
    assert not m.answers(sent, right[:12])
    assert not m.answers(sent, right.replace(b"example", b"exbmple"))
    assert not m.answers(sent, right[:-4] + b"\0\x41\0\1")
    assert not m.answers(sent, b"")


@given(st.binary(max_size=80))
def test_anything_may_come_from_others(reply: bytes) -> None:
    query = m.decode(dns.message.make_query("www.example.com", "A").to_wire())
    sent = m.asking(query, 5, 1232)
    for each in (reply, sent[:2] + b"\x80" + reply, sent[:2] + b"\x80" + sent[3:] + reply * 10):
        if m.answers(sent, each):
            passed = m.passed_on(query, sent, each, 1232)
            assert len(passed) <= m.LONGEST_QUESTION
            assert passed[:2] == query.message.id.to_bytes(2, "big")


def test_an_answer_of_others_that_is_too_large_is_cut_to_its_question() -> None:
    asked = dns.message.make_query("www.example.com", "A")
    query = m.decode(asked.to_wire())
    sent = m.asking(query, 5, 1232)
    large = sent[:2] + b"\x81\x80" + sent[4:] + bytes(600)
    passed = dns.message.from_wire(m.passed_on(query, sent, large, 1232))
    assert asked.is_response(passed)
    assert passed.flags & dns.flags.TC
