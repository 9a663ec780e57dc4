"""One host's OpenFlow: what it has, what it should have, and the difference, which is all that is sent.

Driven by level: a change only says that something may be missing. What the switch has is read when it connects, with
what each flow does, and known from then on by (table, cookie); a switch that is right is sent nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controller.contents import Contents, Identity
from controller.drift import Drift
from controller.engine import Delta, HostTable
from controller.errors import OpenFlowError
from controller.meters import Meters
from controller.openflow import messages
from controller.openflow.connection import BundleRefused, Connection, Handlers, Refused
from controller.openflow.decode import FlowUpdate, PacketIn, PortStatus, scan_flows
from controller.openflow.sparse import Sparse
from controller.pipeline.cookies import OWNER_BITS, is_own, own_cookie
from controller.pipeline.pipeline import Entry
from controller.upkeep import Upkeep

log = logging.getLogger(__name__)

_READ_SECONDS = 30.0
_BUNDLE_SECONDS = 30.0
_ECHO_SECONDS = 1.0
_READ_AT_ONCE = 1 << 14  # bytes of flows: a few milliseconds, in which a thread would hardly have begun


@dataclass(frozen=True, slots=True)
class SwitchState:
    """How it stands. ``confirmed`` is the last sequence that the switch has in full; ``flows`` counts ours on it;
    ``drifts`` how often somebody else changed flows since the controller knows it."""

    state: str
    reason: str
    confirmed: int
    flows: int
    since: float
    drifts: int


class Switch:
    """The OpenFlow side of a host. Everything runs on the loop.

    ``epoch`` counts the controllers that had the store's lease: a switch refuses one that was deposed. ``watched`` are
    the tables in which nobody else has to change anything. ``ports_known`` returns once the flows that are wanted go by
    the numbers that the host's ports have now. ``on_packet`` gets what flows of ours send to the controller.
    ``contents`` is what is known of flows on all switches.
    """

    def __init__(
        self,
        host: str,
        epoch: int,
        watched: Sequence[int],
        on_state: Callable[[], None],
        ports_known: Callable[[], Awaitable[None]],
        on_packet: Callable[[PacketIn], None] = lambda packet: None,
        contents: Contents | None = None,
    ) -> None:
        self.host = host
        self._epoch = epoch
        self._watched = tuple(watched)
        self._on_state = on_state
        self._ports_known = ports_known
        self._on_packet = on_packet
        self._contents = contents or Contents()
        self.upkeep = Upkeep(host, on_state)
        self._comings = Sparse(log)  # a host may be out to fill the log
        self._table: HostTable = HostTable()
        self._sequence = 0
        self._confirmed = -1
        self._connection: Connection | None = None
        self._candidate: Connection | None = None  # accepted, and not yet known to be in nobody's place
        self._admitting: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._has: set[Identity] | None = None
        self._meters = Meters()
        # What may differ from what the switch has; empty while it is not known what that is.
        self._adds: dict[Identity, Entry] = {}
        self._removes: set[Identity] = set()
        self._refused: dict[Identity, str] = {}
        self._reason = "not connected yet"
        self._since = time.time()
        self._wake = asyncio.Event()
        self._idle = True
        self._drift = Drift(host)
        self._wrong: set[Identity] = set()  # on the switch by this identity is something else

    @property
    def state(self) -> SwitchState:
        flows = len(self._has) if self._has is not None else 0
        if self._connection is None or self._has is None:
            return SwitchState("down", self._reason, self._confirmed, flows, self._since, self._drift.count)
        reason = self._reason
        if not reason and self._refused:
            identity, text = next(iter(self._refused.items()))
            reason = f"refuses {len(self._refused)} flows, one of them {identity[1]:#x} of table {identity[0]}: {text}"
        if not reason and self._table.conflicts:
            reason = f"{self._table.conflicts} flows contradict each other; a fault of the program"
        return SwitchState(
            "degraded" if reason else "up", reason, self._confirmed, flows, self._since, self._drift.count
        )

    def change(self, table: HostTable, delta: Delta | None, sequence: int) -> None:
        """What the host should have is ``table``; ``delta`` is how that differs from before. Confirms ``sequence``."""
        if table is not self._table and self._has is not None:
            self._table = table
            self._compare(self._has, table.by_identity())
            delta = None
        self._table, self._sequence = table, sequence
        if delta is not None:
            for identity in delta.removes:
                self._refused.pop(identity, None)
            if self._has is not None:
                self._pend(delta, self._has)
        if (
            self._has is not None
            and self._idle
            and not (self._adds or self._removes or self._wrong or self._drift.suspect or self._refused)
        ):
            self._confirmed = sequence
        else:
            self._wake.set()

    def _pend(self, delta: Delta, has: set[Identity]) -> None:
        for identity in delta.removes:
            if self._adds.pop(identity, None) is None or identity in has:
                self._removes.add(identity)
        for identity, entry in delta.adds.items():
            self._removes.discard(identity)
            self._adds[identity] = entry

    @property
    def refused(self) -> Mapping[Identity, str]:
        """Flows that the switch does not take, and its words for why."""
        return self._refused

    async def read(self, request: bytes) -> bytes:
        """The joined bodies of the answer to a multipart request. Raises OpenFlowError."""
        if self._connection is None:
            raise OpenFlowError(f"is not connected: {self._reason}", where=f"Host {self.host}")
        return await self._connection.multipart(request, _READ_SECONDS)

    def send(self, message: bytes) -> bool:
        """Send a message that is not answered; False while the switch is not known to obey."""
        if self._connection is None or self._has is None:
            return False
        self._connection.send(message)
        return True

    async def cookies(self, table: int, cookie: int, mask: int) -> set[int]:
        """Cookies of the flows that the table has now, of those that are ``cookie`` under the mask. Raises
        OpenFlowError."""
        if self._connection is None:
            raise OpenFlowError(f"is not connected: {self._reason}", where=f"Host {self.host}")
        request = messages.flow_desc_request(table, cookie, mask)
        body = await self._connection.multipart(request, _READ_SECONDS)
        return {found for where, found in scan_flows(body) if where == table and found & mask == cookie}

    # Connections come and go.

    @property
    def peer(self) -> str | None:
        """Where the switch is connected from, as ``ADDRESS:PORT``; None while it is not."""
        return self._connection.peer if self._connection is not None else None

    def note_absence(self, reason: str) -> None:
        """Why the switch is not connected, when that is known from elsewhere."""
        if self._connection is None and reason != self._reason:
            self._reason = reason
            self._on_state()

    def accept(self, connection: Connection, turned_away: Callable[[str], None]) -> bool:
        """Take a connection that claims this host's datapath id.

        A connection that still answers is not displaced by another that claims the same: it is asked first, and the
        other one waits. Only one waits, however many come. ``turned_away`` is told why a connection was refused.
        """
        if self._candidate is not None and self._candidate.is_active:
            turned_away(f"{self._candidate.peer} has this datapath id too, and came first")
            return False
        connection.handlers = Handlers(
            closed=self._closed, flow_updates=self._strangers, packet_in=self._packet, port_status=self._port
        )
        self._candidate = connection
        self._admitting = asyncio.get_running_loop().create_task(
            self._admit(connection, turned_away), name=f"admit {self.host}"
        )
        return True

    async def stop(self) -> None:
        tasks = [task for task in (self._admitting, self._task) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._candidate is not None:
            self._candidate.abort("the controller stops")
        if self._connection is not None:
            self._connection.close("the controller stops")

    def _closed(self, connection: Connection, reason: str) -> None:
        if connection is not self._connection:
            return
        self._comings.warning("%s: OpenFlow lost: %s", self.host, reason)
        self._connection, self._has, self._reason, self._since = None, None, reason, time.time()
        self._adds, self._removes = {}, set()
        self._wake.set()
        self._on_state()

    async def _admit(self, connection: Connection, turned_away: Callable[[str], None]) -> None:
        if self._connection is not None and not await self._displace(self._connection, connection, turned_away):
            return
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._candidate = None
        if not connection.is_active:
            return
        self._connection, self._has, self._reason, self._since = connection, None, "", time.time()
        self._refused.clear()
        self._drift.connected()
        self._wrong = set()
        self._comings.info("%s: OpenFlow connected from %s", self.host, connection.peer)
        self._task = asyncio.get_running_loop().create_task(self._serve(connection), name=f"switch {self.host}")

    async def _serve(self, connection: Connection) -> None:
        keeping: asyncio.Task[None] | None = None
        try:
            await self._introduce(connection)
            await self._read(connection)
            keeping = asyncio.get_running_loop().create_task(self.upkeep.run(connection), name=f"keep {self.host}")
            if not self._has and not self._wrong:
                await self._learn_ports(connection)
            while connection.is_active:
                self._wake.clear()
                if self._drift.left() == 0:
                    await self._read(connection)
                await self._push(connection)
                await self._woken()
        except OpenFlowError as error:
            connection.abort(str(error))
        except Exception:
            log.exception("%s: the switch cannot be driven", self.host)
            connection.abort("a fault of the controller")
        finally:
            if keeping is not None:
                keeping.cancel()

    async def _woken(self) -> None:
        """Until there is something to do; what others did is looked at when it is time for that."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._drift.left()):
                await self._wake.wait()

    async def _displace(self, old: Connection, new: Connection, turned_away: Callable[[str], None]) -> bool:
        """Whether the new connection takes the old one's place: only when the old one does not answer any more."""
        try:
            await old.request(messages.echo_request(b"still there?"), _ECHO_SECONDS)
        except OpenFlowError:
            old.abort("replaced by a new connection")
            return True
        self._candidate = None
        turned_away(f"{old.peer} has this datapath id, and is alive")
        new.abort("another connection has this datapath id")
        return False

    async def _introduce(self, connection: Connection) -> None:
        """Become the switch's master, and be told of what others do to our tables."""
        try:
            await connection.request(messages.role_request(messages.Role.MASTER, self._epoch), _READ_SECONDS)
        except Refused as refused:
            raise OpenFlowError(
                f"obeys another controller: {refused.error.text}", where=f"Host {self.host}",
                remedy="end the other one; after the store came from an older copy, restart ovs-vswitchd on the host",
            ) from refused  # fmt: skip
        connection.send(messages.set_async(packet_in=messages.BY_ACTION, flow_removed=0))
        # Otherwise every fragment has port 0 and type 0 for the flows, also the first one (ovs-ofctl(8), set-frags).
        connection.send(messages.set_config(flags=messages.MATCH_FRAGMENTS))
        for request in _monitors(self._watched):
            connection.send(request)

    def _packet(self, connection: Connection, packet: PacketIn) -> None:
        """Somebody else's flow may send us packets as well: those are not looked at."""
        if connection is self._connection and is_own(packet.cookie):
            self._on_packet(packet)

    def _port(self, connection: Connection, status: PortStatus) -> None:
        if connection is self._connection:
            self.upkeep.look()

    def _strangers(self, connection: Connection, updates: list[FlowUpdate]) -> None:
        """Somebody else changed flows. What is foreign is left alone, unless it took the place of one of ours."""
        if connection is self._connection and self._drift.told(updates):
            self._wake.set()

    async def _read(self, connection: Connection) -> None:
        """Learn what the switch has; everything that it lacks or should not have is pending from here on."""
        distrusted = self._drift.begin()
        self._meters.distrust()
        # Ours alone: what a switch has learned, or somebody else put there, may be without bound.
        request = messages.flow_desc_request(cookie=own_cookie(bytes(7)), cookie_mask=OWNER_BITS)
        body = await connection.multipart(request, _READ_SECONDS)
        beside = asyncio.to_thread if len(body) > _READ_AT_ONCE else _at_once
        wanted = self._table.by_identity()
        if distrusted is None:
            found, wrong = await beside(self._contents.read, body, wanted)
            self._drift.found(wrong)
        else:
            found = await beside(_own_identities, body)
            wrong = found & distrusted
        self._wrong |= wrong
        self._has = found - self._wrong
        self._compare(self._has, wanted if beside is _at_once else self._table.by_identity())
        self._drift.looked()
        self._drift.log.info(
            "%s: has %d of our flows, lacks %d, %d too many", self.host, len(self._has), len(self._adds),
            len(self._removes),
        )  # fmt: skip
        self._on_state()

    async def _learn_ports(self, connection: Connection) -> None:
        """A switch without a flow of ours has started anew, and its ports may have other numbers than before: a flow
        for a number of before could give a guest another's network.
        """
        self._reason = "waits for the host's OVSDB: since the switch started, its ports may have other numbers"
        self._on_state()
        await self._ports_known()
        if connection is self._connection:
            self._reason = ""
            self._on_state()

    def _compare(self, has: set[Identity], wanted: dict[Identity, Entry]) -> None:
        """All that the switch lacks and all that it should not have is pending. ``wanted`` is used up."""
        right = wanted.keys() & has
        self._removes = has - right
        for identity in right:
            del wanted[identity]
        self._adds = wanted

    async def _push(self, connection: Connection) -> None:
        """Send the difference until there is none."""
        self._idle = False
        while connection.is_active and self._has is not None:
            adds, removes, wrong = self._adds, self._removes, self._wrong
            self._adds, self._removes, self._wrong = {}, set(), set()
            batch = adds
            if self._refused or not self._has.isdisjoint(adds):
                batch = {i: e for i, e in adds.items() if i not in self._has and i not in self._refused}
            gone = [*(identity for identity in removes if identity in self._has), *wrong]
            if not batch and not gone:
                self._meters.drop(connection, self._table.meters)
                if not self._refused and not self._drift.suspect:
                    self._confirmed = self._sequence
                break
            table = self._table
            await self._bundle(connection, batch, gone)
            if table is not self._table and self._has is not None:
                self._compare(self._has, self._table.by_identity())  # of what was under way the new table knows nothing
        self._idle = True
        self._on_state()

    async def _bundle(self, connection: Connection, batch: dict[Identity, Entry], gone: list[Identity]) -> None:
        """One atomic bundle. Deletions go first, so that a flow that takes another's place ends up there."""
        data = [messages.bundled(messages.delete_flow(table, cookie), cookie) for table, cookie in gone]
        data += [entry.bundled for entry in batch.values()]
        await self._meters.ensure(connection, {entry.meter for entry in batch.values() if entry.meter})
        try:
            await connection.bundle(data, _BUNDLE_SECONDS)
        except BundleRefused as refusal:
            self._note_refusal(refusal, list(batch.values()), gone)
            return
        if self._has is not None:
            self._has.difference_update(gone)
            self._has.update(batch)

    def _note_refusal(self, refusal: BundleRefused, batch: list[Entry], gone: list[Identity]) -> None:
        """Leave out what was refused and try the rest again at once; one bad flow shall not keep the others away."""
        found = False
        for index, text in refusal.failures:
            position = index - len(gone)
            if 0 <= position < len(batch):
                found = True
                self._refused[batch[position].identity] = text
                self._drift.log.error("%s: refuses flow %#x: %s", self.host, batch[position].cookie, text)
        if not found:
            raise refusal
        for entry in batch:
            if entry.identity not in self._refused and entry.identity not in self._removes:
                self._adds.setdefault(entry.identity, entry)
        for identity in gone:
            if self._has is not None and identity not in self._has:
                self._wrong.add(identity)
            elif identity not in self._adds:
                self._removes.add(identity)


@functools.lru_cache(maxsize=4)
def _monitors(tables: tuple[int, ...]) -> tuple[bytes, ...]:
    """The same for every switch; nothing answers them but changes, which carry no transaction id of theirs."""
    return tuple(messages.flow_monitor_request(table + 1, table=table) for table in tables)


async def _at_once(work: Callable[..., Any], *args: Any) -> Any:
    return work(*args)


def _own_identities(body: bytes) -> set[Identity]:
    """Ours among the flows of a flow-description reply."""
    return {identity for identity in scan_flows(body) if is_own(identity[1])}
