"""Three workers run the tests side by side (scripts/test); a test that measures time or loss has the machine to itself.

A module may say so of all its tests: ``pytestmark = pytest.mark.alone``. However a run is ended, what its tests made is
taken away.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from labkit.program import interruptible

# Files of this checkout that are there anyhow; only their locks count (flock(2)).
_DOOR = Path(__file__)
_ROOM = Path(__file__).parents[1] / "setup.cfg"

_TEARDOWN = 20  # seconds: a worker hears of the end after five, and has ten from then on (execnet's gateway_base)

_turn: list[int] = []  # locks that this process holds


def pytest_configure() -> None:
    interruptible()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """xdist would kill its workers ten seconds after the end, amid their teardown."""
    node.nodemanager.EXIT_TIMEOUT = _TEARDOWN


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules that are alone come first, when there is nothing that they would have to wait for; then labs, which take
    long: what is short fills the end, when one worker has no module left."""
    items.sort(key=lambda item: (not _is_alone(item.getparent(pytest.Module)), item.get_closest_marker("lab") is None))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    """Wait until nobody is alone, or nobody else is in the room; who is alone stays for all such tests that follow."""
    if not _turn:
        _enter(_is_alone(item))
    try:
        return (yield)
    finally:
        if not (_is_alone(item) and _is_alone(nextitem)):
            _leave()


def _is_alone(node: pytest.Item | pytest.Collector | None) -> bool:
    return node is not None and node.get_closest_marker("alone") is not None


def _enter(alone: bool) -> None:
    """Who waits to be alone holds the door: or else the others would come and go for ever."""
    _lock(_DOOR, fcntl.LOCK_EX)
    _lock(_ROOM, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
    if not alone:
        os.close(_turn.pop(0))


def _leave() -> None:
    while _turn:
        os.close(_turn.pop())


def _lock(path: Path, how: int) -> None:
    _turn.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    fcntl.flock(_turn[-1], how)
