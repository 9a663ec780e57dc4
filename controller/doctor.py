"""What is wrong in the fleet, where, and what to type: from what the controller knows, without asking any host.

So it is quick however large the fleet is, and tells of hosts that do not answer as well as of those that do.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence, Set
from itertools import groupby
from operator import attrgetter

from controller.agent import HostAgent
from controller.api.operations import Finding
from controller.coordinator import Coordinator
from controller.desired import Desired
from controller.forwards import floating_status
from controller.history import Event, EventFilter, rfc3339
from controller.model.host import HostSpec
from controller.model.kinds import KINDS, network_mtu
from controller.model.port import PortStatus
from topology.guests import strays
from topology.hook_reports import hook_status

_DRIFT_SECONDS = 3600.0
_NAME = attrgetter("name")
_SEVERITIES = ("error", "warning", "info")

_REMEDIES: Sequence[tuple[str, str, str]] = (
    ("", "certificate", "see its validity and the clocks: openssl x509 -dates; timedatectl on both"),
    ("ovsdb", "refused", "on {host}: ovs-vsctl set-manager {manager}"),
    ("ovsdb", "exists and is not", "name another bridge in the Host, or hand it over as the reason says"),
    ("ovsdb", "does ovs-vswitchd run", "on {host}: systemctl status ovs-vswitchd"),
    ("ovsdb", "does not stay", "on {host}: find what else writes there: ovsdb-client monitor Open_vSwitch"),
    ("openflow", "waits for the host's OVSDB", "mend its OVSDB connection"),
    ("openflow", "obeys another", "end the other controller: on {host}: ovs-vsctl get-controller {bridge}"),
    ("openflow", "refuses", "fleetswitch flows {host} --missing"),
    (
        "openflow",
        "",
        "on {host}: ovs-vsctl get-controller {bridge}; may it reach that address? fleetswitch host unknown",
    ),
    ("libvirt", "network ", "on {host}: virsh net-list --all; the reason says which one is in the way"),
    ("libvirt", "", "on {host}: systemctl status libvirtd"),
    ("ovsdb", "", "on {host}: systemctl status ovsdb-server; may it be reached from here?"),
)
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
# The first releases that are mended, by series (CVE-2023-1668: one packet of IP protocol 0 misleads those after it).
_MENDED = {(2, 17): 6, (3, 0): 4, (3, 1): 1}
_TESTED = (3, 1)


async def examine(coordinator: Coordinator, host: str | None) -> list[Finding]:
    """Everything that is to be told, the worst first; of one host, or of the whole fleet when it is None. All of one
    moment: 400 hosts take some 10 ms."""
    since = time.time() - _DRIFT_SECONDS
    drifts = coordinator.history.find(EventFilter(kind="Host", event="drift", host=host or "", since=since)).events
    found = [_drift(name, list(group)) for name, group in groupby(sorted(drifts, key=_NAME), _NAME)]
    if host is None:
        found += [*_store(coordinator), *_fleet(coordinator), *_underlay(coordinator.desired), *_versions(coordinator)]
        found += _routers(coordinator)
    carried: dict[str | None, set[str]] = defaultdict(set)
    for status in coordinator.desired.statuses.values():
        if status.network is not None:
            carried[status.host].add(status.network)
    for name, why in coordinator.driver.undriven.items():
        if host in {None, name}:
            remedy = f"apply it again, or fleetswitch host remove {name}"
            found.append(Finding("error", "host", f"Host {name}", why, remedy, name))
    for name, agent in sorted(coordinator.agents.items()):
        if host in {None, name}:
            found += [*_host(coordinator, agent), *_tunnels(coordinator, name, agent.spec, carried[name])]
            found += _outside(coordinator, name, carried[name])
    found += _excess(coordinator, host)
    ports = [(name, status) for name, status in coordinator.desired.statuses.items() if host in {None, status.host}]
    for name, status in sorted(ports):
        found += _vnic(name, status)
    if host is not None:
        found += [_clock(f"Host {host}", host)]
    elif coordinator.agents:
        found.append(_clock("hosts", None))
    return sorted(found, key=lambda finding: (_SEVERITIES.index(finding.severity), finding.place))


def _clock(place: str, host: str | None) -> Finding:
    what = "skew of the clocks is unknown: neither OVSDB nor OpenFlow nor libvirt tells a host's time"
    return Finding("info", "clock", place, what, "on the host: timedatectl timesync-status", host)


# The controller and the fleet.


def _store(coordinator: Coordinator) -> Iterator[Finding]:
    store = coordinator.store
    if not store.is_up:
        why = store.state.error or store.state.doing if store.state is not None else "not started"
        yield Finding("error", "store", "store", f"is away: {why}; what is on the hosts goes on",
                      "see that its ovsdb-server runs")  # fmt: skip
    for problem in store.problems():
        yield Finding("error", "store", f"{problem.table} {problem.name}", f"its row is skipped: {problem.what}",
                      f"apply it again: fleetswitch get {problem.table.lower()} {problem.name} -o yaml")  # fmt: skip
    for kind in KINDS:
        for name, why in coordinator.desired.senseless(kind).items():
            if kind != "Host":
                yield Finding("error", "store", f"{kind} {name}", why, "apply it again, or delete it")
    for why in sorted(coordinator.engine.faults.values()):
        yield Finding("error", "flows", "engine", f"flows could not be computed: {why}", "please report it")


def _fleet(coordinator: Coordinator) -> Iterator[Finding]:
    """What does not hold between objects, duplicate tunnel addresses among it, and who pretends to be a host."""
    desired = coordinator.desired
    for problem in desired.fleet().problems():
        yield Finding("error", "fleet", problem.where, problem.what, problem.remedy)
    for stranger in coordinator.admission.strangers():
        if stranger.host is not None:
            yield Finding("warning", "switch", f"Host {stranger.host}", f"a switch at {stranger.address} that claims "
                          f"to be it was turned away {stranger.count} times: {stranger.reason}", stranger.remedy,
                          stranger.host)  # fmt: skip
    reader = coordinator.engine.fabric.reader()
    for view in reader.floating_ips():
        if reason := floating_status(view, reader)["reason"]:
            yield Finding("warning", "outside", f"FloatingIP {view.name}", f"nobody answers for {view.address}: "
                          f"{reason}", f"fleetswitch describe floatingip {view.name}")  # fmt: skip


def _underlay(desired: Desired) -> Iterator[Finding]:
    """What does not fit together between hosts: MTUs, address families, wires."""
    mtus: dict[int, list[str]] = defaultdict(list)
    for name, spec in desired.hosts.items():
        if spec.tunnel_ip is not None:
            mtus[spec.overlay_mtu()].append(name)
    if len(mtus) > 1:
        least = min(mtus)
        yield Finding("warning", "mtu", f"Host {_some(mtus[least])}", f"lets {least} bytes through its tunnels, others "
                      f"{max(mtus)}: every network over tunnels is held to {least}",
                      "raise its MTU and underlay_mtu, or live with it")  # fmt: skip
    families: dict[str, list[str]] = defaultdict(list)
    for name, spec in desired.hosts.items():
        if spec.tunnel_ip is not None:
            families["IPv6" if ":" in spec.tunnel_ip else "IPv4"].append(name)
    if len(families) > 1:
        few, many = sorted(families, key=lambda family: len(families[family]))
        yield Finding("error", "tunnel", f"Host {_some(families[few])}", f"has a tunnel address of {few}, others of "
                      f"{many}: frames between them come from addresses that are no host's, and are dropped",
                      "give all hosts a tunnel_ip of one family")  # fmt: skip
    wires = {physical for spec in desired.hosts.values() for physical in spec.uplinks}
    for name, network in sorted(desired.networks.items()):
        if network.physical_network is not None and network.physical_network not in wires:
            yield Finding("warning", "network", f"Network {name}", f"no host has an uplink to "
                          f"{network.physical_network}", "add it to the uplinks of the hosts")  # fmt: skip


def _routers(coordinator: Coordinator) -> Iterator[Finding]:
    """Routers outside that do not get the fleet's routes, or would drop them with the controller."""
    outsides = {spec.external.uplink for spec in coordinator.desired.hosts.values() if spec.external is not None}
    for name, peer in sorted(coordinator.bgp.peers.items()):
        place, uplink = f"BgpPeer {name}", peer.spec.uplink
        if peer.state != "established" and peer.reason:
            yield Finding(
                "error",
                "bgp",
                place,
                f"is not established: {peer.reason}",
                f"is {peer.spec.address} reached from here, and has it this machine as a neighbour?",
            )
        if peer.router is not None and peer.state == "established" and peer.router.restart_time is None:
            yield Finding("warning", "bgp", place, "takes no part in graceful restart: its routes go when the "
                          "controller does", "switch it on there: docs/features/bgp.md")  # fmt: skip
        if not outsides or uplink not in {None, *outsides}:
            where = f" on {uplink}" if uplink is not None else ""
            yield Finding("warning", "bgp", place, f"no host has an external address{where}: nothing is announced",
                          "add external to the hosts")  # fmt: skip


def _versions(coordinator: Coordinator) -> Iterator[Finding]:
    """Versions that are known to be bad, once for all hosts that have them."""
    ovs: dict[str, list[str]] = defaultdict(list)
    libvirt: dict[str, list[str]] = defaultdict(list)
    for name, agent in sorted(coordinator.agents.items()):
        if version := agent.ovsdb.state.ovs_version:
            ovs[version].append(name)
        if agent.libvirt is not None and agent.libvirt.version:
            libvirt[agent.libvirt.version].append(name)
    for version, hosts in ovs.items():
        for what, remedy in _about_ovs(version):
            yield Finding("info", "version", f"Host {_some(hosts)}", what, remedy)
    for version, hosts in libvirt.items():
        if version.startswith("9.0."):
            yield Finding("info", "version", f"Host {_some(hosts)}", f"libvirt {version} refuses to change the link or "
                          "the portgroup of a running vNIC", "see troubleshooting: what works instead")  # fmt: skip
    if len(ovs) > 1:
        text = ", ".join(f"{version} on {len(hosts)}" for version, hosts in sorted(ovs.items()))
        yield Finding("info", "version", "hosts", f"have several versions of Open vSwitch: {text}",
                      "update those that are behind when it suits")  # fmt: skip


def _about_ovs(version: str) -> Iterator[tuple[str, str]]:
    found = _VERSION.match(version)
    if found is None:
        return
    series, patch = (int(found[1]), int(found[2])), int(found[3])
    if series < _TESTED:
        yield (
            f"Open vSwitch {version} is older than {_TESTED[0]}.{_TESTED[1]}, with which fleetswitch is tested",
            ("update it when it suits"),
        )
    if series < (2, 17) or patch < _MENDED.get(series, 0):
        yield (f"Open vSwitch {version} has CVE-2023-1668 unless its distribution mended it: a guest's packet of IP "
               "protocol 0 misleads those of others", "update it")  # fmt: skip


# One host.


def _host(coordinator: Coordinator, agent: HostAgent) -> Iterator[Finding]:
    name, spec, view = agent.name, agent.spec, coordinator.guests.hosts.get(agent.name)
    place = f"Host {name}"
    yield from _connections(agent)
    if name in coordinator.desired.leaving:
        yield Finding("warning", "host", place, "is being taken out, and is not clean yet",
                      f"fleetswitch host remove {name} --force gives it up as it is", name)  # fmt: skip
    for interface, link in sorted(agent.ovsdb.links().items()):
        if link != "up":
            yield Finding("error", "uplink", f"{place}: {interface}", f"its link is {link}",
                          f"on {name}: ip link show {interface}", name)  # fmt: skip
    if down := sorted(agent.switch.upkeep.down - agent.ovsdb.links().keys()):
        yield Finding("warning", "port", place, f"ports of {spec.bridge} are set down: {_some(down)}",
                      f"on {name}: ip link set {down[0]} up", name)  # fmt: skip
    yield from _mtus(coordinator.desired, agent)
    if view is None:
        return
    if found := strays(view):
        yield Finding("warning", "strays", place,
                      f"has interfaces on {spec.bridge} that are no guest's: {_some(found)}",
                      f"on {name}: ovs-vsctl del-port {spec.bridge} {found[0]}", name)  # fmt: skip
    if left := sorted(coordinator.guests.left_behind(name)):
        yield Finding("info", "rows", place, f"guests that ended left rows behind, which go soon: {_some(left)}", "",
                      name)  # fmt: skip
    if unclear := coordinator.guests.unclear(name):
        yield Finding("warning", "rows", place, f"has rows without a device: {_some(unclear)}; without libvirt and "
                      "a hook nobody says whether their guests have ended",
                      f"if they have, on {name}: ovs-vsctl del-port {spec.bridge} {unclear[0]}", name)  # fmt: skip
    if (hook := hook_status(view.hook)) is not None and hook["reason"]:
        yield Finding("warning", "hook", place, f"its hook: {hook['reason']}",
                      f"install it anew: fleetswitch host hook {name}", name)  # fmt: skip
    if agent.libvirt is not None:
        for what in agent.libvirt.not_understood:
            yield Finding("warning", "xml", place, f"libvirt's XML is not understood: {what}", "virsh edit", name)


def _mtus(desired: Desired, agent: HostAgent) -> Iterator[Finding]:
    """Uplinks that let less through than guests of the networks over them are told to send."""
    own = agent.ovsdb.own()
    mtus = own.mtus if own is not None else {}
    for physical, uplink in sorted(agent.spec.uplinks.items()):
        sizes = {
            n: network_mtu(spec, None) for n, spec in desired.networks.items() if spec.physical_network == physical
        }
        mtu = mtus.get(uplink.interface)
        larger = sorted(name for name, size in sizes.items() if mtu is not None and size > mtu)
        if larger:
            most = max(sizes[name] for name in larger)
            yield Finding("warning", "mtu", f"Host {agent.name}: {uplink.interface}", f"has an MTU of {mtu}, and "
                          f"guests of {_some(larger)} may send {most}",
                          f"on {agent.name}: ip link set {uplink.interface} mtu {most}; or give the Network that mtu",
                          agent.name)  # fmt: skip
        outside = agent.spec.external
        if outside is not None and outside.uplink == physical and mtu is not None and outside.mtu > mtu:
            yield Finding("warning", "mtu", f"Host {agent.name}: external.mtu", f"is {outside.mtu}, and "
                          f"{uplink.interface} has {mtu}: larger packets of guests vanish there",
                          f"on {agent.name}: ip link set {uplink.interface} mtu {outside.mtu}; or set external.mtu",
                          agent.name)  # fmt: skip


def _drift(host: str, drifts: Sequence[Event]) -> Finding:
    last = drifts[-1]
    times = f"{len(drifts)} times" if len(drifts) > 1 else "once"
    what = f"{times} in the last hour, the last time at {rfc3339(last.time)}: {last.message}"
    remedy = f"on {host}: see who runs ovs-ofctl and ovs-vsctl; fleetswitch events --host {host} --event drift"
    return Finding("warning", "drift", f"Host {host}", what, remedy, host)


def _connections(agent: HostAgent) -> Iterator[Finding]:
    for part, state in agent.parts().items():
        if state.state != "up":
            yield Finding("error", "flows" if part == "openflow" and agent.switch.refused else "connection",
                          f"Host {agent.name}: {part}", f"is {state.state}: {state.reason or 'no reason is known'}",
                          _remedy(agent, part, state.reason), agent.name)  # fmt: skip


def _remedy(agent: HostAgent, part: str, reason: str) -> str:
    method, _, rest = agent.spec.ovsdb.partition(":")
    manager = f"p{method}:{rest}" if method == "unix" else f"p{method}:{rest.rpartition(':')[2]}"
    text = next((remedy for where, word, remedy in _REMEDIES if where in {"", part} and word in reason), "")
    return text.format(host=agent.name, bridge=agent.spec.bridge, manager=manager)


def _tunnels(coordinator: Coordinator, name: str, spec: HostSpec, carried: Set[str]) -> Iterator[Finding]:
    """A host without a tunnel address has guests in networks that others reach through tunnels."""
    if spec.tunnel_ip is not None:
        return
    networks = coordinator.desired.networks
    cut = sorted(n for n in carried if n in networks and networks[n].is_overlay)
    if cut and len(coordinator.desired.hosts) > 1:
        yield Finding("error", "tunnel", f"Host {name}", f"has guests in {_some(cut)} and no tunnel_ip: they reach "
                      "nobody on other hosts", "give the Host a tunnel_ip", name)  # fmt: skip


# One vNIC.


def _outside(coordinator: Coordinator, name: str, carried: Set[str]) -> Iterator[Finding]:
    """Why its guests do not reach the outside."""
    networks, spec = coordinator.desired.networks, coordinator.desired.hosts.get(name)
    routed = sorted(n for n in carried if n in networks and networks[n].is_routed)
    if routed and spec is not None and spec.external is None:
        yield Finding("warning", "outside", f"Host {name}", "has no external address: its guests in "
                      f"{_some(routed)} do not reach the outside", "add external to it: uplink, address, gateway",
                      name)  # fmt: skip
    for each in coordinator.nat_addresses.lacking:
        if each.host == name:
            yield Finding("error", "outside", f"Network {each.network}", f"{each.reason}, whose guests of it do not "
                          "reach the outside", each.remedy, name)  # fmt: skip
    if silent := coordinator.services.next_hops.silent(name):
        yield Finding("warning", "outside", f"Host {name}", silent,
                      "see that it is on, and on the VLAN that external names", name)  # fmt: skip


def _excess(coordinator: Coordinator, host: str | None) -> Iterator[Finding]:
    """Who asks the services more than its share, which they drop."""
    for each in coordinator.services.excess.recent():
        if host in {None, each.vnic.host}:
            what = f"asks {each.service} more than its share: {each.count} of its requests were dropped"
            remedy = f"see what it does: fleetswitch describe port {each.vnic.port}"
            yield Finding("warning", "services", f"Port {each.vnic.port}", what, remedy, each.vnic.host)


def _vnic(name: str, status: PortStatus) -> Iterator[Finding]:
    if status.state in {"absent", "pending", "down"} or (status.state == "active" and not status.reason):
        return
    check = "mtu" if status.state == "active" and "MTU" in status.reason else "vnic"
    text = status.reason or "no reason is known"
    what = f"is switched, but {text}" if status.state == "active" else f"is {status.state}: {text}"
    place = f"vNIC {status.mac} of {status.vm or status.vm_uuid}"
    yield Finding("warning", check, place, what, f"fleetswitch describe port {name}", status.host)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
