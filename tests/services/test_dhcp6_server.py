"""The DHCPv6 server: who gets which address, and that nobody gets another's."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv6Network

import pytest
from dhcp_pools import pool_of
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from controller.leases import Leases
from controller.model.lease import Lease
from controller.model.subnet import DhcpHost
from controller.services import dhcp6_message as message
from controller.services.dhcp6 import SILENCE, Answer6, Asked, Server6, answer, reserved_for
from controller.services.dhcp6_message import Association, Kind, Option, Request
from controller.services.pool import GRACE_SECONDS, Book

A, B, C = (f"52:54:00:00:00:0{n}" for n in "abc")
GATEWAY = "fd00::1"
HERE = "02:f5:00:00:00:01"


def server(*range6: str, **pool: dict[str, str]) -> Server6:
    ends = (range6[0], range6[1]) if range6 else ("fd00::10", "fd00::12")
    made = pool_of((ends,), pool.get("reserved", {}), {GATEWAY: "", **pool.get("taken", {})})
    return Server6("web", HERE, (IPv6Network("fd00::/64"),), made, 3600)


def duid(mac: str) -> bytes:
    return b"\0\3\0\1" + bytes.fromhex(mac.replace(":", ""))


class Talk:
    """A server and its book; what is to be written is written."""

    def __init__(self, it: Server6) -> None:
        self.server, self.leases, self.now = it, Leases(), 1000.0
        self.book = Book(self.leases, 6)

    def say(self, kind: Kind, mac: str = A, *named: str, **fields: object) -> Answer6:
        to = self.server.duid if kind in {Kind.REQUEST, Kind.RENEW, Kind.RELEASE, Kind.DECLINE} else b""
        plain = Request(kind, b"xid", duid(mac), to, (Association(7, named),))
        asked = Asked(replace(plain, **fields), mac, "fe80::9", f"port of {mac}")
        done = answer(self.server, self.book, asked, self.now)
        if done.lease is not None:
            self.leases[done.lease.ip] = done.lease
        if done.released is not None:
            del self.leases[done.released]
        return done

    def told(self, kind: Kind, mac: str = A, *named: str, **fields: object) -> dict[int, bytes]:
        """The answer's options, its kind as option 0; of several of one code the last."""
        reply = self.say(kind, mac, *named, **fields).reply
        assert reply is not None
        found, at = {0: reply.payload[:1]}, 4
        while at < len(reply.payload):
            code, size = (
                int.from_bytes(reply.payload[at : at + 2], "big"),
                int.from_bytes(reply.payload[at + 2 : at + 4], "big"),
            )
            found[code] = reply.payload[at + 4 : at + 4 + size]
            at += 4 + size
        return found

    def address(self, kind: Kind, mac: str = A, *named: str, **fields: object) -> str | None:
        """The address that the client may use by this answer."""
        body = self.told(kind, mac, *named, **fields).get(Option.IA_NA, b"")
        request = message.decode(b"\x01xid" + len(body).to_bytes(2, "big").join((b"\0\x03", b"")) + body)
        return next(
            (a for n, a in enumerate(request.associations[0].addresses) if any(body[36 + 28 * n : 40 + 28 * n])), None
        )

    def gets(self, mac: str, *wanted: str) -> str | None:
        """The address that a client ends up with."""
        offered = self.address(Kind.SOLICIT, mac, *wanted)
        return self.address(Kind.REQUEST, mac, offered) if offered is not None else None


def test_a_client_gets_an_address_and_what_goes_with_it() -> None:
    talk = Talk(replace(server(), domain="example.org", dns=("fd00::53",)))
    offered = talk.address(Kind.SOLICIT)
    assert offered is not None
    assert talk.leases == {}  # nothing is promised before it is asked for
    done = talk.say(Kind.REQUEST, A, offered, name="web1")
    lease = Lease(network="web", ip=offered, mac=A, port=f"port of {A}", name="web1", since=1000, expires=4600)
    assert talk.leases == {offered: lease}
    assert done.reply is not None
    assert (done.reply.eth_dst, done.reply.ipv6_dst, done.reply.udp_dst) == (A, "fe80::9", 546)
    assert (done.reply.eth_src, done.reply.ipv6_src) == (HERE, "fe80::f5:ff:fe00:1")
    told = talk.told(Kind.REQUEST, A, offered)
    assert (told[0], told[Option.CLIENT_ID], told[Option.SERVER_ID]) == (b"\x07", duid(A), duid(HERE))
    assert told[Option.DNS] == message.addresses(["fd00::53"])
    assert told[Option.DOMAIN_LIST] == message.domain("example.org")


def test_a_lease_is_called_as_its_reservation_calls_it() -> None:
    talk = Talk(replace(server(), name="printer"))
    talk.say(Kind.SOLICIT, A, rapid=True, name="web1")
    assert [lease.name for lease in talk.leases.values()] == ["printer"]


def test_a_lease_says_since_when_its_client_has_the_name() -> None:
    talk = Talk(server("fd00::10", "fd00::10"))

    def since(name: str) -> int:
        talk.now += 100
        talk.say(Kind.SOLICIT, A, rapid=True, name=name)
        return talk.leases["fd00::10"].since

    assert [since("one"), since("one"), since("two"), since("two")] == [1100, 1100, 1300, 1300]
    talk.now += 3601 + GRACE_SECONDS
    assert since("two") == talk.now


def test_who_wants_it_quick_gets_it_in_one_answer() -> None:
    talk = Talk(server())
    told = talk.told(Kind.SOLICIT, rapid=True)
    assert told[0] == bytes([Kind.REPLY])
    assert Option.RAPID_COMMIT in told
    assert [lease.mac for lease in talk.leases.values()] == [A]


def test_all_get_different_addresses_until_none_is_left() -> None:
    talk = Talk(server())
    assert {talk.gets(mac) for mac in (A, B, C)} == {"fd00::10", "fd00::11", "fd00::12"}
    fourth = "52:54:00:00:00:0d"
    assert talk.told(Kind.SOLICIT, fourth)[Option.IA_NA][-2:] == b"\0\2"  # none available
    talk.now += 3601 + GRACE_SECONDS
    assert talk.gets(fourth) is not None


def test_a_range_may_be_as_large_as_the_subnet() -> None:
    talk = Talk(server("fd00::2", "fd00::ffff:ffff:ffff:ffff"))
    assert len({talk.gets(f"52:54:00:00:01:{n:02x}") for n in range(100)}) == 100


def test_a_client_has_one_address_whatever_it_asks_for_and_calls_itself() -> None:
    talk = Talk(server("fd00::10", "fd00::90"))
    had = talk.gets(A)
    assert had is not None
    for n in range(0x10, 0x90):
        assert talk.address(Kind.REQUEST, A, f"fd00::{n:x}", client_id=duid(B)) == had
        assert talk.address(Kind.RENEW, A, f"fd00::{n:x}") == had
    assert list(talk.leases) == [had]
    talk.now += 100_000
    assert talk.gets(A) == had


def test_requests_that_come_before_the_first_lease_is_written_get_no_more() -> None:
    it, book, granted = server("fd00::10", "fd00::90"), Book(), set()
    for n in range(0x10, 0x90):
        request = Request(Kind.REQUEST, b"xid", duid(A), it.duid, (Association(7, (f"fd00::{n:x}",)),))
        done = answer(it, book, Asked(request, A, "fe80::9", "p"), 1000.0)
        granted.add(done.lease.ip if done.lease is not None else "")
    assert granted == {"fd00::10"}


def test_a_lease_is_renewed_by_its_client_alone() -> None:
    talk = Talk(server())
    address = talk.gets(A)
    assert address is not None
    talk.now += 1800
    for kind in (Kind.RENEW, Kind.REBIND):
        assert talk.address(kind, A, address) == address
    assert talk.leases[address].expires == 1000 + 1800 + 3600
    assert talk.address(Kind.RENEW, B, address) not in {None, address}
    assert talk.leases[address].mac == A


def test_what_can_no_longer_be_had_ends_when_it_is_renewed() -> None:
    talk = Talk(server("fd00::10", "fd00::10"))
    assert talk.gets(A) == "fd00::10"
    talk.server = replace(talk.server, pool=pool_of((), {}, {}))
    body = talk.told(Kind.RENEW, A, "fd00::10")[Option.IA_NA]
    assert body[16:].endswith(bytes([0x10]) + bytes(8))  # the address, for no second any more
    assert talk.told(Kind.RENEW, B)[Option.IA_NA][-2:] == b"\0\3"  # it has none


def test_who_comes_back_is_told_whether_its_address_is_of_this_wire() -> None:
    talk = Talk(server())
    assert talk.told(Kind.CONFIRM, A, "fd00::77")[Option.STATUS] == b"\0\0"
    assert talk.told(Kind.CONFIRM, A, "fd00::77", "fd01::77")[Option.STATUS] == b"\0\4"
    assert talk.say(Kind.CONFIRM, A) == SILENCE


def test_what_is_given_back_is_free_and_only_its_client_gives_it_back() -> None:
    talk = Talk(server("fd00::10", "fd00::10"))
    assert talk.gets(A) == "fd00::10"
    assert talk.told(Kind.RELEASE, B, "fd00::10")[Option.IA_NA][-2:] == b"\0\3"
    assert talk.gets(B) is None
    talk.say(Kind.RELEASE, A, "fd00::10")
    assert talk.gets(B) == "fd00::10"


def test_an_address_that_somebody_has_already_is_not_given_for_a_while() -> None:
    talk = Talk(server("fd00::10", "fd00::15"))
    seen = set()
    for _ in range(6):
        address = talk.gets(A)
        assert address is not None
        seen.add(address)
        talk.say(Kind.DECLINE, A, address)
    assert len(seen) == 5  # one client makes no more than four unusable
    talk.now += 601
    assert talk.gets(B) is not None


def test_what_is_reserved_or_registered_is_for_that_client_only() -> None:
    talk = Talk(server("fd00::10", "fd00::11", reserved={A: "fd00::10"}, taken={"fd00::50": B}))
    assert talk.gets(C, "fd00::10") == "fd00::11"
    assert (talk.gets(A), talk.gets(B)) == ("fd00::10", "fd00::50")
    assert talk.gets("52:54:00:00:00:0d", GATEWAY) is None


@pytest.mark.parametrize(
    ("mac", "client", "name", "address"),
    [
        (A, b"\0\3\0\1\1", "web", "fd00::a"),  # by its MAC, which nobody can say of himself
        (B, b"\0\3\0\1\1", "web", "fd00::b"),
        (B, b"\0\3\0\1\2", "web", "fd00::c"),
        (B, b"\0\3\0\1\2", "", None),
        (B, b"", "db", None),
    ],
)
def test_whose_reservation_it_is(mac: str, client: bytes, name: str, address: str | None) -> None:
    hosts = {
        host.client: host
        for host in (
            DhcpHost(name="Web", ip="fd00::c"),
            DhcpHost(id="0:3:0:1:1", ip="fd00::b"),
            DhcpHost(mac=A, ip="fd00::a", name="db"),
        )
    }
    asked = Asked(Request(Kind.SOLICIT, b"xid", client, b"", name=name), mac, "fe80::9", "p")
    found = reserved_for(hosts, asked)
    assert (found.ip if found is not None else None) == address


def test_what_is_for_another_server_or_from_nobody_is_left_alone() -> None:
    talk = Talk(server())
    for kind in (Kind.REQUEST, Kind.RENEW, Kind.RELEASE, Kind.DECLINE, Kind.INFORMATION_REQUEST):
        assert talk.say(kind, A, "fd00::10", server_id=duid(B)) == SILENCE
    for kind in (Kind.SOLICIT, Kind.REBIND, Kind.CONFIRM):
        assert talk.say(kind, A, "fd00::10", server_id=talk.server.duid) == SILENCE
    for kind in Kind:
        if kind is not Kind.INFORMATION_REQUEST:
            assert talk.say(kind, A, "fd00::10", client_id=b"") == SILENCE


def test_who_makes_its_address_itself_may_ask_for_the_rest() -> None:
    told = Talk(replace(server(), dns=("fd00::53",))).told(Kind.INFORMATION_REQUEST, client_id=b"", associations=())
    assert Option.IA_NA not in told
    assert Option.CLIENT_ID not in told
    assert Option.DNS in told


class Clients(RuleBasedStateMachine):
    """Whatever clients do, no two hold one address, and nobody holds what is not for it."""

    macs = st.sampled_from([A, B, C, "52:54:00:00:00:0d"])
    addresses = st.sampled_from([*(f"fd00::{n}" for n in ("1", "9", "10", "11", "12", "13", "50")), "fd07::1"])

    def __init__(self) -> None:
        super().__init__()
        self.talk = Talk(server(reserved={B: "fd00::11"}, taken={"fd00::50": C}))
        self.held: dict[str, tuple[str, float]] = {}

    @rule(mac=macs, wanted=addresses)
    def start(self, mac: str, wanted: str) -> None:
        self.hold(mac, self.talk.gets(mac, wanted))

    @rule(mac=macs, address=addresses, kind=st.sampled_from([Kind.REQUEST, Kind.RENEW, Kind.REBIND]))
    def ask_for(self, mac: str, address: str, kind: Kind) -> None:
        self.hold(mac, self.talk.address(kind, mac, address))

    @rule(mac=macs)
    def quickly(self, mac: str) -> None:
        self.hold(mac, self.talk.address(Kind.SOLICIT, mac, rapid=True))

    def hold(self, mac: str, address: str | None) -> None:
        if address is None:
            return
        owner, until = self.held.get(address, (mac, 0.0))
        assert owner == mac or until <= self.talk.now, f"{address} is {owner}'s and was given to {mac}"
        assert address != GATEWAY
        assert {"fd00::11": B, "fd00::50": C}.get(address, mac) == mac
        assert self.talk.leases[address].mac == mac  # what the client was told stands in the store
        self.held[address] = (mac, self.talk.now + 3600)

    @rule(mac=macs, address=addresses, kind=st.sampled_from([Kind.RELEASE, Kind.DECLINE]))
    def give_back(self, mac: str, address: str, kind: Kind) -> None:
        self.talk.say(kind, mac, address)
        if self.held.get(address, ("", 0))[0] == mac:
            del self.held[address]

    @rule(seconds=st.sampled_from([1, 29, 31, 1800, 3601]))
    def pass_time(self, seconds: int) -> None:
        self.talk.now += seconds


TestClients = Clients.TestCase
TestClients.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
