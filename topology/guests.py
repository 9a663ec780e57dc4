"""Every vNIC of every guest as a Port row, from what hosts' OVSDB and libvirt tell and what the operator registered.

A vNIC's identity is (domain UUID, MAC): iface-id and tap change over its life, and neither is unique.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from controller.model.fields import is_uuid, parse_mac
from controller.model.host import HostSpec
from controller.model.kinds import network_mtu, overlay_mtu
from controller.model.network import NetworkSpec
from controller.model.port import PortSpec, PortStatus, port_name
from controller.ovsdb.host import HookRow, VnicRow
from topology.claims import Taken, learned, taken_in
from topology.domain_xml import DomainView, VnicView
from topology.exclusion import keep_apart
from topology.hook_reports import HookReader, Report, port_key
from topology.judgement import Evidence, Verdict, Witness, judge
from topology.places import Identity, Places, Sighting
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
        self._sightings: dict[str, list[tuple[Identity, PortStatus]]] = {}
        self._contested: dict[str, str] = {}
        self._foreign: set[Identity] = set()  # registered as none of libvirt's

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
        return {name: row for name, row, identity in rows if row.is_lost and identity and identity not in self._foreign}

    def evaluate(self, wanted: Wanted, known: Mapping[str, PortStatus], stale: Iterable[str] | None) -> Changes:
        """What the Port rows should say, as far as that differs from ``known``.

        ``stale`` are the hosts that told something new; None when what is wanted changed, which may concern all.
        """
        names = self._names(known)
        by_identity, contested = self._registrations(wanted.registered, names, known)
        if contested != self._contested:
            self._contested, stale = contested, None  # it may concern a guest on a host that told nothing new
        self._foreign = {identity for identity, (_, spec) in by_identity.items() if not spec.libvirt}
        mtus = wanted.mtus()
        for host in self.hosts if stale is None else stale:
            spec = wanted.hosts.get(host)
            if spec is None or host not in self.hosts:
                self._sightings.pop(host, None)
            else:
                self._sightings[host] = list(self._on_host(host, spec, wanted, mtus, by_identity, names, known))
        shown: dict[Identity, list[Sighting]] = defaultdict(list)
        for host in sorted(self._sightings):
            for identity, status in self._sightings[host]:
                shown[identity].append(Sighting(host, status))
        sightings = {identity: self._plugged(seen) for identity, seen in shown.items()}
        rows = {identity: _registration(identity, by_identity)[0] for identity in sightings}
        before = {identity: known[name] for identity, name in rows.items() if name in known}
        self.places.settle_arrivals(sightings, before, self.hosts)

        def away(host: str) -> bool:
            return self._unheard(host, wanted)

        statuses = {
            rows[identity]: self.places.choose(identity, seen, before.get(identity), self.hosts, away)
            for identity, seen in sightings.items()
        }
        self.places.forget(shown, sightings, away)
        self._grant_claims(statuses, rows, known, wanted)
        # Who was active on a host that cannot be asked now has not left its place: its flows are still there.
        unseen = {
            name: status
            for name, status in known.items()
            if name not in statuses and status.state == "active" and not self._surely_gone(status, wanted)
        }
        together = {**unseen, **statuses}
        keep_apart(together, known, wanted.networks, wanted.registered)
        return self._compare({name: together[name] for name in statuses}, wanted, known)

    def _grant_claims(
        self,
        statuses: dict[str, PortStatus],
        rows: Mapping[Identity, str],
        known: Mapping[str, PortStatus],
        wanted: Wanted,
    ) -> None:
        """Give vNICs that learn their addresses those that they have, in place. A claim that is not granted is over;
        one that is granted stays until the row has it."""
        taken: Taken | None = None  # looked for once somebody claims something
        waiting = {}
        for identity, name in rows.items():
            claims, before = self.claimed.get(identity, ()), known.get(name)
            if not claims and (before is None or not before.learned):
                continue
            registered = wanted.registered.get(name)
            if registered is not None and registered.addresses:
                continue
            if taken is None:
                taken = taken_in(wanted.networks, wanted.registered.values(), wanted.hosts, wanted.floating)
            own = learned(statuses[name], before, claims, wanted.networks, taken)
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
        self._sightings.pop(host, None)

    def _names(self, known: Mapping[str, PortStatus]) -> dict[str, str]:
        """Names of the guests by UUID: as libvirt tells them, or told them before it (or the controller) went away."""
        names = {
            row.vm_uuid: view.reports[interface].vm
            for view in self.hosts.values()
            if view.witness is Witness.HOOK
            for interface, row in view.vnics.items()
            if interface in view.reports and row.vm_uuid is not None
        }
        names |= {uuid: domain.name for view in self.hosts.values() for uuid, domain in view.domains.items()}
        taken = set(names.values())
        for status in known.values():
            untold = status.host is not None and not self._names_guests(status.host)
            if status.vm is not None and (status.vm not in taken or untold):
                names.setdefault(status.vm_uuid, status.vm)
        return names

    def _names_guests(self, host: str) -> bool:
        """Whether the host's libvirt tells now what its guests are called."""
        return host in self.hosts and self.hosts[host].reached and self.hosts[host].witness is Witness.PRESENT

    def _registrations(
        self, registered: Mapping[str, PortSpec], names: Mapping[str, str], known: Mapping[str, PortStatus]
    ) -> tuple[dict[Identity, tuple[str, PortSpec]], dict[str, str]]:
        """By (guest's UUID, MAC), and the UUIDs of those that others of their name could be taken for, by row.

        A name is unique on one host only. Of several guests that a registration could mean it means the one that it
        meant before: whoever is called like another takes nothing from it.
        """
        asked = {spec.vm for spec in registered.values()}
        called: dict[str, list[str]] = defaultdict(list)
        for uuid, guest in names.items():
            if guest in asked:
                called[guest].append(uuid)
        found = {(spec.vm, spec.mac): (name, spec) for name, spec in registered.items()}
        contested: dict[str, str] = {}
        shown: set[Identity | None] | None = None
        for name, spec in registered.items():
            uuids = called.get(spec.vm)
            if not uuids or is_uuid(spec.vm):  # a guest may be called like another's UUID
                continue
            if len(uuids) > 1:
                if shown is None:
                    shown = {_identity(row) for view in self.hosts.values() for row in view.vnics.values()}
                contested[name] = _meant(spec.mac, uuids, known.get(name), shown)
                uuids = [contested[name]]
            for uuid in uuids:
                found.setdefault((uuid, spec.mac), (name, spec))
        return found, contested

    def _on_host(
        self,
        host: str,
        spec: HostSpec,
        wanted: Wanted,
        mtus: Mapping[str, int],
        by_identity: Mapping[Identity, tuple[str, PortSpec]],
        names: Mapping[str, str],
        known: Mapping[str, PortStatus],
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
            name, registered = _registration(identity, by_identity)
            before = known.get(name)
            witness = view.witness
            if vnic is None and witness is Witness.PRESENT and identity[0] in view.asking:
                witness = Witness.AWAY
            socket = (report.socket.network, report.socket.portgroup) if report and report.socket else None
            evidence = Evidence(row, vnic, witness, registered, _confirmed(before, host, row), socket)
            verdict = judge(evidence, spec, wanted.networks, mtus)
            own = registered.addresses if registered is not None else ()
            own += tuple(a for a in wanted.leased.get((verdict.network or "", identity[1]), ()) if a not in own)
            yield identity, _status(identity, host, row, vnic, verdict, own, names, before)
        for uuid, domain in view.domains.items():
            for vnic in domain.vnics:
                if (uuid, vnic.mac) in plugged:
                    continue
                _, registered = _registration((uuid, vnic.mac), by_identity)
                state, reason = unplugged(vnic, spec.bridge, strays(view), registered)
                yield (uuid, vnic.mac), PortStatus(
                    vm_uuid=uuid, vm=domain.name, mac=vnic.mac, host=host, tap=vnic.tap, iface_id=vnic.iface_id,
                    network=vnic.network, portgroup=vnic.portgroup, mtu=vnic.mtu, state=state, reason=reason,
                )  # fmt: skip

    def _compare(self, statuses: Mapping[str, PortStatus], wanted: Wanted, known: Mapping[str, PortStatus]) -> Changes:
        changes = Changes()
        for name, status in statuses.items():
            if known.get(name) != status:
                changes.statuses[name] = status
        for name, status in known.items():
            if name in statuses or not self._surely_gone(status, wanted):
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


def _meant(mac: str, uuids: Sequence[str], before: PortStatus | None, shown: Collection[Identity | None]) -> str:
    """Which of the guests with one name is registered with the MAC. ``shown``: who is plugged in somewhere."""
    if before is not None and before.mac == mac and before.state != "absent" and before.vm_uuid in uuids:
        return before.vm_uuid
    return min(uuids, key=lambda uuid: ((uuid, mac) not in shown, uuid))


def _registration(
    identity: Identity, by_identity: Mapping[Identity, tuple[str, PortSpec]]
) -> tuple[str, PortSpec | None]:
    """Name of the vNIC's row, and its registration."""
    return by_identity.get(identity, (port_name(*identity), None))


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
