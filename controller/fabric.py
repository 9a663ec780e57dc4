"""The fleet as apps see it: indexes over the store's rows, with a record of what was read.

Every answer is stored under a key. While a block is computed, a ``Reader`` notes the keys that were asked for; when
rows change, ``Fabric.update`` says which keys have another answer than before. Nothing else decides what is recomputed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from controller.forwards import as_targets, floating_view, forward_view, led_elsewhere, target_of
from controller.model.fields import is_uuid
from controller.model.floating import FloatingIPSpec
from controller.model.forward import PortForwardSpec
from controller.model.guard import CLAIMS, checks
from controller.model.kinds import overlay_mtu
from controller.model.port import PortStatus
from controller.reader import ARRIVING, Key, Reader
from controller.rows import Rows, host_view, nat_allotments, network_of_wire, network_view, sorted_addresses
from controller.views import (
    BarredView,
    FloatingView,
    ForwardView,
    HostView,
    NetworkView,
    PortView,
    RegistrationView,
    memberships,
)

NAT_ADDRESS = "nat address"  # a kind of what changes, beside the store's: addresses of pools were allotted
_KEPT_OUT = frozenset({"pending", "quarantined", "down"})

# Indexes that only the fabric itself uses; nobody reads them, so they are no answers.
_UNASKED = frozenset({
    "ports of network", "ports of host", "registrations of network", "open ports of segment on host",
    "external of network on host", "forwards of network on host", "networks that send", "networks that take",
    "ports as target", "unheld ports of segment",
})  # fmt: skip


class Fabric:
    """The current answers, by key. Update it with rows; read it through a Reader."""

    def __init__(self) -> None:
        self._answers: dict[Key, Any] = {}
        self._groups: dict[Key, set[str]] = defaultdict(set)
        self._regrouped: set[Key] = set()
        self._unsettled: list[PortView] = []  # vNICs as they were, and are, that changed since targets were looked at
        self._overlay_mtu: int | None = None
        self._allotted: set[tuple[str, str]] = set()  # networks and hosts with an address of a pool
        self._moved: set[str] = set()  # hosts that may have begun or ceased to be on the way between networks

    def reader(self) -> Reader:
        return Reader(self._answers)

    def knows(self, key: Key) -> bool:
        """Whether there is an answer."""
        return key in self._answers

    def names(self, kind: str) -> frozenset[str]:
        """All names of ``host`` or ``network``."""
        return frozenset(self._answers.get(("names", kind), ()))

    def port_at(self, host: str, ofport: int) -> PortView | None:
        """The vNIC that is switched at that OpenFlow port."""
        views = (self._answers.get(("port", name)) for name in self._groups.get(("ports of host", host), ()))
        return next((view for view in views if view is not None and view.ofport == ofport), None)

    def ports_of(self, network: str) -> list[PortView]:
        """The vNICs of a network that are switched."""
        names = self._groups.get(("ports of network", network), ())
        return [view for name in sorted(names) if (view := self._answers.get(("port", name))) is not None]

    def registrations_of(self, network: str) -> list[RegistrationView]:
        """The vNICs that are registered in a network, whether they run or not."""
        names = self._groups.get(("registrations of network", network), ())
        return [view for name in sorted(names) if (view := self._answers.get(("registration", name))) is not None]

    def update(self, rows: Rows, changed: Iterable[tuple[str, str]] | None = None) -> set[Key]:
        """Take the rows in; ``changed`` names the (kind, name) that differ, None means all.

        Returns the keys whose answer changed.
        """
        touched: set[Key] = set()
        pending = set(changed) if changed is not None else self._everything(rows)
        ports = {name for kind, name in pending if kind == "Port"}
        networks = {name for kind, name in pending if kind == "Network"}
        hosts = {name for kind, name in pending if kind == "Host"}
        if networks:  # another network may have the wire that leads to the outside
            hosts |= {name for name, spec in rows.hosts.items() if spec.external is not None}
        wires = network_of_wire(rows) if any(name in rows.hosts and rows.hosts[name].external for name in hosts) else {}
        for name in hosts:
            self._host(name, host_view(name, rows, wires), touched)
            self._set(("strays", name), _stray_views(name, rows) or None, touched)
        if hosts:
            self._outsides(rows, touched)
            families = {":" in spec.tunnel_ip for spec in rows.hosts.values() if spec.tunnel_ip is not None}
            self._set(("tunnels are mixed",), len(families) > 1 or None, touched)
            networks |= self._resized(rows)
        if hosts or networks or any(kind == NAT_ADDRESS for kind, _ in pending):
            self._allot(rows, touched)
        for name in networks:
            self._set(("network", name), network_view(name, rows, self._overlay_mtu), touched)
            self._member(("names", "network"), name, ("network", name) in self._answers)
            self._route(name)
        if networks or hosts:  # a port's answer is made from theirs
            ports |= {name for name, port in rows.ports.items() if port.network in networks or _hosts(port) & hosts}
            ports |= {name for network in networks for name in self._groups.get(("ports of network", network), ())}
            ports |= {name for host in hosts for name in self._groups.get(("ports of host", host), ())}
        ports = {name.removesuffix(ARRIVING) for name in ports}
        registered = {name for name in ports if name in rows.registered or ("registration", name) in self._answers}
        if networks:
            registered |= {name for name, spec in rows.registered.items() if spec.network in networks}
            for network in networks:
                registered |= self._groups.get(("registrations of network", network), set())
        for name in registered:
            self._register(name, self._registration_view(name, rows), touched)
        for name in ports:
            here, there = self._places_of(name, rows)
            self._port(name, here, touched)
            self._port(name + ARRIVING, there, touched)
            self._bar(name, tuple(_barred_views(rows.ports.get(name))), touched)
        moved, self._unsettled = self._unsettled, []
        forwards = {name for kind, name in pending if kind == "PortForward"}
        for name in forwards | led_elsewhere(rows.forwards, moved, everything=bool(hosts or networks)):
            self._forward(name, self._forward_view(name, rows), touched)
        floating = {name for kind, name in pending if kind == "FloatingIP"}
        floating |= {name for name, spec in rows.floating.items() if spec.network in networks}
        for name in floating | led_elsewhere(rows.floating, moved, everything=False):
            self._floating(name, self._floating_view(name, rows), touched)
            spec = rows.floating.get(name)
            self._set(("outside of floating", name), (spec.address, spec.eth) if spec is not None else None, touched)
            self._member(("names", "outside of floating"), name, spec is not None)
        for host in self._moved:
            self._on_the_way(host)
        self._moved.clear()
        for key in self._regrouped:
            self._set(key, tuple(sorted(self._groups.get(key, ()))) or None, touched)
        self._regrouped.clear()
        return touched

    def _everything(self, rows: Rows) -> set[tuple[str, str]]:
        found = {("Host", name) for name in (*rows.hosts, *self.names("host"))}
        found |= {("Network", name) for name in (*rows.networks, *self.names("network"))}
        found |= {("PortForward", str(name)) for name in (*rows.forwards, *self._groups.get(("names", "forward"), ()))}
        known_floating = self._groups.get(("names", "outside of floating"), ())
        found |= {("FloatingIP", str(name)) for name in (*rows.floating, *known_floating)}
        known = (key[1] for key in self._answers if key[0] in {"port", "barred", "registration"})
        return found | {("Port", str(name)) for name in (*rows.ports, *rows.registered, *known)}

    def _set(self, key: Key, value: Any, touched: set[Key]) -> None:
        """Store an answer; None takes it away."""
        if self._answers.get(key) == value:
            return
        touched.add(key)
        if value is None:
            del self._answers[key]
        else:
            self._answers[key] = value

    def _host(self, name: str, new: HostView | None, touched: set[Key]) -> None:
        old: HostView | None = self._answers.get(("host", name))
        self._set(("host", name), new, touched)
        self._member(("names", "host"), name, new is not None)
        self._moved.add(name)
        before, now = (view.external.network if view and view.external else None for view in (old, new))
        for network in {before, now} - {None}:
            self._member(("external of network on host", network, name), name, network == now)
            self._carries(str(network), name)

    def _carries(self, network: str, host: str) -> None:
        """A host carries a network while it has a vNIC there, meets the outside there, or forwards ports into it."""
        reasons = ("ports of network on host", "external of network on host", "forwards of network on host")
        here = any((reason, network, host) in self._groups for reason in reasons)
        self._member(("hosts of network", network), host, here)
        self._member(("networks of host", host), network, here)

    def _route(self, network: str) -> None:
        """Note whether a network's guests reach others, and whether they are reached; its hosts are looked at anew."""
        view: NetworkView | None = self._answers.get(("network", network))
        gateway = view.gateway if view is not None else None
        self._member(("networks that send",), network, gateway is not None and gateway.sends)
        self._member(("networks that take",), network, gateway is not None and gateway.takes)
        self._moved |= self._groups.get(("hosts of network", network), set())

    def _on_the_way(self, host: str) -> None:
        """Whether packets for routed networks begin here, by a vNIC or from outside; whether they end here."""

        def has_vnic(kind: str) -> bool:
            networks = self._groups.get((kind,), ())
            return any(("ports of network on host", network, host) in self._groups for network in networks)

        view: HostView | None = self._answers.get(("host", host))
        outside = view is not None and view.external is not None
        self._member(("hosts that send",), host, outside or has_vnic("networks that send"))
        self._member(("hosts that take",), host, has_vnic("networks that take"))

    def _outsides(self, rows: Rows, touched: set[Key]) -> None:
        """The wires to the outside that are no network of the operator's."""
        wanted: dict[str, NetworkView] = {}
        for name in rows.hosts:
            view: HostView | None = self._answers.get(("host", name))
            spec = rows.hosts[name].external
            if view is not None and view.external is not None and spec is not None and view.external.network[0] == "@":
                there = view.external
                wanted[there.network] = NetworkView(
                    there.network, ((spec.vlan or 0, there.segment),), False, spec.uplink, there.uplink
                )
        known = {str(key[1]) for key in self._answers if key[0] == "network" and str(key[1]).startswith("@")}
        for name in known | wanted.keys():
            self._set(("network", name), wanted.get(name), touched)

    def _allot(self, rows: Rows, touched: set[Key]) -> None:
        """Which address of a network's pool is a host's."""
        wanted = nat_allotments(rows.nat_addresses, rows.networks, rows.hosts)
        known, self._allotted = self._allotted, set(wanted)
        for network, host in known | self._allotted:
            self._set((NAT_ADDRESS, network, host), wanted.get((network, host)), touched)
            self._member(("nat networks of host", host), network, (network, host) in wanted)

    def _resized(self, rows: Rows) -> set[str]:
        """Networks whose MTU may be another now: tunnels carry more or less than before."""
        before, self._overlay_mtu = self._overlay_mtu, overlay_mtu(rows.hosts.values())
        return set(rows.networks) if self._overlay_mtu != before else set()

    def _member(self, key: Key, name: str, present: bool) -> None:
        """Put a name in an index or take it out; at the end of the update the index is an answer too."""
        if present == (name in self._groups.get(key, ())):
            return
        if key[0] not in _UNASKED:
            self._regrouped.add(key)
        if present:
            self._groups[key].add(name)
            return
        self._groups[key].discard(name)
        if not self._groups[key]:
            del self._groups[key]

    def _places_of(self, name: str, rows: Rows) -> tuple[PortView | None, PortView | None]:
        """The vNIC where it is, and where it is being copied to."""
        here, incoming = self._port_view(name, rows), rows.ports[name].incoming if name in rows.ports else None
        if here is None or incoming is None or ("host", incoming.host) not in self._answers:
            return here, None
        there = replace(
            here, name=name + ARRIVING, host=incoming.host, ofport=incoming.ofport, other=here.host, arriving=True
        )
        return replace(here, other=incoming.host), there

    def _port_view(self, name: str, rows: Rows) -> PortView | None:
        status = rows.ports.get(name)
        if status is None or status.state != "active" or None in (status.ofport, status.network, status.host):
            return None
        host, network, ofport = str(status.host), str(status.network), int(status.ofport or 0)
        view: NetworkView | None = self._answers.get(("network", network))
        if view is None or ("host", host) not in self._answers:
            return None
        spec = rows.networks[network]
        group = spec.portgroup(status.portgroup or "")
        if group is None:
            return None
        parts = () if group.isolation == "passthrough" else memberships(group, view, spec.untagged_vlan)
        addresses = sorted_addresses(status.addresses)
        registered = rows.registered.get(name)
        learns = group.learn_addresses if registered is None or not registered.addresses else 0
        guard = checks(group.filters, addresses, group.learning, learns > 0, bool(spec.autonomous()))
        guest = frozenset({status.vm_uuid, *([status.vm] if status.vm is not None and not is_uuid(status.vm) else ())})
        return PortView(
            name, status.mac, network, host, ofport, group.isolation, parts, addresses, guard, group.mac_limit,
            status.learned, learns, guest,
        )  # fmt: skip

    def _registration_view(self, name: str, rows: Rows) -> RegistrationView | None:
        spec = rows.registered.get(name)
        if spec is None:
            return None
        view: NetworkView | None = self._answers.get(("network", spec.network))
        network = rows.networks.get(spec.network)
        group = network.portgroup(spec.portgroup) if network is not None else None
        if view is None or network is None or group is None or group.isolation == "passthrough":
            return None
        segments = tuple(part.segment for part in memberships(group, view, network.untagged_vlan))
        seen = rows.ports.get(name)
        guest = seen.vm_uuid if seen is not None and seen.state != "absent" else spec.vm
        return RegistrationView(name, guest, spec.mac, spec.network, segments, sorted_addresses(spec.addresses))

    def _register(self, name: str, new: RegistrationView | None, touched: set[Key]) -> None:
        old: RegistrationView | None = self._answers.get(("registration", name))
        self._set(("registration", name), new, touched)
        for view, present in ((old, False), (new, True)):
            if view is not None:
                self._member(("registrations of network", view.network), name, present)
                self._member(("registrations", view.network, view.mac), name, present)

    def _bar(self, name: str, new: tuple[BarredView, ...], touched: set[Key]) -> None:
        old: tuple[BarredView, ...] = self._answers.get(("barred", name)) or ()
        self._set(("barred", name), new or None, touched)
        for host in {view.host for view in (*old, *new)}:
            self._member(("barred on host", host), name, any(view.host == host for view in new))

    def _perhaps_meant(self, spec: PortForwardSpec | FloatingIPSpec) -> list[PortView]:
        """The vNICs, by name, among which its target is."""
        names = self._groups.get(("ports as target", *target_of(spec)), ())
        return [self._answers[("port", name)] for name in sorted(names)]

    def _forward_view(self, name: str, rows: Rows) -> ForwardView | None:
        spec = rows.forwards.get(name)
        network: NetworkView | None = self._answers.get(("network", spec.network)) if spec is not None else None
        if spec is None or network is None:
            return None
        hosts = {host: view for host in rows.hosts if (view := self._answers.get(("host", host))) is not None}
        return forward_view(
            name, spec, network, self._perhaps_meant(spec),
            {host: hosts[host] for host in spec.listens_on(rows.hosts) if host in hosts}, hosts,
        )  # fmt: skip

    def _forward(self, name: str, new: ForwardView | None, touched: set[Key]) -> None:
        old: ForwardView | None = self._answers.get(("forward", name))
        self._set(("forward", name), new, touched)
        self._member(("names", "forward"), name, new is not None)
        for view, present in ((old, False), (new, True)):
            if view is None:
                continue
            self._member(("forwards of network", view.network), name, present)
            self._member(("forwards to", view.port), name, present)
            for host in view.hosts:
                self._member(("forwards of network on host", view.network, host), name, present)
        for view in (old, new):
            for host in view.hosts if view is not None else ():
                self._carries(view.network if view is not None else "", host)

    def _floating_view(self, name: str, rows: Rows) -> FloatingView | None:
        spec = rows.floating.get(name)
        network: NetworkView | None = self._answers.get(("network", spec.network)) if spec is not None else None
        if spec is None or network is None:
            return None
        return floating_view(name, spec, network, self._perhaps_meant(spec))

    def _floating(self, name: str, new: FloatingView | None, touched: set[Key]) -> None:
        old: FloatingView | None = self._answers.get(("floating", name))
        self._set(("floating", name), new, touched)
        self._member(("names", "floating"), name, new is not None)
        for view, present in ((old, False), (new, True)):
            if view is not None:
                self._member(("floating to", view.port), name, present)

    def _port(self, name: str, new: PortView | None, touched: set[Key]) -> None:
        old: PortView | None = self._answers.get(("port", name))
        if old == new:
            return
        self._unsettled += [view for view in (old, new) if view is not None]
        self._set(("port", name), new, touched)
        places_old, places_new = _places(old), _places(new)
        for key in places_old - places_new:
            self._member(key, name, False)
        for key in places_new - places_old:
            self._member(key, name, True)
        # A host carries a network, or a segment of it, while it has a vNIC there.
        for view in (old, new):
            if view is None:
                continue
            self._carries(view.network, view.host)
            self._moved.add(view.host)
            for part in view.memberships:
                here = ("ports of segment on host", part.segment, view.host) in self._groups
                self._member(("hosts of segment", part.segment), view.host, here)
                here = ("open ports of segment on host", part.segment, view.host) in self._groups
                self._member(("open hosts of segment", part.segment), view.host, here)
                for check in CLAIMS:
                    somewhere = ("unheld ports of segment", part.segment, check) in self._groups
                    self._member(("unheld in segment", part.segment), check, somewhere)


def _barred_views(status: PortStatus | None) -> Iterator[BarredView]:
    """The vNIC itself, when it is kept out, and those who say that they are it."""
    if status is None:
        return
    who = f"{status.vm or status.vm_uuid} {status.mac}"
    if status.host is not None and status.ofport is not None and status.state in _KEPT_OUT:
        yield BarredView(who, status.host, status.ofport, status.reason or status.state)
    for rival in status.rivals:
        yield BarredView(rival.tap, rival.host, rival.ofport, f"says that it is {who}, and another is")


def _stray_views(host: str, rows: Rows) -> tuple[BarredView, ...]:
    return tuple(
        BarredView(name, host, ofport, "nothing says which guest's it is")
        for name, ofport in sorted(rows.strays.get(host, {}).items())
    )


def _hosts(port: PortStatus) -> set[str | None]:
    return {port.host, port.incoming.host} if port.incoming is not None else {port.host}


def _places(port: PortView | None) -> set[Key]:
    """The indexes in which a vNIC stands."""
    if port is None:
        return set()
    places: set[Key] = {
        ("ports of network", port.network),
        ("ports of host", port.host),
        ("ports of network on host", port.network, port.host),
    }
    places |= {("ports as target", *target) for target in as_targets(port)}
    for part in port.memberships:
        places.add(("ports of segment on host", part.segment, port.host))
        if port.open:
            places.add(("open ports of segment on host", part.segment, port.host))
        places |= {("unheld ports of segment", part.segment, check) for check in port.unheld}
    return places
