"""The executor against a running Open vSwitch: what it says that a packet does is what ofproto/trace says."""

from __future__ import annotations

import asyncio
import re
import subprocess
from itertools import count

import pytest
from inspected import SECONDS, connected
from openflow_vswitch import Vswitch

from controller.openflow import execute, messages
from controller.openflow.actions import Resubmit
from controller.openflow.decode_flow import FlowDesc, decode_flow_desc
from controller.openflow.decode_groups import decode_groups
from controller.openflow.execute import Frame, Run, Tables
from controller.openflow.messages import Multipart
from controller.openflow.oxm import FIELDS, parse_value
from controller.pipeline.actions import match

_BRIDGES = count()
_MAC, _PEER = "52:54:00:00:00:01", "52:54:00:00:00:02"
_TCP = {
    "eth_src": _MAC, "eth_dst": _PEER, "eth_type": "0x0800", "ip_proto": "6", "ipv4_src": "10.0.0.1",
    "ipv4_dst": "10.0.0.2", "nw_ttl": "64", "tcp_src": "1000", "tcp_dst": "80",
}  # fmt: skip
_TRACED = f"in_port=1,tcp,dl_src={_MAC},dl_dst={_PEER},nw_src=10.0.0.1,nw_dst=10.0.0.2,nw_ttl=64,tp_src=1000,tp_dst=80"


def executed(path: str) -> Tables:
    """The tables of a bridge as they are read over OpenFlow."""

    async def read() -> Tables:
        async with connected(path) as connection:
            flows = await connection.multipart(messages.flow_desc_request(), SECONDS)
            every = messages.ALL_GROUPS.to_bytes(4, "big") + bytes(4)
            groups = await connection.multipart(messages.multipart_request(Multipart.GROUP_DESC, every), SECONDS)
            return Tables(decode_flow_desc(flows), decode_groups(groups))

    return asyncio.run(read())


def walked(vswitch: Vswitch, flows: list[str], groups: tuple[str, ...] = ()) -> tuple[Run, list[int]]:
    """What becomes of the TCP packet: by our executor, and the ports that it leaves by when Open vSwitch says it."""
    bridge = f"exe{next(_BRIDGES)}"
    path = vswitch.bridge(bridge)
    for group in groups:
        vswitch.ofctl("add-group", path, group)
    vswitch.ofctl("add-flows", path, "-", stdin="\n".join(flows))
    run = executed(path).run(1, Frame({name: parse_value(FIELDS[name], text) for name, text in _TCP.items()}))
    command = ["ovs-appctl", "-t", str(vswitch.folder / "vs.ctl")]
    said = subprocess.run(
        [*command, "ofproto/trace", bridge, _TRACED], check=True, capture_output=True, text=True
    ).stdout
    shown = subprocess.run([*command, "dpif/show"], check=True, capture_output=True, text=True).stdout
    numbers = {dp: int(of) for of, dp in re.findall(rf"{bridge}p\d (\d+)/(\d+):", shown)}
    actions = said.rpartition("Datapath actions: ")[2].splitlines()[0]
    words = re.sub(r"\([^()]*\)", "", actions.replace("clone(", "").replace(")", "),")).split(",")
    return run, sorted(numbers[word.strip(") ")] for word in words if word.strip(") ") in numbers)


@pytest.mark.parametrize(
    "flows",
    [
        ["priority=5 actions=output:2,in_port,output:1", "priority=9,udp actions=drop"],
        ["actions=load:7->reg0,resubmit(,1),resubmit(,2)", "table=1 actions=load:9->reg0",
         "table=2,reg0=9 actions=output:3"],
        ["actions=clone(load:9->reg0,output:2),resubmit(,1)", "table=1,reg0=9 actions=output:4",
         "table=1,reg0=0,priority=1 actions=output:3"],
        ["actions=load:0->in_port,output:1,output:2"],
        ["actions=load:3->reg5[4..19],output:reg5[4..19]"],
        ["actions=move:NXM_OF_IN_PORT[]->NXM_NX_REG3[0..15],resubmit(,1)", "table=1,reg3=1 actions=output:4"],
        ["actions=push_vlan:0x8100,set_field:4106->vlan_vid,resubmit(,1)",
         "table=1,dl_vlan=10 actions=output:2,strip_vlan,resubmit(,2)",
         "table=2,vlan_tci=0 actions=output:3"],
        ["actions=set_field:02:00:00:00:00:05->eth_dst,resubmit(,1)",
         "table=1,dl_dst=00:00:00:00:00:00/01:00:00:00:00:00 actions=output:2"],
        ["tcp,tp_dst=0x50/0xfff0,nw_src=10.0.0.0/30 actions=output:2", "priority=3,ct_state=-trk actions=drop"],
        ["table=0,ip,nw_dst=10.0.0.3 actions=output:2"],
        ["ip actions=dec_ttl,resubmit(,1)", "table=1,ip,nw_ttl=63 actions=output:2"],
        ["actions=set_field:0xfe800000000000070000000000000009->xxreg2,resubmit(,1)",
         "table=1,reg8=0xfe800000,reg9=7,reg11=9,xxreg2=0xfe800000000000070000000000000009 actions=output:2"],
        ["actions=learn(table=1,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],output:NXM_OF_IN_PORT[]),goto_table:2",
         "table=2 actions=output:4"],
        ["actions=load:0x10->reg1,learn(table=1,limit=1,result_dst=NXM_NX_REG1[4],NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[]),goto_table:2",
         "table=2,reg1=0x10/0x10 actions=output:4"],
    ],
)  # fmt: skip
def test_packets_leave_by_the_ports_that_open_vswitch_says(vswitch: Vswitch, flows: list[str]) -> None:
    run, expected = walked(vswitch, flows)
    assert run.unknown == ""
    assert sorted(sent.port for sent in run.sent) == expected


@pytest.mark.parametrize(
    "group",
    [
        "group_id=1,type=all,bucket=set_field:7->reg0,resubmit(,1),bucket=resubmit(,1),output:2",
        "group_id=1,type=indirect,bucket=output:3",
        "group_id=1,type=all,bucket=output:1",
    ],
)
def test_groups_that_do_not_choose(vswitch: Vswitch, group: str) -> None:
    flows = ["actions=group:1,resubmit(,2)", "table=1,reg0=7 actions=output:3", "table=2,reg0=0 actions=output:4"]
    run, expected = walked(vswitch, flows, (group,))
    assert run.unknown == ""
    assert sorted(sent.port for sent in run.sent) == expected


@pytest.mark.parametrize(
    ("flows", "said"),
    [
        (["ip actions=output:2,ct(table=1)"], "action ct(table=1)"),
        (["actions=output:2,NORMAL"], "output to NORMAL"),
        (["actions=output:2,group:1"], "group 1 (select), which chooses a bucket"),
        (["priority=7,tcp actions=drop", "priority=7,nw_src=10.0.0.1,ip actions=output:2"], "two flows of priority 7"),
        (["ip actions=output:2,load:1->NXM_NX_IP_TTL[],dec_ttl"], "a packet whose TTL is over"),
        (["tcp,tp_dst=80 actions=conjunction(9,1/2)"], "conjunctive match conjunction(9,1/2)"),
        (["actions=output:2,resubmit(,1)", "table=1 actions=resubmit(,1)"], "more resubmits than Open vSwitch does"),
    ],
)
def test_what_cannot_be_modelled_is_named_and_ends_the_walk(vswitch: Vswitch, flows: list[str], said: str) -> None:
    run, _ = walked(vswitch, flows, ("group_id=1,type=select,bucket=output:3,bucket=output:4",))
    assert said in run.unknown
    assert [sent.port for sent in run.sent] == ([2] if "output:2," in flows[0] else [])


def test_flows_that_lead_through_all_flows_again_and_again_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "MOST_FLOWS", 10_000)
    others = [FlowDesc(1, 5, number, match(eth_dst=f"02:00:00:00:00:{number:02x}"), (), None) for number in range(200)]
    again = Tables([FlowDesc(0, 1, 1, match(), (Resubmit(1),) * 1000, None), *others])
    few = Tables([FlowDesc(0, 1, 1, match(), (Resubmit(1),) * 10, None), *others])
    frame = Frame({"eth_dst": 1, "eth_src": 2})
    assert "more than 10000 flows" in again.run(1, frame).unknown
    for _ in range(10):
        assert few.run(1, frame).unknown == "", "of one packet"
