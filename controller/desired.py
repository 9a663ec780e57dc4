"""The store's rows as typed values: what is wanted, and what was observed of ports."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from pydantic import ValidationError

from controller.addresses import Addresses
from controller.errors import InvalidInput
from controller.leases import Leases
from controller.model.bgp import BgpPeerSpec
from controller.model.documents import read_spec
from controller.model.floating import FloatingIPSpec
from controller.model.forward import PortForwardSpec
from controller.model.host import HostSpec, HostStatus
from controller.model.kinds import KINDS, Fleet
from controller.model.lease import Lease
from controller.model.network import NetworkSpec
from controller.model.port import PortSpec, PortStatus
from controller.pipeline.ports import uplink_port
from controller.rows import Rows
from controller.store.rows import Change, Row
from controller.store.store import Store

log = logging.getLogger(__name__)

_REGISTERED, _LEARNED = 0, 1  # what the operator says goes before what was seen
HOSTS, PHYSICAL_NETWORKS, SEGMENTS = "host", "physical_network", "segment"
NAT_ADDRESSES = "nat_address"
LEASES = "DhcpLease"  # a kind of rows that nobody writes but the DHCP server


class Desired:
    """Kept current from the store's changes. A row that makes no sense is left out, with a line in the log."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.sequence = 0  # counts changes of rows
        self.hosts: dict[str, HostSpec] = {}
        self.leaving: dict[str, HostSpec] = {}  # hosts that are to be let go of once they are cleaned
        self.networks: dict[str, NetworkSpec] = {}
        self.registered: dict[str, PortSpec] = {}
        self.forwards: dict[str, PortForwardSpec] = {}
        self.bgp_peers: dict[str, BgpPeerSpec] = {}
        self.floating: dict[str, FloatingIPSpec] = {}
        self.statuses: dict[str, PortStatus] = {}
        self._at: dict[tuple[str, int], set[str]] = {}  # Ports whose rows say that they are there
        self._senseless: dict[tuple[str, str], str] = {}
        self.leases: dict[str, Leases] = {}  # by network
        self.addresses = Addresses()  # of vNICs, otherwise than by DHCP
        self.strays: dict[str, dict[str, int]] = {}  # interfaces of nobody, by host, with their OpenFlow ports

    def load(self) -> None:
        """Take in everything that the store has."""
        for kind in (*KINDS, LEASES):
            for name, row in self._store.rows(kind).items():
                self._put(kind, name, row)
        self.sequence = 1

    def take(self, changes: Iterable[Change]) -> set[tuple[str, str]]:
        """Take in what changed; returns (kind, name) of it."""
        found = {(change.kind, change.name) for change in changes if change.kind in KINDS}
        for change in changes:
            if change.kind in KINDS or change.kind == LEASES:
                self._put(change.kind, change.name, change.new)
        self.sequence += 1
        return found

    def fleet(self) -> Fleet:
        """A copy of all specs, to try a change on."""
        return Fleet(dict(self.hosts), dict(self.networks), dict(self.registered), dict(self.forwards),
                     dict(self.floating), dict(self.bgp_peers))  # fmt: skip

    def rows(self) -> Rows:
        """What the fabric is made of. Host numbers and the like stay as they are for the fleet's life."""
        uplinks = {name: uplink_port(number) for name, number in self.numbers(PHYSICAL_NETWORKS).items()}
        return Rows(
            self.hosts, self.networks, self.statuses, self.numbers(HOSTS), self.numbers(SEGMENTS), uplinks,
            self.registered, self.strays, self.forwards, self.floating, self.numbers(NAT_ADDRESSES),
        )  # fmt: skip

    def numbers(self, pool: str) -> Mapping[str, int]:
        return self._store.numbers(pool)

    @property
    def left_out(self) -> set[tuple[str, str]]:
        """Kind and name of all objects that are left out because of what stands in their rows."""
        return set(self._senseless)

    def senseless(self, kind: str) -> Mapping[str, str]:
        """Objects of a kind that are left out because of what stands in their rows: name → why."""
        return {name: why for (its_kind, name), why in self._senseless.items() if its_kind == kind}

    def names_ports_of(self, host: str) -> bool:
        """Whether a row says that a vNIC has an OpenFlow port of this host, or will have when it has moved there."""
        return any(
            (status.host == host and status.ofport is not None)
            or (status.incoming is not None and status.incoming.host == host)
            for status in self.statuses.values()
        )

    def vnic_at(self, host: str, ofport: int) -> tuple[str, PortStatus] | None:
        """Name and status of the vNIC that is switched at an OpenFlow port of a host."""
        found = ((name, self.statuses[name]) for name in sorted(self._at.get((host, ofport), ())))
        return next(((name, status) for name, status in found if status.state == "active"), None)

    def _put_status(self, name: str, status: PortStatus | None) -> None:
        old = self.statuses.pop(name, None)
        if old is not None and old.host is not None and old.ofport is not None:
            here = self._at[old.host, old.ofport]
            here.discard(name)
            if not here:
                del self._at[old.host, old.ofport]
        self.addresses.drop(name, _LEARNED)
        if status is not None:
            self.statuses[name] = status
            if status.network is not None:
                self.addresses.put(name, _LEARNED, status.network, status.mac, status.learned)
            if status.host is not None and status.ofport is not None:
                self._at.setdefault((status.host, status.ofport), set()).add(name)

    def _put_lease(self, name: str, row: Row | None) -> None:
        network, _, address = name.partition("/")
        if (known := self.leases.get(network)) is not None:
            known.pop(address, None)
        if row is not None:
            try:
                self.leases.setdefault(network, Leases())[address] = Lease.model_validate(row.spec)
            except ValidationError as error:
                log.error("%s %s in the store is left out: %s", LEASES, name, error)

    def _put(self, kind: str, name: str, row: Row | None) -> None:
        if kind == LEASES:
            self._put_lease(name, row)
            return
        match kind:
            case "Host":
                self.hosts.pop(name, None)
                self.leaving.pop(name, None)
                self.strays.pop(name, None)
            case "Network":
                self.networks.pop(name, None)
            case "Port":
                self.registered.pop(name, None)
                self.addresses.drop(name, _REGISTERED)
                self._put_status(name, None)
            case "PortForward":
                self.forwards.pop(name, None)
            case "BgpPeer":
                self.bgp_peers.pop(name, None)
            case "FloatingIP":
                self.floating.pop(name, None)
        self._senseless.pop((kind, name), None)
        if row is None:
            return
        try:
            spec = read_spec(kind, name, row.spec) if row.spec else None
            if kind == "Port" and row.status:
                self._put_status(name, PortStatus.model_validate(row.status))
            elif kind == "Host" and row.status:
                self.strays[name] = HostStatus.model_validate(row.status).strays
        except (InvalidInput, ValidationError) as error:
            log.error("%s %s in the store is left out: %s", kind, name, error)
            self._senseless[kind, name] = f"its row makes no sense, and is left out: {error}"
            return
        match spec:
            case HostSpec():
                (self.leaving if row.deleting else self.hosts)[name] = spec
            case NetworkSpec():
                self.networks[name] = spec
            case PortSpec():
                self.registered[name] = spec
                self.addresses.put(name, _REGISTERED, spec.network, spec.mac, spec.addresses)
            case PortForwardSpec():
                self.forwards[name] = spec
            case BgpPeerSpec():
                self.bgp_peers[name] = spec
            case FloatingIPSpec():
                self.floating[name] = spec
