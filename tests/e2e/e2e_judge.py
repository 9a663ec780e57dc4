"""A judge of the whole fleet: marked frames between all pairs, without a pause, held against who should hear whom.

Every party sends one frame to every other and one to all, round after round. What comes out where it must not is a
breach at any moment; what does not come out is only held against pairs that nothing disturbs.
"""

from __future__ import annotations

import contextlib
import secrets
import selectors
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType

from e2e_frames import BROADCAST, EXPERIMENT, ethernet
from labkit import LabError
from labkit.capture import open_raw, read

_MARK = struct.Struct("!8sIHH")  # this judge's own, round, sender, addressee
_EVERYBODY = 0xFFFF
_ROUND_SECONDS = 0.5
_LATE_SECONDS = 1.5  # until then a frame may be under way on a loaded machine


@dataclass(frozen=True, slots=True)
class Party:
    """Somebody who sends and listens. ``host`` is None outside the fleet; ``wire`` hears what is meant for others too,
    as a physical port does; of a ``tap``, the host's end of a guest that is told nothing of the judge, what leaves is
    heard. Whatever such a guest says by itself, all frames from its MAC, is held against the rule too.
    """

    name: str
    netns: str
    interface: str
    mac: str
    host: str | None
    wire: bool = False
    tap: bool = False


# Who is heard by whom: (sender, listener).
Rule = Callable[[Party, Party], bool]
# Names: sender, addressee ("" for everybody), listener.
Hearing = tuple[str, str, str]
Pair = tuple[str, str]


@dataclass(slots=True)
class _Member:
    party: Party
    number: int
    socket: socket.socket


@dataclass(slots=True)
class _Round:
    """What should be heard, what of that has no excuse, what was heard by those who should, and what by others of the
    segment (a switch floods what it does not know)."""

    begun: float
    expected: set[Hearing]
    owed: set[Hearing]
    heard: Counter[Hearing] = field(default_factory=Counter)
    flooded: set[Hearing] = field(default_factory=set)


class Judge:
    """Listens and sends while its block runs. ``breaches`` are sentences on what came out where it must not."""

    def __init__(self, rule: Rule) -> None:
        self.breaches: list[str] = []
        self.lost: list[str] = []
        self._rule = rule
        self._own = secrets.token_bytes(8)
        self._members: dict[str, _Member] = {}
        self._numbers: dict[int, Party] = {}
        self._rounds: dict[int, _Round] = {}
        self._count = 0
        self._disturbed: Counter[str] = Counter()
        self._speakers: dict[str, Party] = {}  # by MAC: who says what it likes
        self._said: dict[Pair, float] = {}  # speaker, listener: when it was last heard
        self._new: set[str] = set()  # joined since everybody last agreed: may not be switched yet
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=work, name=work.__name__) for work in (self._listen, self._send)]

    def __enter__(self) -> Judge:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        for name in list(self._members):
            self.leave(name)
        self._selector.close()

    def join(self, parties: Iterable[Party]) -> None:
        """From the next round on they send and listen."""
        for party in parties:
            raw = open_raw(party.netns, party.interface)
            raw.setblocking(False)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            with self._lock:
                member = _Member(party, len(self._numbers), raw)
                self._numbers[member.number] = party
                self._members[party.name] = member
                if party.tap:
                    self._speakers[party.mac] = party
                self._new.add(party.name)
                self._selector.register(raw, selectors.EVENT_READ, member)

    def leave(self, name: str) -> None:
        """They are about to go: what was sent to or by them is not missed."""
        with self._lock:
            member = self._members.pop(name)
            self._selector.unregister(member.socket)
            for each in self._rounds.values():
                each.expected = {key for key in each.expected if name not in key}
                each.owed &= each.expected
        member.socket.close()

    @contextlib.contextmanager
    def disturbing(self, hosts: Iterable[str]) -> Iterator[None]:
        """While the block runs, frames of these hosts' guests may get lost; those between others may not."""
        hosts = tuple(hosts)
        with self._lock:
            self._disturbed.update(hosts)
            self._excuse()
        try:
            yield
        finally:
            with self._lock:
                self._excuse()
                self._disturbed.subtract(hosts)

    def _excuse(self) -> None:
        """What is under way from or to a disturbed host may get lost."""
        names = {m.party.name for m in self._members.values() if self._disturbed[m.party.host or ""] > 0} | self._new
        for each in self._rounds.values():
            each.owed = {key for key in each.owed if not names & {key[0], key[2]}}

    def agree(self, within: float, since: float | None = None) -> float:
        """Wait until a whole round that begins now or later came out as it should, and say how many seconds after
        ``since`` (of time.monotonic()) it began. Raises LabError when none has ``within`` seconds from then."""
        begun = time.monotonic()
        since = begun if since is None else since
        missing: set[Hearing] = set()
        flooded: set[Hearing] = set()
        while True:
            with self._lock:
                rounds = [r for r in self._rounds.values() if r.begun > begun]
                done = [r for r in rounds if r.expected <= r.heard.keys() and not r.flooded]
                if done:
                    self._new.clear()
                    return min(r.begun for r in done) - since
                if len(rounds) > 1:
                    missing, flooded = rounds[-2].expected - rounds[-2].heard.keys(), rounds[-2].flooded
            if time.monotonic() - since > within + _LATE_SECONDS:
                raise LabError(f"after {within:.0f} s not heard: {_told(missing)}; flooded: {_told(flooded)}")
            time.sleep(0.05)

    def heard_by_all(self, names: Iterable[str], within: float) -> None:
        """Wait until everybody who should has heard each of these speakers from now on. Raises LabError."""
        since = time.monotonic()
        wanted = set(names)

        def missing() -> set[Pair]:
            with self._lock:
                pairs = {
                    (speaker.name, member.party.name)
                    for speaker in self._speakers.values() if speaker.name in wanted
                    for member in self._members.values()
                    if member.party.name != speaker.name and self._rule(speaker, member.party)
                }  # fmt: skip
                return {pair for pair in pairs if self._said.get(pair, 0.0) < since}

        while found := missing():
            if time.monotonic() - since > within:
                told = ", ".join(f"{speaker} at {listener}" for speaker, listener in sorted(found)[:6])
                raise LabError(f"after {within:.0f} s not heard: {told}")
            time.sleep(0.05)

    # -- its two threads

    def _send(self) -> None:
        while not self._over.wait(_ROUND_SECONDS):
            with self._lock:
                members = list(self._members.values())
                self._count += 1
                number = self._count
                expected = {key for member in members for key in self._expected(member.party, members)}
                self._rounds[number] = _Round(time.monotonic(), expected, set(expected))
                self._excuse()
            for member in members:
                if member.party.tap:
                    continue
                for other in members:
                    if other is not member:
                        self._send_one(member, number, other.number, other.party.mac)
                self._send_one(member, number, _EVERYBODY, BROADCAST)
            self._close_rounds()

    def _expected(self, sender: Party, members: list[_Member]) -> Iterable[Hearing]:
        for other in members:
            if not sender.tap and other.party is not sender and self._rule(sender, other.party):
                yield sender.name, other.party.name, other.party.name
                yield sender.name, "", other.party.name

    def _send_one(self, member: _Member, number: int, addressee: int, dst: str) -> None:
        mark = _MARK.pack(self._own, number, member.number, addressee)
        with contextlib.suppress(OSError):  # it is just going
            member.socket.send(ethernet(dst, member.party.mac, EXPERIMENT, mark))

    def _listen(self) -> None:
        while not self._over.is_set():
            with self._lock:
                ready = [key.data for key, _ in self._selector.select(0.0)] if self._members else []
                for member in ready:
                    self._drain(member)
            if not ready:
                time.sleep(0.005)

    def _drain(self, member: _Member) -> None:
        for _ in range(200):
            frame = read(member.socket)
            if frame is None:
                return
            at = frame.data.find(self._own)
            if frame.outgoing != member.party.tap:
                continue
            if at >= 0 and len(frame.data) >= at + _MARK.size:
                self._note(member.party, *_MARK.unpack_from(frame.data, at)[1:])
            elif (speaker := self._speakers.get(frame.src)) is not None:
                self._note_speech(member.party, speaker)

    def _note_speech(self, listener: Party, speaker: Party) -> None:
        if speaker.name == listener.name or not self._rule(speaker, listener):
            self.breaches.append(f"{listener.name} hears what {speaker.name} says")
        self._said[speaker.name, listener.name] = time.monotonic()

    def _note(self, listener: Party, number: int, sender: int, addressee: int) -> None:
        source = self._numbers[sender]
        target = self._numbers[addressee] if addressee != _EVERYBODY else None
        if source is listener or not self._rule(source, listener):
            self.breaches.append(f"{listener.name} hears {source.name} (round {number})")
        elif (found := self._rounds.get(number)) is not None:
            key = (source.name, target.name if target is not None else "", listener.name)
            if target is None or target is listener:
                found.heard[key] += 1
                if found.heard[key] == 2:
                    self.breaches.append(f"{listener.name} hears {_told({key})} twice (round {number})")
            elif self._rule(source, target) and not listener.wire:
                found.flooded.add(key)

    def _close_rounds(self) -> None:
        """Judge the rounds whose frames have all had their time."""
        with self._lock:
            for number, each in list(self._rounds.items()):
                if time.monotonic() - each.begun < _LATE_SECONDS:
                    continue
                if missing := each.owed - each.heard.keys():
                    self.lost.append(f"round {number}: {_told(missing)}")
                del self._rounds[number]


def _told(keys: Iterable[Hearing]) -> str:
    """Some of them in words."""
    words = [f"{sender} to {target or 'all'} at {listener}" for sender, target, listener in sorted(keys)]
    return (", ".join(words[:6]) or "none") + (f" and {len(words) - 6} more" if len(words) > 6 else "")
