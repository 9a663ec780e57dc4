"""``<dnsmasq:options>`` in a network's XML: what dnsmasq would tell guests by DHCP is told here, read and written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element, SubElement

from controller.model.dhcp_options import OPTIONS, encoded, option_name
from controller.model.subnet import Dhcp
from topology.network_findings import Findings
from topology.network_rules import DNSMASQ
from topology.xml_reader import shown

_WHERE = "dnsmasq:options/dnsmasq:option@value"
_OPTION, _FORCED, _BOOT = "dhcp-option", "dhcp-option-force", "dhcp-boot"
_ROUTER, _DNS, _ROUTES = {"3", "router"}, {"6", "dns-server"}, {"121", "249", "classless-static-route"}
_DNS6 = {"option6:dns-server", "option6:23"}
_TAGGED = ("tag:", "set:", "encap:", "vi-encap:", "vendor:", "lo:")
_ANYHOW = frozenset({"dhcp-authoritative", "dhcp-sequential-ip", "dhcp-no-override", "bogus-priv", "domain-needed"})
_INSTEAD: Mapping[str, str] = {
    "address": "write <dns><host> or a <forwarder> of the domain",
    "cname": "write the name as another <hostname> in <dns><host>",
    "dhcp-host": "write <host> in <dhcp>",
    "dhcp-range": "write <range> in <dhcp>",
    "domain": "write <domain name=…/>",
    "enable-tftp": "serve TFTP from a guest or machine of yours, and name it in <bootp server=…/>",
    "tftp-root": "serve TFTP from a guest or machine of yours, and name it in <bootp server=…/>",
    "host-record": "write <dns><host>",
    "interface-name": "leave it out: the gateway has its address on every host",
    "local": "write <domain localOnly='yes'/>",
    "no-resolv": "write <forwarder> without a domain for who is asked instead",
    "server": "write <forwarder> in <dns>",
    "srv-host": "write <srv> in <dns>",
    "txt-record": "write <txt> in <dns>",
}


def read_dnsmasq(found: Findings, root: Element) -> dict[str, Any]:
    """Fields of ``dhcp``."""
    fields: dict[str, Any] = {}
    for option in root.findall(f"{{{DNSMASQ}}}options/{{{DNSMASQ}}}option"):
        value = option.get("value", "")
        name, _, rest = value.partition("=")
        if name in {_OPTION, _FORCED}:
            _read_option(found, fields, value, [each.strip() for each in rest.split(",")])
        elif name == _BOOT:
            _read_boot(found, fields, value, rest.split(","))
        elif name in _ANYHOW:
            found.warn(_WHERE, f"{shown(value)!r}: it is so anyhow")
        else:
            found.refuse(_WHERE, f"{shown(value)!r}: no dnsmasq runs here",
                         _INSTEAD.get(name, "leave it out; of dnsmasq's options dhcp-option and dhcp-boot are "
                                            "understood"))  # fmt: skip
    return fields


def write_dnsmasq(network: Element, dhcp: Dhcp) -> None:
    """What libvirt's own elements have no words for."""
    said = list(_said(dhcp))
    if said:
        options = SubElement(network, f"{{{DNSMASQ}}}options")
        for words in said:
            SubElement(options, f"{{{DNSMASQ}}}option", value=f"{_OPTION}={','.join(words)}")


def _said(dhcp: Dhcp) -> Iterator[tuple[str, ...]]:
    if servers := dhcp.dns_of(4):
        yield "6", *servers
    if servers := dhcp.dns_of(6):
        yield "option6:dns-server", *(f"[{server}]" for server in servers)
    if dhcp.router is not None:
        yield "3", *dhcp.router
    if dhcp.routes:
        yield "121", *(word for route in dhcp.routes for word in (route.to, route.via))
    for name, values in dhcp.options.items():
        if _otherwise(values) is None:
            yield f"option:{name}" if name in OPTIONS else name, *values


def _read_option(found: Findings, fields: dict[str, Any], value: str, words: list[str]) -> None:
    name, values = words[0].removeprefix("option:"), words[1:]
    if (otherwise := _otherwise(values)) is not None:
        found.refuse(_WHERE, f"{shown(value)!r}: {otherwise[0]}", otherwise[1])
    elif words[0].startswith(_TAGGED):
        found.refuse(_WHERE, f"{shown(value)!r}: guests of one network are told the same",
                     "leave it out, or make a network of its own for them")  # fmt: skip
    elif words[0] in _DNS6 and values:
        fields["dns"] = [*fields.get("dns", ()), *(server.strip("[]") for server in values)]
    elif words[0].startswith("option6:"):
        found.refuse(_WHERE, f"{shown(value)!r}: of IPv6 only name servers are told",
                     "leave it out; dhcp-option=option6:dns-server,[ADDRESS] is understood")  # fmt: skip
    elif name in _DNS and values:
        fields["dns"] = [*fields.get("dns", ()), *values]
    elif name in _ROUTER:
        _once(found, fields, "router", [each for each in values if each], value)
    elif name in _ROUTES and values:
        if len(values) % 2:
            found.refuse(_WHERE, f"{shown(value)!r}: a subnet without the address that leads there",
                         "write dhcp-option=121,10.50.0.0/16,10.10.10.7")  # fmt: skip
            return
        routes = [{"to": to, "via": via} for to, via in zip(values[::2], values[1::2], strict=True)]
        known = fields.setdefault("routes", [])
        known += [each for each in routes if each not in known]  # 249 says what 121 does
    else:
        _read_other(found, fields, value, name, values)


def _read_other(found: Findings, fields: dict[str, Any], value: str, name: str, values: list[str]) -> None:
    try:
        known = option_name(name)
        encoded(known, values)
    except ValueError as error:
        what, _, remedy = str(error).rpartition("; ")
        found.refuse(_WHERE, f"{shown(value)!r}: {shown(what, 200)}", shown(remedy, 600))
    else:
        _once(found, fields.setdefault("options", {}), known, values, value)
        if value.startswith(_FORCED):
            found.warn(_WHERE, f"{shown(value)!r}: guests are told what they ask for, by force or not")


def _once(found: Findings, fields: dict[str, Any], name: str, values: list[str], said: str) -> None:
    if fields.setdefault(name, values) != values:
        found.refuse(_WHERE, f"{shown(said)!r}: the option is there twice, with other values", "keep one of them")


def _otherwise(values: Sequence[str]) -> tuple[str, str] | None:
    """What dnsmasq would not tell as it stands there (dnsmasq(8), --dhcp-option, --conf-file), and what to do."""
    if "0.0.0.0" in values:  # noqa: S104
        return "0.0.0.0 is the machine that dnsmasq runs on", "write the gateway's address, or the server's"
    if any(mark in value for value in values for mark in '"\\'):
        return "quotes and backslashes are marks of dnsmasq's files, and not told", "write it without them"
    return None


def _read_boot(found: Findings, fields: dict[str, Any], value: str, words: list[str]) -> None:
    """``dhcp-boot=FILE[,SERVER'S NAME[,ADDRESS]]``."""
    if words[0].startswith(_TAGGED):
        found.refuse(_WHERE, f"{shown(value)!r}: guests of one network are told the same", "leave tags out")
    else:
        boot = {"file": words[0], **({"server": words[2]} if len(words) > 2 else {})}
        if fields.setdefault("boot", boot) != boot:
            refuse_boots(found)
        if len(words) > 1 and words[1]:
            found.warn(_WHERE, f"{shown(words[1])!r}: the server is told by its address alone")


def refuse_boots(found: Findings) -> None:
    """Guests boot all from the same, as a network has one DHCP server."""
    found.refuse("ip/dhcp/bootp", "several that differ: a network has one", "keep one of them")
