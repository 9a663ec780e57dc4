"""What the gateway does not know is asked of others: of a real name server on loopback, by real sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dns.message
import dns.rrset
import pytest
from dns.rcode import Rcode
from hypothesis import given
from hypothesis import strategies as st
from os_ken.lib.packet import ethernet, ipv4, packet, tcp

from controller import meters
from controller.leases import Leases
from controller.model.lease import Lease
from controller.model.network import NetworkSpec
from controller.model.port import PortStatus
from controller.pipeline.fields import SEGMENT
from controller.services import datagrams, dns_message
from controller.services.datagrams import Datagram
from controller.services.dns_relay import Relay
from controller.services.dns_service import DnsService
from controller.store.rows import Change, Row

PATIENCE = 20.0
HOME, NEXT_DOOR = "127.0.0.1", "127.0.0.2"
Reply = Callable[[dns.message.Message], list[bytes]]


def right(question: dns.message.Message) -> list[bytes]:
    reply = dns.message.make_response(question)
    asked = question.question[0]
    reply.answer.append(dns.rrset.from_text(asked.name, 60, "IN", asked.rdtype, "192.0.2.80"))
    return [reply.to_wire()]


class NameServer(asyncio.DatagramProtocol):
    """Replies as it is told; remembers what it was asked, and from which ports."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.asked: list[dns.message.Message] = []
        self.ports: list[int] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        question = dns.message.from_wire(data)
        self.asked.append(question)
        self.ports.append(addr[1])
        for each in self.reply(question):
            self.transport.sendto(each, addr)

    @property
    def port(self) -> int:
        return int(self.transport.get_extra_info("sockname")[1])


@asynccontextmanager
async def name_server(reply: Reply = right, address: str = HOME, port: int = 0) -> AsyncIterator[NameServer]:
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(lambda: NameServer(reply), local_addr=(address, port))
    try:
        yield server
    finally:
        transport.close()


def question(number: int) -> bytes:
    return dns.message.make_query("www.example.com", "A", id=number).to_wire()


def rcode(got: tuple[bytes, bytes] | None) -> int | None:
    return None if got is None else dns_message.rcode_of(got[1])


def test_a_question_goes_out_with_a_port_and_a_number_of_its_own() -> None:
    async def talk() -> NameServer:
        async with name_server() as server:
            relay = Relay(PATIENCE, server.port)
            for _ in range(20):
                assert rcode(await relay.ask([HOME], question)) == Rcode.NOERROR
            return server

    server = asyncio.run(talk())
    assert len(set(server.ports)) > 10
    assert len({each.id for each in server.asked}) > 10


def test_what_is_no_answer_to_the_question_is_not_taken() -> None:
    def false_ones_first(asked: dns.message.Message) -> list[bytes]:
        (true,) = right(asked)
        other = dns.message.make_query("www.example.org", "A", id=asked.id)
        wrong_number = bytes([true[0] ^ 1]) + true[1:]
        return [b"", b"garbage", asked.to_wire(), wrong_number, *right(other), true]

    async def talk() -> tuple[bytes, bytes] | None:
        async with name_server(false_ones_first) as server:
            return await Relay(PATIENCE, server.port).ask([HOME], question)

    got = asyncio.run(talk())
    assert got is not None
    assert b"\7example\3com" in got[1]


@pytest.mark.parametrize(
    ("reply", "seconds"),
    [(lambda _: [], 0.2), (lambda asked: [answer_with(asked, Rcode.SERVFAIL)], PATIENCE)],
)
def test_the_next_server_is_asked_when_one_is_silent_or_of_no_help(reply: Reply, seconds: float) -> None:
    async def talk() -> tuple[bytes, bytes] | None:
        async with name_server(reply) as first, name_server(right, NEXT_DOOR, first.port):
            return await Relay(seconds, first.port).ask([HOME, NEXT_DOOR], question)

    assert rcode(asyncio.run(talk())) == Rcode.NOERROR


def answer_with(asked: dns.message.Message, code: Rcode) -> bytes:
    reply = dns.message.make_response(asked)
    reply.set_rcode(code)
    return reply.to_wire()


def test_nobody_there_is_found_out_at_once() -> None:
    async def talk() -> tuple[bytes, bytes] | None:
        async with name_server() as server:
            free = server.port
        return await asyncio.wait_for(Relay(10 * PATIENCE, free).ask([HOME], question), PATIENCE)

    assert asyncio.run(talk()) is None


# The service as a whole.

MAC, GATEWAY_MAC = "52:54:00:00:00:01", "02:f5:00:00:00:01"


class Fleet:
    """vNICs of h1 in network web, the one at OpenFlow port 6 in network other; what the switch is told."""

    def __init__(self, relay: Relay | None = None, resolv_conf: Path = Path("/dev/null"), **spec: Any) -> None:
        self.sent: list[bytes] = []
        fields = {"mode": "nat", "subnets": ["10.0.0.0/24"], **spec}
        self.desired = SimpleNamespace(
            hosts={}, registered={}, leases={},
            networks={"web": NetworkSpec.model_validate(fields),
                      "other": NetworkSpec.model_validate({**fields, "subnets": ["10.1.0.0/24"], "dns": None})},
        )  # fmt: skip
        vnics = {6: "other"}
        self.desired.vnic_at = lambda host, ofport: (
            str(ofport),
            PortStatus(
                vm_uuid="u", mac=MAC, host=host, ofport=ofport, network=vnics.get(ofport, "web"), state="active"
            ),
        )
        self.service = DnsService(self.desired, 60, self.send, resolv_conf, relay)  # type: ignore[arg-type]

    def send(self, host: str, message: bytes) -> bool:
        assert host == "h1"
        self.sent.append(message[32 + int.from_bytes(message[12:14], "big") :])
        return True

    def takes(self, frame: bytes, ofport: int = 5) -> None:
        fields = {"in_port": ofport, "reg0": 3 << SEGMENT.start}
        self.service.take("h1", SimpleNamespace(data=frame, fields=lambda: fields))  # type: ignore[arg-type]

    def asks(self, asked: dns.message.Message, ofport: int = 5, port: int = 4000) -> None:
        self.takes(
            datagrams.encode(Datagram(MAC, GATEWAY_MAC, "10.0.0.9", "10.0.0.1", port, 53, asked.to_wire())), ofport
        )

    def told(self) -> list[dns.message.Message]:
        """Every answer so far, each to the one who asked."""
        found = []
        for frame in self.sent:
            said = datagrams.decode(frame)
            assert (said.eth_src, said.eth_dst, said.ipv4_src, said.ipv4_dst, said.udp_src, said.udp_dst) == (
                GATEWAY_MAC, MAC, "10.0.0.1", "10.0.0.9", 53, 4000,
            )  # fmt: skip
            found.append(dns.message.from_wire(said.payload))
        return found

    async def settled(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*self.service._asked.values(), return_exceptions=True)

    def leased(self, network: str, number: int, name: str) -> None:
        lease = Lease(network=network, ip=f"10.0.0.{number}", mac=MAC, name=name, expires=2**33)
        self.desired.leases.setdefault(network, Leases())[lease.ip] = lease
        row = Row("DhcpLease", lease.row, lease.model_dump(mode="json"))
        self.service.changed([Change(row.kind, row.name, None, row)])


def a(name: str, number: int = 1) -> dns.message.Message:
    return dns.message.make_query(name, "A", id=number)


def rcodes(fleet: Fleet) -> list[int]:
    return [each.rcode() for each in fleet.told()]


def test_a_guest_is_told_of_its_own_network_and_of_no_other() -> None:
    fleet = Fleet()
    fleet.asks(a("web1"))
    fleet.leased("web", 7, "web1")
    time.sleep(max(0.0, fleet.service._known["web"].rested - time.monotonic()))
    fleet.asks(a("web1"))
    fleet.asks(a("web1"), ofport=6)
    assert rcodes(fleet) == [Rcode.NXDOMAIN, Rcode.NOERROR, Rcode.NXDOMAIN]
    assert str(fleet.told()[1].answer[0][0]) == "10.0.0.7"


FORWARDER = {"addr": HOME}


@pytest.mark.parametrize(
    ("spec", "asked"),
    [
        ({}, {"www.example.com", "badexample.com", "web1"}),  # those of the controller's machine
        ({"dns": {"forward_plain_names": False}}, {"www.example.com", "badexample.com"}),
        ({"dns": {"forwarders": []}}, set()),
        ({"mode": "isolated"}, set()),
        ({"mode": "isolated", "dns": {"forwarders": [FORWARDER]}}, {"www.example.com", "badexample.com", "web1"}),
        ({"mode": "isolated", "dns": {"forwarders": [{"domain": "example.com"}]}}, {"www.example.com"}),
        ({"mode": "isolated", "dns": {"forwarders": [{**FORWARDER, "domain": "example.com"}]}}, {"www.example.com"}),
        ({"dns": {"forwarders": [{"addr": NEXT_DOOR, "domain": "example.com"}]}}, {"badexample.com", "web1"}),
        (
            {"dns": {"forwarders": [FORWARDER, {"addr": NEXT_DOOR, "domain": "www.example.com"},
                                    {**FORWARDER, "domain": "example.com"}]}},
            {"badexample.com", "web1"},
        ),
    ],
)  # fmt: skip
def test_who_is_asked_about_what(tmp_path: Path, spec: dict[str, Any], asked: set[str]) -> None:
    (tmp_path / "resolv.conf").write_text(f"search example.org\nnameserver {HOME}\n")

    async def talk() -> tuple[set[str], Fleet]:
        async with name_server() as server:
            fleet = Fleet(Relay(PATIENCE, server.port), tmp_path / "resolv.conf", **spec)
            await fleet.service.look()
            for number, name in enumerate(["www.example.com", "badexample.com", "web1"]):
                fleet.asks(a(name, number))
            await fleet.settled()
            return {str(each.question[0].name).rstrip(".") for each in server.asked}, fleet

    found, fleet = asyncio.run(talk())
    assert found == asked
    answered = {str(each.question[0].name).rstrip(".") for each in fleet.told() if each.rcode() == Rcode.NOERROR}
    assert answered == asked
    assert len(fleet.sent) == 3


def test_a_question_that_nobody_answers_fails_and_one_that_comes_twice_goes_out_once() -> None:
    async def talk() -> tuple[Fleet, NameServer]:
        async with name_server(lambda _: []) as server:
            fleet = Fleet(Relay(0.3, server.port), dns={"forwarders": [FORWARDER]})
            for _ in range(3):
                fleet.asks(a("www.example.com"))
            await fleet.settled()
            return fleet, server

    fleet, server = asyncio.run(talk())
    assert rcodes(fleet) == [Rcode.SERVFAIL]
    assert len(server.asked) == 1


def test_an_answer_that_comes_when_another_vnic_is_there_goes_to_nobody() -> None:
    async def talk() -> Fleet:
        async with name_server() as server:
            fleet = Fleet(Relay(PATIENCE, server.port), dns={"forwarders": [FORWARDER]})
            fleet.asks(a("www.example.com"))
            status = fleet.desired.vnic_at("h1", 5)[1]
            fleet.desired.vnic_at = lambda host, ofport: ("another", status)
            await fleet.settled()
            assert len(server.asked) == 1
            return fleet

    assert asyncio.run(talk()).sent == []


def test_one_vnic_has_so_many_questions_under_way_and_asks_so_many() -> None:
    async def talk() -> Fleet:
        async with name_server(lambda _: []) as server:
            fleet = Fleet(Relay(PATIENCE, server.port), dns={"forwarders": [FORWARDER]})
            for number in range(meters.BURST + 20):
                fleet.asks(a("www.example.com", number))
            assert len(fleet.service._asked) == 32
            fleet.asks(a("web1"))
            assert fleet.sent == []  # it had its burst
            fleet.asks(a("web1"), ofport=6)
            assert rcodes(fleet) == [Rcode.NXDOMAIN]  # another vNIC is answered
            running = asyncio.create_task(fleet.service.run())
            await asyncio.sleep(0)
            running.cancel()
            await fleet.settled()
            return fleet

    asyncio.run(talk())


def test_guests_whose_servers_are_silent_leave_room_for_the_others() -> None:
    async def talk() -> None:
        async with name_server(lambda _: []) as server:
            fleet = Fleet(Relay(PATIENCE, server.port), dns={"forwarders": [FORWARDER]})
            for ofport in range(100, 140):
                for number in range(24):
                    fleet.asks(a("www.example.com", number), ofport)
            before = len(fleet.service._asked)
            assert before < 512
            fleet.asks(a("www.example.com"), ofport=7)
            assert len(fleet.service._asked) == before + 1
            running = asyncio.create_task(fleet.service.run())
            await asyncio.sleep(0)
            running.cancel()
            await fleet.settled()

    asyncio.run(talk())


def test_tcp_is_refused_at_once() -> None:
    def sent(flags: int) -> bytes:
        made = packet.Packet()
        for each in (
            ethernet.ethernet(GATEWAY_MAC, MAC, 0x0800), ipv4.ipv4(src="10.0.0.9", dst="10.0.0.1", proto=6),
            tcp.tcp(4000, 53, seq=2**32 - 1, bits=flags),
        ):  # fmt: skip
            made.add_protocol(each)
        made.serialize()
        return bytes(made.data)

    fleet = Fleet()
    fleet.takes(sent(tcp.TCP_RST))
    fleet.takes(sent(tcp.TCP_ACK))
    fleet.takes(sent(tcp.TCP_SYN)[:50])
    assert fleet.sent == []
    fleet.takes(sent(tcp.TCP_SYN))
    read = packet.Packet(fleet.sent[0])
    back, around = read.get_protocol(tcp.tcp), read.get_protocol(ipv4.ipv4)
    assert (around.src, around.dst, back.src_port, back.dst_port) == ("10.0.0.1", "10.0.0.9", 53, 4000)
    assert (back.bits, back.seq, back.ack) == (tcp.TCP_RST | tcp.TCP_ACK, 0, 0)


@given(st.binary(max_size=120), st.sampled_from([6, 17]))
def test_nothing_a_guest_sends_harms(data: bytes, protocol: int) -> None:
    fleet = Fleet()
    size = (20 + len(data)).to_bytes(2, "big")
    header = b"\x45\0" + size + bytes(4) + bytes([64, protocol]) + bytes(2) + bytes([10, 0, 0, 9, 10, 0, 0, 1])
    for frame in (data, bytes(12) + b"\x08\0" + header + data):
        datagrams.destination_port(frame)
        fleet.takes(frame)
