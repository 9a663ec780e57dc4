"""IPv6 in a running coordinator: a lease is in the store before its client hears of it, and answers go to who asked."""

from __future__ import annotations

import struct
from ipaddress import IPv6Address
from pathlib import Path

import pytest
from coordinated import Fleet, coordinated
from ovsdb_servers import run, until
from played_switch import PlayedSwitch

from controller.model.subnet import gateway_mac, link_local
from controller.openflow.decode import PacketIn
from controller.ovsdb.host import HookRow, VnicRow
from controller.pipeline.tables import GATEWAY, ICMP_ERROR, Table
from controller.services import datagrams6
from controller.services import dhcp6_message as message
from controller.services.datagrams6 import Datagram6
from controller.services.dhcp6_message import Kind, Option
from controller.services.ra import RouterAdverts

FLEET = """\
{kind: Host, name: kvm1, ovsdb: 'unix:/1', tunnel_ip: 192.0.2.1}
---
{kind: Host, name: kvm2, ovsdb: 'unix:/2', tunnel_ip: 192.0.2.2}
---
{kind: Network, name: web, mode: isolated, subnets: ['10.0.0.0/24', 'fd00::/64'],
 dhcp: {range6: ['fd00::10', 'fd00::11']}, portgroups: {default: {learn_addresses: 1}}}
"""
MACS = {"kvm1": "52:54:00:00:00:01", "kvm2": "52:54:00:00:00:02"}
SERVER = gateway_mac("web")


@pytest.fixture(autouse=True)
def unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is told of a router unasked."""
    monkeypatch.setattr(RouterAdverts, "tick", lambda self, now: None)


async def started(fleet: Fleet) -> dict[str, PlayedSwitch]:
    await fleet.apply(FLEET)
    switches = {name: fleet.connect(name) for name in MACS}
    for name in MACS:
        await until(lambda name=name: fleet.coordinator.agents[name].switch.state.state == "up", "they are driven")
    for number, (name, mac) in enumerate(MACS.items(), start=1):
        uuid = f"00000000-0000-4000-8000-{number:012}"
        row = VnicRow("vnet0", 4 + number, mac, f"i{number}", uuid, "web:default", None)
        fleet.coordinator.observer.vnics(name, {"vnet0": row}, HookRow())
    await until(lambda: all(status(fleet, mac).get("state") == "active" for mac in MACS.values()), "they are switched")
    return switches


def status(fleet: Fleet, mac: str) -> dict[str, object]:
    return next((dict(row.status) for row in fleet.store.rows("Port").values() if row.status.get("mac") == mac), {})


def hear(fleet: Fleet, switch: PlayedSwitch, ofport: int, frame: bytes, by: Table = GATEWAY) -> None:
    """A packet that a vNIC sends to its gateway; ``by`` is the table that gives it to the controller."""
    segment = fleet.store.numbers("segment")["web/0"]
    fields = struct.pack("!HBBIHBBI", 0x8000, 0, 4, ofport, 0x0001, 0, 4, segment)
    table = fleet.coordinator.engine.pipeline.number[by]
    switch.handlers.packet_in(switch.connection, PacketIn(table, 1, 0xF5 << 56, len(frame), fields, frame))


def asks(mac: str, kind: Kind, *options: tuple[int, bytes]) -> bytes:
    duid = b"\0\3\0\1" + bytes.fromhex(mac.replace(":", ""))
    payload = message.encode(kind, b"xid", [(Option.CLIENT_ID, duid), *options])
    return datagrams6.encode(Datagram6(mac, "33:33:00:01:00:02", link_local(mac), "ff02::1:2", 546, 547, payload))


def told(switch: PlayedSwitch) -> list[bytes]:
    """The frames that the switch was given for guests, from the gateway."""
    source = bytes.fromhex(SERVER.replace(":", ""))
    return [sent[sent.index(source) - 6 :] for sent in switch.sent if source in sent]


def test_leases_stand_in_the_store_before_their_clients_hear_of_them(tmp_path: Path) -> None:
    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            switches = await started(fleet)
            at_once = (Option.RAPID_COMMIT, b""), (Option.IA_NA, message.association(1, 0, ()))
            written: dict[str, int] = {}
            for name, switch in switches.items():

                def sent(data: bytes, name: str = name, switch: PlayedSwitch = switch) -> None:
                    switch.sent.append(data)
                    if told(switch):
                        written.setdefault(name, len(fleet.store.rows("DhcpLease")))

                switch.send = sent  # type: ignore[method-assign]
            for number, name in enumerate(MACS, start=5):
                hear(fleet, switches[name], number, asks(MACS[name], Kind.SOLICIT, *at_once))
            await until(lambda: all(told(switch) for switch in switches.values()), "both are answered")
            assert len(written) == 2
            assert all(written.values())
            leases = {row.spec["mac"]: row.spec["ip"] for row in fleet.store.rows("DhcpLease").values()}
            assert set(leases) == set(MACS.values())
            assert set(leases.values()) == {"fd00::10", "fd00::11"}
            for name, switch in switches.items():
                (frame,) = told(switch)
                answer = datagrams6.decode(frame)
                assert (answer.eth_dst, answer.ipv6_dst) == (MACS[name], link_local(MACS[name]))
            await until(
                lambda: all(status(fleet, mac).get("addresses") == [leases[mac]] for mac in MACS.values()),
                "the guests are held to them",
            )

    run(main())


def test_who_has_a_lease_learns_no_other_address_of_that_family(tmp_path: Path) -> None:
    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            switches = await started(fleet)
            mac = MACS["kvm1"]
            at_once = (Option.RAPID_COMMIT, b""), (Option.IA_NA, message.association(1, 0, ()))
            hear(fleet, switches["kvm1"], 5, asks(mac, Kind.SOLICIT, *at_once))
            await until(lambda: bool(status(fleet, mac).get("addresses")), "it has a lease")
            await until(lambda: bool(fleet.coordinator.engine.fabric.ports_of("web")[0].addresses), "which is known")
            port = next(each for each in fleet.coordinator.engine.fabric.ports_of("web") if each.mac == mac)
            assert (port.learned, port.leased_kinds, port.may_learn) == ((), {"ipv6"}, True)
            for address in ("fd00::99", "fe80::99"):
                fleet.coordinator.claims.take("kvm1", advertises(mac, address))
            await until(lambda: not fleet.coordinator.guests.claimed, "nothing is under way")
            assert status(fleet, mac)["learned"] == ["fe80::99"]

    run(main())


def advertises(mac: str, address: str) -> PacketIn:
    own, ip = bytes.fromhex(mac.replace(":", "")), message.addresses([address])
    head = b"\x60\0\0\0\0\x18\x3a\xff" + ip + message.addresses(["ff02::1"])
    frame = b"\x33\x33\0\0\0\1" + own + b"\x86\xdd" + head + b"\x88" + bytes(7) + ip
    return PacketIn(0, 1, 0xF5 << 56, len(frame), struct.pack("!HBBI", 0x8000, 0, 4, 5), frame)


def test_who_asks_for_routers_is_told_and_nobody_else(tmp_path: Path) -> None:
    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            switches = await started(fleet)
            for switch in switches.values():
                switch.sent.clear()
            frame = bytearray(bytes(6) + bytes.fromhex("525400000001") + b"\x86\xdd" + bytes(40) + b"\x85" + bytes(7))
            frame[20] = 58
            hear(fleet, switches["kvm1"], 5, bytes(frame))
            (answer,) = told(switches["kvm1"])
            assert (answer[:6], answer[54]) == (bytes.fromhex("333300000001"), 134)
            for junk in (bytes(frame[:54]), bytes(frame[:13]), b""):
                hear(fleet, switches["kvm1"], 5, junk)
            hear(fleet, switches["kvm1"], 77, bytes(frame))
            assert len(told(switches["kvm1"])) == 1

    run(main())


def test_a_guest_is_told_by_the_networks_that_there_are_now(tmp_path: Path) -> None:
    """Which these are is not looked up for each packet."""
    body = struct.pack("!HHHH", 5, 33434, 8, 0)
    ends = IPv6Address("fd00::10").packed + IPv6Address("fd09::5").packed
    macs = b"".join(bytes.fromhex(mac.replace(":", "")) for mac in (SERVER, MACS["kvm1"]))
    sent = macs + struct.pack("!HIHBB", 0x86DD, 6 << 28, len(body), 17, 64) + ends + body

    async def main() -> list[tuple[int, int]]:
        async with coordinated(tmp_path) as fleet:
            switch = (await started(fleet))["kvm1"]
            hear(fleet, switch, 5, sent, ICMP_ERROR)
            await fleet.apply("{kind: Network, name: api, mode: route, subnets: ['fd09::/64']}")
            await until(lambda: fleet.coordinator.engine.fabric.names("network") == {"api", "web"}, "it is there")
            hear(fleet, switch, 5, sent, ICMP_ERROR)
            return [(frame[54], frame[55]) for frame in told(switch)]

    assert run(main()) == [(1, 0), (1, 3)]  # no route; address unreachable
