"""Real switches as the codec's tests have them, rows as the engine's."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

for _room in ("openflow", "engine"):
    sys.path.insert(0, str(Path(__file__).parent.parent / _room))

from openflow_vswitch import Vswitch, running  # noqa: E402


@pytest.fixture(scope="session")
def vswitch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vswitch]:
    with running(tmp_path_factory.mktemp("ovs")) as switch:
        yield switch
