"""DNS messages (RFC 1035, 6891): what a guest asks, and what it is answered from what its network knows.

A guest may send anything. Only a message of a question's size and shape is given to dnspython: one question, no
answers, and nothing behind it but EDNS, so that reading it takes no longer than writing it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TXT
import dns.rrset
from dns.rcode import Rcode
from dns.rdatatype import RdataType

from controller.errors import PacketError
from controller.services.dns_zone import Zone

PORT = 53
TTL, NEGATIVE_TTL = 10, 5  # seconds; guests come and go
LONGEST_QUESTION = 512  # bytes (RFC 1035, 4.2.1)
LARGEST = 1232  # bytes of an answer that no path breaks into fragments (DNS flag day 2020)

_HEADER = struct.Struct("!HHHHHH")
_RESPONSE, _OPCODE, _TRUNCATED = 0x8000, 0x7800, 0x0200
_MOST_EXTRAS = 2  # EDNS, and a signature
_ADDRESSES = (RdataType.A, RdataType.AAAA)
# Transfers and what means no records (RFC 6895, 3.1).
_REFUSED_TYPES = frozenset({0, RdataType.OPT, *range(249, 255)})


@dataclass(frozen=True, slots=True)
class Query:
    """A question. ``name`` is text in lower case without the dot at the end; ``room`` is how many bytes of an answer
    the asker takes."""

    message: dns.message.Message
    name: str
    rdtype: RdataType
    room: int

    @property
    def question(self) -> dns.rrset.RRset:
        return self.message.question[0]


@dataclass(frozen=True, slots=True)
class Found:
    """An answer from what is known here; ``domain`` is the one in which there is nothing like that."""

    rcode: Rcode
    records: tuple[dns.rdata.Rdata, ...] = ()
    domain: str | None = None
    ours: bool = True


REFUSED = Found(Rcode.REFUSED, ours=False)
FAILED = Found(Rcode.SERVFAIL, ours=False)


def decode(payload: bytes) -> Query:
    """A guest's question. Raises PacketError for what is none."""
    if not _HEADER.size < len(payload) <= LONGEST_QUESTION:
        raise PacketError(f"{len(payload)} bytes are no question")
    _, flags, questions, answers, authorities, extras = _HEADER.unpack_from(payload)
    if flags & (_RESPONSE | _OPCODE) or (questions, answers, authorities) != (1, 0, 0) or extras > _MOST_EXTRAS:
        raise PacketError(f"flags {flags:#06x}, {questions}+{answers}+{authorities}+{extras} records are no question")
    try:
        message = dns.message.from_wire(payload)
    except (dns.exception.DNSException, ValueError) as error:
        raise PacketError(f"is no DNS: {error!r}") from None
    asked = message.question[0]
    room = max(message.payload, LONGEST_QUESTION) if message.edns >= 0 else LONGEST_QUESTION
    return Query(message, _text(asked.name), asked.rdtype, min(room, LARGEST))


def find(zone: Zone, query: Query, *, asks: bool, asks_plain: bool) -> Found | None:
    """What is known here; None where somebody else is to be asked. ``asks`` says that there is somebody,
    ``asks_plain`` that he is asked about names without a dot as well."""
    if query.message.edns > 0:
        return Found(Rcode.BADVERS, ours=False)
    if query.question.rdclass != dns.rdataclass.IN or query.rdtype in _REFUSED_TYPES:
        return REFUSED
    name, domain = query.name, zone.domain_of(query.name, asks=asks)
    records = tuple(_records(zone, name, domain, query.rdtype))
    if records:
        return Found(Rcode.NOERROR, records)
    addressed = name in zone.addresses and query.rdtype in _ADDRESSES
    others = asks and (asks_plain or "." in name or not name)  # the root is no plain name
    if domain is None and others and not addressed:
        return None
    if zone.has(name) or (domain is not None and (name == domain or name in zone.inner)):
        return Found(Rcode.NOERROR, domain=domain)
    if domain is not None or ("." not in name and name):
        return Found(Rcode.NXDOMAIN, domain=domain)
    return REFUSED


def encode(query: Query, found: Found, room: int) -> bytes:
    """The answer in at most ``room`` bytes; one that does not fit is cut to nothing, and says so (RFC 2181, 9)."""
    reply = dns.message.make_response(query.message, recursion_available=True, our_payload=LARGEST)
    reply.set_rcode(found.rcode)
    if found.ours:
        reply.flags |= dns.flags.AA
    for record in found.records:
        section = reply.find_rrset(reply.answer, query.question.name, dns.rdataclass.IN, record.rdtype, create=True)
        section.add(record, TTL)
    if found.domain is not None and not found.records:
        owner = dns.name.from_text(found.domain)
        reply.find_rrset(reply.authority, owner, dns.rdataclass.IN, RdataType.SOA, create=True).add(
            _soa(found.domain), NEGATIVE_TTL
        )
    try:
        return reply.to_wire(max_size=min(query.room, room))
    except dns.exception.TooBig:
        reply.answer, reply.authority = [], []
        reply.flags |= dns.flags.TC
        return reply.to_wire(max_size=LONGEST_QUESTION)


def asking(query: Query, number: int, room: int) -> bytes:
    """The question as somebody else is asked it: what else the guest wrote is left out."""
    flags = query.message.flags & (dns.flags.RD | dns.flags.AD | dns.flags.CD)
    made = dns.message.make_query(query.question.name, query.rdtype, id=number, flags=flags)
    if query.message.edns >= 0:
        wants_signatures = query.message.ednsflags & dns.flags.DO
        made.use_edns(0, ednsflags=wants_signatures, payload=min(query.room, room))
    return made.to_wire()


def answers(question: bytes, reply: bytes) -> bool:
    """Whether the reply is to this question: its number, and the question itself, letters of either case."""
    if len(reply) < _HEADER.size:
        return False
    number, flags, questions, *_ = _HEADER.unpack_from(reply)
    end = _end_of_question(question)
    asked, said = question[_HEADER.size : end], reply[_HEADER.size : end]
    same = asked[:-4].lower() == said[:-4].lower() and asked[-4:] == said[-4:]
    return bool(flags & _RESPONSE) and questions == 1 and number == int.from_bytes(question[:2], "big") and same


def passed_on(query: Query, question: bytes, reply: bytes, room: int) -> bytes:
    """Somebody else's reply to the question, as the guest gets it."""
    number = query.message.id.to_bytes(2, "big")
    if len(reply) <= min(query.room, room):
        return number + reply[2:]
    flags = int.from_bytes(reply[2:4], "big") | _TRUNCATED
    return number + _HEADER.pack(0, flags, 1, 0, 0, 0)[2:] + question[_HEADER.size : _end_of_question(question)]


def rcode_of(reply: bytes) -> int:
    """The response code in the header of a reply that ``answers`` took."""
    return reply[3] & 15


def _text(name: dns.name.Name) -> str:
    """A name as text. A dot within a label, which may hold any byte (RFC 2181, 11), is made something else."""
    return b".".join(label.replace(b".", b"\0") for label in name.labels[:-1]).lower().decode("latin-1")


def _end_of_question(question: bytes) -> int:
    """Where the question of a message ends that we made ourselves."""
    at = _HEADER.size
    while question[at]:
        at += question[at] + 1
    return at + 5


def _records(zone: Zone, name: str, domain: str | None, rdtype: RdataType) -> Iterator[dns.rdata.Rdata]:
    """What is known at a name, of one type or, with ANY, of all."""

    def wanted(kind: RdataType) -> bool:
        return rdtype in {kind, RdataType.ANY}

    for address in zone.addresses.get(name, ()):
        kind = RdataType.AAAA if ":" in address else RdataType.A
        if wanted(kind):
            yield dns.rdata.from_text(dns.rdataclass.IN, kind, address)
    if wanted(RdataType.PTR) and name in zone.pointers:
        yield dns.rdata.from_text(dns.rdataclass.IN, RdataType.PTR, f"{zone.pointers[name]}.")
    if wanted(RdataType.TXT):
        for text in zone.texts.get(name, ()):
            value = text.encode()
            parts = [value[at : at + 255] for at in range(0, len(value), 255)]
            yield dns.rdtypes.ANY.TXT.TXT(dns.rdataclass.IN, RdataType.TXT, parts)
    if wanted(RdataType.SRV):
        for each in zone.services.get(name, ()):
            text = f"{each.priority} {each.weight} {each.port} {each.target}."
            yield dns.rdata.from_text(dns.rdataclass.IN, RdataType.SRV, text)
    if wanted(RdataType.SOA) and name == domain:
        yield _soa(name)


def _soa(domain: str) -> dns.rdata.Rdata:
    """RFC 2308, 5: for how long it is remembered that there is nothing stands in its last field."""
    text = f"{domain}. nobody.invalid. 1 3600 600 86400 {NEGATIVE_TTL}"
    return dns.rdata.from_text(dns.rdataclass.IN, RdataType.SOA, text)
