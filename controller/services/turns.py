"""What waits to be done for guests, taken in turns: nobody waits longer because another asks more."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

W = TypeVar("W", bound=Hashable)
T = TypeVar("T")


class Turns(Generic[W, T]):
    """Things (T) by key, each somebody's (W). Whoever had nothing waiting goes first, as in RFC 8290, 4.2: who asks
    little is served at once, however many ask without end. Once only until the others had their turns: who asks anew
    each time that it was served does not stay a newcomer."""

    def __init__(self, most: int, most_each: int) -> None:
        self._most, self._most_each = most, most_each
        self._whose: dict[Hashable, W] = {}  # by key
        self._new: dict[W, dict[Hashable, T]] = {}  # by whose they are: in the order of their turns
        self._old: dict[W, dict[Hashable, T]] = {}  # nothing of those who went first a moment ago
        self._peak = 0  # nobody has more waiting; while many flood, few need be looked for who has most

    def __len__(self) -> int:
        return len(self._whose)

    def owner(self, key: Hashable) -> W | None:
        """Whose the thing of this key is that waits."""
        return self._whose.get(key)

    def put(self, whose: W, key: Hashable, thing: T) -> W | None:
        """Let it wait, instead of what this one had under the key. Returns whose thing was dropped for want of room:
        this one's own, or the last of those who have most waiting."""
        mine = self._new.get(whose)
        if mine is None:
            mine = self._old.get(whose)
        if mine is not None and key in mine:
            mine[key] = thing
            return None
        has = len(mine) if mine is not None else 0
        if has >= self._most_each:
            return whose
        dropped = None
        if len(self) >= self._most:
            if has + 1 >= self._peak:
                return whose
            dropped = self._longest()
            self._peak = len(self._things(dropped))
            if has + 1 >= self._peak:
                return whose
            self._drop_last(dropped)
        if mine is None:
            mine = self._new.setdefault(whose, {})
        mine[key] = thing
        self._whose[key] = whose
        self._peak = max(self._peak, len(mine))
        return dropped

    def take(self, most: int) -> dict[Hashable, T]:
        """Those whose turn it is, by key; they wait no more."""
        found: dict[Hashable, T] = {}
        while len(found) < most and self._whose:
            went_first = bool(self._new)
            round_ = self._new or self._old
            whose = next(iter(round_))
            things = round_.pop(whose)
            if things:
                key = next(iter(things))
                found[key] = things.pop(key)
                del self._whose[key]
            if things or went_first:
                self._old[whose] = things
        if not self._whose:
            self._old.clear()
        return found

    def _things(self, whose: W) -> dict[Hashable, T]:
        return self._new.get(whose) or self._old.get(whose) or {}

    def _longest(self) -> W:
        """Who has most waiting."""
        return max((*self._new, *self._old), key=lambda whose: len(self._things(whose)))

    def _drop_last(self, whose: W) -> None:
        """What this one, who has several waiting, asked last."""
        key, _ = self._things(whose).popitem()
        del self._whose[key]
