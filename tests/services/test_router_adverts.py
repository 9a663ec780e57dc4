"""Router advertisements: what is said of a network, that others can read it, and when it is said to whom."""

from __future__ import annotations

import struct
from collections import Counter
from ipaddress import IPv6Address
from itertools import pairwise
from typing import Any

import pytest
from fleets import FleetRows
from os_ken.lib.packet import icmpv6, ipv6, packet

from controller.fabric import Fabric
from controller.model.network import NetworkSpec
from controller.services.ra import LATEST_SECONDS, SOON_SECONDS, RouterAdverts, advert_of
from controller.services.router_advert import encode, is_solicitation

MAC = "02:f5:00:00:00:01"
SOURCE, PREFIX, MTU, SERVERS = 1, 3, 5, 25  # RFC 4861, 4.6; RFC 8106, 5.1
ON_LINK, AUTONOMOUS = 0x80, 0x40


def said(**fields: Any) -> tuple[ipv6.ipv6, icmpv6.nd_router_advert, dict[int, bytes]]:
    """IPv6's header, the advertisement, and its options' contents by type; os-ken reads no option behind the first."""
    spec = NetworkSpec.model_validate({"mode": "isolated", "gateway_mac": MAC, **fields})
    advert = advert_of("web", spec, 1450)
    assert advert is not None
    frame = encode(advert)
    read = packet.Packet(frame)
    options, at = {}, 70
    while at < len(frame):
        options[frame[at]] = frame[at + 2 : at + 8 * frame[at + 1]]
        at += 8 * frame[at + 1]
    assert at == len(frame)
    return read.get_protocol(ipv6.ipv6), read.get_protocol(icmpv6.icmpv6).data, options


def test_guests_make_their_addresses_where_none_are_leased() -> None:
    head, told, options = said(subnets=["10.0.0.0/24", "fd00::/64"])
    assert (head.src, head.dst, head.hop_limit) == ("fe80::f5:ff:fe00:1", "ff02::1", 255)
    assert (told.ch_l, told.res, told.rou_l) == (64, 0, 0)  # it leads nowhere, so it is nobody's default router
    lasts = struct.pack("!III", 30 * 86400, 7 * 86400, 0)
    assert options == {
        SOURCE: bytes.fromhex(MAC.replace(":", "")),
        PREFIX: bytes([64, ON_LINK | AUTONOMOUS]) + lasts + IPv6Address("fd00::").packed,
        MTU: bytes(2) + (1450).to_bytes(4, "big"),
    }


@pytest.mark.parametrize(
    ("dhcp", "flags", "autonomous"),
    [
        ({"range6": ["fd00::10", "fd00::20"]}, 0b11, False),
        ({"hosts": [{"ip": "fd00::5", "mac": "52:54:00:00:00:05"}]}, 0b11, False),
        ({"domain": "example.org"}, 0b01, True),
    ],
)
def test_where_addresses_are_leased_guests_are_told_to_ask(dhcp: Any, flags: int, autonomous: bool) -> None:
    _, told, options = said(subnets=["fd00::/64"], dhcp=dhcp)
    assert told.res == flags
    assert options[PREFIX][1] == ON_LINK | (AUTONOMOUS if autonomous else 0)


def test_a_prefix_of_another_length_is_none_to_make_addresses_in() -> None:
    assert said(subnets=["fd00::/80"])[2][PREFIX][:2] == bytes([80, ON_LINK])


@pytest.mark.parametrize("mode", ["nat", "route", "open"])
def test_where_it_leads_elsewhere_it_is_the_default_router_for_as_long_as_can_be_said(mode: str) -> None:
    _, told, _ = said(mode=mode, subnets=["fd00::/64"])
    assert told.rou_l == 65535  # RFC 8319, 4


def test_name_servers_are_told() -> None:
    _, _, options = said(subnets=["fd00::/64"], dhcp={"dns": ["10.0.0.53", "fd00::53", "fd00::54"]})
    told = options[SERVERS]
    assert told[2:6] == (7 * 86400).to_bytes(4, "big")
    assert [str(IPv6Address(told[at : at + 16])) for at in (6, 22)] == ["fd00::53", "fd00::54"]


def test_without_ipv6_nothing_is_said() -> None:
    assert advert_of("web", NetworkSpec(mode="isolated", subnets=("10.0.0.1/24",)), 1500) is None


def test_what_is_a_question_for_routers() -> None:
    frame = bytearray(bytes(12) + b"\x86\xdd" + bytes(40) + bytes([133, 0, 0, 0]))
    frame[20] = 58
    assert is_solicitation(bytes(frame))
    frame[54] = 135
    assert not is_solicitation(bytes(frame))
    assert not is_solicitation(bytes(frame[:54]))


class _Rows:
    """What the service reads of the rows."""

    def __init__(self, fleet: FleetRows) -> None:
        self.hosts, self.networks, self.statuses = fleet.hosts, fleet.networks, fleet.ports


class Said:
    """A fleet whose guests are told; ``told`` are the moments, by host."""

    def __init__(self, fleet: FleetRows) -> None:
        self.fleet, self.fabric = fleet, Fabric()
        self.told: list[tuple[float, str]] = []
        self.now = 1000.0
        self.away: set[str] = set()
        self.service = RouterAdverts(_Rows(fleet), self.fabric, 20, self._send)  # type: ignore[arg-type]
        self.fabric.update(fleet.rows())

    def _send(self, host: str, message: bytes) -> bool:
        if host not in self.away:
            self.told.append((self.now, host))
        return host not in self.away

    def run(self, seconds: float) -> list[tuple[float, str]]:
        """Those that were told in this time."""
        self.told.clear()
        for _ in range(int(seconds)):
            self.now += 1
            self.service.tick(self.now)
        return list(self.told)


def two(**spec: Any) -> Said:
    fleet = FleetRows().host("kvm1", "192.0.2.1").host("kvm2", "192.0.2.2").network("web", **spec)
    return Said(fleet.port("a", "kvm1", "web").port("b", "kvm2", "web"))


def test_everybody_is_told_soon_after_a_start_and_then_from_time_to_time() -> None:
    fleet = two(subnets=["fd00::/64"])
    assert Counter(host for _, host in fleet.run(SOON_SECONDS + 1)) == {"kvm1": 1, "kvm2": 1}
    for host in ("kvm1", "kvm2"):
        moments = [moment for moment, told in fleet.run(6000) if told == host]
        between = [after - before for before, after in pairwise(moments)]
        assert 200 <= min(between) <= max(between) <= LATEST_SECONDS + 1
        assert len(set(between)) > 3  # not all at once, and not always after the same time


def test_what_becomes_another_is_said_soon() -> None:
    fleet = two(subnets=["fd00::/64"])
    fleet.run(SOON_SECONDS + 1)
    fleet.fleet.network("web", subnets=["fd00::/64"], dhcp={"range6": ["fd00::10", "fd00::20"]})
    fleet.fabric.update(fleet.fleet.rows())
    assert len(fleet.run(SOON_SECONDS + 1)) == 2


def test_every_segment_of_a_trunk_is_told_of() -> None:
    fleet = FleetRows().host("kvm1").network("web", subnets=["fd00::/64"], portgroups={"all": {"trunk": [10, 20]}})
    assert len(Said(fleet.port("a", "kvm1", "web", "all")).run(SOON_SECONDS + 1)) == 2


def test_guests_without_ipv6_are_told_nothing() -> None:
    assert two(subnets=["10.0.0.0/24"]).run(100) == []


def test_guests_of_a_host_that_comes_later_are_told_then() -> None:
    fleet = two(subnets=["fd00::/64"])
    fleet.away.add("kvm2")
    assert {host for _, host in fleet.run(SOON_SECONDS + 1)} == {"kvm1"}
    fleet.away.clear()
    assert {host for _, host in fleet.run(2)} == {"kvm2"}
