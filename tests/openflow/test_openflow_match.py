"""Matches and actions as values: what is refused, and how they read."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from openflow_strategies import matches

from controller.errors import PipelineError
from controller.openflow import actions as act
from controller.openflow.conntrack import Ct, Nat, Zone
from controller.openflow.decode_flow import decode_match
from controller.openflow.learn import Learn, LearnSpec
from controller.openflow.match import Match
from controller.openflow.names import Names
from controller.openflow.oxm import FIELDS, Field, format_value, parse_value

REG0 = FIELDS["reg0"]


@pytest.mark.parametrize(
    ("terms", "field", "what"),
    [
        ({"eth_colour": 1}, "eth_colour", "no such match field"),
        ({"ipv4_src": "10.0.0.1"}, "ipv4_src", "needs eth_type=0x800"),
        ({"eth_type": 0x86DD, "ipv4_src": "10.0.0.1"}, "ipv4_src", "contradicts eth_type=0x86dd"),
        ({"eth_type": 0x0800, "ip_proto": 17, "tcp_dst": 80}, "tcp_dst", "contradicts ip_proto=0x11"),
        ({"eth_type": 0x0800, "tcp_dst": 80}, "tcp_dst", "needs ip_proto=0x6"),
        ({"ip_proto": 6}, "ip_proto", "needs eth_type"),
        ({"eth_type": 0x86DD, "ip_proto": 58, "icmpv6_type": 136, "ipv6_nd_sll": 1}, "ipv6_nd_sll", "contradicts"),
        ({"eth_type": 0x0800, "ct_state": "+trk", "ct_nw_src": "10.0.0.1"}, "ct_nw_src", "needs ct_state"),
        ({"vlan_pcp": 3}, "vlan_pcp", "needs vlan_vid"),
        ({"vlan_vid": 0, "vlan_pcp": 3}, "vlan_pcp", "needs vlan_vid"),
        ({"reg0": 1 << 32}, "reg0", "does not fit into 32 bits"),
        ({"vlan_vid": 0x2000}, "vlan_vid", "does not fit into 13 bits"),
        ({"metadata": -1}, "metadata", "does not fit"),
        ({"metadata": (6, 5)}, "metadata", "bits outside its mask"),
        ({"eth_type": 0x0800, "ipv4_dst": "10.0.0.1/8"}, "ipv4_dst", "bits outside its mask"),
        ({"eth_type": 0x0800, "ipv4_dst": "10.0.0.0/33"}, "ipv4_dst", "prefix length"),
        ({"eth_type": 0x0800, "ipv4_dst": "10.0.0"}, "ipv4_dst", "not a value of kind ipv4"),
        ({"eth_src": "52:54:00:00:00"}, "eth_src", "not a value of kind mac"),
        ({"eth_type": (0x0800, 0xFF00)}, "eth_type", "cannot be masked"),
        ({"in_port": 0xFFFE}, "in_port", "no port of Open vSwitch"),
        ({"ct_state": "+trk+wet"}, "ct_state", "not a list of"),
    ],
)
def test_refused(terms: dict[str, Any], field: str, what: str) -> None:
    with pytest.raises(PipelineError, match=what) as refused:
        Match.of(**terms)
    assert refused.value.where == field


@pytest.mark.parametrize(
    ("terms", "text"),
    [
        ({}, ""),
        ({"in_port": 1, "metadata": 5}, "in_port=1,metadata=0x5"),
        ({"in_port": 0xFFFFFFFE}, "in_port=LOCAL"),
        ({"eth_type": 0x0800, "ipv4_dst": "10.0.0.0/8"}, "ip,nw_dst=10.0.0.0/8"),
        ({"eth_type": 0x0800, "ipv4_dst": ("10.0.0.1", "255.0.0.1")}, "ip,nw_dst=10.0.0.1/255.0.0.1"),
        (
            {"eth_type": 0x86DD, "ip_proto": 6, "tcp_dst": 80, "ipv6_src": "fd00::/8"},
            "tcp6,tp_dst=80,ipv6_src=fd00::/8",
        ),
        ({"eth_type": 0x0806, "arp_op": 1, "arp_tpa": "10.0.0.1"}, "arp,arp_op=1,arp_tpa=10.0.0.1"),
        ({"eth_type": 0x88CC}, "dl_type=0x88cc"),
        ({"eth_dst": ("01:00:00:00:00:00", "01:00:00:00:00:00")}, "dl_dst=01:00:00:00:00:00/01:00:00:00:00:00"),
        ({"vlan_vid": 0x1005, "vlan_pcp": 2}, "dl_vlan=5,dl_vlan_pcp=2"),
        ({"ct_state": "+trk-new"}, "ct_state=+trk-new"),
        ({"reg0": (0x10, 0xF0), "reg1": 0}, "reg0=0x10/0xf0,reg1=0x0"),
        ({"reg0": (0, 0)}, ""),
    ],
)
def test_text(terms: dict[str, Any], text: str) -> None:
    assert Match.of(**terms).text() == text


def test_equal_matches_are_one_key() -> None:
    one = Match.of(eth_type=0x0800, ipv4_src="10.0.0.0/8", in_port=3)
    two = Match.of(in_port=3, ipv4_src=(0x0A000000, 0xFF000000), eth_type="0x800")
    assert one == two
    assert hash(one) == hash(two)
    assert one.get("in_port") == (3, None)
    assert one.get("ipv4_dst") is None


@given(matches(set()))
def test_decoding_gives_the_match_back(match: Match) -> None:
    data = match.encode()
    assert decode_match(data) == (match.canonical(), len(data))


def test_canonical_splits_wide_registers() -> None:
    wide = Match.of(xreg1=(0x1, 0xFFFFFFFF0000000F), xxreg2=5)
    split = Match.of(reg2=0, reg3=(1, 0xF), reg8=0, reg9=0, reg10=0, reg11=5)
    assert wide.canonical() == split


@given(matches(set()))
def test_values_survive_their_text(match: Match) -> None:
    for field, value, _ in match.terms:
        assert parse_value(field, format_value(field, value)) == value


class Own(Names):
    def term(self, field: Field, value: int, mask: int | None) -> list[str] | None:
        return [f"net={value}"] if field is REG0 else None

    def table(self, number: int) -> str:
        return {7: "forward"}.get(number, str(number))

    def part(self, field: Field, start: int, n_bits: int) -> str:
        return "net" if field is REG0 else super().part(field, start, n_bits)

    def load(self, field: Field, value: int, mask: int | None) -> str | None:
        return f"load:{value}->net" if field is REG0 else None

    def port(self, number: int) -> str:
        return {9: "tunnel"}.get(number, super().port(number))


def test_names_of_the_pipeline() -> None:
    actions = (
        act.SetField(REG0, 5), act.CopyField(REG0, 0, FIELDS["reg1"], 0, 16), act.Output(9), act.Resubmit(7),
        Ct(zone=Zone(REG0), table=7), Learn(7, (LearnSpec.load(REG0, 4, 16), LearnSpec.output(FIELDS["in_port"]))),
    )  # fmt: skip
    assert Match.of(in_port=9, reg0=5).text(Own()) == "net=5,in_port=tunnel"
    assert act.instructions_text(actions, 7, Own()) == (
        "load:5->net,move:net->reg1[0..15],output:tunnel,resubmit(,forward),ct(table=forward,zone=net),"
        "learn(table=forward,priority=32768,load:0x4->net,output:in_port[]),goto_table:forward"
    )
    assert act.instructions_text((), None, Own()) == "drop"


@pytest.mark.parametrize(
    "make",
    [
        lambda: act.SetField(REG0, 1 << 32),
        lambda: act.SetField(REG0, 3, 1),
        lambda: act.SetField(REG0, 0, 0),
        lambda: act.SetField(FIELDS["in_port"], 0x10000),
        lambda: act.CopyField(REG0, 20, REG0, 0, 16),
        lambda: act.OutputReg(REG0, 17, 16),
        lambda: act.CheckPktLarger(1500, REG0, 32),
        lambda: LearnSpec.load(REG0, 16, 4),
        lambda: LearnSpec.match(FIELDS["eth_dst"], FIELDS["eth_src"], 48, src_ofs=1),
        lambda: Nat(addr_min="10.0.0.1"),
        lambda: Nat("src", "10.0.0.300"),
        lambda: Nat("src", "10.0.0.3", flags=frozenset({"sticky"})),
        lambda: Zone(REG0, 20, 16),
        lambda: act.instructions([act.Note(bytes(60_000)), act.Note(bytes(6_000))]),
    ],
)  # fmt: skip
def test_actions_refuse_what_cannot_be(make: Any) -> None:
    with pytest.raises(PipelineError):
        make()


def test_a_block_costs_little() -> None:
    """The floor is a third of what is wanted (150,000 in a CPU second), for slow and busy machines."""
    made = 30_000
    start = time.process_time()
    for i in range(made):
        Match.of(metadata=i & 0xFF, reg0=7, eth_dst=0x525400000000 + i).encode()
    assert made / (time.process_time() - start) > 50_000
