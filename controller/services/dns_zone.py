"""What the DNS of one network knows: who has a name, what an address is called, and which names nobody else has.

A name is one owner's. The operator's host records come first, then registered Ports, then reservations of DHCP; what
clients call themselves comes last, and among those who was there first: no guest takes another's name.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from controller.model.dns import Dns, is_host_name
from controller.model.fields import is_uuid
from controller.model.lease import Lease
from controller.model.network import NetworkSpec
from controller.model.port import PortSpec

# Names that mean a service to guests which ask for them unasked: no client calls itself so (RFC 6761, 6.3; CERT
# VU#598349; RFC 5214, 8.3).
_NOBODYS = frozenset({"localhost", "wpad", "isatap"})

_Named = dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class Service:
    """An SRV record (RFC 2782); the target "" is no service."""

    priority: int
    weight: int
    port: int
    target: str


@dataclass(frozen=True, slots=True)
class Zone:
    """Names are text in lower case, without the dot at the end. ``domains`` are those that nobody else knows better;
    ``domain`` is the network's own, which others may know more of; ``inner`` are names that have others below them."""

    addresses: Mapping[str, tuple[str, ...]]
    pointers: Mapping[str, str]
    texts: Mapping[str, tuple[str, ...]]
    services: Mapping[str, tuple[Service, ...]]
    domains: frozenset[str]
    inner: frozenset[str]
    domain: str | None = None

    def domain_of(self, name: str, *, asks: bool) -> str | None:
        """The innermost domain in which the name is ours to deny; ``asks`` says that others can be asked about it."""
        own = None if asks else self.domain
        return next((above for above in (name, *_above(name)) if above in self.domains or above == own), None)

    def has(self, name: str) -> bool:
        """Whether there is a record of the name."""
        return any(name in each for each in (self.addresses, self.pointers, self.texts, self.services))


def zone_of(name: str, spec: NetworkSpec, ports: Iterable[PortSpec], leases: Mapping[str, Lease], since: float) -> Zone:
    """What the network's DNS knows. ``ports`` are all that are registered; ``leases`` the network's, by address, of
    which those count that had not ended at ``since``."""
    dns = spec.dns or Dns()
    domain = spec.dns_domain
    lasting = _lasting(leases.values(), since)
    owners = (
        _recorded(dns, domain), _registered(name, ports, lasting, domain), _reserved(spec), _leased(lasting),
    )  # fmt: skip
    addresses: dict[str, tuple[str, ...]] = {}
    pointers: dict[str, str] = {}
    for named in owners:
        for plain, found in named.items():
            whole = f"{plain}.{domain}" if domain and "." not in plain else plain
            for each in {plain, whole}:
                addresses.setdefault(each, tuple(dict.fromkeys(found)))
            for address in found:
                pointers.setdefault(ipaddress.ip_address(address).reverse_pointer, whole)
    texts, services = _texts(dns, domain), _services(dns, domain)
    domains = {each for subnet in spec.subnets for each in _reverse(subnet)}
    if domain and dns.local_only:
        domains.add(domain)
    inner = {above for known in (addresses, pointers, texts, services) for each in known for above in _above(each)}
    return Zone(addresses, pointers, texts, services, frozenset(domains), frozenset(inner), domain)


def _recorded(dns: Dns, domain: str | None) -> _Named:
    found: _Named = {}
    for host in dns.hosts:
        for name in host.names:
            found.setdefault(_plain(name, domain), []).append(host.ip)
    return found


def _registered(
    network: str, ports: Iterable[PortSpec], leases: Mapping[str, Sequence[Lease]], domain: str | None
) -> _Named:
    """Guests by the names of their Ports. A guest that is named by its UUID has none."""
    found: _Named = {}
    for port in ports:
        if port.network == network and not is_uuid(port.vm) and is_host_name(port.vm.lower()):
            leased = (lease.ip for lease in leases.get(port.mac, ()))
            found.setdefault(_plain(port.vm.lower(), domain), []).extend([*port.addresses, *leased])
    return {name: addresses for name, addresses in found.items() if addresses}


def _reserved(spec: NetworkSpec) -> _Named:
    found: _Named = {}
    for host in spec.dhcp.hosts if spec.dhcp else ():
        if host.name is not None:
            found.setdefault(host.name.lower(), []).append(host.ip)
    return found


def _leased(leases: Mapping[str, Sequence[Lease]]) -> _Named:
    """Clients by what they call themselves: who did first keeps the name."""
    named = sorted((each.since, mac, each.name) for mac, mine in leases.items() for each in mine)
    found: _Named = {}
    for _, mac, name in named:
        if name not in _NOBODYS and is_host_name(name):
            found.setdefault(name, [lease.ip for lease in leases[mac]])
    return found


def _lasting(leases: Iterable[Lease], since: float) -> dict[str, list[Lease]]:
    """Each client's leases by its MAC: of IPv4 and of IPv6 the one that lasts longest."""
    found: dict[str, dict[bool, Lease]] = {}
    for lease in leases:
        if lease.state == "leased" and lease.expires > since:
            mine, is_ipv6 = found.setdefault(lease.mac, {}), ":" in lease.ip
            if is_ipv6 not in mine or lease.expires > mine[is_ipv6].expires:
                mine[is_ipv6] = lease
    return {mac: [mine[each] for each in sorted(mine)] for mac, mine in found.items()}


def _texts(dns: Dns, domain: str | None) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for each in dns.txt:
        for name in _both(each.name, domain):
            found[name] = (*found.get(name, ()), each.value)
    return found


def _services(dns: Dns, domain: str | None) -> dict[str, tuple[Service, ...]]:
    found: dict[str, tuple[Service, ...]] = {}
    for each in dns.srv:
        below = each.domain or domain
        name = f"_{each.service}._{each.protocol}".lower() + (f".{below}" if below else "")
        target = each.target or ""
        if target and "." not in target and domain:
            target = f"{target}.{domain}"
        service = Service(each.priority, each.weight, each.port or 0, target)
        found[name] = (*found.get(name, ()), service)
    return found


def _plain(name: str, domain: str | None) -> str:
    """The name without the network's domain, if it is directly in that."""
    head, _, rest = name.partition(".")
    return head if domain and rest == domain else name


def _both(name: str, domain: str | None) -> set[str]:
    """A name as it is asked for: one without a dot in the network's domain as well."""
    plain = _plain(name, domain)
    return {plain, f"{plain}.{domain}"} if domain and "." not in plain else {plain}


def _above(name: str) -> Iterator[str]:
    """The domains that a name is in, from the innermost."""
    while "." in name:
        name = name.partition(".")[2]
        yield name


def _reverse(subnet: str) -> Iterator[str]:
    """The domains of a subnet's addresses: several where its length is none that names can divide at (RFC 1035, 3.5;
    RFC 3596, 2.5)."""
    network = ipaddress.ip_interface(subnet).network
    step, width = (8, 8) if network.version == 4 else (4, 4)
    length = -(-network.prefixlen // step) * step
    for part in network.subnets(new_prefix=length):
        labels = part.network_address.reverse_pointer.split(".")
        yield ".".join(labels[(part.max_prefixlen - length) // width :])
