"""The schema of our own database: one table a kind, numbers, leases, events. A kind is added by adding its table."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

DATABASE = "Fleetswitch"
KIND_COLUMNS = ("name", "spec", "status", "generation", "deleting")
NUMBER_COLUMNS = ("pool", "name", "number")
LEASE_COLUMNS = ("name", "owner", "epoch", "beat")


def schema_path() -> Path:
    """The file that ovsdb-tool takes."""
    return Path(str(files("controller.store") / "fleetswitch.ovsschema"))


@cache
def load_schema() -> dict[str, Any]:
    """The schema as JSON."""
    schema: dict[str, Any] = json.loads(schema_path().read_text())
    return schema


@cache
def kinds() -> tuple[str, ...]:
    """The kinds that the schema has a table for."""
    tables = load_schema()["tables"]
    return tuple(name for name, table in tables.items() if set(KIND_COLUMNS) <= table["columns"].keys())
