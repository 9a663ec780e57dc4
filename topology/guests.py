"""Every vNIC of every guest as a Port row, from what hosts' OVSDB and libvirt tell and what the operator registered.

A vNIC's identity is (domain UUID, MAC): iface-id and tap change over its life, and neither is unique.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from controller.model.fields import parse_mac
from controller.model.host import HostSpec
from controller.model.port import PortStatus
from controller.ovsdb.host import HookRow, VnicRow
from topology.claims import learned
from topology.domain_xml import DomainView, VnicView
from topology.exclusion import keep_apart
from topology.hook_reports import HookReader, Report, port_key
from topology.index import Index, Wanted
from topology.judgement import Evidence, Verdict, Witness, judge
from topology.names import Changed, Registrations
from topology.places import Identity, Places, Sighting
from topology.sightings import Sightings
from topology.unplugged import unplugged

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(slots=True)
class HostView:
    """What one host tells. ``witness`` is what its libvirt is worth; ``alive`` says that some connection to it stands;
    ``reached`` once its OVSDB was read; ``vnics`` by OVS interface; ``asking`` are guests that libvirt is being asked
    about. ``hook`` is what its hook wrote, ``reports`` what that says, by OVS interface. ``arrived``: OpenFlow ports
    from which guests that were copied there have sent their first frame."""

    witness: Witness
    alive: bool = False
    reached: bool = False
    vnics: Mapping[str, VnicRow] = field(default_factory=dict)
    domains: dict[str, DomainView] = field(default_factory=dict)
    asking: set[str] = field(default_factory=set)
    hook: HookRow = field(default_factory=HookRow)
    reports: Mapping[str, Report] = field(default_factory=dict)
    reader: HookReader = field(default_factory=HookReader)
    arrived: frozenset[int] = frozenset()

    def without_libvirt(self, host: str) -> None:
        """There is no connection to the host's libvirt: its hook is the witness, if it has one."""
        self.witness, self.domains = Witness.NONE if self.hook.mark is None else Witness.HOOK, {}
        self.reports = self.reader.read(host, self.vnics, self.hook)


@dataclass(slots=True)
class Changes:
    """What is to be written: statuses by Port name, and rows of vNICs that nobody registered and nobody sees."""

    statuses: dict[str, PortStatus] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)


def strays(view: HostView) -> list[str]:
    """Interfaces on the integration bridge that no guest can be found for: libvirt wrote no identity to them."""
    return sorted(name for name, row in view.vnics.items() if _identity(row) is None)


class Guests:
    """Where every vNIC is. ``hosts`` is what each host tells; ``places`` tells which of several it is on."""

    def __init__(self) -> None:
        self.hosts: dict[str, HostView] = {}
        self.places = Places()
        self.claimed: dict[Identity, tuple[str, ...]] = {}  # addresses that are in no row yet
        self._sightings = Sightings()
        self._contested: dict[str, str] = {}
        self._index: Index | None = None
        self._registrations: Registrations | None = None  # by the last evaluation that succeeded
        self._again: set[str] = set()  # guests that are to be looked at next time, whatever that is about; by UUID
        self._again_rows: set[str] = set()

    def unknown_to_libvirt(self, host: str) -> set[str]:
        """Guests with a vNIC on the host that the last word of its libvirt does not explain: worth asking again."""
        view = self.hosts[host]
        taps = {vnic.tap for domain in view.domains.values() for vnic in domain.vnics}
        found = (_identity(row) for name, row in view.vnics.items() if name not in taps)
        return {identity[0] for identity in found if identity is not None}

    def left_behind(self, host: str) -> dict[str, VnicRow | str]:
        """What a host that lost its power leaves in OVSDB, by name, as it is there: interfaces without a device whose
        guests do not run, by the word of the host's libvirt, and its hook's words on vNICs that are not there.

        Where a hook is the witness, a lost device is enough: a tap is there for as long as its guest runs, and before
        its row is. A report that comes anew makes it another row."""
        view = self.hosts[host]
        there = {port_key(row.vm_uuid, row.mac) for row in view.vnics.values() if row.vm_uuid and row.mac}
        left: dict[str, VnicRow | str] = {key: word for key, word in view.hook.ports.items() if key not in there}
        if view.witness is Witness.PRESENT:
            unknown = self.unknown_to_libvirt(host) - view.asking
            left |= {name: row for name, row in view.vnics.items() if not row.is_plugged and row.vm_uuid in unknown}
        if view.witness is Witness.HOOK:
            left |= self._lost(host)
        return left

    def unclear(self, host: str) -> list[str]:
        """Interfaces without a device on a host that has neither libvirt nor a hook: nobody says whether their guests
        have ended."""
        return sorted(self._lost(host)) if self.hosts[host].witness is Witness.NONE else []

    def _lost(self, host: str) -> dict[str, VnicRow]:
        """Without the guests that are none of libvirt's: whoever runs those may keep their rows."""
        rows = ((name, row, _identity(row)) for name, row in self.hosts[host].vnics.items())
        return {name: row for name, row, identity in rows if row.is_lost and identity and self._is_libvirts(identity)}

    def _is_libvirts(self, identity: Identity) -> bool:
        """Whether it is not registered as none of libvirt's."""
        found = self._registrations.of(identity) if self._registrations is not None else None
        return found is None or found[1].libvirt

    def evaluate(self, wanted: Wanted, known: Mapping[str, PortStatus], stale: Iterable[str] | None) -> Changes:
        """What the Port rows should say, as far as that differs from ``known``.

        ``stale`` are the hosts that told something new; None when what is wanted changed, which may concern all.
        Only what such an event can concern is looked at: guests that those hosts show or showed, that have another
        name, whose rows changed, that are on their way or claim addresses, and who meets any of these (``Contenders``).
        It comes to the same as if all were looked at.
        """
        try:
            return self._evaluate(wanted, known, stale)
        except Exception:
            if self._index is not None:
                self._index.is_spoilt = True  # it may have taken in half of what is new
            raise

    def _evaluate(self, wanted: Wanted, known: Mapping[str, PortStatus], stale: Iterable[str] | None) -> Changes:
        index = self._index
        is_new = stale is None or index is None or index.is_spoilt or index.doubled
        if is_new or index is None:
            index, self._sightings = Index(wanted, index), Sightings()
            self._index = index
        judged = set(self.hosts) if is_new or stale is None else set(stale)
        changed = index.known.take(known)
        guests = self._rename(index, judged, changed)
        contested = index.registrations.contest(known, self._plugged_in)
        if contested != self._contested:
            self._contested = contested
            return self._evaluate(wanted, known, None)  # it may concern a guest on a host that told nothing new
        rows = set(known) if is_new else set()
        rows |= {each.name for each in changed} | self._again_rows
        guests |= {index.owners[row][0] for row in rows if row in index.owners}
        judged |= self._sightings.hosts_of(guests)  # a name or row counts wherever the guest is shown
        for host in judged:
            guests |= self._look(host, wanted, known, index)
            if index.standing.get(host) != (standing := self._standing(host)):
                index.standing[host] = standing
                guests |= self._sightings.on(host)
                rows |= index.known.at.get(host, set())
        guests |= self._again | self.places.unsettled | {uuid for uuid, _ in self.claimed}
        guests |= {index.owners[row][0] for row in rows if row in index.owners}
        concerned = list(self._sightings.all() if is_new else self._sightings.of_guests(guests))
        rows |= index.rename(guests, concerned)
        if index.doubled and not is_new:
            return self._evaluate(wanted, known, None)  # which of the two it is depends on all
        statuses = self._placed(concerned, wanted, known, index)
        for name in rows | statuses.keys():
            index.contenders.put(name, statuses.get(name) or self._unseen(known.get(name), wanted))
        together = index.contenders.concerned(rows)
        keep_apart(together, known, wanted.networks, wanted.registered)
        changes = self._compare(together, rows, wanted, known, index)
        self._again_rows = changes.statuses.keys() | changes.gone  # until they are written
        self._registrations = index.registrations
        return changes

    def _look(self, host: str, wanted: Wanted, known: Mapping[str, PortStatus], index: Index) -> set[str]:
        """Judge what the host shows; returns the guests that it concerns, by UUID."""
        spec = wanted.hosts.get(host)
        if spec is None or host not in self.hosts:
            return self._sightings.put(host, ())
        return self._sightings.put(host, self._on_host(host, spec, wanted, known, index))

    def _standing(self, host: str) -> object:
        """What of a host says which of several places a vNIC is at, and whether it is gone."""
        view = self.hosts.get(host)
        return (view.alive, view.reached, view.arrived) if view is not None else None

    def _placed(
        self, concerned: Sequence[Identity], wanted: Wanted, known: Mapping[str, PortStatus], index: Index
    ) -> dict[str, PortStatus]:
        """These vNICs where they are, by row, with the addresses that they have claimed."""
        self._again = self.places.unsettled | {uuid for uuid, _ in self.claimed}
        shown = {identity: self._sightings.of(identity) for identity in concerned}
        sightings = {identity: self._plugged(seen) for identity, seen in shown.items()}
        rows = {identity: index.rows[identity] for identity in sightings}
        before = {identity: known[name] for identity, name in rows.items() if name in known}
        self.places.settle_arrivals(sightings, before, self.hosts)
        self._again |= self.places.unsettled

        def away(host: str) -> bool:
            return self._unheard(host, wanted)

        statuses = {
            rows[identity]: self.places.choose(identity, seen, before.get(identity), self.hosts, away)
            for identity, seen in sightings.items()
        }
        self.places.forget(shown, sightings, away)
        self._grant_claims(statuses, rows, known, wanted, index)
        return statuses

    def _unseen(self, status: PortStatus | None, wanted: Wanted) -> PortStatus | None:
        """Who was active on a host that cannot be asked now has not left its place: its flows are still there."""
        is_there = status is not None and status.state == "active" and not self._surely_gone(status, wanted)
        return status if is_there else None

    def _grant_claims(
        self,
        statuses: dict[str, PortStatus],
        rows: Mapping[Identity, str],
        known: Mapping[str, PortStatus],
        wanted: Wanted,
        index: Index,
    ) -> None:
        """Give vNICs that learn their addresses those that they have, in place. A claim that is not granted is over;
        one that is granted stays until the row has it."""
        waiting = {}
        for identity, name in rows.items():
            claims, before = self.claimed.get(identity, ()), known.get(name)
            if not claims and (before is None or not before.learned):
                continue
            registered = wanted.registered.get(name)
            if registered is not None and registered.addresses:
                continue
            own = learned(statuses[name], before, claims, wanted.networks, index.taken)
            if own:
                addresses = (*statuses[name].addresses, *own)
                statuses[name] = statuses[name].model_copy(update={"addresses": addresses, "learned": own})
            if news := tuple(a for a in claims if a in own and (before is None or a not in before.learned)):
                waiting[identity] = news
        self.claimed = waiting

    def _plugged(self, seen: list[Sighting]) -> list[Sighting]:
        """Without the hosts whose libvirt says that it runs the guest while it is plugged in on another: one that a
        guest only begins to move to, or whose ``libvirt`` leads to the other's libvirtd."""
        if len(seen) == 1:
            return seen
        hosts = {s.host for s in seen if s.status.ofport is not None and self.hosts[s.host].alive}
        return [s for s in seen if s.host in hosts or s.status.ofport is not None] if hosts else seen

    def forget(self, host: str) -> None:
        """The host is not the fleet's any more."""
        self.hosts.pop(host, None)
        self._sightings.put(host, ())
        if self._index is not None:
            self._index.is_spoilt = True

    def _rename(self, index: Index, hosts: Iterable[str], changed: Iterable[Changed]) -> set[str]:
        """Take the guests' names that these hosts tell; returns who is called otherwise than before, by UUID."""
        suspects = {row.vm_uuid for each in changed for row in (each.old, each.new) if row is not None}
        for host in hosts:
            if index.names.relies(host, self._names_guests(host)):
                suspects |= {index.known.rows[row].vm_uuid for row in index.known.at.get(host, ())}
            if (view := self.hosts.get(host)) is None:
                suspects |= index.names.tell(host, {}, {})
                continue
            reported = {
                row.vm_uuid: view.reports[interface].vm
                for interface, row in view.vnics.items()
                if view.witness is Witness.HOOK and interface in view.reports and row.vm_uuid is not None
            }
            suspects |= index.names.tell(host, reported, {uuid: each.name for uuid, each in view.domains.items()})
        return index.names.settle(suspects, index.known, self._names_guests)

    def _names_guests(self, host: str) -> bool:
        """Whether the host's libvirt tells now what its guests are called."""
        return host in self.hosts and self.hosts[host].reached and self.hosts[host].witness is Witness.PRESENT

    def _plugged_in(self) -> set[Identity | None]:
        return {_identity(row) for view in self.hosts.values() for row in view.vnics.values()}

    def _on_host(
        self,
        host: str,
        spec: HostSpec,
        wanted: Wanted,
        known: Mapping[str, PortStatus],
        index: Index,
    ) -> Iterable[tuple[Identity, PortStatus]]:
        view = self.hosts[host]
        xml = {(uuid, v.tap): v for uuid, domain in view.domains.items() for v in domain.vnics if v.tap is not None}
        plugged: set[Identity] = set()
        for row in view.vnics.values():
            identity = _identity(row)
            if identity is None:
                continue
            plugged.add(identity)
            report = view.reports.get(row.interface) if view.witness is Witness.HOOK else None
            vnic = report.xml if report is not None else xml.get((identity[0], row.interface))
            if vnic is not None and vnic.mac != identity[1]:
                vnic = None
            name, registered = index.registered(identity)
            before = known.get(name)
            witness = view.witness
            if vnic is None and witness is Witness.PRESENT and identity[0] in view.asking:
                witness = Witness.AWAY
            socket = (report.socket.network, report.socket.portgroup) if report and report.socket else None
            evidence = Evidence(row, vnic, witness, registered, _confirmed(before, host, row), socket)
            verdict = judge(evidence, spec, wanted.networks, index.mtus)
            own = registered.addresses if registered is not None else ()
            own += tuple(a for a in wanted.leased.get((verdict.network or "", identity[1]), ()) if a not in own)
            yield identity, _status(identity, host, row, vnic, verdict, own, index.names.by_guest, before)
        for uuid, domain in view.domains.items():
            for vnic in domain.vnics:
                if (uuid, vnic.mac) in plugged:
                    continue
                _, registered = index.registered((uuid, vnic.mac))
                state, reason = unplugged(vnic, spec.bridge, strays(view), registered)
                yield (uuid, vnic.mac), PortStatus(
                    vm_uuid=uuid, vm=domain.name, mac=vnic.mac, host=host, tap=vnic.tap, iface_id=vnic.iface_id,
                    network=vnic.network, portgroup=vnic.portgroup, mtu=vnic.mtu, state=state, reason=reason,
                )  # fmt: skip

    def _compare(
        self,
        statuses: Mapping[str, PortStatus],
        rows: Collection[str],
        wanted: Wanted,
        known: Mapping[str, PortStatus],
        index: Index,
    ) -> Changes:
        changes = Changes()
        for name in statuses.keys() | rows:
            status = known.get(name)
            if name in index.owners:
                if status != statuses[name]:
                    changes.statuses[name] = statuses[name]
                continue
            if status is None or not self._surely_gone(status, wanted):
                continue
            if name not in wanted.registered:
                changes.gone.add(name)
            elif status.state != "absent":
                changes.statuses[name] = status.model_copy(
                    update={"state": "absent", "reason": "", "host": None, "tap": None, "ofport": None,
                            "iface_id": None, "incoming": None, "rivals": (), "learned": (),
                            "addresses": wanted.registered[name].addresses})  # fmt: skip
        return changes

    def _surely_gone(self, status: PortStatus, wanted: Wanted) -> bool:
        """Whether nobody sees it because it is gone, not because its host was not asked yet."""
        return status.host is None or not self._unheard(status.host, wanted)

    def _unheard(self, host: str, wanted: Wanted) -> bool:
        """Whether it is not known yet what the host shows."""
        return host in wanted.hosts and not (host in self.hosts and self.hosts[host].reached)


def _identity(row: VnicRow) -> Identity | None:
    uuid = (row.vm_uuid or "").lower()
    if not _UUID.fullmatch(uuid):
        return None
    try:
        return uuid, parse_mac(row.mac or "")
    except ValueError:
        return None


def _confirmed(before: PortStatus | None, host: str, row: VnicRow) -> tuple[str, str] | None:
    """Where it was switched before, or was about to be, when it is still the very same row of OVSDB."""
    if before is None or before.state != "active" or before.network is None or before.portgroup is None:
        return None
    for place in (before, before.incoming):
        if place is not None and (place.host, place.tap, place.ofport, place.iface_id) == (
            host, row.interface, row.ofport, row.iface_id
        ):  # fmt: skip
            return before.network, before.portgroup
    return None


def _status(
    identity: Identity,
    host: str,
    row: VnicRow,
    vnic: VnicView | None,
    verdict: Verdict,
    addresses: tuple[str, ...],
    names: Mapping[str, str],
    before: PortStatus | None,
) -> PortStatus:
    uuid, mac = identity
    vm = names.get(uuid) or (before.vm if before is not None else None)
    mtu = vnic.mtu if vnic is not None else None
    return PortStatus(
        vm_uuid=uuid, vm=vm, mac=mac, host=host, tap=row.interface, ofport=row.ofport, iface_id=row.iface_id,
        network=verdict.network, portgroup=verdict.portgroup, mtu=mtu, state=verdict.state, reason=verdict.reason,
        addresses=addresses,
    )  # fmt: skip
