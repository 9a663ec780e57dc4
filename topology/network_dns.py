"""DNS in a network's XML: ``<dns>`` and ``<domain>``, read and written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element, SubElement

from controller.model.dns import Dns, DnsSrv
from controller.model.network import NetworkSpec
from topology.network_findings import Findings

_SRV = ("service", "protocol", "domain", "target")
_SRV_NUMBERS = ("port", "priority", "weight")
_PROTOCOLS = ("tcp", "udp")  # of the schema (networkcommon.rng, protocol)


def read_dns(found: Findings, root: Element) -> Iterator[tuple[str, Any]]:
    dns = root.find("dns")
    fields = dict(_fields(found, dns)) if dns is not None else {}
    domain = root.find("domain")
    served = root.find("ip/dhcp") is not None
    if domain is not None and not served and not any("." in ip.get("address", "") for ip in root.findall("ip")):
        found.ignore("domain@name", "the network has no gateway, which would tell guests of it")
        domain = None
    if domain is not None and not served:
        fields["domain"] = domain.get("name")
    if domain is not None and domain.get("localOnly") == "yes":
        fields["local_only"] = True
    if fields:
        yield "dns", fields


def write_dns(network: Element, spec: NetworkSpec) -> None:
    """``<domain>`` and ``<dns>``, where there is something to say that libvirt's schema has words for."""
    dns = spec.dns or Dns()
    name = (spec.dhcp.domain if spec.dhcp is not None else None) or dns.domain
    if name is not None:
        domain = SubElement(network, "domain", name=name)
        if dns.local_only:
            domain.set("localOnly", "yes")
    element = Element("dns")
    if not dns.enable:
        element.set("enable", "no")
    if not dns.forward_plain_names:
        element.set("forwardPlainNames", "no")
    for forwarder in dns.forwarders or ():
        if _fits(forwarder.domain):
            SubElement(element, "forwarder", attrib=_said(domain=forwarder.domain, addr=forwarder.addr))
    for txt in dns.txt:
        if _fits(txt.name):
            SubElement(element, "txt", name=txt.name, value=txt.value)
    for host in dns.hosts:
        names = SubElement(element, "host", ip=host.ip)
        for name in host.names:
            SubElement(names, "hostname").text = name
    for srv in dns.srv:
        if _fits(srv.domain) and srv.protocol in _PROTOCOLS:
            SubElement(element, "srv", attrib=_srv(srv))
    if element.items() or len(element):
        network.append(element)


def _fields(found: Findings, dns: Element) -> Iterator[tuple[str, Any]]:
    if dns.get("enable") == "no":
        yield "enable", False
    if dns.get("forwardPlainNames") == "no":
        yield "forward_plain_names", False
    if forwarders := [dict(each.items()) for each in dns.findall("forwarder")]:
        yield "forwarders", forwarders
    if txt := [dict(each.items()) for each in dns.findall("txt")]:
        yield "txt", txt
    if hosts := [_host(each) for each in dns.findall("host")]:
        yield "hosts", hosts
    if srv := [_read_srv(found, each) for each in dns.findall("srv")]:
        yield "srv", srv


def _host(host: Element) -> dict[str, Any]:
    return {"ip": host.get("ip", ""), "names": [(name.text or "").strip() for name in host.findall("hostname")]}


def _read_srv(found: Findings, srv: Element) -> dict[str, Any]:
    """A target of ``.`` is none (RFC 2782)."""
    texts = {name: value for name in _SRV if (value := srv.get(name)) is not None and (name, value) != ("target", ".")}
    numbers = {name: found.count(srv, name, f"dns/srv@{name}") for name in _SRV_NUMBERS if srv.get(name) is not None}
    return {**texts, **numbers}


def _srv(srv: DnsSrv) -> dict[str, str]:
    said = _said(service=srv.service, protocol=srv.protocol, domain=srv.domain, target=srv.target)
    if srv.target is not None:
        said |= {name: str(getattr(srv, name)) for name in _SRV_NUMBERS}
    return said


def _fits(name: str | None) -> bool:
    """Whether it is a name to the schema (basictypes.rng, dnsName), which knows no underscores."""
    return name is None or "_" not in name


def _said(**values: str | None) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None}
