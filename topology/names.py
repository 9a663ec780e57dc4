"""What guests are called, and which registration means which guest: kept as hosts tell, and not looked up anew."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from controller.model.fields import is_uuid
from controller.model.port import PortSpec, PortStatus
from topology.places import Identity

Called = Mapping[str, str]
"""Guests' names by UUID."""


@dataclass(frozen=True, slots=True)
class Changed:
    """A row of a vNIC, as it was and as it is."""

    name: str
    old: PortStatus | None
    new: PortStatus | None


class KnownRows:
    """The rows as they were when they were last looked at, and where to find those of a guest or host."""

    def __init__(self) -> None:
        self.rows: dict[str, PortStatus] = {}
        self.of_guest: dict[str, set[str]] = defaultdict(set)  # by UUID
        self.called: dict[str, set[str]] = defaultdict(set)  # by the guest's name
        self.at: dict[str, set[str]] = defaultdict(set)  # by host, also the one that it is being copied to

    def take(self, known: Mapping[str, PortStatus]) -> list[Changed]:
        """What is another than before. Rows are never changed in place: whatever is the same object is the same."""
        rows = self.rows
        found = [Changed(name, rows.get(name), new) for name, new in known.items() if rows.get(name) is not new]
        added = sum(each.old is None for each in found)
        if len(rows) + added != len(known):
            found += [Changed(name, old, None) for name, old in rows.items() if name not in known]
        for each in found:
            self._index(each.name, each.old, set.discard)
            self._index(each.name, each.new, set.add)
            if each.new is None:
                del rows[each.name]
            else:
                rows[each.name] = each.new
        return found

    def _index(self, name: str, status: PortStatus | None, put: Callable[[set[str], str], None]) -> None:
        if status is None:
            return
        hosts = {status.host, status.incoming.host if status.incoming is not None else None} - {None}
        keys = [(self.of_guest, status.vm_uuid), *((self.at, str(host)) for host in hosts)]
        if status.vm is not None:
            keys.append((self.called, status.vm))
        for index, key in keys:
            put(index[key], name)
            if not index[key]:
                del index[key]


class Names:
    """Names of the guests by UUID: as libvirt tells them, or told them before it (or the controller) went away.

    Where two hosts tell another name of one guest, what libvirt itself says goes before what a hook reported, and then
    the last host by name; of rows, the first by name."""

    def __init__(self) -> None:
        self.by_guest: dict[str, str] = {}
        self.guests: dict[str, set[str]] = defaultdict(set)  # UUIDs by name
        self.shared: set[str] = set()  # names of several
        self._by_host: dict[str, tuple[Called, Called]] = {}
        self._tellers: dict[str, dict[tuple[bool, str], str]] = defaultdict(dict)  # by UUID
        self._told: dict[str, str] = {}
        self._relies: dict[str, bool] = {}
        self._taken: Counter[str] = Counter()  # names that are told now

    def tell(self, host: str, reported: Called, named: Called) -> set[str]:
        """What a host's hook and its libvirt say now. Returns guests that may have other names for it, by UUID, and
        takes no name itself: see ``settle``."""
        suspects = set()
        old = self._by_host.get(host, ({}, {}))
        for by_libvirt, before, now in ((False, old[0], reported), (True, old[1], named)):
            for uuid in before.keys() | now.keys():
                if before.get(uuid) == now.get(uuid):
                    continue
                suspects.add(uuid)
                if uuid in now:
                    self._tellers[uuid][by_libvirt, host] = now[uuid]
                else:
                    del self._tellers[uuid][by_libvirt, host]
        if reported or named:
            self._by_host[host] = dict(reported), dict(named)
        else:
            self._by_host.pop(host, None)
        return suspects

    def relies(self, host: str, is_complete: bool) -> bool:
        """Whether it is new that the host names all of its guests, or that it does not any more."""
        before, self._relies[host] = self._relies.get(host), is_complete
        return before is not is_complete

    def settle(self, suspects: Iterable[str], rows: KnownRows, tells: Callable[[str], bool]) -> set[str]:
        """Names of these guests anew, and of those whose row has a name that is told now, or is told no more. Returns
        the guests that are called otherwise than before. ``tells`` says of a host that it names all of its guests."""
        suspects, flipped = set(suspects), set()
        for uuid in list(suspects):
            flipped |= self._tell(uuid)
        for name in flipped:
            suspects |= {rows.rows[row].vm_uuid for row in rows.called.get(name, ())}
        return {uuid for uuid in suspects if self._call(uuid, self._name(uuid, rows, tells))}

    def _tell(self, uuid: str) -> set[str]:
        """Take what is told of the guest's name now; returns names that nobody was told to have before, or has now."""
        tellers = self._tellers.get(uuid)
        if tellers is not None and not tellers:
            tellers = self._tellers.pop(uuid)
        old, new = self._told.get(uuid), tellers[max(tellers)] if tellers else None
        if old == new:
            return set()
        flipped = set()
        if old is not None:
            self._taken[old] -= 1
            if not self._taken[old]:
                del self._taken[old]
                flipped.add(old)
            del self._told[uuid]
        if new is not None:
            if new not in self._taken:
                flipped.add(new)
            self._taken[new] += 1
            self._told[uuid] = new
        return flipped

    def _name(self, uuid: str, rows: KnownRows, tells: Callable[[str], bool]) -> str | None:
        if uuid in self._told:
            return self._told[uuid]
        for row in sorted(rows.of_guest.get(uuid, ())):
            status = rows.rows[row]
            untold = status.host is not None and not tells(status.host)
            if status.vm is not None and (status.vm not in self._taken or untold):
                return status.vm
        return None

    def _call(self, uuid: str, name: str | None) -> bool:
        """Whether it was called otherwise."""
        old = self.by_guest.get(uuid)
        if old == name:
            return False
        if old is not None:
            self.guests[old].discard(uuid)
            del self.by_guest[uuid]
        if name is not None:
            self.by_guest[uuid] = name
            self.guests[name].add(uuid)
        for each in {old, name} - {None}:
            guests = self.guests[str(each)]
            (self.shared.add if len(guests) > 1 else self.shared.discard)(str(each))
            if not guests:
                del self.guests[str(each)]
        return True


class Registrations:
    """Which registration is a vNIC's, by its guest's UUID or name.

    A name is unique on one host only. Of several guests that a registration could mean it means the one that it meant
    before: whoever is called like another takes nothing from it. ``contested`` are the UUIDs of those that others of
    their name could be taken for, by row.
    """

    def __init__(self, registered: Mapping[str, PortSpec], names: Names) -> None:
        self.contested: dict[str, str] = {}
        self._names = names
        self._exact = {(spec.vm, spec.mac): (name, spec) for name, spec in registered.items()}
        self._by_name: dict[str, list[tuple[str, PortSpec]]] = defaultdict(list)
        for name, spec in registered.items():
            if not is_uuid(spec.vm):  # a guest may be called like another's UUID
                self._by_name[spec.vm].append((name, spec))

    def contest(
        self, known: Mapping[str, PortStatus], shown: Callable[[], Collection[Identity | None]]
    ) -> dict[str, str]:
        """Decide anew which of several guests is meant. ``shown``: who is plugged in somewhere."""
        found: dict[str, str] = {}
        there: Collection[Identity | None] | None = None
        for guest in self._names.shared & self._by_name.keys():
            if there is None:
                there = shown()
            uuids = self._names.guests[guest]
            found |= {name: _meant(spec.mac, uuids, known.get(name), there) for name, spec in self._by_name[guest]}
        self.contested = found
        return found

    def of(self, identity: Identity) -> tuple[str, PortSpec] | None:
        """Name of the registration's row, and the registration."""
        uuid, mac = identity
        if (exact := self._exact.get(identity)) is not None:
            return exact
        guest = self._names.by_guest.get(uuid)
        if guest is None:
            return None
        for name, spec in self._by_name.get(guest, ()):
            if spec.mac == mac and self.contested.get(name, uuid) == uuid:
                return name, spec
        return None


def _meant(mac: str, uuids: Collection[str], before: PortStatus | None, shown: Collection[Identity | None]) -> str:
    """Which of the guests with one name is registered with the MAC. ``shown``: who is plugged in somewhere."""
    if before is not None and before.mac == mac and before.state != "absent" and before.vm_uuid in uuids:
        return before.vm_uuid
    return min(uuids, key=lambda uuid: ((uuid, mac) not in shown, uuid))
