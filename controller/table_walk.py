"""What goes between the tables of a switch, by the counters of its flows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from controller.api.inspection import Arrow, TableInfo, TableWalk
from controller.openflow.actions import Action, Clone, Output, OutputReg, Resubmit
from controller.openflow.decode_flow import FlowDesc
from controller.openflow.names import PORTS
from controller.pipeline.pipeline import Pipeline
from controller.pipeline.ports import TUNNEL_PORTS

VNICS = "vNICs"
_TUNNELS = {port: kind for kind, port in TUNNEL_PORTS.items()}

_Edge = tuple[str, str, bool]


def table_walk(host: str, pipeline: Pipeline, uplinks: Mapping[int, str], flows: Sequence[FlowDesc]) -> TableWalk:
    """The tables, and an arrow wherever a flow leads. ``uplinks``: OpenFlow port → physical network."""
    names = {number: table.name for table, number in pipeline.number.items()}
    arrows: Counter[_Edge] = Counter()
    met: Counter[int] = Counter()
    count: Counter[int] = Counter()
    dropped: Counter[int] = Counter()
    sent: Counter[int] = Counter()
    for flow in flows:
        table = names.get(flow.table, str(flow.table))
        count[flow.table] += 1
        met[flow.table] += flow.packets
        for target, returns in _targets(flow, names, uplinks):
            arrows[table, target, returns] += flow.packets
            if target not in names.values():
                sent[flow.table] += flow.packets
        if not flow.actions and flow.goto is None:
            dropped[flow.table] += flow.packets
        port = flow.match.get("in_port")
        if flow.table == 0 and port is not None:
            arrows[_kind(port[0], uplinks), table, False] += flow.packets
    known = {number: table for table, number in pipeline.number.items()}
    tables = [
        TableInfo(number, names.get(number, str(number)), known[number].stage.name.lower() if number in known else "",
                  known[number].about if number in known else "", count[number], met[number], dropped[number],
                  sent[number])
        for number in sorted({*known, *count})
    ]  # fmt: skip
    ends = {end for source, target, _ in arrows for end in (source, target)} - {table.name for table in tables}
    ports = sorted(ends, key=lambda end: (end != VNICS, end in TUNNEL_PORTS, end))
    return TableWalk(host, tables, ports, [Arrow(*edge[:2], number, edge[2]) for edge, number in arrows.items()])


def _targets(flow: FlowDesc, names: Mapping[int, str], uplinks: Mapping[int, str]) -> Iterator[tuple[str, bool]]:
    """Where each copy goes, and whether it is a look-up that comes back."""
    for action in _flat(flow.actions):
        match action:
            case Resubmit(table=table):
                yield names.get(table, str(table)), True
            case Output(port=port):
                yield _kind(port, uplinks), False
            case OutputReg():
                yield VNICS, False
    if flow.goto is not None:
        yield names.get(flow.goto, str(flow.goto)), False


def _flat(actions: Sequence[Action]) -> Iterator[Action]:
    for action in actions:
        if isinstance(action, Clone):
            yield from _flat(action.actions)
        else:
            yield action


def _kind(port: int, uplinks: Mapping[int, str]) -> str:
    """What is behind an OpenFlow port; ``in_port`` of ours is only ever a vNIC's."""
    return uplinks.get(port) or _TUNNELS.get(port) or ("controller" if PORTS.get(port) == "CONTROLLER" else VNICS)
