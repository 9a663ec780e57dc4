"""Flows as an os-ken application sends them: an object for each, encoded and sent by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator

from os_ken.ofproto import ofproto_protocol, ofproto_v1_5_parser

from .bare import flows_alone, write_all
from .processes import cpu
from .sinks import BUNDLE_ADD
from .vswitchd import Vswitchd

_FLOW_MOD = 14
_MATCH = 48  # where the match stands in a flow-mod (OpenFlow 1.5.1, 7.3.4.2)


def os_ken(switch: Vswitchd, told: bytes) -> float:
    """Processor seconds a flow, of ovs-vswitchd and of ours from the object's making on, of the flows in those bytes
    that os-ken knows how to say."""
    parts = [*_decoded(told)]
    datapath = ofproto_protocol.ProtocolDesc(6)
    switch.empty()
    with switch.sockets() as sockets:
        sock = sockets[0]
        its, spent = cpu([switch.pid]), time.thread_time()
        for number, (head, match, instructions) in enumerate(parts):
            cookie, mask, table, command, idle, hard, priority = head
            message = ofproto_v1_5_parser.OFPFlowMod(
                datapath, cookie, mask, table, command, idle, hard, priority, match=match, instructions=instructions
            )
            message.set_xid(number)
            message.serialize()
            sock.sendall(message.buf)
        spent = time.thread_time() - spent
        write_all([(sock, flows_alone(b""))])
        return (spent + cpu([switch.pid]) - its) / len(parts)


def _decoded(told: bytes) -> Iterator[tuple[tuple[int, ...], object, list[object]]]:
    at = 0
    while len(told) - at >= 8:
        kind, size = told[at + 1], told[at + 2] << 8 | told[at + 3]
        flow = told[at + 16 : at + size]
        at += size
        if kind != BUNDLE_ADD or flow[1] != _FLOW_MOD or flow[25]:
            continue
        head = (int.from_bytes(flow[8:16], "big"), 0, flow[24], 0, 0, 0, int.from_bytes(flow[30:32], "big"))
        try:
            match = ofproto_v1_5_parser.OFPMatch.parser(flow, _MATCH)
            to, instructions = _MATCH + (match.length + 7) // 8 * 8, []
            while to < len(flow):
                instruction = ofproto_v1_5_parser.OFPInstruction.parser(flow, to)
                instructions.append(instruction)
                to += instruction.len
            ofproto_v1_5_parser.OFPFlowMod(
                ofproto_protocol.ProtocolDesc(6), match=match, instructions=instructions
            ).serialize()
        except Exception:
            continue
        yield head, match, instructions
