"""A libvirtd that lies: what one domain or network is, hides no other and brings down no host."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import libvirt
import pytest
from libvirt_watch import Watched

from controller.errors import LibvirtError
from topology import libvirt_calls as calls
from topology.host_networks import read_networks
from topology.libvirt_host import MAX_DIRTY

GOOD = "aaaaaaaa-0000-4000-8000-000000000001"
BAD = "aaaaaaaa-0000-4000-8000-000000000002"


def domain_xml(uuid: str = GOOD, name: str = "g1", inside: str = "") -> str:
    return (f"<domain type='kvm' id='3'><name>{name}</name><uuid>{uuid}</uuid><devices><interface type='bridge'>"
            f"<mac address='52:54:00:00:00:01'/><source bridge='br-int'/><virtualport type='openvswitch'/>"
            f"<target dev='tap1'/></interface>{inside}</devices></domain>")  # fmt: skip


def network_xml(uuid: str = GOOD, name: str = "n1") -> str:
    return f"<network><name>{name}</name><uuid>{uuid}</uuid><forward mode='bridge'/><bridge name='br-int'/></network>"


def failure(code: int) -> libvirt.libvirtError:
    error = libvirt.libvirtError("it says so")
    error.err = (code, 0, "it says so", 2, "", "", "", 0, 0)
    return error


def raises(error: Exception) -> Callable[[], str]:
    def fail() -> str:
        raise error

    return fail


class Thing:
    """A domain or network of which ``read`` gives the XML."""

    def __init__(self, uuid: str, read: Callable[[], str], name: Callable[[], str] = lambda: "n1") -> None:
        self._uuid, self._read, self.name = uuid, read, name

    def UUIDString(self) -> str:
        return self._uuid

    def XMLDesc(self, flags: int) -> str:
        return self._read()


class Liar:
    """A connection. It is alive throughout."""

    def __init__(self, *things: Thing) -> None:
        self._things = things

    def listAllDomains(self, flags: int) -> list[Thing]:
        return list(self._things)

    listAllNetworks = listAllDomains

    def lookupByUUIDString(self, uuid: str) -> Thing:
        return next(thing for thing in self._things if thing.UUIDString() == uuid)

    def isAlive(self) -> int:
        return 1


def connection(*things: Thing) -> calls.Connection:
    return calls.Connection(Liar(*things), [], [])


LAUGHS = "".join(f"<!ENTITY l{n} '{f'&l{n - 1};' * 10}'>" for n in range(1, 10))
DOMAINS: dict[str, tuple[Callable[[], str], str]] = {
    "a billion laughs": (
        lambda: f"<!DOCTYPE domain [<!ENTITY l0 'ha'>{LAUGHS}]>{domain_xml(BAD, '&l9;')}", "document type"),
    "an external entity": (
        lambda: f"<!DOCTYPE domain [<!ENTITY x SYSTEM 'file:///etc/fstab'>]>{domain_xml(BAD, '&x;')}", "document type"),
    "10 MB": (lambda: domain_xml(BAD, inside=f"<x>{'y' * 10_000_000}</x>"), "more than"),
    "a million elements": (lambda: domain_xml(BAD, inside="<x/>" * 200_000), "more than"),
    "depth": (lambda: domain_xml(BAD, inside="<x>" * 5000 + "</x>" * 5000), "deeper"),
    "a million interfaces": (lambda: domain_xml(BAD, inside="<interface/>" * 5000), "interfaces, more than"),
    "a name of 100 kB": (lambda: domain_xml(BAD, "n" * 100_000), "too long"),
    "not UTF-8": (raises(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")), "not UTF-8"),
    "a lone surrogate": (lambda: domain_xml(BAD, "\ud800"), "XML"),
    "nothing": (lambda: "", "XML"),
    "another's UUID": (lambda: domain_xml(GOOD), f"says that it is {GOOD}"),
    "an error": (raises(failure(libvirt.VIR_ERR_INTERNAL_ERROR)), "cannot read domain"),
}  # fmt: skip


@pytest.mark.parametrize(("read", "said"), list(DOMAINS.values()), ids=list(DOMAINS))
def test_a_domain_that_makes_no_sense(read: Callable[[], str], said: str) -> None:
    begin = time.process_time()
    liar = connection(Thing(BAD, read), Thing(GOOD, domain_xml))
    views, errors = calls.list_domains(liar, "kvm01", lambda: None)
    assert list(views) == [GOOD]
    assert views[GOOD].name == "g1"
    assert list(errors) == [BAD]
    assert said in str(errors[BAD])
    assert len(str(errors[BAD])) < 600
    with pytest.raises(LibvirtError, match="kvm01"):
        calls.read_domain(liar, BAD, "kvm01")
    assert time.process_time() - begin < 5


def test_domains_that_vanish_between_two_calls() -> None:
    gone = [Thing(f"{BAD[:-4]}{n:04}", raises(failure(libvirt.VIR_ERR_NO_DOMAIN))) for n in range(500)]
    views, errors = calls.list_domains(connection(*gone, Thing(GOOD, domain_xml)), "kvm01", lambda: None)
    assert (list(views), errors) == ([GOOD], {})


NETWORKS: dict[str, tuple[Thing, int]] = {
    "not UTF-8": (Thing(BAD, raises(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"))), 1),
    "a name that is not": (
        Thing(BAD, lambda: network_xml(BAD), raises(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"))), 1),
    "10 MB": (Thing(BAD, lambda: f"<network>{'y' * 10_000_000}</network>"), 1),
    "an entity": (Thing(BAD, lambda: "<!DOCTYPE network [<!ENTITY l 'ha'>]>" + network_xml(BAD, "&l;")), 1),
    "gone": (Thing(BAD, raises(failure(libvirt.VIR_ERR_NO_NETWORK))), 0),
}  # fmt: skip


@pytest.mark.parametrize(("thing", "count"), list(NETWORKS.values()), ids=list(NETWORKS))
def test_a_network_that_makes_no_sense(thing: Thing, count: int) -> None:
    networks, errors = read_networks(Liar(thing, Thing(GOOD, network_xml)), "kvm01", lambda: None)
    assert [network.name for network in networks] == ["n1"]
    assert len(errors) == count
    assert all("kvm01" in str(error) and len(str(error)) < 600 for error in errors)


def test_an_event_of_a_network_whose_name_is_none() -> None:
    told: list[Any] = []
    nothing: Any = lambda *_: None  # noqa: E731
    callbacks = calls.Callbacks(nothing, lambda name, event: told.append((name, event)), nothing)
    thing = Thing(BAD, network_xml, raises(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid")))
    calls._network_lifecycle(None, thing, 0, 0, callbacks)
    assert told == [(BAD, "defined")]


def test_events_of_domains_without_end_take_no_more_room() -> None:
    async def main() -> None:
        host = Watched("kvm01", "test:///default").host
        callbacks = host._callbacks(host._generation)
        for number in range(2 * MAX_DIRTY):
            callbacks.domain(f"{GOOD[:-4]}{number:04x}", "started/booted")
        callbacks.domain(f"{GOOD[:-4]}0000", "resumed/migrated")
        await asyncio.sleep(0)
        assert len(host._dirty) == MAX_DIRTY
        assert host._dirty[f"{GOOD[:-4]}0000"] == ["started/booted", "resumed/migrated"]

    asyncio.run(main())
