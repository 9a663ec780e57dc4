"""Leases in the store of a controller that does not run."""

from __future__ import annotations

import json
import time

from e2e_fleet import Fleet
from labkit.run import run


def lease_ends(fleet: Fleet, mac: str, seconds_ago: int) -> None:
    """Have the store say that a lease ended before now: time does not pass as fast as a test would like."""
    socket = f"unix:{fleet.controller.dir}/state/store/db.sock"
    query = ["Fleetswitch", {"op": "select", "table": "DhcpLease", "where": []}]
    rows = json.loads(run(["ovsdb-client", "transact", socket, json.dumps(query)]).stdout)[0]["rows"]
    (row,) = [row for row in rows if json.loads(row["spec"])["mac"] == mac]
    spec = {**json.loads(row["spec"]), "expires": int(time.time()) - seconds_ago}
    change = {
        "op": "update",
        "table": "DhcpLease",
        "where": [["name", "==", row["name"]]],
        "row": {"spec": json.dumps(spec)},
    }
    run(["ovsdb-client", "transact", socket, json.dumps(["Fleetswitch", change])])
