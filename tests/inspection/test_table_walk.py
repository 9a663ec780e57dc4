"""What went between a real switch's tables, and the picture of it."""

from __future__ import annotations

import asyncio
import subprocess
from xml.etree import ElementTree

from fleets import FleetRows
from inspected import SECONDS, Inspected, LiveSwitch, connected
from openflow_vswitch import Vswitch

from controller.api.inspection import Arrow, TableInfo, TableWalk
from controller.table_picture import write_walk

_SVG = "{http://www.w3.org/2000/svg}"


def receive(vswitch: Vswitch, port: str, source: str, target: str, address: str) -> None:
    """An IPv4 packet that comes in by a dummy port."""
    headers = f"in_port(1),eth(src={source},dst={target}),eth_type(0x0800),"
    headers += f"ipv4(src={address},dst=10.0.0.2,proto=17,tos=0,ttl=64,frag=no),udp(src=9,dst=53)"
    command = ["ovs-appctl", "-t", str(vswitch.folder / "vs.ctl"), "netdev-dummy/receive", port, headers]
    subprocess.run(command, check=True, capture_output=True)


def counted(walk: TableWalk) -> dict[str, tuple[int, int, int]]:
    return {table.name: (table.packets, table.dropped, table.sent) for table in walk.tables if table.packets}


def test_packets_are_followed_from_table_to_table(vswitch: Vswitch) -> None:
    path = vswitch.bridge("walk")
    fleet = FleetRows().host("kvm1", "192.0.2.1").host("kvm2", "192.0.2.2").network("web")
    fleet.port("a", "kvm1", "web", ofport=1, addresses=("10.0.0.1",)).port("b", "kvm1", "web", ofport=2)
    fleet.port("c", "kvm2", "web", ofport=3)

    async def main() -> TableWalk:
        async with connected(path) as connection:
            it = Inspected(fleet, {"kvm1": LiveSwitch(connection)})
            await it.install("kvm1")
            for target in ("52:54:00:00:00:02", "52:54:00:00:00:02", "52:54:00:00:00:03"):
                receive(vswitch, "walkp1", "52:54:00:00:00:01", target, "10.0.0.1")
            receive(vswitch, "walkp1", "52:54:00:00:00:01", "52:54:00:00:00:02", "10.0.0.9")
            ends = {"address_guard": (4, 1, 0), "deliver": (2, 0, 2), "tunnel": (1, 0, 1)}
            walk = await it.inspection.walk("kvm1")
            async with asyncio.timeout(SECONDS):  # counters reach the flows a while after the packets
                while not ends.items() <= counted(walk).items():
                    await asyncio.sleep(0.05)
                    walk = await it.inspection.walk("kvm1")
            return walk

    walk = asyncio.run(main())
    assert counted(walk)["classify"] == (4, 0, 0)
    assert counted(walk)["forward"] == (3, 0, 0)
    arrows = {(arrow.source, arrow.target): arrow.packets for arrow in walk.arrows if arrow.packets}
    assert arrows["vNICs", "classify"] == arrows["classify", "spoof_guard"] == 4
    assert arrows["address_guard", "origin"] == 3
    assert (arrows["forward", "isolation"], arrows["forward", "tunnel"]) == (2, 1)
    assert (arrows["deliver", "vNICs"], arrows["tunnel", "geneve"]) == (2, 1)
    assert [table.name for table in walk.tables][:3] == ["classify", "tunnel_peer", "tunnel_segment"]
    assert walk.ports == ["vNICs", "geneve", "gre", "vxlan"]
    texts = [element.text or "" for element in ElementTree.fromstring("".join(write_walk(walk))).iter(f"{_SVG}text")]
    assert {"classify", "1 dropped", "geneve", "4"} <= set(texts)


def test_a_picture_is_well_formed_whatever_is_in_it() -> None:
    """No table, one, names of strangers, large counts, look-ups that come back."""
    hostile = "<b>&\x1b[2J" + "x" * 200
    tables = [TableInfo(n, f"t{n}", "", hostile, n, 10**n, 10**n // 2, 0) for n in range(12)]
    arrows = [Arrow(f"t{a}", f"t{b}", 10**a, bool(b % 2)) for a in range(12) for b in range(a + 1, 12, 3)]
    arrows += [Arrow(hostile, "t0", 5), Arrow("t11", hostile, 6), Arrow("t0", "t1", 0)]
    for walk in (TableWalk("kvm1", [], [], []), TableWalk(hostile, tables[:1], [], []),
                 TableWalk("kvm1", tables, [hostile], arrows)):  # fmt: skip
        drawn = ElementTree.fromstring("".join(write_walk(walk)))
        inside = [float(rect.get("x", 0)) + float(rect.get("width", 0)) for rect in drawn.iter(f"{_SVG}rect")]
        assert max(inside) <= float(drawn.get("width", 0))
    assert "100.0M" in "".join(write_walk(TableWalk("kvm1", tables, [hostile], arrows)))
