"""Every flow-mod that goes to a switch is, byte for byte, what os-ken makes of the same flow."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from fleets import FleetRows
from openflow_strategies import SORTED_ELSEWHERE
from os_ken.lib import type_desc
from os_ken.ofproto import ofproto_v1_5 as ofp
from os_ken.ofproto import ofproto_v1_5_parser as osk
from os_ken.ofproto import oxm_fields
from test_engine_oracle import PIPELINE, random_fleet
from test_openflow_oracle import DATAPATH, built, osken_match, to_osken

from apps import APPS
from controller.engine import Engine
from controller.model.port import Incoming
from controller.openflow import actions as act
from controller.pipeline.actions import Track
from controller.pipeline.tables import Flow

_NXM_OF_IN_PORT = "in_port_nxm"


@pytest.fixture
def nd_fields() -> Iterator[None]:
    """os-ken with the ND extensions of Open vSwitch, class 0x1000, which it lacks (ovs-fields(7))."""
    known = list(ofp.oxm_types)

    class Extended(oxm_fields._OxmClass):  # type: ignore[misc]
        _class = 0x1000

    ofp.oxm_types += [Extended("nd_reserved", 1, type_desc.Int4), Extended("nd_options_type", 2, type_desc.Int1)]
    oxm_fields.generate(ofp.__name__)
    yield
    ofp.oxm_types[:] = known
    oxm_fields.generate(ofp.__name__)


def theirs(action: Any) -> Any:
    if isinstance(action, act.CopyField):
        names = [_NXM_OF_IN_PORT if fld.name == "in_port" else fld.name for fld in (action.src, action.dst)]
        return osk.OFPActionCopyField(
            action.n_bits, action.src_ofs, action.dst_ofs, [osk.OFPOxmId(name) for name in names]
        )
    if isinstance(action, act.Controller) and action.meter_id:
        # os-ken knows no NXAC2PT_METER_ID (include/openvswitch/ofp-actions.h, nx_action_controller2)
        size = b"" if action.max_len == act.NO_BUFFER else struct.pack("!HHH2x", 0, 8, action.max_len)
        return osk.NXActionUnknown(37, bytes(6) + size + struct.pack("!HHI", 5, 8, action.meter_id))
    if isinstance(action, act.CheckPktLarger):
        # nor NXAST_CHECK_PKT_LARGER (struct ext_action_check_pkt_larger there)
        field = struct.pack("!I", action.dst.header | action.dst.nbytes)
        return osk.NXActionUnknown(49, struct.pack("!HH", action.pkt_len, action.dst_ofs) + field + bytes(6))
    return to_osken(action)


def flow_mod(flow: Flow, cookie: int) -> bytes:
    actions, target = PIPELINE._wire(flow)
    instructions = []
    if actions:
        instructions.append(osk.OFPInstructionActions(ofp.OFPIT_APPLY_ACTIONS, [theirs(a) for a in actions]))
    if target is not None:
        instructions.append(osk.OFPInstructionGotoTable(target))
    return built(
        osk.OFPFlowMod(
            DATAPATH, cookie=cookie, cookie_mask=0, table_id=PIPELINE.number[flow.table], command=ofp.OFPFC_ADD,
            priority=flow.priority, out_port=ofp.OFPP_ANY, out_group=ofp.OFPG_ANY, match=osken_match(flow.match),
            instructions=instructions,
        )
    )  # fmt: skip


def unsettled(dice: Random, fleet: FleetRows) -> FleetRows:
    """Some of its guests are on their way to another host, and some are kept out."""
    for name, port in list(fleet.ports.items()):
        others = sorted(fleet.hosts.keys() - {port.host})
        chance = dice.random()
        if chance < 0.3 and others:
            incoming = Incoming(host=dice.choice(others), tap="vnet9", ofport=50 + len(name))
            fleet.ports[name] = port.model_copy(update={"incoming": incoming})
        elif chance < 0.4:
            fleet.ports[name] = port.model_copy(update={"state": "quarantined", "reason": "a test"})
    return fleet


@pytest.mark.usefixtures("nd_fields")
def test_flow_mods_are_os_kens() -> None:
    seen: set[bytes] = set()
    by_app: Counter[str] = Counter()
    for seed in range(60):
        dice = Random(seed)
        engine = Engine(PIPELINE)
        engine.update(unsettled(dice, random_fleet(dice, False)).with_nat().rows())
        for block, content in engine.blocks.items():
            for flow, entry in zip(engine.flows(block), content.entries, strict=True):
                by_app[block.app] += 1
                if entry.add not in seen:
                    ours, its = entry.add, flow_mod(flow, entry.cookie)
                    sorted_elsewhere = SORTED_ELSEWHERE & {field.name for field, *_ in flow.match.terms}
                    # os-ken puts the padding of a nat behind what follows it.
                    if sorted_elsewhere or any(isinstance(each, Track) and each.label for each in flow.actions):
                        assert sorted(ours) == sorted(its), PIPELINE.text(flow)
                    else:
                        assert ours == its, PIPELINE.text(flow)
                    seen.add(entry.add)
    assert {app.name for app in APPS} <= by_app.keys()
    tables = {add[24] for add in seen}
    written = set(PIPELINE.number.values()) - {PIPELINE.number[t] for t in PIPELINE.tables if t.learned}
    assert tables >= written
