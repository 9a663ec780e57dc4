"""What one JSON object lacks to be another, and the way back (JSON Merge Patch, RFC 7396)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def difference(have: Mapping[str, Any], want: Mapping[str, Any]) -> dict[str, Any]:
    """The patch that makes ``want`` of ``have``; empty when they are equal."""
    patch: dict[str, Any] = dict.fromkeys(have.keys() - want.keys())
    for key, value in want.items():
        if key in have and have[key] == value:
            continue
        mine = have.get(key)
        both = isinstance(mine, Mapping) and isinstance(value, Mapping)
        patch[key] = difference(mine, value) if both and isinstance(mine, Mapping) else value
    return dict(sorted(patch.items()))


def patched(have: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """``have`` with the patch applied: null takes a member away, an object goes into the one that is there."""
    made = dict(have)
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        elif isinstance(value, Mapping):
            mine = made.get(key)
            made[key] = patched(mine if isinstance(mine, Mapping) else {}, value)
        else:
            made[key] = value
    return made
