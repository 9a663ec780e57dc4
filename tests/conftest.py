"""Two workers run the tests side by side (scripts/test); a test that measures time or loss has the machine to itself.

A module may say so of all its tests: ``pytestmark = pytest.mark.alone``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

# Files of this checkout that are there anyhow; only their locks count (flock(2)).
_DOOR = Path(__file__)
_ROOM = Path(__file__).parents[1] / "setup.cfg"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Labs first, which take long: what is short fills the end, when one worker has no module left."""
    items.sort(key=lambda item: item.get_closest_marker("lab") is None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    with _turn(item.get_closest_marker("alone") is not None):
        return (yield)


@contextlib.contextmanager
def _turn(alone: bool) -> Iterator[None]:
    """Wait until nobody else is in the room, or nobody who is alone in it. Who waits to be alone holds the door: or
    else the others would come and go for ever."""
    with _locked(_DOOR, fcntl.LOCK_EX) as door, _locked(_ROOM, fcntl.LOCK_EX if alone else fcntl.LOCK_SH):
        if not alone:
            fcntl.flock(door, fcntl.LOCK_UN)
        yield


@contextlib.contextmanager
def _locked(path: Path, how: int) -> Iterator[int]:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, how)
        yield handle
    finally:
        os.close(handle)
