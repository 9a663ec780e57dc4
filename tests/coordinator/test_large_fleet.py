"""Every look at a fleet of 400 hosts and 2,000 guests is quick, through the real API."""

from __future__ import annotations

import asyncio
import json
import struct
import time
from collections.abc import Coroutine
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
from coordinated import Fleet, coordinated
from ovsdb_servers import run, until
from played_switch import described

from controller.api.app import create_app
from controller.api.server import ApiServer
from controller.cli.client import Address, Client
from controller.desired import SEGMENTS
from controller.errors import NotFound
from controller.model.port import port_name
from controller.openflow.messages import Multipart, flow_desc_request
from controller.pipeline.cookies import learned_cookie
from controller.pipeline.pipeline import Entry
from controller.store.rows import PutStatus

HOSTS, GUESTS, NETWORKS = 400, 2000, 20
LEARNED = 50  # MACs on each host that carries the network
MEASURE = "port list"
"""Looks are measured by this one, in CPU time of the whole process, as machines differ and others use them too."""

LOOKS: dict[str, tuple[str, dict[str, Any]]] = {
    "get hosts": ("/hosts", {"limit": 5000}),
    "get networks": ("/networks", {}),
    "port list": ("/ports", {"limit": 5000}),
    "port list of a host": ("/ports", {"host": "kvm007"}),
    "describe a host": ("/hosts/kvm007", {}),
    "events": ("/events", {"limit": 5000}),
    "events of a host": ("/events", {"about": "kvm007", "last": 10}),
    "doctor": ("/doctor", {"limit": 5000}),
    "doctor of a host": ("/doctor", {"host": "kvm007"}),
    "fdb": ("/networks/net3/fdb", {}),
    "counters": ("/counters", {}),
    "unknown switches": ("/unknown-switches", {}),
    "flows of a host": ("/hosts/kvm007/flows", {"limit": 5000}),
    "explain a flow": (f"/flows/{learned_cookie(1):#x}", {}),
    "a port that is not there": ("/ports/00000000-0000-4000-8000-00000000100x.5254000003e8", {}),
    "topology of a network": ("/topology", {"network": "net3"}),
    "way between guests": ("/topology/path", {"from": "guest3", "to": "guest1983"}),
    "way between hosts": ("/topology/path", {"from": "kvm000", "to": "kvm399"}),
    "who shares": ("/topology/shares/guest3", {}),
    "what fails": ("/topology/fails/kvm007", {}),
}
WHOLE: dict[str, tuple[str, dict[str, Any]]] = {
    f"topology as {form}": ("/topology", {"format": form}) for form in ("json", "graphml", "gexf", "dot", "svg")
}


MOST, MOST_WHOLE = 8.0, 24.0
"""How much more than the measure a look may take, and one at the whole graph."""


async def fill(fleet: Fleet) -> None:
    """Hosts that nobody reaches, whose guests were seen before."""
    hosts = (
        f"{{kind: Host, name: kvm{n:03}, ovsdb: 'tcp:192.0.{n // 250}.{n % 250 + 1}:6640', "
        f"tunnel_ip: 192.0.{n // 250}.{n % 250 + 1}}}" for n in range(HOSTS)
    )  # fmt: skip
    networks = (f"{{kind: Network, name: net{n}, mode: isolated}}" for n in range(NETWORKS))
    await fleet.apply("\n---\n".join([*hosts, *networks]))
    for start in range(0, GUESTS, 500):
        await fleet.store.commit([_seen(n) for n in range(start, start + 500)], within=60)


def _seen(number: int) -> PutStatus:
    uuid, mac = f"00000000-0000-4000-8000-{number:012}", f"52:54:00:00:{number // 256:02x}:{number % 256:02x}"
    status = {
        "vm_uuid": uuid, "vm": f"guest{number}", "mac": mac, "host": f"kvm{number % HOSTS:03}",
        "tap": f"vnet{number // HOSTS}", "ofport": number // HOSTS + 1, "iface_id": uuid, "portgroup": "default",
        "network": f"net{number % NETWORKS}", "state": "active", "addresses": [f"10.0.{number // 250}.{number % 250}"],
    }  # fmt: skip
    return PutStatus("Port", port_name(uuid, mac), status, create=True)


def as_described(entry: Entry) -> bytes:
    stop = 48 + (int.from_bytes(entry.add[50:52], "big") + 7) // 8 * 8  # ofp_flow_mod (OpenFlow 1.5.1, 7.3.4.1)
    priority, match, instructions = int.from_bytes(entry.add[30:32], "big"), entry.add[48:stop], entry.add[stop:]
    return described(entry.identity, priority, match, instructions)


def answer_all(fleet: Fleet) -> None:
    """From here on every host's switch answers, with its ports' counters and with what it has learned in a network."""
    segment = fleet.store.numbers(SEGMENTS)["net3/0"]
    ports = b"".join(struct.pack("!H2xIII8Q", 80, port, 0, 0, *range(8)) for port in range(1, 8))
    match = bytes.fromhex("0001000e80000606020000000001") + bytes(2)
    counted = b"".join(struct.pack("!HBB", 0x8002, field << 1, size) + bytes(size)
                       for field, size in ((3, 4), (4, 8), (5, 8)))  # fmt: skip
    counted = struct.pack("!HH", 0, 4 + len(counted)) + counted
    learned = struct.pack("!H2xB11xQ", 48, 0, learned_cookie(segment)) + match + bytes.fromhex("0000000400000000")

    wanted = b"".join(as_described(entry) for entry in fleet.coordinator.engine.tables["kvm007"])

    async def read(request: bytes) -> bytes:
        await asyncio.sleep(0.001)
        if request == flow_desc_request():
            return wanted
        match int.from_bytes(request[8:10], "big"):
            case Multipart.PORT_STATS:
                return ports
            case Multipart.AGGREGATE:
                return counted
        return learned * LEARNED

    for agent in fleet.coordinator.agents.values():
        agent.switch.read = read  # type: ignore[method-assign]


def look(client: Client, path: str, query: dict[str, Any]) -> tuple[float, Any]:
    """CPU seconds, the server's and the client's, and the answer."""
    start = time.process_time()
    try:
        answer = client.text(path, **query) if "format" in query else client.get(path, **query)
    except NotFound as error:
        answer = error
    return time.process_time() - start, answer


@pytest.mark.alone
def test_no_look_takes_much_more_than_a_list_of_all_ports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            await fill(fleet)
            coordinator, loop = fleet.coordinator, asyncio.get_running_loop()
            await until(lambda: coordinator.observer.judged >= coordinator.sequence, "every vNIC was judged", within=50)
            answer_all(fleet)

            def call(coroutine: Coroutine[Any, Any, Any]) -> Any:
                return asyncio.run_coroutine_threadsafe(coroutine, loop).result(30)

            api = ApiServer(create_app(call, fleet.operations), tmp_path / "api.sock", None)
            api.start()
            client = Client(Address(path=str(tmp_path / "api.sock")))
            try:
                found = {}
                for name, (path, query) in (LOOKS | WHOLE).items():
                    taken = [await asyncio.to_thread(look, client, path, query) for _ in range(3)]
                    found[name] = min(taken, key=itemgetter(0))
            finally:
                await asyncio.to_thread(api.stop)
        with capsys.disabled():
            print(json.dumps({name: round(seconds * 1000) for name, (seconds, _) in found.items()}))
        measure = found[MEASURE][0]
        slow = {name: round(seconds / measure, 1) for name, (seconds, _) in found.items()
                if seconds > measure * (MOST_WHOLE if name in WHOLE else MOST)}  # fmt: skip
        assert slow == {}
        assert len(found["port list"][1]["items"]) == GUESTS
        carriers = {number % HOSTS for number in range(GUESTS) if number % NETWORKS == 3}
        assert len(found["fdb"][1]["entries"]) == GUESTS // NETWORKS + LEARNED * len(carriers)
        assert len(found["flows of a host"][1]["items"]) > 400
        assert all(flow["why"] and flow["source"] for flow in found["flows of a host"][1]["items"])
        assert len(found["counters"][1]["ports"]) == 7 * HOSTS
        assert found["events"][1]["total"] >= GUESTS
        assert found["doctor"][1]["total"] >= 2 * HOSTS
        assert "did you mean" in str(found["a port that is not there"][1])
        assert len(found["way between guests"][1]["hops"]) > 2
        assert len(found["topology of a network"][1]["nodes"]) > 2 * GUESTS // NETWORKS
        assert all(len(found[name][1]) > 1_000_000 for name in WHOLE)

    run(main(), within=110)
