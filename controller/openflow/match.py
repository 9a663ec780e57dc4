"""Match: the condition of a flow, canonical and hashable."""

from __future__ import annotations

from dataclasses import dataclass

from controller.errors import PipelineError
from controller.openflow.names import PLAIN, Names
from controller.openflow.oxm import FIELDS, Field, format_value, parse_flags, parse_value, prefix_mask

Term = tuple[Field, int, int | None]
Value = int | str | tuple[int | str, int | str | None]

_PROTOCOLS = {
    (0x0800, 1): "icmp", (0x0800, 6): "tcp", (0x0800, 17): "udp", (0x0800, 132): "sctp",
    (0x86DD, 58): "icmp6", (0x86DD, 6): "tcp6", (0x86DD, 17): "udp6", (0x86DD, 132): "sctp6",
}  # fmt: skip
_ETHERTYPES = {0x0800: "ip", 0x86DD: "ipv6", 0x0806: "arp", 0x8035: "rarp"}
_FRAGMENTS = {(0, None): "no", (1, 1): "yes", (1, None): "first", (3, None): "later", (0, 2): "not_later"}
_VLAN_PRESENT = 0x1000
_PADS = tuple(bytes(n) for n in range(8))
_ETH_TYPE, _IP_PROTO, _VLAN = FIELDS["eth_type"], FIELDS["ip_proto"], FIELDS["vlan_vid"]
_CT_TUPLE = {f for n, f in FIELDS.items() if n.startswith(("ct_nw_", "ct_ipv6_", "ct_tp_"))}


def _order(term: Term) -> int:
    return term[0].order


def parse_term(fld: Field, raw: Value) -> Term | None:
    """One condition from what an app wrote; ``None`` for a mask of zeros, which matches everything."""
    mask: int | None = None
    if isinstance(raw, int):
        value = int(raw)
        if not 0 <= value <= fld.full:
            raise PipelineError(f"{value:#x} does not fit into {fld.bits} bits", where=fld.name)
    elif isinstance(raw, tuple):
        value, mask = _pair(fld, *raw)
    elif fld.flags and raw[:1] in ("+", "-"):
        value, mask = parse_flags(fld, raw)
    elif "/" in raw:
        address, _, suffix = raw.partition("/")
        if fld.kind in ("ipv4", "ipv6") and suffix.isdecimal():
            value, mask = _pair(fld, address, prefix_mask(fld, int(suffix)))
        else:
            value, mask = _pair(fld, address, suffix)
    else:
        value = parse_value(fld, raw)
    if fld.name in ("in_port", "actset_output") and 0xFF00 <= value < 0xFFFFFF00:
        raise PipelineError(f"{value:#x} is no port of Open vSwitch, whose ports have 16 bits", where=fld.name)
    if mask is None or mask == fld.full:
        return fld, value, None
    if not fld.maskable:
        raise PipelineError(f"cannot be masked (mask {mask:#x})", where=fld.name)
    if value & ~mask:
        raise PipelineError(f"value {value:#x} has bits outside its mask {mask:#x}", where=fld.name)
    return (fld, value, mask) if mask else None


def _pair(fld: Field, value: int | str, mask: int | str | None) -> tuple[int, int | None]:
    return parse_value(fld, value), None if mask is None else parse_value(fld, mask)


@dataclass(frozen=True, slots=True)
class Match:
    """``terms`` in wire order: a field stands behind its prerequisites. Build with :meth:`of`."""

    terms: tuple[Term, ...] = ()

    @classmethod
    def of(cls, **terms: Value) -> Match:
        """A match from field names and values (int, text, or a pair of value and mask; ``"10.0.0.0/8"`` for addresses).

        Raises PipelineError that names the field: unknown, out of range, bits outside the mask, prerequisite missing
        or contradictory.
        """
        found: list[Term] = []
        for name, raw in terms.items():
            fld = FIELDS.get(name)
            if fld is None:
                raise PipelineError("no such match field", where=name)
            if type(raw) is int and 0 <= raw < 0xFF00 and raw <= fld.full:  # the hot case
                found.append((fld, raw, None))
                continue
            term = parse_term(fld, raw)
            if term is not None:
                found.append(term)
        return cls.build(found)

    @classmethod
    def build(cls, terms: list[Term]) -> Match:
        """A match from parsed terms, sorted and checked for prerequisites."""
        if len(terms) > 1:
            terms.sort(key=_order)
        for fld, _, _ in terms:
            if fld.needs:
                _check(fld, terms)
            elif fld.name == "vlan_pcp":
                _check_vlan(terms)
        return cls(tuple(terms))

    def canonical(self) -> Match:
        """The same condition with xregN and xxregN split into regN, as Open vSwitch joins them at will."""
        if not any(f.name[0] == "x" for f, _, _ in self.terms):
            return self
        found: list[Term] = []
        for fld, value, mask in self.terms:
            found.extend(
                _split(fld, value, fld.full if mask is None else mask) if fld.name[0] == "x" else [(fld, value, mask)]
            )
        found.sort(key=_order)
        return Match(tuple(found))

    def encode(self) -> bytes:
        """ofp_match with its OXM TLVs, padded to 8 bytes (OpenFlow 1.5.1 §7.2.3)."""
        body = b"".join([f.encode(v, m) for f, v, m in self.terms])
        size = len(body) + 4
        return b"\0\1" + size.to_bytes(2, "big") + body + _PADS[-size % 8]

    def get(self, name: str) -> tuple[int, int | None] | None:
        """Value and mask of a field, or ``None``."""
        return next(((v, m) for f, v, m in self.terms if f.name == name), None)

    def text(self, names: Names = PLAIN) -> str:
        """As ovs-ofctl takes it; ``names`` may write registers, ports and tables its own way."""
        exact = {f: v for f, v, m in self.terms if m is None}
        eth, proto = exact.get(_ETH_TYPE), exact.get(_IP_PROTO)
        parts: list[str] = []
        skip: set[Field] = set()
        if eth is not None and (eth, proto) in _PROTOCOLS:
            parts.append(_PROTOCOLS[eth, proto or 0])
            skip = {_ETH_TYPE, _IP_PROTO}
        elif eth in _ETHERTYPES:
            parts.append(_ETHERTYPES[eth or 0])
            skip = {_ETH_TYPE}
        for fld, value, mask in self.terms:
            if fld not in skip:
                own = names.term(fld, value, mask)
                parts.extend([term_text(fld, value, mask, names)] if own is None else own)
        return ",".join(parts)


EVERYTHING = Match()


def term_text(fld: Field, value: int, mask: int | None, names: Names = PLAIN) -> str:
    """One condition in ovs-ofctl's words.

    An IPv6 mask that is no prefix and begins with a decimal digit reads as ovs-ofctl dumps it, but ovs-ofctl 3.1 cannot
    read it back: it takes the digits for a prefix length.
    """
    if fld is _VLAN and value & _VLAN_PRESENT and mask is None:
        return f"dl_vlan={value & 0xFFF}"
    if fld.name == "in_port":
        return f"in_port={names.port(value)}"
    if fld.name == "ip_frag" and (value, mask) in _FRAGMENTS:
        return f"{fld.match_name}={_FRAGMENTS[value, mask]}"
    if fld.flags and (mask is not None or fld.name == "ct_state"):
        named = fld.full if mask is None else mask
        if named < 1 << len(fld.flags):
            return f"{fld.match_name}={flags_text(fld, value, named)}"
    if mask is None:
        return f"{fld.match_name}={format_value(fld, value)}"
    return f"{fld.match_name}={format_value(fld, value)}/{_mask_text(fld, mask)}"


def flags_text(fld: Field, value: int, mask: int) -> str:
    """``+a-b`` for the bits of the mask."""
    on = "".join(f"+{n}" for i, n in enumerate(fld.flags) if mask >> i & 1 and value >> i & 1)
    off = "".join(f"-{n}" for i, n in enumerate(fld.flags) if mask >> i & 1 and not value >> i & 1)
    return on + off


def _mask_text(fld: Field, mask: int) -> str:
    if fld.kind in ("ipv4", "ipv6"):
        zeros = (mask ^ fld.full).bit_length()
        if mask == fld.full ^ ((1 << zeros) - 1):
            return str(fld.bits - zeros)
    return format_value(fld, mask) if fld.kind in ("mac", "ipv4", "ipv6") else hex(mask)


def _check(fld: Field, terms: list[Term]) -> None:
    for name, values in fld.needs:
        for other, value, mask in terms:
            if other.name == name:
                if mask is not None or value not in values:
                    have = hex(value) if mask is None else f"{value:#x}/{mask:#x}"
                    raise PipelineError(f"contradicts {name}={have}; needs {_any(name, values)}", where=fld.name)
                break
        else:
            raise PipelineError(f"needs {_any(name, values)} in the same match", where=fld.name)
    if fld in _CT_TUPLE and not _tracked(terms):
        raise PipelineError("needs ct_state with +trk and one more + flag other than +inv", where=fld.name)


def _tracked(terms: list[Term]) -> bool:
    """Whether the original tuple is known: Open vSwitch refuses it beside a bare +trk (measured, BAD_PREREQ)."""
    state = next((v for f, v, _ in terms if f.name == "ct_state"), 0)
    return bool(state & 0x20 and state & 0xCF and not state & 0x10)


def _check_vlan(terms: list[Term]) -> None:
    vlan = next(((v, m) for f, v, m in terms if f is _VLAN), None)
    if vlan is None or not vlan[0] & _VLAN_PRESENT:
        raise PipelineError("needs vlan_vid with the present bit 0x1000 in the same match", where="vlan_pcp")


def _any(name: str, values: frozenset[int]) -> str:
    return " or ".join(f"{name}={v:#x}" for v in sorted(values))


def _split(fld: Field, value: int, mask: int) -> list[Term]:
    words = fld.bits // 32
    first = int(fld.name.lstrip("xreg")) * words
    found: list[Term] = []
    for i in range(words):
        shift = 32 * (words - 1 - i)
        part = mask >> shift & 0xFFFFFFFF
        if part:
            reg = FIELDS[f"reg{first + i}"]
            found.append((reg, value >> shift & 0xFFFFFFFF, None if part == 0xFFFFFFFF else part))
    return found
