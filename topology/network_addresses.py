"""The addresses in a network's XML: its subnets, and what its DHCP server hands out."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any
from xml.etree.ElementTree import Element

from controller.model.subnet import DEFAULT_LEASE_SECONDS
from topology.network_dnsmasq import read_dnsmasq, refuse_boots
from topology.network_findings import Findings
from topology.xml_reader import shown

_UNITS = {"seconds": 1, "minutes": 60, "hours": 3600}
_WITHOUT_DHCP = "there is no DHCP here to tell guests of it"


def read_subnet(found: Findings, ip: Element) -> str | None:
    text = ip.get("address", "")
    try:
        address = ipaddress.ip_address(text)
        prefix = ip.get("netmask") or ip.get("prefix") or str(_usual_prefix(address))
        interface = ipaddress.ip_interface(f"{address}/{prefix}")
    except ValueError:
        told = " ".join(f"{name}={shown(value)!r}" for name, value in ip.items())
        found.refuse("ip", f"{told or 'nothing'} is no address with the size of its subnet",
                     "write address='10.10.10.1' prefix='24'")  # fmt: skip
        return None
    if ip.get("family", f"ipv{address.version}") != f"ipv{address.version}":
        found.refuse("ip@family", f"{shown(ip.get('family', ''))!r} is not that of {address}", "leave it out")
    if address == interface.network.network_address:
        found.refuse("ip@address", f"{address} is the subnet itself, and no gateway's", "write the gateway's address")
    return interface.with_prefixlen


def read_dhcp(found: Findings, root: Element) -> Iterator[tuple[str, Any]]:
    sections = root.findall("ip/dhcp")
    domain, more = root.find("domain"), read_dnsmasq(found, root)
    if not sections:
        if more:
            found.ignore("dnsmasq:options/dnsmasq:option@value", _WITHOUT_DHCP)
        return
    ends = [[one.get("start", ""), one.get("end", "")] for each in sections for one in each.findall("range")]
    ranges, ranges6 = ([each for each in ends if (":" in each[0]) == is_ipv6] for is_ipv6 in (False, True))
    hosts = [_host(found, one) for each in sections for one in each.findall("host")]
    dhcp: dict[str, Any] = {"range": ranges, "range6": ranges6, "hosts": hosts, **more}
    if (boot := _boot(found, sections)) is not None and dhcp.setdefault("boot", boot) != boot:
        refuse_boots(found)
    if (lease := _lease(found, sections)) is not None:
        dhcp["lease"] = lease
    if domain is not None:
        dhcp["domain"] = domain.get("name")
    yield "dhcp", dhcp


def _host(found: Findings, host: Element) -> Mapping[str, str]:
    client = ("mac", "id", "name") if ":" in host.get("ip", "") else ("mac",)
    if host.get("ip") is None or all(host.get(name) is None for name in client):
        named = " ".join(f"{name}={shown(value)!r}" for name, value in host.items())
        found.refuse("ip/dhcp/host", f"{named or 'nothing'}: a reservation is of a MAC and an address here",
                     "write mac and ip")  # fmt: skip
    return {name: host.get(name, "") for name in ("mac", "id", "ip", "name") if host.get(name) is not None}


def _lease(found: Findings, sections: list[Element]) -> int | None:
    """Seconds. A reservation without one has that of the range (dnsmasq(8), --dhcp-host)."""
    ranges = [one for each in sections for one in each.findall("range")]
    leases = {_seconds(found, one.find("lease")) for one in ranges}
    leases |= {_seconds(found, lease) for each in sections for lease in each.findall("host/lease")}
    if len(leases) > 1:
        told = ", ".join(sorted(f"{seconds} s" for seconds in leases))
        found.refuse("ip/dhcp/range/lease", f"{told}: a network has one lease time", "write the same everywhere")
    return next(iter(leases), None)


def _seconds(found: Findings, lease: Element | None) -> int:
    if lease is None:
        return DEFAULT_LEASE_SECONDS
    unit = lease.get("unit", "minutes")
    expiry = found.count(lease, "expiry", "ip/dhcp/range/lease@expiry")
    if unit not in _UNITS:
        found.refuse("ip/dhcp/range/lease@unit", f"{shown(unit)!r} is no unit", f"one of: {', '.join(_UNITS)}")
    if expiry == 0:
        found.refuse("ip/dhcp/range/lease@expiry", "'0': a lease without end never comes back",
                     "write how long, such as expiry='365' unit='hours'")  # fmt: skip
    return (expiry or 1) * _UNITS.get(unit, 1)


def _boot(found: Findings, sections: list[Element]) -> dict[str, str] | None:
    """What guests boot from."""
    said = [dict(boot.items()) for each in sections for boot in each.findall("bootp")]
    if any(each != said[0] for each in said):
        refuse_boots(found)
    boot = said[0] if said else None
    if boot is not None and "server" not in boot and "://" not in boot.get("file", ""):
        found.refuse("ip/dhcp/bootp", f"{shown(boot.get('file', ''))!r}: no files are served here, so no host is its "
                     "server", "name your TFTP server: server='10.10.10.5'; or write a URL")  # fmt: skip
        return None
    return boot


def _usual_prefix(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> int:
    """What libvirt takes where the XML says nothing (virSocketAddrGetIPPrefix): the class's, 64 for IPv6."""
    if address.version == 6:
        return 64
    first = int(address) >> 24
    return 8 if first < 128 else 16 if first < 192 else 24
