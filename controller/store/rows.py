"""The values of the store: rows, changes of rows, and what can be written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from controller.errors import StoreError


@dataclass(frozen=True, slots=True)
class Row:
    """One object. ``spec`` is what the operator wants, ``status`` what was observed: JSON objects that nobody
    changes in place. ``generation`` counts the changes of the spec; 0 is a row that was only observed so far."""

    kind: str
    name: str
    spec: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    generation: int = 0
    deleting: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """A row as it was and as it is; None: there was none, there is none."""

    kind: str
    name: str
    old: Row | None
    new: Row | None


@dataclass(frozen=True, slots=True)
class Put:
    """Creates the row, or replaces its spec; an equal spec is not written. It also takes back ``MarkDeleting``: what is
    put is wanted. ``expect`` is the generation that was read: 0 that there was none, None that it does not matter."""

    kind: str
    name: str
    spec: Mapping[str, Any]
    expect: int | None = None


@dataclass(frozen=True, slots=True)
class PutStatus:
    """Replaces the status. A missing row is created when ``create`` is set, else the write is dropped: whatever was
    observed of an object that is gone does not matter any more."""

    kind: str
    name: str
    status: Mapping[str, Any]
    create: bool = False


@dataclass(frozen=True, slots=True)
class MarkDeleting:
    """Says that the row is to go, once whoever holds something for it has let go. Counts as a change of the spec, so a
    writer that read the row before is refused. A missing row is fine, unless ``expect`` says that there is one."""

    kind: str
    name: str
    expect: int | None = None


@dataclass(frozen=True, slots=True)
class Remove:
    """Takes the row away. A missing row is fine, unless ``expect`` says that there is one."""

    kind: str
    name: str
    expect: int | None = None


Write = Put | PutStatus | MarkDeleting | Remove


@dataclass(frozen=True, slots=True)
class NumberRequest:
    """A number of ``pool`` for ``name``, from ``low`` to ``high`` inclusive: the one it has, or the lowest free."""

    pool: str
    name: str
    low: int
    high: int


def dump(value: Mapping[str, Any], where: str) -> str:
    """JSON as the store keeps it: ASCII, sorted, so that equal values are equal texts. Raises StoreError."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise StoreError(f"cannot be stored as JSON: {error}", where=where) from error


def load(text: str) -> dict[str, Any]:
    """The reverse. Raises ValueError when the text holds no JSON object."""
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError("JSON nested too deep") from error
    if not isinstance(value, dict):
        raise ValueError(f"not a JSON object: {text[:40]!r}")
    return value
