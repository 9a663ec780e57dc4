"""The DHCP server: who gets which address, and that nobody gets another's."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network

import pytest
from dhcp_pools import pool_of
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from controller.leases import Leases
from controller.model.lease import Lease
from controller.model.subnet import MOST_ROUTES, Boot, GuestRoute
from controller.services import dhcp_message as message
from controller.services.dhcp import SILENCE, Answer, Server, answer
from controller.services.dhcp_message import NOBODY, Kind, Option, Request
from controller.services.offers import OFFER_SECONDS
from controller.services.pool import GRACE_SECONDS, Book

A, B, C = (f"52:54:00:00:00:0{n}" for n in "abc")
GATEWAY = "10.0.0.1"


def server(*ranges: tuple[str, str], **pool: dict[str, str]) -> Server:
    made = pool_of(
        ranges or (("10.0.0.10", "10.0.0.12"),), pool.get("reserved", {}), {GATEWAY: "", **pool.get("taken", {})}
    )
    return Server("web", "02:f5:00:00:00:01", (IPv4Interface("10.0.0.1/24"),), made, 3600, 1450, router=True)


def ask(kind: Kind, mac: str = A, **fields: object) -> Request:
    plain = Request(kind, 1, False, NOBODY, NOBODY, mac, None, None, b"", "", frozenset())
    return replace(plain, **fields)


class Talk:
    """A server and its book; what is to be written is written."""

    def __init__(self, it: Server) -> None:
        self.server, self.leases, self.now = it, Leases(), 1000.0
        self.book = Book(self.leases)

    def say(self, request: Request) -> Answer:
        done = answer(self.server, self.book, request, f"port of {request.chaddr}", self.now)
        if done.lease is not None:
            self.leases[done.lease.ip] = done.lease
        if done.released is not None:
            del self.leases[done.released]
        return done

    def told(self, request: Request) -> tuple[Kind, str, dict[int, bytes]] | None:
        """Kind, address and options of the answer, read as a client reads it."""
        reply = self.say(request).reply
        if reply is None:
            return None
        body = reply.payload
        found, at = {}, 240
        while body[at] != 255:
            found[body[at]] = body[at + 2 : at + 2 + body[at + 1]]
            at += 2 + body[at + 1]
        return Kind(found[Option.KIND][0]), ".".join(map(str, body[16:20])), found

    def gets(self, mac: str, wanted: str | None = None) -> str | None:
        """The address that a client ends up with, by an offer."""
        offer = self.told(ask(Kind.DISCOVER, mac, requested=wanted))
        if offer is None:
            return None
        kind, address, _ = self.told(ask(Kind.REQUEST, mac, requested=offer[1], server=GATEWAY)) or (None, None, None)
        return address if kind is Kind.ACK else None


def test_a_client_gets_an_address_and_what_goes_with_it() -> None:
    talk = Talk(replace(server(), domain="example.org", dns=("10.0.0.53",)))
    offered = talk.told(ask(Kind.DISCOVER))
    assert offered is not None
    assert talk.leases == {}  # nothing is promised before it is asked for
    kind, address, told = talk.told(ask(Kind.REQUEST, requested=offered[1], server=GATEWAY, host_name="web1")) or (
        0,
        0,
        {},
    )
    assert (kind, address) == (Kind.ACK, offered[1])
    assert told[Option.SUBNET_MASK] == bytes([255, 255, 255, 0])
    assert told[Option.ROUTER] == told[Option.SERVER] == bytes([10, 0, 0, 1])
    assert told[Option.LEASE] == message.seconds(3600)
    assert told[Option.MTU] == (1450).to_bytes(2, "big")
    assert (told[Option.DOMAIN_NAME], told[Option.DNS]) == (b"example.org", bytes([10, 0, 0, 53]))
    lease = Lease(network="web", ip=address, mac=A, port=f"port of {A}", name="web1", since=1000, expires=4600)
    assert talk.leases == {address: lease}


def test_the_gateway_is_the_name_server_unless_another_is_named() -> None:
    for dns, answers, said in (((), True, [10, 0, 0, 1]), (("10.0.0.53",), True, [10, 0, 0, 53]), ((), False, None)):
        told = Talk(replace(server(), dns=dns, answers_dns=answers)).told(ask(Kind.DISCOVER))
        assert told is not None
        assert told[2].get(Option.DNS) == (bytes(said) if said else None)


def test_a_lease_says_since_when_its_client_has_the_name() -> None:
    talk = Talk(server())
    address = talk.gets(A)

    def since(name: str) -> int:
        talk.now += 100
        talk.say(ask(Kind.REQUEST, ciaddr=address, host_name=name))
        return talk.leases[address].since

    assert [since("one"), since("one"), since("two"), since("two")] == [1100, 1100, 1300, 1300]
    talk.now += 3601 + GRACE_SECONDS
    assert since("two") == talk.now


def test_firmware_that_has_no_name_leaves_its_guest_the_name() -> None:
    talk = Talk(server())
    address = talk.gets(A)
    talk.say(ask(Kind.REQUEST, A, ciaddr=address, host_name="web1"))
    talk.now += 100
    assert talk.say(ask(Kind.REQUEST, A, requested=address)).lease is None  # nothing to write, however often it boots
    talk.now += 1700
    talk.say(ask(Kind.REQUEST, A, requested=address))
    assert (talk.leases[address].name, talk.leases[address].since) == ("web1", 1000)  # nobody could take it meanwhile
    talk.now += 3601
    talk.say(ask(Kind.REQUEST, A, requested=address))
    assert talk.leases[address].name == ""


def test_an_isolated_network_has_no_way_out() -> None:
    told = Talk(replace(server(), router=False)).told(ask(Kind.DISCOVER))
    assert told is not None
    assert Option.ROUTER not in told[2]


def test_guests_are_told_other_routers_and_the_ways_beside_them() -> None:
    routes = ((IPv4Network("10.50.0.0/16"), "10.0.0.7"), (IPv4Network("10.60.0.0/16"), "10.9.0.7"))
    for routers, said, ways in (
        (None, [10, 0, 0, 1], "10 0a32 0a000007 00 0a000001"),
        (("10.0.0.2", "10.9.0.2"), [10, 0, 0, 2], "10 0a32 0a000007 00 0a000002"),
        ((), None, "10 0a32 0a000007"),
    ):
        _, _, told = Talk(replace(server(), routers=routers, routes=routes)).told(ask(Kind.DISCOVER)) or (0, 0, {})
        assert told.get(Option.ROUTER) == (bytes(said) if said else None)
        assert told[Option.ROUTES] == told[Option.ROUTES_OF_MICROSOFT] == bytes.fromhex(ways)
    _, _, told = Talk(server()).told(ask(Kind.DISCOVER)) or (0, 0, {})
    assert Option.ROUTES not in told


def test_as_many_routes_as_a_network_may_tell_leave_nobody_without_an_address() -> None:
    ways = tuple(GuestRoute(to=f"10.50.0.{n}/32", via="10.0.0.7") for n in range(MOST_ROUTES))
    it = replace(server(), routes=tuple((IPv4Network(way.to), way.via) for way in ways), mtu=1500)
    for longest, is_told in ((576, False), (1500, True)):
        reply = Talk(it).say(ask(Kind.DISCOVER, longest=longest, asked=frozenset({1}))).reply
        assert reply is not None
        assert len(reply.payload) + 28 <= longest
        told, at = dict[int, list[bytes]](), 240
        while reply.payload[at] != 255:
            size = reply.payload[at + 1]
            told.setdefault(reply.payload[at], []).append(reply.payload[at + 2 : at + 2 + size])
            at += 2 + size
        assert told[Option.ROUTER]
        whole = message.routes([*((IPv4Network(way.to), way.via) for way in ways), (IPv4Network("0.0.0.0/0"), GATEWAY)])
        assert b"".join(told.get(Option.ROUTES, [])) == (whole if is_told else b"")  # in pieces (RFC 3396, 7)


def test_more_is_told_to_those_who_ask_for_it() -> None:
    it = replace(server(), options=((42, bytes([10, 0, 0, 3])), (224, b"x")), boot=Boot(file="pxe", server="10.0.0.9"))
    for asked, found in (((), {42, 66, 67, 224}), ((1, 42), {42}), ((1,), set()), ((66, 67), {66, 67})):
        _, _, told = Talk(it).told(ask(Kind.DISCOVER, asked=frozenset(asked))) or (0, 0, {})
        assert told.keys() & {42, 66, 67, 224} == found
    reply = Talk(it).say(ask(Kind.DISCOVER, asked=frozenset({1}))).reply
    assert reply is not None
    assert reply.payload[20:24] == bytes([10, 0, 0, 9])  # siaddr, and file: of BOOTP, for whoever boots
    assert reply.payload[108:112] == b"pxe\0"
    refused = Talk(it).say(ask(Kind.REQUEST, requested="10.0.0.99")).reply
    assert refused is not None
    assert refused.payload[108:112] == bytes(4)


def test_what_finds_no_room_is_left_out_the_needed_first() -> None:
    it = replace(server(), options=((224, b"x" * 200), (225, b"y" * 200), (226, b"z")))
    for longest, found in ((576, {224, 226}), (1400, {224, 225, 226})):
        talk = Talk(replace(it, mtu=1450))
        said = talk.say(ask(Kind.DISCOVER, longest=longest)).reply
        assert said is not None
        assert len(said.payload) + 28 <= longest
        _, _, told = talk.told(ask(Kind.DISCOVER, longest=longest)) or (0, 0, {})
        assert told.keys() & {224, 225, 226} == found
        assert told.keys() > {Option.LEASE, Option.ROUTER, Option.SUBNET_MASK}


@pytest.mark.parametrize(
    ("fields", "to"),
    [
        ({}, (A, "the offer")),
        ({"broadcast": True}, ("ff:ff:ff:ff:ff:ff", "255.255.255.255")),
    ],
)
def test_where_an_offer_goes(fields: dict[str, object], to: tuple[str, str]) -> None:
    reply = Talk(server()).say(ask(Kind.DISCOVER, **fields)).reply
    assert reply is not None
    assert reply.eth_dst == to[0]
    assert reply.ipv4_dst == (to[1] if to[1][0].isdigit() else ".".join(map(str, reply.payload[16:20])))


def test_all_get_different_addresses_until_none_is_left() -> None:
    talk = Talk(server())
    assert {talk.gets(mac) for mac in (A, B, C)} == {"10.0.0.10", "10.0.0.11", "10.0.0.12"}
    assert talk.gets("52:54:00:00:00:0d") is None
    talk.now += 3601 + GRACE_SECONDS
    assert talk.gets("52:54:00:00:00:0d") is not None


def test_a_client_gets_its_address_again_also_when_the_lease_ran_out() -> None:
    talk = Talk(server(("10.0.0.10", "10.0.0.200")))
    had = talk.gets(A)
    talk.now += 100_000
    assert talk.gets(A) == had
    assert talk.gets(A, wanted="10.0.0.77") == had


def test_two_clients_that_ask_at_once_are_offered_different_addresses() -> None:
    talk = Talk(server(("10.0.0.10", "10.0.0.11")))
    first, second = talk.told(ask(Kind.DISCOVER, A)), talk.told(ask(Kind.DISCOVER, B))
    assert first is not None
    assert second is not None
    assert first[1] != second[1]
    assert talk.told(ask(Kind.DISCOVER, C)) is None
    talk.now += OFFER_SECONDS + 1
    assert talk.told(ask(Kind.DISCOVER, C)) is not None  # nobody took them


def test_what_is_reserved_or_registered_is_for_that_client_only() -> None:
    talk = Talk(server(("10.0.0.10", "10.0.0.11"), reserved={A: "10.0.0.10"}, taken={"10.0.0.50": B}))
    assert talk.gets(C, wanted="10.0.0.10") == "10.0.0.11"
    assert (talk.gets(A), talk.gets(B)) == ("10.0.0.10", "10.0.0.50")
    for mac, address in ((C, "10.0.0.50"), (C, GATEWAY), (A, "10.0.0.11"), (C, "10.9.9.9"), (C, "10.0.0.99")):
        kind, _, _ = talk.told(ask(Kind.REQUEST, mac, requested=address)) or (None, 0, 0)
        assert kind is Kind.NAK, (mac, address)


def test_a_client_has_one_address_whatever_it_asks_for() -> None:
    talk = Talk(server(("10.0.0.10", "10.0.0.90")))
    had = talk.gets(A)
    for n in range(10, 90):
        talk.say(ask(Kind.REQUEST, A, requested=f"10.0.0.{n}"))
    assert list(talk.leases) == [had]


def test_requests_that_come_before_the_first_lease_is_written_get_no_more() -> None:
    it, book = server(("10.0.0.10", "10.0.0.90")), Book()
    asked = [ask(Kind.REQUEST, A, requested=f"10.0.0.{n}") for n in range(10, 90)]
    granted = [done.lease.ip for request in asked if (done := answer(it, book, request, "p", 1000.0)).lease is not None]
    assert granted == ["10.0.0.10"]


def test_a_lease_is_renewed_by_its_client_alone() -> None:
    talk = Talk(server())
    address = talk.gets(A)
    assert address is not None
    talk.now += 1800
    renewed = talk.say(ask(Kind.REQUEST, A, ciaddr=address))
    assert renewed.reply is not None
    assert renewed.reply.ipv4_dst == address
    assert renewed.lease is not None
    assert renewed.lease.expires == 1000 + 1800 + 3600
    kind, _, _ = talk.told(ask(Kind.REQUEST, B, ciaddr=address)) or (None, 0, 0)
    assert kind is Kind.NAK
    assert talk.leases[address].mac == A


def test_who_chose_another_server_or_asks_by_a_relay_is_left_alone() -> None:
    talk = Talk(server())
    assert talk.say(ask(Kind.REQUEST, requested="10.0.0.10", server="10.0.0.99")) == SILENCE
    assert talk.say(ask(Kind.DISCOVER, giaddr="10.5.0.1")) == SILENCE


def test_what_is_given_back_is_free_and_only_its_client_gives_it_back() -> None:
    talk = Talk(server(("10.0.0.10", "10.0.0.10")))
    assert talk.gets(A) == "10.0.0.10"
    talk.say(ask(Kind.RELEASE, B, ciaddr="10.0.0.10"))
    assert talk.gets(B) is None
    talk.say(ask(Kind.RELEASE, A, ciaddr="10.0.0.10"))
    assert talk.gets(B) == "10.0.0.10"


def test_who_gives_back_again_and_again_has_nobody_look_for_addresses_each_time() -> None:
    talk = Talk(server(("10.0.0.10", "10.0.0.10")))
    talk.gets(A)
    assert talk.told(ask(Kind.DISCOVER, B)) is None
    looked = talk.book.exhausted
    assert looked > talk.now
    for _ in range(2):  # its row is still there: the store was not told
        answer(talk.server, talk.book, ask(Kind.RELEASE, A, ciaddr="10.0.0.10"), "p", talk.now)
        assert talk.told(ask(Kind.DISCOVER, B)) is None
    talk.book.exhausted = looked
    answer(talk.server, talk.book, ask(Kind.RELEASE, A, ciaddr="10.0.0.10"), "p", talk.now)
    assert talk.book.exhausted == looked


def test_the_larger_a_range_the_less_often_all_of_it_is_looked_at() -> None:
    for last, seconds in (("10.0.0.99", 1), ("10.0.255.254", 13)):
        talk = Talk(server(("10.0.0.2", last)))
        talk.server = replace(talk.server, pool=replace(talk.server.pool, kept=Everything()))
        talk.told(ask(Kind.DISCOVER, A))
        assert talk.now + seconds <= talk.book.exhausted < talk.now + 2 * seconds


class Everything:
    """All addresses are kept for somebody."""

    def __contains__(self, address: object) -> bool:
        return True


def test_an_address_that_somebody_has_already_is_not_given_for_a_while() -> None:
    talk = Talk(server(("10.0.0.10", "10.0.0.15")))
    seen = set()
    for _ in range(6):
        address = talk.gets(A)
        seen.add(address)
        talk.say(ask(Kind.DECLINE, A, requested=address))
    assert len(seen) == 5  # one client makes no more than four unusable
    talk.say(ask(Kind.DECLINE, B, requested="10.0.0.15"))
    assert talk.gets(B) is not None
    talk.now += 601
    assert talk.gets(C) is not None


def test_who_has_an_address_may_ask_for_the_rest() -> None:
    kind, address, told = Talk(server()).told(ask(Kind.INFORM, ciaddr="10.0.0.99")) or (0, 0, {})
    assert (kind, address) == (Kind.ACK, NOBODY)
    assert Option.LEASE not in told
    assert told[Option.ROUTER] == bytes([10, 0, 0, 1])


class Clients(RuleBasedStateMachine):
    """Whatever clients do, no two hold one address, and nobody holds what is not for it."""

    macs = st.sampled_from([A, B, C, "52:54:00:00:00:0d"])
    addresses = st.sampled_from([*(f"10.0.0.{n}" for n in (1, 9, 10, 11, 12, 13, 50)), "10.7.0.1"])

    def __init__(self) -> None:
        super().__init__()
        self.talk = Talk(server(reserved={B: "10.0.0.11"}, taken={"10.0.0.50": C}))
        self.held: dict[str, tuple[str, float]] = {}

    @rule(mac=macs, wanted=st.none() | addresses)
    def start(self, mac: str, wanted: str | None) -> None:
        self.hold(mac, self.talk.gets(mac, wanted))

    @rule(mac=macs, address=addresses, renews=st.booleans())
    def ask_for(self, mac: str, address: str, renews: bool) -> None:
        fields = {"ciaddr": address} if renews else {"requested": address}
        told = self.talk.told(ask(Kind.REQUEST, mac, **fields))
        if told is not None and told[0] is Kind.ACK:
            self.hold(mac, told[1])

    def hold(self, mac: str, address: str | None) -> None:
        if address is None:
            return
        owner, until = self.held.get(address, (mac, 0.0))
        assert owner == mac or until <= self.talk.now, f"{address} is {owner}'s and was given to {mac}"
        assert address != GATEWAY
        assert {"10.0.0.11": B, "10.0.0.50": C}.get(address, mac) == mac
        self.held[address] = (mac, self.talk.now + 3600)

    @rule(mac=macs, address=addresses)
    def give_back(self, mac: str, address: str) -> None:
        self.talk.say(ask(Kind.RELEASE, mac, ciaddr=address))
        if self.held.get(address, ("", 0))[0] == mac:
            del self.held[address]

    @rule(mac=macs, address=addresses)
    def decline(self, mac: str, address: str) -> None:
        self.talk.say(ask(Kind.DECLINE, mac, requested=address))
        if self.held.get(address, ("", 0))[0] == mac:
            del self.held[address]

    @rule(seconds=st.sampled_from([1, 29, 31, 1800, 3601]))
    def pass_time(self, seconds: int) -> None:
        self.talk.now += seconds

    @invariant()
    def a_client_has_few_addresses(self) -> None:
        for mac in (A, B, C):
            mine = [lease for lease in self.talk.leases.values() if lease.mac == mac and lease.state == "declined"]
            assert sum(lease.expires > self.talk.now for lease in mine) <= 4


TestClients = Clients.TestCase
TestClients.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
