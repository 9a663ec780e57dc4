"""The libvirt networks of one host, brought to what the fleet wants, without a running guest noticing.

Driven by level: what is there is read, compared by content, and only what differs is changed. A network that is not
ours (by the owner in its metadata) is never touched, whatever its name.

A running network is never destroyed while a guest is plugged into it: its vNICs would go on, but libvirt would have
forgotten them (measured: ``virsh net-port-list`` is empty afterwards). Port groups are changed in place instead.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import libvirt

from controller.errors import LibvirtError
from topology.network_xml import HostNetworkView, host_network_xml, parse_host_network, portgroup_xml
from topology.xml_reader import shown


@dataclass(frozen=True, slots=True)
class WantedNetwork:
    """A network that should stand on the host; ``default`` is the port group of a vNIC that names none."""

    name: str
    uuid: str
    bridge: str
    portgroups: tuple[str, ...]
    default: str

    def view(self, owner_id: str) -> HostNetworkView:
        """What libvirt shows when all is well: the same on every host, so it is made once."""
        return _wanted_view(self, owner_id)

    def xml(self, owner_id: str) -> str:
        return host_network_xml(self.name, self.uuid, self.bridge, self.portgroups, self.default, owner_id)


@lru_cache(maxsize=4096)
def _wanted_view(want: WantedNetwork, owner_id: str) -> HostNetworkView:
    return parse_host_network(want.xml(owner_id))


@dataclass(frozen=True, slots=True)
class NetworkOnHost:
    """A network as the host has it: running, defined, or both."""

    name: str
    uuid: str
    live: HostNetworkView | None
    """None when it is not active."""
    config: HostNetworkView | None
    """None when it is transient."""
    autostart: bool

    def owned_by(self, owner_id: str) -> bool:
        return any(view is not None and view.owned_by(owner_id) for view in (self.live, self.config))

    @property
    def owner_id(self) -> str | None:
        return next((view.owner_id for view in (self.live, self.config) if view is not None and view.owner_id), None)


@dataclass(slots=True)
class NetworksReport:
    """What a convergence did: names of changed networks with what was done, and of refused ones with the reason."""

    changed: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


Beat = Callable[[], None]


def read_networks(conn: Any, host: str, beat: Beat) -> tuple[tuple[NetworkOnHost, ...], list[LibvirtError]]:
    """All networks by name, and the errors of those that make no sense. Raises libvirtError."""
    autostarted = {net.UUIDString() for net in conn.listAllNetworks(libvirt.VIR_CONNECT_LIST_NETWORKS_AUTOSTART)}
    persistent = {net.UUIDString() for net in conn.listAllNetworks(libvirt.VIR_CONNECT_LIST_NETWORKS_PERSISTENT)}
    active = {net.UUIDString() for net in conn.listAllNetworks(libvirt.VIR_CONNECT_LIST_NETWORKS_ACTIVE)}
    found: list[NetworkOnHost] = []
    errors: list[LibvirtError] = []
    for net in conn.listAllNetworks(0):
        beat()
        uuid = net.UUIDString()
        try:
            found.append(_read(net, host, uuid in active, uuid in persistent, uuid in autostarted))
        except LibvirtError as error:
            errors.append(error)
        except UnicodeError:  # of libvirt-python, which makes a str of what it got
            errors.append(LibvirtError("its name or XML is not UTF-8", where=f"host {host}, network {uuid}"))
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_NETWORK:
                raise
    return tuple(sorted(found, key=lambda network: network.name)), errors


def _read(net: Any, host: str, active: bool, persistent: bool, autostart: bool) -> NetworkOnHost:
    live = parse_host_network(net.XMLDesc(0), host) if active else None
    config = parse_host_network(config_xml(net), host) if persistent else None
    name, uuid, view = net.name(), net.UUIDString(), live or config
    if view is not None and (view.name, view.uuid) == (name, uuid):
        name, uuid = view.name, view.uuid  # which all hosts share
    return NetworkOnHost(name, uuid, live, config, autostart)


def config_xml(net: Any) -> str:
    """A persistent network as it is defined. Raises libvirtError, UnicodeError."""
    try:
        return str(net.XMLDesc(libvirt.VIR_NETWORK_XML_INACTIVE))
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_INVALID_ARG:
            raise
        return str(net.XMLDesc(0))  # libvirt's test driver has one definition only


def converge(
    conn: Any,
    wanted: Collection[WantedNetwork],
    owner_id: str,
    present: Collection[NetworkOnHost],
    plugged: Collection[str],
    beat: Beat,
) -> NetworksReport:
    """Makes ``present`` (as read just now) what is ``wanted``. ``plugged`` are the networks that running guests' vNICs
    name. What libvirt refuses for one network concerns that network alone; a lost connection raises libvirtError."""
    report = NetworksReport()
    names = {want.name for want in wanted}
    for network in present:
        if network.owned_by(owner_id) and network.name not in names:
            _each(conn, network.name, report, partial(_remove, conn, network, plugged))
            beat()
    by_name = {network.name: network for network in present}
    foreign = {network.uuid: network for network in present if not network.owned_by(owner_id)}
    for want in wanted:
        found = by_name.get(want.name)
        if found is None or found.uuid != want.uuid:
            found = foreign.get(want.uuid, found)
        if found is not None and not found.owned_by(owner_id):
            report.refused[want.name] = _not_ours(want, found)
            continue
        _each(conn, want.name, report, partial(_bring, conn, want, owner_id, found, plugged))
        beat()
    return report


def verify(
    wanted: Collection[WantedNetwork], owner_id: str, present: Collection[NetworkOnHost], report: NetworksReport
) -> None:
    """Adds to ``report.refused`` what ``present``, read after a convergence, still shows otherwise than wanted."""
    by_name = {network.name: network for network in present}
    for want in wanted:
        if want.name not in report.refused and not _settled(by_name.get(want.name), want, owner_id):
            report.refused[want.name] = "this libvirtd shows it otherwise than it was defined: virsh net-dumpxml there"


def _settled(network: NetworkOnHost | None, want: WantedNetwork, owner_id: str) -> bool:
    if network is None or network.live is None or network.config is None or not network.autostart:
        return False
    digest = want.view(owner_id).digest
    return network.live.digest == digest and network.config.digest == digest


def _not_ours(want: WantedNetwork, found: NetworkOnHost) -> str:
    whose = f"belongs to another fleetswitch ({found.owner_id})" if found.owner_id else "is not fleetswitch's"
    same = "name" if found.name == want.name else "UUID"
    return (
        f"the host has a network {found.name} ({found.uuid}) of the same {same} that {whose}: "
        f"rename one of them, or remove it there with virsh net-destroy {found.name}; virsh net-undefine {found.name}"
    )


class _Refused(Exception):
    """Its text is the reason, with the remedy."""


def _each(conn: Any, name: str, report: NetworksReport, work: Callable[[list[str]], None]) -> None:
    done: list[str] = []
    try:
        work(done)
    except _Refused as refused:
        report.refused[name] = str(refused)
    except libvirt.libvirtError as error:
        if not conn.isAlive():
            raise
        report.refused[name] = f"libvirt: {shown(str(error), 300)}"
    if done:
        report.changed[name] = ", ".join(done)


def _bring(
    conn: Any,
    want: WantedNetwork,
    owner_id: str,
    found: NetworkOnHost | None,
    plugged: Collection[str],
    done: list[str],
) -> None:
    if found is not None and found.uuid != want.uuid:
        _remove(conn, found, plugged, done)  # ours, of a former network of that name
        found = None
    target = want.view(owner_id)
    if found is not None and found.config is not None and found.config.digest == target.digest:
        net = conn.networkLookupByUUIDString(found.uuid)
    else:
        net = conn.networkDefineXML(want.xml(owner_id))
        done.append("defined" if found is None or found.config is None else "redefined")
    if found is None or not found.autostart:
        net.setAutostart(1)
        done.append("set to autostart")
    if found is None or found.live is None:
        net.create()
        done.append("started")
    elif found.live.base_digest != target.base_digest:
        if _in_use(found, plugged):
            raise _Refused(
                "running guests are plugged into it, and what differs (bridge, forward mode, metadata) changes only "
                "when it is started anew: that is done when they have gone"
            )
        net.destroy()
        net.create()
        done.append("started anew")
    elif found.live.digest != target.digest:
        _update_portgroups(net, want, found.live, target)
        done.append("port groups updated")


def _update_portgroups(net: Any, want: WantedNetwork, live: HostNetworkView, target: HostNetworkView) -> None:
    """virNetworkUpdate refuses a second default, so the former one gives it up before another one takes it."""
    has = {group.name: group for group in live.portgroups}
    should = {group.name: group for group in target.portgroups}
    modify = [name for name, group in should.items() if name in has and has[name].digest != group.digest]
    changes = [(libvirt.VIR_NETWORK_UPDATE_COMMAND_DELETE, name, False) for name in has if name not in should]
    changes += [
        (libvirt.VIR_NETWORK_UPDATE_COMMAND_MODIFY, name, should[name].default)
        for name in sorted(modify, key=lambda name: should[name].default)
    ]
    changes += [
        (libvirt.VIR_NETWORK_UPDATE_COMMAND_ADD_LAST, name, group.default)
        for name, group in should.items()
        if name not in has
    ]
    for command, name, default in changes:
        net.update(
            command,
            libvirt.VIR_NETWORK_SECTION_PORTGROUP,
            -1,
            portgroup_xml(want.name, name, default),
            libvirt.VIR_NETWORK_UPDATE_AFFECT_LIVE,
        )


def _remove(conn: Any, network: NetworkOnHost, plugged: Collection[str], done: list[str]) -> None:
    net = conn.networkLookupByUUIDString(network.uuid)
    keep = network.live is not None and _in_use(network, plugged)
    if network.live is not None and not keep:
        net.destroy()
        done.append("stopped")
    if network.config is not None:
        net.undefine()
        done.append("undefined")
    if keep:
        raise _Refused("running guests are still plugged into it: it is stopped when they have gone")


def _in_use(network: NetworkOnHost, plugged: Collection[str]) -> bool:
    return network.name in plugged or (network.live is not None and network.live.connections > 0)
