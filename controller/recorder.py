"""Rows that change and connections that come and go, as events of the history."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from controller.agent import HostAgent, PartState
from controller.history import EventFilter, History
from controller.store.rows import Change, Row

ASKED_THROUGH: ContextVar[str] = ContextVar("asked_through", default="")
"""The way that the request came which is being answered, such as ``unix socket``."""

_UNTOLD = frozenset({"pending", "absent"})
_TROUBLE_SECONDS = 2.0
STOPS = "the controller stops"
"""Why connections end that it closes itself."""
_LINK_WORDS = ("up", "degraded", "down")
_Status = Mapping[str, str]
_PARTS = ("openflow", "ovsdb", "libvirt")
_IN_NETWORKS = frozenset({"Port", "PortForward", "FloatingIP"})  # kinds that name their network


class Recorder:
    """On the loop. It reads what others tell and changes nothing."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._asked: dict[tuple[str, str], str] = {}
        self._links: dict[tuple[str, str], str] = {}
        self._troubles: dict[tuple[str, str], tuple[float, str]] = {}
        self._drifts: dict[tuple[str, str], int] = {}
        self._old_hosts: frozenset[str] = frozenset()
        self._is_over = False

    def begin(self, hosts: Iterable[str], name: str) -> None:
        """The controller has started, with these hosts: that it connects to them is told only where it could not
        before."""
        self._old_hosts = frozenset(hosts)
        for event in self._history.find(EventFilter(kind="Host")).events:
            part, _, word = event.event.partition("-")
            if part in _PARTS and word in _LINK_WORDS:
                self._links[event.name, part] = word
        self._history.add("Controller", name, "started", f"drives {_count(len(self._old_hosts), 'host')}")

    def end(self, name: str) -> None:
        """The controller stops: that its connections end from here on is no news."""
        self._is_over = True
        self._history.add("Controller", name, "stopped", "the hosts go on with what they have")

    @contextlib.contextmanager
    def asked(self, objects: Iterable[tuple[str, str]]) -> Iterator[None]:
        """While it lasts, changes of these objects are the current request's."""
        keys = list(objects)
        self._asked.update(dict.fromkeys(keys, ASKED_THROUGH.get()))
        try:
            yield
        finally:
            for key in keys:
                self._asked.pop(key, None)

    def rows(self, changes: Sequence[Change]) -> None:
        """Rows changed: what somebody wants, and what was observed of vNICs."""
        # A vNIC that was registered, or is so no more, has another row from then on, and is as it was.
        seen = {_identity(now) for each in changes if each.kind == "Port" and (now := _status(each.new)).get("host")}
        for change in changes:
            self._wanted(change)
            if change.kind == "Port" and (change.new is not None or _identity(_status(change.old)) not in seen):
                self._vnic(change)
            elif change.kind == "Host" and change.new is None:
                self._forget(change.name)

    def settle(self, now: float) -> None:
        """What is not as it should be for a while is told: many a thing is put right within a moment. To be called
        every few seconds; ``now`` is the loop's time."""
        for key, (since, message) in list(self._troubles.items()):
            if now - since >= _TROUBLE_SECONDS:
                del self._troubles[key]
                self._links[key] = "degraded"
                host, part = key
                self._history.add("Host", host, f"{part}-degraded", message, host=host)

    def host(self, agent: HostAgent) -> None:
        """A host's connections may have changed."""
        if self._is_over:
            return
        for part, state in agent.parts().items():
            self._link(agent, part, state)
        drifts = agent.switch.state.drifts
        if (more := drifts - self._drifts.get((agent.name, "openflow"), 0)) > 0:
            message = f"somebody else changed {_count(more, 'flow')} of its switch; what is fleetswitch's is put right"
            self._history.add("Host", agent.name, "drift", message, host=agent.name)
        self._drifts[agent.name, "openflow"] = drifts
        for of, what, kept in (("ovsdb", "OVSDB", agent.ovsdb), ("settings", "switch", agent.switch.upkeep)):
            if kept.repairs > self._drifts.get((agent.name, of), 0):
                message = f"somebody else changed its {what}; put right: {'; '.join(kept.repaired)}"
                self._history.add("Host", agent.name, "drift", message, host=agent.name)
            self._drifts[agent.name, of] = kept.repairs

    def turned_away(self, address: str, dpid: int | None, host: str | None, reason: str) -> None:
        """A switch was turned away at the OpenFlow port. The address is its name: ids can be invented."""
        who = f"datapath id {dpid:016x}: " if dpid is not None else ""
        self._history.add("Switch", address, "turned-away", who + reason, host=host)

    # What is wanted.

    def _wanted(self, change: Change) -> None:
        old = change.old if change.old is not None and change.old.spec else None
        new = change.new if change.new is not None and change.new.spec else None
        row = new or old
        if row is None:
            return
        if new is None:
            word, about = "deleted", ""
        elif old is None:
            word, about = "created", ""
        elif new.deleting and not old.deleting:
            word, about = "deleting", "; it goes when nothing of it is left on the host"
        elif fields := _changed(old.spec, new.spec):
            word, about = "changed", f": {', '.join(fields)}"
        else:
            return
        through = self._asked.get((change.kind, change.name), "")
        by = f"through the {through}" if through else "by the controller"
        self._history.add(
            change.kind, change.name, word, f"{word} {by}{about}", generation=row.generation,
            host=change.name if change.kind == "Host" else None, network=_network(change.kind, change.name, row),
        )  # fmt: skip

    # What was observed of vNICs.

    def _vnic(self, change: Change) -> None:
        old, new = _status(change.old), _status(change.new)
        was, state = old.get("state") or "absent", new.get("state") or "absent"
        if state == "absent" and was != "absent":
            self._port(change, "gone", old, f"{_who(old)} is gone from {old.get('host')}")
            return
        if old.get("host") and new.get("host") and old["host"] != new["host"]:
            self._port(change, "moved", new, f"{_who(new)} has moved from {old['host']} to {new['host']}")
        elif (state != was and state not in _UNTOLD) or (
            state == "quarantined" and new.get("reason") != old.get("reason")
        ):
            self._port(change, state, new, _sentence(state, new))
        self._migration(change, old, new)

    def _migration(self, change: Change, old: _Status, new: _Status) -> None:
        before, now = old.get("incoming"), new.get("incoming")
        if now and now != before:
            self._port(change, "migrating", new, f"{_who(new)} is being copied from {new.get('host')} to {now}")
        elif before and not now and old.get("host") == new.get("host"):
            message = f"{_who(new)} stays on {new.get('host')}; it is not copied to {before} any more"
            self._port(change, "stayed", new, message)

    def _port(self, change: Change, word: str, status: _Status, message: str) -> None:
        row = change.new or change.old
        self._history.add(
            "Port", change.name, word, message, generation=row.generation or None if row is not None else None,
            host=status.get("host"), network=status.get("network"), vm=status.get("vm") or status.get("vm_uuid"),
        )  # fmt: skip

    # Connections.

    def _link(self, agent: HostAgent, part: str, state: PartState) -> None:
        word = {"up": "up", "degraded": "degraded", "down": "down", "hung": "down"}.get(state.state)
        key = (agent.name, part)
        before = self._links.get(key)
        is_new = state.confirmed < 0 and state.reason in {"", "not connected yet"}
        if word is None or (word == "down" and (is_new or state.reason == STOPS)):
            return
        if word != "degraded":
            self._troubles.pop(key, None)
        if word == before:
            return
        if word == "degraded":
            since, _ = self._troubles.get(key, (asyncio.get_running_loop().time(), ""))
            self._troubles[key] = since, f"{part} is degraded: {state.reason}"
            return
        self._links[key] = word
        if before is None and word == "up" and agent.name in self._old_hosts:
            return
        if word == "up":
            message = f"{part} is up" + (f", connected from {agent.switch.peer}" if part == "openflow" else "")
        else:
            message = f"{part} is {state.state}: {state.reason}"
        self._history.add("Host", agent.name, f"{part}-{word}", message, host=agent.name)

    def _forget(self, host: str) -> None:
        self._old_hosts -= {host}
        for part in (*_PARTS, "settings"):
            self._links.pop((host, part), None)
            self._troubles.pop((host, part), None)
            self._drifts.pop((host, part), None)


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))


def _network(kind: str, name: str, row: Row) -> str | None:
    network = name if kind == "Network" else row.spec.get("network") if kind in _IN_NETWORKS else None
    return network if isinstance(network, str) else None


def _status(row: Row | None) -> _Status:
    """The words of a vNIC's status, ``incoming`` as the host that it names; without what is no word."""
    status = row.status if row is not None else {}
    incoming = status.get("incoming")
    found = {**status, "incoming": incoming.get("host") if isinstance(incoming, Mapping) else None}
    return {name: value for name, value in found.items() if isinstance(value, str)}


def _identity(status: _Status) -> tuple[str | None, str | None]:
    return status.get("vm_uuid"), status.get("mac")


def _who(status: _Status) -> str:
    return f"vNIC {status.get('mac')} of {status.get('vm') or status.get('vm_uuid')}"


def _sentence(state: str, status: _Status) -> str:
    place = f"{_who(status)} on {status.get('host')}"
    if state == "active":
        portgroup = status.get("portgroup")
        return f"{place} is active: {status.get('tap')} in network {status.get('network')}, portgroup {portgroup}"
    return f"{place} is {state}: {status.get('reason') or 'no reason is known'}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
