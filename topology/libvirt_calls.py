"""What is asked of one libvirtd: each function blocks, and runs in a thread of the host's lane.

libvirt's exceptions end here: out of this module come values and LibvirtError.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import libvirt

from controller.errors import LibvirtError
from topology import libvirt_events as events
from topology.domain_xml import DomainView, parse_domain
from topology.host_networks import (
    NetworkOnHost,
    NetworksReport,
    WantedNetwork,
    config_xml,
    converge,
    read_networks,
    verify,
)
from topology.xml_reader import read_xml, shown, text_value

log = logging.getLogger(__name__)

Beat = Callable[[], None]

KEEPALIVE_INTERVAL = 2
"""Seconds. With KEEPALIVE_COUNT 3 a dead peer is noticed after 8.03 s (measured)."""
KEEPALIVE_COUNT = 3


@dataclass(frozen=True, slots=True)
class HostInfo:
    """One libvirtd and its host."""

    libvirt_version: str
    hypervisor: str
    """``QEMU 7.2.22``."""
    hostname: str
    uuid: str
    """The host's, from its capabilities: two Hosts with the same one are the same libvirtd, or cloned machines."""
    encrypted: bool


@dataclass(slots=True)
class Callbacks:
    """Called in libvirt's event thread: they must post and return."""

    domain: Callable[[str, str], None]
    """UUID, event."""
    network: Callable[[str, str], None]
    """Name, event."""
    closed: Callable[[str], None]
    """Reason."""


@dataclass(slots=True)
class Connection:
    """An open one, with what must be taken off it before it is closed."""

    conn: Any
    domain_callbacks: list[int]
    network_callbacks: list[int]
    read: dict[str, tuple[bytes, DomainView]] = field(default_factory=dict)
    """Of each running domain a digest of its XML and what it says: what has not changed is not parsed again."""
    version: str = ""
    """Of libvirt there."""


@contextlib.contextmanager
def refusals(where: str, what: str) -> Iterator[None]:
    """libvirt's errors within become LibvirtError at ``where``."""
    try:
        yield
    except libvirt.libvirtError as error:
        raise refusal(error, where, what) from None


def refusal(error: libvirt.libvirtError, where: str, what: str) -> LibvirtError:
    remedies = {
        libvirt.VIR_ERR_AUTH_FAILED: "with qemu+tls both sides need certificates of one authority; "
        "else the user who runs fleetswitch needs access: auth_* in libvirtd.conf there",
        libvirt.VIR_ERR_AUTH_UNAVAILABLE: "polkit does not run there: auth_unix_rw = 'none' with a socket group",
        libvirt.VIR_ERR_SYSTEM_ERROR: "is libvirtd running there, and its port open?",
        libvirt.VIR_ERR_OPERATION_DENIED: "the connection is read-only: use the read-write socket",
    }
    text = f"{what}: {shown(str(error), 300)}"  # libvirt passes on what a hook or the peer said
    return LibvirtError(text, where=where, remedy=remedies.get(error.get_error_code(), ""))


def open_connection(uri: str, where: str, callbacks: Callbacks) -> Connection:
    """Opens ``uri``, with keepalive and all events. May block for minutes: see the lane."""
    with refusals(where, f"cannot connect to {uri}"):
        conn = libvirt.open(uri)
    connection = Connection(conn, [], [])
    try:
        # the test driver has neither: it cannot die
        with contextlib.suppress(libvirt.libvirtError):
            conn.setKeepAlive(KEEPALIVE_INTERVAL, KEEPALIVE_COUNT)
        with contextlib.suppress(libvirt.libvirtError):
            conn.registerCloseCallback(_closed, callbacks)
        with contextlib.suppress(libvirt.libvirtError):
            connection.version = _version(conn.getLibVersion())
        _register(connection, callbacks, where)
    except BaseException:
        close_connection(connection)
        raise
    return connection


def close_connection(connection: Connection) -> None:
    """A registered callback keeps the connection alive past its close, so they go first. A dead one raises nothing."""
    conn = connection.conn
    for number in connection.domain_callbacks:
        with contextlib.suppress(libvirt.libvirtError):
            conn.domainEventDeregisterAny(number)
    for number in connection.network_callbacks:
        with contextlib.suppress(libvirt.libvirtError):
            conn.networkEventDeregisterAny(number)
    with contextlib.suppress(libvirt.libvirtError):
        conn.unregisterCloseCallback()
    with contextlib.suppress(libvirt.libvirtError):
        conn.close()


def is_alive(connection: Connection) -> bool:
    """Whether the transport stands. Asks nobody."""
    try:
        return bool(connection.conn.isAlive())
    except libvirt.libvirtError:
        return False


def list_domains(
    connection: Connection, host: str, beat: Beat
) -> tuple[dict[str, DomainView], dict[str, LibvirtError]]:
    """Every running or paused domain by UUID, and the errors of those whose XML makes no sense, by UUID too."""
    where = f"host {host}"
    with refusals(where, "cannot list its domains"):
        domains = connection.conn.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
    views: dict[str, DomainView] = {}
    errors: dict[str, LibvirtError] = {}
    for domain in domains:
        beat()
        try:
            view = _read(connection, domain, host)
        except LibvirtError as error:
            if not is_alive(connection):
                raise
            errors[domain.UUIDString()] = error
            continue
        if view is not None:
            views[view.uuid] = view
    connection.read = {uuid: known for uuid, known in connection.read.items() if uuid in views}
    return views, errors


def read_domain(connection: Connection, uuid: str, host: str) -> DomainView | None:
    """One domain, None when it does not run there."""
    try:
        domain = connection.conn.lookupByUUIDString(uuid)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise refusal(error, f"host {host}", f"cannot look up domain {uuid}") from None
    return _read(connection, domain, host)


def standing_networks(connection: Connection, host: str) -> bytes:
    """A digest of which networks are defined, run and start by themselves: one question, whatever their number."""
    flags = (
        libvirt.VIR_CONNECT_LIST_NETWORKS_ACTIVE
        | libvirt.VIR_CONNECT_LIST_NETWORKS_PERSISTENT
        | libvirt.VIR_CONNECT_LIST_NETWORKS_AUTOSTART
    )
    with refusals(f"host {host}", "cannot list its networks"):
        found = sorted(network.UUID() for network in connection.conn.listAllNetworks(flags))
    return hashlib.blake2b(b"".join(found), digest_size=16).digest()


def list_networks(
    connection: Connection, host: str, beat: Beat
) -> tuple[tuple[NetworkOnHost, ...], list[LibvirtError]]:
    """Every network, and the errors of those whose XML makes no sense."""
    with refusals(f"host {host}", "cannot list its networks"):
        return read_networks(connection.conn, host, beat)


def network_xml(connection: Connection, name: str, host: str) -> str | None:
    """The XML of a network as it is defined, ours or anybody's; None when there is none of the name."""
    where = f"host {host}, network {shown(name)}"
    try:
        network = connection.conn.networkLookupByName(name)
        return config_xml(network) if network.isPersistent() else str(network.XMLDesc(0))
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_NETWORK:
            return None
        raise refusal(error, where, "cannot read it") from None
    except UnicodeError:  # of libvirt-python, which makes a str of what it got
        raise LibvirtError("its XML is not UTF-8", where=where) from None


def converge_networks(
    connection: Connection,
    host: str,
    wanted: Sequence[WantedNetwork],
    owner_id: str,
    plugged: Collection[str],
    beat: Beat,
) -> tuple[NetworksReport, tuple[NetworkOnHost, ...], list[LibvirtError]]:
    """Reads, changes what differs, and reads again: the report, and the networks as they are now."""
    with refusals(f"host {host}", "cannot bring its networks up to date"):
        present, errors = read_networks(connection.conn, host, beat)
        report = converge(connection.conn, wanted, owner_id, present, plugged, beat)
        if report.changed:
            present, errors = read_networks(connection.conn, host, beat)
        verify(wanted, owner_id, present, report)
        return report, present, errors


def host_info(connection: Connection, host: str) -> HostInfo:
    """Static facts of the host and its libvirtd."""
    conn, where = connection.conn, f"host {host}"
    with refusals(where, "cannot tell what it is"):
        capabilities = read_xml(conn.getCapabilities(), "capabilities", f"{where}, capabilities")
        return HostInfo(
            libvirt_version=_version(conn.getLibVersion()),
            hypervisor=f"{conn.getType()} {_version(conn.getVersion())}",
            hostname=text_value(conn.getHostname(), "hostname", where) or "",
            uuid=text_value(capabilities.findtext("host/uuid"), "uuid", where) or "",
            encrypted=bool(conn.isEncrypted()),
        )


def _read(connection: Connection, domain: Any, host: str) -> DomainView | None:
    try:
        xml = domain.XMLDesc(0)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None  # it stopped since it was listed
        raise refusal(error, f"host {host}", f"cannot read domain {domain.UUIDString()}") from None
    except UnicodeError:  # of libvirt-python, which makes a str of what it got
        raise LibvirtError("its XML is not UTF-8", where=f"host {host}, domain {domain.UUIDString()}") from None
    digest = hashlib.blake2b(xml.encode("utf-8", "replace"), digest_size=16).digest()
    uuid = domain.UUIDString()
    known = connection.read.get(uuid)
    if known is not None and known[0] == digest:
        return known[1]
    view = parse_domain(xml, host)
    if view.uuid != uuid.lower():
        raise LibvirtError(f"its XML says that it is {view.uuid}", where=f"host {host}, domain {uuid}")
    if not view.live:
        return None
    connection.read[uuid] = (digest, view)
    return view


def _version(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def _register(connection: Connection, callbacks: Callbacks, where: str) -> None:
    """Lifecycle is needed; the other events are there or not, by the age of libvirt: the glance covers for them."""
    conn = connection.conn
    with refusals(where, "refuses its events"):
        connection.domain_callbacks.append(
            conn.domainEventRegisterAny(None, events.LIFECYCLE, _domain_lifecycle, callbacks)
        )
        connection.network_callbacks.append(
            conn.networkEventRegisterAny(None, events.NETWORK_LIFECYCLE, _network_lifecycle, callbacks)
        )
    optional: Sequence[tuple[int, Callable[..., None]]] = (
        (events.DEVICE_ADDED, _device_added),
        (events.DEVICE_REMOVED, _device_removed),
        (events.DEVICE_REMOVAL_FAILED, _device_removal_failed),
        (events.METADATA_CHANGE, _metadata_change),
    )
    for event, callback in optional:
        try:
            number = conn.domainEventRegisterAny(None, event, callback, callbacks)
        except libvirt.libvirtError as error:
            log.info("%s: has no domain event %d: %s", where, event, error)
        else:
            connection.domain_callbacks.append(number)


def _domain_lifecycle(_conn: Any, domain: Any, event: int, detail: int, callbacks: Callbacks) -> None:
    callbacks.domain(domain.UUIDString(), events.domain_event_name(event, detail))


def _device_added(_conn: Any, domain: Any, alias: str, callbacks: Callbacks) -> None:
    callbacks.domain(domain.UUIDString(), f"device-added/{shown(alias)}")


def _device_removed(_conn: Any, domain: Any, alias: str, callbacks: Callbacks) -> None:
    callbacks.domain(domain.UUIDString(), f"device-removed/{shown(alias)}")


def _device_removal_failed(_conn: Any, domain: Any, alias: str, callbacks: Callbacks) -> None:
    callbacks.domain(domain.UUIDString(), f"device-removal-failed/{shown(alias)}")


def _metadata_change(_conn: Any, domain: Any, kind: int, uri: str | None, callbacks: Callbacks) -> None:
    callbacks.domain(domain.UUIDString(), f"metadata-changed/{shown(uri or str(kind))}")


def _network_lifecycle(_conn: Any, network: Any, event: int, _detail: int, callbacks: Callbacks) -> None:
    try:
        name = network.name()
    except UnicodeError:
        name = network.UUIDString()
    callbacks.network(name, events.network_event_name(event))


def _closed(_conn: Any, reason: int, callbacks: Callbacks) -> None:
    callbacks.closed(events.close_reason(reason))
