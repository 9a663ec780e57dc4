"""Who is where and how busy, of real bridges."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from itertools import count

import pytest
from fleets import FleetRows
from inspected import Inspected, LiveSwitch, connected
from openflow_vswitch import Vswitch

from apps import APPS
from controller import whereabouts
from controller.errors import NotFound, OpenFlowError
from controller.model.lease import Lease
from controller.openflow.decode_ports import decode_port_stats
from controller.pipeline.cookies import arrival_cookie, learned_cookie
from controller.pipeline.pipeline import Pipeline
from controller.pipeline.tables import LEARNED
from controller.whereabouts import Whereabouts

_BRIDGES = count()
_LEARNED = Pipeline(APPS).number[LEARNED]


def fleet() -> FleetRows:
    rows = FleetRows().host("kvm1", "192.0.2.1", "phys1").host("kvm2", "192.0.2.2", "phys1")
    trunk = {"ten": {"vlan": 10}, "both": {"trunk": [10, 20]}}
    rows.network("web").network("lan", "bridge", physical_network="phys1", portgroups=trunk)
    rows.port("a", "kvm1", "lan", "ten", ofport=1, vm="web1", tap="vnet1", addresses=("10.0.0.1", "fd00::1"))
    rows.port("b", "kvm2", "lan", "ten", ofport=1, vm="web2", tap="vnet1")
    return rows.port("c", "kvm1", "lan", "both", ofport=3, vm="router", tap="vnet3")


def asked(vswitch: Vswitch, work: Callable[[Inspected, Whereabouts, str], Awaitable[None]]) -> None:
    """Run on a fleet whose kvm1 is a real bridge, and whose kvm2 nobody reaches."""
    path = vswitch.bridge(f"where{next(_BRIDGES)}")

    async def main() -> None:
        async with connected(path) as connection:
            it = Inspected(fleet(), {"kvm1": LiveSwitch(connection), "kvm2": LiveSwitch(None)})
            await work(it, Whereabouts(it.coordinator), path)

    asyncio.run(main())


def learn(vswitch: Vswitch, bridge: str, cookie: int, segment: int, mac: str, actions: str) -> None:
    match = f"table={_LEARNED},priority=100,reg0={segment}/0x7fffff,dl_dst={mac}"
    vswitch.ofctl("add-flow", bridge, f"cookie={cookie:#x},{match} actions={actions}")


def test_vnics_and_what_switches_have_learned(vswitch: Vswitch) -> None:
    async def work(it: Inspected, where: Whereabouts, bridge: str) -> None:
        numbers = it.fleet.segment_numbers.taken
        ten, other = numbers["lan/10"], numbers["web/0"]
        learn(vswitch, bridge, learned_cookie(ten), ten, "02:00:00:00:00:01", "set_field:0xfa01/0xffff->reg2")
        learn(vswitch, bridge, learned_cookie(ten, 3), ten, "02:00:00:00:00:02", "set_field:3/0xffff->reg2")
        tunnel = "set_field:2/0xffff->reg3,set_field:0xfde8/0xffff->reg2"
        learn(vswitch, bridge, learned_cookie(ten), ten, "02:00:00:00:00:03", tunnel)
        learn(vswitch, bridge, learned_cookie(other), other, "02:00:00:00:00:04", "set_field:3/0xffff->reg2")
        learn(vswitch, bridge, arrival_cookie(3), ten, "02:00:00:00:00:05", "drop")
        found = await where.fdb("lan")
        learned = [entry for entry in found.entries if entry.kind == "learned"]
        assert [(entry.mac[-2:], entry.vlan, entry.host, entry.port, entry.vm) for entry in learned] == [
            ("01", 10, "kvm1", "phys1", None), ("02", 10, "kvm1", "vnet3", "router"),
            ("03", 10, "kvm1", "tunnel to kvm2", None),
        ]  # fmt: skip
        assert all(entry.age is not None and entry.age < 60 for entry in learned)
        vnics = [(entry.vm, entry.vlan, entry.host, entry.port) for entry in found.entries if entry.kind == "vnic"]
        assert sorted(vnics) == [
            ("router", 10, "kvm1", "vnet3"), ("router", 20, "kvm1", "vnet3"), ("web1", 10, "kvm1", "vnet1"),
            ("web2", 10, "kvm2", "vnet1"),
        ]  # fmt: skip
        assert [(each.host, each.reason) for each in found.unread] == [("kvm2", "is not connected: nobody is there")]
        with pytest.raises(NotFound, match="did you mean lan"):
            await where.fdb("lann")

    asked(vswitch, work)


def test_more_than_anybody_reads_is_counted(vswitch: Vswitch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whereabouts, "MOST_ENTRIES", 3)

    async def work(it: Inspected, where: Whereabouts, bridge: str) -> None:
        found = await where.fdb("lan")
        assert (len(found.entries), found.left_out) == (3, 1)

    asked(vswitch, work)


def test_counters_of_all_ports_with_whose_they_are(vswitch: Vswitch) -> None:
    async def work(it: Inspected, where: Whereabouts, bridge: str) -> None:
        before = (await where.counters("kvm1")).ports
        vswitch.ofctl("packet-out", bridge, "in_port=NONE packet=ffffffffffff0200000000010800 actions=output:1")
        after = await where.counters(None)
        [old], [new] = ([each for each in ports if each.ofport == 1] for ports in (before, after.ports))
        assert (new.kind, new.name, new.vm, new.interface, new.network) == ("vnic", "a", "web1", "vnet1", "lan")
        assert new.received_packets >= old.received_packets + 1
        assert {each.kind for each in after.ports} == {"vnic", "other"}
        assert [each.host for each in after.unread] == ["kvm2"]

    asked(vswitch, work)


@pytest.mark.parametrize("body", [b"\0" * 4, struct.pack("!H2xIII8Q", 79, 1, *[0] * 10), b"\0\x58" + b"\0" * 78])
def test_counters_that_are_cut_short_are_refused(body: bytes) -> None:
    with pytest.raises(OpenFlowError):
        decode_port_stats(body)


def test_what_a_switch_does_not_count_is_nothing() -> None:
    body = struct.pack("!H2xIII8Q", 88, 7, 1, 2, 3, 2**64 - 1, *range(6)) + b"\0" * 8
    assert decode_port_stats(body)[7].rx_packets == 3
    assert decode_port_stats(body)[7].tx_packets == 0


def test_leases_of_both_families_stand_in_order() -> None:
    it = Inspected(fleet(), {})
    told = ("fd00::1:0", "10.0.0.100", "fd00::9", "10.0.0.20")
    leases = {ip: Lease(network="web", ip=ip, mac="52:54:00:00:00:01", expires=2**31) for ip in told}
    it.coordinator.desired.leases = {"web": leases}
    found = asyncio.run(Whereabouts(it.coordinator).leases("web"))
    assert [lease.address for lease in found] == ["10.0.0.20", "10.0.0.100", "fd00::9", "fd00::1:0"]
