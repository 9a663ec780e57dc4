"""What is wanted of vNICs, and what an evaluation of them keeps for the next one (topology/guests.py)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from controller.model.host import HostSpec
from controller.model.kinds import network_mtu, overlay_mtu
from controller.model.network import NetworkSpec
from controller.model.port import PortSpec, port_name
from topology.claims import Taken, taken_in
from topology.exclusion import Contenders
from topology.names import KnownRows, Names, Registrations
from topology.places import Identity


@dataclass(frozen=True, slots=True)
class Wanted:
    """The operator's rows that a vNIC is judged by. ``leased`` are addresses by network and MAC; ``floating`` are
    floating ones, outside."""

    hosts: Mapping[str, HostSpec]
    networks: Mapping[str, NetworkSpec]
    registered: Mapping[str, PortSpec]
    leased: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    floating: Collection[str] = ()

    def mtus(self) -> dict[str, int]:
        """Bytes that a vNIC's IP packets may have, by network."""
        limit = overlay_mtu(self.hosts.values())
        return {name: network_mtu(spec, limit) for name, spec in self.networks.items()}


class Index:
    """What follows from rows and from what hosts told, as it was at the last evaluation. ``rows`` are the names of
    the vNICs' rows, ``owners`` the vNICs by that; ``doubled`` says that two have the same row, ``is_spoilt`` that
    nothing of it is to be kept."""

    def __init__(self, wanted: Wanted, before: Index | None) -> None:
        if before is not None and before.is_spoilt:
            before = None
        # These do not follow from what is wanted.
        self.known: KnownRows = before.known if before is not None else KnownRows()
        self.names: Names = before.names if before is not None else Names()
        self.registrations = Registrations(wanted.registered, self.names)
        self.contenders = Contenders(wanted.networks)
        self.rows: dict[Identity, str] = {}
        self.owners: dict[str, Identity] = {}
        self.standing: dict[str, object] = {}  # of hosts, as it was
        self.doubled = False
        self.is_spoilt: bool = False
        self._of_guest: dict[str, list[Identity]] = {}
        self._wanted = wanted

    @cached_property
    def mtus(self) -> Mapping[str, int]:
        return self._wanted.mtus()

    @cached_property
    def taken(self) -> Taken:
        """Addresses that nobody can learn."""
        wanted = self._wanted
        return taken_in(wanted.networks, wanted.registered.values(), wanted.hosts, wanted.floating)

    def registered(self, identity: Identity) -> tuple[str, PortSpec | None]:
        """Name of the vNIC's row, and its registration."""
        return self.registrations.of(identity) or (port_name(*identity), None)

    def rename(self, guests: Iterable[str], shown: Iterable[Identity]) -> set[str]:
        """Which rows are those of these guests' vNICs, of which ``shown`` are all that are seen. Returns the rows that
        were theirs, and that are."""
        found = set()
        for uuid in guests:
            for identity in self._of_guest.pop(uuid, ()):
                row = self.rows.pop(identity)
                found.add(row)
                self.owners.pop(row, None)
        for identity in shown:
            row = self.registered(identity)[0]
            found.add(row)
            self.doubled |= row in self.owners
            self.rows[identity], self.owners[row] = row, identity
            self._of_guest.setdefault(identity[0], []).append(identity)
        return found
