"""A controller in memory, behind the real HTTP server: real validation, no switches."""

from __future__ import annotations

import asyncio
import difflib
import threading
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from controller.api.app import create_app
from controller.api.inspection import (
    Arrow,
    Explanation,
    FlowFilter,
    FlowInfo,
    GroupInfo,
    MeterInfo,
    TableInfo,
    TableWalk,
)  # fmt: skip
from controller.api.metrics import OBJECTS
from controller.api.operations import (
    Applied,
    Finding,
    Health,
    HostNetwork,
    Listing,
    Outcome,
    Trouble,
    Unconfirmed,
    UnknownSwitch,
)
from controller.api.server import ApiServer
from controller.api.tracing import Question, Trace
from controller.api.whereabouts import Counters, Fdb, FdbEntry, LeaseInfo, PortCounters, Unread
from controller.errors import Conflict, InvalidInput, NotFound, Problem
from controller.history import EventFilter, Found, History
from controller.model.documents import Document, dump_spec
from controller.model.kinds import Fleet
from controller.model.network import network_uuid
from tests.graph.graph_fleets import FleetRows, links
from topology.graph.nodes import Heard, Links
from topology.graph.topology import Topology

UP = {"state": "up", "reason": ""}
VM = "0a1b2c3d-0000-4000-8000-000000000001"


class FakeFleet:
    """Operations over dictionaries. ``unconfirmed`` and ``failure`` are set by tests."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], tuple[Any, int]] = {}
        self.observed: dict[str, dict[str, Any]] = {}
        self.flow_rows: dict[str, list[FlowInfo]] = {}
        self.later: dict[str, list[FlowInfo]] = {}  # what the next reading finds
        self.asked: list[FlowFilter] = []
        self.explanations: dict[int, Explanation] = {}
        self.questions: list[Question] = []
        self.traced: Trace | None = None
        self.group_rows: list[GroupInfo] = []
        self.meter_rows: list[MeterInfo] = []
        self.sequence = 0
        self.unconfirmed: tuple[Unconfirmed, ...] = ()
        self.wrong: list[tuple[int, Trouble]] = []  # the change after which it came, and what
        self.confirmed = asyncio.Event()
        self.failure: BaseException | None = None
        self.hanging: set[str] = set()  # hosts whose flows are told when all is confirmed
        self.waits: list[tuple[int, float, int | None]] = []  # sequence, seconds, since
        self.ready = True
        self.host_networks: dict[tuple[str, str], str] = {}  # of hosts' libvirts: host and name, XML
        self.graph = FleetRows()
        self.links: dict[str, Links] = {}
        self.heard: dict[str, dict[str, list[Heard]]] = {}  # by LLDP: host, physical network
        self.unknown: list[UnknownSwitch] = []
        self.history = History()
        self.findings: list[Finding] = []
        self.entries: list[FdbEntry] = []
        self.leased: list[LeaseInfo] = []
        self.ports: list[PortCounters] = []  # at each look once more of what was sent
        self.looks = 0
        self.unread: list[Unread] = []

    async def apply(self, documents: Sequence[Document], dry_run: bool) -> Applied:
        if self.failure is not None:
            raise self.failure
        fleet = Fleet()
        for (_, name), (spec, _) in self.rows.items():
            fleet.put(name, spec)
        outcomes = []
        for document in documents:
            spec, generation = self.rows.get((document.kind, document.name), (None, 0))
            if document.generation is not None and document.generation != generation:
                raise Conflict(f"is generation {generation}, not {document.generation}",
                               where=f"{document.kind} {document.name}", remedy="read it again")  # fmt: skip
            fleet.put(document.name, document.spec)
            action = "created" if spec is None else "unchanged" if spec == document.spec else "changed"
            outcomes.append(Outcome(document.kind, document.name, action, _diff(spec, document.spec)))
        if problems := fleet.problems():
            raise InvalidInput(problems)
        if dry_run:
            return Applied(tuple(outcomes), 0)
        for document, outcome in zip(documents, outcomes, strict=True):
            if outcome.action != "unchanged":
                self.sequence += 1
                _, generation = self.rows.get((document.kind, document.name), (None, 0))
                self.rows[document.kind, document.name] = (document.spec, generation + 1)
        return Applied(tuple(outcomes), self.sequence)

    async def delete(
        self, targets: Sequence[tuple[str, str]], generation: int | None, force: bool, dry_run: bool
    ) -> Applied:
        for kind, name in targets:
            if (kind, name) not in self.rows:
                raise NotFound("does not exist", where=f"{kind} {name}", remedy=f"there are: {self._names(kind)}")
            if generation not in (None, self.rows[kind, name][1]):
                raise Conflict("was changed", where=f"{kind} {name}", remedy="read it again")
            users = [key for key, (spec, _) in self.rows.items() if getattr(spec, "network", None) == name]
            users = [key for key in users if kind == "Network" and key not in targets]
            if users and not force:
                raise InvalidInput([Problem(f"Network {name}", f"is used by Port {user}", "delete it first, or --force")
                                    for _, user in users])  # fmt: skip
        if not dry_run:
            for target in targets:
                del self.rows[target]
            self.sequence += 1
        return Applied(tuple(Outcome(kind, name, "deleted", "") for kind, name in targets), self.sequence)

    async def troubles(self, since: int) -> tuple[Trouble, ...]:
        return tuple(trouble for began, trouble in self.wrong if began < since)

    async def wait(self, sequence: int, seconds: float, since: int | None = None) -> tuple[Unconfirmed, ...]:
        self.waits.append((sequence, seconds, since))
        if not self.unconfirmed:
            return ()
        try:
            await asyncio.wait_for(self.confirmed.wait(), seconds)
        except TimeoutError:
            return self.unconfirmed
        return ()

    async def list(self, kind: str) -> Listing:
        if self.failure is not None:
            raise self.failure
        observed = [document for document in self.observed.values() if document["kind"] == kind]
        return Listing([self._document(*key) for key in sorted(self.rows) if key[0] == kind] + observed, self.sequence)

    async def get(self, kind: str, name: str) -> dict[str, Any]:
        if name in self.observed:
            return self.observed[name]
        if (kind, name) not in self.rows:
            raise NotFound("does not exist", where=f"{kind} {name}", remedy=f"there are: {self._names(kind)}")
        return self._document(kind, name)

    async def flows(self, host: str, wanted: FlowFilter) -> Any:
        if self.failure is not None:
            raise self.failure
        if host in self.hanging:
            await self.confirmed.wait()
        if host not in self.flow_rows:
            raise NotFound("does not exist", where=f"Host {host}")
        self.asked.append(wanted)
        found = [each for each in self.flow_rows[host] if wanted.takes(each)]
        self.flow_rows[host] = self.later.pop(host, self.flow_rows[host])
        return found

    async def explain(self, cookie: int, host: str | None) -> Explanation:
        if cookie not in self.explanations:
            raise NotFound(f"no flow has the cookie {cookie:#x}")
        return self.explanations[cookie]

    async def trace(self, question: Question) -> Trace:
        self.questions.append(question)
        if question.source in self.hanging:
            await self.confirmed.wait()
        if self.traced is None:
            raise NotFound(f"there is no guest {question.source}")
        return self.traced

    async def walk(self, host: str) -> TableWalk:
        if host in self.hanging:
            await self.confirmed.wait()
        return TableWalk(host, [TableInfo(0, "classify", "classify", "", 1, 7, 2, 5)], ["vNICs"],
                         [Arrow("vNICs", "classify", 7), Arrow("classify", "vNICs", 5)])  # fmt: skip

    async def fdb(self, network: str) -> Fdb:
        if ("Network", network) not in self.rows:
            raise NotFound("does not exist", where=f"Network {network}")
        return Fdb(network, self.entries, self.unread)

    async def leases(self, network: str) -> list[LeaseInfo]:
        if ("Network", network) not in self.rows:
            raise NotFound("does not exist", where=f"Network {network}")
        return self.leased

    async def counters(self, host: str | None) -> Counters:
        self.looks += 1
        return Counters(float(self.looks), [
            replace(each, sent_packets=each.sent_packets * self.looks, sent_bytes=each.sent_bytes * self.looks)
            for each in self.ports if host in {None, each.host}
        ], self.unread)  # fmt: skip

    async def groups(self, host: str) -> Any:
        return self.group_rows

    async def meters(self, host: str) -> Any:
        return self.meter_rows

    async def network_xml(self, host: str, name: str) -> str:
        if (host, name) not in self.host_networks:
            raise NotFound(f"there is no network of {host}'s libvirt {name}")
        return self.host_networks[host, name]

    async def foreign_networks(self, name: str, uuid: str) -> Any:
        return [HostNetwork(host, other, VM) for host, other in self.host_networks if other == name]

    async def unknown_switches(self) -> Any:
        return self.unknown

    async def events(self, wanted: EventFilter, seconds: float) -> Found:
        return await self.history.wait(wanted, seconds) if seconds else self.history.find(wanted)

    async def doctor(self, host: str | None) -> Any:
        if host is not None and ("Host", host) not in self.rows:
            raise NotFound("does not exist", where=f"Host {host}")
        return [finding for finding in self.findings if host in {None, finding.host}]

    async def topology(self) -> Topology:
        if self.failure is not None:
            raise self.failure
        told = links(self.graph) | self.links
        found = {name: replace(link, heard=self.heard.get(name, {})) for name, link in told.items()}
        return self.graph.topology(self.sequence, found)

    async def metrics(self) -> Any:
        return [OBJECTS.at(len(self.rows), "Network")]

    async def health(self) -> Health:
        return Health(True, self.ready, () if self.ready else ("the store is not reached",), "0.1.0")

    def _names(self, kind: str) -> str:
        return ", ".join(name for other, name in sorted(self.rows) if other == kind) or "none"

    def _document(self, kind: str, name: str) -> dict[str, Any]:
        spec, generation = self.rows[kind, name]
        status: dict[str, Any] = {}
        if kind == "Host":
            status = {"openflow": UP, "ovsdb": UP, "libvirt": {"state": "down", "reason": "Connection refused"},
                      "datapath_id": "00005254001234aa", "ovs_version": "3.1.0", "flows": 42, "ports": 3,
                      "strays": ["vnet9"], "not_understood": ["host kvm01, domain g: it has no MAC"],
                      "hook": {"version": 1, "refuses": True, "reason": ""}}  # fmt: skip
        if kind == "Network":
            status = {
                "uuid": network_uuid(name, spec),
                "mtu": 1450,
                "segments": {"0": 17},
                "hosts": ["kvm01"],
                "ports": 0,
            }
        if kind == "PortForward":
            status = {"addresses": ["203.0.113.11"], "target": "10.0.0.5", "host": "kvm01", "reason": ""}
        if kind == "BgpPeer":
            status = {"state": "established", "since": "2026-01-01T00:00:00Z", "reason": "", "announced": 1,
                      "received": 9, "hold_time": 90, "restart_time": 120,
                      "routes": ["10.20.0.0/24 via 203.0.113.11"]}  # fmt: skip
        if kind == "FloatingIP":
            status = {"target": "10.0.0.5", "host": "kvm01", "mac": "02:f1:00:00:00:05", "reason": ""}
        return {"kind": kind, "name": name, **dump_spec(spec), "generation": generation, "status": status}


class Served:
    """A FakeFleet on an asyncio loop of its own behind an ApiServer."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.fleet = FakeFleet()
        self.socket = folder / "api.sock"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.server = ApiServer(create_app(self.call, self.fleet), self.socket, ("127.0.0.1", 0), **settings)
        self.server.start()
        assert self.server.tcp_address is not None
        self.port = self.server.tcp_address[1]

    def call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    def happens(self, *words: str, **about: Any) -> None:
        """An event: kind, name, word, message. It is there when this returns."""

        async def add() -> None:
            self.fleet.history.add(*words, **about)

        self.call(add())

    def confirm(self) -> None:
        self._loop.call_soon_threadsafe(self.fleet.confirmed.set)

    def close(self) -> None:
        self.server.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def flow(table: str = "classify", **values: Any) -> FlowInfo:
    """A flow with some values of no importance."""
    about = {"priority": 200, "match": "in_port=3", "actions": "goto_table:spoof_guard", "cookie": "0xf1ee000000000001",
             "packets": 5, "bytes": 490, "duration": 12.5, "owner": "fleetswitch", "app": "edge",
             "source": "Network web", "why": "from a vNIC"}  # fmt: skip
    return FlowInfo(table=table, **(about | values))


def observed_port(vm: str, mac: str, **status: Any) -> dict[str, Any]:
    """The document of a vNIC that nobody registered."""
    about = {"vm_uuid": VM, "vm": vm, "mac": mac, "host": "kvm01", "tap": "vnet3", "ofport": 3, "iface_id": "x",
             "network": "web", "portgroup": "default", "addresses": [], "mtu": None, "state": "active",
             "reason": ""} | status  # fmt: skip
    name = f"{VM}.{mac.replace(':', '')}"
    return {"kind": "Port", "name": name, "generation": 1, "status": about}


def _diff(old: Any, new: Any) -> str:
    before, after = ("" if spec is None else yaml.safe_dump(dump_spec(spec)) for spec in (old, new))
    return "".join(difflib.unified_diff(before.splitlines(True), after.splitlines(True), "stored", "wanted"))
