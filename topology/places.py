"""Which of several hosts a vNIC is on, and to which it is being copied.

While a guest migrates it stands on two hosts. It is where it was until libvirt says that it runs in the new place, or
a frame came from there, or its device in the old place is gone. A place that was left is no place to come to, however
long its host shows it: a late frame from there moves nobody. A host that died shows its guests for ever; they may have
been started elsewhere.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from controller.model.port import Incoming, PortStatus, Rival

Identity = tuple[str, str]
Row = tuple[str | None, str | None, int | None]

TWICE_SECONDS = 10.0
"""So long a place that was left may be shown before it is told: libvirt takes it away within seconds."""


class HostLike(Protocol):
    """What is asked of a host: whether some connection to it stands, and from which OpenFlow ports guests that were
    copied there have sent their first frame."""

    alive: bool
    arrived: frozenset[int]


@dataclass(frozen=True, slots=True)
class Sighting:
    """One vNIC on one host."""

    host: str
    status: PortStatus


@dataclass(frozen=True, slots=True)
class _Left:
    row: Row
    since: float


class Places:
    """``settled`` is where a guest runs, as libvirt said when it started or moved there, or as its first frame from
    there did; forgotten when no other host shows it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.settled: dict[str, str] = {}
        self._left: dict[tuple[Identity, str], _Left] = {}
        self._clock = clock

    @property
    def left(self) -> set[str]:
        """Hosts that still show what has left them."""
        return {host for _, host in self._left}

    @property
    def unsettled(self) -> set[str]:
        """Guests, by UUID, that are told to be in one of several places, or have left one that still shows them."""
        return self.settled.keys() | {identity[0] for identity, _ in self._left}

    def settle_arrivals(
        self,
        sightings: Mapping[Identity, Sequence[Sighting]],
        before: Mapping[Identity, PortStatus],
        hosts: Mapping[str, HostLike],
    ) -> None:
        """Guests whose first frame came from the place that they were copied to are there, with all their vNICs."""
        if not any(host.arrived for host in hosts.values()):
            return
        for identity, old in before.items():
            for one in sightings[identity]:
                if _coming(old, {one.host: one}) is not None and one.status.ofport in hosts[one.host].arrived:
                    self.settled[identity[0]] = one.host

    def choose(
        self,
        identity: Identity,
        seen: Sequence[Sighting],
        before: PortStatus | None,
        hosts: Mapping[str, HostLike],
        away: Callable[[str], bool],
    ) -> PortStatus:
        """The vNIC where it is. ``away`` says of a host that nobody has heard yet what it shows."""
        if len(seen) == 1 and (before is None or before.incoming is None):
            return seen[0].status  # most of them, always
        seen = _one_a_host(seen, before)
        by_host = {one.host: one for one in seen}
        coming = _coming(before, by_host)
        if len(seen) == 1:
            return self._only(identity, seen[0], before, coming, away)
        home = self._home(identity, by_host, before, coming, hosts)
        if before is not None and before.host in by_host and before.host != home:
            self._leave(identity, before.host, by_host[before.host].status)
        self._left.pop((identity, home), None)
        return self._described(identity, by_host.pop(home).status, list(by_host.values()), hosts)

    def forget(
        self,
        shown: Mapping[Identity, Sequence[Sighting]],
        plugged: Mapping[Identity, Sequence[Sighting]],
        away: Callable[[str], bool],
    ) -> None:
        """Who is plugged in on one host alone has no other place, and what is not shown any more was not left there."""
        hosts: dict[str, set[str]] = defaultdict(set)
        for (uuid, _), seen in plugged.items():
            if uuid in self.settled:
                hosts[uuid] |= {one.host for one in seen}
        self.settled = {uuid: host for uuid, host in self.settled.items() if hosts[uuid] - {host}}
        still = ((i, one) for i, host in self._left for one in shown.get(i, ()) if one.host == host)
        kept = {(identity, one.host) for identity, one in still if self._has_left(identity, one)}
        self._left = {key: left for key, left in self._left.items() if key in kept or away(key[1])}

    def _only(
        self,
        identity: Identity,
        one: Sighting,
        before: PortStatus | None,
        coming: Sighting | None,
        away: Callable[[str], bool],
    ) -> PortStatus:
        """One host shows it; while it is being copied, the other may not have been heard yet."""
        if before is None or before.incoming is None or before.state != "active" or before.host is None:
            return one.status
        if coming is one and away(before.host):
            if self.settled.get(identity[0]) != one.host:
                return before
            self._leave(identity, before.host, before)
        if one.host == before.host and one.status.state == "active" and away(before.incoming.host):
            return one.status.model_copy(update={"incoming": before.incoming, "reason": before.reason})
        return one.status

    def _leave(self, identity: Identity, host: str, old: PortStatus) -> None:
        if old.ofport is not None:  # one whose device comes again may be there still: its next frame says so
            self._left.setdefault((identity, host), _Left(_row(old), self._clock()))

    def _home(
        self,
        identity: Identity,
        by_host: Mapping[str, Sighting],
        before: PortStatus | None,
        coming: Sighting | None,
        hosts: Mapping[str, HostLike],
    ) -> str:
        settled = self.settled.get(identity[0])
        if settled is not None and settled in by_host:
            return settled
        home = before.host if before is not None else None
        if home is not None and home in by_host:
            if coming is not None and coming.status.state == "active" and by_host[home].status.ofport is None:
                return coming.host  # its device is gone, the row is still there
            # One who is only being copied needs no guess: it is heard when it has come.
            if hosts[home].alive or coming is not None:
                return home
        first = home if home is not None and home in by_host else next(iter(by_host))
        return next((host for host in by_host if hosts[host].alive), first)

    def _described(
        self, identity: Identity, status: PortStatus, others: Sequence[Sighting], hosts: Mapping[str, HostLike]
    ) -> PortStatus:
        """With the place that it is being copied to, and what the operator should know of the others."""
        incoming: Incoming | None = None
        rivals = list(status.rivals)
        reasons = [status.reason] if status.reason else []
        fresh = [one for one in others if not self._has_left(identity, one)]
        for one in fresh:
            if len(fresh) == 1 and (incoming := _incoming(status, one)) is not None:
                reasons.append(f"is being copied to {one.host}")
                continue
            rivals += _rivals([one])
            if status.state == "active" and one.status.state == "quarantined":
                reasons.append(f"host {one.host} shows it too, where it is kept out: {one.status.reason}")
            elif status.state == one.status.state == "active":
                reasons.append(f"host {one.host} shows it too, in another network or portgroup, or as a third one")
        late = self._clock() - TWICE_SECONDS
        for one in others:
            left = self._left.get((identity, one.host)) if hosts[one.host].alive else None
            if left is not None and left.since < late and one.status.state == status.state == "active":
                reasons.append(
                    f"host {one.host} shows it too, and has not let go: end the guest where it should not run"
                )
                rivals += _rivals([one])
        said = {"incoming": incoming, "rivals": tuple(rivals), "reason": "; ".join(reasons)}
        return status.model_copy(update=said)

    def _has_left(self, identity: Identity, one: Sighting) -> bool:
        left = self._left.get((identity, one.host))
        if left is None:
            return False
        row = _row(one.status)
        return row[:2] == left.row[:2] and row[2] in {left.row[2], None}  # its device goes before its row


def _row(status: PortStatus) -> Row:
    return status.tap, status.iface_id, status.ofport


def _coming(before: PortStatus | None, by_host: Mapping[str, Sighting]) -> Sighting | None:
    """Where it was being copied to, when that is still shown."""
    if before is None or before.incoming is None or before.incoming.host not in by_host:
        return None
    one = by_host[before.incoming.host]
    same = (one.status.tap, one.status.ofport) == (before.incoming.tap, before.incoming.ofport)
    return one if same else None


def _incoming(status: PortStatus, one: Sighting) -> Incoming | None:
    """The other place, when it would be switched there as it is here."""
    there = one.status
    alike = (status.network, status.portgroup, status.state) == (there.network, there.portgroup, there.state)
    if not alike or status.state != "active" or there.tap is None or there.ofport is None:
        return None
    return Incoming(host=one.host, tap=there.tap, ofport=there.ofport, iface_id=there.iface_id)


def _one_a_host(seen: Sequence[Sighting], before: PortStatus | None) -> list[Sighting]:
    """On a host that shows a vNIC twice, one of the two is what somebody left behind, or a fraud.

    Only one can be right: the one that alone could be switched, or that was switched before. The other is kept out (it
    has no flows) and named; when there is no telling, both are.
    """
    if len(seen) == 1:
        return [*seen]
    by_host: dict[str, list[Sighting]] = defaultdict(list)
    for sighting in seen:
        by_host[sighting.host].append(sighting)
    return [found[0] if len(found) == 1 else _the_right_one(host, found, before) for host, found in by_host.items()]


def _the_right_one(host: str, found: list[Sighting], before: PortStatus | None) -> Sighting:
    right = [s for s in found if s.status.state == "active"]
    if len(right) > 1 and before is not None and before.state == "active" and before.host == host:
        right = [s for s in right if (s.status.tap, s.status.ofport) == (before.tap, before.ofport)]
    if len(right) != 1:
        reason = f"host {host} has two vNICs of this guest with this MAC"
        said = {"state": "quarantined", "reason": reason, "rivals": _rivals(found[1:])}
        return Sighting(host, found[0].status.model_copy(update=said))
    status, others = right[0].status, [s for s in found if s is not right[0]]
    taps = ", ".join(sorted(str(s.status.tap) for s in others))
    more = f"{taps} of the same host says that it is this vNIC too, and is kept out"
    reason = "; ".join(filter(None, (status.reason, more)))
    return Sighting(host, status.model_copy(update={"reason": reason, "rivals": _rivals(others)}))


def _rivals(kept_out: Iterable[Sighting]) -> tuple[Rival, ...]:
    """Where the others are plugged in, so that what they send can be counted."""
    found = [rival for one in kept_out for rival in one.status.rivals]
    for one in kept_out:
        if one.status.tap is not None and one.status.ofport is not None:
            found.append(Rival(host=one.host, tap=one.status.tap, ofport=one.status.ofport))
    return tuple(sorted(found, key=lambda rival: (rival.host, rival.ofport)))
