"""Where port forwards and floating addresses lead: the vNIC and the address that their target is at the moment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv6Address, ip_address, ip_interface

from controller.model.floating import FloatingIPSpec
from controller.model.forward import PortForwardSpec
from controller.model.subnet import link_local
from controller.reader import Reader
from controller.views import FloatingView, ForwardView, HostView, NetworkView, PortView

_IDENTIFIER = (1 << 64) - 1  # of an IPv6 address, the lower half (RFC 4291, 2.5.1)

NO_TARGET = "its target is not there, or has no address"


def forward_view(
    name: str,
    spec: PortForwardSpec,
    network: NetworkView,
    ports: Iterable[PortView],
    listening: Mapping[str, HostView],
    hosts: Mapping[str, HostView],
) -> ForwardView | None:
    """None while the target is not there or has no address. ``ports`` are the network's, ``listening`` the hosts whose
    external address is meant, ``hosts`` all."""
    found = next(_targets(spec, network, ports), None)
    if found is None:
        return None
    port, address = found
    there = hosts.get(port.host)
    if there is None:
        return None
    version = 6 if ":" in address else 4
    reaching = tuple(
        host
        for host, view in sorted(listening.items())
        if view.external is not None and view.external.way(version) is not None and _reaches(view, there, network)
    )
    return ForwardView(
        name, spec.network, spec.listen.protocol, reaching, spec.ports, address, spec.target_ports, port.name
    )


def floating_view(
    name: str, spec: FloatingIPSpec, network: NetworkView, ports: Iterable[PortView]
) -> FloatingView | None:
    """None while the target is not there or has no address. ``ports`` are the network's."""
    for port, inside in _targets(spec, network, ports):
        return FloatingView(name, spec.network, spec.address, spec.eth, inside, port.name)
    return None


def floating_status(view: FloatingView | None, reader: Reader) -> dict[str, str | None]:
    """Where a floating address leads, and why not."""
    port = reader.port(view.port) if view is not None else None
    if view is None or port is None:
        return {"reason": NO_TARGET}
    host, reason = reader.host(port.host), ""
    if view not in reader.floating_to(port):
        reason = f"{view.inside} has another floating address, whose name comes first"
    elif host is None or host.external is None or not host.external.holds(view.address):
        reason = f"Host {port.host}, where its target is, has no external address in a subnet with {view.address}"
    return {"target": view.inside, "host": port.host, "mac": view.mac, "reason": reason}


def _reaches(host: HostView, there: HostView, network: NetworkView) -> bool:
    by_tunnel = network.overlay and host.tunnel_ip is not None and there.tunnel_ip is not None
    return host.name == there.name or by_tunnel


def target_of(spec: PortForwardSpec | FloatingIPSpec) -> tuple[str, str]:
    """The network, and what its target is called there."""
    target = spec.target
    return spec.network, target.address or target.vm or target.vnic or ""


def as_targets(port: PortView) -> Iterator[tuple[str, str]]:
    """All that the vNIC may be called as a target, likewise."""
    return ((port.network, called) for called in {*port.addresses, *port.guest, port.name})


def led_elsewhere(
    specs: Mapping[str, PortForwardSpec] | Mapping[str, FloatingIPSpec],
    changed: Iterable[PortView],
    *,
    everything: bool,
) -> set[str]:
    """Forwards or floating addresses that may lead elsewhere now that these vNICs changed."""
    found = {target for port in changed for target in as_targets(port)}
    return {name for name, spec in specs.items() if everything or target_of(spec) in found}


def _is_meant(spec: PortForwardSpec | FloatingIPSpec, port: PortView) -> bool:
    """Whether the vNIC is its target, or would be if it had an address."""
    target = spec.target
    if port.network != spec.network or port.arriving or not port.memberships:
        return False
    if target.address is not None:
        return target.address in port.addresses
    return target.vm in port.guest if target.vm is not None else target.vnic == port.name


def _targets(
    spec: PortForwardSpec | FloatingIPSpec, network: NetworkView, ports: Iterable[PortView]
) -> Iterator[tuple[PortView, str]]:
    """The vNICs that are meant, each with its addresses; the first one counts: by the vNICs' names, then as below."""
    if network.gateway is None or not network.gateway.nat:
        return
    for port in ports:
        own = _steadiest(port) if spec.family == "ipv6" else port.ipv4
        for address in own if _is_meant(spec, port) else ():
            if spec.target.address in {None, address} and _within(address, network):
                yield port, address


def _steadiest(port: PortView) -> list[str]:
    """Its IPv6 addresses: first those that it was given, and the one that its MAC makes before those that come and go
    (RFC 8981)."""
    made = int(IPv6Address(link_local(port.mac))) & _IDENTIFIER
    return sorted(port.ipv6, key=lambda each: (each in port.learned, int(IPv6Address(each)) & _IDENTIFIER != made))


def _within(address: str, network: NetworkView) -> bool:
    subnets = network.gateway.addresses if network.gateway is not None else ()
    return any(ip_address(address) in ip_interface(subnet).network for subnet in subnets)
