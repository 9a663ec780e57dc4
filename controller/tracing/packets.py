"""The frame that a question is about, with every field that a flow may look at."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from controller.api.tracing import Question
from controller.errors import InvalidInput, PipelineError, Problem
from controller.openflow.execute import Frame
from controller.openflow.oxm import FIELDS, format_value, parse_value
from controller.tracing.places import Place

_IPV4, _IPV6, _ARP = 0x0800, 0x86DD, 0x0806
_PROTOCOLS = {"tcp": 6, "udp": 17}
_ICMP, _ICMPV6 = 1, 58
_ECHO, _ECHO_V6, _SOLICITATION = 8, 128, 135
_SOURCE_OPTION = 1  # RFC 4861, 4.6.1
_SYN = 2
_TTL = 64
_BROADCAST = 0xFFFFFFFFFFFF
# RFC 5737 and RFC 3849: addresses for examples, which nobody has.
_EXAMPLES = {4: ("192.0.2.1", "192.0.2.2"), 6: ("2001:db8::1", "2001:db8::2")}


@dataclass(frozen=True, slots=True)
class Asked:
    """A frame, its text, and what had to be assumed of it."""

    frame: Frame
    text: str
    assumed: list[str]


def packet(question: Question, source: Place, target: Place) -> Asked:
    """The frame that the question means. Raises InvalidInput for a value that is no MAC or address."""
    assumed: list[str] = []
    family = _family(question, source, target)
    sender = question.from_address or _address(source, family, 0, assumed)
    receiver = _address(target, family, 1, assumed)
    fields = {
        "eth_src": _value("eth_src", question.from_mac or source.mac),
        "eth_dst": _value("eth_dst", question.to_mac or target.mac),
    }
    if target.is_outside and not question.to_mac and question.protocol != "arp":
        assumed.append(f"the machine outside has the MAC {target.mac}, which nobody has learned")
    if question.protocol == "arp":
        fields |= _arp(fields["eth_src"], sender, receiver) if family == 4 else _nd(fields["eth_src"], sender, receiver)
        if question.to_mac:
            fields["eth_dst"] = _value("eth_dst", question.to_mac)
    else:
        fields |= _ip(question, family, sender, receiver)
    return Asked(_complete(fields, question.vlan), describe(_complete(fields, question.vlan)), assumed)


def describe(frame: Frame) -> str:
    """A frame in one line: ``tcp 10.0.0.1 → 10.0.0.2 port 80, 52:54:… → 52:54:…``."""
    fields = frame.fields

    def told(name: str) -> str:
        return format_value(FIELDS[name], fields.get(name, 0))

    match fields.get("eth_type"), fields.get("ip_proto"):
        case (0x0806, _):
            asks = f"who has {told('arp_tpa')}, tell {told('arp_spa')}"
            what = f"ARP: {asks}" if fields["arp_op"] == 1 else f"ARP: {told('arp_spa')} is at {told('arp_sha')}"
        case (0x86DD, 58) if fields.get("icmpv6_type") in {135, 136}:
            word = "who has" if fields["icmpv6_type"] == _SOLICITATION else "this is"
            what = f"ND: {word} {told('ipv6_nd_target')}, from {told('ipv6_src')}"
        case (eth_type, protocol) if eth_type in {_IPV4, _IPV6}:
            version = 4 if eth_type == _IPV4 else 6
            name = {1: "icmp", 58: "icmp6", 6: "tcp", 17: "udp"}.get(protocol or 0, f"protocol {protocol}")
            port = fields.get(f"{name}_dst")
            what = f"{name} {told(f'ipv{version}_src')} → {told(f'ipv{version}_dst')}"
            what += f" port {port}" if port is not None else ""
        case _:
            what = f"type {fields.get('eth_type', 0):#06x}"
    tags = "".join(f", VLAN {tag}" for tag in frame.tags) or ", untagged"
    return f"{what}, {told('eth_src')} → {told('eth_dst')}{tags}"


def _family(question: Question, source: Place, target: Place) -> int:
    if question.from_address:
        return 6 if ":" in question.from_address else 4
    if question.ipv6:
        return 6
    both = [{_version(address) for address in place.addresses} for place in (source, target) if place.addresses]
    return 6 if both and all(4 not in versions for versions in both) else 4


def _address(place: Place, family: int, role: int, assumed: list[str]) -> str:
    for address in place.addresses:
        if _version(address) == family:
            return address
    example = _EXAMPLES[family][role]
    assumed.append(f"no IPv{family} address of {place.called} is known: {example} stands for it")
    return example


def _ip(question: Question, family: int, sender: str, receiver: str) -> dict[str, int]:
    source, target = (("ipv4_src", "ipv4_dst"), ("ipv6_src", "ipv6_dst"))[family == 6]
    fields = {"eth_type": _IPV4 if family == 4 else _IPV6, "nw_ttl": _TTL, source: _value(source, sender),
              target: _value(target, receiver)}  # fmt: skip
    if question.protocol in _PROTOCOLS:
        name = question.protocol
        fields |= {"ip_proto": _PROTOCOLS[name], f"{name}_src": question.from_port, f"{name}_dst": question.port}
        return fields | ({"tcp_flags": _SYN} if name == "tcp" else {})
    if family == 4:
        return fields | {"ip_proto": _ICMP, "icmpv4_type": _ECHO}
    return fields | {"ip_proto": _ICMPV6, "icmpv6_type": _ECHO_V6}


def _arp(mac: int, sender: str, receiver: str) -> dict[str, int]:
    """A request to everybody (RFC 826)."""
    return {"eth_dst": _BROADCAST, "eth_type": _ARP, "arp_op": 1, "arp_spa": _value("arp_spa", sender),
            "arp_tpa": _value("arp_tpa", receiver), "arp_sha": mac, "arp_tha": 0}  # fmt: skip


def _nd(mac: int, sender: str, receiver: str) -> dict[str, int]:
    """A solicitation to the target's solicited-node group (RFC 4861, 7.2.2; RFC 2464, 7)."""
    wanted = _value("ipv6_nd_target", receiver)
    low = wanted & 0xFFFFFF
    return {
        "eth_dst": 0x3333FF000000 | low, "eth_type": _IPV6, "ip_proto": _ICMPV6, "nw_ttl": 255,
        "icmpv6_type": _SOLICITATION, "ipv6_src": _value("ipv6_src", sender),
        "ipv6_dst": _value("ipv6_dst", "ff02::1:ff00:0") | low, "ipv6_nd_target": wanted,
        "nd_options_type": _SOURCE_OPTION, "ipv6_nd_sll": mac,
    }  # fmt: skip


def _complete(fields: dict[str, int], vlan: int | None) -> Frame:
    """With zero in every field that such a frame has and nobody said anything of."""
    found = dict(fields)
    for name, field in FIELDS.items():
        has = all(found.get(other) in values for other, values in field.needs)
        if field.needs and has and not name.startswith("ct_"):
            found.setdefault(name, 0)
    return Frame(found, () if vlan is None else (vlan,))


def _value(name: str, text: str) -> int:
    try:
        return parse_value(FIELDS[name], text)
    except PipelineError:
        kind = {"mac": "MAC", "ipv4": "IPv4 address", "ipv6": "IPv6 address"}[FIELDS[name].kind]
        raise InvalidInput([Problem("trace", f"{text!r:.60} is no {kind}", "write it in full")]) from None


def _version(address: str) -> int:
    return ipaddress.ip_address(address).version


def tagged(frame: Frame, tags: Sequence[int]) -> Frame:
    """The frame with these tags."""
    return Frame(frame.fields, tuple(tags))
