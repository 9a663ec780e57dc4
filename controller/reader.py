"""What an app reads of the fleet while it makes a block, with a record of it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from controller.model.guard import Check
from controller.views import (
    BarredView,
    FloatingView,
    ForwardView,
    HostView,
    NetworkView,
    PortView,
    RegistrationView,
)

Key = tuple[Hashable, ...]

ARRIVING = "@incoming"  # behind a vNIC's name: its place to come; no object's name has that sign


class Reader:
    """Reads answers and notes which. One is made for each computation."""

    def __init__(self, answers: Mapping[Key, Any]) -> None:
        self._answers = answers
        self.read: set[Key] = set()

    def _get(self, key: Key) -> Any:
        self.read.add(key)
        return self._answers.get(key)

    def host(self, name: str) -> HostView | None:
        view: HostView | None = self._get(("host", name))
        return view

    def network(self, name: str) -> NetworkView | None:
        view: NetworkView | None = self._get(("network", name))
        return view

    def port(self, name: str) -> PortView | None:
        view: PortView | None = self._get(("port", name))
        return view

    def hosts(self) -> list[HostView]:
        """Every host of the fleet, by name."""
        return [view for name in self._get(("names", "host")) or () if (view := self.host(name)) is not None]

    def networks(self) -> list[NetworkView]:
        """Every network of the operator's, by name."""
        return [view for name in self._get(("names", "network")) or () if (view := self.network(name)) is not None]

    def hosts_of_network(self, network: str) -> tuple[str, ...]:
        """Hosts that have a vNIC in the network."""
        return self._get(("hosts of network", network)) or ()

    def hosts_on_the_way(self, network: str) -> tuple[str, ...]:
        """Hosts from which packets are routed into the network by tunnels, whether they have a vNIC in it or not.

        Into one that takes what is new: whoever sends. Into one with mode nat, for answers: whoever is sent to.
        """
        view = self.network(network)
        if view is None or view.gateway is None or not view.overlay:
            return ()
        if view.gateway.takes:
            return self._get(("hosts that send",)) or ()
        return self._get(("hosts that take",)) or () if view.gateway.nat else ()

    def peers(self, host: str) -> frozenset[str]:
        """The other hosts with which it exchanges packets by tunnels: they carry an overlay network too, or route as it
        does."""
        found: set[str] = set()
        for name in self._get(("networks of host", host)) or ():
            if (network := self.network(name)) is not None and network.overlay:
                found.update(self.hosts_of_network(name))
        routing = {*(self._get(("hosts that send",)) or ()), *(self._get(("hosts that take",)) or ())}
        if host in routing:
            found |= routing
        return frozenset(found - {host})

    def tunnels_are_mixed(self) -> bool:
        """Whether some hosts have IPv4 tunnel addresses and some IPv6."""
        return bool(self._get(("tunnels are mixed",)))

    def has_vnic(self, network: str, host: str) -> bool:
        """Whether the host has a vNIC in the network."""
        return bool(self._get(("ports of network on host", network, host)))

    def hosts_of_segment(self, segment: int) -> tuple[str, ...]:
        """Hosts that have a vNIC in the segment."""
        return self._get(("hosts of segment", segment)) or ()

    def open_hosts_of_segment(self, segment: int) -> tuple[str, ...]:
        """Hosts that have a vNIC in the segment behind which there may be others."""
        return self._get(("open hosts of segment", segment)) or ()

    def unheld(self, segment: int) -> tuple[Check, ...]:
        """What some vNIC of the segment, anywhere, may claim of others: of ``CLAIMS``."""
        return self._get(("unheld in segment", segment)) or ()

    def members(self, segment: int, host: str) -> list[PortView]:
        """The vNICs of a segment on a host, by OpenFlow port."""
        names = self._get(("ports of segment on host", segment, host)) or ()
        found = [view for name in names if (view := self.port(name)) is not None]
        return sorted(found, key=lambda port: port.ofport)

    def registration(self, name: str) -> RegistrationView | None:
        view: RegistrationView | None = self._get(("registration", name))
        return view

    def registered(self, port: PortView) -> tuple[str, ...]:
        """The addresses that are registered for that vNIC in its network."""
        names = self._get(("registrations", port.network, port.mac)) or ()
        views = [view for name in names if (view := self.registration(name)) is not None]
        return tuple(dict.fromkeys(a for view in views if view.guest in port.guest for a in view.addresses))

    def forward(self, name: str) -> ForwardView | None:
        view: ForwardView | None = self._get(("forward", name))
        return view

    def forwards(self) -> list[ForwardView]:
        """Every port forward whose target is known, by name."""
        names = self._get(("names", "forward")) or ()
        return [view for name in names if (view := self.forward(name)) is not None]

    def forwards_ports(self, network: str | None = None) -> bool:
        """Whether some port forward leads into the network, or into any."""
        return bool(self._get(("names", "forward") if network is None else ("forwards of network", network)))

    def forwards_to(self, port: PortView) -> list[ForwardView]:
        """The port forwards that lead to that vNIC, at either place of one that is being copied."""
        names = self._get(("forwards to", port.name.removesuffix(ARRIVING))) or ()
        return [view for name in names if (view := self.forward(name)) is not None]

    def floating(self, name: str) -> FloatingView | None:
        view: FloatingView | None = self._get(("floating", name))
        return view

    def floating_ips(self) -> list[FloatingView]:
        """Every floating address whose target is known, by name."""
        names = self._get(("names", "floating")) or ()
        return [view for name in names if (view := self.floating(name)) is not None]

    def floating_addresses(self) -> list[tuple[str, str]]:
        """Address and MAC outside of every floating address, by name, whether its target is there or not."""
        names = self._get(("names", "outside of floating")) or ()
        return [outside for name in names if (outside := self._get(("outside of floating", name))) is not None]

    def floating_to(self, port: PortView) -> list[FloatingView]:
        """The floating addresses that lead to that vNIC, at either place of one that is being copied; one of each of
        its addresses, the first one by name."""
        names = self._get(("floating to", port.name.removesuffix(ARRIVING))) or ()
        found: dict[str, FloatingView] = {}
        for name in names:
            if (view := self.floating(name)) is not None and all(
                view.address != each.address for each in found.values()
            ):
                found.setdefault(view.inside, view)
        return list(found.values())

    def nat_address(self, network: str, host: str) -> str | None:
        """The address of the network's pool that is the host's; None while it has none, or the network no pool."""
        address: str | None = self._get(("nat address", network, host))
        return address

    def nat_addresses(self, host: str) -> dict[str, str]:
        """The addresses of pools that are the host's, by network."""
        networks = self._get(("nat networks of host", host)) or ()
        return {each: address for each in networks if (address := self.nat_address(each, host)) is not None}

    def barred(self, host: str) -> list[BarredView]:
        """The vNICs of a host that are plugged in and kept out, by OpenFlow port."""
        names = self._get(("barred on host", host)) or ()
        found: list[BarredView] = [view for name in names for view in self._get(("barred", name)) or ()]
        return sorted((view for view in found if view.host == host), key=lambda port: (port.ofport, port.who))

    def strays(self, host: str) -> tuple[BarredView, ...]:
        """The interfaces of a host's bridge that are no guest's."""
        return self._get(("strays", host)) or ()
