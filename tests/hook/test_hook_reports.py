"""What hooks write, read: what counts as a word on a vNIC, and what does not, however it was made."""

from __future__ import annotations

import base64
import gzip
import random
from typing import Any

import pytest
from hook_host import IFACE, MAC, VM, domain, hook_data, interface

from controller.errors import LibvirtError
from controller.model.network import NetworkSpec, PortGroup
from controller.ovsdb.host import HookRow, VnicRow
from topology.hook import MAX_PUBLISHED, published
from topology.hook_reports import (
    AT_ONCE,
    MAX_PACKED,
    MAX_XML,
    PER_SECOND,
    HookReader,
    Report,
    hook_status,
    port_key,
    unpack,
)


def packed(xml: str) -> str:
    return base64.b64encode(gzip.compress(xml.encode(), mtime=0)).decode()


def row(**changes: Any) -> VnicRow:
    usual = {"interface": "vnet0", "ofport": 5, "mac": MAC, "iface_id": IFACE, "vm_uuid": VM, "profile": "web:default",
             "error": None, "report": None}  # fmt: skip
    return VnicRow(**{**usual, **changes})


def read(vnic: VnicRow, **ports: str) -> Report | None:
    return HookReader().read("kvm1", {"vnet0": vnic}, HookRow("1 no", ports)).get("vnet0")


def plugged(data: str) -> dict[str, str]:
    return {port_key(VM, MAC): packed(data)}


def test_the_xml_of_the_guest_says_more_than_where_it_was_plugged_in() -> None:
    report = read(row(report=packed(domain())), **plugged(hook_data("db")))
    assert report is not None
    assert report.xml is not None
    assert (report.vm, report.xml.network, report.socket) == ("web1", "web", None)


def test_where_it_was_plugged_in_counts_when_the_xml_is_about_another_life() -> None:
    for stale in (domain(interface("vnet7")), domain().replace(IFACE, VM), domain().replace(VM, IFACE), "<domain/>"):
        report = read(row(report=packed(stale)), **plugged(hook_data("db")))
        assert report is not None
        assert report.socket is not None
        assert (report.vm, report.socket.network, report.socket.portgroup) == ("web1", "web", "db")


def test_the_link_of_a_guest_that_started_long_ago_is_not_known() -> None:
    report = read(row(report=packed(domain().replace("<model", "<link state='down'/>\n      <model"))))
    assert report is not None
    assert report.xml is not None
    assert report.xml.link_up


@pytest.mark.parametrize(
    "changes", [{"mac": "52:54:00:00:00:02"}, {"vm_uuid": IFACE}, {"iface_id": VM}, {"iface_id": None}, {"mac": None}]
)
def test_a_word_on_another_vnic_is_no_word_on_this_one(changes: dict[str, Any]) -> None:
    assert read(row(report=packed(domain()), **changes), **plugged(hook_data("db"))) is None


def test_two_interfaces_of_one_name_are_no_word() -> None:
    twice = domain(interface(), interface(source="network='admin' "))
    assert read(row(report=packed(twice))) is None


@pytest.mark.parametrize("hostile", [
    "", "A", "====", "no base64!", base64.b64encode(b"no gzip").decode(), packed("no XML"), packed("<domain>"),
    packed("<!DOCTYPE domain [<!ENTITY a 'b'>]>" + domain()), packed(domain() + "x" * MAX_XML), "A" * (MAX_PACKED + 1),
    packed(domain())[:200], packed("<other/>"), packed(hook_data(mac="x")), packed(hook_data().replace("owner", "o")),
    packed(hook_data().replace(">web1<", "><")), packed(hook_data().replace(">web<", ">\x01<")), packed("\ud800x"[1:]),
    base64.b64encode(gzip.compress(b"\xff\xfe<", mtime=0)).decode(), packed(hook_data(mac="53:54:00:00:00:01")),
])  # fmt: skip
def test_what_cannot_be_read_is_no_word_and_harms_nobody(hostile: str) -> None:
    reader = HookReader()
    second = "52:54:00:00:00:02"
    other = row(interface="vnet1", mac=second, report=packed(domain(interface("vnet1", mac=second))))
    rows = {"vnet0": row(report=hostile), "vnet1": other}
    found = reader.read("kvm1", rows, HookRow("1 no", {port_key(VM, MAC): hostile}))
    assert set(found) == {"vnet1"}


def test_a_kilobyte_that_grows_into_a_gigabyte_is_not_unpacked() -> None:
    bomb = base64.b64encode(gzip.compress(b" " * 40_000_000)).decode()
    assert len(bomb) < MAX_PACKED
    with pytest.raises(LibvirtError, match="more than"):
        unpack(bomb, "host kvm1")


def test_any_bytes() -> None:
    choose = random.Random(7)
    whole = packed(domain())
    for _ in range(300):
        text = list(whole)
        for _ in range(choose.randrange(1, 6)):
            text[choose.randrange(len(text))] = chr(choose.randrange(32, 127))
        read(row(report="".join(text)))


def test_what_was_read_once_is_not_read_again(caplog: pytest.LogCaptureFixture) -> None:
    reader = HookReader()
    for _ in range(3):
        reader.read("kvm1", {"vnet0": row(report="no base64!")}, HookRow())
    assert len(caplog.records) == 1
    assert "kvm1: what the hook says of vnet0 is left out" in caplog.text


@pytest.mark.parametrize("end", ["-->", ""])
def test_of_a_host_that_writes_without_end_only_so_much_is_read_at_once(end: str) -> None:
    """Reading takes the loop's time: 12 MB some seconds, in which no other host's guest would be switched."""
    now, size = 0.0, MAX_XML - 10_000
    reader = HookReader(lambda: now)
    taps = [f"vnet{number}" for number in range(50)]
    rows = {tap: row(interface=tap, report=packed(f"{domain(interface(tap))}<!--{'x' * size}{end}")) for tap in taps}

    def found() -> int:
        return len(reader.read("kvm1", rows, HookRow("1 no"))) if end else 0

    most = AT_ONCE // size + 1 if end else 0
    assert found() == most
    assert found() == most, "no time has passed"
    turns = 0
    while reader.behind or not turns:
        now += AT_ONCE / PER_SECOND
        turns += 1
        reader.read("kvm1", rows, HookRow("1 no"))
    assert turns >= 50 * size // AT_ONCE - 1
    assert found() == (50 if end else 0)


def test_what_people_see_of_a_hook() -> None:
    assert hook_status(HookRow()) is None
    assert hook_status(HookRow("1 no")) == {"version": 1, "refuses": False, "reason": ""}
    assert hook_status(HookRow("2 refuse")) == {"version": 2, "refuses": True, "reason": ""}
    strange = hook_status(HookRow("\x1b[2J" * 1000))
    assert strange is not None
    assert strange["version"] is None
    assert len(str(strange["reason"])) < 150


def test_what_a_hook_may_refuse_by() -> None:
    networks = {
        "web": NetworkSpec(mode="isolated", portgroups={"db": PortGroup()}),
        "lab": NetworkSpec(mode="isolated"),
    }
    assert published(networks) == "lab:default web:default web:db"
    assert published({}) == ""
    many = {f"n{number}": networks["web"] for number in range(MAX_PUBLISHED // 10)}
    assert published(many) is None, "then everybody passes"
