"""Random matches and actions that Open vSwitch accepts."""

from __future__ import annotations

from typing import Any, Literal

from hypothesis import strategies as st

from controller.openflow import actions as act
from controller.openflow.conntrack import Ct, CtClear, Nat, Zone
from controller.openflow.learn import Learn, LearnSpec
from controller.openflow.match import Match
from controller.openflow.oxm import FIELDS, Field, format_value

# What os-ken has no name for, and what it sorts in front of its prerequisite.
NOT_IN_OSKEN = {n for n in FIELDS if n.startswith(("ct_nw_", "ct_ipv6_", "ct_tp_"))} | {
    "nd_reserved",
    "nd_options_type",
}
SORTED_ELSEWHERE = {"ip_frag", "nw_ttl"}
# What Open vSwitch has no use for in a match; packet_type makes other fields invalid.
NOT_IN_OVS = {"in_phy_port", "packet_type", "nd_reserved", "nd_options_type"}

IP4, IP6 = {"eth_type": 0x0800}, {"eth_type": 0x86DD}
BASES: list[dict[str, int]] = [
    {}, IP4, IP6, {"eth_type": 0x0806}, {"eth_type": 0x8847},
    IP4 | {"ip_proto": 6}, IP4 | {"ip_proto": 17}, IP4 | {"ip_proto": 132}, IP4 | {"ip_proto": 1},
    IP6 | {"ip_proto": 6}, IP6 | {"ip_proto": 17}, IP6 | {"ip_proto": 132}, IP6 | {"ip_proto": 58},
    IP6 | {"ip_proto": 58, "icmpv6_type": 135, "icmpv6_code": 0},
    IP6 | {"ip_proto": 58, "icmpv6_type": 136, "icmpv6_code": 0},
    IP4 | {"ct_state": 0x22}, IP6 | {"ct_state": 0x21, "ct_nw_proto": 17},
]  # fmt: skip
REGISTERS = [f"reg{i}" for i in range(16)]
WIDE = [f"xreg{i}" for i in range(8)] + [f"xxreg{i}" for i in range(4)]


def allowed(name: str, base: dict[str, int]) -> bool:
    """Whether the base satisfies what the field needs."""
    if name in base or name in ("eth_type", "vlan_pcp", "vlan_tci", "mpls_bos", *WIDE):
        return False
    if name == "ip_proto" or (name in ("icmpv6_type", "icmpv6_code") and "icmpv6_type" in base):
        return False
    if name.startswith("ct_") and name[3:6] in ("nw_", "ipv", "tp_") and "ct_state" not in base:
        return False
    if name == "ct_nw_proto" or (name == "ct_state" and "ct_nw_proto" in base):
        return False
    return all(base.get(need) in values for need, values in FIELDS[name].needs)


@st.composite
def values(draw: st.DrawFn, field: Field) -> tuple[int, int | None]:
    """A value and perhaps a mask."""
    if field.name in ("in_port", "actset_output"):
        return draw(st.integers(1, 0xFEFF)), None
    if field.name == "vlan_vid":
        return 0x1000 | draw(st.integers(0, 0xFFF)), None
    if field.name == "ip_frag":
        return draw(st.sampled_from([(0, None), (1, 1), (1, None), (0, 2)]))  # a later fragment has no ports
    if field.name == "arp_op":
        return draw(st.integers(0, 0xFF)), None  # Open vSwitch knows no higher one
    if field.name == "conj_id":
        return draw(st.integers(1, field.full)), None
    if field.name == "icmpv6_type":
        return draw(st.sampled_from([1, 2, 3, 4, 128, 129, 130])), None
    value = draw(st.integers(0, field.full))
    if not field.maskable or draw(st.booleans()):
        return value, None
    mask = draw(st.integers(1, field.full))
    if field.kind == "ipv6":
        mask |= 0xF << 124  # ovs-ofctl takes the first digits of other masks for a prefix length
    return value & mask, None if mask == field.full else mask


@st.composite
def terms(draw: st.DrawFn, without: frozenset[str] = frozenset()) -> dict[str, tuple[int, int | None]]:
    """Match terms by field name."""
    base = draw(st.sampled_from([b for b in BASES if not without & b.keys()]))
    names = [n for n in FIELDS if n not in without and allowed(n, base)]
    chosen = draw(st.lists(st.sampled_from(names), max_size=8, unique=True))
    return {n: (v, None) for n, v in base.items()} | {n: draw(values(FIELDS[n])) for n in chosen}


def matches(without: set[str] = NOT_IN_OVS) -> st.SearchStrategy[Match]:
    """Matches of fields that are not left out."""
    return terms(frozenset(without)).map(lambda t: Match.of(**t))


def osken_value(field: Field, value: int) -> Any:
    """A value as os-ken takes it."""
    return format_value(field, value) if field.kind in ("mac", "ipv4", "ipv6") else value


# Fields that a flow without any match may write.
WRITABLE = [
    FIELDS[n] for n in (*REGISTERS, "xreg2", "xxreg1", "metadata", "tunnel_id", "eth_src", "eth_dst", "pkt_mark")
]
WRITABLE += [FIELDS[n] for n in ("tun_ipv4_src", "tun_ipv4_dst", "tun_ipv6_src", "tun_ipv6_dst")]
PORTS = st.sampled_from([1, 2, 3, 0xFFFFFFF8, 0xFFFFFFFA, 0xFFFFFFFB, 0xFFFFFFFC, 0xFFFFFFFE])


@st.composite
def set_fields(draw: st.DrawFn) -> act.SetField:
    field = draw(st.sampled_from(WRITABLE))
    value, mask = draw(values(field))
    return act.SetField(field, value, mask)


@st.composite
def parts(draw: st.DrawFn, fields: list[Field], n_bits: int) -> tuple[Field, int]:
    """A field with at least ``n_bits`` and an offset inside it."""
    field = draw(st.sampled_from([f for f in fields if f.bits >= n_bits]))
    return field, draw(st.integers(0, field.bits - n_bits))


@st.composite
def copies(draw: st.DrawFn) -> act.CopyField:
    n_bits = draw(st.integers(1, 64))
    (src, src_ofs), (dst, dst_ofs) = draw(parts(WRITABLE, n_bits)), draw(parts(WRITABLE, n_bits))
    return act.CopyField(src, src_ofs, dst, dst_ofs, n_bits)


@st.composite
def output_regs(draw: st.DrawFn) -> act.OutputReg:
    field, start = draw(parts([FIELDS[n] for n in REGISTERS], 16))
    return act.OutputReg(field, start, 16)


def controllers() -> st.SearchStrategy[act.Controller]:
    return st.builds(
        act.Controller,
        userdata=st.binary(min_size=1, max_size=40),
        max_len=st.sampled_from([0, 128, 0xFFFF]),
        reason=st.integers(0, 5),
        controller_id=st.integers(0, 0xFFFF),
        pause=st.booleans(),
    )


@st.composite
def learn_specs(draw: st.DrawFn) -> LearnSpec:
    regs = [FIELDS[n] for n in REGISTERS]
    n_bits = draw(st.integers(1, 32))
    dst, dst_ofs = draw(parts(regs, n_bits))
    src, src_ofs = draw(parts([*regs, FIELDS["eth_src"], FIELDS["eth_dst"]], n_bits))
    constant = draw(st.integers(0, (1 << n_bits) - 1))
    return draw(
        st.sampled_from([
            LearnSpec.match(dst, src, n_bits, src_ofs=src_ofs, dst_ofs=dst_ofs),
            LearnSpec.match(dst, constant, n_bits, dst_ofs=dst_ofs),
            LearnSpec.match(FIELDS["eth_dst"], FIELDS["eth_src"]),
            LearnSpec.match(FIELDS["eth_type"], 0x0800),
            LearnSpec.load(dst, src, n_bits, src_ofs=src_ofs, dst_ofs=dst_ofs),
            LearnSpec.load(dst, constant, n_bits, dst_ofs=dst_ofs),
            LearnSpec.load(FIELDS["reg4"], FIELDS["in_port"], 16),
            LearnSpec.output(FIELDS["in_port"]),
            LearnSpec.output(FIELDS["reg1"], 16),
        ])
    )  # fmt: skip


def learns() -> st.SearchStrategy[Learn]:
    return st.builds(
        Learn,
        table=st.integers(1, 200),
        specs=st.lists(learn_specs(), max_size=5).map(tuple),
        priority=st.integers(1, 0xFFFF),
        idle_timeout=st.integers(0, 600),
        hard_timeout=st.integers(0, 600),
        cookie=st.integers(0, 1 << 63),
        flags=st.integers(0, 3),
        limit=st.sampled_from([0, 0, 5, 1000]),
        fin_idle_timeout=st.integers(0, 9),
        fin_hard_timeout=st.integers(0, 9),
        result=st.none() | st.tuples(st.sampled_from([FIELDS["reg1"], FIELDS["reg7"]]), st.integers(0, 31)),
    )


def simple_actions() -> st.SearchStrategy[act.Action]:
    """Actions that need no prerequisite, and that os-ken has too."""
    return st.one_of(
        PORTS.map(act.Output),
        output_regs(),
        set_fields(),
        copies(),
        st.just(act.SetField(FIELDS["in_port"], 0)),
        st.sampled_from([0x8100, 0x88A8]).map(act.PushVlan),
        st.builds(act.Resubmit, st.integers(0, 253), st.sampled_from([0xFFF8, 0, 1, 7])),
        controllers(),
        learns(),
        st.just(CtClear()),
        st.binary(min_size=6, max_size=6).map(act.Note),
    )


ADDRESSES4 = st.integers(1, 0xFFFFFFFE).map(lambda v: format_value(FIELDS["ipv4_src"], v))
ADDRESSES6 = st.integers(1, (1 << 128) - 2).map(lambda v: format_value(FIELDS["ipv6_src"], v))


@st.composite
def nats(draw: st.DrawFn, addresses: st.SearchStrategy[str]) -> Nat:
    kinds: list[Literal["src", "dst"] | None] = [None, "src", "dst"]
    kind = draw(st.sampled_from(kinds))
    if kind is None:
        return Nat()
    if draw(st.booleans()):
        return Nat(kind)
    address = draw(addresses)
    port = draw(st.sampled_from([0, 80, 1024]))
    top = port + draw(st.integers(1, 100)) if port and draw(st.booleans()) else 0
    random = {"hash", "random"} if port else {"persistent"}
    flags = frozenset(draw(st.sampled_from([*random]).map(lambda f: {f}))) if draw(st.booleans()) else frozenset()
    return Nat(kind, address, "", port, top, flags)


@st.composite
def tracks(draw: st.DrawFn, addresses: st.SearchStrategy[str] = ADDRESSES4) -> Ct:
    """ct actions, for a flow that matches IP."""
    commit = draw(st.booleans())
    nat = draw(nats(addresses))
    inner: list[act.Action] = [nat] if nat.kind is None or commit else []
    if commit and draw(st.booleans()):
        inner.append(act.SetField(FIELDS["ct_mark"], *draw(values(FIELDS["ct_mark"]))))
        inner.append(act.SetField(FIELDS["ct_label"], *draw(values(FIELDS["ct_label"]))))
    zone: int | Zone = draw(st.one_of(st.integers(0, 0xFFFF), st.just(Zone(FIELDS["reg3"], 16))))
    table = draw(st.sampled_from([255, 7, 200]))
    return Ct(commit, zone, table, tuple(inner), commit and draw(st.booleans()))


def flow_actions() -> st.SearchStrategy[tuple[act.Action, ...]]:
    """Action lists that Open vSwitch takes in a flow without a match."""
    own = st.one_of(
        simple_actions(),
        st.builds(act.CheckPktLarger, st.integers(64, 9000), st.just(FIELDS["reg5"]), st.integers(0, 31)),
        st.lists(st.one_of(PORTS.map(act.Output), set_fields()), min_size=1, max_size=3).map(
            lambda a: act.Clone(tuple(a))
        ),
    )

    def at_most_two_tags(found: list[act.Action]) -> bool:
        return sum(isinstance(a, act.PushVlan) for a in found) <= 2

    return st.lists(own, max_size=5).filter(at_most_two_tags).map(tuple)
