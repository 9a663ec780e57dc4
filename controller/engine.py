"""The engine: which blocks are out of date, and what every host should have.

A block is computed once, and again only when an answer that it read has changed. Where it is installed is found the
same way and tracked apart from what is in it, so a host that joins a network recomputes no flow.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Literal

from controller.errors import PipelineError
from controller.fabric import Fabric
from controller.pipeline.app import App, BlockId, Scope
from controller.pipeline.pipeline import Entry, Pipeline
from controller.pipeline.tables import Flow
from controller.reader import Key, Reader
from controller.rows import Rows

log = logging.getLogger(__name__)

Aspect = Literal["content", "placement"]

# Blocks of this name are the pipeline's own: what tables do when nothing matches.
PIPELINE = "pipeline"
_METHODS = {
    Scope.FLEET: "fleet", Scope.NETWORK: "network", Scope.PORT: "port",
    Scope.LOCAL: "local", Scope.HOST: "host", Scope.MEMBER: "member", Scope.REGISTRATION: "registration",
    Scope.FORWARD: "forward", Scope.PEER: "peer",
}  # fmt: skip

# Of what kind the object is without which there is no such block; where there is more to it, see Engine._exists.
_KINDS = {
    Scope.NETWORK: "network", Scope.PORT: "port", Scope.LOCAL: "port", Scope.HOST: "host", Scope.PEER: "host",
    Scope.REGISTRATION: "registration", Scope.FORWARD: "forward",
}  # fmt: skip

_NOWHERE: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Block:
    """What an app says of one object, and on which hosts it holds; on none where it says nothing. ``whys`` are the
    reasons of the entries, one each: what else the app said of a flow is in its bytes."""

    whys: tuple[str, ...] = ()
    entries: tuple[Entry, ...] = ()
    hosts: frozenset[str] = _NOWHERE


_NO_BLOCK = Block()  # which most blocks are


@dataclass(slots=True, eq=False)
class _Answer:
    """Something that was read, and what depends on it."""

    key: Key
    readers: set[tuple[BlockId, Aspect]] = field(default_factory=set)


@dataclass(slots=True)
class Delta:
    """What one host should have now and had not to have before, and the other way round, by identity."""

    adds: dict[tuple[int, int], Entry] = field(default_factory=dict)
    removes: set[tuple[int, int]] = field(default_factory=set)


class HostTable:
    """What one host should have. Two blocks that claim one slot are a fault; the same one always wins."""

    def __init__(self) -> None:
        self._entries: dict[tuple[int, int, bytes], Entry] = {}
        self._rivals: dict[tuple[int, int, bytes], list[Entry]] = {}
        self._metered: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def by_identity(self) -> dict[tuple[int, int], Entry]:
        """A new one, of which the caller may do what it wants."""
        return {entry.identity: entry for entry in self._entries.values()}

    @property
    def meters(self) -> Set[int]:
        """The meters that its flows need."""
        return self._metered.keys()

    @property
    def conflicts(self) -> int:
        """Slots for which blocks want different flows."""
        return sum(len({entry.cookie for entry in rivals}) > 1 for rivals in self._rivals.values())

    def add(self, entry: Entry, delta: Delta) -> None:
        current = self._entries.get(entry.slot)
        if current is None:
            self._put(entry, None, delta)
            return
        rivals = self._rivals.setdefault(entry.slot, [current])
        rivals.append(entry)
        self._settle(rivals, current, delta)

    def discard(self, entry: Entry, delta: Delta) -> None:
        current = self._entries[entry.slot]
        rivals = self._rivals.get(entry.slot)
        if rivals is None:
            del self._entries[entry.slot]
            self._remove(current, delta)
            return
        rivals.remove(entry)
        self._settle(rivals, current, delta)
        if len(rivals) == 1:
            del self._rivals[entry.slot]

    def _settle(self, rivals: list[Entry], current: Entry, delta: Delta) -> None:
        winner = min(rivals, key=lambda entry: entry.cookie)
        if winner.cookie != current.cookie:
            self._put(winner, current, delta)

    def _put(self, entry: Entry, old: Entry | None, delta: Delta) -> None:
        if old is not None:
            self._remove(old, delta)
        self._entries[entry.slot] = entry
        if entry.meter:
            self._metered[entry.meter] += 1
        if entry.identity in delta.removes:
            delta.removes.discard(entry.identity)
        else:
            delta.adds[entry.identity] = entry

    def _remove(self, entry: Entry, delta: Delta) -> None:
        if delta.adds.pop(entry.identity, None) is None:
            delta.removes.add(entry.identity)
        if entry.meter:
            self._metered[entry.meter] -= 1
            if not self._metered[entry.meter]:
                del self._metered[entry.meter]


class _Moves:
    """How two sets of hosts differ, remembered for the next block: those of a network move together."""

    def __init__(self) -> None:
        self._pair: tuple[frozenset[str], frozenset[str]] = frozenset(), frozenset()
        self._found: tuple[frozenset[str], frozenset[str]] = self._pair

    def between(self, old: frozenset[str], new: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
        """Hosts that are in the old one alone, and in the new one alone."""
        if old is not self._pair[0] or new is not self._pair[1]:
            self._pair, self._found = (old, new), (old - new, new - old)
        return self._found


class Engine:
    """Keeps every host's table equal to what the apps say of the rows."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.fabric = Fabric()
        self.blocks: dict[BlockId, Block] = {}
        self.faults: dict[BlockId, str] = {}  # blocks that could not be computed, and why
        self._tables: dict[str, HostTable] = {}
        self._answers: dict[Key, _Answer] = {}
        self._reads: dict[tuple[BlockId, Aspect], tuple[_Answer, ...]] = {}
        self._carriers: dict[str, tuple[tuple[str, ...], tuple[str, ...], frozenset[str]]] = {}  # by network
        self._moves = _Moves()
        self._apps = {app.name: app for app in pipeline.apps}
        self._by_scope: dict[Scope, list[App]] = {
            scope: [app for app in pipeline.apps if getattr(type(app), method) is not getattr(App, method)]
            for scope, method in _METHODS.items()
        }

    @property
    def tables(self) -> Mapping[str, HostTable]:
        """What each host should have, by its name."""
        return self._tables

    def update(self, rows: Rows, changed: Iterable[tuple[str, str]] | None = None) -> dict[str, Delta]:
        """Take rows in (``changed`` names those that differ, None all); returns what that means for each host."""
        touched = self.fabric.update(rows, changed)
        deltas: dict[str, Delta] = defaultdict(Delta)
        hosts = self.fabric.names("host")
        for host in hosts - self._tables.keys():
            self._tables[host] = HostTable()
        stale: dict[BlockId, set[Aspect]] = defaultdict(set)
        for key in touched:
            for block, aspect in self._answers[key].readers if key in self._answers else ():
                stale[block].add(aspect)
            for block in self._blocks_of(key):
                stale[block] |= {"content", "placement"}
        if not self.blocks:
            for block in self._fleet_blocks():
                stale[block] |= {"content", "placement"}
        for block in sorted(stale, key=lambda b: (b.scope, b.app, b.objects)):
            self._refresh(block, stale[block], deltas)
        for network in self._carriers.keys() - self.fabric.names("network"):
            del self._carriers[network]
        for host in self._tables.keys() - hosts:
            del self._tables[host]
            deltas.pop(host, None)
        return dict(deltas)

    def _fleet_blocks(self) -> list[BlockId]:
        names = [PIPELINE, *(app.name for app in self._by_scope[Scope.FLEET])]
        return [BlockId(name, Scope.FLEET, ()) for name in names]

    def _blocks_of(self, key: Key) -> list[BlockId]:
        """Blocks that exist, or cease to, because of this key's object."""
        match key:
            case ("host", str(name)):
                return self._with_scopes((name,), Scope.HOST, Scope.PEER)
            case ("network", str(name)):
                return self._with_scopes((name,), Scope.NETWORK)
            case ("port", str(name)):
                return self._with_scopes((name,), Scope.PORT, Scope.LOCAL)
            case ("ports of network on host", str(network), str(host)):
                return self._with_scopes((network, host), Scope.MEMBER)
            case ("registration", str(name)):
                return self._with_scopes((name,), Scope.REGISTRATION)
            case ("forward", str(name)):
                return self._with_scopes((name,), Scope.FORWARD)
        return []

    def _with_scopes(self, objects: tuple[str, ...], *scopes: Scope) -> list[BlockId]:
        return [BlockId(app.name, scope, objects) for scope in scopes for app in self._by_scope[scope]]

    def _refresh(self, block: BlockId, aspects: set[Aspect], deltas: dict[str, Delta]) -> None:
        old = self.blocks.get(block, _NO_BLOCK)
        whys, entries, hosts = old.whys, old.entries, old.hosts
        exists = self._exists(block)
        if "content" in aspects:
            reader = self.fabric.reader()
            try:
                whys, entries = self._compute(block, reader) if exists else ((), ())
                self.faults.pop(block, None)
            except Exception as error:
                # A fault concerns this block alone, and it fails closed: no flow of it, until what it reads changes.
                known = isinstance(error, PipelineError)
                log.error("%s of %s cannot be computed: %s", block.app, block.row, error, exc_info=not known)
                self.faults[block] = f"{block.app} of {block.row}: {error}"
                whys, entries = (), ()
            self._note(block, "content", reader.read)
        if not entries:
            hosts = _NOWHERE
            self._note(block, "placement", set())
        elif "placement" in aspects or not old.entries:
            reader = self.fabric.reader()
            hosts = self._place(block, reader) if exists else _NOWHERE
            self._note(block, "placement", reader.read)
        if hosts is not old.hosts:
            gone, come = self._moves.between(old.hosts, hosts)
            for host in gone:
                self._swap(host, old.entries, (), deltas)
            for host in come:
                self._swap(host, (), entries, deltas)
        if entries != old.entries:
            for host in hosts & old.hosts:
                self._swap(host, old.entries, entries, deltas)
        if exists:
            self.blocks[block] = Block(whys, entries, hosts) if entries else _NO_BLOCK
        else:
            self.blocks.pop(block, None)
            self.faults.pop(block, None)
            self._note(block, "content", set())
            self._note(block, "placement", set())

    def _swap(self, host: str, old: tuple[Entry, ...], new: tuple[Entry, ...], deltas: dict[str, Delta]) -> None:
        table = self._tables.get(host)
        if table is None:
            return
        before, after = set(old), set(new)
        for entry in old:
            if entry not in after:
                table.discard(entry, deltas[host])
        for entry in new:
            if entry not in before:
                table.add(entry, deltas[host])

    def _note(self, block: BlockId, aspect: Aspect, read: set[Key]) -> None:
        """Remember what this aspect of the block depends on."""
        cell = (block, aspect)
        for answer in self._reads.get(cell, ()):
            if answer.key not in read:
                answer.readers.discard(cell)
                if not answer.readers:
                    del self._answers[answer.key]
        if read:
            self._reads[cell] = tuple(self._answers.setdefault(key, _Answer(key)) for key in read)
            for answer in self._reads[cell]:
                answer.readers.add(cell)
        else:
            self._reads.pop(cell, None)

    def _exists(self, block: BlockId) -> bool:
        match block.scope:
            case Scope.FLEET:
                return True
            case Scope.MEMBER:
                network, host = block.objects
                return self.fabric.knows(("network", network)) and self.fabric.knows(
                    ("ports of network on host", network, host)
                )
        return self.fabric.knows((_KINDS[block.scope], *block.objects))

    def _compute(self, block: BlockId, reader: Reader) -> tuple[tuple[str, ...], tuple[Entry, ...]]:
        found: dict[tuple[int, int], tuple[str, Entry]] = {}
        for flow in self._flows(block, reader):
            entry = self.pipeline.encode(flow)
            found.setdefault(entry.identity, (flow.why, entry))  # one that is said twice is one
        whys, entries = tuple(why for why, _ in found.values()), tuple(entry for _, entry in found.values())
        if len({entry.slot for entry in entries}) != len(entries):
            raise PipelineError("two flows of one block have the same table, priority and match", where=str(block))
        return whys, entries

    def flows(self, block: BlockId) -> list[Flow]:
        """What the block's entries are made of, said anew: kept are only the bytes."""
        found: dict[tuple[int, int], Flow] = {}
        for flow in self._flows(block, self.fabric.reader()):
            found.setdefault(self.pipeline.encode(flow).identity, flow)
        return list(found.values())

    def _flows(self, block: BlockId, reader: Reader) -> Iterator[Flow]:
        if block.app == PIPELINE:
            yield from self.pipeline.misses()
            return
        app = self._apps[block.app]
        match block.scope:
            case Scope.FLEET:
                yield from app.fleet(reader)
            case Scope.NETWORK:
                if (network := reader.network(block.objects[0])) is not None:
                    yield from app.network(network, reader)
            case Scope.PORT:
                # What others do to reach it is said where it is, not where it is to come.
                if (port := reader.port(block.objects[0])) is not None and not port.arriving:
                    yield from app.port(port, reader)
            case Scope.LOCAL:
                if (port := reader.port(block.objects[0])) is not None:
                    yield from app.local(port, reader)
            case Scope.HOST:
                if (host := reader.host(block.objects[0])) is not None:
                    yield from app.host(host, reader)
            case Scope.MEMBER:
                network, host = reader.network(block.objects[0]), reader.host(block.objects[1])
                if network is not None and host is not None:
                    yield from app.member(network, host, reader)
            case Scope.REGISTRATION:
                if (registration := reader.registration(block.objects[0])) is not None:
                    yield from app.registration(registration, reader)
            case Scope.FORWARD:
                if (forward := reader.forward(block.objects[0])) is not None:
                    yield from app.forward(forward, reader)
            case Scope.PEER:
                if (host := reader.host(block.objects[0])) is not None:
                    yield from app.peer(host, reader)

    def _place(self, block: BlockId, reader: Reader) -> frozenset[str]:
        match block.scope:
            case Scope.FLEET:
                return frozenset(host.name for host in reader.hosts())
            case Scope.NETWORK:
                return self._carry(block.objects[0], reader)
            case Scope.PORT:
                port = reader.port(block.objects[0])
                return self._carry(port.network, reader) if port is not None else _NOWHERE
            case Scope.LOCAL:
                port = reader.port(block.objects[0])
                return frozenset({port.host}) if port is not None else _NOWHERE
            case Scope.HOST:
                return frozenset({block.objects[0]})
            case Scope.MEMBER:
                return frozenset({block.objects[1]})
            case Scope.REGISTRATION:
                found = reader.registration(block.objects[0])
                return self._carry(found.network, reader) if found is not None else _NOWHERE
            case Scope.FORWARD:
                forward = reader.forward(block.objects[0])
                return frozenset(forward.hosts) if forward is not None else _NOWHERE
            case Scope.PEER:
                return reader.peers(block.objects[0])

    def _carry(self, network: str, reader: Reader) -> frozenset[str]:
        """Hosts that carry a network; the same set for all of its blocks, of which there are thousands."""
        names = reader.hosts_of_network(network)
        routing = reader.hosts_on_the_way(network) if names else ()
        known = self._carriers.get(network)
        if known is None or known[0] is not names or known[1] is not routing:
            known = self._carriers[network] = names, routing, frozenset((*names, *routing))
        return known[2]
