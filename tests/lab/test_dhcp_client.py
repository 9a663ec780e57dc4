"""The lab's DHCP clients: what they ask is what our server understands, and what it answers they understand."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Interface

import pytest
from labkit import LabError
from labkit.dhcp_client import Client, lease_all

from controller.leases import Leases
from controller.services import datagrams, dhcp_message
from controller.services.dhcp import Server, answer
from controller.services.pool import Book, Pool

GATEWAY = "10.0.0.1"


class Nobodys:
    def owner(self, address: str) -> str | None:
        return None

    def of(self, mac: str) -> list[str]:
        return []


@contextmanager
def served(leases: Leases, deaf: int = 0) -> Iterator[socket.socket]:
    """A wire to a server that does not hear the first ``deaf`` frames."""
    pool = Pool([("10.0.0.10", "10.0.0.10")], {}, (), Nobodys())
    server = Server("web", "02:f5:00:00:00:01", (IPv4Interface(f"{GATEWAY}/24"),), pool, 3600, 1450, router=True)
    book = Book(leases)
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def work() -> None:
        heard = 0
        while frame := theirs.recv(2048):
            heard += 1
            if heard <= deaf:
                continue
            done = answer(server, book, dhcp_message.decode(datagrams.decode(frame).payload), "p", 1000.0)
            if done.lease is not None:
                leases[done.lease.ip] = done.lease
            if done.released is not None:
                del leases[done.released]
            if done.reply is not None:
                theirs.send(datagrams.encode(done.reply))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        mine.setblocking(False)
        yield mine
    finally:
        mine.close()
        thread.join()
        theirs.close()


def test_a_client_gets_an_address_and_gives_it_back() -> None:
    leases = Leases()
    with served(leases) as wire:
        client = Client(wire, "52:54:00:00:00:0a")
        assert lease_all([client], 20.0) < 20.0
        assert (client.address, client.server) == ("10.0.0.10", GATEWAY)
        assert leases["10.0.0.10"].mac == client.mac
        client.release()
    assert client.address is None
    assert not leases


def test_who_is_not_heard_asks_again_and_who_never_is_says_so() -> None:
    with served(Leases(), deaf=1) as wire:
        assert lease_all([Client(wire, "52:54:00:00:00:0a")], 20.0) > 0.9
    with served(Leases(), deaf=99) as wire, pytest.raises(LabError, match="1 of 1 clients had no address"):
        lease_all([Client(wire, "52:54:00:00:00:0a")], 0.1)
