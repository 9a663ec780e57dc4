"""Real guests find each other by name at their gateway, on every host, and the outside by whom the controller asks."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import dns.message
import dns.rrset
import pytest
from dns.rcode import Rcode
from e2e_fleet import Fleet, eventually
from labkit import Guest, Nic, netns

from controller import meters

pytestmark = pytest.mark.lab
HOSTS = 2

FORWARDER = "127.77.0.53"  # on the controller's machine
NETWORK = """\
kind: Network
name: {name}
mode: isolated
subnets: [10.77.{number}.0/24]
dhcp: {{range: [10.77.{number}.100, 10.77.{number}.120]}}
dns:
  domain: {name}.example.org
  local_only: true
  hosts: [{{ip: 10.77.{number}.53, names: [printer]}}]
  srv: [{{service: ldap, protocol: tcp, target: printer, port: 389}}]
  forwarders: [{{addr: {forwarder}}}]
"""


@pytest.fixture
def asked() -> Iterator[list[str]]:
    """The names that a name server on the controller's machine is asked for; it knows one."""
    found: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((FORWARDER, 53))
        server.settimeout(0.2)
        ended = threading.Event()

        def serve() -> None:
            while not ended.is_set():
                try:
                    data, sender = server.recvfrom(4096)
                except TimeoutError:
                    continue
                question = dns.message.from_wire(data)
                name, kind = question.question[0].name, question.question[0].rdtype
                found.append(name.to_text(omit_final_dot=True))
                reply = dns.message.make_response(question)
                if found[-1] != "www.example.com":
                    reply.set_rcode(Rcode.NXDOMAIN)
                elif kind == dns.rdatatype.A:
                    reply.answer.append(dns.rrset.from_text(name, 60, "IN", "A", "192.0.2.80"))
                server.sendto(reply.to_wire(), sender)

        thread = threading.Thread(target=serve)
        thread.start()
        yield found
        ended.set()
        thread.join()


def addressed(guest: Guest) -> str:
    eventually(f"{guest.name} has a lease", lambda: guest.run("cat /run/lease.eth0")[0] == 0)
    text = guest.run("cat /run/lease.eth0")[1]
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)["ip"]


def looked_up(guest: Guest, name: str, *how: str) -> str:
    """What nslookup says of a name at the guest's own name server; what is said of that server is left out."""
    text = guest.run(f"nslookup {' '.join(how)} {name}")[1]
    return text.partition("Address:")[2].partition("\n")[2]


def test_guests_find_each_other_on_every_host_and_the_outside_by_a_forwarder(fleet: Fleet, asked: list[str]) -> None:
    fleet.apply(
        "---\n".join(NETWORK.format(name=n, number=i, forwarder=FORWARDER) for i, n in enumerate(("web", "shop")))
    )
    one, two = fleet.real("h1", "d1", [Nic("web")]), fleet.real("h2", "d2", [Nic("web")])
    other = fleet.real("h2", "d3", [Nic("shop")])
    mine, there, elsewhere = addressed(one), addressed(two), addressed(other)
    assert "nameserver 10.77.0.1\n" in one.run("cat /etc/resolv.conf")[1]
    fleet.wait_active([guest.nics[0].mac for guest in (one, two, other)])

    for guest, name, address in ((one, "d2", there), (two, "d1", mine)):
        assert address in looked_up(guest, f"{name}.web.example.org")
        code, said = guest.run(f"ping -c1 -W5 {name}")  # by the search list, as any program does
        assert (code, f"({address})" in said) == (0, True), said
        assert f"{name}.web.example.org" in looked_up(guest, address)
    assert "389 printer.web.example.org" in looked_up(one, "_ldap._tcp.web.example.org", "-type=srv")
    assert "192.0.2.80" in looked_up(one, "www.example.com")

    assert "10.77.1.53" in looked_up(other, "printer.shop.example.org")
    for name in ("d3", "d3.web.example.org", "d3.shop.example.org"):
        assert elsewhere not in looked_up(one, name)
    assert "NXDOMAIN" in looked_up(one, "d3.web.example.org")
    assert "d3.shop.example.org" in asked  # which is another's name, for all that this network knows
    assert not [name for name in asked if name.endswith("web.example.org")]

    code, said = one.run("nc -w 20 10.77.0.1 53 </dev/null")
    assert code != 0
    assert "refused" in said

    fleet.controller.stop(signal.SIGKILL)
    fleet.controller.start()
    fleet.settle()
    eventually("a controller that starts again knows the names", lambda: there in looked_up(one, "d2.web.example.org"))


def test_a_guest_that_asks_without_end_keeps_nobody_else_from_being_answered(fleet: Fleet) -> None:
    dns_of_it = "{hosts: [{ip: 10.79.0.11, names: [f11]}]}"
    fleet.apply(f"{{kind: Network, name: flood, mode: isolated, subnets: [10.79.0.0/24], dns: {dns_of_it}}}")
    names = {f"f{n}": ("h1", [Nic("flood", addresses=(f"10.79.0.{n}/24",))]) for n in (11, 12)}
    guests = fleet.lights(names)

    def udp(name: str) -> socket.socket:
        return netns.call_in(guests[name].netns, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))

    gateway = ("10.79.0.1", 53)
    over, sent = threading.Event(), [0]

    def ask_without_end(sock: socket.socket) -> None:
        right = dns.message.make_query("f11", "A").to_wire()
        while not over.is_set():
            sock.sendto(right if sent[0] % 2 else os.urandom(sent[0] % 600), gateway)
            sent[0] += 1

    def address_of(sock: socket.socket, name: str) -> list[str]:
        question = dns.message.make_query(name, "A")
        for _ in range(5):
            sock.sendto(question.to_wire(), gateway)
            with suppress(TimeoutError):
                return [str(each) for rrset in dns.message.from_wire(sock.recv(4096)).answer for each in rrset]
        return []

    with udp("f11") as bad, udp("f12") as good:
        good.settimeout(4.0)
        assert address_of(good, "f11") == ["10.79.0.11"]
        flooding = threading.Thread(target=ask_without_end, args=(bad,))
        began = time.monotonic()
        flooding.start()
        try:
            eventually("the flood", lambda: sent[0] > 2000)
            for _ in range(5):
                assert address_of(good, "f11") == ["10.79.0.11"]
        finally:
            over.set()
            flooding.join()
        asked_for = time.monotonic() - began
        bad.settimeout(1.0)
        answered = 0
        with suppress(TimeoutError):
            while bad.recv(4096):
                answered += 1
        assert 0 < answered <= meters.BURST + meters.RATE * (asked_for + 2), f"{answered} of {sent[0]}"
