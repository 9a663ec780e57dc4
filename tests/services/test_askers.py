"""Who asks: the vNIC that the rows say is at an OpenFlow port, as they change."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from controller.desired import Desired
from controller.store.rows import Change, Row


def change(name: str, **status: Any) -> Change:
    told = {"vm_uuid": "u", "mac": "52:54:00:00:00:01", "network": "web", "state": "active", **status}
    return Change("Port", name, None, Row("Port", name, status=told) if status else None)


def test_a_vnic_is_found_where_its_row_says_and_nowhere_else() -> None:
    desired = Desired(SimpleNamespace())  # type: ignore[arg-type]

    def at(host: str, ofport: int) -> str | None:
        found = desired.vnic_at(host, ofport)
        return found[0] if found is not None else None

    desired.take([change("a", host="h1", ofport=5), change("b", host="h2", ofport=5)])
    assert [at("h1", 5), at("h2", 5), at("h1", 6)] == ["a", "b", None]
    desired.take([change("a", host="h2", ofport=7)])
    assert [at("h1", 5), at("h2", 7)] == [None, "a"]
    desired.take([change("c", host="h2", ofport=7, state="quarantined")])
    assert at("h2", 7) == "a"
    desired.take([change("a", host="h2", ofport=7, state="down")])
    assert at("h2", 7) is None
    desired.take([change("a"), change("b"), change("c")])
    assert [at("h2", 5), at("h2", 7)] == [None, None]
    assert not desired._at
