"""Writes as one OVSDB transaction (RFC 7047 section 5.2), guarded by what the writer had read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from controller.errors import Conflict, StoreError
from controller.store.mirror import Mirror
from controller.store.rows import MarkDeleting, NumberRequest, Put, PutStatus, Remove, Row, Write, dump, load

Operation = dict[str, Any]


@dataclass(slots=True)
class _Draft:
    """One row on its way: as it is in the mirror, and as it will be.

    ``columns`` are those that are written; ``guard``: the generation must still be the same; ``broken``: the row of the
    database cannot be read; ``lasting``: the write must survive a power cut.
    """

    base: Row | None
    uuid: UUID | None
    row: Row | None
    broken: bool = False
    columns: set[str] = field(default_factory=set)
    guard: bool = False
    lasting: bool = False


@dataclass(slots=True)
class Plan:
    """The operations, and the numbers that will be had once they are committed, in the order of the requests."""

    operations: list[Operation] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)


def make_plan(mirror: Mirror, writes: Sequence[Write], requests: Sequence[NumberRequest] = ()) -> Plan:
    """Raises Conflict when an expected generation is not the mirror's, StoreError when a write cannot be stored or no
    number is left. A plan without operations has nothing to do."""
    drafts: dict[tuple[str, str], _Draft] = {}
    for write in writes:
        if write.kind not in mirror.rows:
            raise StoreError("the store has no table for this kind", where=f"{write.kind} {write.name}")
        if not write.name or "\0" in write.name:
            raise StoreError("a name must not be empty, nor hold a NUL", where=f"{write.kind} {write.name!r}")
        key = (write.kind, write.name)
        if key not in drafts:
            drafts[key] = _draft(mirror, *key)
        _apply(drafts[key], write)
    plan = Plan()
    guards: list[Operation] = []
    for draft in drafts.values():
        _add_operations(draft, guards, plan.operations)
    lasting = any(draft.lasting for draft in drafts.values())
    lasting |= _add_numbers(mirror, requests, guards, plan)
    if not plan.operations:
        return plan
    plan.operations[:0] = guards
    if lasting:
        # Without it a standalone ovsdb-server writes, but does not fsync: a power cut would take back what the
        # operator was told is stored. What was observed can be observed again.
        plan.operations.append({"op": "commit", "durable": True})
    return plan


def release_operations(mirror: Mirror, pool: str, name: str) -> list[Operation]:
    """Gives a number back; none when there is none."""
    uuid = mirror.uuid("Number", pool, name)
    return [{"op": "delete", "table": "Number", "where": is_uuid(uuid)}] if uuid else []


def _draft(mirror: Mirror, kind: str, name: str) -> _Draft:
    row, uuid = mirror.rows[kind].get(name), mirror.uuid(kind, name)
    problem = mirror.problems.get(uuid) if uuid else None
    if problem is not None and row is None:
        row = Row(kind, name, generation=problem.generation)
    return _Draft(row, uuid, row, broken=problem is not None)


def _apply(draft: _Draft, write: Write) -> None:
    row = draft.row
    match write:
        case Put():
            _expect(write, row)
            text = dump(write.spec, f"{write.kind} {write.name}")
            row = row or Row(write.kind, write.name)
            draft.guard |= write.expect is not None
            if draft.broken or not row.generation or row.deleting or dump(row.spec, "") != text:
                row = replace(row, spec=load(text), generation=row.generation + 1, deleting=False)
                draft.columns |= {"spec", "generation", "deleting"} | ({"status"} if draft.broken else set())
                draft.guard = draft.lasting = True
        case PutStatus():
            text = dump(write.status, f"{write.kind} {write.name}")
            if row is None and not write.create:
                return
            row = row or Row(write.kind, write.name)
            if draft.broken or dump(row.status, "") != text:
                row = replace(row, status=load(text))
                draft.columns.add("status")
        case MarkDeleting():
            _expect(write, row)
            draft.guard |= write.expect is not None
            if row is not None and not row.deleting:
                row = replace(row, generation=row.generation + 1, deleting=True)
                draft.columns |= {"generation", "deleting"}
                draft.guard = draft.lasting = True
        case Remove():
            _expect(write, row)
            draft.guard |= write.expect is not None
            draft.lasting = True
            row = None
    draft.row = row


def _expect(write: Put | MarkDeleting | Remove, row: Row | None) -> None:
    generation = row.generation if row else 0
    if write.expect is None or write.expect == generation:
        return
    if row is None:
        what = f"generation {write.expect} was read, but it is gone"
    elif not write.expect:
        what = f"it was not there when it was read, but has generation {generation} now"
    else:
        what = f"generation {write.expect} was read, but it has generation {generation} now"
    raise Conflict(what, where=f"{write.kind} {write.name}", remedy="read again, then write")


def _add_operations(draft: _Draft, guards: list[Operation], operations: list[Operation]) -> None:
    base, row, uuid = draft.base, draft.row, draft.uuid
    if uuid is None:
        if row is not None:
            operations.append({"op": "insert", "table": row.kind, "row": _columns(row)})
        return
    if base is None:
        return
    if row is None:
        operations.append({"op": "delete", "table": base.kind, "where": is_uuid(uuid)})
    elif draft.columns:
        changed = {column: value for column, value in _columns(row).items() if column in draft.columns}
        operations.append({"op": "update", "table": base.kind, "where": is_uuid(uuid), "row": changed})
    if draft.guard and not draft.broken:
        guards.append(still(base.kind, uuid, {"generation": base.generation}))
    elif draft.columns:
        # An update of a row that is gone would succeed and change nothing.
        guards.append(still(base.kind, uuid, {"name": base.name}))


def _add_numbers(mirror: Mirror, requests: Sequence[NumberRequest], guards: list[Operation], plan: Plan) -> bool:
    before = len(plan.operations)
    pools: dict[str, tuple[dict[str, int], set[int]]] = {}
    for request in requests:
        if request.pool not in pools:
            names = dict(mirror.numbers.get(request.pool, {}))
            pools[request.pool] = (names, set(names.values()))
        names, taken = pools[request.pool]
        uuid = mirror.uuid("Number", request.pool, request.name)
        number = names.get(request.name)
        if number is not None and request.low <= number <= request.high:
            if uuid:
                guards.append(still("Number", uuid, {"number": number}))
        else:
            number = next((n for n in range(request.low, request.high + 1) if n not in taken), None)
            if number is None:
                raise StoreError(
                    f"no number between {request.low} and {request.high} is free for {request.name!r}",
                    where=f"pool {request.pool}",
                )
            row = {"pool": request.pool, "name": request.name, "number": number}
            if uuid:
                plan.operations.append({"op": "update", "table": "Number", "where": is_uuid(uuid), "row": row})
            else:
                plan.operations.append({"op": "insert", "table": "Number", "row": row})
            names[request.name] = number
            taken.add(number)
        plan.numbers.append(number)
    return len(plan.operations) > before


def _columns(row: Row) -> dict[str, Any]:
    where = f"{row.kind} {row.name}"
    return {
        "name": row.name,
        "spec": dump(row.spec, where),
        "status": dump(row.status, where),
        "generation": row.generation,
        "deleting": row.deleting,
    }


def settle(mirror: Mirror, writes: Sequence[Write]) -> list[Write]:
    """The writes of a transaction of which nobody knows whether it was committed, for a second try: what they expected
    is not asked for again where the mirror shows that they came through."""
    settled: list[Write] = []
    for write in writes:
        row = mirror.rows[write.kind].get(write.name) if write.kind in mirror.rows else None
        match write:
            case Put(expect=int(expect)) if row and row.generation == expect + 1:
                same = not row.deleting and dump(row.spec, "") == dump(write.spec, "")
                settled.append(replace(write, expect=None) if same else write)
            case MarkDeleting(expect=int(expect)) if row and row.deleting and row.generation == expect + 1:
                settled.append(replace(write, expect=None))
            case Remove(expect=int()) if row is None:
                settled.append(replace(write, expect=None))
            case _:
                settled.append(write)
    return settled


def is_uuid(uuid: UUID) -> list[Any]:
    """A condition: this row and no other."""
    return [["_uuid", "==", ["uuid", str(uuid)]]]


def still(table: str, uuid: UUID, columns: dict[str, Any]) -> Operation:
    """Fails the transaction, with the error "timed out", unless the row has these values."""
    return {
        "op": "wait",
        "table": table,
        "timeout": 0,
        "where": is_uuid(uuid),
        "columns": list(columns),
        "until": "==",
        "rows": [columns],
    }
