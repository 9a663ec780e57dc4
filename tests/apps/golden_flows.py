"""An app's flows as text, compared with what stands in golden/.

FLEETSWITCH_UPDATE_GOLDEN=1 writes the files anew; read the difference before it is committed.
"""

from __future__ import annotations

import os
from pathlib import Path

from fleets import FleetRows

from apps import APPS
from controller.engine import Engine
from controller.pipeline.pipeline import Pipeline

_FOLDER = Path(__file__).parent / "golden"
PIPELINE = Pipeline(APPS)


def flows_of(app: str, fleet: FleetRows) -> str:
    """Every block of the app: its row, its hosts, its flows as ``ovs-ofctl`` would show them, each with its reason."""
    engine = Engine(PIPELINE)
    engine.update(fleet.rows())
    parts = []
    for block, made in sorted(engine.blocks.items(), key=lambda item: (item[0].scope, item[0].objects)):
        if block.app == app and made.entries:
            parts.append(f"{block.scope.name.lower()}: {block.row}, on {', '.join(sorted(made.hosts)) or 'no host'}")
            parts += [f"  {PIPELINE.text(flow)}\n      # {flow.why}" for flow in engine.flows(block)]
    return "\n".join(parts) + "\n"


def check(name: str, app: str, fleet: FleetRows) -> None:
    """The app's flows for the fleet are those of golden/NAME.txt."""
    path = _FOLDER / f"{name}.txt"
    flows = flows_of(app, fleet)
    if os.environ.get("FLEETSWITCH_UPDATE_GOLDEN"):
        path.write_text(flows)
    assert flows == path.read_text()
