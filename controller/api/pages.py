"""Lists as pages, encoded while they are sent."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from flask import Response

from controller.api.queries import DEFAULT_ITEMS, Query

_CHUNK = 200  # items that are encoded at once; json holds the interpreter, and the controller's loop needs it too


def flat(value: Any) -> dict[str, Any]:
    """A dataclass as ``asdict`` has it, with what is inside as it is: to copy that takes longer than all the rest of a
    long answer."""
    return {name: getattr(value, name) for name in type(value).__dataclass_fields__}


def page(
    items: Sequence[dict[str, Any]], query: Query, most: int | None = DEFAULT_ITEMS, sequence: int | None = None
) -> Response:
    """A page of a list, encoded while it is sent, in pieces that leave other threads their turn. ``sequence``: the
    change of the store that the whole list is as of."""
    limit, offset = query.count("limit", len(items) if most is None else most), query.count("offset", 0)
    as_of = {"sequence": sequence} if sequence is not None else {}
    head = json.dumps({"total": len(items), "limit": limit, "offset": offset, **as_of})

    def pieces() -> Iterator[str]:
        yield head[:-1] + ', "items": ['
        left = iter(items[offset : offset + limit])
        separator = ""
        while chunk := list(islice(left, _CHUNK)):
            yield separator + json.dumps(chunk)[1:-1]
            separator = ", "
        yield "]}\n"

    return Response(pieces(), content_type="application/json")
