"""Match fields of OpenFlow 1.5 as Open vSwitch knows them: number, width, prerequisites and text of each.

Numbers come from os-ken's registry. Fields that it lacks are added from ovs-fields(7) and checked against a running
Open vSwitch 3.1: the original direction of conntrack (NXM_NX 119..125) and the ND extensions (class 0x1000).
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Literal

from os_ken.ofproto import ofproto_v1_5 as ofp

from controller.errors import PipelineError

Kind = Literal["int", "mac", "ipv4", "ipv6", "hex"]
Needs = tuple[tuple[str, frozenset[int]], ...]

_KIND_BITS: dict[str, int] = {"mac": 48, "ipv4": 32, "ipv6": 128}
_LATE = 1 << 40  # sorts behind every OXM field


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """One match field. There is one object a field, compared by identity.

    ``header`` is ``class << 16 | number << 9`` without mask bit and length. ``order`` sorts a match so that a field
    stands behind its prerequisites. ``needs`` names each prerequisite with the values that satisfy it. ``flags`` are
    the names of the bits, lowest first, where ovs-ofctl writes the value as ``+a-b``. ``ovs_name`` is the name that
    ovs-ofctl takes everywhere, ``match_name`` the one that its dumps show in a match.
    """

    name: str
    header: int
    bits: int
    kind: Kind
    ovs_name: str
    nbytes: int
    order: int
    needs: Needs = ()
    flags: tuple[str, ...] = ()
    experimenter: int = 0
    match_name: str = ""
    maskable: bool = True
    full: int = field(init=False)
    _exact: int = field(init=False)
    _masked: int = field(init=False)
    _shift: int = field(init=False)
    _exact_len: int = field(init=False)
    _masked_len: int = field(init=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        extra = 4 if self.experimenter else 0
        head, masked_head = self.header | self.nbytes + extra, self.header | 0x100 | 2 * self.nbytes + extra
        if extra:
            head, masked_head = head << 32 | self.experimenter, masked_head << 32 | self.experimenter
        put(self, "full", (1 << self.bits) - 1)
        put(self, "_shift", 8 * self.nbytes)
        put(self, "_exact", head << 8 * self.nbytes)
        put(self, "_masked", masked_head << 16 * self.nbytes)
        put(self, "_exact_len", 4 + extra + self.nbytes)
        put(self, "_masked_len", 4 + extra + 2 * self.nbytes)
        if not self.match_name:
            put(self, "match_name", self.ovs_name)

    def encode(self, value: int, mask: int | None = None) -> bytes:
        """The OXM TLV: header, value and, with a mask, mask."""
        if mask is None:
            return (self._exact | value).to_bytes(self._exact_len, "big")
        return (self._masked | value << self._shift | mask).to_bytes(self._masked_len, "big")

    def id(self) -> bytes:
        """The header as an OXM id, as copy-field, learn and output-to-field name a field."""
        head = (self.header | self.nbytes + (4 if self.experimenter else 0)).to_bytes(4, "big")
        return head + self.experimenter.to_bytes(4, "big") if self.experimenter else head

    def __repr__(self) -> str:
        return f"Field({self.name})"


_IPV4, _IPV6, _IP = frozenset({0x0800}), frozenset({0x86DD}), frozenset({0x0800, 0x86DD})
_ARP, _MPLS = frozenset({0x0806, 0x8035}), frozenset({0x8847, 0x8848})


def _eth(values: frozenset[int]) -> Needs:
    return (("eth_type", values),)


def _proto(number: int, eth: frozenset[int]) -> Needs:
    return (*_eth(eth), ("ip_proto", frozenset({number})))


def _nd(*types: int) -> Needs:
    return (*_proto(58, _IPV6), ("icmpv6_type", frozenset(types)))


_NEEDS: dict[str, Needs] = {
    **dict.fromkeys(("ip_dscp", "ip_ecn", "ip_proto", "ip_frag", "nw_ttl"), _eth(_IP)),
    **dict.fromkeys(("ipv4_src", "ipv4_dst"), _eth(_IPV4)),
    **dict.fromkeys(("ipv6_src", "ipv6_dst", "ipv6_flabel"), _eth(_IPV6)),
    **dict.fromkeys(("arp_op", "arp_spa", "arp_tpa", "arp_sha", "arp_tha"), _eth(_ARP)),
    **dict.fromkeys(("mpls_label", "mpls_tc", "mpls_bos"), _eth(_MPLS)),
    **dict.fromkeys(("tcp_src", "tcp_dst", "tcp_flags"), _proto(6, _IP)),
    **dict.fromkeys(("udp_src", "udp_dst"), _proto(17, _IP)),
    **dict.fromkeys(("sctp_src", "sctp_dst"), _proto(132, _IP)),
    **dict.fromkeys(("icmpv4_type", "icmpv4_code"), _proto(1, _IPV4)),
    **dict.fromkeys(("icmpv6_type", "icmpv6_code"), _proto(58, _IPV6)),
    **dict.fromkeys(("ipv6_nd_target", "nd_reserved", "nd_options_type"), _nd(135, 136)),
    "ipv6_nd_sll": _nd(135),
    "ipv6_nd_tll": _nd(136),
    **dict.fromkeys(("ct_nw_src", "ct_nw_dst"), _eth(_IPV4)),
    **dict.fromkeys(("ct_ipv6_src", "ct_ipv6_dst"), _eth(_IPV6)),
    "ct_nw_proto": _eth(_IP),
    **dict.fromkeys(("ct_tp_src", "ct_tp_dst"), (*_eth(_IP), ("ct_nw_proto", frozenset({6, 17, 132, 1, 58})))),
}
# Widths that are not whole bytes (OpenFlow 1.5.1 §7.2.3.8, ovs-fields(7)).
_BITS = {"vlan_vid": 13, "vlan_pcp": 3, "ip_dscp": 6, "ip_ecn": 2, "ipv6_flabel": 20, "mpls_label": 20, "mpls_tc": 3}
_BITS |= {"mpls_bos": 1, "tcp_flags": 12, "ip_frag": 2, "ct_state": 8, "tun_flags": 1}
_OVS_NAMES = {
    "ipv4_src": "ip_src", "ipv4_dst": "ip_dst", "icmpv4_type": "icmp_type", "icmpv4_code": "icmp_code",
    "ipv6_flabel": "ipv6_label", "ipv6_nd_target": "nd_target", "ipv6_nd_sll": "nd_sll", "ipv6_nd_tll": "nd_tll",
    "tunnel_id": "tun_id", "tun_ipv4_src": "tun_src", "tun_ipv4_dst": "tun_dst", "ip_ecn": "nw_ecn",
    "ip_proto": "nw_proto", "ip_frag": "ip_frag",
}  # fmt: skip
_MATCH_NAMES = {
    "eth_src": "dl_src", "eth_dst": "dl_dst", "eth_type": "dl_type", "ipv4_src": "nw_src", "ipv4_dst": "nw_dst",
    "tcp_src": "tp_src", "tcp_dst": "tp_dst", "udp_src": "tp_src", "udp_dst": "tp_dst", "sctp_src": "tp_src",
    "sctp_dst": "tp_dst", "vlan_pcp": "dl_vlan_pcp", "icmpv6_type": "icmp_type", "icmpv6_code": "icmp_code",
    "ip_frag": "nw_frag",
}  # fmt: skip
_EXACT_ONLY = {"in_port", "in_phy_port", "eth_type", "vlan_pcp", "ip_dscp", "ip_ecn", "ip_proto", "nw_ttl", "arp_op"}
_EXACT_ONLY |= {"icmpv4_type", "icmpv4_code", "icmpv6_type", "icmpv6_code", "mpls_label", "mpls_tc", "mpls_bos"}
_EXACT_ONLY |= {"conj_id", "ct_zone", "ct_nw_proto", "actset_output", "packet_type", "nd_reserved", "nd_options_type"}
_HEX = {"metadata", "tunnel_id", "pkt_mark", "ct_state", "ct_mark", "ct_label", "vlan_tci", "eth_type", "vlan_vid"}
_HEX |= {"ipv6_flabel", "tun_gbp_flags", "tun_flags", "tcp_flags", "packet_type"}
CT_FLAGS = ("new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat")
TCP_FLAGS = ("fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns")
_FLAGS = {"ct_state": CT_FLAGS, "tcp_flags": TCP_FLAGS, "tun_flags": ("oam",)}
# OVS canonicalises some names to the older NXM number with the same meaning; both decode to one Field.
_NXM_TWIN = re.compile(r"(.+)_nxm")
_SKIPPED = {"nw_tos", "ipv6_exthdr", "pbb_uca", "pbb_isid", "_recirc_id", "mpls_ttl", "in_phy_port"}
_NXM_ND = {"nd_target": "ipv6_nd_target", "nd_sll": "ipv6_nd_sll", "nd_tll": "ipv6_nd_tll", "ipv6_label": "ipv6_flabel"}
_SKIPPED -= {"in_phy_port"}  # os-ken can send it and OpenFlow defines it, though OVS never does


def _kind(name: str, size: int, type_name: str) -> Kind:
    if type_name in ("MacAddr", "IPv4Addr", "IPv6Addr"):
        return {"MacAddr": "mac", "IPv4Addr": "ipv4", "IPv6Addr": "ipv6"}[type_name]  # type: ignore[return-value]
    return "hex" if name in _HEX or size == 16 or re.fullmatch(r"x{0,2}reg\d+", name) else "int"


def _make(name: str, number: int, size: int, kind: Kind, late: bool = False) -> Field:
    return Field(
        name=name,
        header=number << 9,
        bits=_BITS.get(name, 8 * size),
        kind=kind,
        ovs_name=_OVS_NAMES.get(name, name),
        nbytes=size,
        order=number + (_LATE if late else 0),
        needs=_NEEDS.get(name, ()),
        flags=_FLAGS.get(name, ()),
        match_name=_MATCH_NAMES.get(name, ""),
        maskable=name not in _EXACT_ONLY,
    )


def _registry() -> tuple[dict[str, Field], dict[int, Field]]:
    """Every field by name, and by header with the headers of its twins."""
    fields: dict[str, Field] = {}
    twins: list[tuple[int, str]] = []
    for entry in ofp.oxm_types:
        number = entry.oxm_type
        if not isinstance(number, int) or entry.name in _SKIPPED or type(entry).__name__.endswith("Experimenter"):
            continue
        twin = _NXM_TWIN.fullmatch(entry.name)
        if twin:
            twins.append((number << 9, twin[1]))
        elif entry.name in _NXM_ND:
            twins.append((number << 9, _NXM_ND[entry.name]))
        else:
            kind = _kind(entry.name, entry.type.size, getattr(entry.type, "__name__", ""))
            late = number < ofp.OFPXMC_OPENFLOW_BASIC << 7 and entry.name in _NEEDS
            fields[entry.name] = _make(entry.name, number, entry.type.size, kind, late)
    nxm1, eric = ofp.OFPXMC_NXM_1 << 7, 0x1000 << 7
    extra: Iterable[tuple[str, int, int, Kind]] = (
        ("ct_nw_proto", nxm1 + 119, 1, "int"), ("ct_nw_src", nxm1 + 120, 4, "ipv4"),
        ("ct_nw_dst", nxm1 + 121, 4, "ipv4"), ("ct_ipv6_src", nxm1 + 122, 16, "ipv6"),
        ("ct_ipv6_dst", nxm1 + 123, 16, "ipv6"), ("ct_tp_src", nxm1 + 124, 2, "int"),
        ("ct_tp_dst", nxm1 + 125, 2, "int"), ("nd_reserved", eric + 1, 4, "int"),
        ("nd_options_type", eric + 2, 1, "int"),
    )  # fmt: skip
    for name, number, size, kind in extra:
        fields[name] = _make(name, number, size, kind, late=True)
    ordered = dict(sorted(fields.items(), key=lambda item: item[1].order))
    by_header = {f.header: f for f in ordered.values()}
    by_header.update((header, ordered[name]) for header, name in twins)
    return ordered, by_header


_FIELDS, _BY_HEADER = _registry()
FIELDS: Mapping[str, Field] = MappingProxyType(_FIELDS)
IN_PORT = FIELDS["in_port"]
# As the target of set-field OVS takes only this 16-bit twin of in_port (OFPBAC_BAD_SET_ARGUMENT for the OXM one).
IN_PORT_NXM = Field("in_port_nxm", 0, 16, "int", "in_port", 2, 0, maskable=False)


@lru_cache(maxsize=1024)
def field_of(header: int, nbytes: int, experimenter: int = 0) -> Field:
    """The field of an OXM header from the wire; an unknown one gets a name made of its numbers."""
    known = _BY_HEADER.get(header & ~0x1FF) if not experimenter else None
    if known is not None and (known.nbytes == nbytes or known is IN_PORT):
        return known
    name = f"oxm_{header >> 9:06x}_{nbytes}" + (f"_{experimenter:08x}" if experimenter else "")
    return Field(
        name, header & ~0x1FF, 8 * nbytes, "hex", name, nbytes, _LATE * 2 + (header >> 9), (), (), experimenter
    )


def _fail(fld: Field, what: str) -> PipelineError:
    return PipelineError(what, where=fld.name)


def _mac(text: str) -> int:
    if not re.fullmatch(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}", text):
        raise ValueError(text)
    return int(text.replace(":", ""), 16)


def parse_flags(fld: Field, text: str) -> tuple[int, int]:
    """``+trk-new`` as value and mask."""
    parts = re.findall(r"([+-])([a-z]+)", text)
    if not parts or "".join(s + n for s, n in parts) != text or any(n not in fld.flags for _, n in parts):
        raise _fail(fld, f"{text!r} is not a list of +flag and -flag of {', '.join(fld.flags)}")
    bits = [(1 << fld.flags.index(n), s == "+") for s, n in parts]
    return sum(b for b, on in set(bits) if on), sum({b for b, _ in bits})


def parse_value(fld: Field, raw: int | str) -> int:
    """A value as an integer; text is an address, or a number in decimal or 0x form. Raises PipelineError."""
    if isinstance(raw, int):
        value = int(raw)
    else:
        try:
            if fld.kind == "mac":
                value = _mac(raw)
            elif fld.kind == "ipv4":
                value = int.from_bytes(socket.inet_pton(socket.AF_INET, raw), "big")
            elif fld.kind == "ipv6":
                value = int.from_bytes(socket.inet_pton(socket.AF_INET6, raw), "big")
            else:
                value = int(raw, 0)
        except (ValueError, OSError):
            raise _fail(fld, f"{raw!r} is not a value of kind {fld.kind}") from None
    if not 0 <= value <= fld.full:
        raise _fail(fld, f"{value:#x} does not fit into {fld.bits} bits")
    return value


def format_value(fld: Field, value: int) -> str:
    """The value as ovs-ofctl writes it."""
    match fld.kind:
        case "mac":
            return value.to_bytes(6, "big").hex(":")
        case "ipv4":
            return socket.inet_ntop(socket.AF_INET, value.to_bytes(4, "big"))
        case "ipv6":
            return socket.inet_ntop(socket.AF_INET6, value.to_bytes(16, "big"))
        case "hex":
            return hex(value)
        case _:
            return str(value)


def prefix_mask(fld: Field, length: int) -> int:
    """The mask of a prefix of ``length`` bits."""
    if not 0 <= length <= fld.bits:
        raise _fail(fld, f"/{length} is not a prefix length of {fld.bits} bits")
    return fld.full ^ (fld.full >> length)
