"""What people ask of the controller: to change, to look, to wait until the switches have confirmed."""

from __future__ import annotations

import asyncio
import builtins
import difflib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from operator import attrgetter
from typing import Any

import yaml

from controller.api.exposition import Sample
from controller.api.operations import (
    Action,
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
from controller.coordinator import Coordinator
from controller.desired import HOSTS, PHYSICAL_NETWORKS, SEGMENTS
from controller.doctor import examine
from controller.errors import HostError, InvalidInput, Problem, no_such
from controller.forwards import NO_TARGET, floating_status
from controller.history import EventFilter, Found, rfc3339
from controller.lldp import shown
from controller.measures import measure
from controller.model.documents import Document, dump_spec
from controller.model.floating import outside_subnets
from controller.model.host import HostSpec
from controller.model.kinds import Fleet, network_mtu, overlay_mtu
from controller.model.nat_pools import is_in, outside_subnets4
from controller.model.network import NetworkSpec, network_uuid, return_routes
from controller.nat_addresses import addresses
from controller.ovsdb.wanted import datapath_id
from controller.pipeline.fields import MAX_HOST, MAX_SEGMENT
from controller.pipeline.ports import MAX_UPLINK
from controller.rows import outside_segment, segment_name
from controller.store.rows import MarkDeleting, NumberRequest, Put, Remove, Row, Write
from controller.topology_view import TopologyView
from controller.whereabouts import Whereabouts
from topology.graph.topology import Topology
from topology.guests import strays
from topology.hook_reports import hook_status

_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # six times as fast where PyYAML was built with it


class FleetOperations(Whereabouts):
    """Implements ``controller.api.operations.Operations`` on the coordinator's loop; what only reads is inherited."""

    def __init__(self, coordinator: Coordinator) -> None:
        super().__init__(coordinator)
        self._coordinator = coordinator
        self._store = coordinator.store
        self._desired = coordinator.desired
        self._topology = TopologyView(coordinator)

    async def apply(self, documents: Sequence[Document], dry_run: bool) -> Applied:
        """Make these objects as described, all or none. Raises InvalidInput, Conflict, StoreError."""
        async with self._coordinator.changing:
            return await self._apply(documents, dry_run)

    async def _apply(self, documents: Sequence[Document], dry_run: bool) -> Applied:
        fleet = self._desired.fleet()
        for document in documents:
            fleet.put(document.name, document.spec)
        self._check(fleet, {(d.kind, d.name): d.where for d in documents})
        if problems := [problem for d in documents for problem in self._moved_bridge(d)]:
            raise InvalidInput(problems)
        outcomes = tuple(self._outcome(d.kind, d.name, dump_spec(d.spec)) for d in documents)
        writes = [Put(d.kind, d.name, dump_spec(d.spec), d.generation) for d in documents]
        numbers = list(_numbers(documents))
        if dry_run:
            self._store.check(writes, numbers=numbers)
            return Applied(outcomes, 0)
        if writes:
            changed = [(each.kind, each.name) for each in outcomes if each.action != "unchanged"]
            with self._coordinator.recorder.asked(changed):
                await self._store.commit(writes, numbers=numbers)
        return Applied(outcomes, self._coordinator.sequence)

    async def delete(
        self, targets: Sequence[tuple[str, str]], generation: int | None, force: bool, dry_run: bool
    ) -> Applied:
        """Delete objects, all or none. Raises NotFound, InvalidInput (in use), Conflict, StoreError."""
        async with self._coordinator.changing:
            return await self._delete(targets, generation, force, dry_run)

    async def _delete(
        self, targets: Sequence[tuple[str, str]], generation: int | None, force: bool, dry_run: bool
    ) -> Applied:
        for kind, name in targets:
            self._row(kind, name)
        gone = set(targets)
        problems = [p for kind, name in targets for p in self._users(kind, name, gone, force)]
        if problems:
            raise InvalidInput(problems)
        outcomes = tuple(Outcome(kind, name, "deleted", self._diff(kind, name, None)) for kind, name in targets)
        removals = [self._removal(kind, name, generation, force) for kind, name in targets]
        if dry_run:
            self._store.check(removals)
            return Applied(outcomes, 0)
        with self._coordinator.recorder.asked(targets):
            await self._store.commit(removals)
        for kind, name in targets:
            if force and kind == "Host":
                self._coordinator.driver.unlock_removal(name)
        return Applied(outcomes, self._coordinator.sequence)

    async def wait(self, sequence: int, seconds: float, since: int | None = None) -> tuple[Unconfirmed, ...]:
        """Wait until every host has confirmed; what has not, with the reason, when the time is over.

        First the vNICs have to be judged by the change, which may change rows again; those are waited for as well.
        A connection that is degraded has not confirmed either, unless it was so before the change ``since`` (by default
        the one that is waited for): ``troubles`` tells of those.
        """
        since = sequence if since is None else since
        coordinator = self._coordinator
        deadline = asyncio.get_running_loop().time() + seconds
        if not await coordinator.until(lambda: coordinator.observer.judged >= sequence, seconds):
            return (Unconfirmed("store", "ovsdb", "what the hosts tell cannot be written yet"),)
        target = max(sequence, coordinator.observer.judged)
        rest = max(0.0, deadline - asyncio.get_running_loop().time())
        if await coordinator.until(lambda: not any(self._behind(target, since)), rest):
            return ()
        return tuple(sorted(self._behind(target, since), key=attrgetter("host", "what")))

    async def troubles(self, since: int) -> tuple[Trouble, ...]:
        """Connections that were degraded before this change, and are so still."""
        troubles = self._coordinator.troubles
        return tuple(
            Trouble(name, what, part.reason)
            for name, agent in sorted(self._coordinator.agents.items())
            for what, part in sorted(agent.parts().items())
            if part.state == "degraded" and troubles.is_older(name, what, part.reason, since)
        )

    async def list(self, kind: str) -> Listing:
        """All objects of a kind as flat documents, by name."""
        plugged = Counter(status.host for status in self._desired.statuses.values())
        rows = sorted(self._store.rows(kind).items())
        return Listing([self._document(row, plugged) for _, row in rows], self._coordinator.sequence)

    async def get(self, kind: str, name: str) -> dict[str, Any]:
        """One such document. Raises NotFound."""
        plugged = Counter(status.host for status in self._desired.statuses.values())
        return self._document(self._row(kind, name), plugged)

    async def network_xml(self, host: str, name: str) -> str:
        """A network of a host's libvirt, as it is defined there. Raises NotFound, HostError."""
        self._row("Host", host)
        agent = self._coordinator.agents.get(host)
        if agent is None or agent.libvirt is None:
            raise HostError("no libvirt of it is known", where=f"Host {host}", remedy="add its field libvirt")
        xml = await agent.libvirt.network_xml(name)
        if xml is None:
            raise no_such(f"network of {host}'s libvirt", name, (network.name for network in agent.libvirt.networks))
        return xml

    async def foreign_networks(self, name: str, uuid: str) -> builtins.list[HostNetwork]:
        """Networks of hosts that have this name or UUID, and are none of fleetswitch's; as last read."""
        return [
            HostNetwork(host, network.name, network.uuid)
            for host, agent in sorted(self._coordinator.agents.items())
            for network in agent.foreign_networks()
            if network.name == name or network.uuid == uuid
        ]

    async def unknown_switches(self) -> builtins.list[UnknownSwitch]:
        """Who was turned away at the OpenFlow port, the latest first."""
        return [
            UnknownSwitch(
                f"{one.dpid:016x}" if one.dpid is not None else None, one.address, one.host, one.reason,
                rfc3339(one.first), rfc3339(one.last), one.count, one.remedy,
            )
            for one in self._coordinator.admission.strangers()
        ]  # fmt: skip

    async def events(self, wanted: EventFilter, seconds: float) -> Found:
        """What happened, the oldest first; where nothing did, the first that comes within these seconds."""
        history = self._coordinator.history
        return await history.wait(wanted, seconds) if seconds else history.find(wanted)

    async def doctor(self, host: str | None) -> builtins.list[Finding]:
        """What is wrong in the fleet, or with one host; the worst first. Raises NotFound."""
        if host is not None:
            self._row("Host", host)
        return await examine(self._coordinator, host)

    async def topology(self) -> Topology:
        """The fleet as a graph, with how the connections stand at this moment."""
        return self._topology.now()

    async def metrics(self) -> builtins.list[Sample]:
        """What the controller says of itself and its hosts in numbers; no host is asked."""
        return measure(self._coordinator)

    async def health(self) -> Health:
        """Ready when the store answers and every host is driven."""
        reasons = []
        if not self._store.is_up:
            state = self._store.state
            reasons.append(f"store: {state.error or state.doing}" if state is not None else "store: not started")
        reasons += sorted(self._coordinator.engine.faults.values())
        reasons += [f"Host {name}: {why}" for name, why in sorted(self._coordinator.driver.undriven.items())]
        for name, agent in sorted(self._coordinator.agents.items()):
            reasons += [f"Host {name}: {what}: {part.state}: {part.reason}" for what, part in agent.parts().items()
                        if part.state != "up"]  # fmt: skip
        return Health(True, not reasons, tuple(reasons), version("fleetswitch"))

    # Changes.

    def _check(self, fleet: Fleet, where: Mapping[tuple[str, str], str]) -> None:
        """Refuse a fleet that does not fit together, naming the document where that was written."""
        problems = []
        for problem in fleet.problems():
            kind, name = problem.where.partition(":")[0].split(" ", 1)
            place = where.get((kind, name))
            problems.append(
                Problem(f"{place}: {problem.where}" if place else problem.where, problem.what, problem.remedy)
            )
        if problems:
            raise InvalidInput(problems)

    def _row(self, kind: str, name: str) -> Row:
        row = self._store.rows(kind).get(name)
        if row is None:
            raise no_such(kind, name, self._store.rows(kind))
        return row

    def _outcome(self, kind: str, name: str, spec: dict[str, Any]) -> Outcome:
        row = self._store.rows(kind).get(name)
        action: Action = "created"
        if row is not None and row.spec:
            action = "unchanged" if row.spec == spec and not row.deleting else "changed"
        return Outcome(kind, name, action, "" if action == "unchanged" else self._diff(kind, name, spec))

    def _diff(self, kind: str, name: str, spec: dict[str, Any] | None) -> str:
        row = self._store.rows(kind).get(name)
        old = _yaml(kind, name, row.spec) if row is not None and row.spec else []
        new = _yaml(kind, name, spec) if spec is not None else []
        label = f"{kind}/{name}"
        return "\n".join(difflib.unified_diff(old, new, f"{label} (now)", f"{label} (then)", lineterm=""))

    def _users(self, kind: str, name: str, gone: set[tuple[str, str]], force: bool) -> Iterator[Problem]:
        """Who would lose something by this deletion."""
        desired = self._desired
        if kind == "Network":
            ports = sorted(p for p, spec in desired.registered.items() if spec.network == name)
            left = [p for p in ports if ("Port", p) not in gone]
            if left:
                yield Problem(f"Network {name}", f"is named by registered Ports: {_some(left)}", "delete them as well")
        needed = (
            ("PortForward", self._forwards_of), ("FloatingIP", self._floating_of), ("Network", self._pools_of),
        )  # fmt: skip
        for which, needing in needed:
            if left := [each for each in needing(kind, name) if (which, each) not in gone]:
                yield Problem(f"{kind} {name}", f"is named by {which}s: {_some(left)}", "delete them as well")
        if force or kind not in {"Host", "Network"}:
            return
        running = self._running(kind, name)
        if running:
            yield Problem(f"{kind} {name}", f"is in use by running guests: {_some(running)}",
                          "shut them down or move them first, or use --force and cut them off")  # fmt: skip

    def _forwards_of(self, kind: str, name: str) -> builtins.list[str]:
        """PortForwards that could not be without this object."""
        desired = self._desired
        without = {host: spec for host, spec in desired.hosts.items() if (kind, host) != ("Host", name)}
        return sorted(
            forward
            for forward, spec in desired.forwards.items()
            if (kind, spec.network) == ("Network", name)
            or (kind == "Host" and spec.is_particular and not spec.listens_on(without))
        )

    def _floating_of(self, kind: str, name: str) -> builtins.list[str]:
        """FloatingIPs that could not be without this object."""
        desired = self._desired
        left = outside_subnets({host: spec for host, spec in desired.hosts.items() if (kind, host) != ("Host", name)})
        return sorted(
            floating
            for floating, spec in desired.floating.items()
            if (kind, spec.network) == ("Network", name) or (kind == "Host" and not spec.is_in(left))
        )

    def _pools_of(self, kind: str, name: str) -> builtins.list[str]:
        """Networks whose pool would be in no subnet of a host without this object."""
        desired = self._desired
        left = outside_subnets4({host: spec for host, spec in desired.hosts.items() if (kind, host) != ("Host", name)})
        return sorted(n for n, spec in desired.networks.items() if kind == "Host" and not is_in(spec, left))

    def _moved_bridge(self, document: Document) -> Iterator[Problem]:
        """Guests cannot follow their host's integration bridge to another name."""
        spec, before = document.spec, self._desired.hosts.get(document.name)
        if not isinstance(spec, HostSpec) or before is None or spec.bridge == before.bridge:
            return
        running = self._running("Host", document.name)
        if running:
            yield Problem(
                f"{document.where}: Host {document.name}: bridge",
                f"cannot become {spec.bridge} while guests are plugged into {before.bridge}: {_some(running)}",
                "shut them down or move them first",
            )

    def _running(self, kind: str, name: str) -> builtins.list[str]:
        """Guests with a vNIC that is switched in the network, or on the host."""
        return sorted(
            f"{status.vm or status.vm_uuid} ({status.mac})"
            for status in self._desired.statuses.values()
            if status.state == "active" and name == (status.network if kind == "Network" else status.host)
        )

    def _removal(self, kind: str, name: str, generation: int | None, force: bool) -> Write:
        if kind == "Port" and name in self._desired.statuses and self._desired.statuses[name].host is not None:
            return Put(kind, name, {}, generation)  # it runs: it stays, as one that nobody registered
        if kind != "Host":
            return Remove(kind, name, generation)
        agent = self._coordinator.agents.get(name)
        if agent is None or (force and agent.ovsdb.state.state == "down"):
            return Remove(kind, name, generation)  # what is on it stays there: nobody can reach it
        return MarkDeleting(kind, name, generation)

    # Looks.

    def _behind(self, sequence: int, since: int) -> Iterator[Unconfirmed]:
        """Connections of hosts that have not confirmed this sequence, or cannot do all of what they confirmed and could
        before ``since``."""
        settled = min(sequence, self._coordinator.driver.settled)
        undriven, troubles = self._coordinator.driver.undriven, self._coordinator.troubles
        for name, why in undriven.items():
            yield Unconfirmed(name, "ovsdb", why)
        for name, agent in self._coordinator.agents.items():
            if name in undriven:
                continue
            if name not in self._desired.hosts:
                yield Unconfirmed(name, "ovsdb", agent.parts()["ovsdb"].reason or "is being cleaned")
                continue
            for what, part in agent.parts().items():
                is_new = part.state == "degraded" and not troubles.is_older(name, what, part.reason, since)
                if is_new or part.confirmed < (sequence if what == "openflow" else settled):
                    yield Unconfirmed(name, what, part.reason or "has not answered yet")

    def _document(self, row: Row, plugged: Mapping[str | None, int]) -> dict[str, Any]:
        """``plugged``: how many vNICs each host has."""
        match row.kind:
            case "Host":
                status = self._host_status(row, plugged)
            case "Network":
                status = self._network_status(row)
            case "PortForward":
                status = self._forward_status(row)
            case "BgpPeer":
                status = self._coordinator.bgp.status(row.name)
            case "FloatingIP":
                reader = self._coordinator.engine.fabric.reader()
                status = floating_status(reader.floating(row.name), reader)
            case _:
                status = row.status
        return {"kind": row.kind, "name": row.name, **row.spec, "generation": row.generation, "status": status}

    def _host_status(self, row: Row, plugged: Mapping[str | None, int]) -> dict[str, Any]:
        agent = self._coordinator.agents.get(row.name)
        status: dict[str, Any] = {}
        if (why := self._coordinator.driver.undriven.get(row.name)) is not None:
            status["ovsdb"] = {"state": "down", "reason": why}
        elif agent is not None:
            status = {what: {"state": p.state, "reason": p.reason} for what, p in agent.parts().items()}
            status["hears"] = shown(self._coordinator.lldp.heard(row.name))
            status["ovs_version"] = agent.ovsdb.state.ovs_version
            status["flows"], status["drifts"] = agent.switch.state.flows, agent.switch.state.drifts
            view = self._coordinator.guests.hosts[row.name]
            status["strays"], status["hook"] = strays(view), hook_status(view.hook)
            status["not_understood"] = list(agent.libvirt.not_understood) if agent.libvirt is not None else []
        number = self._desired.numbers(HOSTS).get(row.name)
        status["datapath_id"] = f"{datapath_id(number):016x}" if number is not None else None
        status["ports"] = plugged.get(row.name, 0)
        if row.deleting:
            status["deleting"] = True
        return status

    def _network_status(self, row: Row) -> dict[str, Any]:
        spec = self._desired.networks.get(row.name)
        if spec is None:
            return {}
        numbers = self._desired.numbers(SEGMENTS)
        members = [s for s in self._desired.statuses.values() if s.network == row.name and s.state == "active"]
        return {
            "uuid": network_uuid(row.name, spec),
            "mtu": network_mtu(spec, overlay_mtu(self._desired.hosts.values())),
            "segments": {str(vlan): numbers.get(segment_name(row.name, vlan)) for vlan in sorted(spec.vlans())},
            "hosts": sorted({s.host for s in members if s.host is not None}),
            "ports": len(members),
            "return_routes": return_routes(spec, self._desired.hosts),
            **self._pool_status(row.name, spec),
        }

    def _pool_status(self, name: str, spec: NetworkSpec) -> dict[str, Any]:
        if spec.nat is None or not spec.nat.addresses:
            return {}
        coordinator = self._coordinator
        lacking = {each.host: each.reason for each in coordinator.nat_addresses.lacking if each.network == name}
        return {"nat_addresses": addresses(self._desired, coordinator.engine.fabric, name), "no_nat_address": lacking}

    def _forward_status(self, row: Row) -> dict[str, Any]:
        reader = self._coordinator.engine.fabric.reader()
        view = reader.forward(row.name)
        if view is None:
            return {"reason": NO_TARGET}
        port, hosts = reader.port(view.port), [reader.host(name) for name in view.hosts]
        which = "an IPv6 address outside" if view.version == 6 else "an external address"
        reason = "" if hosts else f"no host with {which} reaches its target"
        outside = [host.external for host in hosts if host is not None and host.external is not None]
        return {
            "addresses": [way.address for each in outside if (way := each.way(view.version)) is not None],
            "target": view.address,
            "host": port.host if port is not None else None,
            "reason": reason,
        }


def _numbers(documents: Sequence[Document]) -> Iterator[NumberRequest]:
    """The fleet-wide numbers that these objects need; those that they have already stay."""
    for document in documents:
        match document.spec:
            case HostSpec() as host:
                yield NumberRequest(HOSTS, document.name, 1, MAX_HOST)
                for physical_network in host.uplinks:
                    yield NumberRequest(PHYSICAL_NETWORKS, physical_network, 1, MAX_UPLINK)
                if host.external is not None:
                    yield NumberRequest(SEGMENTS, outside_segment(host.external), 1, MAX_SEGMENT)
            case NetworkSpec() as network:
                for vlan in sorted(network.vlans()):
                    yield NumberRequest(SEGMENTS, segment_name(document.name, vlan), 1, MAX_SEGMENT)
                if network.physical_network is not None:
                    yield NumberRequest(PHYSICAL_NETWORKS, network.physical_network, 1, MAX_UPLINK)


def _yaml(kind: str, name: str, spec: Mapping[str, Any]) -> builtins.list[str]:
    text: str = yaml.dump({"kind": kind, "name": name, **spec}, Dumper=_DUMPER, sort_keys=False)
    return text.splitlines()


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
