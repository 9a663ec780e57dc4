"""What hosts show of vNICs, by host and by vNIC."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from controller.model.port import PortStatus
from topology.places import Identity, Sighting


class Sightings:
    """As each host's were judged last. ``of_guest`` are the vNICs that somebody shows, by their guest's UUID."""

    def __init__(self) -> None:
        self.of_guest: dict[str, set[Identity]] = defaultdict(set)
        self._at: dict[str, dict[Identity, list[PortStatus]]] = {}
        self._hosts: dict[Identity, set[str]] = defaultdict(set)

    def put(self, host: str, found: Iterable[tuple[Identity, PortStatus]]) -> set[str]:
        """All that the host shows now. Returns the UUIDs of guests that it shows otherwise than until now."""
        new: dict[Identity, list[PortStatus]] = defaultdict(list)
        for identity, status in found:  # it may raise, and nothing has changed then
            new[identity].append(status)
        old = self._at.pop(host, {})
        if new:
            self._at[host] = dict(new)
        for identity in old.keys() - new.keys():
            self._hosts[identity].discard(host)
            if not self._hosts[identity]:
                del self._hosts[identity]
                self.of_guest[identity[0]].discard(identity)
                if not self.of_guest[identity[0]]:
                    del self.of_guest[identity[0]]
        for identity in new.keys() - old.keys():
            self._hosts[identity].add(host)
            self.of_guest[identity[0]].add(identity)
        return {identity[0] for identity in old.keys() | new.keys() if old.get(identity) != new.get(identity)}

    def on(self, host: str) -> set[str]:
        """The guests that the host shows, by UUID."""
        return {uuid for uuid, _ in self._at.get(host, ())}

    def hosts_of(self, guests: Iterable[str]) -> set[str]:
        """The hosts that show some of these guests, by UUID."""
        return {host for identity in self.of_guests(guests) for host in self._hosts[identity]}

    def of(self, identity: Identity) -> list[Sighting]:
        """By host."""
        return [Sighting(host, each) for host in sorted(self._hosts[identity]) for each in self._at[host][identity]]

    def of_guests(self, guests: Iterable[str]) -> Iterator[Identity]:
        """The vNICs of guests, by UUID, that somebody shows."""
        return (identity for uuid in guests for identity in self.of_guest.get(uuid, ()))

    def all(self) -> Iterator[Identity]:
        """Each vNIC once, by the first host that shows it."""
        return iter(dict.fromkeys(identity for host in sorted(self._at) for identity in self._at[host]))
