"""Hosts of one version of Open vSwitch share what was made of its schema, and nothing else."""

from __future__ import annotations

import copy
import gc
import weakref
from concurrent.futures import Future
from typing import Any

from controller.idl.replica import Replica, reduce_schema
from controller.idl.session import Limits, Session
from controller.model.remotes import parse_remotes

_SCHEMA: dict[str, Any] = {
    "name": "Small",
    "version": "1.0.0",
    "tables": {"Bridge": {"columns": {"name": {"type": "string"}, "ports": {"type": {"key": "string", "max": 9}}}}},
}


def _replica(schema: dict[str, Any], *columns: str) -> Replica:
    session = Session(parse_remotes("unix:/nowhere"), "Small", Limits(), None, lambda _: Future(), lambda _: None)
    return Replica(reduce_schema(copy.deepcopy(schema), {"Bridge": columns}), session)


def test_equal_schemas_are_one_and_rows_are_not() -> None:
    one, other = (_replica(_SCHEMA, "name", "ports") for _ in range(2))
    assert one._db is other._db
    assert one.tables["Bridge"].rows is not other.tables["Bridge"].rows
    assert one.tables["Bridge"].rows.IndexEntry(name="br0").name == "br0", "made when somebody looks something up"


def test_another_version_has_its_own() -> None:
    newer, older = _replica(_SCHEMA, "name", "ports"), _replica(_SCHEMA, "name")
    assert list(newer.tables["Bridge"].columns) == ["name", "ports"]
    assert list(older.tables["Bridge"].columns) == ["name"]


def test_a_schema_is_forgotten_with_the_last_host_that_has_it() -> None:
    one, other = (_replica({**_SCHEMA, "version": "9.9.9"}, "name") for _ in range(2))
    kept = weakref.ref(one._db)
    del one
    gc.collect()
    assert kept() is other._db
    del other
    gc.collect()
    assert kept() is None, "a host that shows another one at each connection would fill the memory"
